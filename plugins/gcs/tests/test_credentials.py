"""Signing in: every kind of Application Default Credentials against token services that check what they are shown."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from nim_source_gcs.client import GoogleRequest
from nim_source_gcs.credentials import ENVIRONMENT, READ, find_credentials

from nim_core.errors import AuthenticationError, TransientError
from nim_core.testing.corpus import inline
from nim_core.testing.faults import answer_with, html_error
from nim_core.testing.gcs_server import GcsServer
from nim_core.testing.google_auth import GoogleAuth
from nim_core.testing.harness import ControlClient
from nim_core.testing.http_server import json_response
from nim_core.types import BasicPair, BearerToken, ModelUri, UriStyle, Variables


class Clock:
    """A clock that is moved by hand."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def uri(gcs_server):
    """An object of the server."""
    gcs_server.put("models", "config.json", inline("{}"))
    return ModelUri(scheme="gs", location="models/config.json", style=UriStyle.OBJECT)


def bearers(server, **matching):
    return [exchange.request.header("Authorization") for exchange in server.log.select(**matching)]


def named(file):
    return {"GOOGLE_APPLICATION_CREDENTIALS": str(file)}


FILES = {
    "service account": (["service account"], lambda auth, folder: auth.service_account_file(folder)),
    "user": (["user"], lambda auth, folder: auth.user_file(folder)),
    "workload": (["workload"], lambda auth, folder: auth.workload_file(folder)),
    "impersonation": (
        ["workload", "impersonated"],
        lambda auth, folder: auth.workload_file(folder, impersonate=True),
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_file_signs_in(open_source, gcs_server, google_auth, uri, tmp_path, kind):
    holders, write = FILES[kind]
    source = open_source({**gcs_server.environment(), **named(write(google_auth, tmp_path))})
    [file] = source.list_files(uri).files
    location = source.locate(uri, file)
    assert google_auth.holders == holders
    assert google_auth.knows({name.lower(): value.reveal() for name, value in location.headers}["authorization"])
    assert location.expires_at is not None


def test_gclouds_own_file_is_found(open_source, gcs_server, google_auth, uri, tmp_path):
    google_auth.user_file(tmp_path)
    open_source({**gcs_server.environment(), "CLOUDSDK_CONFIG": str(tmp_path)}).list_files(uri)
    assert google_auth.holders == ["user"]


def test_the_named_file_wins_over_gclouds(open_source, gcs_server, google_auth, uri, tmp_path, key_file):
    google_auth.user_file(tmp_path)
    open_source({**gcs_server.environment(), "CLOUDSDK_CONFIG": str(tmp_path), **key_file}).list_files(uri)
    assert google_auth.holders == ["service account"]


def test_a_project_to_bill_is_named_in_every_request(open_source, gcs_server, uri, key_file):
    project = {"GOOGLE_CLOUD_QUOTA_PROJECT": "payer"}
    source = open_source({**gcs_server.environment(), **key_file, **project})
    location = source.locate(uri, source.list_files(uri).files[0])
    assert [value.reveal() for name, value in location.headers if name == "x-goog-user-project"] == ["payer"]
    assert {exchange.request.header("x-goog-user-project") for exchange in gcs_server.log} == {"payer"}


def test_an_emulator_is_asked_without_credentials(open_source, google_auth, key_file):
    with GcsServer() as server:
        server.put("models", "x", inline("x"))
        uri = ModelUri(scheme="gs", location="models/x", style=UriStyle.OBJECT)
        source = open_source({"STORAGE_EMULATOR_HOST": server.url.removeprefix("http://"), **key_file})
        assert source.locate(uri, source.list_files(uri).files[0]).headers == ()
        assert set(bearers(server)) == {None}
    assert google_auth.holders == []


def test_public_objects_are_had_without_credentials(open_source):
    with GcsServer() as server:
        server.put("models", "x", inline("x"))
        uri = ModelUri(scheme="gs", location="models/x", style=UriStyle.OBJECT)
        source = open_source(server.environment())
        assert source.locate(uri, source.list_files(uri).files[0]).headers == ()


def test_who_has_no_credentials_is_told(open_source, gcs_server, uri):
    with pytest.raises(AuthenticationError, match="without credentials, and none were found") as caught:
        open_source(gcs_server.environment()).list_files(uri)
    assert "GOOGLE_APPLICATION_CREDENTIALS" in caught.value.hint
    assert "gcloud auth application-default login" in caught.value.hint


# --------------------------------------------------------------------------------------------------- files that are bad
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot read"),
        ("{'key': 'hunter2'", "not a credentials file in JSON form"),
        ("[]", "not a kind of credentials"),
        ('{"type": "api_key", "key": "hunter2"}', "not a kind of credentials .*'api_key'"),
        ('{"type": "service_account", "private_key": "hunter2"}', "incomplete or damaged"),
        ('{"type": "service_account", "client_email": "a", "token_uri": "b", "private_key": "hunter2"}', "damaged"),
        ('{"type": "authorized_user", "refresh_token": "hunter2"}', "incomplete or damaged"),
        ('{"type": "external_account", "audience": "hunter2"}', "incomplete or damaged"),
        ('{"type": "impersonated_service_account"}', "incomplete or damaged"),
    ],
)
def test_files_that_are_no_credentials(open_source, gcs_server, uri, tmp_path, text, words):
    file = tmp_path / "credentials.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(AuthenticationError, match=words) as caught:
        open_source({**gcs_server.environment(), **named(file)}).list_files(uri)
    assert str(file) in caught.value.message
    assert "hunter2" not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"
    assert len(gcs_server.log) == 0


def test_impersonation_by_a_file_asks_googles_own_service(google_auth, tmp_path, key_file):
    source = json.loads(google_auth.service_account_file(tmp_path).read_text())
    url = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@b.iam.gserviceaccount.com"
    file = tmp_path / "impersonated.json"
    facts = {"service_account_impersonation_url": f"{url}:generateAccessToken", "source_credentials": source}
    file.write_text(json.dumps({"type": "impersonated_service_account", **facts}))
    with ControlClient() as http:
        found = find_credentials(Variables(ENVIRONMENT, named(file)), GoogleRequest(http, None), READ.scope)
    assert found.credentials.service_account_email == "a@b.iam.gserviceaccount.com"


# ------------------------------------------------------------------------------------------------------------- refusals
def test_a_key_that_is_not_the_accounts(open_source, gcs_server, google_auth, uri, tmp_path):
    file = google_auth.service_account_file(tmp_path, forged=True)
    with pytest.raises(AuthenticationError, match=r"invalid_grant: Invalid JWT Signature") as caught:
        open_source({**gcs_server.environment(), **named(file)}).list_files(uri)
    assert str(file) in caught.value.message
    assert "clock" in caught.value.hint


def test_a_user_whose_sign_in_was_revoked(open_source, gcs_server, google_auth, uri, tmp_path):
    file = google_auth.user_file(tmp_path, revoked=True)
    with pytest.raises(AuthenticationError, match="expired or revoked") as caught:
        open_source({**gcs_server.environment(), **named(file)}).list_files(uri)
    assert caught.value.hint == "sign in again: gcloud auth application-default login"


def test_a_subject_token_that_is_not_taken(open_source, gcs_server, google_auth, uri, tmp_path):
    file = google_auth.workload_file(tmp_path)
    (tmp_path / "subject_token").write_text("stale")
    with pytest.raises(AuthenticationError, match="subject token is not valid"):
        open_source({**gcs_server.environment(), **named(file)}).list_files(uri)


def test_a_token_service_that_refuses_by_a_page(open_source, gcs_server, google_auth, uri, key_file):
    google_auth.faults.add(html_error(403), route="token")
    with pytest.raises(AuthenticationError, match="no token for the credentials from GOOGLE_APPLICATION_CREDENTIALS"):
        open_source({**gcs_server.environment(), **key_file}).list_files(uri)


def test_a_token_service_that_is_down(open_source, gcs_server, uri, tmp_path):
    with GoogleAuth() as gone:
        file = gone.service_account_file(tmp_path)
    with pytest.raises(TransientError):
        open_source({**gcs_server.environment(), **named(file)}).list_files(uri)


def test_a_token_service_that_keeps_failing(open_source, gcs_server, google_auth, uri, key_file):
    google_auth.faults.add(answer_with(json_response({"error": "internal_failure"}, status=503)))
    with pytest.raises(TransientError, match="token service failed"):
        open_source({**gcs_server.environment(), **key_file}).list_files(uri)


def test_nothing_shows_a_secret(open_source, gcs_server, google_auth, uri, tmp_path):
    file = google_auth.user_file(tmp_path)
    source = open_source({**gcs_server.environment(), **named(file)})
    location = source.locate(uri, source.list_files(uri).files[0])
    facts = json.loads(file.read_text())
    kept = [facts["refresh_token"], facts["client_secret"], *google_auth.tokens]
    google_auth.faults.add(answer_with(json_response({"error": " ".join(kept)}, status=400)))
    with pytest.raises(AuthenticationError) as caught:
        source.locate(uri, source.list_files(uri).files[0])
    shown = f"{caught.value!r} {caught.value.hint} {location!r} {source!r} {vars(source)!r}"
    assert "*** *** ***" in caught.value.message
    assert [secret for secret in kept if secret in shown] == []


# ------------------------------------------------------------------------------------------------------- tokens in time
@pytest.mark.parametrize(
    ("life", "left", "tokens"),
    [(3600, 300, 1), (3600, 200, 2), (60, 30, 1), (60, 15, 2)],
)
def test_a_token_is_renewed_before_it_expires(open_source, gcs_server, google_auth, uri, key_file, life, left, tokens):
    google_auth.lifetime = life
    clock = Clock()
    source = open_source({**gcs_server.environment(), **key_file}, clock=clock)
    clock.now = time.time()
    [file] = source.list_files(uri).files
    clock.now = source.locate(uri, file).expires_at - left
    other = ModelUri(scheme="gs", location="models/other.json", style=UriStyle.OBJECT)
    gcs_server.put("models", "other.json", inline("{}"))
    source.list_files(other)
    assert google_auth.log.count(route="token") == tokens


def test_a_token_refused_by_the_api_is_renewed_once(source, gcs_server, google_auth, uri):
    source.list_files(uri)
    google_auth.expire_tokens()
    gcs_server.put("models", "other.json", inline("{}"))
    source.list_files(ModelUri(scheme="gs", location="models/other.json", style=UriStyle.OBJECT))
    assert google_auth.holders == ["service account"] * 2
    gcs_server.refuse(401)
    with pytest.raises(AuthenticationError, match="does not accept the token from GOOGLE_APPLICATION_CREDENTIALS"):
        source.list_files(ModelUri(scheme="gs", location="models/third.json", style=UriStyle.OBJECT))
    assert google_auth.holders == ["service account"] * 3


def test_what_is_located_again_gets_another_token_once_for_all(source, gcs_server, google_auth, uri):
    other = ModelUri(scheme="gs", location="models/other.json", style=UriStyle.OBJECT)
    gcs_server.put("models", "other.json", inline("{}"))
    wanted = [(place, source.list_files(place).files[0]) for place in (uri, other)]
    first = {source.locate(*one).headers for one in wanted}
    second = {source.locate(*one).headers for one in wanted}
    assert (len(first), len(second), len(first | second)) == (1, 1, 2)
    assert google_auth.holders == ["service account"] * 2


def test_threads_share_one_token(source, gcs_server, google_auth, uri):
    [file] = source.list_files(uri).files
    google_auth.log.clear()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: source.list_files(uri), range(32)))
    assert {listing.files for listing in found} == {(file,)}
    assert google_auth.log.count(route="token") == 0


# ------------------------------------------------------------------------------------------------------- other plugins
def test_a_token_of_another_plugin_wins_and_is_named(open_source, gcs_server, google_auth, uri, key_file):
    asked = []

    def vault(request):
        asked.append((request.endpoint, str(request.uri)))
        return BearerToken(token="from-vault", origin="vault path kv/gcs")

    with pytest.raises(AuthenticationError, match="vault path kv/gcs"):
        open_source({**gcs_server.environment(), **key_file}, provide=vault).list_files(uri)
    assert set(bearers(gcs_server)) == {"Bearer from-vault"}
    assert set(asked) == {(gcs_server.url, "gs://models")}
    assert google_auth.holders == []


def test_other_kinds_of_credential_are_refused(open_source, gcs_server, uri):
    def pair(request):
        return BasicPair(username="u", password="hunter2", origin="netrc")

    with pytest.raises(AuthenticationError, match=r"BasicPair \(from netrc\)"):
        open_source(gcs_server.environment(), provide=pair).list_files(uri)
    assert len(gcs_server.log) == 0
