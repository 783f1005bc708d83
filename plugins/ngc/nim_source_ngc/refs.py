"""
NGC's names: ``ngc://org[/team]/model[:version]`` as a value, and its places in the API and the cache.

The location of a model at a proxy is ``host[:port][/path]//org[/team]/model``. Core's grammar has no double slash, so
no manifest and no command line can say where a key is sent: only the target of NIM_REPOSITORY_OVERRIDE can.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

from attrs import evolve, field, frozen

from nim_core.errors import InvalidUriError, OverrideUnsupportedError
from nim_core.types import CacheKey, ModelUri, OverrideTarget

_PROXY = re.compile(r"(\[[\da-fA-F:.]+\]|[^/@?#:\[\]\s]+)(:\d+)?(/[^/?#\s]+)*")
_AT_PROXY = "//"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+~-]*")
_FORM = "write ngc://org/team/model:version?file=path, or ngc://org/model:version where there is no team"


@frozen(kw_only=True)
class NgcRef:
    """
    A model or, with a version, one version of it.

    Attributes:
        org: Organisation.
        team: None for a model of the organisation itself.
        model: Name.
        version: None when not given.
        proxy: ``host[:port][/path]`` of the API that is asked instead of NGC's. None for NGC's.
        guest: Whether its API paths are those for requests without a key.
        uri: What it was read from.
    """

    org: str
    team: str | None
    model: str
    version: str | None
    proxy: str | None = None
    guest: bool = False
    uri: ModelUri = field(eq=False)

    @classmethod
    def parse(cls, uri: ModelUri) -> NgcRef:
        """Read a URI. Raises InvalidUriError, with the right form, when it names anything but a model."""
        proxy, _, model = uri.location.rpartition(_AT_PROXY)
        names = model.split("/")
        if not 2 <= len(names) <= 3:
            raise InvalidUriError(f"not the URI of an NGC model: {uri.display}", hint=_FORM)
        for name in (*names, *([] if uri.revision is None else [uri.revision])):
            if not _NAME.fullmatch(name):
                raise InvalidUriError(f"not a name NGC allows in {uri.display}: {name!r}", hint=_FORM)
        team = names[1] if len(names) == 3 and names[1] != "no-team" else None
        return cls(org=names[0], team=team, model=names[-1], version=uri.revision, proxy=proxy or None, uri=uri)

    def __str__(self) -> str:
        version, place = "" if self.version is None else f":{self.version}", f" at {self.proxy}" if self.proxy else ""
        return "/".join(self._names) + version + place

    @property
    def scope(self) -> str:
        """The narrowest scope of a token for this model."""
        return f"group/ngc:{self.org}" + (f"/{self.team}" if self.team else "")

    @property
    def catalogue_url(self) -> str:
        """Where a person finds the model and accepts its terms."""
        team = f"/teams/{self.team}" if self.team else ""
        version = f"?{urlencode({'version': self.version})}" if self.version else ""
        return f"https://catalog.ngc.nvidia.com/orgs/{self.org}{team}/models/{self.model}{version}"

    @property
    def model_path(self) -> str:
        """API path of the model."""
        return "/v2/models/" + "/".join(self._names) if self.guest else f"/v2/{self._owner}/models/{self.model}"

    @property
    def listing_path(self) -> str:
        """API path of the files with their sizes."""
        return f"{self.model_path}/versions/{quote(self.version or '')}/files"

    @property
    def manifest_path(self) -> str:
        """API path of the presigned URLs."""
        model = f"/v2/models/{self._owner}/{self.model}" if self.guest else self.model_path
        return f"{model}/{quote(self.version or '')}/files"

    def file_path(self, file: str) -> str:
        """API path that redirects to the bytes of a file."""
        return f"{self.listing_path}/{quote(file)}"

    def cache_key(self, version: str) -> CacheKey:
        """Place of a version in the cache."""
        return CacheKey(root="ngc/hub", repo="--".join(("models", *self._names)), snapshot=version)

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(name for name in (self.org, self.team, self.model) if name)

    @property
    def _owner(self) -> str:
        return f"org/{self.org}" + (f"/team/{self.team}" if self.team else "")


def proxied(uri: ModelUri, override: OverrideTarget) -> ModelUri:
    """
    Return the URI of the same model, or of a file of it, at a proxy.

    Raises:
        OverrideUnsupportedError: ``uri`` is not NGC's, or the target is not ``ngc://host[:port][/path]``.
    """
    if uri.scheme != "ngc":
        raise OverrideUnsupportedError(
            f"{override.display} cannot stand in for {uri.scheme}://",
            hint="a proxy that speaks NGC's protocol has models of NGC; name a bucket or a web server instead",
        )
    if not _PROXY.fullmatch(override.location):
        raise OverrideUnsupportedError(
            f"not the address of a proxy in NIM_REPOSITORY_OVERRIDE: {override.display}",
            hint="write ngc://host[:port][/path]; its key comes from NGC_API_KEY, not from the address",
        )
    return evolve(uri, location=f"{override.location}{_AT_PROXY}{uri.location}")
