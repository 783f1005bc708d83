"""The pure parts of ``bench/transfer.py``, and the measuring of one process."""

from __future__ import annotations

import hashlib
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from blake3 import blake3
from transfer_bench.cases import CASES, amount
from transfer_bench.contestants import CONTESTANTS, OURS, OURS_SHA256
from transfer_bench.measure import last_line, measure
from transfer_bench.nginx import parse_log, peak_overlap, sent
from transfer_bench.plot import bars, draw
from transfer_bench.profiling import top_lists
from transfer_bench.records import MIB, Command, Content, Endpoint, Failed, Mode, Sample, Sizes, Skipped, Task
from transfer_bench.report import Facts, as_json, as_markdown, case_table
from transfer_bench.rounds import Arena, CaseResult, hide, resume_facts
from transfer_bench.source import ASIDE, delivered, empty, make_files, manifest
from transfer_bench.stats import parse_size, ratios, show_bytes, summarize
from transfer_bench.targets import fastest_peer, judge
from transfer_bench.tools import Toolbox

from nim_core.manifest import load_manifest

FACTS = Facts(
    machine="2 cores", file_system="ext4", disk="fast", rounds=2, versions={"curl": "8"}, missing={}, repeat="bench"
)


def runs(*walls: float, cpu: float = 1.0, rss: int = 20 * MIB, **extra: float) -> list[Sample]:
    return [Sample(wall=wall, cpu=cpu, rss=rss, extra=extra) for wall in walls]


def result_of(name: str, samples: dict[str, list[Sample]], *, skipped: str = "", **missing: str) -> CaseResult:
    count, size = amount(CASES[name].files, Sizes())
    return CaseResult(case=CASES[name], count=count, size=size, samples=samples, missing=dict(missing), skipped=skipped)


def verdicts_of(*results: CaseResult) -> dict[tuple[str, str], str]:
    found = judge({result.case.name: result for result in results})
    return {(verdict.case, verdict.target): verdict.show() for verdict in found}


@pytest.fixture
def task(tmp_path: Path) -> Task:
    (tmp_path / "to").mkdir()
    return Task(
        files=make_files(tmp_path / "from", "one", 1, 1000),
        endpoint=Endpoint(base="http://127.0.0.1:8/"),
        folder=tmp_path / "to",
        scratch=tmp_path,
        tools={name: Path(f"/bin/{name}") for name in ("curl", "aria2c", "hf", "s5cmd", "rclone", "aws", "boto3")},
    )


# ----------------------------------------------------------------------------------------------------------- statistics
def test_a_summary_has_the_middle_and_the_spread():
    assert summarize([3.0, 1.0, 2.0]).show() == "2.00 (1.00 to 3.00)"
    assert summarize([1.234]).show(1) == "1.2"
    with pytest.raises(ValueError, match="nothing"):
        summarize([])


def test_ratios_are_taken_round_by_round():
    assert ratios([1, 4, 9], [2, 2, 0]) == [0.5, 2.0]


@pytest.mark.parametrize(("text", "size"), [("8192", 8192), ("512M", 512 * MIB), ("4GiB", 4096 * MIB), ("0.5k", 512)])
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("size", "shown"), [(512, "512 B"), (8192, "8 KiB"), (128 * MIB, "128 MiB"), (4096 * MIB, "4 GiB")]
)
def test_sizes_are_shown(size, shown):
    assert show_bytes(size) == shown


# ------------------------------------------------------------------------------------------------------------- contents
def test_files_are_the_same_every_time_and_have_the_digests_they_are_said_to_have(tmp_path):
    first, second = (make_files(tmp_path / name, "x", 2, 5 * MIB + 1) for name in "ab")
    assert [content.digests for content in first] == [content.digests for content in second]
    assert first[0].digests != first[1].digests
    data = first[0].path.read_bytes()
    assert len(data) == first[0].size
    assert first[0].digests == {"blake3": blake3(data).hexdigest(), "sha256": hashlib.sha256(data).hexdigest()}


def test_few_files_are_removed_and_many_small_ones_moved_aside(tmp_path):
    folder = tmp_path / "files"
    for count, kept in ((3, []), (600, [600])):
        make_files(folder, "f", count, 10)
        empty(folder)
        assert list(folder.iterdir()) == []
        assert [len(list(old.iterdir())) for old in tmp_path.glob(f"{ASIDE}/*")] == kept


def test_holes_and_links_do_not_count_as_delivered(tmp_path):
    (tmp_path / "whole").write_bytes(b"x" * 10000)
    (tmp_path / "link").symlink_to("whole")
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(1 << 20)
    assert delivered(tmp_path) == 10000


@pytest.mark.parametrize("algorithm", ["blake3", "sha256"])
def test_the_manifest_can_be_loaded(task, tmp_path, algorithm):
    path = tmp_path / "manifest.yaml"
    path.write_text(manifest(task, algorithm))
    (profile,) = load_manifest(path).profiles
    (file,) = profile.files
    assert (file.uri, str(file.digest)) == (
        "http://127.0.0.1:8/one.bin",
        f"{algorithm}:{task.files[0].digests[algorithm]}",
    )


# ----------------------------------------------------------------------------------------------------------- access log
LOG = "1 10.500 0.500 100 206 GET\n2 10.400 0.200 50 206 GET\n2 11.000 0.400 70 200 GET\n3 10.300 0.100 0 200 HEAD\n"


def test_the_log_tells_bytes_and_how_many_requests_there_were_at_once():
    requests = parse_log(LOG)
    assert sent(requests) == 220
    assert peak_overlap(requests) == 2
    assert peak_overlap([]) == 0


def test_what_a_resume_cost_is_told_from_the_logs_of_both_runs():
    facts = resume_facts(LOG, "4 20.000 1.000 30 206 GET\n", on_disk=180, size=200)
    assert facts == {"again": 10, "twice": 50, "connections": 2, "part": 30}


# -------------------------------------------------------------------------------------------------------- command lines
def test_every_contestant_of_a_case_is_known():
    assert {name for case in CASES.values() for name in case.contestants} == set(CONTESTANTS)
    assert all(case.contestants[0] == OURS for case in CASES.values())


def test_the_ranges_of_parallel_curl_are_the_file(task):
    arguments = CONTESTANTS["curl --parallel"].command(task).arguments
    ranges = [arguments[index + 1].split("-") for index, word in enumerate(arguments) if word == "--range"]
    covered = [number for first, last in ranges for number in range(int(first), int(last) + 1)]
    assert covered == list(range(1000))


@pytest.mark.parametrize("name", ["s5cmd", "rclone", "boto3", "boto3 CRT", "aws", "hf"])
def test_who_cannot_use_a_plain_server_says_so(task, name):
    with pytest.raises(Skipped):
        CONTESTANTS[name].command(task)


# ------------------------------------------------------------------------------------------------------------ measuring
def test_a_process_is_measured_with_its_children_and_without_this_one(task):
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'bytes([1]) * (64 << 20)'])"
    sample = measure(Command(arguments=(sys.executable, "-c", script)), task, 60)
    assert sample.wall > 0
    assert sample.cpu > 0
    assert 64 * MIB < sample.rss < 120 * MIB
    small = measure(Command(arguments=(sys.executable, "-S", "-c", "pass")), task, 60)
    assert small.rss < 30 * MIB


def test_a_failure_is_told_in_the_words_of_who_failed(task):
    script = "import sys; print('first', file=sys.stderr); sys.exit('nothing there')"
    with pytest.raises(Failed, match="exit 1: nothing there"):
        measure(Command(arguments=(sys.executable, "-c", script)), task, 60)
    with pytest.raises(Failed, match="not done after"):
        measure(Command(arguments=(sys.executable, "-c", "import time; time.sleep(60)")), task, 0.3)


def test_the_last_line_is_looked_for_in_both_outputs(tmp_path):
    (tmp_path / "error").write_text("\n")
    (tmp_path / "output").write_text("one\ntwo\n\n")
    assert last_line(tmp_path / "error", tmp_path / "output") == "two"
    assert last_line(tmp_path / "missing") == "it said nothing"


# -------------------------------------------------------------------------------------------------------------- targets
def test_the_fastest_peer_is_not_one_of_ours_nor_one_that_does_more():
    samples = {
        OURS: runs(1.0),
        OURS_SHA256: runs(1.0),
        "curl": runs(3.0),
        "aria2c": runs(2.0),
        "curl, fsync": runs(1.5),
    }
    assert fastest_peer(result_of("one", samples)) == "aria2c"
    assert fastest_peer(result_of("one", {OURS: runs(1.0)})) is None


def test_targets_are_met_or_missed_by_so_much():
    samples = {
        OURS: runs(2.0, 2.2, cpu=3.0),
        OURS_SHA256: runs(2.2, 2.2),
        "curl": runs(2.0, 2.0),
        "curl, sha256sum": runs(4.0, 4.0),
    }
    assert verdicts_of(result_of("one", samples)) == {
        ("one", "time of ours / fastest peer"): "missed by 5 %",
        ("one", "time of ours, sha256 / fastest peer"): "met",
        ("one", "time of ours / curl then sha256sum"): "met",
        ("one", "CPU seconds per GiB / curl"): "missed by 50 %",
        ("all", "peak memory in MiB"): "met",
    }


def test_figures_that_have_to_be_large_are_missed_from_below():
    small = result_of("small", {OURS: runs(4.0), "aria2c": runs(2.0), "curl --parallel": runs(2.0)})
    cap = result_of("cap", {OURS: runs(4.0, of_cap=0.475, connections=8)})
    found = verdicts_of(small, cap)
    assert found["small", "files per second / aria2c"] == "missed by 100 %"
    assert found["small", "files per second / curl --parallel"] == "met"
    assert found["cap", "share of connections x cap"] == "missed by 100 %"


def test_the_worst_resume_and_the_largest_memory_count():
    twice = [runs(1.0, twice=count * MIB, connections=2, part=64 * MIB, again=0)[0] for count in (1, 256)]
    found = verdicts_of(
        result_of("resume", {OURS: twice}), result_of("warm", {OURS: runs(0.2, rss=300 * MIB)}, hf="no hf")
    )
    assert found["resume", "parts per connection again"] == "missed by 100 %"
    assert found["warm", "seconds, interpreter start included"] == "met"
    assert found["all", "peak memory in MiB"] == "missed by 100 %"


def test_what_was_not_measured_is_named_with_the_reason():
    found = verdicts_of(
        result_of("s3-small", {OURS: runs(1.0)}, s5cmd="not on PATH"), result_of("tls", {}, skipped="no openssl")
    )
    assert found["s3-small", "files per second / s5cmd"] == "not measured: s5cmd: not on PATH"
    assert found["tls", "CPU seconds per GiB / curl"] == "not measured: no openssl"


# --------------------------------------------------------------------------------------------------------------- report
def test_reasons_show_neither_paths_nor_signatures(tmp_path):
    arena = Arena(folder=tmp_path, destination=tmp_path / "to", tools=Toolbox(), sizes=Sizes())
    said = f"no {tmp_path}/to/x from http://127.0.0.1/x?X-Amz-Signature=secret today"
    assert hide(said, arena) == "no .../x from http://127.0.0.1/x?... today"


def test_a_table_has_medians_and_ratios_of_rounds():
    table = case_table(result_of("cap", {OURS: runs(2.0, 4.0, of_cap=0.5, connections=8), "curl": runs(4.0, 4.0)}))
    ours, curl = table.splitlines()[2:]
    assert ours.startswith("| ours | 3.00 (2.00 to 4.00) |  | 1,365 MiB/s | 0.25 | 20 | 0.500 (0.500 to 0.500) |")
    assert curl.startswith("| curl | 4.00 (4.00 to 4.00) | 0.75 (0.50 to 1.00) |")


def test_the_report_has_every_case_and_every_reason():
    results = [
        result_of("one", {OURS: runs(1.0), "curl": runs(2.0)}, aria2c="not on PATH"),
        result_of("tls", {}, skipped="why"),
    ]
    verdicts = judge({result.case.name: result for result in results})
    text = as_markdown(results, verdicts, FACTS, "transfer.svg")
    assert "- aria2c not measured: not on PATH" in text
    assert "Not measured: why." in text
    assert "![time of each tool as a multiple of ours](transfer.svg)" in text
    figures = as_json(results, verdicts, FACTS)
    assert [*figures["cases"]] == ["one", "tls"]
    assert figures["cases"]["one"]["samples"]["curl"][0]["wall"] == 2.0


def test_the_plot_is_well_formed_and_has_a_bar_for_each():
    found = bars([result_of("one", {OURS: runs(1.0), "curl": runs(2.0), "a & b": runs(9.0)}), result_of("warm", {})])
    root = ET.fromstring(draw(found))
    assert len([element for element in root if element.tag.endswith("rect")]) == 2
    assert "4.00" not in draw(found)


def test_profiles_are_summed_by_thread_function_and_caller():
    stacks = (
        "thread (0x7f): nim-curl;_run (/a/b/transfer/curl.py:1);write (/a/b/transfer/sinks.py:2) 150\n"
        "thread (0x7f): nim-curl;_run (/a/b/transfer/curl.py:1) 50\n"
        "thread (0x80): nim-hash;Workers._run (workers.py:3) 900\n"
    )
    text = top_lists(stacks, 100)
    assert "2.00  nim-curl" in text
    assert "1.50  nim-curl: write (transfer/sinks.py:2)" in text
    assert "2.00  _run (transfer/curl.py:1)" in text
    assert "nim-hash" not in text
    assert "/a/b" not in text


def test_a_task_uses_signed_addresses_where_there_are_some(task):
    assert task.url(task.files[0]) == "http://127.0.0.1:8/one.bin"
    assert task.mode is Mode.FRESH
    assert isinstance(task.files[0], Content)
