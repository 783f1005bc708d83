from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest

from nim_core.errors import BackendMissingError, ConfigError
from nim_core.serving.ray_plans import Endpoint, RayProgram, driver_plan, find_ray, head_plan, join_plan
from nim_core.serving.ray_progress import Progress, node_error, read_event

RAY = RayProgram(command="/venv/bin/ray", python="/venv/bin/python3")


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("leader:6380", "leader", 6380, "leader:6380"),
        ("leader", "leader", 6379, "leader:6379"),
        ("[fd00::1]:7", "fd00::1", 7, "[fd00::1]:7"),
        ("[fd00::1]", "fd00::1", 6379, "[fd00::1]:6379"),
    ],
)
def test_address_of_a_head(text, host, port, shown):
    endpoint = Endpoint.parse(text)
    assert endpoint == Endpoint(host, port)
    assert str(endpoint) == shown


@pytest.mark.parametrize("text", ["", ":6379", "leader:", "leader:x", "leader:0", "leader:65536", "leader:-1", "a:٣"])
def test_no_address_of_a_head(text):
    with pytest.raises(ConfigError, match="not the address of a Ray head"):
        Endpoint.parse(text)


def test_processes_of_a_head():
    plan = head_plan(RAY, "10.0.0.1", 6380, {})
    assert plan.argv == (
        "/venv/bin/ray",
        "start",
        "--head",
        "--port=6380",
        "--node-ip-address=10.0.0.1",
        "--include-dashboard=false",
        "--disable-usage-stats",
        "--block",
    )
    assert plan.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert plan.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] == "0"
    assert plan.environ["NIM_RAY_PYTHON"] == sys.executable
    assert plan.environ["RAY_gcs_rpc_server_reconnect_timeout_s"] == "30"
    assert plan.without == ("RAY_ADDRESS",)


def test_processes_of_a_worker_and_what_the_user_set():
    own = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
    plan = join_plan(RAY, Endpoint("10.0.0.1", 6380), "10.0.0.2", own)
    assert plan.argv[1:] == ("start", "--address=10.0.0.1:6380", "--node-ip-address=10.0.0.2", "--block")
    assert plan.environ["RAY_gcs_rpc_server_reconnect_timeout_s"] == "5"


def test_driver_is_run_by_the_python_of_ray():
    python, *words, order = driver_plan(RAY, Path("/o.json"), {}).argv
    assert (python, words[0], order) == ("/venv/bin/python3", "-P", "/o.json")
    assert Path(words[1]).name == "ray_driver.py"


@pytest.fixture
def no_ray_beside(tmp_path, monkeypatch):
    (tmp_path / "scripts").mkdir()
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path / "scripts"))
    return tmp_path


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_ray_beside_this_python_comes_first(no_ray_beside):
    beside = executable(no_ray_beside / "scripts/ray")
    executable(no_ray_beside / "bin/ray")
    assert find_ray(str(no_ray_beside / "bin")) == RayProgram(command=str(beside), python=sys.executable)


def test_ray_of_another_environment(no_ray_beside):
    real = executable(no_ray_beside / "tool/bin/ray")
    python = executable(no_ray_beside / "tool/bin/python3")
    link = no_ray_beside / "bin/ray"
    link.parent.mkdir()
    link.symlink_to(real)
    assert find_ray(str(link.parent)) == RayProgram(command=str(link), python=str(python))


def test_no_ray(no_ray_beside):
    with pytest.raises(BackendMissingError, match="Ray is not installed") as caught:
        find_ray(str(no_ray_beside))
    assert caught.value.hint is not None
    assert "nim-core[ray]" in caught.value.hint


def test_ray_without_its_python(no_ray_beside):
    executable(no_ray_beside / "bin/ray")
    with pytest.raises(BackendMissingError, match="no Python beside Ray's command"):
        find_ray(str(no_ray_beside / "bin"))


def test_error_of_a_node_is_of_its_class_there():
    lines = [
        "INFO 2026-01-01 00:00:00.000 plan.py:1] listing",
        "  model.safetensors",
        "error: 1 file is not in the cache (exit 64); hint: unset NIM_DISABLE_MODEL_DOWNLOAD",
    ]
    error = node_error("10.0.0.2", 64, lines)
    assert type(error).__name__ == "CacheIncompleteError"
    assert error.message == "node 10.0.0.2 cannot get the model: 1 file is not in the cache\n  model.safetensors"
    assert error.hint == "unset NIM_DISABLE_MODEL_DOWNLOAD"


@pytest.mark.parametrize(("status", "lines", "text"), [(1, [], "status 1"), (137, ["Killed"], "Killed")])
def test_error_of_a_node_that_says_little(status, lines, text):
    error = node_error("n", status, lines)
    assert type(error).__name__ == "BackendError"
    assert error.message == f"node n cannot get the model: {text}"


def test_node_that_was_started_by_somebody_else():
    assert "was not started by nim-serve-ray" in node_error("n", None, []).message


def test_progress():
    progress = Progress(2, 5)
    assert progress.waits
    progress.note({"event": "nodes", "addresses": ["a"]})
    assert progress.waits
    assert progress.missing().message == "1 of 2 nodes came within 5 s: a"
    progress.note({"event": "nodes", "addresses": ["a", "b"]})
    progress.note({"event": "done", "node": "b", "status": 0})
    assert not progress.waits
    assert not progress.ready
    progress.note({"event": "ready"})
    assert progress.ready


@pytest.mark.parametrize("text", ["", "ray said", "[1]", '{"event": 1}', '{"other": "x"}'])
def test_lines_of_ray_are_no_events(text):
    assert read_event(text) is None
