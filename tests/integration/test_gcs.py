"""Google Cloud Storage in a closed network: tokens, listing and data through a corporate proxy, nothing past it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from nim_core.testing.corpus import PatternContent, inline
from nim_core.testing.gcs_server import GcsServer
from nim_core.testing.google_auth import GoogleAuth

pytest_plugins = ["nim_core.testing"]

FILES = {"config.json": inline("{}\n"), "weights.bin": PatternContent(length=3_000_000)}
CONFIG = """
http_port 127.0.0.1:{port}
{rules}
http_access allow all
cache deny all
cache_effective_user proxy
shutdown_lifetime 0 seconds
strip_query_terms off
pinger_enable off
pid_filename none
netdb_filename none
coredump_dir {folder}
logformat requests %rm %ru %>Hs
access_log stdio:{folder}/access.log logformat=requests
cache_log {folder}/cache.log
"""
WANTS_PASSWORD = """
auth_param basic program /usr/lib/squid/basic_ncsa_auth {folder}/passwords
acl known proxy_auth REQUIRED
http_access deny !known
"""


@contextlib.contextmanager
def squid(rules=""):
    """Run squid; yields its port and a function that returns the lines of its log."""
    executable = shutil.which("squid") or shutil.which("squid", path="/usr/sbin")
    if executable is None:
        stop = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        stop("squid is not installed: apt-get install squid")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            port = reserved.getsockname()[1]
        rules = rules.format(folder=folder)
        (folder / "squid.conf").write_text(CONFIG.format(port=port, rules=rules, folder=folder))
        hashed = subprocess.run(["openssl", "passwd", "-apr1", "p@ss"], capture_output=True, text=True, check=True)
        (folder / "passwords").write_text(f"corp:{hashed.stdout}")
        if os.geteuid() == 0:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, "proxy")
        process = subprocess.Popen([executable, "-N", "-f", folder / "squid.conf"], stderr=subprocess.DEVNULL)
        try:
            wait_for(port, process, folder)
            yield port, lambda: (folder / "access.log").read_text().splitlines()
        finally:
            process.kill()
            process.wait(10)


def wait_for(port, process, folder):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    pytest.fail(f"squid did not start: {(folder / 'cache.log').read_text()}")


@pytest.fixture(params=["plain", "tls"])
def google(request, certificates):
    """Google's services with a model in a bucket, and what trusts them."""
    known = certificates if request.param == "tls" else None
    with GoogleAuth(certificates=known) as auth, GcsServer(auth=auth, certificates=known) as server:
        for path, content in FILES.items():
            server.put("models", f"llama/{path}", content)
        yield auth, server, {"SSL_CERT_FILE": str(certificates.ca), **server.environment()}


def credentials(kind, auth, folder):
    """Return the variables that name credentials of a kind."""
    if kind == "machine":
        return {"GCE_METADATA_HOST": auth.metadata_host}
    write = {"service account": auth.service_account_file, "user": auth.user_file, "workload": auth.workload_file}[kind]
    return {"GOOGLE_APPLICATION_CREDENTIALS": str(write(folder))}


def port_of(url):
    return int(url.rpartition(":")[2])


@pytest.mark.parametrize("kind", ["service account", "user", "workload", "machine"])
def test_nothing_goes_past_the_proxy(machine, google, sockets, kind):
    auth, server, environment = google
    with squid(WANTS_PASSWORD) as (port, log):
        proxy = f"http://corp:p%40ss@127.0.0.1:{port}"
        environment |= {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "http_proxy": proxy}
        environment |= credentials(kind, auth, machine.folder)
        ended = machine.run("--model-uri", "gs://models/llama/", env=environment, within=sockets.within).check()
        asked = " ".join(log())
    assert "p@ss" not in ended.said
    assert auth.holders == [kind]
    own = {port_of(auth.metadata_host)} if kind == "machine" else set()
    assert sockets.ports - {53} == {port} | own
    assert f":{port_of(server.url)}" in asked
    assert (f":{port_of(auth.url)}" in asked) == (kind != "machine")
    assert f":{port_of(auth.metadata_host)}" not in asked
    assert [(link.name, link.stat().st_size) for link in machine.cache.links] == [
        (name, content.size) for name, content in FILES.items()
    ]


def test_without_its_password_the_proxy_is_named(machine, google):
    auth, _, environment = google
    with squid(WANTS_PASSWORD) as (port, _):
        proxy = f"http://127.0.0.1:{port}"
        environment |= {
            "http_proxy": proxy,
            "HTTPS_PROXY": proxy,
            **credentials("service account", auth, machine.folder),
        }
        ended = machine.run("--model-uri", "gs://models/llama/", env=environment)
    assert ended.code == 10, ended.stderr
    assert "the proxy wants a user and password" in ended.last


def test_no_proxy_is_obeyed(machine, google, sockets):
    auth, server, environment = google
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        proxy = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        environment |= {"http_proxy": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": "127.0.0.0/8"}
        environment |= credentials("service account", auth, machine.folder)
        machine.run("--model-uri", "gs://models/llama/", env=environment, within=sockets.within).check()
    assert sockets.ports == {port_of(auth.url), port_of(server.url)}
