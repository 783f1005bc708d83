from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nim_core.profiles.estimate import CONTEXT_STEP, Estimate, estimate, largest_context
from nim_core.profiles.model import Attention, Model, ModelShape
from tests.profiles.conftest import CONFIGS, GIB, model

DOCS = Path(__file__).parents[2] / "docs" / "profiles.md"


def cache(name: str, context: int) -> int:
    return estimate(model(name), context=context).cache


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # "Insights into DeepSeek-V3", ISCA 2025, arXiv:2505.09343, table 1: KV cache per token, BF16
        ("DeepSeek-V3", 70_272),
        ("Qwen2.5-72B", 327_680),
    ],
)
def test_cache_per_token_is_what_papers_say(name: str, published: int) -> None:
    assert cache(name, 1) == published


@pytest.mark.parametrize(
    ("name", "tokens", "published"),
    [
        # huggingface.co/blog/llama31, "Inference Memory Requirements"; 1k is 1024 there, and 16k is 16000
        ("Llama-3.1-8B", 1024, 0.125),
        ("Llama-3.1-8B", 16_000, 1.95),
        ("Llama-3.1-8B", 128_000, 15.62),
        ("Llama-3.1-70B", 1024, 0.313),
        ("Llama-3.1-70B", 16_000, 4.88),
        ("Llama-3.1-70B", 128_000, 39.06),
        # what llm-cal reports for Mixtral-8x7B-v0.1 at its whole context
        ("Mixtral-8x7B", 32_768, 4.00),
    ],
)
def test_cache_of_a_request_is_what_is_published(name: str, tokens: int, published: float) -> None:
    assert cache(name, tokens) / GIB == pytest.approx(published, abs=0.006)


@pytest.mark.parametrize(
    ("weights", "published"),
    [
        # list-model-profiles of llama-3.1-8b-instruct 2.0.6; what is quantised is all but embeddings and head
        (16_060_522_496, 33),
        (16_060_522_496 - 6_979_588_096, 27),
        (2 * 1_050_673_152 + 6_979_588_096 * 9 // 16, 24),
    ],
    ids=["bf16", "fp8", "nvfp4"],
)
def test_the_whole_is_what_the_product_prints(weights: int, published: int) -> None:
    shape = model("Llama-3.1-8B").shape
    assert round(estimate(Model(weights=weights, shape=shape)).total / GIB) == published


def test_the_suggestion_is_the_one_the_product_made() -> None:
    """Seen with llama-3.1-8b-instruct in bf16 and 29,846 MiB free: 84992 tokens, 28 GB instead of 33."""
    llama = model("Llama-3.1-8B")
    assert largest_context(llama, 29_846 * 2**20) == 84_992
    assert round(estimate(llama, context=84_992).total / GIB) == 28


def test_a_window_bounds_what_its_layers_keep() -> None:
    """10 of 62 layers keep everything; the others no more than the window and what is computed at once."""
    per_layer = 2 * 16 * 128 * 2
    assert cache("Gemma-3-27B", 32_768) == 10 * per_layer * 32_768 + 52 * per_layer * (1024 + 8192)
    assert cache("Gemma-3-27B", 1000) == 62 * per_layer * 1000


@pytest.mark.parametrize(
    ("tp", "kept"),
    [(1, 327_680), (2, 163_840), (8, 40_960), (16, 40_960)],
)
def test_heads_are_divided_until_one_is_left(tp: int, kept: int) -> None:
    assert estimate(model("Qwen2.5-72B"), tp=tp, context=1).cache == kept


def test_a_latent_is_on_every_gpu() -> None:
    assert estimate(model("DeepSeek-V3"), tp=8, context=1).cache == 70_272


def test_stages_divide_layers_and_the_fullest_counts() -> None:
    halves = estimate(model("DeepSeek-V3"), tp=8, pp=2, context=61)
    assert halves.cache == 31 * 576 * 2 * 61
    assert halves.weights == pytest.approx(688_586_727_753 / 8 * 31 / 61, abs=1)


def test_without_a_shape_only_weights_and_overhead_are_counted() -> None:
    bare = Model(weights=16 * GIB)
    assert estimate(bare, tp=2, pp=2) == Estimate(weights=4 * GIB, cache=0, activations=0, overhead=2 * GIB)
    assert largest_context(bare, 80 * GIB) is None


@pytest.mark.parametrize("name", CONFIGS)
def test_the_page_has_these_figures(name: str) -> None:
    row = re.search(rf"(?m)^\| {re.escape(name)} \|(.*)\|$", DOCS.read_text(encoding="utf-8"))
    assert row is not None
    tp, context, *figures = (cell.strip() for cell in row[1].split("|")[:7])
    found = estimate(model(name), tp=int(tp), context=int(context.replace(" ", "")))
    parts = (found.weights, found.cache, found.activations, found.overhead, found.total)
    assert figures == [f"{part / GIB:.1f}" for part in parts]


counts = st.integers(1, 256)
attention = st.builds(
    Attention,
    layers=st.integers(1, 128),
    heads=counts,
    values=st.integers(1, 1024),
    window=st.none() | st.integers(1, 2**17),
)
shapes = st.builds(
    ModelShape,
    context=st.integers(1, 2**20),
    layers=st.integers(1, 256),
    hidden=st.integers(1, 2**15),
    intermediate=st.integers(1, 2**17),
    vocabulary=st.integers(1, 2**18),
    attention=st.lists(attention, max_size=3).map(tuple),
    cache_bytes=st.sampled_from([1, 2]),
)
models = st.builds(Model, weights=st.integers(1, 2**42), shape=shapes)
contexts = st.integers(1, 2**20)


@given(models, contexts, contexts, counts, counts)
def test_a_longer_context_never_needs_less(some: Model, one: int, other: int, tp: int, pp: int) -> None:
    shorter, longer = sorted((one, other))
    needs = [estimate(some, tp=tp, pp=pp, context=context).total for context in (shorter, longer)]
    assert needs == sorted(needs)


@given(models, contexts, st.integers(2, 64), st.integers(2, 64), counts)
def test_more_gpus_never_need_more_of_each(some: Model, context: int, one: int, other: int, pp: int) -> None:
    fewer, more = sorted((one, other))
    needs = [estimate(some, tp=tp, pp=pp, context=context).total for tp in (more, fewer)]
    assert needs == sorted(needs)


@given(models, st.integers(0, 2**43), counts, counts)
def test_the_suggestion_fits_and_one_step_more_does_not(some: Model, available: int, tp: int, pp: int) -> None:
    assert some.shape is not None
    context = largest_context(some, available, tp=tp, pp=pp)
    usable = available * 0.95
    if context is not None:
        assert context % CONTEXT_STEP == 0
        assert context <= some.shape.context
        assert estimate(some, tp=tp, pp=pp, context=context).total <= usable
    following = (context or 0) + CONTEXT_STEP
    if following <= some.shape.context:
        assert estimate(some, tp=tp, pp=pp, context=following).total > usable
