from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nim_core.errors import ConfigError
from nim_core.serving.arguments import merge, read_object, read_words
from nim_core.types import Argument, Layer, Option, argument_words

JSON = "compilation-config"
OPTIONS = (
    Option(name="max-model-len", aliases=("--context-length",)),
    Option(name="max-num-seqs", kind="integer"),
    Option(name="tensor-parallel-size", aliases=("-tp",), kind="integer"),
    Option(name="gpu-memory-utilization", kind="number"),
    Option(name="enable-lora", kind="switch"),
    Option(name="enable-prefix-caching", kind="switch"),
    Option(name="served-model-name", many=True),
    Option(name="api-key", many=True, secret=True),
    Option(name="dtype", choices=("auto", "bfloat16", "float16")),
    Option(name="compilation-config", kind="json"),
    Option(name="optimization-level", aliases=("-O",), kind="integer"),
    Option(name="load-format", optional=True),
)


def values(*words, options=OPTIONS):
    return {it.name: it.value for it in read_words(words, options, Layer.COMMAND_LINE, "command line")}


def refusal(*words):
    with pytest.raises(ConfigError) as caught:
        values(*words)
    return caught.value


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {}),
        (["--max-model-len", "128k"], {"max-model-len": "128k"}),
        (["--max-model-len=128k"], {"max-model-len": "128k"}),
        (["--max_model_len=128k"], {"max-model-len": "128k"}),
        (["--context-length", "5"], {"max-model-len": "5"}),
        (["--max-mod", "5"], {"max-model-len": "5"}),
        (["-tp", "2"], {"tensor-parallel-size": "2"}),
        (["-O3"], {"optimization-level": "3"}),
        (["-O", "3"], {"optimization-level": "3"}),
        (["--max-model-len", "-1"], {"max-model-len": "-1"}),
        (["--enable-lora"], {"enable-lora": True}),
        (["--no-enable-lora"], {"enable-lora": False}),
        (["--no_enable_lora"], {"enable-lora": False}),
        (["--enable-lora", "--no-enable-lora"], {"enable-lora": False}),
        (["--no-enable-lora", "--enable-lora"], {"enable-lora": True}),
        (["--max-num-seqs", "1", "--max-num-seqs", "2"], {"max-num-seqs": "2"}),
        (["--served-model-name", "a", "b", "-tp", "1"], {"served-model-name": ("a", "b"), "tensor-parallel-size": "1"}),
        (["--served-model-name=a"], {"served-model-name": ("a",)}),
        (["--load-format", "--enable-lora"], {"load-format": True, "enable-lora": True}),
        (["--gpu-memory-utilization", ".5"], {"gpu-memory-utilization": ".5"}),
        (["--compilation-config", '{"level": 3}'], {"compilation-config": {"level": 3}}),
        (["--compilation-config", "3"], {"compilation-config": "3"}),
        (["--compilation-config.a.b", "[1]", "--compilation_config.c=x"], {JSON: {"a": {"b": [1]}, "c": "x"}}),
        (["--compilation-config", '{"a": 1, "b": 2}', "--compilation-config.a", "5"], {JSON: {"a": 5, "b": 2}}),
    ],
)  # fmt: skip
def test_words(words, expected):
    assert values(*words) == expected


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["--max-modle-len", "1"], "unknown argument: --max-modle-len", "did you mean --max-model-len?"),
        (["--no-enable-lroa"], "unknown argument: --no-enable-lroa", "did you mean --no-enable-lora?"),
        (["--max", "1"], "ambiguous argument: --max could be --max-model-len, --max-num-seqs", None),
        (["--dtype", "bf16"], "argument --dtype has no such choice: bf16", "did you mean bfloat16?"),
        (["--dtype", "x"], "argument --dtype has no such choice: x", "it is one of auto, bfloat16, float16"),
        (["--max-num-seqs", "many"], "argument --max-num-seqs is not a whole number: many", None),
        (["--gpu-memory-utilization", "0,9"], "argument --gpu-memory-utilization is not a number: 0,9", None),
        (["--enable-lora=true"], "argument --enable-lora takes no value: --enable-lora=true", None),
        (["--max-model-len"], "argument --max-model-len needs a value", None),
        (["--max-model-len", "--enable-lora"], "argument --max-model-len needs a value", None),
        (["stray"], "unexpected word: stray", "values follow the name of their argument"),
        (["--compilation-config", "{'a': 1}"], "argument --compilation-config is not valid JSON: {'a': 1}", None),
        (["--dtype.x", "1"], "unknown argument: --dtype.x", "did you mean --dtype?"),
    ],
)
def test_refused_words(words, message, hint):
    error = refusal(*words)
    assert error.message == f"command line: {message}"
    assert error.hint == hint


def test_an_engine_that_declares_nothing_gets_everything():
    words = ["--temp", "0.5", "--flag", "--names", "a", "b", "--x=y", "--json", '{"a":1}']
    expected = {"temp": "0.5", "flag": True, "names": ("a", "b"), "x": "y", "json": {"a": 1}}
    assert values(*words, options=()) == expected


def objects(record):
    return {it.name: it.value for it in read_object(record, OPTIONS, Layer.RUNTIME_CONFIG, "runtime_config.json")}


def test_an_object():
    record = {
        "max_model_len": 4096,
        "enable-lora": True,
        "enable-prefix-caching": False,
        "served-model-name": ["a", "b"],
        "compilation-config": {"a": {"b": 1}},
        "gpu-memory-utilization": 0.5,
        "dtype": None,
    }
    assert objects(record) == {
        "max-model-len": "4096",
        "enable-lora": True,
        "enable-prefix-caching": False,
        "served-model-name": ("a", "b"),
        "compilation-config": {"a": {"b": 1}},
        "gpu-memory-utilization": "0.5",
    }


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"max-modle-len": 1}, "unknown argument: --max-modle-len"),
        ({"max-model-len": True}, "argument --max-model-len needs a value, not true"),
        ({"enable-lora": "yes"}, 'argument --enable-lora is true or false, not "yes"'),
        ({"dtype": "x"}, "argument --dtype has no such choice: x"),
    ],
)
def test_refused_objects(record, message):
    with pytest.raises(ConfigError) as caught:
        objects(record)
    assert caught.value.message == f"runtime_config.json: {message}"


def argument(value, layer, name="x", origin=None):
    return Argument(name=name, value=value, layer=layer, origin=origin or layer.name)


def test_the_stronger_layer_counts_and_says_where_it_came_from():
    weak, strong = argument("1", Layer.DEFAULT), argument("2", Layer.VARIABLE, origin="NIM_X")
    for order in ([weak, strong], [strong, weak]):
        assert merge(order)["x"] == strong


def test_of_one_layer_the_later_counts():
    assert merge([argument("1", Layer.TAG), argument("2", Layer.TAG)])["x"].value == "2"


def test_objects_are_merged_over_all_layers():
    layers = [
        argument({"a": 1, "b": {"c": 1, "d": 1}}, Layer.TAG, origin="tags"),
        argument({"b": {"c": 2}}, Layer.COMMAND_LINE, origin="command line"),
        argument({"a": 3, "e": 3}, Layer.VARIABLE, origin="NIM_X"),
    ]
    merged = merge(layers)["x"]
    assert merged.value == {"a": 3, "b": {"c": 2, "d": 1}, "e": 3}
    assert merged.origin == "command line + NIM_X + tags"
    assert merged.layer is Layer.COMMAND_LINE


def test_an_object_is_not_merged_with_what_is_none():
    layers = [argument({"a": 1}, Layer.TAG), argument("3", Layer.VARIABLE), argument({"b": 1}, Layer.PASSTHROUGH)]
    assert merge(layers)["x"].value == {"b": 1}


texts = st.text(st.characters(categories=["L", "N"], include_characters="-_./:{}[]\"' "), min_size=1, max_size=8)
plain_texts = texts.filter(lambda text: not text.startswith("-"))
made = st.fixed_dictionaries(
    {},
    optional={
        "max-model-len": texts,
        "enable-lora": st.booleans(),
        "served-model-name": st.lists(plain_texts, min_size=1).map(tuple),
        JSON: st.dictionaries(texts, st.integers() | texts | st.dictionaries(texts, texts)),
    },
)


@given(made)
def test_what_is_written_reads_back(record):
    arguments = [argument(value, Layer.COMMAND_LINE, name) for name, value in record.items()]
    assert values(*argument_words(arguments)) == record
