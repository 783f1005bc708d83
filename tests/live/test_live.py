"""
``download-to-cache`` from the public services themselves, with whatever credentials the environment has.

One variable per source names what to download. Without it, the tests of that source are skipped, saying so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

VARIABLES = {
    "NIM_LIVE_NGC": "ngc://org/team/model:version",
    "NIM_LIVE_HF": "hf://org/model:revision",
    "NIM_LIVE_S3": "s3://bucket/prefix/",
    "NIM_LIVE_GCS": "gs://bucket/prefix/",
    "NIM_LIVE_MODELSCOPE": "modelscope://org/model:revision",
    "NIM_LIVE_HTTP": "https://host/file",
}


@pytest.fixture(params=VARIABLES)
def uri(request):
    """What a variable names; skips, saying which, where it is not set."""
    value = os.environ.get(request.param, "")
    if not value:
        pytest.skip(f"{request.param} names nothing to download, such as {VARIABLES[request.param]}")
    return value


def download(cache, uri, *arguments):
    command = [Path(sys.executable).with_name("download-to-cache"), "--model-uri", uri, "--json", *arguments]
    environ = {**os.environ, "NIM_CACHE_PATH": str(cache)}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.timeout(3600)
def test_a_model_comes_whole_and_is_there_from_then_on(uri, tmp_path):
    cache = tmp_path / "cache"
    first = download(cache, uri)
    receipts = [json.loads(path.read_text()) for path in (cache / "receipts").glob("*.json")]
    assert receipts, first
    assert all(file["digests"]["blake3"] for receipt in receipts for file in receipt["files"])
    download(cache, uri)
    download(cache, uri, "--use-cache")
    download(cache, uri, "--verify")


@pytest.mark.timeout(600)
def test_what_does_not_exist_is_named(uri, tmp_path):
    missing = f"{uri.rstrip('/')}-that-does-not-exist"
    command = [Path(sys.executable).with_name("download-to-cache"), "--model-uri", missing]
    environ = {**os.environ, "NIM_CACHE_PATH": str(tmp_path / "cache")}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert 30 <= ended.returncode < 40, ended.stderr
    assert "error:" in ended.stderr
