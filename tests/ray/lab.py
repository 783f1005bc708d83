"""
Two machines with a network between them, made of what this one has, on which ``nim-serve-ray`` runs as a user runs it.

Each has an address, a loopback, a folder for Ray and a cache of its own, by network and mount namespaces; their paths
are the same. The first also has a web server with the model. Ray passes over loopback addresses, so nothing less does.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import blake3
import pytest
from attrs import define, field, frozen

LEADER, WORKER = "10.99.0.1", "10.99.0.2"
RAY_PORT, WEB_PORT, SERVER_PORT = 36379, 8080, 8000
PROFILE = "5" * 64
FILES: Mapping[str, bytes] = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 8192}
WAIT_SECONDS = 90
GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"


@frozen(kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    stderr: str

    @property
    def last(self) -> str:
        """The diagnosis."""
        return self.stderr.splitlines()[-1]


@define(kw_only=True)
class Running:
    """A command under way; what it writes goes to a file, so that it can be read meanwhile."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        """What it has written so far."""
        return self.log.read_text(errors="replace")

    def until(self, text: str) -> None:
        """Wait until it has written a text."""
        deadline = time.monotonic() + WAIT_SECONDS
        while text not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.said}"
            time.sleep(0.1)

    def end(self, send: signal.Signals | None = None) -> Ended:
        """Wait for its end, after sending it a signal."""
        if send is not None:
            self.process.send_signal(send)
        code = self.process.wait(WAIT_SECONDS)
        return Ended(code=code, stderr=self.said)


@define(kw_only=True)
class Node:
    """
    A machine.

    Attributes:
        namespace: Its network.
        address: Its address.
        folder: Room of its own.
        shared: Room of all.
        environment: What its commands get, beside what every command gets.
    """

    namespace: str
    address: str
    folder: Path
    shared: Path
    environment: dict[str, str] = field(factory=dict)
    started: list[Running] = field(factory=list)

    @property
    def cache(self) -> Path:
        """Its cache, as seen from outside."""
        return self.folder / "cache"

    def start(self, command: str, *arguments: str, share_cache: bool = False, **environ: str) -> Running:
        """Start one of our commands, or Ray's."""
        log = self.folder / f"log-{len(self.started)}"
        program = Path(sysconfig.get_path("scripts"), command)
        cache = self.shared / "cache" if share_cache else self.cache
        mounts = f'mount --bind "{cache}" "{self.shared}/at"; mount --bind "{self.folder}/ray" "{self.shared}/ray"'
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*self._inside, "sh", "-ec", f'{mounts}; exec "$@"', "node", program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self._environ() | environ,
            )
        running = Running(process=process, log=log)
        self.started.append(running)
        return running

    def get(self, path: str) -> str | None:
        """Return what the front answers on this machine. None where it does not answer, or not by 200."""
        url = f"http://127.0.0.1:{SERVER_PORT}{path}"
        command = [*self._inside, sys.executable, "-I", "-c", GET, url]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else None

    def until_served(self, running: Running) -> dict[str, object]:
        """Wait until a model is served; return how the engine was started."""
        running.until("stand-in")
        deadline = time.monotonic() + WAIT_SECONDS
        while self.get("/v1/health/ready") is None:
            assert running.process.poll() is None, running.said
            assert time.monotonic() < deadline, running.said
        return dict(json.loads(self.get("/v1/started") or ""))

    @property
    def processes(self) -> list[str]:
        """The command lines of all that runs there, of the web server not."""
        done = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=True)
        lines = []
        for pid in done.stdout.split():
            try:
                line = Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if line and "http.server" not in line:
                lines.append(f"{pid} {line[:150]}")
        return lines

    def empty_after(self, seconds: float) -> list[str]:
        """Return what still runs there after so long, at once where nothing does."""
        deadline = time.monotonic() + seconds
        while self.processes and time.monotonic() < deadline:
            time.sleep(0.2)
        return self.processes

    @property
    def _inside(self) -> list[str]:
        return ["ip", "netns", "exec", self.namespace]

    def _environ(self) -> dict[str, str]:
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "POD_IP": self.address,
            "PYTHONPATH": str(self.shared / "plugin"),
            "NIM_CACHE_PATH": str(self.shared / "at"),
            "NIM_MANIFEST_PATH": str(self.shared / "manifest.json"),
            "NIM_SERVING_BACKEND": "standin",
            "NIM_SERVER_PORT": str(SERVER_PORT),
            "NIM_NUM_COMPUTE_NODES": "2",
            "NIM_MULTI_NODE": "1",
            "NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "1",
            "RAY_TMPDIR": str(self.shared / "ray"),
            **self.environment,
        }


@define(kw_only=True)
class Lab:
    """Both machines."""

    folder: Path
    leader: Node
    worker: Node
    web: Path

    def lead(self, *words: str, **options: object) -> Running:
        """Start the leader."""
        return self.leader.start("nim-serve-ray", "--head", "--port", str(RAY_PORT), *words, **options)  # type: ignore[arg-type]

    def work(self, **options: object) -> Running:
        """Start the worker."""
        return self.worker.start("nim-serve-ray", "--head-address", f"{LEADER}:{RAY_PORT}", **options)  # type: ignore[arg-type]

    def fetched(self) -> list[str]:
        """Names of the model's files that were asked for by GET, each as often as it was."""
        lines = self.web.read_text().splitlines()
        return sorted(line.split('"GET /')[1].split()[0] for line in lines if '"GET /' in line)


def unavailable() -> str | None:
    """Return why there can be no lab here. None when there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "ip is not installed: apt-get install iproute2"
    done = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False)
    return f"no network namespaces here: {done.stderr.strip()}" if done.returncode else None


@contextmanager
def lab() -> Iterator[Lab]:
    """Make both machines; ends all that runs there afterwards."""
    reason = unavailable()
    if reason is not None and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    with ExitStack() as stack:
        # Ray's sockets lie within, and their paths may have 107 bytes
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nr", ignore_cleanup_errors=True)))
        names = [f"nim{os.getpid()}-{number}" for number in (1, 2)]
        _connect(names, stack)
        _write_shared(folder / "shared")
        nodes = [_node(folder, name, address) for name, address in zip(names, (LEADER, WORKER), strict=True)]
        web = folder / "web.log"
        stack.enter_context(_web_server(names[0], folder / "shared/model", web))
        try:
            yield Lab(folder=folder, leader=nodes[0], worker=nodes[1], web=web)
        finally:
            for running in (*nodes[0].started, *nodes[1].started):
                running.process.kill()
                running.process.wait()


def _connect(names: list[str], stack: ExitStack) -> None:
    for name in names:
        _ip("netns", "add", name)
        stack.callback(_remove, name)
    ends = [f"{name[-9:]}v" for name in names]
    _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
    for name, end, address in zip(names, ends, (LEADER, WORKER), strict=True):
        _ip("link", "set", end, "netns", name)
        _ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
        for device in ("lo", end):
            _ip("-n", name, "link", "set", device, "up")


def _remove(name: str) -> None:
    """Kill what a failed test has left, and remove the network."""
    done = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=True)
    for pid in done.stdout.split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            continue
    _ip("netns", "del", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _node(folder: Path, name: str, address: str) -> Node:
    node = Node(namespace=name, address=address, folder=folder / address.rpartition(".")[2], shared=folder / "shared")
    for path in (node.cache, node.folder / "ray"):
        path.mkdir(parents=True)
    return node


def _write_shared(shared: Path) -> None:
    for name in ("at", "cache", "model", "ray", "plugin/nim_backend_standin-1.0.dist-info"):
        (shared / name).mkdir(parents=True)
    for name, data in FILES.items():
        (shared / "model" / name).write_bytes(data)
    url = f"http://{LEADER}:{WEB_PORT}"
    files = {
        name: {"uri": f"{url}/{name}", "checksum": f"blake3:{blake3.blake3(data).hexdigest()}"}
        for name, data in FILES.items()
    }
    tags = {"llm_engine": "standin", "tp": "1", "pp": "2", "precision": "bf16", "model_name": "nim-tiny"}
    profile = {"id": PROFILE, "tags": tags, "workspace": {"files": files}}
    manifest = {"schema_version": "2.0.0", "profile_selection_criteria": "default", "profiles": [profile]}
    (shared / "manifest.json").write_text(json.dumps(manifest))
    here, plugin = Path(__file__).parent, shared / "plugin"
    for name in ("standin_backend.py", "standin_engine.py"):
        shutil.copy(here / name, plugin)
    info = plugin / "nim_backend_standin-1.0.dist-info"
    metadata = "Metadata-Version: 2.1\nName: nim-backend-standin\nVersion: 1.0\nRequires-Dist: nim-core\n"
    (info / "METADATA").write_text(metadata)
    (info / "entry_points.txt").write_text("[nim_core.plugins]\nstandin = standin_backend\n")


@contextmanager
def _web_server(namespace: str, folder: Path, log: Path) -> Iterator[None]:
    words = [sys.executable, "-u", "-m", "http.server", str(WEB_PORT), "--bind", LEADER, "--directory", str(folder)]
    with log.open("wb") as out:
        process = subprocess.Popen(["ip", "netns", "exec", namespace, *words], stdout=out, stderr=out)
    try:
        yield
    finally:
        process.kill()
        process.wait()
