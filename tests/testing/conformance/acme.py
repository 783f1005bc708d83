"""A good source, and the service that it reads: an index and signed addresses at one origin, files at another."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote

import httpx

from nim_core.errors import (
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    SourceError,
    TransientError,
)
from nim_core.hookspecs import hookimpl
from nim_core.testing.corpus import Content
from nim_core.testing.http_server import HttpOrigin, Request, RequestLog, Response, json_response
from nim_core.testing.ranged import serve_content, strong_etag
from nim_core.types import (
    BearerToken,
    CacheKey,
    Capabilities,
    CredentialRequest,
    Digest,
    EnvVar,
    HttpObject,
    Listing,
    ModelUri,
    RemoteFile,
    SourceContext,
    SourceSpec,
    UriStyle,
)

TOKEN = "a-token-of-acme-7413"

_REFUSALS = {401: AuthenticationError, 403: PermissionDeniedError, 404: NotFoundError}


class AcmeSource:
    """As good as can be; each broken one overrides a part."""

    def __init__(self, context: SourceContext) -> None:
        self.http = context.http
        self.url = context.variables.text("ACME_URL") or ""
        self.credential = context.credential

    def list_files(self, uri: ModelUri) -> Listing:
        index = self.ask(uri, f"/{uri.location}/{uri.revision or 'latest'}/index.json")
        try:
            files = tuple(self.listed(entry) for entry in index["files"])
            return Listing(uri=uri, files=files, pinned=self.pinned(uri, index))
        except (KeyError, TypeError, AttributeError) as exc:
            raise SourceError(f"not an index: {uri.display}") from exc

    def locate(self, uri: ModelUri, file: RemoteFile) -> HttpObject:
        answer = self.ask(uri, f"/{uri.location}/{uri.revision or 'latest'}/sign?path={self.quoted(file.path)}")
        return HttpObject(url=answer["url"], headers=self.data_headers(uri), ranges=True)

    def cache_key(self, uri: ModelUri, pinned: str | None) -> CacheKey:
        return CacheKey(root="acme/hub", repo=uri.location.replace("/", "--"), snapshot=pinned or "none")

    def close(self) -> None:
        pass

    def listed(self, entry: Mapping[str, str]) -> RemoteFile:
        digests = (Digest("sha256", entry["sha256"]),)
        return RemoteFile(path=entry["path"], size=int(entry["size"]), digests=digests)

    def pinned(self, _uri: ModelUri, index: Mapping[str, str]) -> str | None:
        return index["revision"]

    def quoted(self, path: str) -> str:
        return quote(path, safe="")

    def data_headers(self, _uri: ModelUri) -> dict[str, str]:
        return {}

    def token(self, uri: ModelUri) -> str | None:
        found = self.credential(self.url, uri)
        return found.token.reveal() if isinstance(found, BearerToken) else None

    def headers(self, uri: ModelUri) -> dict[str, str]:
        token = self.token(uri)
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    def ask(self, uri: ModelUri, target: str) -> Mapping[str, str]:
        return self.understood(uri, self.get(self.url + target, self.headers(uri)))

    def get(self, url: str, headers: Mapping[str, str]) -> httpx.Response:
        return self.http.get(url, headers=headers)

    def understood(self, uri: ModelUri, response: httpx.Response) -> Mapping[str, str]:
        if response.status_code != 200:
            raise self.refusal(uri, response)
        try:
            return response.json()
        except ValueError as exc:
            raise SourceError(f"not an answer of acme: {uri.display}") from exc

    def refusal(self, uri: ModelUri, response: httpx.Response) -> SourceError:
        status, what = response.status_code, f"{uri.display}: HTTP {response.status_code}"
        if status == 429:
            wait = response.headers.get("Retry-After", "")
            return RateLimitedError(what, retry_after=float(wait) if wait.isdecimal() else None)
        return _REFUSALS.get(status, TransientError if status >= 500 else SourceError)(what)


def hooks(source: type[AcmeSource], name: str) -> dict[str, object]:
    """Return what the module of a plugin called ``name`` has to have."""

    @hookimpl
    def nim_register_sources() -> list[SourceSpec]:
        return [
            SourceSpec(
                name=name,
                schemes=(name,),
                uri_style=UriStyle.REPOSITORY,
                summary="models of acme",
                factory=source,
                capabilities=Capabilities(pins_revisions=True),
                environment=(
                    EnvVar(name="ACME_URL", kind="url", summary="where"),
                    EnvVar(name="ACME_TOKEN", secret=True, summary="who"),
                ),
            )
        ]

    @hookimpl(trylast=True)
    def nim_provide_credential(request: CredentialRequest) -> BearerToken | None:
        token = request.variables.secret("ACME_TOKEN") if request.source == name else None
        return None if token is None else BearerToken(token=token, origin="ACME_TOKEN")

    return {"nim_register_sources": nim_register_sources, "nim_provide_credential": nim_provide_credential}


class Acme:
    """The service; ``revisions`` are contents by revision, the last of which is the latest."""

    def __init__(self, files: Mapping[str, Content]) -> None:
        self.revisions = {"r1": files}
        self.expired = 0
        self._tickets = itertools.count(1)
        log = RequestLog()
        self._index = HttpOrigin("acme", self._answer, log=log)
        self._storage = HttpOrigin("storage", self._file, log=log)
        self.url = self._index.url

    @contextmanager
    def running(self) -> Iterator[Acme]:
        with self._index, self._storage:
            yield self

    def expire(self) -> None:
        """Let every address that was given out be expired."""
        self.expired = next(self._tickets)

    def _answer(self, request: Request) -> tuple[str, Response]:
        if request.header("Authorization") != f"Bearer {TOKEN}":
            return "refused", Response(status=401)
        _, _, _, name, what = (*request.path.split("/", 4), "", "")[:5]
        revision = list(self.revisions)[-1] if name == "latest" else name
        if not request.path.startswith("/team/model/") or revision not in self.revisions:
            return "nothing", Response(status=404)
        if what == "index.json":
            return "index", json_response(
                {"revision": revision, "files": [*map(_entry, self.revisions[revision].items())]}
            )
        place = f"{self._storage.url}/{revision}/{quote(request.parameter('path') or '', safe='')}"
        return "sign", json_response({"url": f"{place}?ticket={next(self._tickets)}"})

    def _file(self, request: Request) -> tuple[str, Response]:
        _, revision, path = request.path.split("/", 2)
        content = self.revisions[revision].get(path)
        if content is None:
            return "nothing", Response(status=404)
        if int(request.parameter("ticket") or 0) <= self.expired:
            return "expired", Response(status=403)
        return "file", serve_content(request, content, etag=strong_etag(content))


def _entry(item: tuple[str, Content]) -> dict[str, object]:
    path, content = item
    return {"path": path, "size": content.size, "sha256": content.digest("sha256").value}
