"""Models as the stand-in for the Hugging Face Hub serves them, and its answers' common parts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property

from attrs import frozen

from nim_core.testing.corpus import Content, inline
from nim_core.testing.http_server import Response, json_response

__all__ = ["HubModel", "hub_refusal", "rate_limited"]

_LARGE = (".safetensors", ".engine", ".bin", ".gguf")


@frozen(kw_only=True)
class HubModel:
    """
    One commit of one repository.

    Attributes:
        files: What was committed.
        repository: ``org/name``.
        dataset: Whether it is a dataset and not a model.
        revisions: Branches and tags that lead to this commit.
        gated: Whether files are given out only to those who have accepted the terms; facts about them to everybody.
        private: Whether it exists for members alone.
        disabled: Whether it has been taken down.
        xet: Whether large files are announced as kept in Xet storage.
        xet_only: Paths of files that the storage refuses to give out over plain HTTP, as if they were huge.
    """

    files: Mapping[str, Content]
    repository: str = "acme/sample-llm"
    dataset: bool = False
    revisions: tuple[str, ...] = ("main",)
    gated: bool = False
    private: bool = False
    disabled: bool = False
    xet: bool = False
    xet_only: frozenset[str] = frozenset()

    def uri(self, file: str | None = None, revision: str | None = None) -> str:
        """Return the ``hf://`` URI of the model or of one of its files."""
        text = f"hf://{self.place}" + ("" if revision is None else f":{revision}")
        return text + ("" if file is None else f"?file={file}")

    @property
    def place(self) -> str:
        """Where it is on the Hub's site."""
        return f"datasets/{self.repository}" if self.dataset else self.repository

    @property
    def kind(self) -> str:
        """What the API calls its kind: ``models`` or ``datasets``."""
        return "datasets" if self.dataset else "models"

    @cached_property
    def commit(self) -> str:
        """Name of the commit; follows from what is in it."""
        lines = [f"{path} {content.digest('sha256')}" for path, content in sorted(self.files.items())]
        return hashlib.sha1("\n".join([self.repository, *lines]).encode(), usedforsecurity=False).hexdigest()

    @cached_property
    def folders(self) -> tuple[str, ...]:
        """Every folder that files are in, at any depth."""
        parents = {path.rpartition("/")[0] for path in self.files}
        every = {
            "/".join(folder.split("/")[: depth + 1]) for folder in parents for depth in range(folder.count("/") + 1)
        }
        return tuple(sorted(every - {""}))

    def is_large(self, file: str) -> bool:
        """Whether a file's bytes are in large file storage and git has but a pointer."""
        return file.endswith(_LARGE)

    def pointer(self, file: str) -> Content:
        """Return what git has of a large file."""
        content = self.files[file]
        digest = content.digest("sha256").value
        return inline(f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {content.size}\n")

    def etag(self, file: str) -> str:
        """Return what the Hub client names the blob of a file by."""
        return self.files[file].digest("sha256" if self.is_large(file) else "sha1-git").value

    def xet_hash(self, file: str) -> str | None:
        """Return what Xet storage calls a file. None when it has none."""
        announced = self.is_large(file) and (self.xet or file in self.xet_only)
        return self.files[file].digest("blake3").value if announced else None

    def storage_path(self, file: str) -> str:
        """Return where the bytes of a large file are in the store."""
        return f"/repos/{self.repository}/{self.etag(file)}"

    def entry(self, path: str) -> dict[str, object]:
        """Return a file or folder as the tree lists it."""
        if path not in self.files:
            oid = hashlib.sha1(path.encode(), usedforsecurity=False).hexdigest()
            return {"type": "directory", "oid": oid, "size": 0, "path": path}
        content = self.files[path]
        if not self.is_large(path):
            return {"type": "file", "oid": content.digest("sha1-git").value, "size": content.size, "path": path}
        pointer = self.pointer(path)
        lfs = {"oid": content.digest("sha256").value, "size": content.size, "pointerSize": pointer.size}
        entry = {
            "type": "file",
            "oid": pointer.digest("sha1-git").value,
            "size": content.size,
            "path": path,
            "lfs": lfs,
        }
        return entry if self.xet_hash(path) is None else {**entry, "xetHash": self.xet_hash(path)}


def hub_refusal(status: int, code: str = "", message: str = "refused", *, commit: str = "") -> Response:
    """
    Return an error as the Hub words it.

    Args:
        status: HTTP status.
        code: ``X-Error-Code``, such as ``RepoNotFound``; none when empty.
        message: ``X-Error-Message``, and the text of the body.
        commit: ``X-Repo-Commit``, where the repository at least is known.
    """
    headers = {"X-Error-Code": code, "X-Error-Message": message, "X-Repo-Commit": commit}
    given = {name: value for name, value in headers.items() if value}
    return json_response({"error": message}, status=status, headers=given)


def rate_limited(seconds: int) -> Response:
    """Return the refusal of one request too many: the window ends in ``seconds``."""
    headers = {"RateLimit": f'"api";r=0;t={seconds}', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
    return json_response({"error": "Too many requests"}, status=429, headers=headers)
