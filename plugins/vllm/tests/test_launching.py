"""The process: secrets, environment, routes, models that are streamed."""

from __future__ import annotations

from pathlib import Path

import pytest
from nim_backend_vllm.backend import VllmBackend
from nim_backend_vllm.environment import ENVIRONMENT
from nim_backend_vllm.launching import reads_remotely

from nim_core.errors import BackendMissingError
from nim_core.types import Adapter, Layer, Nodes, Secret, Variables

QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
S3 = "s3://models/llm/tiny/"


def test_the_form_of_the_product(make_plan):
    launch = make_plan(port=8001)
    assert launch.argv == (
        "/bin/vllm", "serve", "/w", "--served-model-name", "m", "--host", "127.0.0.1", "--port", "8001",
    )  # fmt: skip
    assert launch.environ == QUIET
    assert (launch.health_path, launch.metrics_path, launch.without) == ("/health", "/metrics", ())
    assert launch.served_names == ("m",)


def test_core_says_where_it_listens(make_plan, user_argument):
    launch = make_plan(user_argument("port", "9"), user_argument("host", "0.0.0.0"))
    assert launch.argv[-4:] == ("--host", "127.0.0.1", "--port", "8000")
    assert launch.argv.count("--port") == 1


def test_a_key_goes_by_the_environment(make_plan, user_argument):
    launch = make_plan(user_argument("api-key", ("sk-very-secret",)))
    assert launch.environ == {**QUIET, "VLLM_API_KEY": Secret("sk-very-secret")}
    assert "sk-very-secret" not in repr(launch)
    assert launch.duties.api_keys == ()


def test_several_keys_are_the_fronts(make_plan, user_argument):
    launch = make_plan(user_argument("api-key", ("one", "two")), environment={"VLLM_API_KEY": "three"})
    assert launch.duties.api_keys == (Secret("one"), Secret("two"))
    assert launch.without == ("VLLM_API_KEY",)
    assert launch.environ == QUIET


def test_a_key_takes_away_what_it_does_not_guard(make_plan):
    assert "/score" in make_plan().routes
    routes = make_plan(environment={"VLLM_API_KEY": "one"}).routes
    assert "/score" not in routes
    assert "/v1/score" in routes


def test_no_client_loads_folders_of_this_machine(make_plan):
    launch = make_plan(changing_adapters=True)
    assert launch.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert not any("/v1/load_lora_adapter".startswith(it) for it in launch.routes)
    assert "/invocations" not in launch.routes


def test_a_token_goes_by_the_environment(make_plan, user_argument):
    launch = make_plan(user_argument("hf-token", "hf_secret"))
    assert launch.environ["HF_TOKEN"] == Secret("hf_secret")
    assert "hf_secret" not in launch.argv


@pytest.mark.parametrize(
    ("environment", "environ"),
    [
        ({"VLLM_NO_USAGE_STATS": "0", "DO_NOT_TRACK": "0"}, {}),
        ({"NIM_LOG_LEVEL": "debug"}, {**QUIET, "VLLM_LOGGING_LEVEL": "DEBUG"}),
        ({"NIM_LOG_LEVEL": "DEBUG", "VLLM_LOGGING_LEVEL": "INFO"}, QUIET),
        ({"NIM_LOG_LEVEL": "TRACE"}, QUIET),
    ],
)
def test_what_a_user_set_stays(make_plan, environment, environ):
    assert make_plan(environment=environment).environ == environ


@pytest.mark.parametrize(("port", "without"), [("tcp://10.0.0.1:8000", ("VLLM_PORT",)), ("29000", ())])
def test_an_address_that_kubernetes_sets_is_no_port(make_plan, port, without):
    assert make_plan(environment={"VLLM_PORT": port}).without == without


def test_a_node_that_follows_serves_no_http(make_plan):
    launch = make_plan(nodes=Nodes(count=2, rank=1, leader="10.0.0.1", address="10.0.0.2"))
    assert (launch.health_path, launch.metrics_path, launch.routes) == (None, None, ())
    assert launch.environ == {**QUIET, "VLLM_HOST_IP": "10.0.0.2"}


def test_switches_that_cannot_be_turned_off_are_left_out(make_plan, user_argument):
    launch = make_plan(user_argument("headless", value=False), user_argument("enable-prefix-caching", value=False))
    assert "--no-headless" not in launch.argv
    assert "--no-enable-prefix-caching" in launch.argv


def test_downloaded_models_are_read_from_here(make_plan, make_request, user_argument):
    launch = make_plan(model_uri=S3)
    assert launch.argv[2] == "/w"
    assert not reads_remotely(make_request(user_argument("load-format", "runai_streamer"), model_uri="hf://a/b"))


@pytest.mark.parametrize(
    ("environment", "environ"),
    [
        ({}, {}),
        (
            {"AWS_ENDPOINT_URL": "http://store:9000"},
            {
                "AWS_ENDPOINT_URL": "http://store:9000",
                "RUNAI_STREAMER_S3_ENDPOINT": "http://store:9000",
                "RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0",
            },
        ),
        ({"AWS_S3_USE_PATH_STYLE": "true"}, {"RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0"}),
        ({"AWS_S3_ADDRESSING_STYLE": "path"}, {"RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0"}),
        ({"AWS_NO_SIGN_REQUEST": "true"}, {"RUNAI_STREAMER_S3_UNSIGNED": "1"}),
        (
            {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "https://b", "AWS_S3_ADDRESSING_STYLE": "virtual"},
            {"AWS_ENDPOINT_URL": "https://b", "RUNAI_STREAMER_S3_ENDPOINT": "https://b"},
        ),
    ],
)
def test_a_model_is_streamed_out_of_its_bucket(make_plan, environment, environ):
    launch = make_plan(model_uri=S3, environment={"NIM_STREAM_MODEL": "1", **environment})
    assert launch.argv[2] == "s3://models/llm/tiny"
    assert "--load-format runai_streamer" in " ".join(launch.argv)
    assert launch.environ == {**QUIET, **environ}


def test_the_load_format_asks_for_it_too(make_plan, user_argument):
    assert make_plan(user_argument("load-format", "runai_streamer"), model_uri=S3).argv[2] == S3.rstrip("/")


def test_served_names_are_those_that_came_out(make_plan, user_argument):
    launch = make_plan(user_argument("served-model-name", ("a", "b")), names_layer=Layer.VARIABLE)
    assert launch.served_names == ("a", "b")


def test_adapters_are_taken_up_with_the_key(make_request):
    backend = VllmBackend(Variables(ENVIRONMENT, {}))
    adapter = Adapter(name="a", folder=Path("/peft/a"), rank=8)
    request = make_request(environment={"VLLM_API_KEY": "sk-1"}, changing_adapters=True)
    load, unload = backend.load_adapter(adapter, request), backend.unload_adapter(adapter, request)
    assert (load.path, load.content) == ("/v1/load_lora_adapter", {"lora_name": "a", "lora_path": "/peft/a"})
    assert (unload.path, unload.content) == ("/v1/unload_lora_adapter", {"lora_name": "a"})
    assert load.headers == unload.headers == {"Authorization": Secret("Bearer sk-1")}
    assert backend.load_adapter(adapter, make_request()).headers == {}


def test_without_vllm_there_is_no_plan(make_request, monkeypatch):
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(BackendMissingError, match="vLLM is not installed"):
        VllmBackend(Variables(ENVIRONMENT, {"PATH": "/nowhere"})).plan_launch(make_request())
