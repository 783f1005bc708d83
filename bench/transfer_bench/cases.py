"""What is measured, where, and against whom."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from attrs import frozen

from transfer_bench.contestants import OURS, OURS_SHA256
from transfer_bench.records import Mode, Sizes

__all__ = ["CASES", "Case", "amount"]


@frozen(kw_only=True)
class Case:
    """
    One case.

    Attributes:
        files: Which files, see :func:`amount`.
        server: ``plain``, ``logged``, ``capped``, ``tls``, ``far`` or ``s3``.
        contestants: Names, in the order in which each round has them.
        mode: What they find when they start.
    """

    name: str
    title: str
    files: str
    server: str
    contestants: tuple[str, ...]
    mode: Mode = Mode.FRESH


def amount(files: str, sizes: Sizes) -> tuple[int, int]:
    """Return number and size of the files that a case is about."""
    return {
        "one": (1, sizes.one),
        "shard": (sizes.shards, sizes.shard),
        "small": (sizes.small, sizes.small_bytes),
        "far": (1, sizes.far),
        "far-small": (sizes.far_small, sizes.small_bytes),
        "warm": (sizes.warm, sizes.warm_bytes),
    }[files]


_BOTH: Final = (OURS, OURS_SHA256)
_STORE: Final = (OURS, "s5cmd", "rclone", "boto3", "boto3 CRT", "aws")
_ALL: Final = (
    Case(
        name="one",
        title="one large file",
        files="one",
        server="plain",
        contestants=(*_BOTH, "curl", "curl --parallel", "curl, sha256sum", "curl, fsync", "aria2c", "hf"),
    ),
    Case(
        name="tls",
        title="one large file over TLS 1.3, private CA",
        files="one",
        server="tls",
        contestants=(*_BOTH, "curl", "curl --parallel", "curl, sha256sum", "aria2c"),
    ),
    Case(
        name="cap",
        title="one large file, each connection capped at 50 MiB/s",
        files="one",
        server="capped",
        contestants=(OURS, "curl", "curl --parallel", "aria2c"),
    ),
    Case(
        name="resume",
        title="one large file, killed with SIGKILL on the way, the rest",
        files="one",
        server="logged",
        contestants=(OURS, "curl", "aria2c"),
        mode=Mode.RESUME,
    ),
    Case(name="s3-one", title="one large file from an object store", files="one", server="s3", contestants=_STORE),
    Case(
        name="shards",
        title="shards",
        files="shard",
        server="plain",
        contestants=(*_BOTH, "curl", "curl --parallel", "curl, sha256sum", "aria2c", "hf"),
    ),
    Case(name="s3-shards", title="shards from an object store", files="shard", server="s3", contestants=_STORE),
    Case(
        name="small",
        title="many small files",
        files="small",
        server="plain",
        contestants=(OURS, "curl --parallel", "aria2c", "hf"),
    ),
    Case(
        name="s3-small",
        title="many small files from an object store",
        files="small",
        server="s3",
        contestants=(OURS, "s5cmd", "rclone"),
    ),
    Case(
        name="latency",
        title="one file over 50 ms of round trip",
        files="far",
        server="far",
        contestants=(OURS, "curl", "curl --parallel", "aria2c"),
    ),
    Case(
        name="latency-small",
        title="small files over 50 ms of round trip",
        files="far-small",
        server="far",
        contestants=(OURS, "curl --parallel", "aria2c"),
    ),
    Case(
        name="warm",
        title="warm start",
        files="warm",
        server="plain",
        contestants=(OURS, "hf", "python -c pass"),
        mode=Mode.WARM,
    ),
)
CASES: Final = MappingProxyType({case.name: case for case in _ALL})
