"""What a model on the Hub holds and where its bytes are."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

from nim_core.errors import CacheIncompleteError, SourceError, UnsupportedError
from nim_core.types import CacheKey, Digest, HttpObject, Listing, Location, ModelUri, RemoteFile, SourceContext
from nim_source_hf.client import Client, Entry
from nim_source_hf.credentials import HUB, cache_root, offline
from nim_source_hf.errors import reading
from nim_source_hf.offline import cached
from nim_source_hf.refs import HfRef
from nim_source_hf.xet import xet_object


class HfSource:
    """
    Models of the Hub; says where in the cache they live, too: where the Hub client has them.

    A revision is resolved to a commit once. Files are asked for at the endpoint, which redirects to its storage; that
    is true of files kept in Xet storage too, but for the few that are too large for it. Those are fetched from Xet
    itself, and only where the endpoint is the Hub and not a proxy, which would be bypassed.

    Args:
        context: What core hands over.
        hub: The endpoint that is no proxy.
    """

    def __init__(self, context: SourceContext, *, hub: str = HUB) -> None:
        self._client = Client(context)
        self._variables = context.variables
        self._hub = hub
        self._root = cache_root(context.variables)
        self._lock = threading.Lock()
        self._commits: dict[HfRef, str] = {}
        self._given: set[tuple[HfRef, str]] = set()

    def list_files(self, uri: ModelUri) -> Listing:
        """
        List a commit.

        Raises:
            CacheIncompleteError: A variable forbids to ask, and the Hub client's cache does not have the revision.
        """
        ref = HfRef.parse(uri)
        commit, entries = self._cached(ref) if offline(self._variables) else self._asked(ref)
        with reading(ref, self._client.url):
            return Listing(uri=uri, files=tuple(_file(entry) for entry in entries), pinned=commit)

    def locate(self, uri: ModelUri, file: RemoteFile) -> Location:
        """
        Return the file's URL at the endpoint.

        Asked again, the first byte is asked for, which tells why the URL was refused; a refusal of the storage alone
        (400) is what files get that only Xet can serve.
        """
        ref = HfRef.parse(uri)
        if offline(self._variables):
            raise self._incomplete(f"{ref}?file={file.path}")
        commit = self._commit(ref)
        if (ref, file.path) in self._given and self._client.first_byte(ref, commit, file.path) == 400:
            return self._from_xet(ref, commit, file)
        self._given.add((ref, file.path))
        url = self._client.url + ref.file_path(commit, file.path)
        return HttpObject(url=url, headers=self._client.sign(ref).headers, size=file.size)

    def close(self) -> None:
        """Forget what was learned."""
        self._commits.clear()

    def cache_key(self, uri: ModelUri, pinned: str | None) -> CacheKey:
        """Return the place of a commit in the Hub cache."""
        ref = HfRef.parse(uri)
        return ref.cache_key(self._root, pinned or ref.revision)

    def _asked(self, ref: HfRef) -> tuple[str, Iterable[Entry]]:
        commit = self._commit(ref)
        return commit, self._client.entries(ref, commit)

    def _cached(self, ref: HfRef) -> tuple[str, Iterable[Entry]]:
        """Return what the Hub client's cache has; where core's own cache is, only core knows, and it has receipts."""
        root = Path(self._root)
        found = cached(root, ref) if root.is_absolute() else None
        if found is None:
            raise self._incomplete(str(ref))
        return found

    def _incomplete(self, what: str) -> CacheIncompleteError:
        forbids = offline(self._variables)
        hint = f"unset {forbids}, or use a complete earlier download with --use-cache"
        return CacheIncompleteError(f"{forbids} is set, and the cache lacks {what}", hint=hint)

    def _commit(self, ref: HfRef) -> str:
        with self._lock:
            if ref not in self._commits:
                self._commits[ref] = self._client.commit(ref)
            return self._commits[ref]

    def _from_xet(self, ref: HfRef, commit: str, file: RemoteFile) -> Location:
        name = self._client.xet_hash(ref, commit, file.path)
        what = f"{ref}?file={file.path}"
        if name is None:
            raise SourceError(f"the storage of {self._client.url} refuses {what} (HTTP 400)", hint=f"see {ref.page}")
        if self._client.url != self._hub:
            hint = f"unset HF_ENDPOINT to fetch it from {self._hub}, or ask who runs {self._client.url}"
            raise UnsupportedError(f"only Xet storage has {what}, which {self._client.url} does not serve", hint=hint)
        refresh = self._client.url + ref.api("xet-read-token", commit)
        return xet_object(name, file, refresh=refresh, headers=self._client.sign(ref).headers)


def _file(entry: Entry) -> RemoteFile:
    """Return a file with the digest its blob is named by: SHA-256 in large file storage, git's own otherwise."""
    lfs = entry.get("lfs")
    digest = Digest("sha256", lfs["oid"]) if lfs else Digest("sha1-git", entry["oid"])
    size = int(lfs["size"] if lfs else entry["size"])
    return RemoteFile(path=entry["path"], size=size, digests=(digest,), blob_name=digest.value)
