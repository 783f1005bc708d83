"""
A container as Kubernetes runs one, made of what this machine has: no image, no runtime, no cluster.

::

    /                   nothing but this, read-only
      usr, bin, lib     this machine's
      etc               a few lines; nobody is in passwd; ssl/certs may be the pod's own
      <python>          the interpreter and this installation, where they are
      opt/nim/bin       every command, by install-commands; first on PATH
      opt/nim/etc       the image's manifest, if it has one
      model-store       the volume, writable
      scratch           an emptyDir, writable

It has processes, mounts and a network of its own, in which there is nothing but what the test has started in it; no
capability, no home, no GPU, no device but null, zero, random and urandom.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shlex
import socket
import struct
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from attrs import define, evolve, field, frozen

from tests.integration.conftest import Ended, Started

__all__ = ["ANYBODY", "OPERATOR", "Container", "Who", "own_network", "unavailable"]

VOLUME: Final = "/model-store"
SCRATCH: Final = "/scratch"
COMMANDS: Final = "/opt/nim/bin"
PATH: Final = f"{COMMANDS}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEVICES: Final = ("null", "zero", "random", "urandom")
SYSTEM: Final = ("bin", "lib", "lib64", "sbin", "usr")
REPOSITORY: Final = Path(__file__).parents[2]

_CLONE_NEWNET: Final = 0x40000000
_SIOCSIFFLAGS: Final = 0x8914
_UP_AND_RUNNING: Final = 0x41
_NEW: Final = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private")


@frozen(kw_only=True)
class Who:
    """
    Whom a pod runs as.

    Attributes:
        uid: User.
        gid: Primary group.
        groups: All groups; the volume belongs to the first, as ``fsGroup`` has it.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]


OPERATOR: Final = Who(uid=1000, gid=2000, groups=(2000,))
"""What the operator writes into the pods of caching jobs."""

ANYBODY: Final = Who(uid=1_000_620_000, gid=0, groups=(0,))
"""What OpenShift makes of them: a user that no file knows, in group 0."""


@define(kw_only=True)
class Container:
    """
    What a pod has; :meth:`run` runs it once.

    Attributes:
        folder: Room on this machine; of the tests.
        who: Whom it runs as.
        files: Texts of the image's own files, by path.
        etc_ssl: Folder that is mounted at /etc/ssl. None: this machine's.
        environment: What image and pod say, beyond PATH.
    """

    folder: Path
    who: Who
    files: dict[str, str] = field(factory=dict)
    etc_ssl: Path | None = None
    environment: dict[str, str] = field(factory=lambda: {"HOME": "/opt/nim"})

    @classmethod
    def new(cls, folder: Path, who: Who) -> Container:
        """Return a container with an empty volume that is the pod's to write, as kubelet leaves it."""
        made = cls(folder=folder, who=who)
        for name in ("root", "bin", "volume", "scratch"):
            (folder / name).mkdir()
        made.give_volume()
        (folder / "scratch").chmod(0o777)
        program = Path(sysconfig.get_path("scripts"), "nim-llm")
        subprocess.run([program, "install-commands", folder / "bin"], env={}, capture_output=True, check=True)
        return made

    @property
    def volume(self) -> Path:
        """The volume, seen from here."""
        return self.folder / "volume"

    def as_user(self, who: Who) -> Container:
        """Return another pod with the same image and volume, whose files stay as they are."""
        return evolve(self, who=who)

    def give_volume(self) -> None:
        """Do what kubelet does for ``fsGroup`` when it mounts: everything is the group's, to read and to write."""
        for path in (self.volume, *self.volume.rglob("*")):
            os.chown(path, -1, self.who.groups[0], follow_symlinks=False)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o2770 if path.is_dir() else 0o660))

    def run(self, *command: str, env: Mapping[str, str] | None = None, umask: int = 0o022) -> Ended:
        """Run a command, which is a pod's ``command`` and ``args``, to its end."""
        return self.start(*command, env=env, umask=umask).end()

    def start(self, *command: str, env: Mapping[str, str] | None = None, umask: int = 0o022) -> Started:
        """Start a command, as the first process of the container; what it is sent as a signal reaches that."""
        process = subprocess.Popen(
            [*_NEW, "sh", "-ec", self._script(umask), "container", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env={"PATH": PATH, **self.environment, **(env or {})},
        )
        return Started(process=process, began=time.monotonic())

    def _script(self, umask: int) -> str:
        who, groups = self.who, ",".join(map(str, self.who.groups))
        user = [f"--reuid={who.uid}", f"--regid={who.gid}", f"--groups={groups}"]
        caps = ["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
        enter = shlex.join(["exec", "/usr/sbin/chroot", self._root, "setpriv", *user, *caps])
        return "\n".join([*self._mounts(), f"umask {umask:04o}", f'{enter} "$@"'])

    @property
    def _root(self) -> str:
        return str(self.folder / "root")

    def _mounts(self) -> Iterator[str]:
        """Yield the lines that make the root."""
        yield shlex.join(["mount", "-t", "tmpfs", "-o", "mode=0755", "image", self._root])
        yield from self._system()
        for place, text in self._files().items():
            yield from self._file(place, text)
        for host, place in self._read_only():
            yield from self._bind(host, place)
            yield shlex.join(["mount", "-o", "remount,bind,ro", f"{self._root}{place}"])
        for host, place in ((self.volume, VOLUME), (self.folder / "scratch", SCRATCH)):
            yield from self._bind(host, place)
        yield shlex.join(["mount", "-o", "remount,ro", self._root])

    def _system(self) -> Iterator[str]:
        for name in ("dev", "proc", "tmp"):
            yield shlex.join(["mkdir", f"{self._root}/{name}"])
        yield shlex.join(["mount", "-t", "proc", "proc", f"{self._root}/proc"])
        for name in DEVICES:
            yield shlex.join(["touch", f"{self._root}/dev/{name}"])
            yield shlex.join(["mount", "--bind", f"/dev/{name}", f"{self._root}/dev/{name}"])
        for path in (Path("/", name) for name in SYSTEM):
            if path.is_symlink():
                yield shlex.join(["ln", "-s", str(path.readlink()), f"{self._root}{path}"])

    def _files(self) -> dict[str, str]:
        return {
            "/etc/hosts": "127.0.0.1 localhost\n",
            "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
            "/etc/group": "root:x:0:\n",
            **self.files,
        }

    def _file(self, place: str, text: str) -> Iterator[str]:
        path = f"{self._root}{place}"
        yield shlex.join(["mkdir", "-p", str(Path(path).parent)])
        yield f"printf %s {shlex.quote(text)} > {shlex.quote(path)}"

    def _read_only(self) -> Iterator[tuple[Path, str]]:
        """Yield what is mounted for reading, and where."""
        installation = dict.fromkeys([Path(sys.base_prefix), Path(sys.prefix), REPOSITORY])
        system = [path for path in (Path("/", name) for name in SYSTEM) if path.is_dir() and not path.is_symlink()]
        for path in [*system, Path("/etc/ld.so.cache"), *installation]:
            if not any(path != other and path.is_relative_to(other) for other in [*system, *installation]):
                yield path, str(path)
        yield self.folder / "bin", COMMANDS
        yield self.etc_ssl or Path("/etc/ssl"), "/etc/ssl"

    def _bind(self, host: Path, place: str) -> Iterator[str]:
        target = f"{self._root}{place}"
        folder, make = (target, []) if host.is_dir() else (str(Path(target).parent), [["touch", target]])
        for command in (["mkdir", "-p", folder], *make, ["mount", "--rbind", str(host), target]):
            yield shlex.join(command)


# -------------------------------------------------------------------------------------------------------- its network
@contextmanager
def own_network() -> Iterator[None]:
    """
    Be in a network of nothing but a loopback: what is started within is there, and reaches nobody else.

    Raises:
        OSError: This user may not, or the kernel cannot.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def call(function: str, *arguments: int) -> None:
        if getattr(libc, function)(*arguments):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        call("unshare", _CLONE_NEWNET)
        try:
            _raise_loopback()
            yield
        finally:
            call("setns", before, _CLONE_NEWNET)
    finally:
        os.close(before)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _UP_AND_RUNNING))


def unavailable(command: Sequence[str] = ("mount", "-t", "tmpfs", "probe", "/mnt")) -> str | None:
    """Return why no container can be made here, None when one can."""
    if os.geteuid() != 0:
        return "a container needs root"
    done = subprocess.run([*_NEW, *command], capture_output=True, text=True, check=False)
    return f"no container here: {done.stderr.strip()}" if done.returncode else None
