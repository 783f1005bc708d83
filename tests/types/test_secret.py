"""A secret is shown by one call only."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback

import attrs
import pytest

from nim_core.types import (
    Ambient,
    Anonymous,
    BasicPair,
    BearerToken,
    CredentialRequest,
    EnvVar,
    HttpObject,
    KeyPair,
    Secret,
    Variables,
)

TEXT = "pass-word"
SECRET = Secret(TEXT)


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r} {secret!s} {secret!a}",
        "{}".format,
        "{0!r}".format,
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031
        lambda secret: str([secret, {"key": secret}]),
        lambda secret: str(ValueError(secret)),
        lambda secret: "".join(traceback.format_exception_only(ValueError("x", secret))),
        lambda secret: logging.LogRecord("n", 10, "p", 1, "%s", (secret,), None).getMessage(),
        lambda secret: json.dumps({"key": secret}, default=str),
    ],
)
def test_text_never_shows_it(show):
    assert TEXT not in show(SECRET)
    assert "***" in show(SECRET)


def test_a_width_in_a_format_does_not_show_it():
    with pytest.raises(TypeError) as caught:
        format(SECRET, ">20")

    assert TEXT not in str(caught.value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_not_pickled(protocol):
    with pytest.raises(TypeError, match="a Secret is not pickled"):
        pickle.dumps({"key": SECRET}, protocol)


def test_it_is_not_serialised():
    with pytest.raises(TypeError):
        json.dumps(SECRET)


def test_it_has_no_dictionary_to_be_dumped():
    assert not hasattr(SECRET, "__dict__")


@pytest.mark.parametrize("copied", [copy.copy(SECRET), copy.deepcopy({"key": SECRET})["key"]])
def test_a_copy_is_the_same(copied):
    assert copied is SECRET


def test_revealing_it_is_a_call():
    assert SECRET.reveal() == TEXT


def test_it_compares_and_hashes_by_its_text():
    assert Secret(TEXT) == SECRET
    assert hash(Secret(TEXT)) == hash(SECRET)
    assert Secret("other") != SECRET
    assert SECRET != TEXT
    assert (bool(SECRET), bool(Secret(""))) == (True, False)


@pytest.mark.parametrize("value", [TEXT, SECRET])
@pytest.mark.parametrize(
    "make",
    [
        lambda value: BearerToken(token=value, origin="KEY"),
        lambda value: BasicPair(username="user", password=value, origin="KEY"),
        lambda value: KeyPair(access_key="id", secret_key=value, session_token=value, origin="KEY"),
        lambda value: HttpObject(url=value, headers={"Authorization": value}),
    ],
)
def test_no_record_shows_it_however_it_was_given(make, value):
    record = make(value)

    assert TEXT not in f"{record} {record!r} {attrs.asdict(record)} {attrs.astuple(record)}"


def test_a_request_shows_no_variables():
    variables = Variables((EnvVar(name="KEY", summary="", secret=True),), {"KEY": TEXT})

    assert TEXT not in repr(CredentialRequest(source="s", endpoint="https://h", variables=variables))


@pytest.mark.parametrize(
    "credential", [Ambient(origin="role"), Anonymous(), KeyPair(access_key="a", secret_key="b", origin="c")]
)
def test_what_is_not_given_is_none(credential):
    assert credential.expires_at is None
    assert getattr(credential, "session_token", None) is None
