"""What the tests of packaging share: the tree they look at, and its projects."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the top folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def projects() -> dict[str, dict[str, Any]]:
    """Return the contents of every pyproject.toml by distribution name, the core's first."""
    files = [ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]
    loaded = [tomllib.loads(file.read_text(encoding="utf-8")) for file in files]
    return {project["project"]["name"]: project for project in loaded}
