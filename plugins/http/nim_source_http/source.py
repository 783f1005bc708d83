"""Single files behind plain URLs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from attrs import frozen

from nim_core.errors import ConfigError
from nim_core.types import (
    CacheKey,
    Digest,
    HttpObject,
    Listing,
    ModelUri,
    RemoteFile,
    Secret,
    SourceContext,
)
from nim_source_http.credentials import authorization
from nim_source_http.errors import status_error
from nim_source_http.refs import HttpRef, cache_key_of, http_ref

if TYPE_CHECKING:
    import httpx

_HEAD_REFUSED: Final = frozenset({403, 405, 501})
"""A URL signed for GET answers 403 to HEAD, and some servers know no HEAD."""

_SHA256 = re.compile(r"(?:^|,)\s*sha-256=:?([A-Za-z0-9+/=]+?):?\s*(?:,|;|$)", re.IGNORECASE)
_TOTAL = re.compile(r"bytes (?:\d+-\d+|\*)/(\d+)")


@frozen(kw_only=True)
class _Facts:
    """What the headers of an answer say about a whole file; None where they say nothing."""

    size: int | None = None
    digests: tuple[Digest, ...] = ()
    validator: str | None = None
    ranges: bool | None = None


class HttpSource:
    """
    The source behind ``http://`` and ``https://``: every URI is one file.

    Size, digests and validator come from a HEAD request, or from a request for the first byte where HEAD is refused;
    where core does without them, from the answer that brings the file.
    A strong ETag pins the content while it is fetched; it is never taken for a digest.
    """

    def __init__(self, context: SourceContext) -> None:
        self._context = context
        self._listed: dict[str, _Facts] = {}
        self._located: set[str] = set()

    def list_files(self, uri: ModelUri) -> Listing:
        """List the one file. Raises SourceError by the status of the answer, InvalidUriError for a malformed URI."""
        ref = http_ref(uri)
        facts = self._listed[ref.url] = self._ask(ref, self._headers(ref, uri))
        return Listing(uri=uri, files=(RemoteFile(path=ref.name, size=facts.size, digests=facts.digests),))

    def locate(self, uri: ModelUri, file: RemoteFile) -> HttpObject:  # noqa: ARG002 - every URI is one file
        """
        Return the URL without userinfo, and what signs in to it; what a listing found out is used once.

        The first time nothing is asked for; a URL that was given out before was refused, and asking says why.
        """
        ref = http_ref(uri)
        headers = self._headers(ref, uri)
        facts = self._listed.pop(ref.url, None)
        if facts is None:
            facts = self._ask(ref, headers) if ref.url in self._located else _Facts()
        self._located.add(ref.url)
        return HttpObject(url=ref.url, headers=headers, ranges=facts.ranges, validator=facts.validator, size=facts.size)

    def cache_key(self, uri: ModelUri, pinned: str | None) -> CacheKey:  # noqa: ARG002 - URLs have no revisions
        """Return the place for the file; see :func:`~nim_source_http.refs.cache_key_of` for what its identity is."""
        return cache_key_of(http_ref(uri))

    def file_name(self, uri: ModelUri) -> str:
        """Return the last part of the path; see :class:`~nim_source_http.refs.HttpRef`."""
        return http_ref(uri).name

    def close(self) -> None:
        """Nothing is held open."""

    def _headers(self, ref: HttpRef, uri: ModelUri) -> dict[str, Secret]:
        return authorization(ref.pair or self._context.credential(ref.origin, uri))

    def _ask(self, ref: HttpRef, headers: dict[str, Secret]) -> _Facts:
        sent = {name: value.reveal() for name, value in headers.items()}
        response = self._request("HEAD", ref, sent)
        if response.status_code in _HEAD_REFUSED:
            response = self._request("GET", ref, sent | {"Range": "bytes=0-0"})
        if response.status_code in {200, 206} or _is_empty(response):
            return _facts(response)
        raise status_error(response.status_code, ref.shown, response.headers.get("Retry-After"))

    def _request(self, method: str, ref: HttpRef, headers: dict[str, str]) -> httpx.Response:
        """Return the head of the answer; a body, which a server without ranges sends whole, is not waited for."""
        extensions = {"target": ref.target.encode("ascii")}
        with self._context.http.stream(method, f"{ref.origin}/", headers=headers, extensions=extensions) as response:
            return response


def _is_empty(response: httpx.Response) -> bool:
    """Whether the file has no first byte, which is what was asked for."""
    return response.status_code == 416 and response.headers.get("Content-Range", "").strip() == "bytes */0"


def _facts(response: httpx.Response) -> _Facts:
    headers, status = response.headers, response.status_code
    etag = headers.get("ETag", "")
    encoded = headers.get("Content-Encoding", "identity") != "identity"
    units = headers.get("Accept-Ranges", "").lower()
    ranged = response.request.method == "GET"
    return _Facts(
        size=None if encoded else _size(response),
        digests=() if encoded else _digests(headers, whole=status == 200),
        validator=etag if etag.startswith('"') else None,
        ranges=(status != 200) if ranged else {"bytes": True, "none": False}.get(units),
    )


def _size(response: httpx.Response) -> int | None:
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None
    match = _TOTAL.fullmatch(response.headers.get("Content-Range", "").strip())
    return int(match[1]) if match else None


def _digests(headers: httpx.Headers, *, whole: bool) -> tuple[Digest, ...]:
    """Return what the server vouches for: Repr-Digest (RFC 9530), Digest (RFC 3230), Content-MD5 of a whole answer."""
    sha256 = _SHA256.search(headers.get("Repr-Digest", "")) or _SHA256.search(headers.get("Digest", ""))
    found = [("sha256", sha256[1] if sha256 else ""), ("md5", headers.get("Content-MD5", "") if whole else "")]
    digests: list[Digest] = []
    for algorithm, value in found:
        try:
            digests += [Digest.from_base64(algorithm, value)] if value else []
        except ConfigError:
            continue
    return tuple(digests)
