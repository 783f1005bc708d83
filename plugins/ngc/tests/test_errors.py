"""Every answer that is no success, as the error it means."""

from __future__ import annotations

import datetime
from email.utils import format_datetime

import pytest

from nim_core import errors
from nim_core.testing.faults import answer_with, html_error
from nim_core.testing.harness import repository_uri
from nim_core.testing.http_server import Response, json_response
from nim_core.testing.ngc_models import NgcModel, refusal, soft_refusal
from nim_core.testing.ngc_server import NgcServer

STATUSES = [
    (400, errors.SourceError),
    (401, errors.AuthenticationError),
    (402, errors.EntitlementError),
    (403, errors.PermissionDeniedError),
    (404, errors.NotFoundError),
    (408, errors.TransientError),
    (409, errors.SourceError),
    (412, errors.LicenseError),
    (429, errors.RateLimitedError),
    (451, errors.RegionBlockedError),
    (500, errors.TransientError),
    (502, errors.TransientError),
    (503, errors.TransientError),
    (504, errors.TransientError),
]
CODES = [
    ("INVALID_REQUEST", errors.SourceError),
    ("UNAUTHORIZED", errors.AuthenticationError),
    ("PAYMENT_REQUIRED", errors.EntitlementError),
    ("FORBIDDEN", errors.PermissionDeniedError),
    ("NOT_FOUND", errors.NotFoundError),
    ("TOO_MANY_REQUESTS", errors.RateLimitedError),
    ("INTERNAL_ERROR", errors.TransientError),
    ("SERVICE_UNAVAILABLE", errors.TransientError),
    ("TIMEOUT", errors.TransientError),
    ("UNKNOWN", errors.SourceError),
    ("SOMETHING_NEW", errors.SourceError),
]


@pytest.fixture
def uri(corpus):
    """URI of the model of the ``ngc_server`` fixture."""
    return repository_uri(NgcModel(files=corpus.files).uri())


def refused(source, server, uri, answer):
    """Return the error that listing ends with when every request is answered so."""
    server.faults.add(answer if callable(answer) else answer_with(answer))
    with pytest.raises(errors.SourceError) as caught:
        source.list_files(uri)
    return caught.value


@pytest.mark.parametrize(("status", "kind"), STATUSES)
def test_status(source, ngc_server, uri, status, kind):
    error = refused(source, ngc_server, uri, refusal(status, "what NGC says"))
    assert type(error) in {kind, *kind.__subclasses__()}
    assert "nim/meta/sample-llm:hf-1.0+chk1" in error.message
    assert error.message.endswith(f"HTTP {status}, what NGC says")
    assert error.exit_code == kind.exit_code


@pytest.mark.parametrize(("code", "kind"), CODES)
def test_code_in_a_200(source, ngc_server, uri, code, kind):
    error = refused(source, ngc_server, uri, soft_refusal(code, "soft"))
    assert isinstance(error, kind)
    assert error.exit_code == kind.exit_code
    assert error.message.endswith("HTTP 200, soft")


@pytest.mark.parametrize("status", [401, 403, 404, 429, 502, 503])
def test_html_is_judged_by_status_and_not_quoted(source, ngc_server, uri, status):
    error = refused(source, ngc_server, uri, html_error(status))
    assert isinstance(error, dict(STATUSES)[status])
    assert error.message.endswith(f"HTTP {status}")


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 412])
def test_hint_names_organisation_or_page_and_the_variable(source, ngc_server, uri, status):
    error = refused(source, ngc_server, uri, refusal(status))
    assert "NGC_API_KEY" in error.hint
    assert ("organisation nim, team meta" in error.hint) or status == 412
    assert "{" not in error.message + error.hint


def test_licence_hint_has_the_page_where_terms_are_accepted(source, ngc_server, uri):
    error = refused(source, ngc_server, uri, refusal(412))
    page = "https://catalog.ngc.nvidia.com/orgs/nim/teams/meta/models/sample-llm?version=hf-1.0%2Bchk1"
    assert page in error.hint


def test_terms_not_accepted_on_the_server_itself(open_source, corpus):
    model = NgcModel(files=corpus.files, licence="terms-1")
    with NgcServer([model]) as server, pytest.raises(errors.LicenseError):
        open_source(server.environment()).list_files(repository_uri(model.uri()))


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        ("17", (17, 17)),
        ("in five minutes", (200, 300)),
        ("Wed, 01 Jan 2020 00:00:00 GMT", (0, 0)),
    ],
    ids=["seconds", "date", "past date"],
)
def test_retry_after_in_both_forms(source, ngc_server, uri, value, bounds):
    if value == "in five minutes":  # worked out here, as collecting may be long ago
        later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=5)
        value = format_datetime(later, usegmt=True)
    error = refused(source, ngc_server, uri, refusal(429, retry_after=value))
    assert bounds[0] <= error.retry_after <= bounds[1]


@pytest.mark.parametrize("value", ["", "soon", "-1"])
def test_useless_retry_after(source, ngc_server, uri, value):
    assert refused(source, ngc_server, uri, refusal(429, retry_after=value)).retry_after is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"detail": "a detail"}, ", a detail"),
        ({"message": "a message"}, ", a message"),
        ({"requestStatus": {"statusDescription": "two\nlines \x1b[31mred\x00"}}, ", two lines [31mred"),
        ({"requestStatus": {"statusDescription": "x" * 5000}}, ", " + "x" * 200),
        ({"detail": [{"loc": 1}]}, ", [{'loc': 1}]"),
        ([], ""),
        ({"requestStatus": "text"}, ""),
    ],
)
def test_what_is_quoted(source, ngc_server, uri, body, said):
    error = refused(source, ngc_server, uri, json_response(body, status=403))
    assert error.message.endswith("HTTP 403" + said)


def test_redirect_of_the_api_carries_no_key_elsewhere(source, ngc_server, uri):
    elsewhere = Response(status=302, headers={"Location": ngc_server.storage_url + "/x"})
    ngc_server.faults.add(answer_with(elsewhere), route="listing")
    with pytest.raises(errors.PermissionDeniedError):
        source.list_files(uri)
    assert (ngc_server.log.count(origin="storage"), ngc_server.storage.leaks) == (1, [])
