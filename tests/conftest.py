"""Hand-written installed distributions: a folder on ``sys.path`` with modules and ``*.dist-info`` folders."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from nim_core.registry import Registry, load_registry
from nim_core.settings import Settings

CORE_REQUIREMENT = "nim-core>=1.0.0.dev0"

PRELUDE = """
from nim_core import hookimpl
from nim_core.types import *

class EmptySource:
    def __init__(self, context):
        self.context = context
    def list_files(self, uri):
        return Listing(uri=uri, files=())
    def locate(self, uri, file):
        return HttpObject(url="https://example.com/x")
    def close(self):
        pass

def source(name, *schemes, factory=EmptySource, style=UriStyle.REPOSITORY, environment=()):
    return SourceSpec(
        name=name, schemes=schemes or (name,), uri_style=style, summary="a source", factory=factory,
        environment=environment,
    )
"""


class Site:
    """
    What a test installs.

    Args:
        folder: Put on ``sys.path`` by the fixture.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def distribution(
        self,
        name: str,
        version: str = "1.0",
        *,
        entry_points: Sequence[str] = (),
        requires: Sequence[str] = (CORE_REQUIREMENT,),
        folder: Path | None = None,
    ) -> None:
        info = (folder or self.folder) / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {line}" for line in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        (info / "entry_points.txt").write_text("\n".join(["[nim_core.plugins]", *entry_points]) + "\n")

    def module(self, name: str, source: str) -> None:
        (self.folder / f"{name}.py").write_text(PRELUDE + source)

    def plugin(
        self,
        name: str,
        source: str = "",
        *,
        distribution: str | None = None,
        version: str = "1.0",
        requires: Sequence[str] = (CORE_REQUIREMENT,),
    ) -> None:
        """Install a plugin in a distribution of its own; ``dist-NAME`` unless named otherwise."""
        distribution = distribution or f"dist-{name}"
        module = f"installed_{distribution}_{name}".replace("-", "_")
        self.module(module, source)
        self.distribution(distribution, version, entry_points=[f"{name} = {module}"], requires=requires)

    def source_plugin(self, name: str, *schemes: str, **options: str) -> None:
        """Install a plugin that brings one source."""
        names = ", ".join(repr(text) for text in (name, *schemes))
        self.plugin(name, f"@hookimpl\ndef nim_register_sources():\n    return [source({names})]\n", **options)

    def load(self, **environ: str) -> Registry:
        importlib.invalidate_caches()
        return load_registry(Settings(environ), distributions=importlib.metadata.distributions(path=[str(self.folder)]))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield Site(folder)
    for name in set(sys.modules) - before:
        if name.startswith(("installed_", "broken_")):
            del sys.modules[name]


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, object]]]:
    """What is logged while the test runs."""
    from structlog.testing import capture_logs

    with capture_logs() as entries:
        yield entries
