"""
The web server: one nginx with a plain, a TLS and a capped address, which also answers as a Hub.

The cap holds for each connection: the kernel paces what is accepted from a socket that has SO_MAX_PACING_RATE set, and
nginx takes that socket over. ``limit_rate`` of nginx itself gives between 92 and 101 % of what it is set to, which is
too coarse for a target of 95 %; it is what is used where the kernel refuses.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from transfer_bench.records import MIB, Content, Endpoint, Failed, Skipped

__all__ = ["CAP", "HUB_REPO", "Request", "WebServer", "certificates", "free_port", "parse_log", "peak_overlap", "sent"]

CAP: Final = 50 * MIB
"""Bytes per second of one connection to the capped address."""

HUB_REPO: Final = "acme/bench"
HUB_COMMIT: Final = f"{1:040}"
HUB_LFS_BYTES: Final = 10 * MIB
_SO_MAX_PACING_RATE: Final = 47
_START_SECONDS: Final = 10

_CONFIG: Final = """
daemon off;
pid {run}/pid;
error_log {run}/error.log;
{user}
worker_processes 2;
events {{ worker_connections 2048; }}
http {{
  client_body_temp_path {run}/t1; proxy_temp_path {run}/t2; fastcgi_temp_path {run}/t3;
  uwsgi_temp_path {run}/t4; scgi_temp_path {run}/t5;
  access_log off;
  log_format bench '$connection $msec $request_time $body_bytes_sent $status $request_method';
  default_type application/octet-stream;
  sendfile on; tcp_nopush on; keepalive_requests 1000000; lingering_close off;
  ssl_protocols TLSv1.3;
  server {{
    listen {address}:{plain};
    root {files};
    location /logged/ {{ alias {files}/; access_log {run}/access.log bench; }}
    location ~ ^/api/models/{repo}/revision/ {{ default_type application/json; root {run}; try_files /info.json =404; }}
    location ~ ^/api/models/{repo}/tree/ {{ default_type application/json; root {run}; try_files /tree.json =404; }}
    location ~ ^/{repo}/resolve/[^/]+/(?<file>.+)$ {{
      add_header X-Repo-Commit {commit} always;
      alias {files}/$file;
    }}
  }}
  server {{
    listen {address}:{capped};
    root {files};
    access_log {run}/access.log bench;
    {limit}
  }}
  {tls}
}}
"""

_TLS: Final = """
  server {{
    listen {address}:{port} ssl http2;
    root {files};
    ssl_certificate {folder}/server.pem;
    ssl_certificate_key {folder}/server.key;
  }}
"""


@frozen(kw_only=True)
class Request:
    """A line of the access log: when a request began and ended, in seconds, and the bytes of its body."""

    connection: int
    began: float
    ended: float
    size: int
    status: int
    method: str


def parse_log(text: str) -> list[Request]:
    """Return the requests of an access log."""
    requests = []
    for line in text.splitlines():
        connection, ended, took, size, status, method = line.split()
        requests.append(
            Request(
                connection=int(connection),
                began=float(ended) - float(took),
                ended=float(ended),
                size=int(size),
                status=int(status),
                method=method,
            )
        )
    return requests


def peak_overlap(requests: Sequence[Request], *, at_least: int = 0) -> int:
    """Return how many bodies of ``at_least`` bytes were under way at the same time, at most."""
    large = [request for request in requests if request.size >= max(1, at_least)]
    changes = [(request.began, 1) for request in large] + [(request.ended, -1) for request in large]
    most = current = 0
    for _, change in sorted(changes):
        current += change
        most = max(most, current)
    return most


def sent(requests: Sequence[Request]) -> int:
    """Return the bytes of all bodies, what the kernel still held when a client died included."""
    return sum(request.size for request in requests)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        return int(reserved.getsockname()[1])


def certificates(folder: Path) -> Path | None:
    """Write ``server.pem`` and ``server.key``, and return the authority to trust. None without ``openssl``."""
    if shutil.which("openssl") is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    names = "subjectAltName=DNS:localhost,DNS:*.s3.localhost,DNS:s3.localhost,IP:127.0.0.1"
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
    authority = ["-subj", "/CN=bench authority", "-keyout", "ca.key", "-out", "ca.pem"]
    leaf = ["-subj", "/CN=localhost", "-addext", names, "-keyout", "server.key", "-out", "server.pem"]
    uses = ["-addext", "basicConstraints=critical,CA:FALSE"]
    for arguments in ([*new, *authority], [*new, *leaf, *uses, "-CA", "ca.pem", "-CAkey", "ca.key"]):
        subprocess.run(["openssl", "req", "-x509", *arguments], cwd=folder, check=True, capture_output=True)
    return folder / "ca.pem"


@frozen(kw_only=True)
class WebServer:
    """A running nginx."""

    process: subprocess.Popen[bytes]
    address: str
    plain: int
    capped: int
    tls: int | None
    ca: Path | None
    log: Path
    inside: tuple[str, ...] = ()

    def endpoint(self, kind: str) -> Endpoint:
        """Return the address ``plain``, ``logged``, ``capped`` or ``tls``. Raises Skipped when there is none."""
        plain = f"http://{self.address}:{self.plain}/"
        match kind:
            case "plain":
                return Endpoint(base=plain, hub=plain.rstrip("/"), inside=self.inside, pids=self.pids)
            case "logged":
                return Endpoint(base=f"{plain}logged/", log=self.log, inside=self.inside, pids=self.pids)
            case "capped":
                base = f"http://{self.address}:{self.capped}/"
                return Endpoint(base=base, log=self.log, inside=self.inside, pids=self.pids)
            case _:
                if self.tls is None:
                    raise Skipped("no openssl on PATH to make certificates with")
                return Endpoint(base=f"https://{self.address}:{self.tls}/", ca=self.ca, pids=self.pids)

    def pids(self) -> tuple[int, ...]:
        """Return the processes of this server."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        return (pid, *(int(word) for word in children.read_text(encoding="ascii").split()))


@contextlib.contextmanager
def web_server(program: Path, files: Path, run: Path, contents: Sequence[Content]) -> Iterator[WebServer]:
    """Serve ``files`` on this machine until the block ends; ``contents`` are what the Hub lists."""
    run.mkdir(parents=True, exist_ok=True)
    write_hub(run, contents)
    ca = certificates(run / "tls")
    plain, tls = free_port(), free_port()
    with paced_socket() as (listener, paced):
        capped = int(listener.getsockname()[1])
        limit = "" if paced else f"limit_rate {CAP};"
        tls_part = _TLS.format(address="127.0.0.1", port=tls, files=files, folder=run / "tls") if ca else ""
        write_config(run, files, address="127.0.0.1", ports=(plain, capped), limit=limit, tls=tls_part)
        inherited = {"NGINX": f"{listener.fileno()};"}
        process = _start([str(program), "-c", str(run / "nginx.conf")], run, inherited, listener.fileno())
        server = WebServer(
            process=process,
            address="127.0.0.1",
            plain=plain,
            capped=capped,
            tls=tls if ca else None,
            ca=ca,
            log=run / "access.log",
        )
        with running(process, run):
            yield server


def write_config(
    run: Path, files: Path, *, address: str, ports: tuple[int, int], limit: str = "", tls: str = ""
) -> None:
    """Write ``nginx.conf``; ``ports`` are those of the plain and of the capped address."""
    values = {"run": run, "files": files, "address": address, "plain": ports[0], "capped": ports[1]}
    user = "user root;" if os.geteuid() == 0 else ""
    text = _CONFIG.format(**values, limit=limit, tls=tls, user=user, repo=HUB_REPO, commit=HUB_COMMIT)
    (run / "nginx.conf").write_text(text, encoding="utf-8")
    (run / "access.log").touch()


def write_hub(run: Path, contents: Sequence[Content]) -> None:
    """Write what the Hub's API says about ``contents``."""
    siblings = [{"rfilename": content.name} for content in contents]
    info = {"id": HUB_REPO, "modelId": HUB_REPO, "sha": HUB_COMMIT, "private": False, "tags": [], "siblings": siblings}
    (run / "info.json").write_text(json.dumps(info), encoding="utf-8")
    (run / "tree.json").write_text(json.dumps([_hub_file(content) for content in contents]), encoding="utf-8")


def _hub_file(content: Content) -> dict[str, object]:
    sha256 = content.digests["sha256"]
    file: dict[str, object] = {"type": "file", "path": content.name, "size": content.size, "oid": sha256[:40]}
    if content.size >= HUB_LFS_BYTES:
        file["lfs"] = {"oid": sha256, "size": content.size, "pointerSize": 134}
    return file


@contextlib.contextmanager
def paced_socket() -> Iterator[tuple[socket.socket, bool]]:
    """Yield a listening socket, and whether what is accepted from it is paced."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        paced = True
        try:
            listener.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, CAP)
        except OSError:
            paced = False
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        listener.set_inheritable(True)
        yield listener, paced


def _start(
    arguments: list[str], run: Path, variables: dict[str, str], handle: int | None = None
) -> subprocess.Popen[bytes]:
    handles = () if handle is None else (handle,)
    with (run / "start.log").open("wb") as log:
        return subprocess.Popen(
            [*arguments, "-e", str(run / "start.log")],
            env={"PATH": os.environ.get("PATH", os.defpath), **variables},
            stdout=log,
            stderr=log,
            pass_fds=handles,
        )


@contextlib.contextmanager
def running(process: subprocess.Popen[bytes], run: Path) -> Iterator[None]:
    """Wait until a server has written its pid file, and end it after the block. Raises Failed when it has ended."""
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not (run / "pid").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if process.poll() is not None:
            raise Failed(f"nginx ended: {(run / 'start.log').read_text(encoding='utf-8')[-300:]}")
        time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(_START_SECONDS)


def start_plain(program: Path, run: Path, inside: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Start nginx with a configuration that is there already, in the network that ``inside`` leads to."""
    return _start([*inside, str(program), "-c", str(run / "nginx.conf")], run, {})
