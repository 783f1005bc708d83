"""
The Hub's names as values, and their places in the API and the cache.

``hf://org/model[:revision]`` is a model, ``hf://datasets/org/name[:revision]`` a dataset, as on the Hub's own site.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from attrs import field, frozen

from nim_core.errors import InvalidUriError
from nim_core.types import CacheKey, ModelUri, check_relative_path
from nim_source_hf.credentials import HUB

_REPOSITORY = re.compile(r"([A-Za-z0-9_][\w.-]*/)?[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_COMMIT = re.compile("[0-9a-f]{40}")
_FORM = "write hf://org/model:revision?file=path, or hf://datasets/org/name; spaces have no place here"
_DATASETS = "datasets/"


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit, which never becomes another."""
    return _COMMIT.fullmatch(revision) is not None


def commit_of(value: object) -> str:
    """Return ``value``, which came from a server, when it is a commit. Raises ValueError when it is not."""
    if not isinstance(value, str) or not is_commit(value):
        raise ValueError("not a commit")
    return value


@frozen(kw_only=True)
class HfRef:
    """
    A model or dataset at a revision.

    Attributes:
        repository: ``org/model``, or ``model`` for the few that have no organisation.
        dataset: Whether it is a dataset.
        revision: Branch, tag or commit.
        uri: What it was read from.
    """

    repository: str
    dataset: bool = False
    revision: str
    uri: ModelUri = field(eq=False)

    @classmethod
    def parse(cls, uri: ModelUri) -> HfRef:
        """Read a URI; no revision means ``main``. Raises InvalidUriError, with the right form, for no such name."""
        name = uri.location.removeprefix(_DATASETS)
        if not _REPOSITORY.fullmatch(name) or "--" in name or ".." in name or name.endswith((".git", ".", "-")):
            raise InvalidUriError(f"not a name the Hub allows: {uri.display}", hint=_FORM)
        revision = check_relative_path(uri.revision or "main")
        return cls(repository=name, dataset=name != uri.location, revision=revision, uri=uri)

    def __str__(self) -> str:
        return f"{self.path}:{self.revision}"

    @property
    def kind(self) -> str:
        """What it is, for people."""
        return "dataset" if self.dataset else "model"

    @property
    def path(self) -> str:
        """Where it is on the Hub's site."""
        return f"{_DATASETS}{self.repository}" if self.dataset else self.repository

    @property
    def page(self) -> str:
        """Where a person finds it, asks for access and accepts its terms."""
        return f"{HUB}/{self.path}"

    @property
    def folder(self) -> str:
        """What its folder in a cache is called."""
        return f"{self.kind}s--" + self.repository.replace("/", "--")

    def api(self, kind: str, revision: str) -> str:
        """API path of a ``kind`` of facts about a revision: ``revision``, ``tree``, ``paths-info``..."""
        return f"/api/{self.kind}s/{self.repository}/{kind}/{quote(revision, safe='')}"

    def file_path(self, commit: str, file: str) -> str:
        """Path that leads to the bytes of a file."""
        return f"/{self.path}/resolve/{commit}/{quote(file)}"

    def cache_key(self, root: str, commit: str) -> CacheKey:
        """Place of a commit in a cache of the Hub client's form."""
        return CacheKey(
            root=root,
            repo=self.folder,
            snapshot=commit,
            refs=() if self.revision == commit else (self.revision,),
        )
