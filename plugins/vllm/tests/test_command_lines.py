"""Every command line that comes out can be read by what is known of the options, and says what was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nim_backend_vllm.proposing import Machine
from nim_backend_vllm.snapshots import Flags, flags_of
from packaging.version import Version

from nim_core.types import Adapter, Argument, Exposure, Layer, Nodes, Option

VERSIONS = tuple(flags_of(Version(it)) for it in ("0.32.0", "0.33.0"))
OPEN = {"additional-config", "hf-overrides", "media-io-kwargs", "mm-processor-kwargs", "model-loader-extra-config"}
"""JSON objects that may have any key."""

SHAPED = {"device-ids": "0,1", "lora-modules": "a=/b"}
FORMS = {"amount": "8k", "value": '["a", 1]'}

FROM_CORE = {"host", "port", "model", "config", "api-key", "hf-token"}
PATHS = st.text("abc/_.=, é", min_size=1, max_size=12).map(lambda it: Path("/peft", it.strip("/")))
NAMES = st.text("abcxyz-_.=,0", min_size=1, max_size=8).filter(lambda it: not it.startswith(("-", "=")))
SIZES = st.integers(1, 64).map(str)


def read(words: tuple[str, ...], flags: Flags) -> dict[str, object]:
    """
    Read a command line as argparse would, by the options alone.

    Raises:
        ValueError: It has something that no option takes.
    """
    spellings = {f"--{name}": (option, True) for name, option in flags.options.items()}
    for name, option in flags.options.items():
        spellings |= dict.fromkeys(option.aliases, (option, True)) | dict.fromkeys(option.negations, (option, False))
        if option.kind == "switch" and name not in flags.on_only:
            spellings[f"--no-{name}"] = (option, False)
    found: dict[str, object] = {}
    rest = list(words)
    while rest:
        word, glued, value = rest.pop(0).partition("=")
        option, on = spellings[word]
        if option.kind == "switch":
            if glued:
                raise ValueError(f"{word} takes no value")
            found[option.name] = on
            continue
        values = [value] if glued else []
        while rest and not glued and not rest[0].startswith("-") and (option.many or not values):
            values.append(rest.pop(0))
        if not values and not option.optional:
            raise ValueError(f"{word} has no value")
        found[option.name] = tuple(_checked(option, it) for it in values)
    return found


def _checked(option: Option, value: str) -> object:
    if option.choices and value not in option.choices:
        raise ValueError(f"{option.name}: {value}")
    return {"integer": int, "number": float, "json": json.loads}.get(option.kind, str)(value)


def values_of(option: Option, flags: Flags) -> st.SearchStrategy[object]:
    """Return values that are right for an option, as core hands them over."""
    if option.kind == "switch":
        return st.booleans()
    if option.kind == "json" and option.name not in OPEN:
        return st.just({})
    if option.kind == "json":
        return st.dictionaries(st.text("ab_", min_size=1), st.integers() | st.text("a-='\" é"), max_size=3)
    one: st.SearchStrategy[str] = st.text("abc/-_.=é", max_size=8)
    if option.name in SHAPED:
        one = st.just(SHAPED[option.name])
    elif option.name in flags.forms:
        one = st.just(FORMS[flags.forms[option.name]])
    elif option.choices:
        one = st.sampled_from(option.choices)
    elif option.kind == "integer":
        one = st.integers(-9, 10**6).map(str)
    elif option.kind == "number":
        one = st.decimals(-9, 9, places=3).map(str)
    if option.many:
        return st.lists(one.filter(lambda it: it and not it.startswith("-")), min_size=1, max_size=3).map(tuple)
    return one.filter(bool)


@st.composite
def arguments(draw: st.DrawFn, flags: Flags) -> list[Argument]:
    names = st.sampled_from(sorted(set(flags.options) - FROM_CORE))
    chosen = draw(st.lists(names, unique=True, max_size=6))
    return [
        Argument(name=name, value=draw(values_of(flags.options[name], flags)), layer=Layer.COMMAND_LINE)
        for name in chosen
    ]


ADAPTERS = st.builds(Adapter, name=NAMES, folder=PATHS, rank=st.none() | st.integers(1, 512))
EXPOSURES = st.builds(
    Exposure, certificate=st.none() | PATHS, key=st.none() | PATHS, client_authority=st.none() | PATHS
)
TAGS = st.fixed_dictionaries(
    {},
    optional={"tp": SIZES, "pp": SIZES, "feat_lora": st.sampled_from(["true", "false"]), "feat_lora_max_rank": SIZES},
)
ENVIRONMENTS = st.fixed_dictionaries(
    {},
    optional={
        "NIM_TENSOR_PARALLEL_SIZE": SIZES,
        "NIM_MAX_MODEL_LEN": st.sampled_from(["8192", "128k", "auto", "-1"]),
        "NIM_GPU_MEM_FRACTION": st.sampled_from(["0.5", "1"]),
        "NIM_DISABLE_CUDA_GRAPH": st.sampled_from(["0", "1"]),
        "NIM_TRUST_CUSTOM_CODE": st.sampled_from(["0", "1"]),
        "NIM_MAX_LORA_RANK": SIZES,
        "NIM_DRAFT_MODEL_PATH": st.just("/draft"),
        "VLLM_API_KEY": st.just("sk-1"),
    },
)


@st.composite
def nodes(draw: st.DrawFn) -> Nodes:
    count = draw(st.integers(1, 4))
    manager = draw(st.sampled_from(["engine", "ray"]))
    return Nodes(count=count, rank=draw(st.integers(0, count - 1)), manager=manager, address="10.0.0.2")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_command_line_can_be_read(make_plan, data):
    flags = data.draw(st.sampled_from(VERSIONS))
    given_arguments = data.draw(arguments(flags))
    memory = data.draw(st.none() | st.integers(0, 1 << 40))
    launch = make_plan(
        *given_arguments,
        machine=Machine(flags=flags, cpu=data.draw(st.booleans()), memory=memory),
        environment=data.draw(ENVIRONMENTS),
        tags=data.draw(TAGS),
        served_names=tuple(data.draw(st.lists(NAMES, max_size=2))),
        adapters=tuple(data.draw(st.lists(ADAPTERS, max_size=3))),
        changing_adapters=data.draw(st.booleans()),
        nodes=data.draw(st.none() | nodes()),
        exposure=data.draw(st.none() | EXPOSURES),
        context=data.draw(st.none() | st.integers(1, 10**6)),
    )
    found = read(launch.argv[3:], flags)
    for argument in given_arguments:
        said = found.get(argument.name)
        if isinstance(argument.value, bool):
            assert said is argument.value or (said is None and argument.name in flags.on_only)
        elif isinstance(argument.value, dict):
            assert argument.value.items() <= said[0].items()
        elif isinstance(argument.value, tuple):
            assert tuple(map(str, said)) == tuple(
                str(_checked(flags.options[argument.name], it)) for it in argument.value
            )
        else:
            assert said == (_checked(flags.options[argument.name], argument.value),)
    assert len({word for word in launch.argv if word.startswith("--")}) == len(
        [word for word in launch.argv if word.startswith("--")]
    )


@pytest.mark.parametrize("words", [("--nothing", "1"), ("--enable-lora=1",), ("--seed", "x"), ("--dtype", "int4")])
def test_the_reader_refuses(words):
    with pytest.raises((ValueError, KeyError)):
        read(words, VERSIONS[1])


def test_a_key_never_is_on_the_command_line(make_plan, user_argument):
    for value in (("sk-secret",), ("sk-secret", "sk-other")):
        launch = make_plan(user_argument("api-key", value), user_argument("hf-token", "hf-secret"))
        assert not any("secret" in word or "sk-" in word for word in launch.argv)


def test_secrets_stay_hidden_in_arguments(make_request, user_argument):
    request = make_request(evolve(user_argument("api-key", ("sk-secret",)), origin="command line"))
    assert request.arguments["api-key"].name in {
        option.name for option in VERSIONS[1].options.values() if option.secret
    }
