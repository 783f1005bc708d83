"""Manifests of models that have none, as tables."""

from __future__ import annotations

import re
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from nim_core.errors import NimError, NotFoundError, UnsupportedError
from nim_core.manifest import Manifest, ManifestFile, dump_manifest, load_manifest
from nim_core.profiles.estimate import GIB, estimate
from nim_core.profiles.generate import generate_manifest
from nim_core.profiles.model import Heads, Model, heads_of, shape_of
from nim_core.profiles.names import served_model_name, short_name
from nim_core.types import Digest, ModelUri, RemoteFile, UriStyle
from tests.profiles.conftest import CONFIGS

URI = ModelUri(scheme="store", location="org/model", revision="v1")
SHA = Digest("sha256", "a" * 64)
WEIGHTS, LLAMA = CONFIGS["Llama-3.1-8B"]
FILES = (
    RemoteFile(path="model.safetensors", size=WEIGHTS, digests=(Digest("md5", "b" * 32), SHA)),
    RemoteFile(path="config.json", size=600),
)


def sizes(manifest: Manifest, lora: str = "false") -> list[tuple[str, str]]:
    return [(it.tags["tp"], it.tags["pp"]) for it in manifest.profiles if it.tags["feat_lora"] == lora]


def with_heads(heads: int, kv_heads: int | None = None, layers: int = 32, **more: Any) -> dict[str, Any]:
    known = {"num_attention_heads": heads, "num_hidden_layers": layers}
    return known | ({} if kv_heads is None else {"num_key_value_heads": kv_heads}) | more


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LLAMA, "1x1 2x1 4x1 8x1 8x2 8x4"),
        (CONFIGS["DeepSeek-V3"][1], "1x1 2x1 4x1 8x1 8x2 8x4"),
        (CONFIGS["Gemma-3-27B"][1], "1x1 2x1 4x1 8x1 8x2 8x4"),
        (with_heads(14, 2), "1x1 2x1 2x2 2x4"),
        (with_heads(28, 4), "1x1 2x1 4x1 4x2 4x4"),
        (with_heads(40, 10), "1x1 2x1 2x2 2x4"),
        (with_heads(71, 1), "1x1 1x2 1x4"),
        (with_heads(16, None), "1x1 2x1 4x1 8x1 8x2 8x4"),
        (with_heads(8, 8, layers=3), "1x1 2x1 4x1 8x1 8x2"),
        (with_heads(8, 8, layers=1), "1x1 2x1 4x1 8x1"),
        (with_heads(12, multi_query=True), "1x1 2x1 4x1 4x2 4x4"),
    ],
)
def test_parallelism_is_what_divides_heads_and_kv_heads(config: dict[str, Any], expected: str) -> None:
    manifest = generate_manifest(URI, FILES, config)
    wanted = [tuple(text.split("x")) for text in expected.split()]
    assert sizes(manifest) == sizes(manifest, "true") == wanted


@pytest.mark.parametrize("config", [{}, {"num_attention_heads": 0}, {"num_attention_heads": "8"}, with_heads(8, 0)])
def test_where_heads_are_not_known_there_is_one_profile_for_one_gpu(config: dict[str, Any]) -> None:
    (profile,) = generate_manifest(URI, FILES, config).profiles
    assert short_name(profile.tags).startswith("vllm-tp1-pp1-")
    assert heads_of(config) is None


def test_heads_of_a_latent_are_not_divided() -> None:
    assert heads_of(CONFIGS["DeepSeek-V3"][1]) == Heads(query=128, key_value=1, layers=61)


def test_a_profile_has_the_names_the_estimate_and_the_files() -> None:
    manifest = generate_manifest(URI, FILES, LLAMA)
    profile = manifest.profiles[1]
    needed = estimate(Model(weights=WEIGHTS, shape=shape_of(LLAMA)), tp=2).total / GIB
    assert short_name(profile.tags) == f"vllm-tp2-pp1-{needed:.1f}"
    assert short_name(manifest.profiles[-1].tags).startswith("vllm-tp8-pp4-feat_lora-")
    assert profile.tags["weight_bytes"] == str(WEIGHTS)
    assert profile.files == (
        ManifestFile(path="config.json", uri="store://org/model:v1?file=config.json"),
        ManifestFile(path="model.safetensors", uri="store://org/model:v1?file=model.safetensors", digest=SHA),
    )


@pytest.mark.parametrize(
    ("files", "index", "weights"),
    [
        ({"model.safetensors": 5}, None, "5"),
        ({"model.safetensors": None}, None, None),
        ({"model.safetensors": None}, {"metadata": {"total_size": 7}}, "7"),
        ({"model-1.safetensors": 5, "model-2.safetensors": None}, None, None),
        ({"pytorch_model.bin": 5, "model.safetensors": 4, "original/x.safetensors": 4}, None, "4"),
        ({"m-00001-of-00002.gguf": 5, "m-00002-of-00002.gguf": 6}, None, "11"),
        ({"m-q4.gguf": 5, "m-q8.gguf": 9}, None, None),
        ({"m.gguf": 5, "x": 1}, None, "5"),
    ],
)
def test_how_large_the_weights_are(files: dict[str, int | None], index: Any, weights: str | None) -> None:
    listed = [RemoteFile(path=path, size=size) for path, size in files.items()]
    for profile in generate_manifest(URI, listed, {}, index).profiles:
        assert profile.tags.get("weight_bytes") == weights
        assert ("estimated_vram" in profile.tags) == (weights is not None)


def test_gguf_needs_no_configuration_and_is_for_one_gpu() -> None:
    files = [RemoteFile(path="m.gguf", size=5), RemoteFile(path="README.md", size=5)]
    assert sizes(generate_manifest(URI, files)) == sizes(generate_manifest(URI, files, LLAMA)) == [("1", "1")]


@pytest.mark.parametrize(
    ("uri", "paths", "error", "message"),
    [
        (URI, ["config.json", "README.md"], NotFoundError, "no weights of a model: store://org/model:v1"),
        (URI, ["model.safetensors"], NotFoundError, "Missing HuggingFace configuration file named config.json: store"),
        (evolve(URI, file="a.gguf"), ["a.gguf"], UnsupportedError, "names a single file, not a model: store://"),
        (
            ModelUri(scheme="bucket", location="b/dir/a.gguf", style=UriStyle.OBJECT),
            ["a.gguf"],
            UnsupportedError,
            "names a single file, not a model: bucket://b/dir/a.gguf",
        ),
    ],
)
def test_what_is_no_model(uri: ModelUri, paths: list[str], error: type[NimError], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)) as caught:
        generate_manifest(uri, [RemoteFile(path=path, size=1) for path in paths])
    assert caught.value.hint


def test_objects_are_named_beneath_the_prefix() -> None:
    uri = ModelUri(scheme="bucket", location="b/model/", style=UriStyle.OBJECT)
    assert {file.uri for file in generate_manifest(uri, FILES, LLAMA).profiles[0].files} == {
        "bucket://b/model/config.json",
        "bucket://b/model/model.safetensors",
    }


def test_an_id_is_of_the_uri_and_the_way_to_run_it_and_never_changes() -> None:
    first, *others = generate_manifest(URI, FILES, LLAMA).profiles
    assert first.id == "9040bab38705a283a710b9442eb3c60d57338a2117a2f8ed990bc2004f538917"
    assert len({first.id, *(profile.id for profile in others)}) == len(others) + 1
    assert generate_manifest(evolve(URI, revision="v2"), FILES, LLAMA).profiles[0].id != first.id


@given(order=st.permutations([*FILES, RemoteFile(path="z/tokenizer.json", size=1)]), size=st.integers(1, 10**12))
def test_neither_order_nor_sizes_nor_what_else_there_is_change_the_ids(order: list[RemoteFile], size: int) -> None:
    again = generate_manifest(URI, order, LLAMA)
    assert again == generate_manifest(URI, order[::-1], LLAMA)
    other = generate_manifest(URI, [evolve(file, size=size) for file in order], LLAMA)
    assert [it.id for it in again.profiles] == [it.id for it in other.profiles]
    assert [it.id for it in again.profiles] == [it.id for it in generate_manifest(URI, FILES, LLAMA).profiles]


def test_what_is_written_reads_back_the_same(tmp_path) -> None:  # type: ignore[no-untyped-def]
    manifest = generate_manifest(URI, FILES, LLAMA)
    dump_manifest(manifest, tmp_path / "m.yaml")
    assert load_manifest(tmp_path / "m.yaml") == manifest


@pytest.mark.parametrize(
    ("source", "explicit", "expected"),
    [
        ("hf://a/b:rev", None, "a/b"),
        ("hf://a/b", None, "a/b"),
        ("hf://a/b:rev", "mine", "mine"),
        ("hf://a/b:rev", "", "a/b"),
        ("ngc://nim/meta/llama-3.3-70b-instruct:hf-1+chk1", None, "nim/meta/llama-3.3-70b-instruct"),
        ("s3://my-bucket/my-org/my-model", None, "my-bucket/my-org/my-model"),
        ("s3://my-bucket/my-org/my-model/", None, "my-bucket/my-org/my-model"),
        ("modelscope://LLM-Research/Llama-3.2-1B-Instruct:d3e55134", None, "LLM-Research/Llama-3.2-1B-Instruct"),
        ("gs://bucket/a:b/c", None, "bucket/a-b/c"),
        ("gs://bucket/a:b:c", None, "bucket/a-b"),
        ("/mnt/models/my-llama", None, "/mnt/models/my-llama"),
        ("local:///mnt/models/my-llama", None, "/mnt/models/my-llama"),
    ],
)
def test_what_a_model_is_called_towards_clients(source: str, explicit: str | None, expected: str) -> None:
    assert served_model_name(source, explicit) == expected
