"""The S3 server of the kit: it starts, says who may do what, and leaves nothing behind."""

from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import pytest

from nim_core.testing.s3_server import S3Server

pytest_plugins = ["nim_core.testing"]


def status(url):
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=10) as answer:
            return answer.status
    except HTTPError as exc:
        exc.close()
        return exc.code


def test_strangers_see_what_they_may(tmp_path):
    with S3Server(tmp_path, buckets=("models", "public"), guests_read="public") as server:
        assert status(f"{server.url}/public?list-type=2") == 200
        assert status(f"{server.url}/public/missing") == 404
        assert status(f"{server.url}/models?list-type=2") == 403
        assert status(f"{server.url}/models/missing") == 403


def test_several_run_side_by_side_and_end_with_their_block(tmp_path):
    with S3Server(tmp_path / "a") as first, S3Server(tmp_path / "b") as second:
        assert first.port != second.port
        assert first.admin.secret_key != second.admin.secret_key
        assert [status(server.url) for server in (first, second)] == [403, 403]
    for server in (first, second):
        with pytest.raises(OSError, match="refused"):
            status(server.url)


def test_data_survive_a_restart(tmp_path):
    for _ in range(2):
        with S3Server(tmp_path, buckets=("public",), guests_read="public") as server:
            assert status(f"{server.url}/public?list-type=2") == 200


def test_it_says_why_it_does_not_start(tmp_path, certificates):
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(OSError, match="data"), S3Server(tmp_path):
        pass
