"""ModelScope's names: ``modelscope://org/model[:revision]`` as a value, and its places in the API and the cache."""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode, urlsplit

from attrs import frozen

from nim_core.errors import InvalidUriError
from nim_core.types import CacheKey, ModelUri, check_relative_path

_NAME = re.compile(r"\w[\w.+~-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FORM = "write modelscope://org/model:revision?file=path; without revision, the branch master is meant"
_SITES = ("modelscope.cn", "modelscope.ai")


@frozen(kw_only=True)
class ModelScopeRef:
    """
    A revision of a model.

    Attributes:
        org: Organisation or user.
        model: Name.
        revision: Branch, tag or commit; the default branch when the URI names none.
    """

    org: str
    model: str
    revision: str

    @classmethod
    def parse(cls, uri: ModelUri) -> ModelScopeRef:
        """Read a URI. Raises InvalidUriError, with the right form, when it names anything but a model."""
        names = uri.location.split("/")
        if len(names) != 2 or not all(_NAME.fullmatch(name) for name in names):
            raise InvalidUriError(f"not the URI of a ModelScope model: {uri.display}", hint=_FORM)
        revision = check_relative_path(uri.revision or "master")
        return cls(org=names[0], model=names[1], revision=revision)

    def __str__(self) -> str:
        return f"{self.org}/{self.model}:{self.revision}"

    @property
    def commit(self) -> str | None:
        """The revision where it is a whole commit id and therefore never means another content, else None."""
        return self.revision if _COMMIT.fullmatch(self.revision) else None

    @property
    def model_path(self) -> str:
        """API path of the model."""
        return f"/api/v1/models/{quote(self.org)}/{quote(self.model)}"

    def listing_path(self, folder: str | None, *, recursive: bool) -> str:
        """API path of what is in a folder, the top one when None."""
        query = {"Revision": self.revision, "Recursive": str(recursive), **({"Root": folder} if folder else {})}
        return f"{self.model_path}/repo/files?{urlencode(query)}"

    def file_path(self, file: str) -> str:
        """API path of the bytes of a file."""
        return f"{self.model_path}/repo?{urlencode({'Revision': self.revision, 'FilePath': file})}"

    def page(self, endpoint: str) -> str:
        """Where a person finds the model; proxies of the API have no pages, so theirs are the public site's."""
        host = urlsplit(endpoint).hostname or ""
        site = endpoint if host.removeprefix("www.") in _SITES else f"https://{_SITES[0]}"
        return f"{site}/models/{self.org}/{self.model}"

    def cache_key(self, root: str) -> CacheKey:
        """Place in the cache: where ModelScope's own client looks for it, which goes by the revision's name."""
        return CacheKey(root=root, repo=f"{self.org}--{self.model}", snapshot=self.revision)
