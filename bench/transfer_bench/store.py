"""The object store: SeaweedFS with one bucket, filled anew for every case."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from transfer_bench.nginx import certificates, free_port
from transfer_bench.records import Content, Endpoint, Failed, S3Access, Skipped

__all__ = ["BUCKET", "CLIENT", "object_store"]

BUCKET: Final = "bench"
SIGNED_AT_MOST: Final = 100
"""More files than this are read without a signature: a URL signed anew is a repository of its own in our cache."""

CLIENT: Final = Path(__file__).with_name("s3_client.py")
_TLS_PORT: Final = 443
_START_SECONDS: Final = 30
_GRPC: Final = 10000
_MEMORY: Final = "600MiB"


@frozen(kw_only=True)
class _Keys:
    access: str
    secret: str

    def variables(self) -> dict[str, str]:
        names = {"AWS_ACCESS_KEY_ID": self.access, "AWS_SECRET_ACCESS_KEY": self.secret}
        return names | {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "1"}

    def identities(self) -> str:
        admin = {"name": "admin", "credentials": [{"accessKey": self.access, "secretKey": self.secret}]}
        public = {"name": "anonymous", "actions": [f"Read:{BUCKET}", f"List:{BUCKET}"]}
        return json.dumps({"identities": [admin | {"actions": ["Admin", "Read", "List", "Write"]}, public]})


@contextlib.contextmanager
def object_store(tools: Mapping[str, Path], contents: Sequence[Content], run: Path) -> Iterator[Endpoint]:
    """Serve ``contents`` from a bucket until the block ends. Raises Skipped when a part of it is missing."""
    for name in ("weed", "boto3"):
        if name not in tools:
            raise Skipped(f"{name} is not installed")
    shutil.rmtree(run, ignore_errors=True)
    (run / "data").mkdir(parents=True)
    keys = _Keys(access=secrets.token_hex(8), secret=secrets.token_hex(16))
    (run / "s3.json").write_text(keys.identities(), encoding="utf-8")
    ca, reason = _tls_possible(run)
    port = _free_pair()
    endpoint = f"http://127.0.0.1:{port}"
    with _running(_command(tools["weed"], run, port, tls=ca is not None), run, endpoint) as process:
        signed = _fill(tools["boto3"], endpoint, keys, contents, run)
        access = S3Access(
            endpoint=endpoint,
            variables=keys.variables(),
            bucket=BUCKET,
            signed=signed if len(signed) <= SIGNED_AT_MOST else {},
            tls_endpoint="https://localhost" if ca else None,
            tls_reason=reason,
        )
        yield Endpoint(base=f"{endpoint}/{BUCKET}/", ca=ca, s3=access, pids=lambda: (process.pid,))
    shutil.rmtree(run, ignore_errors=True)


def _tls_possible(run: Path) -> tuple[Path | None, str]:
    """Return the authority for TLS on the port that the CRT insists on, or why there is none."""
    try:
        with socket.create_server(("127.0.0.1", _TLS_PORT)):
            pass
    except OSError as exc:
        return None, f"port {_TLS_PORT} on loopback: {(exc.strerror or '').lower()}"
    ca = certificates(run / "tls")
    return ca, "" if ca else "no openssl on PATH to make certificates with"


def _command(program: Path, run: Path, port: int, *, tls: bool) -> list[str]:
    master, volume, filer, admin = (_free_pair() for _ in range(4))
    command = [str(program), "mini", f"-dir={run / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += [f"-s3.port={port}", f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
    command += [f"-admin.port={admin}", f"-s3.config={run / 's3.json'}"]
    command += ["-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    if tls:
        command += [f"-s3.port.https={_TLS_PORT}", f"-s3.cert.file={run / 'tls/server.pem'}"]
        command += [f"-s3.key.file={run / 'tls/server.key'}"]
    return command


@contextlib.contextmanager
def _running(command: list[str], run: Path, endpoint: str) -> Iterator[subprocess.Popen[bytes]]:
    variables = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(run), "GOMEMLIMIT": _MEMORY}
    with (run / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=run, env=variables, stdout=log, stderr=log)
    try:
        _wait(process, endpoint)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait(process: subprocess.Popen[bytes], endpoint: str) -> None:
    """Wait until the store answers, be it with a refusal."""
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(endpoint, timeout=1).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise Failed("the object store did not start")


def _fill(python: Path, endpoint: str, keys: _Keys, contents: Sequence[Content], run: Path) -> dict[str, str]:
    """Upload and return presigned URLs by name."""
    names = run / "names"
    names.write_text("\n".join(content.name for content in contents), encoding="utf-8")
    done = subprocess.run(
        [python, CLIENT, "fill", endpoint, BUCKET, contents[0].path.parent, names],
        env={"PATH": os.defpath, **keys.variables()},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(f"filling the object store: {done.stderr.strip().splitlines()[-1:]}")
    signed: dict[str, str] = json.loads(done.stdout)
    return signed


def _free_pair() -> int:
    """Return a free port whose counterpart for gRPC is free as well."""
    while True:
        port = free_port()
        if port + _GRPC > 65535:
            port -= 2 * _GRPC
        try:
            with socket.create_server(("127.0.0.1", port)), socket.create_server(("127.0.0.1", port + _GRPC)):
                return port
        except OSError:
            continue
