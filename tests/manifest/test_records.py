import pytest
from attrs import evolve
from attrs.exceptions import FrozenInstanceError

import nim_core.manifest
from nim_core.manifest import Manifest, ManifestFile, Profile

FILES = (ManifestFile(path="a", uri="hf://a/b?file=a"),)


def test_files_are_made_once_and_only_when_asked_for():
    made = []

    def make():
        made.append(1)
        return FILES

    profile = Profile(id="a", files=make)
    assert made == []
    assert profile.files is profile.files
    assert made == [1]


def test_profiles_compare_by_what_they_say():
    assert Profile(id="a", files=lambda: FILES) == Profile(id="a", files=FILES)
    assert Profile(id="a", files=FILES) != Profile(id="a")
    assert Profile(id="a", tags={"tp": "1"}) != Profile(id="a", tags={"tp": "2"})
    assert len({Profile(id="a", tags={"tp": "1"}), Profile(id="a", tags={"tp": "1"})}) == 1


def test_profiles_are_values():
    tags = {"tp": "1"}
    profile = Profile(id="a", tags=tags, files=lambda: FILES)
    tags["tp"] = "2"
    assert profile.tags["tp"] == "1"
    assert evolve(profile, model="m").files == FILES
    with pytest.raises(FrozenInstanceError):
        profile.id = "b"


def test_origin_is_not_compared():
    assert Manifest(schema_version="2.0", origin="a") == Manifest(schema_version="2.0", origin="b")


def test_public_names_are_sorted():
    assert nim_core.manifest.__all__ == sorted(nim_core.manifest.__all__)
