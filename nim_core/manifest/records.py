"""What a manifest says, as values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from attrs import field, frozen

from nim_core.types import Digest

__all__ = ["Manifest", "ManifestFile", "Profile"]


@frozen(kw_only=True)
class ManifestFile:
    """
    One file of a profile.

    Attributes:
        path: Where it goes inside the workspace, checked by :func:`~nim_core.types.check_relative_path`.
        uri: Where it comes from, to the letter; that it has a scheme is all that is known about it.
        digest: What the manifest promises about its content. None when it promises nothing.
    """

    path: str
    uri: str
    digest: Digest | None = None


Files = tuple[ManifestFile, ...]


def _read_only(tags: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(tags))


def _made(files: Files | Callable[[], Files]) -> Files:
    return files() if callable(files) else files


@frozen(kw_only=True)
class Profile:
    """
    One way to run the model.

    Attributes:
        id: 64 lower-case hex digits.
        tags: What it needs and offers; all values are text, booleans ``true`` or ``false``. Read-only.
        files: Its files, in the manifest's order. May be given as a function that makes them when first asked for.
        model: The model's name. None where the manifest does not say, as in most of schema 2.
        release: The model's release. None as above.
        container_url: The image the profile was made for. None as above.
    """

    id: str
    tags: Mapping[str, str] = field(factory=dict, converter=_read_only, hash=False)
    _files: Files | Callable[[], Files] = field(default=(), alias="files", eq=_made, hash=False, repr=False)
    model: str | None = None
    release: str | None = None
    container_url: str | None = None

    @property
    def files(self) -> Files:
        """The files, made once."""
        files = _made(self._files)
        object.__setattr__(self, "_files", files)
        return files


@frozen(kw_only=True)
class Manifest:
    """
    A manifest that was read and found in order.

    Attributes:
        schema_version: As the file has it; ``1`` for schema 1, which has none.
        selection: The file's ``profile_selection_criteria``.
        profiles: In the manifest's order.
        origin: The file it was read from, for messages. Not part of comparison.
    """

    schema_version: str
    selection: str = "default"
    profiles: tuple[Profile, ...] = ()
    origin: str = field(default="", eq=False)

    def profile(self, profile_id: str) -> Profile | None:
        """Return the profile with this id. None when there is none."""
        return next((profile for profile in self.profiles if profile.id == profile_id), None)
