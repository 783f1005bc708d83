from __future__ import annotations

import os
import threading
import time

import pytest
from nim_credential_files.files import REREAD_SECONDS

from nim_core.errors import AuthenticationError
from nim_core.types import BasicPair, BearerToken, KeyPair


def token_of(credential) -> str:
    return credential.token.reveal()


def test_a_token(mount):
    mount.write({"acme/token": "t0ken\n"})
    found = mount.asked()
    assert isinstance(found, BearerToken)
    assert (token_of(found), found.origin) == ("t0ken", f"{mount.path}/acme/token")


def test_a_pair(mount):
    mount.write({"acme/username": "bob", "acme/password": " s3cret \r\n"})
    found = mount.asked()
    assert isinstance(found, BasicPair)
    assert (found.username, found.password.reveal(), found.origin) == ("bob", "s3cret", f"{mount.path}/acme")


@pytest.mark.parametrize("session", [None, "session"])
def test_keys_of_an_object_store(mount, session):
    more = {} if session is None else {"acme/session-token": session}
    mount.write({"acme/access-key-id": "AKIA", "acme/secret-access-key": "s3cret", **more})
    found = mount.asked()
    assert isinstance(found, KeyPair)
    assert (found.access_key, found.secret_key.reveal()) == ("AKIA", "s3cret")
    assert (found.session_token and found.session_token.reveal()) == session


def test_a_folder_that_is_a_volume_of_its_own(mount, tmp_path):
    mount.write({"token": "t0ken"})
    outer = type(mount)(tmp_path / "outer")
    outer.path.mkdir()
    (outer.path / "acme").symlink_to(mount.path)
    assert token_of(outer.asked()) == "t0ken"


def test_plain_files_will_do(mount):
    (mount.path / "acme").mkdir()
    (mount.path / "acme/token").write_text("t0ken")
    assert token_of(mount.asked()) == "t0ken"


@pytest.mark.parametrize(
    "files", [{}, {"acme/token": ""}, {"acme/token": " \n"}, {"acme/else": "x"}, {"hf/token": "x"}]
)
def test_nothing_for_this_source_is_left_to_the_next_plugin(mount, files):
    mount.write(files)
    assert mount.asked() is None


def test_a_missing_folder_is_left_to_the_next_plugin(mount):
    mount.path.rmdir()
    assert mount.asked() is None


def test_a_hosts_folder_wins_over_the_sources_and_its_port_over_the_host(mount):
    mount.write({"acme/token": "source", "api.example.com/token": "host", "api.example.com_8443/token": "port"})
    assert token_of(mount.asked("https://other.example.com/v1")) == "source"
    assert token_of(mount.asked("https://API.example.com/v1")) == "host"
    assert token_of(mount.asked("https://api.example.com:8443")) == "port"


@pytest.mark.parametrize(
    ("source", "endpoint", "uri"),
    [
        ("http", "https://files.example.com", "https://files.example.com/model.bin"),
        ("http", "https://files.example.com:8443", "https://bob:x@Files.example.com:8443/model.bin"),
        ("oci", "https://files.example.com", "oci://files.example.com/a:v1"),
    ],
)
def test_a_source_whose_uris_name_the_host_gets_a_hosts_credential_only(mount, source, endpoint, uri):
    mount.write({f"{source}/token": "for anybody a manifest names"})
    assert mount.asked(endpoint, uri, source) is None
    mount.write({f"{source}/token": "no", "files.example.com/token": "host"})
    assert token_of(mount.asked(endpoint, uri, source)) == "host"


def test_a_bucket_is_not_a_host(mount):
    mount.write({"s3/access-key-id": "AKIA", "s3/secret-access-key": "s3cret"})
    assert mount.asked("https://s3.example.com", "s3://bucket/key", "s3").access_key == "AKIA"


@pytest.mark.parametrize("host", ["..", ".", "..data", "[::1]", "a%2f..%2fb"])
def test_hosts_that_are_no_folder_of_ours(mount, host):
    mount.write({"token": "of the folder itself"})
    assert mount.asked(f"https://{host}") is None


@pytest.mark.parametrize("there", ["username", "password", "access-key-id", "secret-access-key"])
def test_half_a_pair_stops_and_says_which_is_missing(mount, there):
    other = {"username": "password", "access-key-id": "secret-access-key"}
    mount.write({f"acme/{there}": "s3cret"})
    missing = (other | {value: key for key, value in other.items()})[there]
    with pytest.raises(AuthenticationError, match=f"acme/{missing}") as caught:
        mount.asked()
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize("text", ["two\nlines", b"\xff\xfe", "a\x00b", "x" * 70_000])
def test_what_is_no_credential_stops(mount, text):
    mount.write({"acme/token": text})
    with pytest.raises(AuthenticationError, match="acme/token") as caught:
        mount.asked()
    assert "two" not in caught.value.message


def test_a_file_that_cannot_be_read_stops(mount):
    mount.write({"acme/token/oops": "x"})
    with pytest.raises(AuthenticationError, match="cannot read a credential"):
        mount.asked()


def test_files_of_somebody_else_stop(mount):
    mount.write({"acme/token": "x"})
    mount.path.chmod(0o700)
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    else:
        mount.path.chmod(0)
    try:
        with pytest.raises(AuthenticationError, match="Permission denied"):
            mount.asked()
    finally:
        os.seteuid(was)
        mount.path.chmod(0o700)


def test_a_new_secret_is_found_and_the_answer_says_when_to_ask_again(mount):
    mount.write({"acme/token": "old"})
    found = mount.asked()
    assert found.expires_at == pytest.approx(time.time() + REREAD_SECONDS, abs=10)
    mount.write({"acme/token": "new"})
    assert token_of(mount.asked()) == "new"
    mount.write({})
    assert mount.asked() is None


def test_a_new_user_never_comes_with_an_old_password(mount):
    mount.write({"acme/username": "0", "acme/password": "0"})
    done = threading.Event()

    def rotate():
        for number in range(1, 400):
            mount.write({"acme/username": str(number), "acme/password": str(number)})
        done.set()

    thread = threading.Thread(target=rotate)
    thread.start()
    seen, torn, said = set(), [], set()
    while not done.is_set():
        try:
            found = mount.asked()
        except AuthenticationError as exc:
            said.add(exc.message)
        else:
            seen.add(found.username)
            torn += [found] if found.username != found.password.reveal() else []
    thread.join()
    assert torn == []
    assert said <= {f"files change faster than they can be read: {mount.path}/acme"}
    assert len(seen) > 1
