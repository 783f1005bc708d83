"""What ModelScope's refusals become."""

from __future__ import annotations

import pytest

from nim_core.errors import (
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    SourceError,
    TransientError,
)
from nim_core.testing.corpus import inline
from nim_core.testing.faults import answer_with, html_error
from nim_core.testing.harness import repository_uri
from nim_core.testing.modelscope_models import CODES, ModelScopeModel, refusal, soft_refusal
from nim_core.testing.modelscope_server import MODELSCOPE_TOKEN, STRANGERS_TOKEN, ModelScopeServer
from nim_core.types import RemoteFile

PAGE = "https://modelscope.cn/models/LLM-Research/Sample-1.5-LLM"
TOKEN = MODELSCOPE_TOKEN


@pytest.fixture
def uri(corpus):
    """URI of the model of the ``modelscope_server`` fixture."""
    return repository_uri(ModelScopeModel(files=corpus.files).uri())


def refused(open_source, corpus, access, token, *, revision=None, name=None):
    """Return the error for listing a model as somebody."""
    model = ModelScopeModel(files=corpus.files, access=access)
    wanted = repository_uri(model.uri(revision=revision).replace(model.name, name or model.name))
    with ModelScopeServer([model]) as server, pytest.raises(SourceError) as caught:
        open_source(server.environment(token)).list_files(wanted)
    return caught.value


def test_a_private_model_without_a_token(open_source, corpus):
    error = refused(open_source, corpus, "private", None)
    assert type(error) is AuthenticationError
    assert "private" in error.message
    assert "MODELSCOPE_API_TOKEN" in error.hint
    assert PAGE in error.hint


def test_a_private_model_with_somebody_elses_token(open_source, corpus):
    error = refused(open_source, corpus, "private", STRANGERS_TOKEN)
    assert type(error) is PermissionDeniedError
    assert "private" in error.message
    assert "HTTP 404, no access" in error.message
    assert "owner" in error.hint
    assert PAGE in error.hint
    assert STRANGERS_TOKEN not in f"{error} {error.hint}"


def test_a_gated_model_without_a_token(open_source, corpus):
    error = refused(open_source, corpus, "gated", None)
    assert type(error) is AuthenticationError
    assert "gated" in error.message
    assert f"apply for access at {PAGE}" in error.hint
    assert "MODELSCOPE_API_TOKEN" in error.hint


def test_a_gated_model_that_was_not_granted(open_source, corpus):
    error = refused(open_source, corpus, "gated", STRANGERS_TOKEN)
    assert type(error) is PermissionDeniedError
    assert "gated" in error.message
    assert f"apply for access at {PAGE}" in error.hint


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_model_that_is_not_there(open_source, corpus, token):
    error = refused(open_source, corpus, "public", token, name="Simple")
    assert type(error) is NotFoundError
    assert "no LLM-Research/Simple:master" in error.message
    assert "https://modelscope.cn/models/LLM-Research/Simple" in error.hint


@pytest.mark.parametrize("revision", ["main", "v9"])
def test_a_revision_that_is_not_there_is_listed_as_if_it_were_empty(open_source, corpus, revision):
    error = refused(open_source, corpus, "public", TOKEN, revision=revision)
    assert type(error) is NotFoundError
    assert f":{revision}" in error.message
    assert error.hint == "its revisions are master"


def test_a_revision_may_also_be_refused_as_having_no_tree(source, modelscope_server, corpus):
    modelscope_server.refuse(404, "no tree", code=CODES["no tree"], route="listing")
    with pytest.raises(NotFoundError) as caught:
        source.list_files(repository_uri(ModelScopeModel(files=corpus.files).uri(revision="v9")))
    assert caught.value.hint == "its revisions are master"


def test_a_model_without_files_is_empty_and_no_error(open_source):
    model = ModelScopeModel(files={})
    with ModelScopeServer([model]) as server:
        assert open_source(server.environment()).list_files(repository_uri(model.uri())).files == ()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, None, SourceError),
        (400, CODES["bad token"], AuthenticationError),
        (401, None, AuthenticationError),
        (404, None, NotFoundError),
        (429, None, RateLimitedError),
        (418, None, SourceError),
        (408, None, TransientError),
        (500, None, TransientError),
        (503, CODES["bad token"], TransientError),
    ],
)
def test_refusals_by_status_and_code(source, modelscope_server, uri, status, code, kind):
    modelscope_server.refuse(status, "no such luck", code=code)
    with pytest.raises(SourceError, match=f"HTTP {status}, no such luck") as caught:
        source.list_files(uri)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (429, RateLimitedError),
        (500, TransientError),
        (CODES["bad token"], AuthenticationError),
        (CODES["no access"], PermissionDeniedError),
        (CODES["no model"], NotFoundError),
        (10990000000, SourceError),
        ("odd", SourceError),
        (None, SourceError),
    ],
)
def test_an_error_may_come_with_status_200(source, modelscope_server, uri, code, kind):
    modelscope_server.faults.add(answer_with(soft_refusal(code, "no such luck")))
    with pytest.raises(kind) as caught:
        source.list_files(uri)
    assert caught.value.exit_code == kind.exit_code


def test_success_that_is_said_to_be_none_is_an_error(source, modelscope_server, uri):
    modelscope_server.faults.add(answer_with(soft_refusal(200, "but no")))
    with pytest.raises(SourceError, match="but no"):
        source.list_files(uri)


@pytest.mark.parametrize("status", [200, 403, 404, 502])
def test_a_page_of_a_proxy_is_no_answer(source, modelscope_server, uri, status):
    modelscope_server.faults.add(html_error(status))
    kind = {200: SourceError, 403: PermissionDeniedError, 404: NotFoundError, 502: TransientError}[status]
    with pytest.raises(kind):
        source.list_files(uri)


def test_too_many_requests_say_how_long_to_wait_and_what_would_help(open_source, modelscope_server, uri):
    modelscope_server.faults.add(answer_with(refusal(429, "slow down", retry_after="7")))
    with pytest.raises(RateLimitedError) as caught:
        open_source(modelscope_server.environment(None)).list_files(uri)
    assert caught.value.retry_after == 7
    assert "MODELSCOPE_API_TOKEN" in caught.value.hint


def test_the_first_refusal_is_taken_at_its_word(source, modelscope_server, uri, naps):
    modelscope_server.refuse(403, "access denied", route="listing")
    with pytest.raises(PermissionDeniedError):
        source.list_files(uri)
    assert naps.seconds == []
    assert modelscope_server.log.count(route="listing") == 1


def test_the_apis_words_never_hold_the_token_or_control_characters(source, modelscope_server, uri):
    modelscope_server.refuse(400, f"bad\x1b[31m {TOKEN}\nline " + "x" * 5000)
    with pytest.raises(SourceError) as caught:
        source.list_files(uri)
    assert TOKEN not in str(caught.value)
    assert "***" in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


# ----------------------------------------------------------------------------------------- files whose URL was refused
def test_a_file_that_is_gated_though_it_is_listed(source, modelscope_server, uri):
    modelscope_server.refuse(404, "no access", code=CODES["no access"], route="file")
    file = RemoteFile(path="config.json")
    source.locate(uri, file)
    with pytest.raises(PermissionDeniedError, match="gated") as caught:
        source.locate(uri, file)
    assert f"apply for access at {PAGE}" in caught.value.hint


def test_a_file_that_is_gone(source, uri):
    file = RemoteFile(path="gone")
    source.locate(uri, file)
    with pytest.raises(NotFoundError, match="file not found"):
        source.locate(uri, file)


def test_an_empty_file_asked_for_again_is_no_error(open_source):
    model = ModelScopeModel(files={"empty": inline(b"")})
    with ModelScopeServer([model]) as server:
        source, uri = open_source(server.environment()), repository_uri(model.uri())
        assert source.locate(uri, RemoteFile(path="empty")) == source.locate(uri, RemoteFile(path="empty"))
