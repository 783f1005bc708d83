"""Models as the ModelScope stand-in serves them, and its answers' common parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Literal

from attrs import frozen

from nim_core.testing.corpus import Content
from nim_core.testing.http_server import Response, json_response

__all__ = ["CODES", "ModelScopeModel", "refusal", "soft_refusal", "success"]

CODES: Mapping[str, int] = {
    "no model": 10010205001,
    "no access": 10010200001,
    "no tree": 10990101004,
    "no file": 10990101007,
    "bad token": 10010103009,
}
"""Codes of envelopes; the status beside them is 404 for all but the last, which comes with 400."""


@frozen(kw_only=True)
class ModelScopeModel:
    """
    One model with the files that each of its revisions has.

    Attributes:
        files: What is in the repository.
        org: Organisation or user.
        name: Name of the model.
        revisions: Branches; the first is the default.
        commit: Id of the commit that all of them are at; a revision too.
        access: ``private`` models are seen by their readers only; of ``gated`` ones the files are.
        lfs_from: Size in bytes from which a file is kept outside of git, and read from storage by ranges.
        lists_sha256: Whether the listing has digests of files that are kept in git.
    """

    files: Mapping[str, Content]
    org: str = "LLM-Research"
    name: str = "Sample-1.5-LLM"
    revisions: tuple[str, ...] = ("master",)
    commit: str = hashlib.sha1(b"sample", usedforsecurity=False).hexdigest()
    access: Literal["public", "private", "gated"] = "public"
    lfs_from: int = 50_000
    lists_sha256: bool = True

    def uri(self, file: str | None = None, revision: str | None = None) -> str:
        """Return the ``modelscope://`` URI of a revision (None: the default) or of one of its files."""
        named = "" if revision is None else f":{revision}"
        return f"modelscope://{self.org}/{self.name}{named}" + ("" if file is None else f"?file={file}")

    def has(self, revision: str) -> bool:
        """Whether there is such a revision; a commit may be shortened."""
        return revision in self.revisions or (len(revision) >= 8 and self.commit.startswith(revision))

    def is_lfs(self, path: str) -> bool:
        """Whether a file is kept outside of git."""
        return self.files[path].size >= self.lfs_from

    def storage_path(self, path: str) -> str:
        """Return where the bytes of a file are in the store, which goes by content."""
        return f"/lfs/{self.files[path].digest('sha256').value}"

    def entries(self, root: str, *, recursive: bool) -> Iterator[Mapping[str, object]]:
        """Yield the listing's entries below ``root`` (empty: all), each folder before what is in it."""
        start = f"{root}/" if root else ""
        seen = set()
        for path in sorted(self.files):
            if not path.startswith(start):
                continue
            names = path.removeprefix(start).split("/")
            folders = [start + "/".join(names[:depth]) for depth in range(1, len(names))]
            for folder in folders if recursive else folders[:1]:
                if folder not in seen:
                    seen.add(folder)
                    yield self._entry(folder, {"Type": "tree", "Size": 0, "Sha256": "", "IsLFS": False})
            if recursive or not folders:
                yield self._entry(path, self._blob(path))

    def _entry(self, path: str, facts: Mapping[str, object]) -> Mapping[str, object]:
        return {"Path": path, "Name": path.rpartition("/")[2], "Revision": self.commit, "InCheck": False, **facts}

    def _blob(self, path: str) -> Mapping[str, object]:
        content, lfs = self.files[path], self.is_lfs(path)
        sha256 = content.digest("sha256").value if lfs or self.lists_sha256 else ""
        return {"Type": "blob", "Size": content.size, "Sha256": sha256, "IsLFS": lfs}


def success(data: object) -> Response:
    """Return ``data`` in the envelope of a good answer."""
    return json_response(_envelope(200, "success", data, good=True))


def refusal(
    status: int, message: str = "refused", *, code: int | None = None, retry_after: str | None = None
) -> Response:
    """
    Return an error as the API words it.

    Args:
        status: HTTP status.
        message: Text for people.
        code: The envelope's. None: the status.
        retry_after: Value of a Retry-After header, either form.
    """
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    body = _envelope(status if code is None else code, message, None, good=False)
    return json_response(body, status=status, headers=headers)


def soft_refusal(code: int, message: str = "refused") -> Response:
    """Return a 200 whose envelope says otherwise."""
    return json_response(_envelope(code, message, None, good=False))


def _envelope(code: int, message: str, data: object, *, good: bool) -> Mapping[str, object]:
    return {"Code": code, "Success": good, "Message": message, "RequestId": "r-1", "Data": data}
