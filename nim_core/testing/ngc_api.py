"""
The API of the NGC stand-in: routes as data, one handler each.

=============  =================================================================
``listing``    files with sizes and SHA-256, 0-based pages
``manifest``   presigned URLs, all files in 0-based pages or one by ``?path=``
``file``       one file, by redirection to a presigned URL
``model``      with the latest version; ``versions``, ``version``, ``signature``
``acceptance`` of a licence, by POST
``caller``     what a personal key belongs to; ``token``, ``orgs``, ``teams``
=============  =================================================================

Every model route exists twice: beneath ``/v2/org/..`` for a bearer, beneath ``/v2/models/..`` for a guest.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Literal
from urllib.parse import unquote

from attrs import frozen

from nim_core.testing.http_server import Request, Response
from nim_core.testing.ngc_auth import NgcAuth
from nim_core.testing.ngc_models import NgcModel, refusal, success

__all__ = ["NgcApi"]

_OWNER = r"org/(?P<org>[^/]+)(?:/team/(?P<team>[^/]+))?"
_MEMBER = rf"/v2/{_OWNER}/models/(?P<model>[^/]+)"
_GUEST = r"/v2/models/(?P<org>[^/]+)(?:/(?P<team>[^/]+))?/(?P<model>[^/]+)"
_GUEST_MANIFEST = rf"/v2/models/{_OWNER}/(?P<model>[^/]+)"
_VERSION = r"/(?P<version>[^/]+)"

Access = Literal["open", "bearer", "guest"]


@frozen(kw_only=True)
class Call:
    """A request with what its path says, decoded; absent parts are None."""

    request: Request
    access: Access
    org: str | None = None
    team: str | None = None
    model: str | None = None
    version: str | None = None
    file: str | None = None


@frozen(kw_only=True)
class _Route:
    name: str
    pattern: re.Pattern[str]
    handler: Callable[[Call], Response]
    method: str = "GET"
    access: Access = "bearer"


class NgcApi:
    """
    Answers API and token requests.

    Args:
        models: What there is; of several versions of one model the last is the latest.
        auth: Decides who may ask.
        sign: Makes a presigned URL for a path in the store.
        page_size: Most files in one page, whatever is asked for.
        prefix: Path before all routes, empty or starting with a slash.
    """

    def __init__(
        self, models: Sequence[NgcModel], *, auth: NgcAuth, sign: Callable[[str], str], page_size: int, prefix: str
    ) -> None:
        self.models = list(models)
        self.accepted: set[str] = set()
        self._auth = auth
        self._sign = sign
        self._page_size = page_size
        self._prefix = prefix
        self._routes = tuple(self._all_routes())

    def answer(self, request: Request) -> tuple[str, Response]:
        """Return the name of the route and its answer; no route is a 404."""
        path = request.raw_path
        if not path.startswith(self._prefix):
            return "none", refusal(404, "not beneath the prefix")
        for route in self._routes:
            found = route.pattern.fullmatch(path.removeprefix(self._prefix))
            if found and route.method == request.method:
                parts = {name: None if text is None else unquote(text) for name, text in found.groupdict().items()}
                return route.name, self._admit(route, Call(request=request, access=route.access, **parts))
        return "none", refusal(404, "no such route")

    def _all_routes(self) -> Iterator[_Route]:
        yield _route("caller", r"/v3/keys/get-caller-info", self._caller, method="POST", access="open")
        yield _route("token", r"/token", self._token, access="open")
        yield _route("orgs", r"/v2/orgs", self._orgs)
        yield _route("teams", r"/v2/org/(?P<org>[^/]+)/teams", self._teams)
        yield _route("manifest", _MEMBER + _VERSION + "/files", self._manifest)
        yield _route("manifest", _GUEST_MANIFEST + _VERSION + "/files", self._manifest, access="guest")
        yield _route("acceptance", _MEMBER + "/license/acceptance", self._acceptance, method="POST")
        yield from self._file_routes("bearer", _MEMBER)
        yield from self._file_routes("guest", _GUEST)

    def _file_routes(self, access: Access, base: str) -> Iterator[_Route]:
        version = base + "/versions" + _VERSION
        yield _route("listing", version + "/files", self._listing, access=access)
        yield _route("file", version + "/files/(?P<file>.+)", self._file, access=access)
        yield _route("signature", version + "/signature", self._signature, access=access)
        yield _route("version", version, self._version, access=access)
        yield _route("versions", base + "/versions", self._versions, access=access)
        yield _route("model", base, self._model, access=access)

    def _admit(self, route: _Route, call: Call) -> Response:
        if call.access == "open":
            return route.handler(call)
        model = self._find(call)
        if call.access == "guest":
            known = model is not None and model.guest and call.request.header("X-NGC-Guest-Token")
            return route.handler(call) if known else refusal(401, "guests may not")
        refused = self._auth.refuse(call.request, model)
        if refused is not None:
            return refused
        return refusal(404, "no such model") if call.model and model is None else route.handler(call)

    def _find(self, call: Call) -> NgcModel | None:
        of_name = [model for model in self.models if (model.org, model.team, model.name) == _name(call)]
        of_version = [model for model in of_name if call.version in {None, model.version}]
        return of_version[-1] if of_version else None

    def _found(self, call: Call) -> NgcModel:
        model = self._find(call)
        assert model is not None, "_admit has checked it"
        return model

    def _caller(self, call: Call) -> Response:
        return self._auth.caller_info(call.request)

    def _token(self, call: Call) -> Response:
        return self._auth.token(call.request)

    def _orgs(self, _call: Call) -> Response:
        names = dict.fromkeys(model.org for model in self.models)
        return success(organizations=[{"name": name, "displayName": name} for name in names])

    def _teams(self, call: Call) -> Response:
        names = dict.fromkeys(model.team for model in self.models if model.org == call.org and model.team)
        return success(teams=[{"name": name} for name in names])

    def _model(self, call: Call) -> Response:
        model = self._found(call)
        terms = [] if model.licence is None else [self._term(model.licence)]
        described = {
            "name": model.name,
            "orgName": model.org,
            "teamName": model.team,
            "latestVersionIdStr": model.version,
            "canGuestDownload": model.guest,
            "licenseTerms": terms,
        }
        return success(model=described)

    def _term(self, licence: str) -> dict[str, object]:
        needed = licence not in self.accepted
        return {"licenseId": licence, "licenseVersion": "1", "needsAcceptance": needed, "governingTerms": "Terms."}

    def _versions(self, call: Call) -> Response:
        versions = [model for model in self.models if (model.org, model.team, model.name) == _name(call)]
        page = {"index": 0, "size": len(versions), "totalPages": 1, "totalResults": len(versions)}
        return success(modelVersions=[_version(model) for model in reversed(versions)], paginationInfo=page)

    def _version(self, call: Call) -> Response:
        return success(modelVersion=_version(self._found(call)))

    def _listing(self, call: Call) -> Response:
        model = self._found(call)
        if self._awaits_licence(model):
            return refusal(412, "terms have to be accepted")
        paths, page = self._page(model, call.request)
        entries = [_entry(model, path) for path in paths]
        return success(modelVersion=_version(model), modelFiles=entries, paginationInfo=page)

    def _manifest(self, call: Call) -> Response:
        model = self._found(call)
        if self._awaits_licence(model):
            return refusal(412, "terms have to be accepted")
        wanted = call.request.parameter("path")
        if wanted is None:
            paths, page = self._page(model, call.request)
        elif wanted in model.served_files:
            paths, page = [wanted], {"index": 0, "size": 1, "totalPages": 1, "totalResults": 1}
        else:
            return refusal(404, "no such file")
        urls = [self._sign(model.storage_path(path)) for path in paths]
        return success(urls=urls, filepath=paths, paginationInfo=page)

    def _file(self, call: Call) -> Response:
        model = self._found(call)
        if call.file is None or call.file not in model.served_files:
            return refusal(404, "no such file")
        return Response(status=302, headers={"Location": self._sign(model.storage_path(call.file))})

    def _signature(self, call: Call) -> Response:
        return success(url=self._sign(self._found(call).storage_path("signature")))

    def _acceptance(self, call: Call) -> Response:
        try:
            self.accepted.add(json.loads(call.request.body.decode())["licenseId"])
        except (ValueError, KeyError, TypeError):
            return refusal(400, "licenseId expected")
        return success()

    def _awaits_licence(self, model: NgcModel) -> bool:
        return model.licence is not None and model.licence not in self.accepted

    def _page(self, model: NgcModel, request: Request) -> tuple[list[str], dict[str, int]]:
        paths = list(model.served_files)
        size = min(self._page_size, int(request.parameter("page-size") or self._page_size))
        number = int(request.parameter("page-number") or 0)
        page = {"index": number, "size": size, "totalPages": -(-len(paths) // size), "totalResults": len(paths)}
        return paths[number * size : (number + 1) * size], page


def _route(
    name: str, pattern: str, handler: Callable[[Call], Response], *, method: str = "GET", access: Access = "bearer"
) -> _Route:
    return _Route(name=name, pattern=re.compile(pattern), handler=handler, method=method, access=access)


def _name(call: Call) -> tuple[str | None, str | None, str | None]:
    return (call.org, None if call.team == "no-team" else call.team, call.model)


def _version(model: NgcModel) -> dict[str, object]:
    files = model.served_files
    return {
        "versionId": model.version,
        "status": model.status,
        "storageVersion": "V2",
        "totalFileCount": len(files),
        "totalSizeInBytes": sum(content.size for content in files.values()),
    }


def _entry(model: NgcModel, path: str) -> dict[str, object]:
    content = model.served_files[path]
    entry: dict[str, object] = {"path": path, "sizeInBytes": content.size, "createdDate": "2025-06-03T08:00:00.000Z"}
    if model.lists_sha256:
        entry["sha256_base64"] = base64.b64encode(bytes.fromhex(content.digest("sha256").value)).decode()
    return entry
