"""With other plugins, by the installed commands: what their servers saw."""

from __future__ import annotations

import base64

import pytest

from nim_core.testing.corpus import inline
from nim_core.testing.http_server import HttpOrigin, RequestLog, Response


def bearers(log, origin):
    return {exchange.request.header("Authorization") for exchange in log.select(origin=origin)}


def test_the_hub_sees_the_token_of_the_file_though_a_variable_has_another(user, mount, hub_server):
    mount.write({"hf/token": f"{hub_server.token}\n"})
    user.download("hf://acme/sample-llm", env=hub_server.environment("hf_of_the_variable"))
    assert bearers(hub_server.log, "hub") == {f"Bearer {hub_server.token}"}


def test_ngc_sees_the_key_of_the_file_though_variables_have_others(user, mount, ngc_server):
    mount.write({"ngc/token": ngc_server.nvapi_key})
    env = {**ngc_server.environment("nvapi-of-the-variable"), "NGC_CLI_API_KEY": "nvapi-of-the-other-variable"}
    user.download("ngc://nim/meta/sample-llm:hf-1.0+chk1", env=env)
    assert bearers(ngc_server.log, "api") == {f"Bearer {ngc_server.nvapi_key}"}


def test_without_files_the_built_in_answers_count(user, hub_server):
    user.download("hf://acme/sample-llm", env=hub_server.environment())
    assert bearers(hub_server.log, "hub") == {f"Bearer {hub_server.token}"}


def test_a_file_that_cannot_be_used_stops_and_nobody_else_is_asked(user, mount, hub_server):
    mount.write({"hf/token/oops": ""})
    said = user.download("hf://acme/sample-llm", code=32, env=hub_server.environment())
    assert f"{mount.path}/hf/token" in said
    assert len(hub_server.log) == 0


def test_a_refused_token_is_named_by_its_file_and_not_shown(user, mount, hub_server):
    mount.write({"hf/token": "hf_hunter2hunter2"})
    said = user.download("hf://acme/sample-llm", code=32, env=hub_server.environment())
    assert f"{mount.path}/hf/token" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(("folder", "code"), [("127.0.0.1", 0), ("http", 32)])
def test_a_web_server_gets_what_is_for_its_host_and_nothing_else(user, mount, folder, code):
    mount.write({f"{folder}/username": "bob", f"{folder}/password": "s3cret"})
    wanted = f"Basic {base64.b64encode(b'bob:s3cret').decode()}"

    def answer(request):
        if request.header("Authorization") != wanted:
            return "refused", Response(status=401)
        return "file", Response(body=inline("{}"))

    with HttpOrigin("files", answer, log=RequestLog()) as origin:
        user.download(f"{origin.url}/config.json", code=code)
        assert bearers(origin.log, "files") == ({wanted} if code == 0 else {None})
