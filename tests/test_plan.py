"""The plan as a value."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve
from attrs.exceptions import FrozenInstanceError

from nim_core.errors import NotFoundError
from nim_core.plan import Fetch, Patterns, Plan, Present, Target, Wanted
from nim_core.types import CacheKey, Digest, ModelUri, RemoteFile

URI = ModelUri(scheme="test", location="org/name", revision="v1")
KEY = CacheKey(root="test/hub", repo="models--org--name", snapshot="v1")


def fetch(path, size):
    return Fetch(identity=evolve(URI, file=path), uri=URI, file=RemoteFile(path=path, size=size), key=KEY)


def present(path, size):
    return Present(identity=evolve(URI, file=path), blob=Path("/b"), link=None, size=size, mtime_ns=1)


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (Plan(), (0, 0, 0)),
        (Plan(fetches=(fetch("a", 5), fetch("b", 0))), (5, 0, 0)),
        (Plan(fetches=(fetch("a", 5), fetch("b", None), fetch("c", None))), (5, 2, 0)),
        (Plan(present=(present("a", 7), present("b", 8))), (0, 0, 15)),
        (Plan(fetches=(fetch("a", None),), present=(present("b", 8),)), (0, 1, 8)),
    ],
)
def test_sums(plan, expected):
    assert (plan.bytes_to_fetch, plan.unknown_sizes, plan.bytes_present) == expected


FILES = ("LICENSE", "config.json", "original/params.json", "original/a/b.pth", "model-1.safetensors", "[x].json")


@pytest.mark.parametrize(
    ("include", "exclude", "left"),
    [
        ((), (), FILES),
        (("*.json",), (), ("config.json", "original/params.json", "[x].json")),
        (("config.json", "model-?.safetensors"), (), ("config.json", "model-1.safetensors")),
        (("original/",), (), ("original/params.json", "original/a/b.pth")),
        (("original/*",), ("*.pth",), ("original/params.json",)),
        ((), ("original/", "*.json"), ("LICENSE", "model-1.safetensors")),
        (("[lL]*", "[[]x].json"), (), ("LICENSE", "[x].json")),
        (("*.JSON", "L*"), (), ("LICENSE",)),
    ],
)
def test_patterns(include, exclude, left):
    files = [Wanted(path=path, uri=URI) for path in FILES]
    patterns = Patterns(include=include, exclude=exclude)
    assert tuple(file.path for file in patterns.chosen(files)) == left
    assert bool(patterns) == bool(include or exclude)


def test_patterns_that_leave_nothing():
    files = [Wanted(path=path, uri=URI) for path in FILES]
    with pytest.raises(NotFoundError) as caught:
        Patterns(include=("*.gguf", "x/"), exclude=("y",)).chosen(files)
    assert caught.value.message == "none of 6 files is left by --include *.gguf --include x/ --exclude y"
    assert Patterns(include=("*.gguf",)).chosen([]) == ()


def test_plans_are_compared_by_value():
    assert Plan(fetches=(fetch("a", 5),)) == Plan(fetches=(fetch("a", 5),))
    assert Plan(fetches=(fetch("a", 5),)) != Plan(fetches=(fetch("a", 6),))


def test_wishes_are_told_apart_by_what_they_promise():
    promises = [None, Digest("md5", "0" * 32), Digest("md5", "1" * 32)]
    assert len({Wanted(path="a", uri=URI, digest=digest) for digest in promises}) == 3


@pytest.mark.parametrize(
    "value", [Plan(), fetch("a", 1), present("a", 1), Target(id="1", label="x"), Wanted(path="a", uri=URI)]
)
def test_nothing_is_changed_in_place(value):
    name = type(value).__attrs_attrs__[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, None)
