from __future__ import annotations

from itertools import pairwise, permutations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from nim_core.manifest import Profile
from nim_core.profiles.hardware import Hardware
from nim_core.profiles.model import Model
from nim_core.profiles.names import has_lora
from nim_core.profiles.selection import Candidate, Category, Ranking, Verdict, explain, judge, rank
from nim_core.types import Gpu
from tests.profiles.conftest import GIB, gpu, model, profile

LLAMA = model("Llama-3.1-8B")
ONE = Hardware(gpus=(gpu(),))


def machine(*gpus: Gpu) -> Hardware:
    return Hardware(gpus=tuple(evolve(one, index=number) for number, one in enumerate(gpus)))


def verdict(hardware: Hardware, known: Model | None = None, **tags: str) -> Verdict:
    return judge(Candidate(profile=profile(**tags), model=known), hardware)


def ranked(hardware: Hardware, *profiles: Profile, lora: bool = False) -> Ranking:
    return rank((Candidate(profile=one) for one in profiles), hardware, lora=lora)


@pytest.mark.parametrize(
    ("tags", "gpus", "category", "reason"),
    [
        ({}, (), Category.INCOMPATIBLE, "no GPU was found"),
        ({}, (gpu(),), Category.RUNNABLE, "how much memory it needs is not known"),
        ({"vram": "80"}, (gpu(),), Category.RUNNABLE, "needs 80.0 GB per GPU, 80.0 GB are free"),
        ({"vram": "80.1"}, (gpu(),), Category.LOW_MEMORY, "needs 80.1 GB per GPU, 80.0 GB are free"),
        ({"vram": "60"}, (gpu(free=50),), Category.LOW_MEMORY, "needs 60.0 GB per GPU, 50.0 GB are free"),
        ({"vram": "60"}, (gpu(free=50), gpu(free=70)), Category.RUNNABLE, "needs 60.0 GB per GPU, 70.0 GB are free"),
        (
            {"tp": "2", "vram": "60"},
            (gpu(free=50), gpu()),
            Category.LOW_MEMORY,
            "needs 60.0 GB per GPU, 50.0 GB are free",
        ),
        ({"tp": "2"}, (gpu(),), Category.INCOMPATIBLE, "it needs 2 GPUs of one kind, there is 1"),
        ({"tp": "2", "pp": "2"}, (gpu(),) * 3, Category.INCOMPATIBLE, "it needs 4 GPUs of one kind, there are 3"),
        (
            {"tp": "2"},
            (gpu(), gpu(device_id="26b5:10de")),
            Category.INCOMPATIBLE,
            "it needs 2 GPUs of one kind, there is 1",
        ),
        ({"tp": "2"}, (gpu(10, mig=True),) * 2, Category.INCOMPATIBLE, "it needs 2 GPUs of one kind, there are none"),
        ({}, (gpu(10, mig=True),), Category.RUNNABLE, "how much memory it needs is not known"),
        ({"gpu_device": "26B5:10DE"}, (gpu(),), Category.INCOMPATIBLE, "it is made for another GPU: 26B5:10DE"),
        ({"gpu_device": "2330:10DE"}, (gpu(),), Category.RUNNABLE, "how much memory it needs is not known"),
        ({"gpu_device": "2330"}, (gpu(),), Category.RUNNABLE, "how much memory it needs is not known"),
        ({"gpu": "h100"}, (gpu(),), Category.RUNNABLE, "how much memory it needs is not known"),
        ({"gpu": "h100_nvl"}, (gpu(),), Category.INCOMPATIBLE, "it is made for another GPU: h100_nvl"),
        (
            {"gpu": "a100_sxm4_40gb"},
            (gpu(name="NVIDIA A100-SXM4-40GB"),),
            Category.RUNNABLE,
            "how much memory it needs is not known",
        ),
        ({"number_of_gpus": "2"}, (gpu(),), Category.INCOMPATIBLE, "it needs 2 GPUs of one kind, there is 1"),
        ({"trtllm_buildable": "true"}, (gpu(),), Category.COMPILABLE, "how much memory it needs is not known"),
        (
            {"vram": "60"},
            (Gpu(name="GB10", device_id="2e12:10de", memory_total=None, memory_free=None),),
            Category.RUNNABLE,
            "how much memory is free is not known",
        ),
    ],
)
def test_categories(tags: dict[str, str], gpus: tuple[Gpu, ...], category: Category, reason: str) -> None:
    found = verdict(machine(*gpus), **tags)
    assert (found.category, found.reason) == (category, reason)


@pytest.mark.parametrize(
    ("free", "category", "context"),
    [
        (34, Category.RUNNABLE, None),
        (29_846 / 1024, Category.LOW_MEMORY, 84_992),
        (18.5, Category.LOW_MEMORY, 2048),
        (17.5, Category.LOW_MEMORY, None),
        (17, Category.INCOMPATIBLE, None),
    ],
)
def test_a_known_model(free: float, category: Category, context: int | None) -> None:
    found = verdict(machine(gpu(free=free)), LLAMA)
    assert found.category is category
    assert (found.reduced.context if found.reduced else None) == context


def test_a_bound_on_the_context_lets_more_run() -> None:
    candidate, hardware = Candidate(profile=profile(vram="33.0"), model=LLAMA), machine(gpu(24))
    assert judge(candidate, hardware).category is Category.LOW_MEMORY
    assert judge(candidate, hardware, context=8192).category is Category.RUNNABLE
    assert judge(evolve(candidate, model=None), hardware, context=8192).category is Category.LOW_MEMORY


# best first; each one loses to those before it on a machine of four H100
IN_ORDER = (
    profile("tensorrt_llm-fp8-tp4-pp1", 1, gpu="H100", profile="latency"),
    profile("tensorrt_llm-fp8-tp4-pp1", 2, gpu="H100", profile="throughput"),
    profile("tensorrt_llm-bf16-tp4-pp1", 3, gpu="H100"),
    profile("tensorrt_llm-fp8-tp4-pp1", 4),
    profile("vllm-mxfp4-tp1-pp1", 5),
    profile("vllm-fp8-tp4-pp1", 6),
    profile("vllm-fp8-tp2-pp1", 7),
    profile("vllm-fp8-tp2-pp2", 8),
    profile("vllm-bf16-tp4-pp1", 9),
    profile("vllm-nvfp4-tp4-pp1", 10),
    profile("sglang-fp8-tp4-pp1", 11),
    profile("other-fp8-tp4-pp1", 12),
    profile("vllm-fp8-tp4-pp1-feat_lora", 13),
    profile("tensorrt_llm-bf16-tp4-pp1", 14, trtllm_buildable="true"),
    profile("vllm-bf16-tp4-pp1", 15, vram="90"),
    profile("vllm-bf16-tp8-pp1", 16),
)
FOUR = machine(*(gpu() for _ in range(4)))


@pytest.mark.parametrize(("better", "worse"), list(pairwise(IN_ORDER)))
def test_what_comes_first(better: Profile, worse: Profile) -> None:
    for order in permutations((better, worse)):
        assert [one.profile for one in ranked(FOUR, *order).verdicts] == [better, worse]


def test_all_in_order() -> None:
    ranking = ranked(FOUR, *reversed(IN_ORDER))
    assert [one.profile.id[-2:] for one in ranking.verdicts] == [one.id[-2:] for one in IN_ORDER]
    assert ranking.selected is ranking.verdicts[0]


PLAIN, LORA = profile(number=1), profile("vllm-bf16-tp1-pp1-feat_lora", 2)


@pytest.mark.parametrize(
    ("profiles", "lora", "selected"),
    [
        ((PLAIN, LORA), False, PLAIN),
        ((PLAIN, LORA), True, LORA),
        ((LORA,), False, LORA),
        ((PLAIN,), True, PLAIN),
        ((PLAIN, evolve(LORA, tags=LORA.tags | {"tp": "2"})), True, None),
        ((), False, None),
    ],
)
def test_lora(profiles: tuple[Profile, ...], lora: bool, selected: Profile | None) -> None:
    found = ranked(ONE, *profiles, lora=lora).selected
    assert (found.profile if found else None) == selected


def test_explanations() -> None:
    ranking = ranked(
        machine(gpu(), gpu()),
        profile("vllm-fp8-tp2-pp1", 1, vram="34.0"),
        profile("vllm-bf16-tp2-pp1", 2),
        profile("vllm-nvfp4-tp2-pp1", 3),
        profile("vllm-fp8-tp1-pp1", 4),
        profile("vllm-fp8-tp2-pp1-feat_lora", 5),
        profile("vllm-fp8-tp2-pp1", 6, vram="99"),
        profile("vllm-fp8-tp4-pp1", 7),
        profile("vllm-fp8-tp2-pp1", 8, profile="latency"),
    )
    assert {one.profile.id[-1]: why for one, why in explain(ranking)} == {
        "8": "selected: how much memory it needs is not known",
        "1": "lost on optimisation: none, selected has latency",
        "2": "lost on precision: bf16, selected has fp8",
        "3": "lost on precision: nvfp4 (emulated), selected has fp8",
        "4": "lost on optimisation: none, selected has latency",
        "5": "lost on LoRA: for LoRA, selected has without LoRA",
        "6": "lost on memory: low memory, selected has runnable",
        "7": "not possible: it needs 4 GPUs of one kind, there are 2",
    }


def test_explanation_where_lora_is_asked_for() -> None:
    why = {one.profile.id: text for one, text in explain(ranked(ONE, PLAIN, LORA, lora=True))}
    assert why[PLAIN.id] == "not possible: it is not made for LoRA, and LoRA is asked for"


tags = st.fixed_dictionaries(
    {},
    optional={
        "llm_engine": st.sampled_from(["vllm", "sglang", "tensorrt_llm", "x"]),
        "precision": st.sampled_from(["bf16", "fp8", "nvfp4", "y"]),
        "tp": st.sampled_from(["1", "2", "8", "0", "many", ""]),
        "pp": st.sampled_from(["1", "2"]),
        "feat_lora": st.sampled_from(["true", "false"]),
        "gpu": st.sampled_from(["H100", "L40", ""]),
        "gpu_device": st.sampled_from(["2330:10de", "26b5:10de"]),
        "vram": st.sampled_from(["1", "79.9", "81", "?"]),
        "trtllm_buildable": st.sampled_from(["true", "false"]),
    },
)
gpus = st.builds(
    gpu,
    st.just(80),
    st.integers(0, 80),
    name=st.sampled_from(["NVIDIA H100 80GB HBM3", "NVIDIA L40"]),
    device_id=st.sampled_from(["2330:10de", "26b5:10de"]),
    compute_capability=st.sampled_from([None, (8, 9), (9, 0), (10, 0)]),
    mig=st.booleans(),
)
machines = st.lists(gpus, max_size=4).map(lambda found: machine(*found))
candidates = st.lists(st.tuples(tags, st.none() | st.just(LLAMA)), max_size=6).map(
    lambda found: [
        Candidate(profile=Profile(id=f"{number:064x}", tags=some), model=known)
        for number, (some, known) in enumerate(found)
    ]
)


@given(candidates, machines, st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_the_manifest_does_not_matter(some, hardware, lora, random) -> None:
    shuffled = random.sample(some, len(some))
    assert rank(some, hardware, lora=lora) == rank(shuffled, hardware, lora=lora)


@given(candidates, machines, st.booleans())
def test_what_is_selected_can_run(some, hardware, lora) -> None:
    ranking = rank(some, hardware, lora=lora)
    selected = ranking.selected
    assert len(explain(ranking)) == len(some)
    if selected is None:
        return
    categories = [one.category for one in ranking.verdicts if not ranking.lora or has_lora(one.tags)]
    assert selected.category == min(categories)
    assert selected.category is not Category.INCOMPATIBLE
    assert selected.gpus


@given(candidates, machines)
def test_memory_decides_the_category(some, hardware) -> None:
    for one in rank(some, hardware).verdicts:
        if one.category in {Category.RUNNABLE, Category.COMPILABLE} and None not in {one.required, one.available}:
            assert one.required <= one.available
        if one.reduced is not None:
            assert one.category is Category.LOW_MEMORY
            assert one.reduced.required <= one.available


def test_a_machine_of_different_gpus_uses_those_with_most_memory() -> None:
    found = verdict(machine(gpu(20), gpu(90, device_id="26b5:10de"), gpu(80)), vram="34")
    assert [one.index for one in found.gpus] == [1]
    assert found.available == 90 * GIB
