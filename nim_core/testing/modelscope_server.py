"""
A stand-in for ModelScope: the API at one origin, signed storage of LFS files at another.

In a test::

    with ModelScopeServer([ModelScopeModel(files=sample_corpus().files)]) as server:
        ...  # server.url, server.environment(), server.log, server.faults

Routes of the API, as the log names them:

==============  ====================================================================================
``listing``     files with sizes and SHA-256, cut without a word, ``Root`` and ``Recursive`` obeyed
``file``        bytes of a file of git, whatever range is asked for; LFS files redirect to storage
``revisions``   branches
``model``       what is told about a model
``region``      where storage is near: not known here
==============  ====================================================================================

Whoever signs in has to send the token both as bearer and as cookie. The storage goes by another name of this machine,
as cookies do not tell ports apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from types import TracebackType
from typing import Final, Self
from urllib.parse import unquote

from attrs import frozen

from nim_core.testing.certificates import Certificates
from nim_core.testing.faults import Faults, answer_with
from nim_core.testing.http_server import HttpOrigin, Request, RequestLog, Response
from nim_core.testing.modelscope_models import CODES, ModelScopeModel, refusal, success
from nim_core.testing.signed_storage import SignedStorage

__all__ = ["MODELSCOPE_TOKEN", "STRANGERS_TOKEN", "ModelScopeServer"]

MODELSCOPE_TOKEN: Final = "ms-5b1c7f2e-90ad-4c36-8f1e-3d2a6b7c8d9e"  # noqa: S105 - good here alone
"""Of an account that may read every model."""

STRANGERS_TOKEN: Final = "ms-00000000-1111-4222-8333-444444444444"  # noqa: S105 - good here alone
"""Of an account that may read public models."""

_API: Final = "/api/v1"
_MODEL: Final = rf"{_API}/models/(?P<org>[^/]+)/(?P<name>[^/]+)"


@frozen(kw_only=True)
class _Route:
    name: str
    pattern: re.Pattern[str]
    handler: Callable[[Request, ModelScopeModel], Response]
    seen: bool = False


class ModelScopeServer:
    """
    A stand-in for ModelScope, serving while it is entered.

    Args:
        models: What it has.
        certificates: Makes the API speak TLS, and the storage too.
        cut: Entries after which a listing ends.
        url_lifetime: Seconds a signed URL is good for.

    Attributes:
        log: Every request to either origin, ``api`` and ``storage``. The route of the latter is ``storage``.
        faults: What goes wrong, by route or path.
        storage: The store of LFS files; ``storage.leaks`` are requests that brought it a credential.
    """

    token = MODELSCOPE_TOKEN

    def __init__(
        self,
        models: Sequence[ModelScopeModel],
        *,
        certificates: Certificates | None = None,
        cut: int = 3000,
        url_lifetime: float = 3600,
    ) -> None:
        self.log = RequestLog()
        self.faults = Faults()
        self.storage = SignedStorage(lifetime=url_lifetime)
        self._models = {(model.org, model.name): model for model in models}
        self._cut = cut
        self._routes = (
            _route("listing", _MODEL + "/repo/files", self._listing),
            _route("file", _MODEL + "/repo", self._file),
            _route("revisions", _MODEL + "/revisions", _revisions),
            _route("model", _MODEL, _described, seen=True),
        )
        self._api_origin = HttpOrigin("api", self._answer_api, log=self.log, certificates=certificates)
        self._storage_origin = HttpOrigin("storage", self._answer_storage, log=self.log, certificates=certificates)
        self._running = ExitStack()
        self.url = self._api_origin.url
        self.storage_url = self._storage_origin.url.replace("127.0.0.1", "localhost")
        for model in models:
            for path in filter(model.is_lfs, model.files):
                self.storage.put(model.storage_path(path), model.files[path])

    def __enter__(self) -> Self:
        self._running.enter_context(self._api_origin)
        self._running.enter_context(self._storage_origin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def environment(self, token: str | None = MODELSCOPE_TOKEN) -> Mapping[str, str]:
        """Return the variables that direct a client here; without a token when ``token`` is None."""
        variables = {"MODELSCOPE_ENDPOINT": self.url}
        return variables if token is None else {**variables, "MODELSCOPE_API_TOKEN": token}

    def refuse(
        self,
        status: int,
        message: str = "refused",
        *,
        code: int | None = None,
        route: str | None = None,
        path: str | None = None,
        times: int | None = None,
    ) -> None:
        """Answer ``status`` in the API's own words; where and how often as for :meth:`Faults.add`."""
        self.faults.add(answer_with(refusal(status, message, code=code)), route=route, path=path, times=times)

    def expire_urls(self) -> None:
        """Let every signed URL given out so far be expired."""
        self.storage.expire_urls()

    def _answer_api(self, request: Request) -> tuple[str, Response]:
        name, response = self._answer(request)
        return name, self.faults.apply(name, request, response)

    def _answer_storage(self, request: Request) -> tuple[str, Response]:
        return "storage", self.faults.apply("storage", request, self.storage.answer(request))

    def _answer(self, request: Request) -> tuple[str, Response]:
        if request.raw_path == f"{_API}/repos/internalAccelerationInfo":
            return "region", refusal(404, "not in the cloud")
        for route in self._routes:
            found = route.pattern.fullmatch(request.raw_path)
            if found and request.method in {"GET", "HEAD"}:
                model = self._models.get((unquote(found["org"]), unquote(found["name"])))
                refused = _refused(request, model, seen=route.seen)
                if model is None or refused is not None:
                    return route.name, refused or refusal(404, "record not found", code=CODES["no model"])
                return route.name, route.handler(request, model)
        return "none", refusal(404, "no such route")

    def _listing(self, request: Request, model: ModelScopeModel) -> Response:
        if not model.has(request.parameter("Revision") or model.revisions[0]):
            return success({"Files": None, "IsVisual": 0, "LatestCommitter": None})
        recursive = (request.parameter("Recursive") or "").lower() == "true"
        entries = model.entries(request.parameter("Root") or "", recursive=recursive)
        latest = {"Id": "", "ShortId": model.commit[:8], "CommitterName": "sample"}
        return success({"Files": [*islice(entries, self._cut)], "IsVisual": 0, "LatestCommitter": latest})

    def _file(self, request: Request, model: ModelScopeModel) -> Response:
        path = request.parameter("FilePath") or ""
        if not model.has(request.parameter("Revision") or model.revisions[0]):
            return refusal(404, "no tree", code=CODES["no tree"])
        if path not in model.files:
            return refusal(404, "file not found", code=CODES["no file"])
        if not model.is_lfs(path):
            return Response(headers={"Content-Type": "application/octet-stream"}, body=model.files[path])
        where = model.storage_path(path)
        linked = {"X-Linked-ETag": model.files[path].digest("sha256").value}
        return Response(status=302, headers={"Location": self.storage_url + self.storage.sign(where), **linked})


def _route(
    name: str, pattern: str, handler: Callable[[Request, ModelScopeModel], Response], *, seen: bool = False
) -> _Route:
    return _Route(name=name, pattern=re.compile(pattern), handler=handler, seen=seen)


def _refused(request: Request, model: ModelScopeModel | None, *, seen: bool) -> Response | None:
    """Return the refusal of whoever asks. None when they may; ``seen``: for what is told of a gated model, too."""
    scheme, _, bearer = (request.header("Authorization") or "").partition(" ")
    cookies = {part.strip() for part in (request.header("Cookie") or "").split(";")}
    if (bearer or cookies != {""}) and (scheme != "Bearer" or f"m_session_id={bearer}" not in cookies):
        return refusal(400, "bearer and cookie differ")
    if bearer == MODELSCOPE_TOKEN or model is None or model.access == "public":
        return None
    if model.access == "gated" and seen:
        return None
    return refusal(404, "no access", code=CODES["no access"])


def _revisions(_request: Request, model: ModelScopeModel) -> Response:
    branches = [{"Revision": name} for name in model.revisions]
    return success({"RevisionMap": {"Branches": branches, "Tags": []}})


def _described(_request: Request, model: ModelScopeModel) -> Response:
    return success({"Path": model.org, "Name": model.name, "Visibility": 5 if model.access == "public" else 1})
