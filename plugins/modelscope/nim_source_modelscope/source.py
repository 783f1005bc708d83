"""What a ModelScope repository holds and where its bytes are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from nim_core.errors import NotFoundError, SourceError, TransientError
from nim_core.types import CacheKey, Digest, HttpObject, Listing, ModelUri, RemoteFile, SourceContext
from nim_source_modelscope.credentials import cache_root, carriers, endpoint
from nim_source_modelscope.errors import Asked, NoAccessError, access_error, checked_data, reading
from nim_source_modelscope.refs import ModelScopeRef

if TYPE_CHECKING:
    import httpx

_CUT: Final = 3000
"""Entries after which ModelScope ends a listing without saying so; there are no pages."""

_ATTEMPTS: Final = 4
_THREADS: Final = 4
_MOST_LISTINGS: Final = 10_000

Entry = Mapping[str, Any]


class ModelScopeSource:
    """
    Models of ModelScope; says where in the cache they live, too.

    Args:
        context: What core hands over.
        sleep: Waits between attempts, in seconds.
    """

    def __init__(self, context: SourceContext, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._context = context
        self._sleep = sleep
        self._lock = threading.Lock()
        self._endpoint = ""
        self._read: set[str] = set()
        self._ranges: dict[str, bool | None] = {}
        self._located: set[str] = set()

    def list_files(self, uri: ModelUri) -> Listing:
        """List a revision. Raises NotFoundError, with the names there are, for a revision that does not exist."""
        asked = self._asked(uri)
        try:
            entries = self._all_entries(asked)
        except NotFoundError:
            self._check_revision(asked)
            raise
        if not entries:
            self._check_revision(asked)
        with reading(asked.ref):
            files = tuple(_file(entry) for entry in entries)
        for entry in entries:
            lfs = entry.get("IsLFS")
            self._ranges[asked.ref.file_path(entry["Path"])] = None if lfs is None else bool(lfs)
        return Listing(uri=uri, files=files, pinned=asked.ref.commit)

    def locate(self, uri: ModelUri, file: RemoteFile) -> HttpObject:
        """
        Return the API's URL of a file, which redirects to signed storage for LFS files.

        Other files come from the API itself, which ignores ranges. Asked again, finds out why the URL was refused.
        """
        asked = self._asked(uri)
        path = asked.ref.file_path(file.path)
        with self._lock:
            again = path in self._located
            self._located.add(path)
        if again:
            self._check_file(asked, path)
        return HttpObject(
            url=self._endpoint + path, headers=asked.headers, ranges=self._ranges.get(path), size=file.size
        )

    def close(self) -> None:
        """Forget what was learned."""
        self._ranges.clear()

    def cache_key(self, uri: ModelUri, pinned: str | None) -> CacheKey:  # noqa: ARG002 - folders go by revision's name
        """Return ``modelscope/models/org--model``, or ``org--model`` in the folder of MODELSCOPE_CACHE."""
        return ModelScopeRef.parse(uri).cache_key(cache_root(self._context.variables))

    def _asked(self, uri: ModelUri) -> Asked:
        ref = ModelScopeRef.parse(uri)
        self._endpoint = self._endpoint or endpoint(self._context.variables)
        credential = self._context.credential(self._endpoint, uri)
        headers = carriers(credential)
        origin = credential.origin if headers else None
        return Asked(ref=ref, page=ref.page(self._endpoint), headers=headers, origin=origin)

    def _all_entries(self, asked: Asked) -> list[Entry]:
        """Return the entries of all files; where a listing was cut, from listings of its folders."""
        found: dict[str, Entry] = {}
        folders: list[str | None] = [None]
        asks = 0
        with ThreadPoolExecutor(_THREADS) as pool:
            while folders and asks < _MOST_LISTINGS:
                asks += len(folders)
                listings = pool.map(lambda folder: self._folder_entries(asked, folder), folders)
                below = [(folder, entries, cut) for folder, (entries, cut) in zip(folders, listings, strict=True)]
                found.update((entry["Path"], entry) for _, entries, _ in below for entry in entries)
                folders = [path for folder, entries, cut in below if cut for path in _below(folder, entries)]
        if folders:
            raise SourceError(f"more than {_MOST_LISTINGS} listings would be needed for {asked.ref}")
        return [entry for entry in found.values() if entry.get("Type") != "tree"]

    def _folder_entries(self, asked: Asked, folder: str | None) -> tuple[list[Entry], bool]:
        """Return what is below a folder or, when that is cut, what is right in it; and whether it was cut."""
        entries = self._entries(asked, folder, recursive=True)
        if len(entries) < _CUT:
            return entries, False
        entries = self._entries(asked, folder, recursive=False)
        if len(entries) < _CUT and _below(folder, entries):
            return entries, True
        raise SourceError(
            f"ModelScope cannot list {asked.ref}: {folder or 'its top folder'} has {_CUT} entries or more",
            hint="its owner has to spread them over folders",
        )

    def _entries(self, asked: Asked, folder: str | None, *, recursive: bool) -> list[Entry]:
        path = asked.ref.listing_path(folder, recursive=recursive)
        for attempt in range(_ATTEMPTS):
            try:
                return self._listed(asked, path)
            except NoAccessError as exc:
                if asked.ref.model_path not in self._read:
                    raise access_error(exc, asked, gated=self._is_visible(asked)) from exc
                refused = exc
            if attempt + 1 < _ATTEMPTS:
                self._sleep(2.0**attempt)
        raise TransientError(
            f"ModelScope keeps refusing to list {asked.ref}, which it gave out before", hint="try again later"
        ) from refused

    def _listed(self, asked: Asked, path: str) -> list[Entry]:
        data = self._data(asked, path)
        self._read.add(asked.ref.model_path)
        with reading(asked.ref):
            return [dict(entry, Path=str(entry["Path"])) for entry in data["Files"] or []]

    def _check_revision(self, asked: Asked) -> None:
        """Raise NotFoundError when there is no such revision: its listing is empty, too."""
        data = self._data(asked, f"{asked.ref.model_path}/revisions")
        with reading(asked.ref):
            kinds = data["RevisionMap"]
            names = [str(one["Revision"]) for kind in ("Branches", "Tags") for one in kinds.get(kind) or []]
        if asked.ref.revision not in names:
            raise NotFoundError(f"ModelScope has no {asked.ref}", hint=f"its revisions are {', '.join(names[:20])}")

    def _check_file(self, asked: Asked, path: str) -> None:
        """Raise what the API says when it does not give out a file; only a GET is told why, so HEAD comes first."""
        for method in ("HEAD", "GET"):
            response = self._head(method, asked, path)
            if response.status_code < 400:
                return
        try:
            checked_data(response, asked)
        except NoAccessError as exc:
            raise access_error(exc, asked, gated=self._is_visible(asked)) from exc

    def _head(self, method: str, asked: Asked, path: str) -> httpx.Response:
        """Return the answer for a file, its body only when that is an error."""
        headers = {**_wire(asked), "Range": "bytes=0-0"}
        with self._context.http.stream(
            method,
            self._endpoint + path,
            headers=headers,
            follow_redirects=False,
            extensions={"follow_redirects": False},
        ) as response:
            if response.status_code >= 400:
                response.read()
            return response

    def _is_visible(self, asked: Asked) -> bool:
        try:
            self._data(asked, asked.ref.model_path)
        except SourceError:
            return False
        return True

    def _data(self, asked: Asked, path: str) -> Any:
        return checked_data(self._context.http.get(self._endpoint + path, headers=_wire(asked)), asked)


def _wire(asked: Asked) -> dict[str, str]:
    return {"Accept": "application/json, */*;q=0.5"} | {name: value.reveal() for name, value in asked.headers.items()}


def _below(folder: str | None, entries: Iterable[Entry]) -> list[str]:
    """Return the folders among the entries of a folder, of which none is above it."""
    paths = [str(entry["Path"]) for entry in entries if entry.get("Type") == "tree"]
    return [path for path in paths if folder is None or path.startswith(f"{folder}/")]


def _file(entry: Entry) -> RemoteFile:
    sha256, size = entry.get("Sha256"), entry.get("Size")
    digests = (Digest("sha256", sha256),) if sha256 else ()
    return RemoteFile(path=entry["Path"], size=None if size is None else int(size), digests=digests)
