"""Receipts: written whole or not at all, and read back as they were or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nim_core.cache.layout import Layout
from nim_core.cache.receipts import Receipt, ReceiptFile, read_receipt, receipt_path, receipts_of, write_receipt
from nim_core.errors import CacheError, CachePermissionError, ConfigError, DiskFullError
from nim_core.types import Digest

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)

FILE = ReceiptFile(
    path="données/a b.txt",
    uri="test://org/name:v1?file=données/a b.txt",
    blob="test/hub/models--org--name/blobs/abc",
    link="test/hub/models--org--name/snapshots/v1/données/a b.txt",
    size=7,
    mtime_ns=1_750_000_000_123_456_789,
    digests=(Digest("blake3", "1" * 64), Digest("crc32c", "2" * 8)),
    host="example.com",
)
OUTSIDE = ReceiptFile(path="m", uri="local:///m", blob="/models/m", link=None, size=0, mtime_ns=0, digests=())
RECEIPT = Receipt(
    id="p1",
    label="größer",
    created="2025-06-15T12:00:00+00:00",
    plugins={"nim-source-test": "1.0"},
    files=(FILE, OUTSIDE),
)


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "cache")


def names(layout):
    return sorted(path.name for path in layout.receipts.iterdir())


class TestRoundTrip:
    def test_what_was_written_is_read(self, layout):
        path = write_receipt(layout, RECEIPT)
        assert path == receipt_path(layout, "p1") == layout.receipts / "p1.json"
        assert read_receipt(path) == RECEIPT

    @unhurried
    @given(text=st.text(max_size=10), size=st.integers(0, 1 << 63))
    def test_any_text_and_size(self, layout, text, size):
        receipt = evolve(RECEIPT, label=text, files=(evolve(FILE, uri=text, size=size, host=text),))
        assert read_receipt(write_receipt(layout, receipt)) == receipt

    @pytest.mark.parametrize("text", ["\ud800", "a\udcffb", "\0"])
    def test_text_that_no_encoding_has(self, layout, text):
        """Bytes in a path that are no UTF-8, or half a pair in a manifest's JSON."""
        receipt = evolve(RECEIPT, label=text)
        assert read_receipt(write_receipt(layout, receipt)) == receipt

    def test_a_later_one_replaces_it(self, layout):
        write_receipt(layout, RECEIPT)
        later = evolve(RECEIPT, files=())
        assert read_receipt(write_receipt(layout, later)) == later
        assert names(layout) == ["p1.json"]

    def test_the_file_on_disk(self, layout):
        value = json.loads(write_receipt(layout, RECEIPT).read_text(encoding="utf-8"))
        assert value["format"] == 1
        assert value["files"][0]["digests"] == {"blake3": "1" * 64, "crc32c": "2" * 8}
        assert value["files"][1]["link"] is None

    @pytest.mark.parametrize("receipt_id", ["", "a/b", "../x", "a b", "a\n", "ä", "x" * 129])
    def test_ids_that_are_no_file_names(self, layout, receipt_id):
        with pytest.raises(ConfigError, match="not a receipt id"):
            receipt_path(layout, receipt_id)


class TestReading:
    def test_none(self, layout):
        assert read_receipt(layout.receipts / "p1.json") is None
        assert list(receipts_of(layout)) == []

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\0" * 100,
            b"not json",
            b"null",
            b"[]",
            b"7",
            b"{}",
            b"\xff\xfe\x00",
            b'{"format": 1}',
            b'{"format": 2, "id": "p1", "label": "", "created": "", "plugins": {}, "files": []}',
            b'{"format": 1, "id": "p1", "label": "", "created": "", "plugins": [], "files": []}',
            b'{"format": 1, "id": "p1", "label": "", "created": "", "plugins": {}, "files": {}, "x": 1',
            b'{"format": 1, "id": "p1", "label": "", "created": "", "plugins": {}, "files": 5}',
            b'{"format": 1, "id": "p1", "label": "", "created": "", "plugins": {}, "files": ["a"]}',
        ],
    )
    def test_what_is_no_receipt(self, layout, content):
        write_receipt(layout, RECEIPT).write_bytes(content)
        assert read_receipt(layout.receipts / "p1.json") is None
        assert list(receipts_of(layout)) == []

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("size", "many"),
            ("size", None),
            ("size", 1e999),
            ("mtime_ns", []),
            ("digests", []),
            ("digests", {"sha256": "short"}),
            ("digests", {"md99": "1" * 64}),
            ("digests", {"blake3": 5}),
        ],
    )
    def test_a_file_that_is_none(self, layout, key, value):
        path = write_receipt(layout, RECEIPT)
        changed = json.loads(path.read_text())
        changed["files"][0][key] = value
        path.write_text(json.dumps(changed))
        assert read_receipt(path) is None

    @pytest.mark.parametrize("key", ["path", "uri", "blob", "link", "size", "mtime_ns", "digests", "host"])
    def test_a_file_that_lacks_something(self, layout, key):
        path = write_receipt(layout, RECEIPT)
        changed = json.loads(path.read_text())
        del changed["files"][0][key]
        path.write_text(json.dumps(changed))
        assert read_receipt(path) is None

    @unhurried
    @given(JSON, st.sampled_from(["id", "label", "created", "plugins", "files", "format"]))
    def test_no_content_is_an_error(self, layout, value, key):
        path = write_receipt(layout, RECEIPT)
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
        found = read_receipt(path)
        assert found is None or isinstance(found, Receipt)

    def test_all_of_them_by_name_without_the_damaged(self, layout):
        for name in ("c", "a", "b"):
            write_receipt(layout, evolve(RECEIPT, id=name))
        receipt_path(layout, "b").write_text("{")
        (layout.receipts / ".123.tmp").write_text("{")
        (layout.receipts / "README").write_text("hello")
        assert [receipt.id for receipt in receipts_of(layout)] == ["a", "c"]

    def test_a_folder_instead(self, layout):
        (layout.receipts / "p1.json").mkdir(parents=True)
        assert read_receipt(layout.receipts / "p1.json") is None


class TestWriting:
    def test_readers_never_see_half_of_one(self, layout):
        receipts = [evolve(RECEIPT, label=str(number), files=(FILE,) * 50 * (number + 1)) for number in range(2)]
        path = write_receipt(layout, receipts[0])
        stop, seen = threading.Event(), []

        def read():
            while not stop.is_set():
                seen.append(read_receipt(path))

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(60):
            write_receipt(layout, receipts[number % 2])
        stop.set()
        reader.join()
        assert len(seen) > 1
        assert all(receipt in receipts for receipt in seen)

    def test_a_folder_in_the_way_leaves_nothing_behind(self, layout):
        (layout.receipts / "p1.json").mkdir(parents=True)
        with pytest.raises(CacheError):
            write_receipt(layout, RECEIPT)
        assert names(layout) == ["p1.json"]

    def test_a_failure_leaves_the_old_one(self, layout, monkeypatch):
        write_receipt(layout, RECEIPT)

        def refuse(_handle):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(DiskFullError, match="no space left on device"):
            write_receipt(layout, evolve(RECEIPT, files=()))
        assert read_receipt(layout.receipts / "p1.json") == RECEIPT
        assert names(layout) == ["p1.json"]

    def test_a_planted_link_is_replaced_and_not_followed(self, layout, tmp_path):
        precious = tmp_path / "precious"
        precious.write_text("precious")
        layout.receipts.mkdir(parents=True)
        (layout.receipts / "p1.json").symlink_to(precious)
        write_receipt(layout, RECEIPT)
        assert precious.read_text() == "precious"
        assert read_receipt(layout.receipts / "p1.json") == RECEIPT

    def test_a_planted_folder_is_not_followed(self, layout, tmp_path):
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        layout.path.mkdir()
        layout.receipts.symlink_to(elsewhere)
        with pytest.raises(CacheError):
            write_receipt(layout, RECEIPT)
        assert list(elsewhere.iterdir()) == []

    def test_a_read_only_volume(self, layout):
        """A mount refuses even to remove what is not there, which must not hide the reason."""
        write_receipt(layout, RECEIPT)
        ended = on_read_only_mount(layout.path, WRITE_AGAIN, str(layout.path))
        assert ended.stderr == ""
        assert ended.stdout == f"{CachePermissionError.__name__}\n"


WRITE_AGAIN = """
import sys
from pathlib import Path
from attrs import evolve
from nim_core.cache.layout import Layout
from nim_core.cache.receipts import read_receipt, receipt_path, write_receipt
from nim_core.errors import CacheError
layout = Layout(Path(sys.argv[1]))
receipt = read_receipt(receipt_path(layout, "p1"))
try:
    write_receipt(layout, evolve(receipt, label="other"))
except CacheError as exc:
    print(type(exc).__name__)
"""


def on_read_only_mount(folder, script, *arguments):
    """Run a program for which ``folder`` is a volume mounted read-only, in a mount namespace of its own."""
    unshare = shutil.which("unshare")
    if os.getuid() != 0 or unshare is None:
        pytest.skip("only root can mount")
    mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    command = [unshare, "--mount", "sh", "-c", mount, folder, sys.executable, "-c", script, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if "mount:" in ended.stderr or "unshare:" in ended.stderr:
        pytest.skip("mounting is not allowed here")
    return ended
