from __future__ import annotations

from pathlib import Path

import pytest

from nim_core.errors import BackendMissingError, ConfigError, IncompatibleModelError, PluginError
from nim_core.registry import PluginInfo
from nim_core.registry.guard import guard_backend
from nim_core.serving.choice import Given, choose_backend, resolve
from nim_core.types import Argument, BackendSpec, LaunchPlan, LaunchRequest, Layer, Option, Variables, Verdict

PLUGIN = PluginInfo(name="zebra", distribution="nim-backend-zebra", version="1.0")
OPTIONS = (
    Option(name="tensor-parallel-size", aliases=("-tp",), kind="integer"),
    Option(name="max-model-len"),
    Option(name="config", kind="json"),
    Option(name="served-model-name", many=True),
)


class Zebra:
    """Serves what has stripes; takes no more than 8 of anything."""

    def __init__(self, stripes):
        self.stripes = stripes

    def options(self):
        return OPTIONS

    def propose(self, request):
        tag = request.tags.get("tp")
        found = [Argument(name="served-model-name", value=request.served_names, layer=request.names_layer)]
        if tag:
            found.append(Argument(name="tensor-parallel-size", value=tag, layer=Layer.TAG, origin="profile tag tp"))
        return found

    def probe(self, request):
        size = request.arguments.get("tensor-parallel-size")
        if size is not None and int(size.value) > 8:
            return Verdict(can_serve=False, reason="more than 8", hint="take fewer")
        return Verdict(can_serve=self.stripes in request.files, reason=f"no {self.stripes}", hint="paint it")

    def plan_launch(self, request):
        return LaunchPlan(argv=("zebra",))


def request(*files, **tags):
    return LaunchRequest(workspace=Path("/w"), files=files, tags=tags, served_names=("m",), variables=Variables((), {}))


def choose(specs, asked_of, given=None, **more):
    made = {
        name: guard_backend(lambda spec=spec: spec.factory(Variables((), {})), PLUGIN) for name, spec in specs.items()
    }
    return choose_backend(
        specs, made.__getitem__, lambda _name: asked_of, given or Given(), tags=asked_of.tags, **more
    )  # fmt: skip


def spec(name, stripes, *engines):
    return BackendSpec(name=name, summary="", factory=lambda _variables: Zebra(stripes), engines=engines)


ZEBRA = guard_backend(lambda: Zebra("stripes"), PLUGIN)
BOTH = {"aardvark": spec("aardvark", "stripes"), "zebra": spec("zebra", "stripes", "savanna")}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"llm_engine": "zebra"}, "zebra"),
        ({"backend": "savanna"}, "zebra"),
        ({"llm_engine": "x"}, "aardvark"),
        ({}, "aardvark"),
    ],
)
def test_the_backend_that_the_tags_mean_goes_first(tags, expected):
    assert choose(BOTH, request("stripes", **tags)).spec.name == expected


def test_another_one_serves_where_the_one_that_is_meant_cannot():
    specs = BOTH | {"zebra": spec("zebra", "spots")}
    assert choose(specs, request("stripes", llm_engine="zebra")).spec.name == "aardvark"


def test_one_that_is_asked_for_is_the_only_one():
    specs = BOTH | {"zebra": spec("zebra", "spots")}
    with pytest.raises(BackendMissingError, match="zebra: no spots"):
        choose(specs, request("stripes"), asked="zebra")


def test_one_that_is_not_installed_is_told():
    with pytest.raises(ConfigError) as caught:
        choose(BOTH, request("stripes"), asked="lion")
    assert caught.value.message == "NIM_SERVING_BACKEND names no installed backend: lion"
    assert caught.value.hint == "installed: aardvark, zebra"


def test_where_none_can_all_say_why():
    with pytest.raises(BackendMissingError) as caught:
        choose(BOTH, request("spots", llm_engine="lion"))
    assert caught.value.message == (
        "no installed backend can serve this profile (made for lion)\n  aardvark: no stripes\n  zebra: no stripes"
    )
    assert caught.value.hint == "paint it"


def test_none_is_installed():
    with pytest.raises(BackendMissingError, match="no serving backend is installed"):
        choose({}, request("stripes"))


def test_all_layers_in_their_order():
    given = Given(
        words=("--config.a", "1"),
        passthrough=("--config", '{"a": 2, "b": 2}', "--max-model-len=2"),
        runtime_config={
            "config": {"a": 3, "b": 3, "c": 3},
            "max_model_len": 3,
            "NIM_PASSTHROUGH_ARGS": "--max-model-len 4 --served-model-name four",
        },
    )
    asked = request("stripes", tp="2", nim_json_args='{"config": {"d": 5}, "tensor-parallel-size": 4}')
    found = resolve(ZEBRA, asked, given).arguments
    assert {name: (argument.value, argument.origin) for name, argument in found.items()} == {
        "served-model-name": (("four",), "NIM_PASSTHROUGH_ARGS in runtime_config.json"),
        "tensor-parallel-size": ("4", "profile tag nim_json_args"),
        "config": (
            {"a": 1, "b": 2, "c": 3, "d": 5},
            "command line + NIM_PASSTHROUGH_ARGS + runtime_config.json + profile tag nim_json_args",
        ),
        "max-model-len": ("2", "NIM_PASSTHROUGH_ARGS"),
    }


def test_of_what_a_model_says_explicit_keys_win():
    config = {"max-model-len": 3, "NIM_PASSTHROUGH_ARGS": "--max-model-len 4"}
    assert resolve(ZEBRA, request("stripes"), Given(runtime_config=config)).arguments["max-model-len"].value == "3"


@pytest.mark.parametrize(
    ("given", "tags", "message"),
    [
        (Given(words=("--max-modle-len=1",)), {}, "command line: unknown argument: --max-modle-len"),
        (Given(passthrough=("-tp", "x")), {}, "NIM_PASSTHROUGH_ARGS: argument --tensor-parallel-size is not a whole"),
        (Given(runtime_config={"x": 1}), {}, "runtime_config.json: unknown argument: --x"),
        (Given(runtime_config={"NIM_PASSTHROUGH_ARGS": "'"}), {}, "NIM_PASSTHROUGH_ARGS in runtime_config.json cannot"),
        (Given(), {"nim_json_args": "[1]"}, "profile tag nim_json_args is not a JSON object"),
    ],
)
def test_wrong_arguments(given, tags, message):
    with pytest.raises(ConfigError) as caught:
        choose(BOTH, request("stripes", **tags), given)
    assert caught.value.message.startswith(message)


def test_arguments_that_cannot_be_served():
    with pytest.raises(IncompatibleModelError) as caught:
        choose(BOTH, request("stripes"), Given(words=("-tp", "16")))
    assert (caught.value.message, caught.value.hint) == ("cannot be served: more than 8", "take fewer")


class Wrong(Zebra):
    def __init__(self, **answers):
        super().__init__("stripes")
        self.__dict__ |= {name: lambda *_, answer=answer: answer for name, answer in answers.items()}


@pytest.mark.parametrize(
    ("method", "answer", "expected"),
    [
        ("options", [1], "Option in its answer"),
        ("propose", ["--x"], "Argument in its answer"),
        ("probe", True, "Verdict"),
        ("plan_launch", ["zebra"], "LaunchPlan"),
    ],
)
def test_a_backend_that_answers_something_else(method, answer, expected):
    backend = guard_backend(lambda: Wrong(**{method: answer}), PLUGIN)
    with pytest.raises(PluginError, match=f"nim-backend-zebra.* from {method}, expected {expected}"):
        getattr(backend, method)(*([] if method == "options" else [request("stripes")]))


def test_a_backend_that_raises_is_named():
    def fail(_request):
        raise KeyError("sk-secret")

    broken = Zebra("stripes")
    broken.probe = fail
    with pytest.raises(PluginError) as caught:
        guard_backend(lambda: broken, PLUGIN).probe(request("stripes"))
    assert "failed in probe: KeyError" in caught.value.message
    assert "sk-secret" not in caught.value.message


def test_a_backend_without_a_method():
    with pytest.raises(PluginError, match="a backend with the method options"):
        guard_backend(object, PLUGIN)
