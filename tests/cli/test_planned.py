from __future__ import annotations

from pathlib import Path

from attrs import evolve

from nim_core.cache.space import DeviceNeed
from nim_core.cli.planned import plan_as_json, plan_as_text
from nim_core.plan import Target, Wanted
from nim_core.planning import CredentialUse, DownloadPlan, HostUse, Outlook, PlannedFile, SourceUse
from nim_core.types import ModelUri

HUB = "https://hub.example.com"
DISK = DeviceNeed(
    folder=Path("/cache/tmp"), mount=Path("/"), needed=3_000, free=4_000, files=2, inodes_free=100, ours=True
)
OUTLOOK = Outlook(
    devices=(DISK, evolve(DISK, mount=Path("/data"), free=2_000)),
    sources=(SourceUse(scheme="store", distribution="nim-source-store", version="1.2"),),
    hosts=(
        HostUse(host=HUB, listing=True, proxy="http://proxy:3128"),
        HostUse(host="https://cdn.example.com", files=True),
    ),
    unasked=2,
    streamed=("odd",),
    credentials=(
        CredentialUse(source="store", endpoint=HUB, kind="bearer_token", origin="STORE_TOKEN", expires_at=0.0),
        CredentialUse(source="store", endpoint="https://b", kind="anonymous", origin="anonymous"),
    ),
    error=evolve(DISK, free=2_000).error,
)


def planned(path: str, size: int | None, **more: object) -> PlannedFile:
    return PlannedFile(path=path, uri=f"store://{path}", size=size, **{"state": "fetch", **more})


URI = ModelUri(scheme="store", location="org/model")
PLAN = DownloadPlan(
    targets=(Target(id="a" * 64, label="store://org/model", files=(Wanted(path="a", uri=URI),) * 4),),
    files=(
        planned("small.bin", 1_000),
        planned("large.bin", 5_000, state="resume", resumed=3_000),
        planned("new.txt", None),
        planned("config.json", 10, state="cached"),
        planned("adapter.bin", 20, state="local"),
    ),
    outlook=OUTLOOK,
    damaged=("new.txt",),
)

TEXT = """\
store://org/model: 4 files

            size  to fetch  file
resume    5.0 kB    2.0 kB  large.bin
fetch     1.0 kB    1.0 kB  small.bin
fetch          ?         ?  new.txt

to fetch: 3 files, 3.0 kB and 1 of unknown size
partly fetched already: 3.0 kB
in the cache: 1 file, 10 B
used from where they are: 1 file, 20 B
damaged in the cache: 1 file
disk /: 3.0 kB needed, 4.0 kB free: fits
disk /data: 3.0 kB needed, 2.0 kB free: does not fit
source store://: nim-source-store 1.2
host https://hub.example.com: listing, through http://proxy:3128
host https://cdn.example.com: files
  and where these redirect to, which is known on the way only
  and what has the files of 2 more places, not looked up
  and where the library behind odd:// gets bytes from
credential for https://hub.example.com: bearer token from STORE_TOKEN until 1970-01-01T00:00:00+00:00
credential for https://b: anonymous"""


def test_text() -> None:
    assert plan_as_text(PLAN) == TEXT


def test_nothing_to_do() -> None:
    assert plan_as_text(DownloadPlan()) == "\nnothing to fetch\nno network is used"


def test_many_files_with_long_names_make_a_short_table() -> None:
    files = tuple(planned(f"{'deep/' * 20}model-{number:05}.bin", 1_000 - number) for number in range(30))
    lines = plan_as_text(DownloadPlan(files=files)).splitlines()
    assert lines[2].endswith("/deep/model-00000.bin")
    assert "…" in lines[2]
    assert max(map(len, lines)) == 80
    assert lines[22] == "and 10 files more, 9.8 kB; --json lists all"


def test_control_characters_do_not_reach_a_terminal() -> None:
    assert "\x1b" not in plan_as_text(DownloadPlan(files=(planned("a\x1b[2Jb", 1),)))


def test_json() -> None:
    record = plan_as_json(PLAN)
    assert record["files"][1] == {
        "path": "large.bin",
        "uri": "store://large.bin",
        "size": 5_000,
        "state": "resume",
        "resumed": 3_000,
        "to_fetch": 2_000,
    }
    assert (record["files_to_fetch"], record["bytes_to_fetch"], record["unknown_sizes"]) == (3, 3_000, 1)
    assert record["devices"][1] == {
        "mount": "/data",
        "folder": "/cache/tmp",
        "needed": 3_000,
        "free": 2_000,
        "inodes_needed": 8,
        "inodes_free": 100,
        "fits": False,
    }
    assert record["error"]["exit_code"] == 61
    assert record["hosts"][0] == {"host": HUB, "listing": True, "files": False, "proxy": "http://proxy:3128"}
