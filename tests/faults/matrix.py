"""Every way an origin may misbehave, what may come of it, and the page that says what does."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from attrs import frozen

from nim_core import errors
from nim_core.testing import bad_answers as bad
from nim_core.testing.certificates import make_certificates
from nim_core.testing.corpus import Content, PatternContent
from nim_core.testing.faults import Fault
from nim_core.testing.http_server import HttpOrigin, Request, RequestLog
from nim_core.testing.misbehaving import (
    MisbehavingFiles,
    Script,
    after,
    always,
    expiring,
    in_turn,
    never_accepting,
    refusing,
    well_behaved,
)
from tests.faults.downloads import RIGHT

__all__ = ["CELLS", "OBSERVED", "ROWS", "Cell", "Row", "page"]


@frozen(kw_only=True)
class Cell:
    """
    A column of the table.

    Attributes:
        name: Its heading.
        size: Bytes of the file; a large one has a part and a bit.
        ranges: What the source says of ranges; False makes the file come as one stream.
        listed: Whether the listing has the size; a file listed as empty would not be asked for at all.
    """

    name: str
    size: int
    ranges: bool | None
    listed: bool = True

    @property
    def content(self) -> Content:
        return PatternContent(length=self.size)


CELLS = (
    Cell(name="small, one stream", size=100_000, ranges=False),
    Cell(name="small, ranges", size=100_000, ranges=None),
    Cell(name="large, one stream", size=33 << 20, ranges=False),
    Cell(name="large, parts", size=33 << 20, ranges=None),
    Cell(name="empty, one stream", size=0, ranges=False, listed=False),
    Cell(name="empty, ranges", size=0, ranges=None, listed=False),
)


@frozen(kw_only=True)
class Row:
    """
    A row of the table.

    Attributes:
        name: What the origin does, and when.
        script: Makes the script for a file of so many bytes.
        errors: What it may lead to besides the right bytes; anything else is a bug.
        elsewhere: Where files are, when not at the origin of the listing.
        retries: How often each part is tried again.
    """

    name: str
    script: Callable[[int], Script] = lambda _size: well_behaved
    errors: frozenset[str] = frozenset()
    elsewhere: Callable[[], contextlib.AbstractContextManager[str | None]] = contextlib.nullcontext
    retries: int = 1


OBSERVED: dict[str, list[str]] = {}
"""Outcomes of the rows that have been run, one for each column."""

STALLED, TRANSIENT, UNSUPPORTED = "StalledError", "TransientError", "UnsupportedError"
SIZE, DIGEST, CHANGED = "SizeMismatchError", "DigestMismatchError", "RemoteChangedError"
SOURCE, LIMITED, NOT_FOUND = "SourceError", "RateLimitedError", "NotFoundError"
NOT_SIGNED_IN, DENIED = "AuthenticationError", "PermissionDeniedError"
FOR_EVER = float("inf")

PASSING: tuple[tuple[str, Callable[[int], Fault], tuple[str, ...]], ...] = (
    ("closes without an answer", lambda _: bad.no_answer(), (TRANSIENT,)),
    ("resets without an answer", lambda _: bad.reset_at_once(), (TRANSIENT,)),
    ("answers something other than HTTP", lambda _: bad.not_http(), (TRANSIENT,)),
    ("says nothing", lambda _: bad.late(FOR_EVER), (STALLED,)),
    ("cuts before the first byte", lambda _: bad.cut(0), (TRANSIENT,)),
    ("cuts in the middle", lambda size: bad.cut(size // 2), (TRANSIENT,)),
    ("resets before the first byte", lambda _: bad.reset(0), (TRANSIENT,)),
    ("resets in the middle", lambda size: bad.reset(size // 2), (TRANSIENT,)),
    ("stalls before the first byte", lambda _: bad.stall(0), (STALLED,)),
    ("stalls in the middle", lambda size: bad.stall(size // 2), (STALLED,)),
    ("sends 10 bytes per second", lambda _: bad.trickle(10), (STALLED,)),
    ("sends chunks without a length", lambda _: bad.chunked(), ()),
    ("tells the end by closing", lambda _: bad.close_delimited(), ()),
    ("sends broken chunks", lambda _: bad.broken_chunks(), (TRANSIENT, UNSUPPORTED, SIZE)),
    ("sends a header of 1 MiB", lambda _: bad.huge_header(1 << 20), (SOURCE, TRANSIENT)),
    ("sends 50,000 headers", lambda _: bad.many_headers(50_000), (SOURCE, TRANSIENT)),
    ("sends 7 bytes too few", lambda _: bad.short_body(7), (TRANSIENT, SIZE)),
    ("sends 7 bytes too many", lambda _: bad.long_body(7), (TRANSIENT, SIZE, DIGEST)),
    ("sends 7 bytes more than announced", lambda _: bad.overrun(7), (TRANSIENT,)),
    ("sends a wrong byte", lambda size: bad.wrong_bytes(size // 2), (DIGEST,)),
    ("compresses unasked", lambda _: bad.gzipped(), (UNSUPPORTED,)),
    ("ignores ranges", lambda _: bad.whole_file(), ()),
    ("answers a range 7 bytes on", lambda _: bad.shifted_range(7), (TRANSIENT,)),
    ("gives another total", lambda _: bad.other_total(7), (SIZE,)),
    ("does not say which range", lambda _: bad.no_content_range(), (TRANSIENT,)),
    ("answers a range in several parts", lambda _: bad.multipart_range(), (TRANSIENT,)),
    ("has another version", lambda _: bad.other_version(), (DIGEST, CHANGED)),
    ("has another entity tag", lambda _: bad.other_etag(), ()),
    *((f"answers {code}", lambda _, code=code: bad.status(code), (TRANSIENT,)) for code in (408, 425)),
    *((f"answers {code}", lambda _, code=code: bad.status(code), (TRANSIENT,)) for code in (500, 502, 503, 504)),
    ("answers 429", lambda _: bad.status(429), (LIMITED,)),
    ("answers 400", lambda _: bad.status(400), (SOURCE,)),
    ("answers 401", lambda _: bad.status(401), (NOT_SIGNED_IN,)),
    ("answers 403", lambda _: bad.status(403), (DENIED,)),
    ("answers 404", lambda _: bad.status(404), (NOT_FOUND,)),
    ("answers 410", lambda _: bad.status(410), (NOT_FOUND,)),
    ("answers 416", lambda _: bad.status(416), (UNSUPPORTED,)),
)
"""Faults that a client gets over when they pass; with what may come of them when they do not."""

FINAL = {402: "EntitlementError", 412: "LicenseError", 418: SOURCE, 451: "RegionBlockedError"}


# ------------------------------------------------------------------------------------------------------ other scripts
def _redirecting(location: Callable[[Request], str], code: int = 302) -> Script:
    """Send requests on, once each: what has been sent on has ``moved`` as its query."""

    def script(request: Request, _number: int) -> Fault | None:
        return None if request.query.endswith("moved") else bad.redirect(location(request), code)

    return script


def _at_localhost(request: Request) -> str:
    port = (request.header("Host") or "").rpartition(":")[2]
    return f"http://localhost:{port}{request.raw_path}?moved"


def _new_tag_each_time(_request: Request, number: int) -> Fault:
    return bad.other_etag(f'"{number}"')


@contextlib.contextmanager
def _endless_handshake() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name:
        certificates = make_certificates(Path(name))
        nobody = MisbehavingFiles({})
        with HttpOrigin(
            "tls", nobody, log=RequestLog(), certificates=certificates, keep_waiting=lambda _: FOR_EVER
        ) as origin:
            yield origin.url


@contextlib.contextmanager
def _untrusted() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name:
        certificates = make_certificates(Path(name))
        with HttpOrigin("tls", MisbehavingFiles({}), log=RequestLog(), certificates=certificates) as origin:
            yield origin.url


def _script(script: Script) -> Callable[[int], Script]:
    return lambda _size: script


def _rows() -> Iterator[Row]:
    yield Row(name="behaves")
    yield Row(name="refuses connections", errors=frozenset({TRANSIENT}), elsewhere=refusing)
    yield Row(name="never accepts a connection", errors=frozenset({STALLED}), elsewhere=never_accepting)
    yield Row(name="never ends its TLS handshake", errors=frozenset({STALLED}), elsewhere=_endless_handshake)
    yield Row(name="has a certificate nobody vouches for", errors=frozenset({SOURCE}), elsewhere=_untrusted)
    for name, fault, worst in PASSING:
        yield Row(name=f"{name}, once", script=lambda size, fault=fault: in_turn(fault(size)))
        yield Row(name=f"{name}, always", script=lambda size, fault=fault: always(fault(size)), errors=frozenset(worst))
    for code, error in FINAL.items():
        yield Row(name=f"answers {code}", script=_script(in_turn(bad.status(code))), errors=frozenset({error}))
    for form in bad.WAIT_FORMS:
        yield Row(name=f"answers 429 with {form}, once", script=_script(in_turn(bad.rate_limited(form))))
    yield from _longer_stories()
    yield from _redirects()


def _longer_stories() -> Iterator[Row]:
    expiry = frozenset({DENIED, NOT_SIGNED_IN})
    yield Row(name="refuses a URL used once with 403", script=lambda _: expiring(1, 403), errors=expiry)
    yield Row(name="refuses a URL used once with 401", script=lambda _: expiring(1, 401), errors=expiry)
    yield Row(
        name="asks to wait for a day",
        script=_script(always(bad.rate_limited("seconds", 86_400))),
        errors=frozenset({LIMITED}),
    )
    yield Row(name="answers 503 three times", script=_script(in_turn(*[bad.status(503)] * 3)), retries=3)
    yield Row(name="cuts in the middle three times", script=lambda size: in_turn(*[bad.cut(size // 2)] * 3), retries=3)
    yield Row(
        name="replaces the file after the first answer",
        script=_script(after(1, bad.other_version())),
        errors=frozenset({DIGEST, CHANGED}),
    )
    yield Row(name="has another entity tag after the first answer", script=_script(after(1, bad.other_etag())))
    yield Row(
        name="has another entity tag in each answer", script=_script(_new_tag_each_time), errors=frozenset({CHANGED})
    )
    yield Row(
        name="stalls, cuts, lies and then behaves",
        script=lambda size: in_turn(bad.stall(size // 3), bad.cut(size // 2), bad.wrong_bytes(size // 4)),
        retries=3,
    )


def _redirects() -> Iterator[Row]:
    refused = frozenset({SOURCE})
    targets: tuple[tuple[str, Callable[[Request], str], frozenset[str]], ...] = (
        ("to another host", _at_localhost, frozenset()),
        ("to a relative path", lambda request: f"../model/{request.raw_path.rpartition('/')[2]}?moved", frozenset()),
        ("to a query", lambda _: "?moved", frozenset()),
        ("in a circle", lambda _: "?again", refused),
        ("to a metadata address", lambda _: "http://169.254.169.254/latest/meta-data/", refused),
        ("to ftp", lambda _: "ftp://127.0.0.1/f", refused),
        ("to a file of this machine", lambda _: "file:///etc/passwd", refused),
        ("to nowhere", lambda _: "", refused),
        ("to something that is no URL", lambda _: "http://[::1", refused),
    )
    for name, location, worst in targets:
        yield Row(name=f"redirects {name}", script=_script(_redirecting(location)), errors=worst)


ROWS = tuple(_rows())


# ------------------------------------------------------------------------------------------------------------ the page
HEAD = """# What becomes of a download when the origin misbehaves

<!-- Made by `NIM_TEST_FAULTS=write pytest tests/faults/test_matrix.py`; do not edit. -->

Observed, not intended: each cell is the outcome of a real download, from the listing to the receipt, of one file from
an origin on this machine that does what the row says. `ok` is the right bytes, published with a receipt. Otherwise the
error, whose [exit code](reference/exit-codes.md) tells a script what happened; nothing is visible then, and the same
download from an origin that behaves succeeds. Requests were tried again once, three times where the row has three
faults, and idle connections given up after two seconds.

Small files have {small:,} bytes. Large ones have {large:,}, a part and a bit. The size of empty ones is not in the
listing, as a file listed as empty is not asked for. Where the source says that there are no ranges, a file comes as one
stream.
"""


def page(observed: Mapping[str, list[str]]) -> str:
    """Return the page for outcomes by the names of rows."""
    head = HEAD.format(small=CELLS[0].size, large=CELLS[2].size)
    titles = ["the origin ...", *(cell.name for cell in CELLS)]
    lines = [titles, ["---"] * len(titles), *([f"... {name}", *map(_cell, cells)] for name, cells in observed.items())]
    return head + "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(outcome: str) -> str:
    return "ok" if outcome == RIGHT else f"`{outcome}`"


def documented() -> frozenset[str]:
    """Return the names of all errors that core declares."""
    return frozenset(errors.__all__)
