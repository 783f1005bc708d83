"""``http`` and ``https`` URIs as typed references, and where their files live in the cache."""

from __future__ import annotations

import hashlib
import re
from typing import Final
from urllib.parse import quote, unquote

from attrs import frozen

from nim_core.errors import InvalidUriError, OverrideUnsupportedError
from nim_core.types import BasicPair, CacheKey, ModelUri, OverrideTarget, UriStyle, check_relative_path

_SENT_AS_IS: Final = "".join(chr(code) for code in range(0x21, 0x7F))
_REST = re.compile(
    r"(?:(?P<userinfo>[^/?#]*)@)?(?P<host>(?:\[[0-9A-Fa-f:.]+\]|[^/?#@:\\\s]+)(?::\d+)?)(?P<target>(?:[/?#].*)?)"
)
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


@frozen(kw_only=True)
class HttpRef:
    """
    One file behind a URL.

    Attributes:
        origin: Scheme, host in lower case, and port unless it is the scheme's own.
        target: Path and query, sent to the letter; only what a request cannot carry (blanks, non-ASCII) is encoded.
        name: What to call the file: the last part of the path, decoded once; the encoded part where the decoded one is
            not a safe file name, and ``index`` where that is none either.
        plain: Whether ``name`` is the decoded part and there is no query, so that folder and name tell URLs apart.
        pair: User and password of the URI. None when it has none.
    """

    origin: str
    target: str
    name: str
    plain: bool
    pair: BasicPair | None

    @property
    def url(self) -> str:
        """What is fetched, without userinfo."""
        return self.origin + self.target

    @property
    def shown(self) -> str:
        """The URL for messages: a query may be a signature."""
        path, question, _ = self.target.partition("?")
        return f"{self.origin}{path}{question and '?...'}"


def http_ref(uri: ModelUri) -> HttpRef:
    """
    Read a URI of OBJECT style.

    Raises:
        InvalidUriError: The host is missing or malformed, or there is a ``#``, which servers never get to see.
    """
    match = _REST.fullmatch(uri.location)
    if match is None:
        raise InvalidUriError(
            f"no host in URI: {uri.scheme}://...", hint="the form is https://[USER:PASSWORD@]HOST[:PORT]/PATH"
        )
    origin = f"{uri.scheme}://{match['host'].lower().removesuffix(_DEFAULT_PORTS[uri.scheme])}"
    if "#" in match["target"]:
        raise InvalidUriError(f"fragment in URI of host {origin}", hint="write %23 for a # that belongs to the name")
    target = quote(match["target"], safe=_SENT_AS_IS)
    target = target if target.startswith("/") else f"/{target}"
    last = target.partition("?")[0].rpartition("/")[2]
    name = _file_name(last)
    return HttpRef(
        origin=origin,
        target=target,
        name=name,
        plain=name == unquote(last) and "?" not in target,
        pair=_pair(match["userinfo"]),
    )


def cache_key_of(ref: HttpRef) -> CacheKey:
    """
    Return where the file lives in the cache.

    What a URL names is its identity: scheme, host, port, path and query, but not userinfo, as who asks changes nothing
    about what is asked for. So files of one folder share a repository, files of two never do; a URL with a query, or
    one whose file had to be called something else, has a repository of its own. A URL signed anew each time is a new
    identity each time; a manifest's digest is what lets its content be found again. URLs name no version: there is one
    snapshot, and a file that has changed at its source takes the place of the old one.

    The name shows the host alone. The rest is hashed, so that no query stands in it.
    """
    identity = ref.url.rpartition("/")[0] if ref.plain else ref.url
    host = re.sub(r"[^a-z0-9.-]", "-", ref.origin.partition("://")[2])[:100]
    return CacheKey(
        root="http/hub",
        repo=f"files--{host}--{hashlib.sha256(identity.encode()).hexdigest()[:32]}",
        snapshot="current",
    )


def at_server(uri: ModelUri, override: OverrideTarget) -> tuple[ModelUri, ...]:
    """
    Return the URLs that may stand for a file on a web server that NIM_REPOSITORY_OVERRIDE names, likeliest first.

    A server decodes the path once. The key, which has percent signs, is therefore encoded again, as the clients of
    object stores do; sent as it is, it names a file in folders, as servers keep them that were filled by hand. A query,
    such as one that signs, stays at the end.

    Raises:
        OverrideUnsupportedError: ``uri`` names a whole model, which plain servers cannot list.
    """
    if uri.style is not UriStyle.OBJECT and uri.file is None:
        raise OverrideUnsupportedError(
            f"a web server cannot list a model: {uri.display} at {override.display}",
            hint="name the model's files in a manifest (--manifest-file)",
        )
    folder, question, query = override.location.partition("?")
    keys = (quote(override.key, safe=""), override.key)
    return tuple(
        ModelUri(scheme=override.scheme, location=f"{folder.rstrip('/')}/{key}{question}{query}", style=UriStyle.OBJECT)
        for key in keys
    )


def _file_name(encoded: str) -> str:
    for name in (unquote(encoded, errors="surrogateescape"), encoded):
        try:
            if "/" not in name:
                return check_relative_path(name)
        except InvalidUriError:
            continue
    return "index"


def _pair(userinfo: str | None) -> BasicPair | None:
    if not userinfo:
        return None
    username, _, password = userinfo.partition(":")
    return BasicPair(username=unquote(username), password=unquote(password), origin="the URI")
