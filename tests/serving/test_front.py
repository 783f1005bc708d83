"""The front's own endpoints."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time

import pytest

from nim_core.serving.state import Engine, Progress
from nim_core.types import LaunchPlan
from tests.serving.conftest import SERVED, Fronts, RunningEngine, running_engine

PHASES = ("starting", "choosing", "listing", "downloading", "verifying", "laying out", "starting engine", "stopping")
OWN = {
    "/v1/health/live",
    "/v1/health/ready",
    "/v1/metadata",
    "/v1/manifest",
    "/v1/version",
    "/v1/license",
    "/v1/metrics",
}


@pytest.mark.parametrize("phase", PHASES)
def test_live_and_not_ready_in_every_phase(fronts: Fronts, phase: str) -> None:
    front = fronts.before(None)
    front.state.enter(phase)
    live, ready = front.client.get("/v1/health/live"), front.client.get("/v1/health/ready")
    assert (live.status_code, live.json()) == (200, {"status": "live"})
    assert ready.status_code == 503
    assert ready.json()["status"] == "not ready"
    assert ready.json()["phase"] == phase


def test_progress_of_a_download(fronts: Fronts) -> None:
    front = fronts.before(None)
    front.state.enter("downloading", lambda: Progress(done=5, total=10, seconds_left=2.04))
    told = front.client.get("/v1/health/ready").json()
    assert told.pop("phase_seconds") < 10
    expected = {"bytes_done": 5, "bytes_total": 10, "eta_seconds": 2.0}
    assert told == {"status": "not ready", "phase": "downloading", **expected}


def test_ready(fronts: Fronts, engine: RunningEngine) -> None:
    ready = fronts.before(engine.url).client.get("/v1/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})


def test_the_engine_is_not_asked_for_every_probe(fronts: Fronts, engine: RunningEngine) -> None:
    front = fronts.before(engine.url)
    before = engine.told()["asked"]
    for _ in range(30):
        assert front.client.get("/v1/health/ready").status_code == 200
    assert engine.told()["asked"] - before <= 2


@pytest.mark.parametrize("how", ["die", "hang"])
def test_an_engine_that_dies_or_hangs_is_not_ready(fronts: Fronts, how: str) -> None:
    with running_engine() as own:
        front = fronts.before(own.url)
        assert front.client.get("/v1/health/ready").status_code == 200
        subprocess.run(["curl", "-s", "-X", "POST", f"{own.url}/misbehave/{how}"], check=False)
        time.sleep(1.1)
        told = front.client.get("/v1/health/ready")
        assert told.status_code == 503
        assert told.json()["reason"] == "the engine does not answer its health check"
        assert front.client.get("/v1/health/live").status_code == 200


def test_an_engine_without_http_is_as_ready_as_it_runs(fronts: Fronts) -> None:
    front = fronts.before("http://127.0.0.1:1", health_path=None)
    assert front.client.get("/v1/health/ready").status_code == 200
    front.state.started(None)
    assert front.client.get("/v1/health/ready").status_code == 503


def test_another_engine_is_asked_anew(fronts: Fronts, engine: RunningEngine) -> None:
    front = fronts.before("http://127.0.0.1:1")
    assert front.client.get("/v1/health/ready").status_code == 503
    front.state.started(Engine(url=engine.url, plan=LaunchPlan(argv=("x",))))
    assert front.client.get("/v1/health/ready").status_code == 200


@pytest.mark.parametrize("path", ["/v1/metadata", "/v1/manifest", "/v1/license"])
def test_what_is_not_known_yet(fronts: Fronts, path: str) -> None:
    front = fronts.before(None)
    front.state.enter("choosing")
    told = front.client.get(path)
    assert told.status_code == 503
    assert told.json()["phase"] == "choosing"
    assert told.headers["retry-after"]


def test_what_is_served(fronts: Fronts) -> None:
    front = fronts.before(None)
    front.state.chosen(SERVED)
    text = "Be kind.\n"
    license_info = {
        "name": "LICENSE",
        "path": "legal/LICENSE",
        "sha": hashlib.sha256(text.encode()).hexdigest(),
        "size": 9,
        "url": "",
        "type": "file",
        "content": text,
    }
    assert front.client.get("/v1/metadata").json() == {
        "version": "2.0.9",
        "modelInfo": [{"modelUrl": "ngc://nim/meta/tiny:1.0", "shortName": "tiny:1.0"}],
        "profile_id": "ab" * 32,
        "profile_name": "tiny-fp16-tp1",
        "licenseInfo": license_info,
        "backend": {"name": "stand-in", "version": "1"},
    }
    assert front.client.get("/v1/manifest").json() == {"manifest_file": "schema: 2\n"}
    assert front.client.get("/v1/version").json() == {"release": "2.0.9", "api": "1.0.0"}
    assert front.client.get("/v1/license").json() == {**license_info, "licenses": [license_info]}


def test_figures(fronts: Fronts, engine: RunningEngine) -> None:
    front = fronts.before(engine.url)
    front.state.chosen(SERVED)
    assert front.client.post("/v1/echo", content=b"x").status_code == 200
    for number in range(150):
        front.client.get(f"/nothing/{number}")
        front.client.get(f"/v1/made-up/{number}?status=404")
    told = front.client.get("/v1/metrics")
    assert told.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = told.text.splitlines()
    assert 'nim_requests_total{path="/v1/echo",status="200"} 1.0' in lines
    assert 'nim_requests_total{path="other",status="404"} 150.0' in lines
    assert 'nim_request_duration_seconds_count{path="/v1/echo"} 1.0' in lines
    assert 'nim_phase{phase="serving"} 1.0' in lines
    assert "nim_ready 1.0" in lines
    assert "nim_requests_in_flight 0.0" in lines
    assert any(line.startswith("nim_info{") and 'profile_name="tiny-fp16-tp1"' in line for line in lines)
    assert lines[-1] == "engine_tokens_total 3"


def test_figures_of_a_download(fronts: Fronts) -> None:
    front = fronts.before(None)
    front.state.enter("downloading", lambda: Progress(done=5, total=10))
    lines = front.client.get("/v1/metrics").text.splitlines()
    assert {"nim_phase_bytes 5.0", "nim_phase_bytes_total 10.0", "nim_ready 0.0"} <= set(lines)


def test_description_of_both(fronts: Fronts, engine: RunningEngine) -> None:
    assert set(fronts.before(None).client.get("/openapi.json").json()["paths"]) == OWN
    assert set(fronts.before(engine.url).client.get("/openapi.json").json()["paths"]) == {*OWN, "/v1/engine"}


def test_health_alone(fronts: Fronts, engine: RunningEngine) -> None:
    front = fronts.before(engine.url, options={"proxies": False})
    assert front.client.get("/v1/health/ready").status_code == 200
    assert front.client.get("/v1/echo").status_code == 404


@pytest.mark.parametrize(("origins", "answered"), [(("*",), "*"), (("https://a.example",), "https://a.example")])
def test_other_origins(fronts: Fronts, engine: RunningEngine, origins: tuple[str, ...], answered: str) -> None:
    front = fronts.before(engine.url, options={"allowed_origins": origins, "allowed_methods": ("GET", "POST")})
    origin = {"origin": "https://a.example"}
    asks = {**origin, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    preflight = front.client.options("/v1/echo", headers=asks)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == answered
    assert preflight.headers["access-control-allow-methods"] == "GET, POST"
    told = front.client.post("/v1/echo", headers=origin, content=b"x")
    assert told.headers.get_list("access-control-allow-origin") == [answered]  # and not the engine's own besides
    assert front.client.get("/v1/health/live", headers=origin).headers["access-control-allow-origin"] == answered


def test_origins_that_may_not(fronts: Fronts) -> None:
    front = fronts.before(None, options={"allowed_origins": ("https://a.example",)})
    told = front.client.get("/v1/health/live", headers={"origin": "https://b.example"})
    assert "access-control-allow-origin" not in told.headers


def test_listening_imports_no_client() -> None:
    code = (
        "import sys, json; import nim_core.serving.front, nim_core.serving.listener; print(json.dumps([*sys.modules]))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"aiohttp", "httpx", "prometheus_client", "rich", "pycurl"} & set(json.loads(told))
