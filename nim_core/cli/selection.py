"""From what the user asked for to the profiles that are meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from attrs import frozen

from nim_core.errors import ProfileError
from nim_core.manifest import Manifest, Profile
from nim_core.profiles.names import has_lora, id_in_listing, matching, short_name

if TYPE_CHECKING:
    from nim_core.profiles.selection import Ranking, Verdict

__all__ = ["Choice", "choose_profiles", "list_profiles"]

Note: TypeAlias = Callable[[Literal["info", "warning"], str], None]
"""Told what the user should know about a choice, and how urgently."""

_GIB: Final = 2**30


@frozen(kw_only=True)
class Choice:
    """
    Which profiles the user wants.

    Attributes:
        every: All there are.
        lora: The one for LoRA adapters.
        names: Ids or names. Empty when none were given.
        variable: Value of NIM_MODEL_PROFILE, which counts when nothing else is said. None when unset.
    """

    every: bool = False
    lora: bool = False
    names: tuple[str, ...] = ()
    variable: str | None = None


def choose_profiles(
    choice: Choice,
    manifest: Manifest,
    rank: Callable[[], Ranking] | None = None,
    note: Note = lambda _level, _text: None,
) -> tuple[Profile, ...]:
    """
    Return the profiles that are meant, each once, in the order asked for.

    Args:
        choice: What the user said.
        manifest: Where from.
        rank: Judges the profiles for the hardware; called only when there are several to choose from. None: there is
            nothing to choose by.
        note: See :data:`Note`.

    Raises:
        ProfileError: A name fits none or several, or nothing was said and none of several can be chosen; further
            lines of the message list what there is.
        ConfigError: From ``rank``.
    """
    if not manifest.profiles:
        raise ProfileError(f"no profiles in manifest: {manifest.origin}")
    if choice.every:
        return manifest.profiles
    if choice.lora:
        return (_for_lora(manifest, rank, note),)
    if choice.names:
        return _by_names(choice.names, manifest, note)
    if choice.variable and choice.variable != "default":
        return (_by_variable(choice.variable, manifest, note),)
    return (_best(manifest, rank, note),)


def list_profiles(profiles: Iterable[Profile]) -> str:
    """Return one line per profile, id and name, sorted by name."""
    rows = sorted((short_name(profile.tags), profile.id) for profile in profiles)
    return "\n".join(f"  {profile_id}  {name}".rstrip() for name, profile_id in rows)


def _without_name(text: str, note: Note) -> str:
    """Return the id of a line pasted from the list of profiles, and say so; any other text as it is."""
    profile_id = id_in_listing(text)
    if profile_id is None:
        return text
    note("warning", f"only the id of what was given counts, not the text behind it: {text}")
    return profile_id


def _error(diagnosis: str, title: str, profiles: Iterable[Profile], hint: str) -> ProfileError:
    return ProfileError(f"{diagnosis}\n{title}:\n{list_profiles(profiles)}", hint=hint)


def _by_names(given: Sequence[str], manifest: Manifest, note: Note) -> tuple[Profile, ...]:
    names = [_without_name(text, note) for text in given]
    unknown = [name for name in dict.fromkeys(names) if not matching(name, manifest.profiles)]
    if unknown:
        raise _error(
            f"Unknown profiles provided: {', '.join(unknown)}",
            f"All valid profiles of {manifest.origin}",
            manifest.profiles,
            "give an id or a name of the list above to --profiles",
        )
    return tuple({profile.id: profile for profile in (_unique(name, manifest) for name in names)}.values())


def _unique(name: str, manifest: Manifest) -> Profile:
    matches = matching(name, manifest.profiles)
    if len(matches) > 1:
        raise _error(
            f"several profiles have this name: {name}",
            "They are",
            matches,
            "give the id of one of the list above",
        )
    return matches[0]


def _by_variable(given: str, manifest: Manifest, note: Note) -> Profile:
    value = _without_name(given, note)
    if not matching(value, manifest.profiles):
        raise _error(
            f"Environment variable NIM_MODEL_PROFILE is set to {given}, but no matching profile_id or profile "
            "description is found in manifest",
            f"All valid profiles of {manifest.origin}",
            manifest.profiles,
            "set NIM_MODEL_PROFILE to an id or a name of the list above, without the text in brackets",
        )
    profile = _unique(value, manifest)
    note("info", f"Matched profile_id in manifest from env NIM_MODEL_PROFILE: {profile.id}")
    return profile


def _best(manifest: Manifest, rank: Callable[[], Ranking] | None, note: Note) -> Profile:
    if len(manifest.profiles) == 1:
        return manifest.profiles[0]
    selected, why = _selected(rank)
    if selected is not None:
        return _announced(selected, note)
    first = manifest.profiles[0]
    if first.files and all(profile.files == first.files for profile in manifest.profiles):
        note(
            "info", f"{len(manifest.profiles)} profiles to choose from{why}: taking the first, all have the same files"
        )
        return first
    raise _error(
        f"no profile given, and there are {len(manifest.profiles)} to choose from{why}",
        f"All valid profiles of {manifest.origin}",
        manifest.profiles,
        "give an id or a name of the list above to --profiles or in NIM_MODEL_PROFILE, or all of them with --all",
    )


def _for_lora(manifest: Manifest, rank: Callable[[], Ranking] | None, note: Note) -> Profile:
    lora = [profile for profile in manifest.profiles if has_lora(profile.tags)]
    if len(lora) == 1:
        return lora[0]
    selected, why = _selected(rank) if lora else (None, "")
    if selected is not None:
        return _announced(selected, note)
    raise _error(
        f"--lora needs one profile with the tag feat_lora 'true', and there are {len(lora) or 'none'}{why}",
        f"{'LoRA' if lora else 'All'} profiles of {manifest.origin}",
        lora or manifest.profiles,
        "give the id of one of the list above to --profiles",
    )


def _selected(rank: Callable[[], Ranking] | None) -> tuple[Verdict | None, str]:
    """Return the best profile, or None and what is to be said about that."""
    if rank is None:
        return None, ""
    ranking = rank()
    if ranking.selected is not None:
        return ranking.selected, ""
    kind = " for LoRA" if ranking.lora else ""
    return None, f", but none{kind} that its GPUs can run" if ranking.hardware.gpus else ", but no GPU to choose by"


def _announced(verdict: Verdict, note: Note) -> Profile:
    profile = verdict.profile
    note("info", f"Selected profile: {profile.id} ({short_name(profile.tags)})")
    if verdict.required and verdict.available is not None and verdict.required > verdict.available:
        note("warning", _low_memory(verdict.required, verdict.available, verdict))
    return profile


def _low_memory(required: int, available: int, verdict: Verdict) -> str:
    text = f"Estimated VRAM ({required / _GIB:.1f} GB) exceeds available GPU memory ({available / _GIB:.1f} GB)."
    if verdict.reduced is None:
        return text
    return (
        f"{text} Consider reducing context length with --max-model-len={verdict.reduced.context} "
        f"(estimated {verdict.reduced.required / _GIB:.1f} GB)."
    )
