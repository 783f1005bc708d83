"""Many plugins that are broken on purpose, installed as one distribution, and their suites run as one session."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
CONFTEST = """
from nim_core.testing.conformance.suite import case_of
pytest_plugins = ["nim_core.testing"]

def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if case_of(item.function).level != "hygiene"]
"""

Failures = Mapping[str, Mapping[str, str]]
"""By plugin: the tests that failed, and what they said."""


def run_broken(folder: Path, plugins: Mapping[str, str], suites: str) -> Failures:
    """
    Run suites against broken plugins; hygiene, which is another test's business, is left out.

    Args:
        folder: Empty.
        plugins: Modules of plugins, by name.
        suites: A test module; ``Test`` and a plugin's name is what its class is called.
    """
    info = folder / "broken-1.0.dist-info"
    info.mkdir()
    required = "Metadata-Version: 2.1\nName: broken\nVersion: 1.0\nRequires-Dist: nim-core>=1.0.0.dev0,<2\n"
    (info / "METADATA").write_text(required)
    entries = "".join(f"{name} = broken_{name}\n" for name in plugins)
    (info / "entry_points.txt").write_text(f"[nim_core.plugins]\n{entries}")
    (info / "RECORD").write_text("".join(f"broken_{name}.py,,\n" for name in plugins))
    for name, text in plugins.items():
        (folder / f"broken_{name}.py").write_text(text)
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_broken.py").write_text(suites)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "NIM_"))}
    environ["PYTHONPATH"] = os.pathsep.join([str(folder), str(REPOSITORY), *filter(None, sys.path)])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--junit-xml=report.xml",
        "--tb=short",
        "--durations=8",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environ, check=False)
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return _failures(folder / "report.xml")


def _failures(report: Path) -> Failures:
    found: dict[str, dict[str, str]] = {}
    for case in ET.parse(report).iter("testcase"):
        of = found.setdefault(case.attrib["classname"].rpartition(".")[2].removeprefix("Test"), {})
        for kind in ("failure", "error"):
            for failure in case.iter(kind):
                text = f"{failure.attrib.get('message', '')}\n{failure.text}"
                of[case.attrib["name"].partition("[")[0]] = text
    return found
