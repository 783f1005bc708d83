"""What an NGC model version holds and where its bytes are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from attrs import evolve, field, frozen

from nim_core.errors import AuthenticationError, ConfigError, InvalidUriError, NotFoundError, SourceError
from nim_core.types import CacheKey, Digest, HttpObject, Listing, ModelUri, RemoteFile, SourceContext
from nim_source_ngc.client import Client, Signer
from nim_source_ngc.credentials import Pass
from nim_source_ngc.errors import BadRequestError, reading
from nim_source_ngc.refs import NgcRef

_URL_AGE = 600.0
_REFUSED = (AuthenticationError, BadRequestError)


@frozen(kw_only=True)
class _Version:
    """What is remembered of a version: URLs not given out yet, or passes given out with redirecting URLs."""

    redirects: bool
    learned_at: float
    urls: dict[str, str]
    given: dict[str, Pass] = field(factory=dict)


class NgcSource:
    """
    Models of NGC; says where in the cache they live, too.

    Files and sizes come from the listing, URLs from the presigned manifest. A key may be refused these (400 or 401) for
    an organisation it is no member of: files then come from ``checksums.blake3``, and URLs are the API's own, which
    redirect and want the credential.
    """

    def __init__(self, context: SourceContext, *, clock: Callable[[], float] = time.time) -> None:
        self._signer = Signer(context, clock=clock)
        self._client = Client(context, self._signer)
        self._clock = clock
        self._lock = threading.Lock()
        self._latest: dict[NgcRef, str] = {}
        self._versions: dict[NgcRef, _Version] = {}

    def list_files(self, uri: ModelUri) -> Listing:
        """List a version, the latest when ``uri`` names none."""
        ref = self._resolved(uri)
        return Listing(uri=uri, files=tuple(self._load(ref).values()), pinned=ref.version)

    def locate(self, uri: ModelUri, file: RemoteFile) -> HttpObject:
        """Return a URL that was not given out before; presigned and without headers unless NGC refuses such URLs."""
        ref = self._resolved(uri)
        with self._lock:
            if ref not in self._versions:
                self._load(ref)
            version = self._versions[ref]
        url = version.urls.pop(file.path, None)
        if version.redirects:
            return self._redirecting(ref, version, file)
        if url is None or self._clock() - version.learned_at > _URL_AGE:
            query = urlencode({"path": file.path})
            page = self._client.json(ref, f"{ref.manifest_path}?{query}")
            with reading(ref):
                url = _presigned(page)[file.path]
        return HttpObject(url=url, ranges=True, size=file.size)

    def close(self) -> None:
        """Forget what was learned."""
        self._versions.clear()

    def cache_key(self, uri: ModelUri, pinned: str | None) -> CacheKey:
        """Return ``ngc/hub/models--org--team--model``, one snapshot per version."""
        ref = NgcRef.parse(uri)
        version = ref.version or pinned
        if version is None:
            raise InvalidUriError(f"no version: {uri.display}", hint=f"add one, as in ngc://{ref}:version")
        return ref.cache_key(version)

    def _resolved(self, uri: ModelUri) -> NgcRef:
        ref = self._signer.admitted(NgcRef.parse(uri))
        if ref.version is not None:
            return ref
        with self._lock:
            if ref not in self._latest:
                self._latest[ref] = self._latest_version(ref)
            return evolve(ref, version=self._latest[ref])

    def _latest_version(self, ref: NgcRef) -> str:
        page = self._client.json(ref, ref.model_path)
        with reading(ref):
            version = page["model"].get("latestVersionIdStr") or None
            latest = NgcRef.parse(evolve(ref.uri, revision=version)).version
        if latest is None:
            raise NotFoundError(f"NGC has no version of {ref}", hint=f"see {ref.catalogue_url}")
        return latest

    def _load(self, ref: NgcRef) -> Mapping[str, RemoteFile]:
        files = self._listed(ref)
        redirects = False
        try:
            urls = self._client.pages(ref, ref.manifest_path, _presigned)
        except _REFUSED:
            if ref.guest:
                raise
            urls, redirects = {}, True
        self._versions[ref] = _Version(redirects=redirects, learned_at=self._clock(), urls=urls)
        with reading(ref):
            return {**files, **{path: RemoteFile(path=path) for path in urls if path not in files}}

    def _listed(self, ref: NgcRef) -> Mapping[str, RemoteFile]:
        try:
            return self._client.pages(ref, ref.listing_path, lambda page: _files(page, ref))
        except _REFUSED:
            text = None if ref.guest else self._client.text(ref, ref.file_path("checksums.blake3"))
            files = _checksums(text or "")
            if not files:
                raise
            return files

    def _redirecting(self, ref: NgcRef, version: _Version, file: RemoteFile) -> HttpObject:
        granted = self._signer.sign(ref, refused=version.given.get(file.path))
        version.given[file.path] = granted
        url = self._client.url(ref, ref.file_path(file.path))
        return HttpObject(url=url, headers=granted.headers, expires_at=granted.expires_at, size=file.size)


def _files(page: dict[str, Any], ref: NgcRef) -> dict[str, RemoteFile]:
    status = (page.get("modelVersion") or {}).get("status", "UPLOAD_COMPLETE")
    if status != "UPLOAD_COMPLETE":
        raise SourceError(f"the upload of {ref} is not complete: {status}", hint="wait for it, or use another version")
    files = [_file(entry) for entry in page.get("modelFiles") or []]
    return {file.path: file for file in files}


def _file(entry: dict[str, Any]) -> RemoteFile:
    sha256 = entry.get("sha256_base64")
    digests = (Digest.from_base64("sha256", sha256),) if sha256 else ()
    return RemoteFile(path=entry["path"], size=int(entry["sizeInBytes"]), digests=digests)


def _presigned(page: dict[str, Any]) -> dict[str, str]:
    urls = dict(zip(page["filepath"], page["urls"], strict=True))
    if not all(str(url).startswith(("https://", "http://")) for url in urls.values()):
        raise ValueError("not a URL among the presigned ones")
    return urls


def _checksums(text: str) -> dict[str, RemoteFile]:
    """Read lines of digest and path; nothing at all when one of them is no such line, as in an error page."""
    lines = [line.split(maxsplit=1) for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
    try:
        return {path: RemoteFile(path=path, digests=(Digest("blake3", value),)) for value, path in lines}
    except (ValueError, ConfigError):
        return {}
