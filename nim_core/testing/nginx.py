"""A real web server for tests: nginx on the loopback, plain or with TLS, open or behind a password."""

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

__all__ = ["AUTH", "USERINFO", "Nginx", "WebRequest", "nginx"]

# openssl passwd -apr1 -salt nimtests 'p@ss:w/rd'
_PASSWORDS: Final = "models:$apr1$nimtests$Z6iicKoJ.SXLo.Ck8Kwyy/\n"
USERINFO: Final = "models:p%40ss%3Aw%2Frd@"
"""What goes before the host in the URL of a server that wants a password."""

AUTH: Final = "auth_basic models; auth_basic_user_file FOLDER/passwords;"
"""A rule that wants the user and password of :data:`USERINFO`."""

_START_SECONDS: Final = 10.0
_CONFIG: Final = """
daemon off;
pid FOLDER/pid;
error_log FOLDER/error.log;
user OWNER;
events {}
http {
  log_format requests '$request_method $request_uri $status $http_authorization';
  access_log FOLDER/access.log requests;
  client_body_temp_path FOLDER/t1; proxy_temp_path FOLDER/t2; fastcgi_temp_path FOLDER/t3;
  uwsgi_temp_path FOLDER/t4; scgi_temp_path FOLDER/t5;
  server {
    listen 127.0.0.1:PORT LISTEN;
    root FILES;
    RULES
  }
}
"""


@frozen(kw_only=True)
class WebRequest:
    """One line of the log: ``target`` as it was sent, and the header ``Authorization``, ``-`` where there was none."""

    method: str
    target: str
    status: int
    authorization: str


@frozen(kw_only=True)
class Nginx:
    """
    A running nginx.

    Attributes:
        host_port: Where it listens.
        url: The same with the scheme.
        folder: Has its logs.
    """

    host_port: str
    url: str
    folder: Path

    @property
    def requests(self) -> list[WebRequest]:
        """What it was asked, in the order of its answers."""
        lines = (line.split(" ", 3) for line in (self.folder / "access.log").read_text().splitlines())
        return [
            WebRequest(method=method, target=target, status=int(status), authorization=authorization)
            for method, target, status, authorization in lines
        ]


@contextlib.contextmanager
def nginx(
    files: Path, *, auth: bool = False, certificates: Certificates | None = None, rules: Sequence[str] = ()
) -> Iterator[Nginx]:
    """
    Yield a running nginx.

    Args:
        files: What it serves.
        auth: Whether it wants the user and password of :data:`USERINFO` everywhere.
        certificates: To speak TLS with. None: plain.
        rules: Lines of the configuration of its server; ``FILES`` and ``FOLDER`` stand for its folders, the latter
            having the file ``passwords``.

    Raises:
        FileNotFoundError: It is not installed; says how to.
        RuntimeError: It does not start.
    """
    executable = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if executable is None:
        raise FileNotFoundError("nginx is not installed: apt-get install nginx-light")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            port = reserved.getsockname()[1]
        (folder / "passwords").write_text(_PASSWORDS)
        (folder / "access.log").touch()
        tls = "" if certificates is None else _TLS.format(certificates)
        values = {
            "RULES": "\n".join([*rules, *([AUTH] if auth else []), tls]),
            "LISTEN": "ssl" if certificates else "",
            "FILES": str(files),
            "FOLDER": name,
            "PORT": str(port),
            "OWNER": "root" if os.geteuid() == 0 else "nobody",
        }
        (folder / "nginx.conf").write_text(_filled_in(_CONFIG, values))
        process = subprocess.Popen(  # noqa: S603 - found by its name, with our own configuration
            [executable, "-c", folder / "nginx.conf", "-e", folder / "start.log"]
        )
        try:
            _wait_for(port, process, folder)
            host_port, scheme = f"127.0.0.1:{port}", "https" if certificates else "http"
            yield Nginx(host_port=host_port, url=f"{scheme}://{host_port}", folder=folder)
        finally:
            process.terminate()
            process.wait(10)


_TLS: Final = "ssl_certificate {0.certificate}; ssl_certificate_key {0.key};"


def _filled_in(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def _wait_for(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"nginx did not start: {(folder / 'start.log').read_text()}")
