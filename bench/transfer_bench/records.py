"""The values that the modules of this benchmark hand to each other."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import field, frozen

__all__ = ["Command", "Content", "Endpoint", "Failed", "Mode", "S3Access", "Sample", "Sizes", "Skipped", "Task"]

MIB = 1 << 20
GIB = 1 << 30


class Skipped(Exception):  # noqa: N818 - no error: the report names the reason
    """A case or a contestant cannot be measured here; the message says why."""


class Failed(Exception):  # noqa: N818 - see above
    """A contestant did not bring what it was sent for; the message is the last thing it said."""


class Mode(enum.Enum):
    """What a contestant finds: nothing, the remains of a killed run, or everything."""

    FRESH = "fresh"
    RESUME = "resume"
    WARM = "warm"


@frozen(kw_only=True)
class Sizes:
    """
    How much is transferred.

    Attributes:
        one: Bytes of the large file.
        shards: Number of shards, of ``shard`` bytes each.
        small: Number of small files, of ``small_bytes`` each.
        far: Bytes of the file that comes over the slow link, ``far_small`` the number of small ones.
        warm: Number of files of a warm start, of ``warm_bytes`` each.
    """

    one: int = 4 * GIB
    shards: int = 30
    shard: int = 128 * MIB
    small: int = 5000
    small_bytes: int = 8192
    far: int = 512 * MIB
    far_small: int = 500
    warm: int = 100
    warm_bytes: int = 65536


@frozen(kw_only=True)
class Content:
    """A file that the servers serve; digests by algorithm, in hex."""

    name: str
    path: Path
    size: int
    digests: Mapping[str, str]


@frozen(kw_only=True)
class S3Access:
    """
    How S3 clients reach the store.

    Attributes:
        endpoint: Address over plain HTTP.
        variables: Credentials and region, as the tools read them.
        bucket: Bucket with the files.
        signed: Presigned URLs by name; empty when the files are read without a signature.
        tls_endpoint: Address with TLS on the port that the CRT insists on. None when that is not possible.
        tls_reason: Why not.
    """

    endpoint: str
    variables: Mapping[str, str]
    bucket: str
    signed: Mapping[str, str]
    tls_endpoint: str | None = None
    tls_reason: str = ""


def _nothing() -> tuple[int, ...]:
    return ()


@frozen(kw_only=True)
class Endpoint:
    """
    Where the files of a case are served.

    Attributes:
        base: What a file's name is appended to.
        ca: Authority to trust. None for plain HTTP.
        s3: Set where the server is an object store.
        hub: Address for Hub clients. None when the server is none.
        inside: What a command has to be started with to reach it.
        log: Access log. None when there is none.
        pids: Returns the processes of the server.
    """

    base: str
    ca: Path | None = None
    s3: S3Access | None = None
    hub: str | None = None
    inside: tuple[str, ...] = ()
    log: Path | None = None
    pids: Callable[[], tuple[int, ...]] = _nothing


@frozen(kw_only=True)
class Task:
    """
    What a contestant has to do.

    Attributes:
        folder: Where files go; the command's working directory.
        scratch: For lists and manifests, written before the clock starts.
        tools: Programs by name.
    """

    files: tuple[Content, ...]
    endpoint: Endpoint
    folder: Path
    scratch: Path
    tools: Mapping[str, Path]
    mode: Mode = Mode.FRESH

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(content.size for content in self.files)

    def url(self, content: Content) -> str:
        """Return the address of one file."""
        s3 = self.endpoint.s3
        return (s3.signed.get(content.name) if s3 else None) or self.endpoint.base + content.name


@frozen(kw_only=True)
class Command:
    """A command line and what it needs in its environment."""

    arguments: tuple[str, ...]
    variables: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class Sample:
    """
    One measured run.

    Attributes:
        wall: Seconds from start to end.
        cpu: Seconds of user and system time of the process and its children.
        rss: Peak resident memory of the largest process, in bytes.
        others: CPU-seconds that neither the contestant nor the server took meanwhile.
        extra: Figures of a special case by name.
    """

    wall: float
    cpu: float
    rss: int
    others: float = 0.0
    extra: Mapping[str, float] = field(factory=dict)
