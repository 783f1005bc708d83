"""Credentials for plain URLs: netrc, and what is sent."""

from __future__ import annotations

import base64
import netrc
from pathlib import Path
from urllib.parse import urlsplit

from nim_core.errors import AuthenticationError, UnsupportedError
from nim_core.types import Anonymous, BasicPair, BearerToken, Credential, CredentialRequest, Secret


def netrc_credential(request: CredentialRequest) -> Credential:
    """
    Return the user and password that netrc has for the host, else :class:`Anonymous`.

    A ``default`` entry is passed over: it would go to every host that a manifest happens to name.

    Raises:
        AuthenticationError: The file that NETRC names is missing, or the file cannot be read or understood.
    """
    file = Path(request.variables.text("NETRC") or "").expanduser()
    if not file.exists() and not request.variables.is_set("NETRC"):
        return Anonymous()
    try:
        hosts = netrc.netrc(file).hosts
    except OSError as exc:
        raise AuthenticationError(
            f"cannot read {file}, which netrc entries come from: {exc.strerror}", hint="mend the file, or unset NETRC"
        ) from exc
    except (netrc.NetrcParseError, UnicodeDecodeError) as exc:
        # The parser's own words quote the file, which may be a password.
        line = getattr(exc, "lineno", None)
        place = f"{file}, line {line}" if line else str(file)
        hint = "write lines such as: machine HOST login USER password PASSWORD"
        raise AuthenticationError(f"not in netrc form: {place}", hint=hint) from None
    host = urlsplit(request.endpoint).hostname or ""
    entry = hosts.get(host)
    if entry is None or host == "default":
        return Anonymous()
    return BasicPair(username=entry[0] or "", password=entry[2] or "", origin=str(file))


def authorization(credential: Credential) -> dict[str, Secret]:
    """Return the headers that sign in. Raises UnsupportedError for a kind of credential a plain URL has no use for."""
    match credential:
        case Anonymous():
            return {}
        case BearerToken():
            return {"Authorization": Secret(f"Bearer {credential.token.reveal()}")}
        case BasicPair():
            pair = f"{credential.username}:{credential.password.reveal()}".encode()
            return {"Authorization": Secret(f"Basic {base64.b64encode(pair).decode('ascii')}")}
    kind = type(credential).__name__
    raise UnsupportedError(f"http and https URLs cannot be asked for with a {kind} (from {credential.origin})")
