"""What the cache is known to have: the receipts, looked up by URI."""

from __future__ import annotations

from nim_core.cache.layout import Layout
from nim_core.cache.receipts import ReceiptFile, read_receipt, receipt_path, receipts_of
from nim_core.plan import Present, Wanted
from nim_core.types import Digest

__all__ = ["ReceiptIndex"]


class ReceiptIndex:
    """
    Looks files up in receipts: in the target's own first, in all of them when that does not do.

    Args:
        layout: The cache.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._own: dict[str, dict[str, ReceiptFile]] = {}
        self._all: dict[str, ReceiptFile] | None = None

    def files_of(self, receipt_id: str) -> dict[str, ReceiptFile]:
        """Return the files of one receipt by URI; empty when there is none."""
        if receipt_id not in self._own:
            receipt = read_receipt(receipt_path(self._layout, receipt_id))
            self._own[receipt_id] = {file.uri: file for file in receipt.files} if receipt else {}
        return self._own[receipt_id]

    def find(self, wanted: Wanted, receipt_id: str | None = None) -> ReceiptFile | None:
        """Return what is known about a file. None when nothing is, or something else than what is wanted."""
        uri = wanted.uri.identity
        own = self.files_of(receipt_id).get(uri) if receipt_id is not None else None
        if own is not None and _promises(own.digests, wanted.digest):
            return own
        other = self._every().get(uri)
        return other if other is not None and _promises(other.digests, wanted.digest) else None

    def trusted(self, wanted: Wanted, receipt_id: str | None = None) -> Present | None:
        """
        Return a file that is still what was verified.

        Size and time of last change say so without reading it; where only that time differs, as after ``cp -r``, its
        content does.
        """
        file = self.find(wanted, receipt_id)
        present = None if file is None else self.present(wanted, file)
        if file is None or present is None:
            return None
        return present if present.mtime_ns == file.mtime_ns or _is_still(file, present) else None

    def present(self, wanted: Wanted, file: ReceiptFile) -> Present | None:
        """Return a file of a receipt as it is on disk now. None when it is gone or has another size."""
        blob = self._layout.path / file.blob
        link = None if file.link is None else self._layout.path / file.link
        try:
            stat = (link or blob).stat()
        except OSError:
            return None
        if stat.st_size != file.size:
            return None
        return Present(
            identity=wanted.uri,
            blob=blob,
            link=link,
            size=file.size,
            mtime_ns=stat.st_mtime_ns,
            digests=file.digests,
            host=file.host,
        )

    def _every(self) -> dict[str, ReceiptFile]:
        if self._all is None:
            self._all = {file.uri: file for receipt in receipts_of(self._layout) for file in receipt.files}
        return self._all


def _promises(digests: tuple[Digest, ...], wanted: Digest | None) -> bool:
    """Whether content seen to have ``digests`` is what is wanted; an algorithm not seen leaves that open."""
    if wanted is None:
        return True
    seen = {digest.algorithm: digest for digest in digests}
    return seen.get(wanted.algorithm) == wanted


def _is_still(file: ReceiptFile, present: Present) -> bool:
    from nim_core.transfer.streams import digest_file  # brings libcurl, which an untouched cache does without

    known = file.digests[:1]
    try:
        return bool(known) and known[0] in digest_file(present.link or present.blob, known, lambda: False)[1]
    except OSError:
        return False
