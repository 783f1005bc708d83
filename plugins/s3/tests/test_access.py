"""Who asks: keys, tokens, profiles and strangers at a server that checks every signature, and what goes wrong."""

from __future__ import annotations

import datetime
import http.server
import json
import threading

import httpx
import pytest

from nim_core.errors import (
    AuthenticationError,
    ConfigError,
    NotFoundError,
    PermissionDeniedError,
    SourceError,
    UnsupportedError,
)
from nim_core.testing.harness import object_uri as uri_of
from nim_core.testing.s3_server import ROLE_ARN, Keys
from nim_core.types import BearerToken, KeyPair, Secret

CONFIG = "s3://models/llama/config.json"
DENIED = (AuthenticationError, PermissionDeniedError)


def read(source, text=CONFIG):
    """List one object and get it."""
    [file] = source.list_files(uri_of(text)).files
    location = source.locate(uri_of(text), file)
    return httpx.get(location.url.reveal(), trust_env=False)


def profile(monkeypatch, tmp_path, **sections):
    """Write AWS's two files; each section is a mapping."""
    for variable, prefix in (("AWS_CONFIG_FILE", "profile "), ("AWS_SHARED_CREDENTIALS_FILE", "")):
        lines = []
        for name, values in sections.items():
            secret = {key: value for key, value in values.items() if key.startswith("aws_")}
            rest = {key: value for key, value in values.items() if not key.startswith("aws_")}
            lines += [f"[{prefix}{name}]", *(f"{k} = {v}" for k, v in (rest if prefix else secret).items())]
        (tmp_path / variable).write_text("\n".join(lines))
        monkeypatch.setenv(variable, str(tmp_path / variable))


def keys_of(keys):
    return {"aws_access_key_id": keys.access_key, "aws_secret_access_key": keys.secret_key}


# ----------------------------------------------------------------------------------------------------- who gets through
def test_keys_of_the_environment(open_source, server):
    assert read(open_source(server.environment(server.reader))).status_code == 200


def test_a_session_token(open_source, server):
    source = open_source(server.environment() | server.session())
    answer = read(source)
    assert answer.status_code == 200
    assert "X-Amz-Security-Token=" in str(answer.request.url)
    assert "X-Amz-Expires=600" in str(answer.request.url)


def test_a_profile(open_source, server, monkeypatch, tmp_path):
    profile(monkeypatch, tmp_path, site={**keys_of(server.reader), "endpoint_url": server.url, "region": "eu-west-1"})
    answer = read(open_source({"AWS_PROFILE": "site"}))
    assert (answer.status_code, "%2Feu-west-1%2F" in str(answer.request.url)) == (200, True)


def test_a_role_of_a_profile_is_assumed(open_source, server, monkeypatch, tmp_path):
    profile(
        monkeypatch,
        tmp_path,
        base=keys_of(server.admin),
        role={"role_arn": ROLE_ARN, "source_profile": "base", "endpoint_url": server.url, "region": "us-east-1"},
    )
    answer = read(open_source({"AWS_PROFILE": "role"}))
    assert (answer.status_code, "X-Amz-Security-Token=" in str(answer.request.url)) == (200, True)


def test_keys_win_over_a_profile(open_source, server, monkeypatch, tmp_path):
    profile(monkeypatch, tmp_path, site=keys_of(Keys.make("stranger")))
    assert read(open_source({**server.environment(), "AWS_PROFILE": "site"})).status_code == 200


def test_a_container_s_credentials(open_source, server, monkeypatch):
    expiration = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    session = server.session()
    body = {
        "AccessKeyId": session["AWS_ACCESS_KEY_ID"],
        "SecretAccessKey": session["AWS_SECRET_ACCESS_KEY"],
        "Token": session["AWS_SESSION_TOKEN"],
        "Expiration": expiration.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }

    class Container(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Container) as container:
        threading.Thread(target=container.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{container.server_port}/creds")
        source = open_source({"AWS_ENDPOINT_URL": server.url})
        assert read(source).status_code == 200
        container.shutdown()


def test_keys_of_another_plugin(open_source, server):
    pair = KeyPair(access_key=server.reader.access_key, secret_key=server.reader.secret_key, origin="vault")
    source = open_source({"AWS_ENDPOINT_URL": server.url}, provide=lambda _: pair)
    assert read(source).status_code == 200


def test_keys_that_change_while_a_source_is_open(open_source, server):
    current = [KeyPair(access_key="AKIAGONE", secret_key="gone", origin="vault")]
    source = open_source({"AWS_ENDPOINT_URL": server.url}, provide=lambda _: current[0])
    with pytest.raises(AuthenticationError, match="from vault"):
        read(source)
    current[0] = KeyPair(access_key=server.reader.access_key, secret_key=server.reader.secret_key, origin="vault")
    assert read(source).status_code == 200


@pytest.mark.parametrize("more", [{}, {"AWS_NO_SIGN_REQUEST": "true", "AWS_ACCESS_KEY_ID": "x"}], ids=["none", "asked"])
def test_a_public_bucket_needs_no_keys(open_source, server, more):
    source = open_source({"AWS_ENDPOINT_URL": server.url, **more})
    answer = read(source, "s3://public/read/me.txt")
    assert (answer.status_code, answer.request.url.query) == (200, b"")
    assert [file.path for file in source.list_files(uri_of("s3://public/")).files] == ["read/me.txt"]


# -------------------------------------------------------------------------------------------------------- who does not
@pytest.mark.parametrize("text", [CONFIG, "s3://models/llama/"], ids=["object", "prefix"])
@pytest.mark.parametrize(
    ("more", "words", "hint"),
    [
        ({"AWS_ACCESS_KEY_ID": "AKIANOBODY"}, "does not know the access key from AWS_ACCESS_KEY_ID", "key"),
        ({"AWS_SECRET_ACCESS_KEY": "hunter2"}, "secret key does not fit", "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_NO_SIGN_REQUEST": "1"}, "strangers have no access", "set AWS_ACCESS_KEY_ID"),
    ],
    ids=["unknown key", "wrong secret", "stranger"],
)
def test_refusals_say_what_is_wrong(open_source, server, text, more, words, hint):
    with pytest.raises(AuthenticationError, match=words) as caught:
        open_source(server.environment() | more).list_files(uri_of(text))
    assert hint in caught.value.hint
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_a_token_that_is_none(open_source, server):
    with pytest.raises(AuthenticationError):
        open_source(server.environment() | server.session() | {"AWS_SESSION_TOKEN": "hunter2"}).list_files(
            uri_of(CONFIG)
        )


def test_a_clock_that_is_off(open_source, server, monkeypatch):
    import botocore.auth

    real = botocore.auth.get_current_datetime
    monkeypatch.setattr(
        botocore.auth, "get_current_datetime", lambda *a, **k: real(*a, **k) + datetime.timedelta(hours=1)
    )
    with pytest.raises(AuthenticationError, match="clock is too far off") as caught:
        open_source(server.environment()).list_files(uri_of(CONFIG))
    assert "NTP" in caught.value.hint


@pytest.mark.parametrize("text", ["s3://no-such-bucket/x", "s3://no-such-bucket/x/", "s3://no-such-bucket"])
def test_a_bucket_that_is_not_there(source, text):
    with pytest.raises(NotFoundError, match="no such bucket: no-such-bucket") as caught:
        source.list_files(uri_of(text))
    assert "AWS_S3_USE_PATH_STYLE" in caught.value.hint


def test_half_a_key(open_source, server):
    environment = server.environment()
    del environment["AWS_SECRET_ACCESS_KEY"]
    with pytest.raises(AuthenticationError, match="AWS_SECRET_ACCESS_KEY is not set"):
        open_source(environment).list_files(uri_of(CONFIG))


def test_a_profile_that_is_not_there(open_source, server, monkeypatch, tmp_path):
    profile(monkeypatch, tmp_path)
    with pytest.raises(ConfigError, match="nobody") as caught:
        open_source({"AWS_ENDPOINT_URL": server.url, "AWS_PROFILE": "nobody"}).list_files(uri_of(CONFIG))
    assert "AWS_PROFILE" in caught.value.hint


def test_a_sign_in_that_has_run_out(open_source, server, monkeypatch, tmp_path):
    sso = {"sso_start_url": "https://sso.example/start", "sso_region": "us-east-1"}
    sso |= {"sso_account_id": "123456789012", "sso_role_name": "reader", "region": "us-east-1"}
    profile(monkeypatch, tmp_path, site=sso)
    with pytest.raises(AuthenticationError, match="no AWS credential could be had") as caught:
        open_source({"AWS_ENDPOINT_URL": server.url, "AWS_PROFILE": "site"}).list_files(uri_of(CONFIG))
    assert "aws sso login" in caught.value.hint


def test_a_role_that_may_not_be_assumed(open_source, server, monkeypatch, tmp_path):
    wrong = Keys(name="x", access_key=server.admin.access_key, secret_key="hunter2", actions=())
    role = {"role_arn": ROLE_ARN, "source_profile": "base", "endpoint_url": server.url, "region": "us-east-1"}
    profile(monkeypatch, tmp_path, base=keys_of(wrong), role=role)
    with pytest.raises(AuthenticationError, match="AssumeRole"):
        open_source({"AWS_PROFILE": "role"}).list_files(uri_of(CONFIG))


def test_a_process_that_gives_no_credential(open_source, server, monkeypatch, tmp_path):
    profile(monkeypatch, tmp_path, site={"credential_process": "false", "endpoint_url": server.url})
    with pytest.raises(AuthenticationError, match="no AWS credential could be had"):
        open_source({"AWS_PROFILE": "site"}).list_files(uri_of(CONFIG))


def test_a_credential_that_s3_has_no_use_for(open_source, server):
    bearer = BearerToken(token=Secret("hunter2"), origin="vault")
    source = open_source({"AWS_ENDPOINT_URL": server.url}, provide=lambda _: bearer)
    with pytest.raises(UnsupportedError, match=r"BearerToken \(from vault\)"):
        source.list_files(uri_of(CONFIG))


def test_a_store_that_is_not_there(open_source, server):
    with pytest.raises(SourceError) as caught:
        open_source({**server.environment(), "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}).list_files(uri_of(CONFIG))
    assert caught.value.retryable


def test_a_web_server_that_is_no_store(open_source, server):
    filer = {**server.environment(), "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port + 2}"}
    with pytest.raises(SourceError):
        open_source(filer).list_files(uri_of(CONFIG))
