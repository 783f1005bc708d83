"""Requests to the Hub: signed, judged, page by page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from attrs import frozen

from nim_core.errors import SourceError
from nim_core.types import BearerToken, Secret, SourceContext
from nim_source_hf.credentials import endpoint, signed
from nim_source_hf.errors import Asked, reading, status_error
from nim_source_hf.refs import HfRef, commit_of, is_commit

if TYPE_CHECKING:
    import httpx

_AT_ONCE = 500
"""Files asked about in one request, where they cannot be listed page by page."""

Entry = Mapping[str, Any]
"""A file as the Hub describes it: ``path``, ``size``, ``oid``, and ``lfs`` where its bytes are not in git."""


@frozen(kw_only=True)
class Pass:
    """What signs requests to the endpoint, and to nobody else. ``origin`` is None when there is no token."""

    headers: Mapping[str, Secret]
    origin: str | None


class Client:
    """The Hub at HF_ENDPOINT."""

    def __init__(self, context: SourceContext) -> None:
        self.url = endpoint(context.variables)
        self._context = context

    def sign(self, ref: HfRef) -> Pass:
        """Return what signs requests about ``ref``."""
        credential = self._context.credential(self.url, ref.uri)
        origin = credential.origin if isinstance(credential, BearerToken) else None
        return Pass(headers=signed(credential), origin=origin)

    def commit(self, ref: HfRef) -> str:
        """Return the commit that the revision is now. Raises SourceError in the subclass the answer asks for."""
        if is_commit(ref.revision):
            return ref.revision
        answer = self._get(ref, ref.api("revision", ref.revision))
        with reading(ref, self.url):
            return commit_of(answer.json()["sha"])

    def entries(self, ref: HfRef, commit: str) -> list[Entry]:
        """
        Return every file of a commit.

        Pages of the tree follow one another by the cursor in ``Link``. A proxy may pass on that header but not the
        cursor: where a page brings nothing new, the files still missing are asked about by their names.
        """
        found: dict[str, Entry] = {}
        cursor: dict[str, str] | None = {}
        while cursor is not None:
            query = {"recursive": "true", "expand": "false", **cursor}
            answer = self._get(ref, ref.api("tree", commit), params=query)
            with reading(ref, self.url):
                page = {str(entry["path"]): entry for entry in answer.json()}
                cursor = _cursor(answer)
            if cursor is not None and page.keys() <= found.keys():
                page, cursor = self._unlisted(ref, commit, found), None
            found |= page
        return [entry for entry in found.values() if entry.get("type") == "file"]

    def first_byte(self, ref: HfRef, commit: str, file: str) -> int:
        """Return the status that a request for a file's first byte ends with: a success, or 400. Raises for others."""
        extra = {"Range": "bytes=0-0"}
        response, origin = self._send("GET", ref, ref.file_path(commit, file), headers=extra, bare=True)
        if response.status_code not in {200, 206, 400, 416}:
            raise status_error(response, Asked(ref=ref, endpoint=self.url, origin=origin, file=file))
        return response.status_code

    def xet_hash(self, ref: HfRef, commit: str, file: str) -> str | None:
        """Return what Xet storage calls a file, by the answer for the file itself. None when it says nothing."""
        response, _ = self._send("HEAD", ref, ref.file_path(commit, file), bare=True, follow=False)
        return str(response.headers["X-Xet-Hash"]) if "X-Xet-Hash" in response.headers else None

    def _unlisted(self, ref: HfRef, commit: str, listed: Iterable[str]) -> dict[str, Entry]:
        answer = self._get(ref, ref.api("revision", commit))
        with reading(ref, self.url):
            names = {str(sibling["rfilename"]) for sibling in answer.json()["siblings"]}
        missing, found = sorted(names.difference(listed)), dict[str, Entry]()
        for first in range(0, len(missing), _AT_ONCE):
            asked = {"paths": missing[first : first + _AT_ONCE], "expand": "false"}
            answer = self._get(ref, ref.api("paths-info", commit), method="POST", data=asked)
            with reading(ref, self.url):
                found |= {str(entry["path"]): entry for entry in answer.json()}
        if lost := len(names.difference(listed, found)):
            raise SourceError(f"the listing of {ref} is not complete: {lost} of {len(names)} files are missing")
        return found

    def _get(self, ref: HfRef, path: str, *, method: str = "GET", **options: Any) -> httpx.Response:
        response, origin = self._send(method, ref, path, **options)
        if response.status_code != 200:
            raise status_error(response, Asked(ref=ref, endpoint=self.url, origin=origin))
        return response

    def _send(
        self, method: str, ref: HfRef, path: str, *, bare: bool = False, follow: bool = True, **options: Any
    ) -> tuple[httpx.Response, str | None]:
        """Return the answer, without its body when ``bare``, and where the token came from."""
        granted, http = self.sign(ref), self._context.http
        headers = {name: value.reveal() for name, value in granted.headers.items()} | options.pop("headers", {})
        unfollowed: dict[str, Any] = {} if follow else {"follow_redirects": False}
        request = http.build_request(method, self.url + path, headers=headers, extensions=unfollowed, **options)
        response = http.send(request, stream=bare, **unfollowed)
        if bare:
            response.close()
        return response, granted.origin


def _cursor(answer: httpx.Response) -> dict[str, str] | None:
    """Return the parameters of the next page, asked for at the endpoint wherever the link leads. None: no more."""
    url = answer.links.get("next", {}).get("url")
    return None if url is None else dict(parse_qsl(urlsplit(url).query))
