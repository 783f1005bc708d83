"""``doctor`` with plugins that are really installed."""

from __future__ import annotations

import json
import time

import pytest

from nim_core.cli import doctor

PLUGIN = """
import time

@hookimpl
def nim_register_environment():
    return [EnvVar(name="ACME_URL", summary="address"), EnvVar(name="ACME_KEY", summary="key", secret=True)]

def run(variables):
    {body}

@hookimpl
def nim_register_checks():
    return [CheckSpec(name="address", summary="the address", run=run)]
"""


@pytest.fixture
def told(cli, site, tmp_path):
    """Run it beside a plugin whose check has this body; gives the lines by name, and the run."""

    def run(body, **environ):
        site.plugin("acme", PLUGIN.format(body=body))
        ended = cli("doctor", "--json", environ={"NIM_CACHE_PATH": str(tmp_path / "cache"), **environ})
        return {f"{it['of']}: {it['check']}": it for it in json.loads(ended.out)["checks"]}, ended

    return run


def test_all_is_well(told, tmp_path):
    lines, ended = told(
        "return CheckResult(status='ok', message='it is ' + variables.text('ACME_URL'))", ACME_URL="here"
    )
    assert ended.code == 0
    assert lines["acme: address"]["message"] == "it is here"
    assert lines["acme: loaded"]["status"] == "ok"
    assert f"{tmp_path / 'cache'} can be written" in lines["nim-core: cache"]["message"]
    assert lines["nim-core: network"]["status"] == "ok"
    assert lines["nim-core: hardware"]["status"] in {"ok", "not-applicable"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return CheckResult(status='failed', message='no', hint='do')", "no"),
        ("raise KeyError('hunter22')", "plugin acme"),
        ("return None", "plugin acme"),
        ("from nim_core.errors import ConfigError; raise ConfigError('it is wrong')", "it is wrong"),
    ],
)
def test_a_check_that_fails_ends_with_10(told, body, message):
    lines, ended = told(body)
    assert ended.code == 10
    assert ended.last_line.startswith("error: 1 of ")
    assert lines["acme: address"]["status"] == "failed"
    assert message in lines["acme: address"]["message"]
    assert "hunter22" not in ended.out + ended.err


def test_a_warning_is_no_failure(told):
    lines, ended = told("return CheckResult(status='warning', message='hm')")
    assert (lines["acme: address"]["status"], ended.code) == ("warning", 0)


def test_secrets_are_not_shown(told):
    lines, ended = told("return CheckResult(status='ok', message=variables.text('ACME_KEY'))", ACME_KEY="hunter22")
    assert ended.code == 0
    assert "hunter22" not in str(lines)


def test_a_check_that_hangs_is_left_alone(told, monkeypatch):
    monkeypatch.setattr(doctor, "CHECK_SECONDS", 0.2)
    began = time.monotonic()
    lines, ended = told("time.sleep(20)")
    assert ended.code == 10
    assert lines["acme: address"]["message"] == "no answer in 0.2 s"
    assert time.monotonic() - began < 15


def test_what_core_finds_wrong(told):
    lines, ended = told(
        "return CheckResult(status='ok', message='')", NIM_CACHE_PATH="/proc/none", SSL_CERT_FILE="/none"
    )
    assert ended.code == 10
    assert lines["nim-core: cache"]["status"] == "failed"
    assert "SSL_CERT_FILE" in lines["nim-core: network"]["message"]


def test_plugins_that_are_set_aside(cli, site, tmp_path):
    site.plugin("bad", "1 / 0")
    ended = cli("doctor", environ={"NIM_CACHE_PATH": str(tmp_path)})
    assert ended.code == 10
    assert any(line.startswith("failed") and "bad: loaded" in line for line in ended.out.splitlines())
    ended = cli("doctor", environ={"NIM_CACHE_PATH": str(tmp_path), "NIM_PLUGINS_DISABLED": "bad"})
    assert ended.code == 0
