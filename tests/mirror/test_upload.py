from __future__ import annotations

import os

import blake3
import pytest

from nim_core.errors import (
    DigestMismatchError,
    NotFoundError,
    PermissionDeniedError,
    RemoteChangedError,
    TransientError,
)
from nim_core.types import Digest
from tests.mirror.shelf import PART, Shelf, crc

SMALL = b"small"
LARGE = os.urandom(3 * PART + 12345)


def blake(data: bytes) -> Digest:
    return Digest("blake3", blake3.blake3(data).hexdigest())


def held(mirror, name):
    return mirror.shelf.objects[f"key%2F{name}"][0]


@pytest.mark.parametrize("data", [b"", SMALL, LARGE[:PART], LARGE[: PART + 1], LARGE, LARGE[: 2 * PART]])
def test_what_arrives_is_the_file_with_its_digests(mirror, data):
    assert mirror.run(mirror.file("f", data)) == {"key%2Ff": "uploaded"}

    content, stored = mirror.shelf.objects["key%2Ff"]
    assert content == data
    assert {blake(data), crc(data)} <= set(stored.digests)
    assert mirror.heard.bytes == len(data)
    assert mirror.shelf.uploads == {}


def test_many_files_of_both_kinds(mirror):
    files = [mirror.file(f"s{n}", b"%d" % n) for n in range(50)] + [mirror.file(f"l{n}", LARGE) for n in range(4)]

    assert set(mirror.run(*files).values()) == {"uploaded"}
    assert held(mirror, "s7") == b"7"
    assert all(held(mirror, f"l{n}") == LARGE for n in range(4))


def test_a_digest_the_manifest_promises_is_stored_and_checked(mirror):
    promised = Digest("sha256", "a" * 64)

    with pytest.raises(DigestMismatchError, match="damaged since it was downloaded"):
        mirror.run(mirror.file("f", SMALL, promised))

    assert mirror.shelf.objects == {}


def test_what_is_there_and_right_is_left_alone(mirror):
    mirror.run(mirror.file("f", LARGE))
    calls = len(mirror.shelf.calls)
    there = {"key%2Ff": mirror.shelf.objects["key%2Ff"][1]}

    assert mirror.run(mirror.file("f", LARGE), stored=there) == {"key%2Ff": "present"}
    assert mirror.shelf.calls[calls:] == []


def test_what_is_wrong_is_replaced(mirror):
    mirror.run(mirror.file("f", b"old"))
    there = {"key%2Ff": mirror.shelf.objects["key%2Ff"][1]}

    assert mirror.run(mirror.file("f", LARGE), stored=there) == {"key%2Ff": "uploaded"}
    assert held(mirror, "f") == LARGE


@pytest.mark.parametrize("data", [SMALL, LARGE])
def test_somebody_else_wrote_the_same_meanwhile(mirror, data):
    mirror.run(mirror.file("f", data))

    assert mirror.run(mirror.file("f", data)) == {"key%2Ff": "present"}


@pytest.mark.parametrize("data", [SMALL, LARGE])
def test_somebody_else_wrote_something_else_meanwhile(mirror, data):
    mirror.run(mirror.file("f", b"other"))

    assert mirror.run(mirror.file("f", data)) == {"key%2Ff": "uploaded"}
    assert held(mirror, "f") == data


@pytest.mark.parametrize("method", ["put", "begin", "put_part", "finish", "head"])
def test_passing_errors_pass(mirror, method):
    mirror.shelf.faults[method] = [TransientError("a moment"), TransientError("please")]

    assert set(mirror.run(mirror.file("s", SMALL), mirror.file("l", LARGE)).values()) == {"uploaded"}
    assert mirror.heard.bytes == len(SMALL) + len(LARGE)


@pytest.mark.parametrize("method", ["put", "begin", "put_part", "finish"])
def test_final_errors_end_it_and_nothing_is_readable(mirror, method):
    mirror.shelf.faults[method] = [PermissionDeniedError("no")]
    data = SMALL if method == "put" else LARGE

    with pytest.raises(PermissionDeniedError, match="no"):
        mirror.run(mirror.file("f", data))

    assert mirror.shelf.objects == {}


def test_patience_ends(mirror):
    mirror.shelf.faults["put"] = [TransientError(f"try {n}") for n in range(9)]

    with pytest.raises(TransientError, match="try 3"):
        mirror.run(mirror.file("f", SMALL))


class TestGoingOn:
    def test_with_the_parts_of_an_earlier_run(self, mirror):
        mirror.shelf.faults["finish"] = [PermissionDeniedError("killed")]
        with pytest.raises(PermissionDeniedError):
            mirror.run(mirror.file("f", LARGE))
        mirror.shelf.calls.clear()

        assert mirror.run(mirror.file("f", LARGE)) == {"key%2Ff": "uploaded"}
        assert "put_part" not in mirror.shelf.calls
        assert held(mirror, "f") == LARGE

    def test_a_part_that_is_damaged_is_sent_again(self, mirror):
        if mirror.shelf.ordered:
            return self.damaged_ordered(mirror)
        mirror.shelf.faults["finish"] = [PermissionDeniedError("killed")]
        with pytest.raises(PermissionDeniedError):
            mirror.run(mirror.file("f", LARGE))
        (parts,) = mirror.shelf.uploads.values()
        parts[2] = b"x" * PART
        mirror.shelf.calls.clear()

        mirror.run(mirror.file("f", LARGE))

        assert mirror.shelf.calls.count("put_part") == 1
        assert held(mirror, "f") == LARGE
        return None

    def damaged_ordered(self, mirror):
        """An ordered upload goes on after the parts there are."""
        mirror.shelf.faults["put_part"] = [PermissionDeniedError("killed")]
        with pytest.raises(PermissionDeniedError):
            mirror.run(mirror.file("f", LARGE))
        mirror.shelf.calls.clear()

        mirror.run(mirror.file("f", LARGE))

        assert mirror.shelf.calls.count("put_part") == 4
        assert held(mirror, "f") == LARGE

    def test_not_with_parts_of_another_content(self, mirror):
        mirror.shelf.faults["finish"] = [PermissionDeniedError("killed")]
        with pytest.raises(PermissionDeniedError):
            mirror.run(mirror.file("f", LARGE))

        mirror.run(mirror.file("f", LARGE[::-1]))

        assert held(mirror, "f") == LARGE[::-1]

    def test_an_upload_that_the_store_lost_is_begun_again(self, mirror):
        mirror.shelf = Forgetful(ordered=mirror.shelf.ordered)

        assert mirror.run(mirror.file("f", LARGE)) == {"key%2Ff": "uploaded"}
        assert held(mirror, "f") == LARGE
        assert mirror.shelf.calls.count("begin") == 2

    def test_an_answer_that_was_lost(self, mirror):
        mirror.shelf = Silent(ordered=mirror.shelf.ordered)

        assert mirror.run(mirror.file("f", LARGE)) == {"key%2Ff": "uploaded"}
        assert mirror.shelf.calls.count("begin") == 1

    def test_an_upload_that_is_lost_while_parts_are_sent(self, mirror):
        mirror.shelf.faults["put_part"] = [NotFoundError("no such upload"), NotFoundError("no such upload")]

        assert mirror.run(mirror.file("f", LARGE)) == {"key%2Ff": "uploaded"}
        assert held(mirror, "f") == LARGE
        assert mirror.shelf.calls.count("begin") in {2, 3}

    def test_not_for_ever(self, mirror):
        mirror.shelf.faults["put_part"] = [NotFoundError("no such upload") for _ in range(40)]

        with pytest.raises(TransientError, match="again and again"):
            mirror.run(mirror.file("f", LARGE))

    def test_somebody_else_wrote_it_before_it_could_begin(self, mirror):
        mirror.run(mirror.file("g", LARGE))
        mirror.shelf.faults["begin"] = [RemoteChangedError("there is something")]
        mirror.shelf.objects["key%2Ff"] = mirror.shelf.objects["key%2Fg"]

        assert mirror.run(mirror.file("f", LARGE)) == {"key%2Ff": "present"}


class Forgetful(Shelf):
    """Loses an upload before it can be finished, once."""

    def finish(self, new, upload, parts):
        if self.calls.count("finish") == 0:
            self.uploads.clear()
        super().finish(new, upload, parts)


class Silent(Shelf):
    """Does not answer to what ends an upload."""

    def finish(self, new, upload, parts):
        super().finish(new, upload, parts)
        raise TransientError("no answer")
