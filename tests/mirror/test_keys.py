from __future__ import annotations

import pytest

from nim_core.mirror.keys import agrees, listing_prefixes, planned_objects
from nim_core.plan import Target, Wanted
from nim_core.types import Digest, ModelUri, StoredObject, UriStyle

ONE, TWO = Digest("sha256", "1" * 64), Digest("sha256", "2" * 64)
BLAKE = Digest("blake3", "3" * 64)
CRC = Digest("crc32c", "12345678")


def repository(file, scheme="ngc"):
    return ModelUri(scheme=scheme, location="nim/meta/llama3-8b-instruct", revision="hf", file=file)


def with_scheme(uri):
    return uri.scheme != "ngc"


def planned(*uris, prefix=""):
    files = tuple(Wanted(path=f"{number}", uri=uri) for number, uri in enumerate(uris))
    return planned_objects([Target(id="t", label="t", files=files)], prefix, with_scheme)


def keys(*uris, prefix=""):
    return [item.key for item in planned(*uris, prefix=prefix).values()]


def test_the_documented_key_to_the_letter():
    assert keys(repository("config.json")) == ["nim%2Fmeta%2Fllama3-8b-instruct%3Ahf%3Ffile%3Dconfig.json"]


@pytest.mark.parametrize("prefix", ["nim-models", "/nim-models/", "nim-models/"])
def test_beneath_a_prefix(prefix):
    assert keys(repository("a"), prefix=prefix)[0].startswith("nim-models/nim%2F")


def test_other_sources_keep_their_scheme_so_nothing_collides():
    assert keys(repository("a"), repository("a", "hf")) == [
        "nim%2Fmeta%2Fllama3-8b-instruct%3Ahf%3Ffile%3Da",
        "hf%3A%2F%2Fnim%2Fmeta%2Fllama3-8b-instruct%3Ahf%3Ffile%3Da",
    ]


def test_every_character_but_unreserved_ones():
    assert keys(repository("dir/A b+~-._é?&=%2F"))[0].endswith("%3Ddir%2FA%20b%2B~-._%C3%A9%3F%26%3D%252F")


def test_what_signs_a_url_is_not_in_the_key():
    uri = ModelUri(scheme="https", location="me:pass@host/file?X-Amz-Signature=abc", style=UriStyle.OBJECT)

    (key,) = keys(uri)

    assert "pass" not in key
    assert "abc" not in key


def test_a_file_of_two_profiles_is_one_object_with_both_digests():
    uri = repository("a")
    targets = [
        Target(id=str(number), label="", files=(Wanted(path="a", uri=uri, digest=digest),))
        for number, digest in enumerate((ONE, BLAKE, None, ONE))
    ]

    (item,) = planned_objects(targets, "", with_scheme).values()

    assert item.digests == (ONE, BLAKE)


class TestListingPrefixes:
    def test_one_per_repository(self):
        found = planned(repository("a"), repository("b/c"), repository("a", "hf"), prefix="p").values()

        prefixes = listing_prefixes(found, "p", with_scheme)

        assert len(prefixes) == 2
        assert all(any(item.key.startswith(prefix) for prefix in prefixes) for item in found)

    def test_objects_by_their_folder(self):
        uris = [ModelUri(scheme="s3", location=f"b/dir/{name}", style=UriStyle.OBJECT) for name in "ab"]

        assert listing_prefixes(planned(*uris).values(), "", with_scheme) == ("s3%3A%2F%2Fb%2Fdir",)

    def test_the_whole_prefix_where_they_are_many(self):
        uris = [ModelUri(scheme="ngc", location=f"org/model{number}", file="a") for number in range(40)]

        assert listing_prefixes(planned(*uris, prefix="p").values(), "p", with_scheme) == ("p/",)


@pytest.mark.parametrize(
    ("stored", "size", "meant", "answer"),
    [
        pytest.param((ONE,), 5, (ONE,), True, id="same"),
        pytest.param((ONE,), None, (ONE,), True, id="size unknown"),
        pytest.param((ONE,), 6, (ONE,), False, id="another size"),
        pytest.param((ONE,), 5, (TWO,), False, id="another digest"),
        pytest.param((ONE, BLAKE), 5, (TWO, BLAKE), False, id="one of two differs"),
        pytest.param((CRC,), 5, (CRC,), None, id="a checksum proves nothing"),
        pytest.param((CRC,), 5, (Digest("crc32c", "00000000"),), False, id="but it disproves"),
        pytest.param((), 5, (ONE,), None, id="nothing stored"),
        pytest.param((ONE,), 5, (), None, id="nothing promised"),
        pytest.param((BLAKE,), 5, (ONE,), None, id="nothing in common"),
    ],
)
def test_agrees(stored, size, meant, answer):
    assert agrees(StoredObject(key="k", size=5, digests=stored), size, meant) is answer
