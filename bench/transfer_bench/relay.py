"""
A link with a delay between two network namespaces, made of two TUN devices; for kernels without netem.

    python relay.py NAMESPACE_A ADDRESS_A NAMESPACE_B ADDRESS_B ONE_WAY_MILLISECONDS
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from typing import Final

MTU: Final = 9000
"""With far larger packets aria2c comes down to a twentieth of curl, with smaller ones this relay is the limit."""

_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_NO_PI: Final = 0x1001
_AT_ONCE: Final = 64


def open_tunnel(namespace: str, name: str, address: str, peer: str) -> int:
    """Make a TUN device inside ``namespace`` and return it."""
    libc = ctypes.CDLL(None, use_errno=True)
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    if libc.setns(there, 0):
        raise OSError(ctypes.get_errno(), "setns")
    tunnel = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tunnel, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN_NO_PI))
    libc.setns(here, 0)
    up = ["link", "set", name, "mtu", str(MTU), "txqueuelen", "5000", "up"]
    for command in (["link", "set", "lo", "up"], ["addr", "add", address, "peer", peer, "dev", name], up):
        subprocess.run(["ip", "-n", namespace, *command], check=True)
    return tunnel


def relay(first: int, second: int, delay: float) -> None:
    """Move packets both ways for ever, each ``delay`` seconds after it came."""
    waiting: collections.deque[tuple[float, int, bytes]] = collections.deque()
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        ready, _, _ = select.select([first, second], [], [], timeout)
        now = time.monotonic()
        for tunnel in ready:
            target = second if tunnel == first else first
            with contextlib.suppress(BlockingIOError):
                for _ in range(_AT_ONCE):
                    waiting.append((now + delay, target, os.read(tunnel, MTU + 100)))
        while waiting and waiting[0][0] <= time.monotonic():
            _, target, packet = waiting.popleft()
            with contextlib.suppress(OSError):
                os.write(target, packet)


def main() -> None:
    """Make both ends, say so, and relay."""
    here, address, there, peer, milliseconds = sys.argv[1:]
    first = open_tunnel(here, "tunA", address, peer)
    second = open_tunnel(there, "tunB", peer, address)
    print("ready", flush=True)
    relay(first, second, float(milliseconds) / 1000)


if __name__ == "__main__":
    main()
