"""Which file of a folder is the model; looks at names, and at the first bytes of what is there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from nim_core.types import Verdict

__all__ = ["choose", "damage", "models_among"]

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_MAGIC = b"GGUF"


def models_among(files: Sequence[str]) -> list[str]:
    """
    Return the paths in ``files`` that llama.cpp is started with, sorted.

    Of a model in several files (``-00001-of-00003.gguf``) that is the first one, by which llama.cpp finds the others.
    Projectors (``mmproj-*.gguf``) go with a model and are none.
    """
    found = []
    for file in sorted(files):
        name = PurePosixPath(file).name.lower()
        shard = _SHARD.fullmatch(name)
        if name.endswith(".gguf") and not name.startswith("mmproj") and (not shard or int(shard["number"]) == 1):
            found.append(file)
    return found


def choose(files: Sequence[str], wanted: str | None) -> str | Verdict:
    """
    Return the path of the model among ``files``, or why there is none to be taken.

    Args:
        files: Paths inside the model's folder.
        wanted: Which one the user named, by its path or its end. None: the only one there is.
    """
    models = models_among(files)
    if wanted is not None:
        named = [model for model in models if model == wanted] or [
            model for model in models if PurePosixPath(model).name == wanted
        ]
        if len(named) != 1:
            return _refusal(f"--model names no model of this folder: {wanted}", models)
        models = named
    if not models:
        return Verdict(
            can_serve=False,
            reason="llama.cpp serves GGUF files, and the model has none",
            hint="choose a profile with a GGUF file, or another backend",
        )
    if len(models) > 1:
        return _refusal(f"{len(models)} GGUF models are in one folder, and one can be served", models)
    missing = _missing_shards(models[0], files)
    if missing:
        return Verdict(can_serve=False, reason=f"files of the model are missing: {', '.join(missing)}")
    return models[0]


def damage(file: Path) -> str | None:
    """
    Return why ``file`` cannot be a GGUF model. None when it may be one, or is not there yet.

    Source: the GGUF specification, "File Structure": the magic number comes first.
    """
    try:
        with file.open("rb") as opened:
            start = opened.read(len(_MAGIC))
    except FileNotFoundError:
        return None
    except OSError as exc:
        return f"cannot be read: {exc.strerror}"
    return None if start == _MAGIC else "is not a GGUF file: it does not begin with GGUF"


def _missing_shards(model: str, files: Sequence[str]) -> list[str]:
    path = PurePosixPath(model)
    shard = _SHARD.fullmatch(path.name)
    if not shard:
        return []
    names = (f"{shard['stem']}-{number:05}-of-{shard['count']}.gguf" for number in range(1, int(shard["count"]) + 1))
    return [name for name in (str(path.with_name(name)) for name in names) if name not in files]


def _refusal(reason: str, models: Sequence[str]) -> Verdict:
    return Verdict(
        can_serve=False, reason=reason, hint=f"name one by --model: {', '.join(models[:5]) or 'none is there'}"
    )
