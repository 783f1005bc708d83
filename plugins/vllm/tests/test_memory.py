"""How much memory is free, from files written by hand."""

from __future__ import annotations

import pytest
from nim_backend_vllm.memory import available_memory

GIB = 1 << 30


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   1048576 kB\n"}, GIB),
        ({"proc/meminfo": "MemAvailable: 4194304 kB\n", "cgroup/memory.max": "max\n"}, 4 * GIB),
        ({"cgroup/memory.max": f"{2 * GIB}\n", "cgroup/memory.current": f"{GIB}\n"}, GIB),
        ({"proc/meminfo": "MemAvailable: 1024 kB\n", "cgroup/memory.max": "9", "cgroup/memory.current": "10"}, 0),
        (
            {
                "proc/meminfo": "MemAvailable: 4194304 kB\n",
                "cgroup/memory/memory.limit_in_bytes": str(3 * GIB),
                "cgroup/memory/memory.usage_in_bytes": str(GIB),
            },
            2 * GIB,
        ),
    ],
)
def test_the_lesser_of_machine_and_container(tmp_path, files, expected):
    for name, text in files.items():
        file = tmp_path / name.replace("cgroup", "sys/fs/cgroup")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert available_memory(tmp_path) == expected


def test_this_machine_has_some():
    assert (available_memory() or 0) > 1 << 20
