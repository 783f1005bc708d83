"""What receipts say is here, and when that is believed."""

from __future__ import annotations

import os

import pytest
from attrs import evolve

from nim_core.cache.index import ReceiptIndex
from nim_core.cache.layout import Layout
from nim_core.cache.receipts import Receipt, ReceiptFile, receipt_path, write_receipt
from nim_core.plan import Present, Wanted
from nim_core.testing.corpus import inline
from nim_core.types import Digest, ModelUri, UriStyle

DATA = b"the bytes of a model"
CONTENT = inline(DATA)
URI = ModelUri(scheme="test", location="org/name", revision="v1", file="model.bin")
SHA256, BLAKE3 = CONTENT.digest("sha256"), CONTENT.digest("blake3")


def known(layout, path="model.bin", *, data=DATA, uri=URI, digests=(BLAKE3, SHA256), place="r"):
    """Put a file into the cache by hand; return what a receipt says of it."""
    blob = layout.path / place / "blobs" / inline(data).digest("blake3").value
    link = layout.path / place / "snapshots" / "v1" / path
    for each in (blob, link):
        each.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(data)
    link.symlink_to(os.path.relpath(blob, link.parent))
    return ReceiptFile(
        path=path,
        uri=uri.identity,
        blob=layout.relative(blob),
        link=layout.relative(link),
        size=len(data),
        mtime_ns=blob.stat().st_mtime_ns,
        digests=digests,
        host="example.com",
    )


def write(layout, receipt_id, *files):
    receipt = Receipt(id=receipt_id, label=receipt_id, created="2025-06-15T12:00:00+00:00", plugins={}, files=files)
    write_receipt(layout, receipt)


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "cache")


@pytest.fixture
def file(layout):
    file = known(layout)
    write(layout, "p1", file)
    return file


def wanted(digest=None, uri=URI):
    return Wanted(path="model.bin", uri=uri, digest=digest)


class TestFind:
    def test_in_the_target_s_own_receipt(self, layout, file):
        assert ReceiptIndex(layout).find(wanted(), "p1") == file
        assert ReceiptIndex(layout).files_of("p1") == {URI.identity: file}

    def test_in_any_receipt(self, layout, file):
        assert ReceiptIndex(layout).find(wanted()) == file
        assert ReceiptIndex(layout).find(wanted(), "p2") == file

    def test_the_own_one_first(self, layout, file):
        other = evolve(file, size=99)
        write(layout, "p2", other)
        assert ReceiptIndex(layout).find(wanted(), "p1") == file
        assert ReceiptIndex(layout).find(wanted(), "p2") == other

    def test_another_one_when_the_own_one_is_of_another_content(self, layout, file):
        other = evolve(file, digests=(Digest("sha256", "0" * 64),))
        write(layout, "a", other)
        assert ReceiptIndex(layout).find(wanted(SHA256), "a") == file

    def test_nothing(self, layout, file):
        assert ReceiptIndex(layout).find(wanted(uri=evolve(URI, file="other"))) is None
        assert ReceiptIndex(layout).files_of("none") == {}

    @pytest.mark.parametrize(
        ("digest", "found"),
        [
            (None, True),
            (SHA256, True),
            (BLAKE3, True),
            (Digest("sha256", "0" * 64), False),
            (CONTENT.digest("md5"), False),
        ],
    )
    def test_only_what_was_seen_to_have_the_digest(self, layout, file, digest, found):
        assert ReceiptIndex(layout).find(wanted(digest), "p1") == (file if found else None)

    def test_damaged_receipts_are_none(self, layout, file):
        receipt_path(layout, "p1").write_text("{")
        assert ReceiptIndex(layout).find(wanted(), "p1") is None

    def test_userinfo_and_signatures_do_not_count(self, layout):
        with_password = ModelUri(scheme="http", location="u:pw@host/f", style=UriStyle.OBJECT)
        write(layout, "p1", known(layout, uri=with_password))
        without = evolve(with_password, location="host/f")
        assert ReceiptIndex(layout).find(wanted(uri=without)) is not None
        assert "pw" not in receipt_path(layout, "p1").read_text()


class TestTrusted:
    def test_an_untouched_file(self, layout, file):
        assert ReceiptIndex(layout).trusted(wanted(SHA256), "p1") == Present(
            identity=URI,
            blob=layout.path / file.blob,
            link=layout.path / file.link,
            size=len(DATA),
            mtime_ns=file.mtime_ns,
            digests=file.digests,
            host="example.com",
        )

    def test_it_is_not_read(self, layout, file):
        """Content that has changed with size and time restored is believed: that is the price of a fast start."""
        blob = layout.path / file.blob
        blob.write_bytes(DATA[::-1])
        os.utime(blob, ns=(file.mtime_ns, file.mtime_ns))
        assert ReceiptIndex(layout).trusted(wanted(SHA256), "p1") is not None

    def test_a_copy_of_the_cache_with_other_times_is_read_once(self, layout, file):
        os.utime(layout.path / file.blob, ns=(5, 5))
        present = ReceiptIndex(layout).trusted(wanted(SHA256), "p1")
        assert (present.mtime_ns, present.digests) == (5, file.digests)

    @pytest.mark.parametrize("data", [DATA[::-1], b"", DATA + b"x", DATA[:-1]])
    def test_another_content(self, layout, file, data):
        (layout.path / file.blob).write_bytes(data)
        assert ReceiptIndex(layout).trusted(wanted(SHA256), "p1") is None

    def test_another_time_and_no_digest_to_hold_on_to(self, layout):
        file = known(layout, digests=())
        write(layout, "p1", file)
        assert ReceiptIndex(layout).trusted(wanted(), "p1") is not None
        os.utime(layout.path / file.blob, ns=(5, 5))
        assert ReceiptIndex(layout).trusted(wanted(), "p1") is None

    @pytest.mark.parametrize("gone", ["blob", "link"])
    def test_something_is_gone(self, layout, file, gone):
        (layout.path / getattr(file, gone)).unlink()
        assert ReceiptIndex(layout).trusted(wanted(), "p1") is None

    def test_a_link_that_leads_to_another_content_now(self, layout, file):
        link = layout.path / file.link
        other = link.parents[2] / "blobs" / "other"
        other.write_bytes(DATA[::-1])
        link.unlink()
        link.symlink_to("../../blobs/other")
        assert ReceiptIndex(layout).trusted(wanted(), "p1") is None

    def test_a_link_in_a_circle(self, layout, file):
        link = layout.path / file.link
        link.unlink()
        link.symlink_to(link.name)
        assert ReceiptIndex(layout).trusted(wanted(), "p1") is None

    def test_a_file_of_somebody_else_s(self, layout, tmp_path):
        mine = tmp_path / "mine.bin"
        mine.write_bytes(DATA)
        file = evolve(known(layout), blob=str(mine), link=None, mtime_ns=mine.stat().st_mtime_ns)
        write(layout, "p1", file)
        present = ReceiptIndex(layout).trusted(wanted(), "p1")
        assert (present.blob, present.link) == (mine, None)
        mine.write_bytes(DATA[::-1])
        os.utime(mine, ns=(5, 5))
        assert ReceiptIndex(layout).trusted(wanted(), "p1") is None

    def test_a_moved_cache(self, layout, file, tmp_path):
        layout.path.rename(tmp_path / "moved")
        moved = Layout(tmp_path / "moved")
        assert ReceiptIndex(moved).trusted(wanted(SHA256), "p1").blob == moved.path / file.blob
