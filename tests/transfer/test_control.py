import concurrent.futures
import contextlib
import gzip
import random
import re
import socket
import threading

import httpcore
import pytest

from nim_core.errors import ConfigError, SourceError, StalledError, TransientError
from nim_core.settings import Settings
from nim_core.testing.corpus import inline
from nim_core.testing.http_server import HttpOrigin, RequestLog, Response, json_response
from nim_core.transfer.bodies import MAX_BODY_BYTES, PREFETCH_BYTES, Body
from nim_core.transfer.control import control_client
from nim_core.transfer.dialing import Dialer
from nim_core.transfer.failures import Peer
from nim_core.transfer.network import network_config, origin
from nim_core.transfer.retry import RetryPolicy

pytest_plugins = ["nim_core.testing"]


class Origins:
    """Origins whose routes are set by the test, and a client that notes its waits instead of waiting."""

    def __init__(self, stack):
        self.log = RequestLog()
        self.waits = []
        self._stack = stack

    def start(self, routes, certificates=None, name="origin"):
        def handler(request):
            answers = routes.get(request.path, Response(status=404))
            if isinstance(answers, list):
                return request.path, answers.pop(0) if len(answers) > 1 else answers[0]
            return request.path, answers(request) if callable(answers) else answers

        return self._stack.enter_context(HttpOrigin(name, handler, log=self.log, certificates=certificates)).url

    def client(self, *, retries=3, endpoints=(), sleep=None, max_wait=60.0, **environ):
        config = network_config(Settings({name: str(value) for name, value in environ.items()}), endpoints)
        policy = RetryPolicy(retries=retries, base_seconds=0.0, max_wait_seconds=max_wait)
        return self._stack.enter_context(control_client(config, policy, sleep=sleep or self.waits.append))


@pytest.fixture
def origins():
    with contextlib.ExitStack() as stack:
        yield Origins(stack)


def headers_seen(origins, path):
    return dict(origins.log.select(path=path)[-1].request.headers)


# What every request carries


def test_a_request_says_who_asks_and_wants_nothing_encoded(origins):
    url = origins.start({"/": Response()})
    assert origins.client().get(url).status_code == 200
    headers = headers_seen(origins, "/")
    assert re.fullmatch(r"nim-core/\d\S+", headers["User-Agent"])
    assert headers["Accept-Encoding"] == "identity"


def test_cookies_are_not_kept(origins):
    url = origins.start({"/": Response(headers={"Set-Cookie": "a=b"})})
    client = origins.client()
    for _ in range(2):
        client.get(url)
    assert "Cookie" not in headers_seen(origins, "/")


def test_the_environment_of_the_process_is_not_read(origins, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("SSL_CERT_FILE", "missing.pem")
    url = origins.start({"/": Response()})
    assert origins.client().get(url).status_code == 200


def test_a_target_can_be_sent_to_the_letter(origins):
    url = origins.start({})
    client = origins.client()
    for target in (b"/a/../b/./c//d?", b"/nim%252Fx%7e%26?q=%2f+'\"{}|"):
        client.get(url, extensions={"target": target})
        assert origins.log.select()[-1].request.target == target.decode()


def test_many_threads_may_ask_at_once(origins):
    url = origins.start({"/": json_response({"a": 1})})
    client = origins.client()
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: client.get(url).json(), range(60)))
    assert answers == [{"a": 1}] * 60


# Trying again


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_passing_status_is_tried_again(origins, status, method):
    url = origins.start({"/": [Response(status=status, body=inline("busy")), Response(status=status), Response()]})
    assert origins.client().request(method, url).status_code == 200
    assert len(origins.log) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 501])
def test_other_statuses_are_handed_over_at_once(origins, status):
    url = origins.start({"/": Response(status=status, body=inline("why"))})
    answer = origins.client().get(url)
    assert (answer.status_code, answer.text, len(origins.log)) == (status, "why", 1)


def test_the_last_answer_is_handed_over(origins):
    url = origins.start({"/": Response(status=503, body=inline("still busy"))})
    answer = origins.client(retries=2).get(url)
    assert (answer.status_code, answer.text, len(origins.log)) == (503, "still busy", 3)


@pytest.mark.parametrize("headers", [{"Retry-After": "7"}, {"RateLimit": '"api";r=0;t=7'}])
def test_a_server_says_how_long_to_wait(origins, headers):
    url = origins.start({"/": [Response(status=429, headers=headers), Response()]})
    assert origins.client().get(url).status_code == 200
    assert origins.waits == [7.0]


def test_a_wait_beyond_patience_is_not_begun(origins):
    url = origins.start({"/": Response(status=429, headers={"Retry-After": "3600"})})
    answer = origins.client(max_wait=60.0).get(url)
    assert (answer.status_code, answer.headers["Retry-After"], origins.waits) == (429, "3600", [])


def test_what_may_change_something_is_sent_once(origins):
    url = origins.start({"/": Response(status=503)})
    assert origins.client().post(url, content=b"x").status_code == 503
    assert len(origins.log) == 1


@pytest.mark.parametrize("failure", [Response(status=503), Response(raw=b"")], ids=["status", "cut"])
def test_what_says_that_it_changes_nothing_is_sent_again_with_its_body(origins, failure):
    url = origins.start({"/": [failure, json_response("token")]})
    answer = origins.client().post(url, content=b"grant", extensions={"repeatable": True})
    assert answer.json() == "token"
    assert [exchange.request.body for exchange in origins.log] == [b"grant", b"grant"]


def test_a_body_that_was_cut_is_fetched_again(origins):
    url = origins.start({"/": [Response(body=inline("complete"), cut_at=3), Response(body=inline("complete"))]})
    assert origins.client().get(url).text == "complete"


def test_a_body_that_is_always_cut_is_an_error(origins):
    url = origins.start({"/": Response(body=inline("complete"), cut_at=3)})
    with pytest.raises(TransientError, match=re.escape(f"connection cut, or not HTTP: {url}")):
        origins.client(retries=1).get(url)
    assert len(origins.log) == 2


def test_a_wait_can_be_abandoned(origins):
    def interrupted(_seconds):
        raise KeyboardInterrupt

    url = origins.start({"/": Response(status=503)})
    with pytest.raises(KeyboardInterrupt):
        origins.client(sleep=interrupted).get(url)
    assert len(origins.log) == 1


# Redirects


def test_redirects_are_followed_to_the_letter(origins):
    location = "/x%252Fy%2f%7E%7e%26?a=%26&b=%3D+c~'()*!"
    url = origins.start({"/": Response(status=302, headers={"Location": location})})
    origins.client().get(url)
    assert origins.log.select()[-1].request.target == location


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_head_stays_head(origins, status):
    url = origins.start({"/": Response(status=status, headers={"Location": "/end"}), "/end": Response()})
    assert origins.client().head(url).status_code == 200
    assert [exchange.request.method for exchange in origins.log] == ["HEAD", "HEAD"]


def test_a_post_is_not_carried_elsewhere(origins):
    url = origins.start({"/": Response(status=307, headers={"Location": "/end"})})
    assert origins.client().post(url, content=b"secret").status_code == 307
    assert len(origins.log) == 1


def test_a_source_may_look_at_the_redirect_itself(origins):
    url = origins.start({"/": Response(status=302, headers={"Location": "/end", "X-Linked-Size": "7"})})
    answer = origins.client().head(url, extensions={"follow_redirects": False})
    assert (answer.status_code, answer.headers["X-Linked-Size"]) == (302, "7")


SENT = {"Authorization": "Bearer t", "X-Api-Key": "k", "Cookie": "c=d", "Range": "bytes=0-0", "If-Match": '"e"'}


def test_within_an_origin_headers_go_along(origins):
    url = origins.start({"/": Response(status=302, headers={"Location": "/end"}), "/end": Response()})
    origins.client().get(url, headers=SENT)
    assert SENT.items() <= headers_seen(origins, "/end").items()


def test_to_another_origin_credentials_do_not_go_along_and_do_not_come_back(origins):
    first, routes = {}, {"/away": lambda _: Response(status=302, headers={"Location": f"{url}/end"})}
    other = origins.start(routes, name="other")
    first |= {"/": Response(status=302, headers={"Location": f"{other}/away"}), "/end": Response()}
    url = origins.start(first)
    assert origins.client().get(url, headers=SENT, auth=("me", "hunter2")).status_code == 200
    for path in ("/away", "/end"):
        seen = headers_seen(origins, path)
        assert seen.keys() & SENT.keys() == {"Range", "If-Match"}
        assert seen["Host"] == (other if path == "/away" else url).partition("://")[2]


def test_user_and_password_in_a_location_are_not_used(origins):
    routes = {"/end": Response()}
    url = origins.start(routes)
    routes["/"] = Response(status=302, headers={"Location": f"http://me:hunter2@{url.partition('://')[2]}/end"})
    assert origins.client().get(url).status_code == 200
    assert "Authorization" not in headers_seen(origins, "/end")


def test_ten_redirects_are_enough(origins):
    routes = {f"/{n}": Response(status=302, headers={"Location": f"/{n + 1}"}) for n in range(11)} | {"/11": Response()}
    url = origins.start(routes)
    assert origins.client().get(f"{url}/1").status_code == 200
    with pytest.raises(SourceError, match="more than 10 redirects"):
        origins.client().get(f"{url}/0")


def test_https_does_not_become_http(origins, certificates):
    plain = origins.start({"/": Response()}, name="plain")
    url = origins.start({"/": Response(status=302, headers={"Location": f"{plain}/"})}, certificates)
    with pytest.raises(SourceError, match="not encrypted"):
        origins.client(SSL_CERT_FILE=certificates.ca).get(url)
    assert origins.log.count(origin="plain") == 0


def test_metadata_services_are_not_reached(origins):
    url = origins.start({"/": Response(status=302, headers={"Location": "http://169.254.169.254/latest"})})
    with pytest.raises(SourceError, match="metadata"):
        origins.client().get(url)
    with pytest.raises(SourceError, match="metadata"):
        origins.client().get("http://metadata.google.internal/x")


def test_a_name_is_judged_by_what_it_resolves_to():
    config = network_config(Settings({}))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        Dialer(config, from_outside=False).connect_tcp("localhost", port, 5.0).close()
        with pytest.raises(SourceError, match="refused to connect to localhost"):
            Dialer(config, from_outside=True).connect_tcp("localhost", port, 5.0)
    with pytest.raises(SourceError, match=r"refused to connect to 0\.0\.0\.0"):
        Dialer(config, from_outside=False).connect_tcp("0.0.0.0", port, 5.0)


# What is too much


def test_a_body_larger_than_the_limit_is_refused(origins):
    url = origins.start({"/": Response(body=inline(bytes(MAX_BODY_BYTES + 1)))})
    with pytest.raises(SourceError, match="answer larger than 64 MiB"):
        origins.client().get(url)


def test_a_large_body_arrives_whole(origins):
    data = random.Random(1).randbytes(3 * PREFETCH_BYTES)
    url = origins.start({"/": Response(body=inline(data))})
    assert origins.client().get(url).content == data


def test_an_answer_need_not_be_read(origins):
    url = origins.start({"/": Response(body=inline(bytes(MAX_BODY_BYTES + 1))), "/next": Response()})
    client = origins.client()
    with client.stream("GET", url) as answer:
        assert answer.headers["Content-Length"] == str(MAX_BODY_BYTES + 1)
    assert client.get(f"{url}/next").status_code == 200


def test_an_encoding_nobody_asked_for_is_refused_when_it_is_read(origins):
    bomb = Response(headers={"Content-Encoding": "gzip"}, body=inline(gzip.compress(bytes(1_000_000))))
    url = origins.start({"/": bomb})
    assert origins.client().head(url).headers["Content-Encoding"] == "gzip"
    with pytest.raises(SourceError, match="encoding that was not asked for"):
        origins.client().get(url)


@pytest.mark.parametrize("kilobytes", [80, 300])
def test_too_many_headers_are_refused(origins, kilobytes):
    url = origins.start({"/": Response(headers={f"X-{n}": "x" * 1000 for n in range(kilobytes)})})
    with pytest.raises(SourceError, match="headers") as caught:
        origins.client().get(url)
    assert not caught.value.retryable
    assert len(origins.log) == 1


def test_a_body_that_trickles_is_given_up():
    peer = Peer(origin=origin("http://a.example"), proxy=None, trust=network_config(Settings({})).trust)
    body = Body(httpcore.Response(200, content=[b"s", b"low"]), peer, max_seconds=-1.0)
    with pytest.raises(StalledError, match=r"answer slower than .*: http://a\.example"):
        list(body)


# Failures


def test_tls_with_a_private_authority(origins, certificates):
    url = origins.start({"/": Response()}, certificates)
    assert origins.client(SSL_CERT_FILE=certificates.ca).get(url).status_code == 200


def test_a_request_may_bring_authorities_of_its_own(origins, certificates):
    url, client = origins.start({"/": Response()}, certificates), origins.client()
    assert client.get(url, extensions={"authorities": certificates.ca}).status_code == 200
    with pytest.raises(SourceError, match="certificate not trusted"):
        client.get(url)


def test_authorities_of_a_request_that_are_none(origins, certificates):
    url = origins.start({"/": Response()}, certificates)
    with pytest.raises(ConfigError, match="without a certificate"):
        origins.client().get(url, extensions={"authorities": certificates.key})


def test_an_untrusted_certificate_is_final_and_says_what_to_set(origins, certificates):
    url = origins.start({"/": Response()}, certificates)
    with pytest.raises(SourceError, match=re.escape(f"certificate not trusted: {url}")) as caught:
        origins.client().get(f"{url}/x?token=hunter2")
    assert "SSL_CERT_FILE" in caught.value.hint
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"
    assert (caught.value.retryable, origins.waits) == (False, [])


def test_a_certificate_for_another_name_is_not_trusted(origins, certificates):
    def serve():
        connection, _ = server.accept()
        with contextlib.suppress(OSError), certificates.server_context().wrap_socket(connection, server_side=True):
            pass

    with socket.create_server(("127.0.0.2", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(SourceError, match=r"certificate not trusted: .*IP address mismatch"):
            origins.client(SSL_CERT_FILE=certificates.ca).get(f"https://127.0.0.2:{server.getsockname()[1]}/")
        thread.join()


def test_plain_http_behind_https_is_final(origins):
    url = origins.start({"/": Response()}).replace("http://", "https://")
    with pytest.raises(SourceError, match="TLS handshake failed"):
        origins.client().get(url)
    assert origins.waits == []


def test_a_refused_connection_is_tried_again_and_names_the_host(origins):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(TransientError, match=f"cannot connect: http://127.0.0.1:{port} .*refused") as caught:
        origins.client(retries=2).get(f"http://127.0.0.1:{port}/x?token=hunter2")
    assert len(origins.waits) == 2
    assert "hunter2" not in str(caught.value)


def test_a_name_that_does_not_exist_is_final(origins):
    with pytest.raises(SourceError, match=r"host name not resolved: http://no-such-host\.invalid") as caught:
        origins.client().get("http://no-such-host.invalid/x?token=hunter2")
    assert "hunter2" not in str(caught.value)


def test_a_server_that_says_nothing_is_a_stall(origins):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(StalledError, match=re.escape(f"no data for too long: {url}")):
            origins.client(retries=1).get(url, timeout=0.2)
    assert len(origins.waits) == 1


def test_what_is_not_http_is_an_error(origins):
    def serve():
        for _ in range(2):
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 smtp ready\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(TransientError, match="not HTTP"):
            origins.client(retries=1).get(f"http://127.0.0.1:{server.getsockname()[1]}/")
        thread.join()


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "http://127.0.0.1:0/x"])
def test_what_cannot_be_fetched_is_refused(origins, url):
    with pytest.raises(SourceError):
        origins.client().get(url)


def test_a_closed_client_leaves_no_connection_open(origins):
    url = origins.start({"/": Response()})
    client = origins.client()
    client.get(url)
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.get(url)


def test_httpcore_keeps_what_is_built_upon():
    """The pool cuts ``__cause__`` off but keeps the wrapped exception as an argument; the tables here rely on it."""
    with pytest.raises(httpcore.ConnectError) as caught, httpcore.ConnectionPool() as pool:
        pool.request("GET", "http://127.0.0.1:9/")
    assert isinstance(caught.value.args[0], ConnectionRefusedError)
