"""The fixtures as another project uses them."""

from __future__ import annotations

import os
import subprocess
import sys

TESTS = """
from nim_core.testing.corpus import sample_corpus

def test_fixtures(corpus, certificates, ngc_server, modelscope_server):
    assert corpus == sample_corpus()
    assert certificates.ca.read_text().startswith("-----BEGIN CERTIFICATE-----")
    assert ngc_server.api_url.startswith("http://127.0.0.1:")
    assert modelscope_server.url.startswith("http://127.0.0.1:")

def test_leak(ngc_server):
    import urllib.error, urllib.request
    request = urllib.request.Request(ngc_server.storage_url + "/x", headers={"Authorization": "Bearer secret"})
    try:
        urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        error.close()
"""


def test_pytest_plugins_brings_the_fixtures_and_a_leak_fails_the_test(tmp_path):
    (tmp_path / "conftest.py").write_text(
        'import nim_core.testing.corpus\n\npytest_plugins = ["nim_core.testing"]\n', encoding="utf-8"
    )
    (tmp_path / "test_it.py").write_text(TESTS, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(tmp_path)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environ, check=False)
    assert "2 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "ERROR test_it.py::test_leak" in done.stdout
