"""Requests to the engine through the front, and its answers back."""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest

from nim_core.serving.proxy import allowed
from nim_core.types import FrontDuties, Secret
from tests.serving.conftest import Fronts, RunningEngine, free_port, running_engine, until

NAMED = FrontDuties(model="m", lists_models=True)


def header(told: dict[str, Any], name: str) -> list[str]:
    return [value for key, value in told["headers"] if key == name]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_a_request_arrives_as_it_was_sent(fronts: Fronts, engine: RunningEngine, method: str) -> None:
    front = fronts.before(engine.url)
    body = b"" if method in {"GET", "OPTIONS"} else b"\x00\xff{body}"
    path = "/v1/a%2Fb%20c/%C3%BC"
    headers = {"x-one": "1", "accept-encoding": "zstd", "authorization": "Bearer k", "user-agent": "me"}
    told = front.client.request(method, f"{path}?q=%20x&y", content=body, headers=headers).json()
    assert (told["method"], told["path"], told["query"]) == (method, path, "q=%20x&y")
    assert told["sha256"] == hashlib.sha256(body).hexdigest()
    for name, value in headers.items():
        assert header(told, name) == [value]
    assert header(told, "host") == [engine.url.removeprefix("http://")]


def test_headers_between_neighbours_stay_there(fronts: Fronts, engine: RunningEngine) -> None:
    front = fronts.before(engine.url)
    headers = {"connection": "close, x-private", "x-private": "1", "te": "trailers", "proxy-authorization": "x"}
    told = front.client.get("/v1/echo", headers=headers)
    names = {name for name, _ in told.json()["headers"]}
    assert not names & {"x-private", "te", "proxy-authorization", "upgrade"}
    assert told.headers["x-own"] == "1"
    assert "x-hop" not in told.headers
    assert len(told.headers.get_list("date")) == 1


@pytest.mark.parametrize("status", [201, 204, 304, 400, 404, 429, 500, 503])
def test_statuses_are_the_engines(fronts: Fronts, engine: RunningEngine, status: int) -> None:
    assert fronts.before(engine.url).client.get(f"/v1/echo?status={status}").status_code == status


def test_head_has_no_body(fronts: Fronts, engine: RunningEngine) -> None:
    front = fronts.before(engine.url)
    told = front.client.head("/v1/echo")
    assert told.status_code == 200
    assert told.content == b""
    assert front.client.get("/v1/health/live").status_code == 200  # the connection is still in step


@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies_pass_in_pieces(fronts: Fronts, engine: RunningEngine, chunked: bool) -> None:
    front = fronts.before(engine.url)
    piece = b"x" * (1 << 20)

    def pieces() -> Iterator[bytes]:
        for number in range(30):
            if number == 29:
                time.sleep(0.5)
            yield piece

    headers = {} if chunked else {"content-length": str(30 << 20)}
    told = front.client.post("/v1/upload", content=pieces(), headers=headers).json()
    assert told["size"] == 30 << 20
    assert told["seconds"] > 0.4  # the engine had the first piece before the client had sent the last


def test_tokens_pass_one_by_one(fronts: Fronts, engine: RunningEngine) -> None:
    front = fronts.before(engine.url)
    with front.client.stream("GET", "/v1/stream?n=5&pause=0.1") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        arrived = [(time.monotonic(), text) for text in answer.iter_raw()]
    assert b"".join(text for _, text in arrived) == b"".join(b"data: %d\n\n" % number for number in range(5))
    assert len(arrived) == 5
    assert min(later[0] - earlier[0] for earlier, later in pairwise(arrived)) > 0.03


def test_a_client_that_leaves_ends_the_engines_work(fronts: Fronts, engine: RunningEngine) -> None:
    front = fronts.before(engine.url)
    before = engine.told()["left"]
    with front.client.stream("GET", "/v1/stream?n=1000&pause=0.05") as answer:
        next(answer.iter_raw())
    until(lambda: engine.told()["left"] == before + 1, 5)
    until(lambda: 'nim_requests_broken_total{by="client"} 1.0' in front.client.get("/v1/metrics").text, 5)
    assert "nim_requests_in_flight 0.0" in front.client.get("/v1/metrics").text


def test_a_client_that_leaves_before_the_answer_begins(fronts: Fronts) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        front = fronts.before(f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(httpx.ReadTimeout):
            front.client.post("/v1/x", content=b"x", timeout=0.3)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(5)
            received = b"".join(iter(lambda: connection.recv(4096), b""))  # to the end, which the front makes
        assert received.startswith(b"POST /v1/x HTTP/1.1\r\n")


def test_a_client_that_leaves_during_its_request(fronts: Fronts, engine: RunningEngine) -> None:
    front = fronts.before(engine.url)
    with socket.create_connection(("127.0.0.1", front.listener.port)) as client:
        client.sendall(b"POST /v1/upload HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 5000)
        time.sleep(0.3)
    until(lambda: "nim_requests_in_flight 0.0" in front.client.get("/v1/metrics").text, 5)
    assert 'nim_requests_broken_total{by="client"} 1.0' in front.client.get("/v1/metrics").text


def test_an_engine_that_dies_breaks_the_answer_off(fronts: Fronts, caplog: pytest.LogCaptureFixture) -> None:
    with running_engine() as own, caplog.at_level(logging.WARNING):
        front = fronts.before(own.url)
        with (
            pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"),
            front.client.stream("GET", "/v1/stream?n=3&die") as answer,
        ):
            answer.read()
        assert front.client.get("/v1/health/live").status_code == 200
        assert front.client.get("/v1/echo").status_code == 502
        until(lambda: "nim_requests_in_flight 0.0" in front.client.get("/v1/metrics").text, 5)
    assert "engine broke off GET /v1/stream" in caplog.text
    assert "Traceback" not in caplog.text


def test_an_engine_that_is_not_there(fronts: Fronts) -> None:
    front = fronts.before(f"http://127.0.0.1:{free_port()}")
    told = front.client.post("/v1/chat/completions", json={})
    assert told.status_code == 502
    assert told.json()["error"] == {
        "message": "the engine did not answer",
        "type": "server_error",
        "param": None,
        "code": "engine_failed",
    }


def test_before_there_is_an_engine(fronts: Fronts) -> None:
    front = fronts.before(None)
    front.state.enter("downloading")
    told = front.client.post("/v1/chat/completions", json={"model": "x"})
    assert told.status_code == 503
    assert told.headers["retry-after"] == "5"
    assert told.json()["phase"] == "downloading"
    assert told.json()["error"]["code"] == "not_ready"


def test_only_what_the_plan_allows(fronts: Fronts, engine: RunningEngine) -> None:
    front = fronts.before(engine.url, routes=("/v1/chat/", "/told"))
    assert front.client.get("/told").status_code == 200
    for path in ("/metrics", "/told/x", "/v1/echo", "/", "/v1/chat/%2e%2e/echo"):
        told = front.client.get(path)
        assert (told.status_code, told.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/v1/x", True), ("/v1", False), ("/v1/../x", False), ("/v1/./x", False), ("/v1/a..b", True), ("/v1x", False)],
)
def test_paths(path: str, expected: bool) -> None:
    assert allowed(path, ("/v1/",)) is expected


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer k", "Bearer k11", "k1", "Basic k1", "Bearer \u00fc"])
def test_keys_that_are_none(fronts: Fronts, engine: RunningEngine, given: str) -> None:
    front = fronts.before(engine.url, duties=FrontDuties(api_keys=(Secret("k1"), Secret("k2"))))
    told = front.client.get("/v1/echo", headers={"authorization": given.encode("latin-1")} if given else {})
    assert told.status_code == 401
    assert told.headers["www-authenticate"] == "Bearer"
    assert told.json()["error"]["code"] == "invalid_api_key"


def test_keys(fronts: Fronts, engine: RunningEngine) -> None:
    front = fronts.before(engine.url, duties=FrontDuties(api_keys=(Secret("k1"), Secret("k2"))))
    for key in ("k1", "k2"):
        told = front.client.get("/v1/echo", headers={"authorization": f"Bearer {key}"})
        assert told.status_code == 200
        assert header(told.json(), "authorization") == []
    for path in ("/v1/health/live", "/v1/health/ready", "/v1/metadata", "/v1/metrics"):
        assert front.client.get(path).status_code != 401


def test_keys_are_asked_for_on_every_path_of_the_engine(fronts: Fronts, engine: RunningEngine) -> None:
    front = fronts.before(engine.url, duties=FrontDuties(api_keys=(Secret("k1"),)), routes=("/v1/", "/tokenize"))
    assert front.client.post("/tokenize", json={"content": "a"}).status_code == 401
    assert front.client.post("/elsewhere", json={}).status_code == 404


def test_models_are_listed(fronts: Fronts, engine: RunningEngine) -> None:
    front = fronts.before(engine.url, duties=NAMED, served_names=("meta/tiny", "short"))
    told = front.client.get("/v1/models").json()
    assert [model["id"] for model in told["data"]] == ["meta/tiny", "short"]
    assert front.client.get("/v1/models/meta/tiny").json()["id"] == "meta/tiny"
    assert front.client.get("/v1/models/other").json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("name", ["meta/tiny", "short"])
def test_names_are_changed_there_and_back(fronts: Fronts, engine: RunningEngine, name: str) -> None:
    front = fronts.before(engine.url, duties=NAMED, served_names=("meta/tiny", "short"))
    told = front.client.post("/v1/chat/completions", json={"model": name, "max_tokens": 3, "messages": []}).json()
    assert told["asked"]["max_tokens"] == 3
    assert told["model"] == name
    assert told["text"] == '"model": "kept"'
    with front.client.stream("POST", "/v1/chat/completions", json={"model": name, "stream": True}) as answer:
        events = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert [json.loads(event) for event in events[:-1]] == [{"model": name, "n": number} for number in range(3)]
    assert events[-1] == "[DONE]"


def test_unknown_names(fronts: Fronts, engine: RunningEngine) -> None:
    strict = fronts.before(engine.url, duties=NAMED)
    told = strict.client.post("/v1/chat/completions", json={"model": "other"})
    assert (told.status_code, told.json()["error"]["param"]) == (404, "model")
    lenient = fronts.before(engine.url, duties=FrontDuties(model="m"))
    assert lenient.client.post("/v1/chat/completions", json={"model": "other"}).json()["model"] == "other@main"


def test_bodies_are_not_touched_where_nothing_is_asked(fronts: Fronts, engine: RunningEngine) -> None:
    body = b'{ "model" : "meta/tiny" }'
    plain = fronts.before(engine.url)
    named = fronts.before(engine.url, duties=NAMED)
    kinds = ((plain, "application/json"), (named, "text/plain"), (named, "multipart/form-data; boundary=x"))
    for front, kind in kinds:
        told = front.client.post("/v1/echo", content=body, headers={"content-type": kind}).json()
        assert told["text"].encode() == body
    broken = named.client.post("/v1/echo", content=b"{", headers={"content-type": "application/json"}).json()
    assert broken["text"] == "{"


def test_too_large_a_request_for_a_name(fronts: Fronts, engine: RunningEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nim_core.serving.proxy.BODY_BYTES", 100_000)
    front = fronts.before(engine.url, duties=NAMED)
    assert front.client.post("/v1/echo", json={"model": "x" * 200_000}).status_code == 413


def test_many_at_once(fronts: Fronts, engine: RunningEngine) -> None:
    front = fronts.before(engine.url)
    failures: list[BaseException] = []

    def ask(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", front.listener.port, timeout=60)
        try:
            for turn in range(5):
                body = f"{number}-{turn}".encode() * 100
                connection.request("POST", "/v1/echo", body=body)
                assert json.loads(connection.getresponse().read())["sha256"] == hashlib.sha256(body).hexdigest()
                connection.request("GET", "/v1/stream?n=20")
                assert connection.getresponse().read().count(b"data: ") == 20
        except BaseException as error:  # noqa: BLE001
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_an_engine_that_closes_after_a_stream_without_saying_so(fronts: Fronts) -> None:
    """As llama.cpp does; it closes so late here that the next request would meet the end of the connection."""
    answer = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    )

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            connection.sendall(answer)
            connection.recv(65536)

    with socket.create_server(("127.0.0.1", 0)) as server:
        front = fronts.before(f"http://127.0.0.1:{server.getsockname()[1]}")
        for _ in range(3):
            threading.Thread(target=lambda: serve(server.accept()[0]), daemon=True).start()
            assert front.client.post("/v1/x", content=b"x").status_code == 200


def test_answers_in_parts_do_not_wait_for_acknowledgements(fronts: Fronts, engine: RunningEngine) -> None:
    front = fronts.before(engine.url)
    connection = http.client.HTTPConnection("127.0.0.1", front.listener.port, timeout=20)
    seconds = []
    for _ in range(20):
        begun = time.monotonic()
        connection.request("GET", "/v1/stream?n=3")
        connection.getresponse().read()
        seconds.append(time.monotonic() - begun)
    connection.close()
    assert sorted(seconds)[10] < 0.035  # with Nagle's algorithm 40 ms at least
