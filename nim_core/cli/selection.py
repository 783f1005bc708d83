"""From what the user asked for to the profiles that are meant: pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import frozen

from nim_core.cli.naming import has_lora, short_name
from nim_core.errors import ProfileError
from nim_core.manifest import Manifest, Profile

__all__ = ["Choice", "choose_profiles", "list_profiles"]


@frozen(kw_only=True)
class Choice:
    """
    Which profiles the user wants.

    Attributes:
        every: All there are.
        lora: The one for LoRA adapters.
        names: Ids or short names. Empty when none were given.
        variable: Value of NIM_MODEL_PROFILE, which counts when nothing else is said. None when unset.
    """

    every: bool = False
    lora: bool = False
    names: tuple[str, ...] = ()
    variable: str | None = None


def choose_profiles(choice: Choice, manifest: Manifest) -> tuple[Profile, ...]:
    """
    Return the profiles that are meant, each once, in the order asked for.

    Raises:
        ProfileError: A name fits none or several, or nothing was said and there is not exactly one; further lines of
            the message list what there is.
    """
    if not manifest.profiles:
        raise ProfileError(f"no profiles in manifest: {manifest.origin}")
    if choice.every:
        return manifest.profiles
    if choice.lora:
        return (_only_lora(manifest),)
    if choice.names:
        return _by_names(choice.names, manifest)
    if choice.variable and choice.variable != "default":
        return (_by_variable(choice.variable, manifest),)
    return (_only(manifest),)


def list_profiles(profiles: Iterable[Profile]) -> str:
    """Return one line per profile, id and name, sorted by name."""
    rows = sorted((short_name(profile.tags), profile.id) for profile in profiles)
    return "\n".join(f"  {profile_id}  {name}".rstrip() for name, profile_id in rows)


def _matches(name: str, manifest: Manifest) -> list[Profile]:
    by_id = manifest.profile(name)
    return [by_id] if by_id else [profile for profile in manifest.profiles if short_name(profile.tags) == name]


def _error(diagnosis: str, title: str, profiles: Iterable[Profile], hint: str) -> ProfileError:
    return ProfileError(f"{diagnosis}\n{title}:\n{list_profiles(profiles)}", hint=hint)


def _by_names(names: Sequence[str], manifest: Manifest) -> tuple[Profile, ...]:
    unknown = [name for name in dict.fromkeys(names) if not _matches(name, manifest)]
    if unknown:
        raise _error(
            f"Unknown profiles provided: {', '.join(unknown)}",
            f"All valid profiles of {manifest.origin}",
            manifest.profiles,
            "give an id or a name of the list above to --profiles",
        )
    return tuple({profile.id: profile for profile in (_unique(name, manifest) for name in names)}.values())


def _unique(name: str, manifest: Manifest) -> Profile:
    matches = _matches(name, manifest)
    if len(matches) > 1:
        raise _error(
            f"several profiles have this name: {name}",
            "They are",
            matches,
            "give the id of one of the list above",
        )
    return matches[0]


def _by_variable(value: str, manifest: Manifest) -> Profile:
    if not _matches(value, manifest):
        raise _error(
            f"NIM_MODEL_PROFILE is set to {value}, but no matching profile_id or profile description "
            "is found in manifest",
            f"All valid profiles of {manifest.origin}",
            manifest.profiles,
            "set NIM_MODEL_PROFILE to an id or a name of the list above, without the text in brackets",
        )
    return _unique(value, manifest)


def _only(manifest: Manifest) -> Profile:
    if len(manifest.profiles) > 1:
        raise _error(
            f"no profile given, and there are {len(manifest.profiles)} to choose from",
            f"All valid profiles of {manifest.origin}",
            manifest.profiles,
            "give an id or a name of the list above to --profiles or in NIM_MODEL_PROFILE, or all of them with --all",
        )
    return manifest.profiles[0]


def _only_lora(manifest: Manifest) -> Profile:
    lora = [profile for profile in manifest.profiles if has_lora(profile.tags)]
    if len(lora) == 1:
        return lora[0]
    raise _error(
        f"--lora needs one profile with the tag feat_lora 'true', and there are {len(lora) or 'none'}",
        f"{'LoRA' if lora else 'All'} profiles of {manifest.origin}",
        lora or manifest.profiles,
        "give the id of one of the list above to --profiles",
    )
