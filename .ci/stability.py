"""
Compare the contract with plugins with that of the last release, and fail when a plugin could break.

Two comparisons, as each sees what the other does not: griffe reads the source of the contract's modules (what is gone,
moved or takes other parameters), and the pinned ``hook_api.json`` has what attrs makes of the records (fields and
defaults) and the signatures of hooks. A new major version may break; then what it breaks is listed.

The last release is the newest tag ``vX.Y.Z`` that HEAD descends from. Without one there is nothing to compare with but
the pin itself, which the session then does by its test; this says so and ends with 3.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

CONTRACT = ("hookspecs", "types", "errors", "testing")
PIN = "tests/meta/hook_api.json"
NO_TAG = 3


def git(repository: Path, *arguments: str) -> str | None:
    """Return what git prints. None when it fails."""
    command = ["git", "-C", str(repository), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def last_release(repository: Path) -> str | None:
    """Return the newest release tag that HEAD descends from. None: there is none."""
    return git(repository, "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*.[0-9]*.[0-9]*") or None


def major(pyproject: str) -> int:
    """Return the major version that a pyproject.toml names."""
    return int(re.match(r"\d+", tomllib.loads(pyproject)["project"]["version"])[0])


def breakages(repository: Path, tag: str) -> Iterator[str]:
    """Yield what griffe finds in the contract's modules."""
    options = {"resolve_aliases": True, "allow_inspection": False}
    old = griffe.load_git("nim_core", ref=tag, repo=repository, **options)
    new = griffe.load("nim_core", search_paths=[repository], try_relative_path=False, **options)
    for name in CONTRACT:
        if name not in new.members:
            yield f"nim_core.{name} is gone"
        elif name in old.members:
            for breakage in griffe.find_breaking_changes(old[name], new[name]):
                yield breakage.explain(griffe.ExplanationStyle.ONE_LINE)


def pin_breakages(old: Any, new: Any, where: str = "contract") -> Iterator[str]:
    """Yield what an older pin promises and a newer one does not keep; what is new, one must be able to leave out."""
    if isinstance(old, dict) and isinstance(new, dict):
        yield from (f"{where}.{key} is gone" for key in old.keys() - new.keys())
        for key in old.keys() & new.keys():
            yield from pin_breakages(old[key], new[key], f"{where}.{key}")
        if where.endswith(".fields"):
            added = new.keys() - old.keys()
            yield from (f"{where}.{key} is new and has no default" for key in added if " = " not in new[key])
    elif isinstance(old, list) and isinstance(new, list):
        if not keeps(old, new, where):
            yield f"{where} was {old}, is {new}"
    elif old != new:
        yield f"{where} was {old!r}, is {new!r}"


def keeps(old: list[str], new: list[str], where: str) -> bool:
    """Say whether a list of arguments or of names still serves who knows the older one."""
    if not where.endswith(".arguments") or where.startswith("contract.hooks."):  # pluggy passes arguments by name
        return set(old) <= set(new)
    return new[: len(old)] == old and all(" = " in argument for argument in new[len(old) :])


def compare(repository: Path, tag: str) -> list[str]:
    """Return everything that a plugin written for ``tag`` may stumble over."""
    found = list(breakages(repository, tag))
    pinned = git(repository, "show", f"{tag}:{PIN}")
    if pinned is None:
        return [*found, f"{tag} has no {PIN}"]
    return [*found, *pin_breakages(json.loads(pinned), json.loads((repository / PIN).read_text(encoding="utf-8")))]


def main() -> int:
    """Compare, print, and return the exit code: 0 fine, 1 broken, 3 nothing to compare with."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--repository", type=Path, default=Path())
    repository = parser.parse_args().repository.resolve()
    tag = last_release(repository)
    if tag is None:
        print("no release is tagged: there is nothing to compare the contract with but its pin")
        return NO_TAG
    found = compare(repository, tag)
    print("\n".join([f"against {tag}: {len(found)} breaking changes", *found]))
    before = git(repository, "show", f"{tag}:pyproject.toml") or ""
    now = (repository / "pyproject.toml").read_text(encoding="utf-8")
    if found and major(now) > major(before):
        print("a new major version may break")
        return 0
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
