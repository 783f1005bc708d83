"""
Credentials in a folder::

    <folder>/<host>/        for one host, or <host>_<port>; wins
    <folder>/<source>/      for a source, such as hf, wherever its endpoint is
        token                                                  a token or key
        username, password                                     both
        access-key-id, secret-access-key, [session-token]      of an object store

A mounted Secret is replaced by turning the link ``..data`` to another folder, all files at once; files are read through
one turn of it, so that a new user name never comes with an old password. Modes are not judged: a Secret is mounted
readable by all in its container, whose boundary is what protects it. Source: "Secrets", "Volumes" of Kubernetes.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from nim_core.errors import AuthenticationError
from nim_core.types import BasicPair, BearerToken, Credential, CredentialRequest, KeyPair, UriStyle

REREAD_SECONDS: Final = 300
"""For so long core keeps an answer, then files are read again; a kubelet takes a minute or two to bring a new one."""

_NAMES: Final = ("token", "username", "password", "access-key-id", "secret-access-key", "session-token")
_MOST_BYTES: Final = 64 * 1024
_TURNS: Final = 5
_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,249}")


def find_credential(request: CredentialRequest, folder: str) -> Credential | None:
    """
    Return what the first folder that fits has. None: there is none, or it has no files, or empty ones.

    Raises:
        AuthenticationError: A file cannot be read or is no credential, or one of a pair is missing.
    """
    for name in _folder_names(request):
        place = Path(folder, name)
        found = _credential(_read(place), str(place))
        if found is not None:
            return found
    return None


def _folder_names(request: CredentialRequest) -> Iterator[str]:
    """
    Yield the names of folders that may answer, the most particular first.

    Where the model's URI names the host itself, as of a web server, only that host's folder may: a manifest from
    elsewhere would otherwise decide who gets the source's credential.
    """
    place = urlsplit(request.endpoint)
    host = (place.hostname or "").replace(":", "_")
    names = [f"{host}_{place.port}"] if place.port else []
    names.append(host)
    if not _names_its_host(request, place.netloc):
        names.append(request.source)
    yield from filter(_FOLDER_NAME.fullmatch, names)


def _names_its_host(request: CredentialRequest, netloc: str) -> bool:
    uri = request.uri
    if uri is None or uri.style is not UriStyle.OBJECT:
        return False
    return uri.location.partition("/")[0].rpartition("@")[2].lower() == netloc.rpartition("@")[2].lower()


def _credential(found: Mapping[str, str], origin: str) -> Credential | None:
    expires_at = time.time() + REREAD_SECONDS
    if "token" in found:
        return BearerToken(token=found["token"], origin=f"{origin}/token", expires_at=expires_at)
    pairs = (("username", "password"), ("access-key-id", "secret-access-key"))
    for first, second in pairs:
        if (first in found) != (second in found):
            missing = second if first in found else first
            raise AuthenticationError(
                f"half of a credential is missing or empty: {origin}/{missing}",
                hint=f"put both {first} and {second} there, or neither",
            )
    if "username" in found:
        return BasicPair(username=found["username"], password=found["password"], origin=origin, expires_at=expires_at)
    if "access-key-id" in found:
        return KeyPair(
            access_key=found["access-key-id"],
            secret_key=found["secret-access-key"],
            session_token=found.get("session-token"),
            origin=origin,
            expires_at=expires_at,
        )
    return None


def _read(folder: Path) -> dict[str, str]:
    """Return the texts of the files that a folder has, all of one turn."""
    for _ in range(_TURNS):
        turn = _turn(folder)
        found = {name: text for name in _NAMES if (text := _text(turn / name, f"{folder}/{name}"))}
        if turn == _turn(folder):
            return found
    raise AuthenticationError(f"files change faster than they can be read: {folder}", hint="try again")


def _turn(folder: Path) -> Path:
    """Return the folder that is behind a name, and behind its ``..data``, now."""
    data = os.path.join(folder, "..data")  # noqa: PTH118 - what may not be looked into is told when it is read
    return Path(os.path.realpath(data if os.path.exists(data) else folder))  # noqa: PTH110


def _text(file: Path, shown: str) -> str:
    """Return what is in a file, without blanks around it; ``shown`` is its name for people. Empty: nothing there."""
    try:
        with file.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
        text = data.decode("utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as exc:
        hint = "let the user that runs this read it; in Kubernetes, see fsGroup and defaultMode"
        raise AuthenticationError(f"cannot read a credential: {shown}: {exc.strerror}", hint=hint) from exc
    except UnicodeDecodeError:
        raise AuthenticationError(f"not text: {shown}", hint="Secrets are base64 in YAML under data only") from None
    if len(data) > _MOST_BYTES or not text.isprintable():
        raise AuthenticationError(
            f"not one line of text: {shown}", hint="put the token or password alone into the file"
        )
    return text
