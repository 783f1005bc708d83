"""``nim-serve-ray`` on two machines, with Ray itself and an engine that stands in for one."""

from __future__ import annotations

import shutil
import signal
import time

import pytest

from tests.ray.lab import FILES, LEADER, RAY_PORT, SERVER_PORT, WORKER, Lab, lab

SIZES = {name: len(data) for name, data in FILES.items()}

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def two():
    with lab() as made:
        yield made


def served(two: Lab, leader):
    """Wait for the engine, and check that it was told what it has to know."""
    started = two.leader.until_served(leader)
    assert started["files"] == SIZES
    assert started["nodes"] == "ray:2"
    assert started["ray_address"] == f"{LEADER}:{RAY_PORT}"
    return started


def workspace_of_worker(two: Lab, started):
    """Return the files' sizes beneath the same path on the worker."""
    inside = started["workspace"].removeprefix(f"{two.folder}/shared/at/")
    folder = two.worker.cache / inside
    return {path.name: path.stat().st_size for path in folder.iterdir() if path.name[0] != "."}


def test_shared_cache_and_the_end_that_was_asked_for(two):
    began = time.monotonic()
    leader = two.lead("--some-argument", "7", share_cache=True)
    while two.leader.get("/v1/health/live") is None:
        assert time.monotonic() < began + 15, leader.said
    assert two.leader.get("/v1/health/ready") is None
    worker = two.work(share_cache=True)
    started = served(two, leader)
    assert started["words"] == ["--some-argument", "7"]
    assert two.fetched() == sorted(FILES)
    assert f"{WORKER} has the model" in leader.said
    assert f"2 of 2 nodes are there: {LEADER}, {WORKER}" in leader.said
    status = two.worker.start("ray", "status").end()
    assert status.code == 0
    assert "Active" in status.stderr
    assert leader.end(signal.SIGTERM).code == 0, leader.said
    assert two.leader.processes == []
    ended = worker.end()
    assert ended.code == 73
    assert f"this node's part in the Ray cluster of {LEADER}:{RAY_PORT} ended" in ended.last
    assert two.worker.empty_after(5) == []


def test_caches_of_their_own_and_a_worker_that_leaves(two):
    leader, worker = two.lead(), two.work()
    started = served(two, leader)
    assert workspace_of_worker(two, started) == SIZES
    assert two.fetched() == sorted([*FILES, *FILES])
    assert worker.end(signal.SIGTERM).code == 0, worker.said
    assert two.worker.empty_after(5) == []
    ended = leader.end()
    assert ended.code == 73
    assert f"a node left the Ray cluster: {WORKER}" in ended.last
    assert two.leader.empty_after(5) == []


def test_leader_killed(two):
    leader, worker = two.lead(share_cache=True), two.work(share_cache=True)
    served(two, leader)
    leader.process.kill()
    assert two.leader.empty_after(20) == []
    assert worker.end().code == 73
    assert two.worker.empty_after(5) == []


def test_worker_that_may_not_download_and_has_nothing(two):
    two.worker.environment["NIM_DISABLE_MODEL_DOWNLOAD"] = "1"
    leader, worker = two.lead(), two.work()
    ended = leader.end()
    assert ended.code == 64, ended.stderr
    assert f"node {WORKER} cannot get the model:" in ended.last
    assert "model.safetensors" in ended.stderr
    assert "NIM_DISABLE_MODEL_DOWNLOAD" in ended.last
    assert two.leader.empty_after(5) == []
    assert worker.end(signal.SIGTERM).code == 0
    assert two.worker.empty_after(5) == []


def test_worker_that_may_not_download_and_has_the_model(two):
    filled = two.leader.start("download-to-cache").end()
    assert filled.code == 0, filled.stderr
    shutil.copytree(two.leader.cache, two.worker.cache, symlinks=True, dirs_exist_ok=True)
    for node in (two.leader, two.worker):
        node.environment["NIM_DISABLE_MODEL_DOWNLOAD"] = "1"
    leader, worker = two.lead(), two.work()
    started = served(two, leader)
    assert workspace_of_worker(two, started) == SIZES
    assert two.fetched() == sorted(FILES)
    assert leader.end(signal.SIGTERM).code == 0
    assert worker.end(signal.SIGTERM).code == 0


def test_worker_that_never_comes(two):
    leader = two.lead(NIM_RAY_NODES_TIMEOUT="8")
    ended = leader.end()
    assert ended.code == 70, ended.stderr
    assert f"1 of 2 nodes came within 8 s: {LEADER}" in ended.last
    assert "NIM_RAY_NODES_TIMEOUT" in ended.last
    assert two.leader.empty_after(5) == []


def test_no_head_where_a_worker_looks(two):
    worker = two.work(NIM_RAY_NODES_TIMEOUT="3")
    ended = worker.end()
    assert ended.code == 70, ended.stderr
    assert f"no Ray head at {LEADER}:{RAY_PORT} within 3 s: " in ended.last
    assert two.worker.processes == []


def test_worker_told_to_end_while_it_looks(two):
    worker = two.work()
    worker.until("waiting for the Ray head")
    assert worker.end(signal.SIGTERM).code == 0
    assert two.worker.processes == []


def test_leader_told_to_end_while_it_waits(two):
    leader = two.lead()
    leader.until("1 of 2 nodes are there")
    assert leader.end(signal.SIGTERM).code == 143
    assert two.leader.empty_after(5) == []


def test_port_of_the_head_taken(two):
    two.leader.environment["NIM_SERVER_PORT"] = str(SERVER_PORT + 1)
    first = two.lead()
    first.until("1 of 2 nodes are there")
    two.leader.environment["NIM_SERVER_PORT"] = str(SERVER_PORT)
    ended = two.lead().end()
    assert ended.code == 73, ended.stderr
    assert f"the Ray head at {LEADER}:{RAY_PORT} ended" in ended.stderr
    assert first.process.poll() is None
    assert first.end(signal.SIGTERM).code == 143
    assert two.leader.empty_after(5) == []
