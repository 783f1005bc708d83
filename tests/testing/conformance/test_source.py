"""The source suite against sources that are broken on purpose: each fails the intended tests and no others."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nim_core.testing.conformance import SourceSuite
from tests.testing.conformance.broken import SOURCES

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[3]
PROCESSES = 2

UNSEEN = {
    "test_a_token_that_is_none_is_refused",  # acme has no service for tokens
    "test_file_name_is_pure_and_right",  # nor the grammar of objects
    "test_the_command_shows_and_keeps_no_secret",  # core redacts what is declared, whatever a source does
    "test_what_signs_in_stays_behind_when_data_are_redirected",  # data are core's to fetch
}

CONFTEST = """
from nim_core.testing.conformance.suite import case_of

pytest_plugins = ["nim_core.testing"]
WHOLE = ("test_refusals_are_told_apart", "test_an_answer_that_is_none_is_refused")
LONG = ("test_the_command_shows_and_keeps_no_secret", "test_an_endless_answer_is_refused")


def pytest_collection_modifyitems(items):
    seen, kept = set(), []
    for item in items:
        name, level = item.originalname, case_of(item.function).level
        if level in {"reading", "credentials"} and name not in LONG and (name in WHOLE or (item.cls, name) not in seen):
            kept.append(item)
        seen.add((item.cls, name))
    items[:] = kept
"""

TESTS = """
import pytest

from nim_core.testing.conformance import Served, SourceSuite
from tests.testing.conformance.acme import TOKEN, Acme


class Broken(SourceSuite):
    @pytest.fixture
    def served(self, corpus):
        with Acme(corpus.files).running() as acme:
            yield Served(
                uri=f"{self.plugin}://team/model",
                files=corpus.files,
                environment={"ACME_URL": acme.url, "ACME_TOKEN": TOKEN},
                missing=f"{self.plugin}://team/none",
                expire=acme.expire,
                change=lambda: acme.revisions.update(r2={"LICENSE": corpus.files["LICENSE"]}),
            )

"""


def install(folder: Path, name: str) -> None:
    """Install the plugin ``name``, one of :data:`SOURCES`."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    requires = "Requires-Dist: nim-core>=1.0.0.dev0,<2\n"
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{requires}")
    (info / "entry_points.txt").write_text(f"[nim_core.plugins]\n{name} = plugin_{name}\n")
    (folder / f"plugin_{name}.py").write_text(
        "from tests.testing.conformance.acme import hooks\n"
        "from tests.testing.conformance.broken import SOURCES\n"
        f"globals().update(hooks(SOURCES[{name!r}], {name!r}))\n"
    )


def start(folder: Path, names: list[str]) -> subprocess.Popen[str]:
    """Run the suite for plugins of those names, all in one process."""
    for name in names:
        install(folder, name)
    (folder / "conftest.py").write_text(CONFTEST)
    classes = [f'class Test_{name}(Broken):\n    plugin = "{name}"\n' for name in names]
    (folder / "test_broken.py").write_text(textwrap.dedent(TESTS) + "\n\n".join(classes))
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "NIM_"))}
    environ["PYTHONPATH"] = os.pathsep.join([str(folder), str(ROOT), *filter(None, sys.path)])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=report.xml", "--tb=short"]
    return subprocess.Popen(
        command, cwd=folder, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Mapping[str, str]]:
    """The messages of what fails, by plugin and test; tests with several parameters count once."""
    names = sorted(SOURCES)
    folders = [tmp_path_factory.mktemp("site") for _ in range(PROCESSES)]
    running = [start(folder, names[number::PROCESSES]) for number, folder in enumerate(folders)]
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for process, folder in zip(running, folders, strict=True):
        said, _ = process.communicate()
        assert process.returncode == 1, said
        for test in ElementTree.parse(folder / "report.xml").getroot().iter("testcase"):
            plugin, name = test.get("classname", "").rpartition("Test_")[2], test.get("name", "").partition("[")[0]
            for failed in (*test.iter("failure"), *test.iter("error")):
                found[plugin].setdefault(name, f"{failed.get('message')}\n{failed.text}")
    return found


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_broken_source_fails_what_it_has_to_with_words_that_help(outcomes, name):
    source, failed = SOURCES[name], outcomes.get(name, {})
    assert source.fails <= set(failed) <= source.fails | source.may, failed
    assert source.says in "".join(failed.values())


def test_every_test_that_is_a_sources_own_is_seen_to_fail():
    """What only shows core's work, by what a source says, is tested with core."""
    seen = {test for source in SOURCES.values() for test in (*source.fails, *source.may)}
    levels = {name: case.level for name, case in SourceSuite.cases().items()}
    assert {name for name, level in levels.items() if level in {"reading", "credentials"}} - seen == UNSEEN
