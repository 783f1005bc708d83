from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from nim_core.cli.redact import MASK, Redactor, secret_values
from nim_core.types import EnvVar, Secret, Variables

secrets = st.text(min_size=4, max_size=40).filter(lambda text: text.strip() == text and "*" not in text)
texts = st.text(max_size=60)
credentials = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=16, max_size=40)


@given(texts, secrets, texts)
@example("", "****x", "")
def test_a_known_secret_is_nowhere(before: str, secret: str, after: str) -> None:
    assert secret not in Redactor([secret]).text(f"{before}{secret}{after}")


@given(secrets)
def test_a_known_secret_is_found_however_it_is_written(secret: str) -> None:
    redactor = Redactor([secret])
    for written in (quote(secret, safe=""), json.dumps(secret)[1:-1], repr(secret)[1:-1]):
        assume(written not in MASK)
        assert written not in redactor.text(f"got <{written}> from there")


@given(st.lists(secrets, min_size=2, max_size=4))
def test_secrets_that_overlap_are_all_hidden(several: list[str]) -> None:
    shown = Redactor(several).text(" ".join(several))
    assert all(secret not in shown for secret in several)


@given(texts, st.lists(secrets, max_size=3))
def test_once_is_enough(text: str, several: list[str]) -> None:
    redactor = Redactor(several)
    once = redactor.text(text)
    assert redactor.text(once) == once


@given(credentials)
@pytest.mark.parametrize(
    "form",
    [
        "GET https://{}@host/path failed",
        "proxy http://user:{}@proxy.corp:8080 refused",
        "socks5h://us@er:{}@host",
        "https://b.host/k?X-Amz-Algorithm=A&X-Amz-Signature={}&x=1",
        "https://b.host/k?X-Amz-Security-Token={}",
        "https://b.host/k?X-Goog-Signature={}#part",
        "https://cdn/f?Expires=1&Policy={}&Key-Pair-Id=x",
        "https://account.blob/f?sv=1&sig={}",
        "https://host/f?access_token={}",
        "see https%3A%2F%2Fhost%2Ff%3Fsig%3D{} there",
        "authorization: Bearer {}9",
        "{{'Authorization': 'Basic {}9'}}",
        "cookie: session={}; other=1",
        "x-api-key: {}",
        "NGC_API_KEY={}",
        '{{"hf_token"="{}"}}',
        "sent Bearer {}9 to host",
    ],
)
def test_places_that_hold_secrets_are_masked(form: str, credential: str) -> None:
    shown = Redactor().text(form.format(credential))
    assert credential not in shown
    assert MASK in shown


@pytest.mark.parametrize(
    "text",
    [
        "hf://org/model:main?file=tokenizer.json",
        "store://bucket/key@place",
        "https://host:8443/path?page=2&limit=10",
        "no token found, set one in the environment",
        "bearer authentication is needed, basic authentication is not enough",
        "tokenizer=fast files=3",
        "3/18 files  1.2 GB  210 MB/s",
        "user@host",
    ],
)
def test_what_holds_no_secret_stays(text: str) -> None:
    assert Redactor().text(text) == text


def test_hosts_and_names_stay_readable() -> None:
    shown = Redactor().text("https://user:pw@host.corp/a?X-Amz-Signature=abcdef&page=2")
    assert shown == f"https://{MASK}@host.corp/a?X-Amz-Signature={MASK}&page=2"


def test_values_are_masked_by_type_and_by_name() -> None:
    event = {
        "event": "signed_in",
        "key": Secret("hunter22"),
        "hf_token": "hunter22",
        "Set-Cookie": ["a", "b"],
        "headers": {"Authorization": "Bearer x", "Accept": "*/*"},
        "has_token": True,
        "password": None,
        "bytes": 512,
        "urls": ["https://u:p@h/"],
        "error": ValueError("https://u:p@h/"),
    }
    assert Redactor().event(event) == {
        "event": "signed_in",
        "key": MASK,
        "hf_token": MASK,
        "Set-Cookie": MASK,
        "headers": {"Authorization": MASK, "Accept": "*/*"},
        "has_token": True,
        "password": None,
        "bytes": 512,
        "urls": [f"https://{MASK}@h/"],
        "error": f"https://{MASK}@h/",
    }


def test_what_is_secret_in_the_environment() -> None:
    declared = [
        EnvVar(name="API_KEY", summary="", secret=True),
        EnvVar(name="PROXY", summary="", secret=True),
        EnvVar(name="OPEN_PROXY", summary="", secret=True),
        EnvVar(name="SIGNED", summary="", secret=True),
        EnvVar(name="SEVERAL", summary="", secret=True),
        EnvVar(name="UNSET", summary="", secret=True, default="default"),
        EnvVar(name="LEVEL", summary=""),
    ]
    environ = {
        "API_KEY": " nvapi-1234 ",
        "PROXY": "http://user:pass%20word@proxy.corp:8080",
        "OPEN_PROXY": "http://proxy.corp:8080",
        "SIGNED": "https://host/file?sig=abc",
        "SEVERAL": "s3://bucket, https://me:hunter2@one/,https://me:hun,ter3@two",
        "LEVEL": "INFO",
    }
    assert secret_values(Variables(declared, environ)) == {
        "nvapi-1234",
        "user:pass%20word",
        "pass%20word",
        "https://host/file?sig=abc",
        "me:hunter2",
        "hunter2",
        "me:hun,ter3",
        "hun,ter3",
    }


def test_a_decoded_password_is_hidden_too() -> None:
    assert Redactor(["pass%20word"]).text("pass word refused") == f"{MASK} refused"


def test_a_long_text_takes_no_longer_than_it_must() -> None:
    text = "token" * 5_000 + "a://" * 5_000 + "?sig" * 5_000
    assert Redactor(["secret"]).text(text)
