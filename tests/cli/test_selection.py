from __future__ import annotations

import pytest

from nim_core.cli.selection import Choice, choose_profiles
from nim_core.errors import ProfileError
from nim_core.manifest import Manifest, Profile
from nim_core.profiles.names import short_name

TAGS = {"llm_engine": "vllm", "precision": "bf16", "tp": "1", "pp": "1"}
PLAIN = Profile(id="a" * 64, tags=TAGS)
FP8 = Profile(id="b" * 64, tags=TAGS | {"precision": "fp8"})
LORA = Profile(id="c" * 64, tags=TAGS | {"feat_lora": "true"})
LORA_TP2 = Profile(id="d" * 64, tags=TAGS | {"feat_lora": "true", "tp": "2"})
LORA_NAME = "vllm-bf16-tp1-pp1-feat_lora"
LORA_TP2_NAME = "vllm-bf16-tp2-pp1-feat_lora"
TWIN = Profile(id="e" * 64, tags=TAGS)


def manifest(*profiles: Profile) -> Manifest:
    return Manifest(schema_version="2.0.0", profiles=profiles, origin="m.yaml")


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        (TAGS, "vllm-bf16-tp1-pp1"),
        (LORA.tags, "vllm-bf16-tp1-pp1-feat_lora"),
        (TAGS | {"feat_lora": "false"}, "vllm-bf16-tp1-pp1"),
        (
            {
                "llm_engine": "tensorrt_llm",
                "gpu": "H100",
                "precision": "fp8",
                "tp": "8",
                "pp": "1",
                "profile": "latency",
            },
            "tensorrt_llm-h100-fp8-tp8-pp1-latency",
        ),
        (
            {"llm_engine": "tensorrt_llm", "trtllm_buildable": "true", "precision": "bf16", "tp": "2"},
            "tensorrt_llm-trtllm_buildable-bf16-tp2",
        ),
        ({"backend": "triton"}, "triton"),
        ({"model_type": "onnx", "gpu": "A10G 24GB"}, "onnx-a10g_24gb"),
        ({}, ""),
    ],
)
def test_names(tags: dict[str, str], name: str) -> None:
    assert short_name(tags) == name


@pytest.mark.parametrize(
    ("choice", "profiles", "expected"),
    [
        (Choice(), (PLAIN,), (PLAIN,)),
        (Choice(variable="default"), (PLAIN,), (PLAIN,)),
        (Choice(variable=FP8.id), (PLAIN, FP8), (FP8,)),
        (Choice(variable="vllm-fp8-tp1-pp1"), (PLAIN, FP8), (FP8,)),
        (Choice(names=(PLAIN.id,), variable=FP8.id), (PLAIN, FP8), (PLAIN,)),
        (Choice(names=(FP8.id, PLAIN.id, "vllm-fp8-tp1-pp1")), (PLAIN, FP8, LORA), (FP8, PLAIN)),
        (Choice(every=True, variable="nonsense"), (PLAIN, FP8), (PLAIN, FP8)),
        (Choice(lora=True, variable=PLAIN.id), (PLAIN, LORA), (LORA,)),
    ],
)
def test_choices(choice: Choice, profiles: tuple[Profile, ...], expected: tuple[Profile, ...]) -> None:
    assert choose_profiles(choice, manifest(*profiles)) == expected


ALL_THREE = f"""\
All valid profiles of m.yaml:
  {PLAIN.id}  vllm-bf16-tp1-pp1
  {LORA.id}  vllm-bf16-tp1-pp1-feat_lora
  {FP8.id}  vllm-fp8-tp1-pp1"""


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice(names=("x", FP8.id, "y", "x")), f"Unknown profiles provided: x, y\n{ALL_THREE}"),
        (Choice(), f"no profile given, and there are 3 to choose from\n{ALL_THREE}"),
        (
            Choice(variable="vllm"),
            "Environment variable NIM_MODEL_PROFILE is set to vllm, but no matching profile_id or profile "
            "description is found in manifest\n" + ALL_THREE,
        ),
    ],
)
def test_what_cannot_be_chosen_lists_what_can(choice: Choice, message: str) -> None:
    with pytest.raises(ProfileError) as caught:
        choose_profiles(choice, manifest(LORA, FP8, PLAIN))
    assert caught.value.message == message
    assert caught.value.hint is not None


def test_a_name_of_several_profiles_lists_these() -> None:
    with pytest.raises(ProfileError) as caught:
        choose_profiles(Choice(names=("vllm-bf16-tp1-pp1",)), manifest(PLAIN, TWIN, FP8))
    assert caught.value.message == (
        "several profiles have this name: vllm-bf16-tp1-pp1\n"
        f"They are:\n  {PLAIN.id}  vllm-bf16-tp1-pp1\n  {TWIN.id}  vllm-bf16-tp1-pp1"
    )


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        (
            (PLAIN,),
            f"and there are none\nAll profiles of m.yaml:\n  {PLAIN.id}  vllm-bf16-tp1-pp1",
        ),
        (
            (PLAIN, LORA_TP2, LORA),
            f"and there are 2\nLoRA profiles of m.yaml:\n  {LORA.id}  {LORA_NAME}\n  {LORA_TP2.id}  {LORA_TP2_NAME}",
        ),
    ],
)
def test_lora_needs_one_profile(profiles: tuple[Profile, ...], message: str) -> None:
    with pytest.raises(ProfileError) as caught:
        choose_profiles(Choice(lora=True), manifest(*profiles))
    assert caught.value.message == f"--lora needs one profile with the tag feat_lora 'true', {message}"


@pytest.mark.parametrize("choice", [Choice(), Choice(every=True), Choice(lora=True), Choice(names=("x",))])
def test_a_manifest_without_profiles(choice: Choice) -> None:
    with pytest.raises(ProfileError, match=r"no profiles in manifest: m\.yaml"):
        choose_profiles(choice, manifest())


def test_a_profile_without_tags_is_listed_by_its_id() -> None:
    with pytest.raises(ProfileError) as caught:
        choose_profiles(Choice(names=("x",)), manifest(Profile(id="f" * 64)))
    assert caught.value.message.splitlines()[-1] == f"  {'f' * 64}"
