"""
The API of the Hub's stand-in: routes as data, one handler each.

=============  ================================================================================
``model``      facts about a repository
``revision``   the commit a revision is now, and the names of its files
``tree``       files with sizes and digests, in pages that ``Link`` leads through
``paths-info`` the same for files that are named, by POST
``resolve``    one file: a redirect, to the storage for a large file, else to ``file``
``file``       a file that git itself has
``xet-token``  what lets one in to Xet storage; ``refs``, ``whoami``
=============  ================================================================================
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from attrs import frozen

from nim_core.testing.http_server import Request, Response, json_response
from nim_core.testing.hub_models import HubModel, hub_refusal
from nim_core.testing.ranged import serve_content

__all__ = ["HUB_TOKEN", "STRANGERS_TOKEN", "XET_TOKEN", "HubApi"]

HUB_TOKEN = "hf_StandInTokenOfAMember0123456789"  # noqa: S105 - of a server that has nothing to protect
STRANGERS_TOKEN = "hf_StandInTokenOfAStranger0123456"  # noqa: S105
XET_TOKEN = "xet-stand-in"  # noqa: S105

_REPOSITORY = r"(?P<repository>[^/]+(?:/[^/]+)?)"
_MODEL = f"/api/(?P<kind>models|datasets)/{_REPOSITORY}"
_REVISION = "/(?P<revision>[^/]+)"

Access = Literal["listed", "files"]


@frozen(kw_only=True)
class Call:
    """A request with the commit it is about, and the path of a file or folder, decoded; empty when there is none."""

    request: Request
    model: HubModel
    file: str = ""


@frozen(kw_only=True)
class _Route:
    name: str
    pattern: re.Pattern[str]
    handler: Callable[[Call], Response]
    methods: tuple[str, ...] = ("GET", "HEAD")
    access: Access = "listed"


class HubApi:
    """
    Answers requests to the Hub.

    Args:
        models: What there is; of several commits of one repository, the last that a revision leads to counts.
        sign: Makes a signed URL for a path in the store.
        cas_url: Where Xet storage is.
        page_size: Most entries in one page of a tree.
        url: The Hub's own address, for links.
    """

    def __init__(
        self, models: Sequence[HubModel], *, sign: Callable[[str], str], cas_url: str, page_size: int, url: str
    ) -> None:
        self.models = list(models)
        self._sign = sign
        self._cas_url = cas_url
        self._page_size = page_size
        self._url = url
        self._routes = tuple(self._all_routes())

    def answer(self, request: Request) -> tuple[str, Response]:
        """Return the name of the route and its answer; no route is a 404."""
        if request.raw_path == "/api/whoami-v2":
            return "whoami", self._whoami(request)
        for route in self._routes:
            found = route.pattern.fullmatch(request.raw_path)
            if found and request.method in route.methods:
                parts = {name: unquote(text or "") for name, text in found.groupdict().items()}
                return route.name, self._admit(route, request, parts)
        return "none", hub_refusal(404, message="Sorry, we can't find the page you are looking for.")

    def _all_routes(self) -> Iterator[_Route]:
        file = "/(?P<file>.+)"
        yield _route("revision", _MODEL + "/revision" + _REVISION, self._info)
        yield _route("tree", _MODEL + "/tree" + _REVISION + "(?:/(?P<file>.*))?", self._tree)
        yield _route("paths-info", _MODEL + "/paths-info" + _REVISION, self._paths_info, methods=("POST",))
        yield _route("xet-token", _MODEL + "/xet-read-token" + _REVISION, self._xet_token, access="files")
        yield _route("refs", _MODEL + "/refs", self._refs)
        yield _route("model", _MODEL, self._info)
        cached = f"/api/resolve-cache/(?P<kind>models|datasets)/{_REPOSITORY}{_REVISION}{file}"
        yield _route("file", cached, self._file, access="files")
        resolve = f"/(?:(?P<kind>datasets)/)?{_REPOSITORY}/resolve{_REVISION}{file}"
        yield _route("resolve", resolve, self._resolve, access="files")

    def _admit(self, route: _Route, request: Request, parts: dict[str, str]) -> Response:
        token = (request.header("Authorization") or "").removeprefix("Bearer ")
        if token and token not in {HUB_TOKEN, STRANGERS_TOKEN}:
            return hub_refusal(401, message="Invalid credentials in Authorization header")
        asked = (parts["kind"] or "models", parts["repository"])
        commits = [model for model in self.models if (model.kind, model.repository) == asked]
        if not commits or (commits[-1].private and token != HUB_TOKEN):
            return hub_refusal(404 if token else 401, "RepoNotFound", "Repository not found")
        if commits[-1].disabled:
            return hub_refusal(403, message="Access to this resource is disabled.")
        revision = parts.get("revision", "main")
        model = next((one for one in reversed(commits) if revision in {*one.revisions, one.commit}), None)
        if model is None:
            return hub_refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if route.access == "files" and model.gated and token != HUB_TOKEN:
            message = f"Access to model {model.repository} is restricted."
            return hub_refusal(403 if token else 401, "GatedRepo", message, commit=model.commit)
        return route.handler(Call(request=request, model=model, file=parts.get("file", "")))

    def _whoami(self, request: Request) -> Response:
        if request.header("Authorization") not in {f"Bearer {HUB_TOKEN}", f"Bearer {STRANGERS_TOKEN}"}:
            return hub_refusal(401, message="Invalid username or password.")
        return json_response({"type": "user", "name": "stand-in", "orgs": []})

    def _info(self, call: Call) -> Response:
        model = call.model
        siblings = [{"rfilename": path} for path in model.files]
        facts = {"id": model.repository, "modelId": model.repository, "sha": model.commit, "private": model.private}
        more = {"gated": "auto" if model.gated else False, "disabled": False, "tags": [], "siblings": siblings}
        return json_response({**facts, **more}, headers={"X-Repo-Commit": model.commit})

    def _refs(self, call: Call) -> Response:
        commits = [it for it in self.models if (it.kind, it.repository) == (call.model.kind, call.model.repository)]
        refs = {name: model.commit for model in commits for name in model.revisions}
        branches = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha} for name, sha in refs.items()]
        return json_response({"branches": branches, "tags": [], "converts": []})

    def _tree(self, call: Call) -> Response:
        model, folder = call.model, call.file.rstrip("/")
        below = [path for path in sorted([*model.folders, *model.files]) if not folder or path.startswith(f"{folder}/")]
        if (call.request.parameter("recursive") or "").lower() not in {"true", "1"}:
            below = [path for path in below if "/" not in path.removeprefix(f"{folder}/" if folder else "")]
        if folder and not below:
            return hub_refusal(404, "EntryNotFound", f"{folder} does not exist", commit=model.commit)
        first = int(call.request.parameter("cursor") or 0)
        page, following = below[first : first + self._page_size], first + self._page_size
        headers = {"X-Repo-Commit": model.commit}
        if following < len(below):
            kept = [(key, value) for key, value in parse_qsl(call.request.query) if key != "cursor"]
            query = "&".join(f"{key}={quote(value)}" for key, value in [*kept, ("cursor", str(following))])
            headers["Link"] = f'<{self._url}{call.request.raw_path}?{query}>; rel="next"'
        return json_response([model.entry(path) for path in page], headers=headers)

    def _paths_info(self, call: Call) -> Response:
        asked = [value.rstrip("/") for key, value in parse_qsl(call.request.body.decode()) if key == "paths"]
        known = {*call.model.files, *call.model.folders}
        return json_response([call.model.entry(path) for path in asked if path in known])

    def _xet_token(self, _call: Call) -> Response:
        expires = str(int(time.time()) + 3600)
        facts = {"casUrl": self._cas_url, "accessToken": XET_TOKEN, "exp": int(expires)}
        headers = {"X-Xet-Cas-Url": self._cas_url, "X-Xet-Access-Token": XET_TOKEN, "X-Xet-Token-Expiration": expires}
        return json_response(facts, headers=headers)

    def _resolve(self, call: Call) -> Response:
        model, file = call.model, call.file
        if file not in model.files:
            return hub_refusal(404, "EntryNotFound", "Entry not found", commit=model.commit)
        facts = {"X-Repo-Commit": model.commit, "Accept-Ranges": "bytes"}
        if not model.is_large(file):
            cached = f"/api/resolve-cache/{model.kind}/{model.repository}/{model.commit}/{quote(file)}"
            location = urlsplit(self._url).path + cached
            return Response(status=307, headers={**facts, "Location": location, "ETag": f'"{model.etag(file)}"'})
        headers = {
            **facts,
            "Location": self._sign(model.storage_path(file)),
            "ETag": f'"{model.pointer(file).digest("sha1-git").value}"',
            "X-Linked-Etag": f'"{model.etag(file)}"',
            "X-Linked-Size": str(model.files[file].size),
        }
        return Response(status=302, headers={**headers, **self._xet_headers(model, file)})

    def _xet_headers(self, model: HubModel, file: str) -> dict[str, str]:
        name = model.xet_hash(file)
        if name is None:
            return {}
        route = f"{self._url}/api/{model.kind}/{model.repository}/xet-read-token/{model.commit}"
        return {"X-Xet-Hash": name, "X-Xet-Refresh-Route": route, "Link": f'<{route}>; rel="xet-auth"'}

    def _file(self, call: Call) -> Response:
        model, file = call.model, call.file
        if file not in model.files or model.is_large(file):
            return hub_refusal(404, "EntryNotFound", "Entry not found", commit=model.commit)
        headers = {"X-Repo-Commit": model.commit, "Content-Type": "application/octet-stream"}
        return serve_content(call.request, model.files[file], etag=f'"{model.etag(file)}"', headers=headers)


def _route(
    name: str,
    pattern: str,
    handler: Callable[[Call], Response],
    *,
    methods: tuple[str, ...] = ("GET", "HEAD"),
    access: Access = "listed",
) -> _Route:
    return _Route(name=name, pattern=re.compile(pattern), handler=handler, methods=methods, access=access)
