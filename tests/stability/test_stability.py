"""The comparison with the last release sees what would break a plugin; tried on copies of core in a repository."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIN = Path("tests/meta/hook_api.json")


class Repository:
    """A repository with core's package, its pin and its version, released as v1.0.0."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ignored = shutil.ignore_patterns("__pycache__", "data")
        shutil.copytree(ROOT / "nim_core", folder / "nim_core", ignore=ignored)
        (folder / PIN).parent.mkdir(parents=True)
        shutil.copy(ROOT / PIN, folder / PIN)
        self.write("pyproject.toml", '[project]\nname = "nim-core"\nversion = "1.0.0"\n')
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit()

    def git(self, *arguments: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *identity, *arguments], cwd=self.folder, check=True, timeout=60)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=x")

    def tag(self, name: str = "v1.0.0") -> None:
        self.git("tag", name)

    def write(self, path: str, text: str) -> None:
        (self.folder / path).write_text(text, encoding="utf-8")

    def replace(self, path: str, old: str, new: str) -> None:
        text = (self.folder / path).read_text(encoding="utf-8")
        assert old in text
        self.write(path, text.replace(old, new))

    def pin(self, *path: str, value: object) -> None:
        """Change the pin as the test of the contract would write it."""
        pinned = json.loads((self.folder / PIN).read_text(encoding="utf-8"))
        *parents, last = path
        part = pinned
        for key in parents:
            part = part[key]
        if value is None:
            del part[last]
        else:
            part[last] = value
        self.write(str(PIN), json.dumps(pinned))

    def compare(self) -> tuple[int, str]:
        command = [sys.executable, ROOT / ".ci" / "stability.py", "--repository", self.folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.stderr == ""
        return done.returncode, done.stdout


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


def test_without_a_release_it_says_so_and_does_not_pass(repository):
    assert repository.compare() == (
        3,
        "no release is tagged: there is nothing to compare the contract with but its pin\n",
    )


def test_a_tag_that_is_no_release_does_not_count(repository):
    repository.tag("nightly")

    assert repository.compare()[0] == 3


def test_nothing_changed(repository):
    repository.tag()

    assert repository.compare() == (0, "against v1.0.0: 0 breaking changes\n")


SOURCE_CHANGES = [
    ("nim_core/hookspecs.py", "def nim_rewrite_uri(", "def nim_place_uri(", "nim_rewrite_uri"),
    ("nim_core/types/environment.py", "def is_set(self, name: str)", "def has(self, name: str)", "is_set"),
    (
        "nim_core/types/environment.py",
        "def text(self, name: str)",
        "def text(self, name: str, *, strict: bool)",
        "strict",
    ),
    ("nim_core/errors.py", "class RegionBlockedError(", "class CountryBlockedError(", "RegionBlockedError"),
    ("nim_core/testing/corpus.py", "def sample_corpus(", "def example_corpus(", "sample_corpus"),
]


@pytest.mark.parametrize(("path", "old", "new", "named"), SOURCE_CHANGES, ids=[row[3] for row in SOURCE_CHANGES])
def test_a_breaking_change_of_the_source_fails(repository, path, old, new, named):
    repository.tag()
    repository.replace(path, old, new)

    code, said = repository.compare()

    assert code == 1
    assert named in said


PIN_CHANGES = [
    (("types", "RemoteFile", "fields", "size"), None, "RemoteFile.fields.size is gone"),
    (("types", "RemoteFile", "fields", "added"), "str", "RemoteFile.fields.added is new and has no default"),
    (("types", "RemoteFile", "fields", "path"), "Path", "RemoteFile.fields.path was"),
    (("hooks", "nim_rewrite_uri", "arguments"), ["uri: ModelUri"], "hooks.nim_rewrite_uri.arguments was"),
    (("hooks", "nim_transfer_event"), None, "hooks.nim_transfer_event is gone"),
    (("errors", "NotFoundError", "exit_code"), 99, "errors.NotFoundError.exit_code was"),
    (("entry_point_group",), "nim.plugins", "entry_point_group was"),
]


@pytest.mark.parametrize(("path", "value", "named"), PIN_CHANGES, ids=[row[2] for row in PIN_CHANGES])
def test_a_breaking_change_of_the_pin_fails(repository, path, value, named):
    repository.tag()
    repository.pin(*path, value=value)

    code, said = repository.compare()

    assert code == 1
    assert named in said


def test_what_a_minor_version_may_add_passes(repository):
    repository.tag()
    repository.replace(
        "nim_core/errors.py",
        "class RegionBlockedError(",
        "class NewError(NimError):\n    pass\n\n\nclass RegionBlockedError(",
    )
    repository.pin("types", "RemoteFile", "fields", "added", value="str = ''")
    repository.pin("hooks", "nim_of_the_future", value={"firstresult": False, "arguments": [], "returns": "None"})
    repository.pin(
        "hooks", "nim_rewrite_uri", "arguments", value=["uri: ModelUri", "override: OverrideTarget", "why: str"]
    )

    assert repository.compare() == (0, "against v1.0.0: 0 breaking changes\n")


def test_a_new_major_version_may_break_and_says_what(repository):
    repository.tag()
    repository.replace("nim_core/hookspecs.py", "def nim_rewrite_uri(", "def nim_place_uri(")
    repository.replace("pyproject.toml", "1.0.0", "2.0.0")

    code, said = repository.compare()

    assert code == 0
    assert "nim_rewrite_uri" in said


def test_the_newest_release_counts(repository):
    repository.tag()
    repository.replace("nim_core/hookspecs.py", "def nim_rewrite_uri(", "def nim_place_uri(")
    repository.commit()
    repository.tag("v1.1.0")

    assert repository.compare()[0] == 0
