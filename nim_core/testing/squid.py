"""A real forward proxy for tests: squid on the loopback, with or without a password, plain or behind TLS."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from nim_core.testing.certificates import Certificates

__all__ = ["USERINFO", "Squid", "squid"]

USERINFO: Final = "corp:p%40ss%3Aw%2Frd@"
"""What goes before the host in the URL of a proxy that wants a password."""

# openssl passwd -apr1 -salt nimtests 'p@ss:w/rd'
_PASSWORDS: Final = "corp:$apr1$nimtests$Z6iicKoJ.SXLo.Ck8Kwyy/\n"
_NCSA_AUTH: Final = Path("/usr/lib/squid/basic_ncsa_auth")
_START_SECONDS: Final = 20.0
_LOG_SECONDS: Final = 5.0
_LOG_DELAY_SECONDS: Final = 0.2

_CONFIG: Final = """
{listen}
acl tunnel method CONNECT
acl forbidden dst 127.0.0.3
{rules}
http_access deny forbidden
http_access allow all
cache deny all
cache_effective_user proxy
shutdown_lifetime 0 seconds
strip_query_terms off
pinger_enable off
pid_filename none
netdb_filename none
hosts_file {folder}/hosts
coredump_dir {folder}
logformat requests %rm %ru %>Hs
access_log stdio:{folder}/access.log logformat=requests
cache_log {folder}/cache.log
"""
_AUTH: Final = """
auth_param basic program {program} {folder}/passwords
acl known proxy_auth REQUIRED
http_access deny !known
"""


@frozen
class Squid:
    """A running squid, at ``host_port``; ``folder`` has its logs."""

    host_port: str
    folder: Path

    @property
    def log(self) -> str:
        """What has gone through, a line each: method and URL, or CONNECT and host."""
        return (self.folder / "access.log").read_text()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.host_port.rpartition(":")[2])

    @property
    def requests(self) -> list[tuple[str, ...]]:
        """Method, URL and status of each request; for a tunnel, CONNECT and host instead of the first two."""
        time.sleep(_LOG_DELAY_SECONDS)
        return [tuple(line.split()) for line in self.log.splitlines() if not line.startswith("- ")]

    def saw(self, text: str) -> bool:
        """Whether the log has ``text`` by now: squid writes it after it has answered."""
        deadline = time.monotonic() + _LOG_SECONDS
        while text not in self.log and time.monotonic() < deadline:
            time.sleep(0.02)
        return text in self.log


@contextlib.contextmanager
def squid(
    *,
    auth: bool = False,
    certificates: Certificates | None = None,
    hosts: Sequence[str] = (),
    rules: Sequence[str] = (),
) -> Iterator[Squid]:
    """
    Yield a running squid. It refuses to reach 127.0.0.3.

    Args:
        auth: Whether it wants the user and password of :data:`USERINFO`.
        certificates: To speak TLS with its clients. None: plain.
        rules: Lines of its configuration that come before all is allowed.
        hosts: Names for this machine that nobody else knows; what reaches them has not bypassed the proxy.

    Raises:
        FileNotFoundError: It is not installed; says how to.
        RuntimeError: It does not start.
    """
    executable = shutil.which("squid") or shutil.which("squid", path="/usr/sbin")
    if executable is None:
        raise FileNotFoundError("squid is not installed: apt-get install squid")
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as reserved:
        folder, port = Path(name), reserved.getsockname()[1]
        reserved.close()
        (folder / "hosts").write_text("".join(f"127.0.0.1 {host}\n" for host in ("localhost", *hosts)))
        auth_lines = [_AUTH.format(program=_NCSA_AUTH, folder=folder)] if auth else []
        _write_config(folder, port, rules=(*auth_lines, *rules), certificates=certificates)
        process = subprocess.Popen(  # noqa: S603 - found by its name, with our own configuration
            [executable, "-N", "-f", folder / "squid.conf"], stderr=subprocess.DEVNULL
        )
        try:
            _wait_for(port, process, folder)
            yield Squid(f"127.0.0.1:{port}", folder)
        finally:
            process.terminate()
            process.wait(10)


def _write_config(folder: Path, port: int, *, rules: Sequence[str], certificates: Certificates | None) -> None:
    listen = f"http_port 127.0.0.1:{port}"
    if certificates:
        for file in (certificates.certificate, certificates.key):
            shutil.copy(file, folder)
        listen = f"https_port 127.0.0.1:{port} tls-cert={folder}/server.pem tls-key={folder}/server.key"
    (folder / "passwords").write_text(_PASSWORDS)
    (folder / "squid.conf").write_text(_CONFIG.format(listen=listen, rules="\n".join(rules), folder=folder))
    if os.geteuid() == 0:  # squid drops to this user when it is started as root
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, "proxy")


def _wait_for(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"squid did not start: {(folder / 'cache.log').read_text()}")
