from __future__ import annotations

import http.server
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ClassVar

import pytest

from nim_core.errors import CacheError, SourceError, StalledError, TransientError
from nim_core.settings import Settings
from nim_core.transfer.network import network_config
from nim_core.transfer.sending import Sender
from nim_core.types import Body, HttpUpload


class Store(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: ClassVar[dict[str, tuple[str, dict[str, str], bytes]]] = {}

    def handle_one(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        status = int(self.path.rpartition("/")[2]) if self.path.startswith("/status/") else 200
        Store.seen[self.path] = (self.command, dict(self.headers), body)
        answer = b"" if self.command == "HEAD" else b"said"
        self.send_response(status)
        self.send_header("ETag", '"tag"')
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET = handle_one  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def store():
    Store.seen = {}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Store)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def sender():
    made = Sender(network_config(Settings({}), ()), "tests/1")
    yield made
    made.close()


def body(tmp_path, size=3 << 20, **more):
    path = tmp_path / "file"
    path.write_bytes(bytes(i * 7 % 251 for i in range(1 << 16)) * (size >> 16))
    return Body(path=path, size=size, **more), path.read_bytes()


def test_a_file_arrives_with_method_and_headers(store, sender, tmp_path):
    sent, data = body(tmp_path)

    answer = sender.send(HttpUpload(url=f"{store}/a%252Fb?x=%2F", headers={"X-Mine": "1"}, body=sent))

    method, headers, came = Store.seen["/a%252Fb?x=%2F"]
    assert (method, came == data, headers["X-Mine"]) == ("PUT", True, "1")
    assert "Expect" not in headers
    assert (answer.status, answer.headers["etag"], answer.body) == (200, '"tag"', b"said")


def test_a_part_of_a_file_arrives_and_is_counted(store, sender, tmp_path):
    counted = []
    sent, data = body(tmp_path, progress=counted.append)
    part = Body(path=sent.path, offset=1000, size=2_000_000, progress=counted.append)

    sender.send(HttpUpload(url=f"{store}/part", method="POST", body=part))

    assert Store.seen["/part"][0] == "POST"
    assert Store.seen["/part"][2] == data[1000:2_001_000]
    assert sum(counted) == 2_000_000


@pytest.mark.parametrize("data", [b"", b"x" * 70_000])
def test_bytes_in_memory_arrive(store, sender, tmp_path, data):
    sender.send(HttpUpload(url=f"{store}/k", body=Body(path=tmp_path / "none", size=len(data), data=data)))

    assert Store.seen["/k"][2] == data
    assert Store.seen["/k"][1]["Content-Length"] == str(len(data))


@pytest.mark.parametrize(("method", "said"), [("DELETE", b"said"), ("HEAD", b""), ("GET", b"said"), ("POST", b"said")])
def test_requests_without_a_body(store, sender, method, said):
    answer = sender.send(HttpUpload(url=f"{store}/k", method=method))

    assert Store.seen["/k"][0] == method
    assert answer.body == said


@pytest.mark.parametrize("status", [307, 403, 412, 503])
def test_every_status_is_an_answer(store, sender, tmp_path, status):
    sent, _ = body(tmp_path)

    assert sender.send(HttpUpload(url=f"{store}/status/{status}", body=sent)).status == status


def test_from_many_threads(store, sender, tmp_path):
    send = partial(sender.send)
    uploads = [HttpUpload(url=f"{store}/{n}", body=Body(path=tmp_path, size=5, data=b"%05d" % n)) for n in range(100)]
    with ThreadPoolExecutor(16) as pool:
        assert {answer.status for answer in pool.map(send, uploads)} == {200}

    assert all(Store.seen[f"/{n}"][2] == b"%05d" % n for n in range(100))


def test_no_server_is_a_passing_error(sender):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(TransientError, match=r"connection to 127\.0\.0\.1 failed"):
        sender.send(HttpUpload(url=f"http://127.0.0.1:{port}/"))


def test_a_file_that_became_shorter(store, sender, tmp_path):
    sent, _ = body(tmp_path)
    sent.path.write_bytes(b"short")

    with pytest.raises(CacheError, match="shorter"):
        sender.send(HttpUpload(url=f"{store}/k", body=sent))


def test_a_link_local_address_is_refused(sender):
    with pytest.raises(SourceError, match="link-local"):
        sender.send(HttpUpload(url="http://169.254.169.254/latest"))


def test_closing_frees_who_waits(tmp_path):
    sender = Sender(network_config(Settings({}), ()), "tests/1")
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(sender.send, HttpUpload(url=f"http://127.0.0.1:{silent.getsockname()[1]}/"))
        connection, _ = silent.accept()
        sender.close()
        with pytest.raises(StalledError, match="interrupted"):
            waiting.result(5)
        connection.close()
    with pytest.raises(StalledError, match="any more"):
        sender.send(HttpUpload(url="http://127.0.0.1:1/"))
