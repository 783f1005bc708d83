import pytest

from nim_core.manifest import Manifest, ManifestFile, Profile

LORA = f"""\
{"1a" * 32}:
  model: meta/llama3-70b-instruct
  release: '1.0.0'
  tags:
    feat_lora: 'true'
    feat_lora_max_rank: '32'
    gpu: H100
    llm_engine: tensorrt_llm
    tp: '4'
  container_url: nvcr.io/nim/meta/llama3-70b-instruct:1.0.0
"""

ENGINE = f"""\
{"2b" * 32}:
  model: meta/llama3-70b-instruct
  release: 1.0.0
  tags: {{tp: 8}}
  workspace: !workspace
    components:
    - dst: ''
      src:
        repo_id: nim/meta/llama3-70b-instruct:hf
        files:
        - !name 'LICENSE.txt'
        - config.json
    - dst: trtllm_engine
      src:
        repo_id: ngc://nim/meta/llama3-70b-instruct:l40sx8
        files:
        - !name 'config.json'
    - dst: deeper/down/
      src: {{repo_id: nim/meta/other, files: ['rank 0.engine']}}
    - src: {{repo_id: nim/meta/other, files: [loose]}}
"""


def test_a_profile_without_workspace(load):
    profile = Profile(
        id="1a" * 32,
        tags={
            "feat_lora": "true",
            "feat_lora_max_rank": "32",
            "gpu": "H100",
            "llm_engine": "tensorrt_llm",
            "tp": "4",
        },
        model="meta/llama3-70b-instruct",
        release="1.0.0",
        container_url="nvcr.io/nim/meta/llama3-70b-instruct:1.0.0",
    )
    assert load(LORA) == Manifest(schema_version="1", selection="default", profiles=(profile,))


def test_components_become_files(load):
    manifest = load(LORA + ENGINE)
    assert [profile.id for profile in manifest.profiles] == ["1a" * 32, "2b" * 32]
    profile = manifest.profiles[1]
    assert (profile.release, profile.container_url, dict(profile.tags)) == ("1.0.0", None, {"tp": "8"})
    hf = "ngc://nim/meta/llama3-70b-instruct:hf?file="
    assert profile.files == (
        ManifestFile(path="LICENSE.txt", uri=f"{hf}LICENSE.txt"),
        ManifestFile(path="config.json", uri=f"{hf}config.json"),
        ManifestFile(
            path="trtllm_engine/config.json", uri="ngc://nim/meta/llama3-70b-instruct:l40sx8?file=config.json"
        ),
        ManifestFile(path="deeper/down/rank 0.engine", uri="ngc://nim/meta/other?file=rank 0.engine"),
        ManifestFile(path="loose", uri="ngc://nim/meta/other?file=loose"),
    )


def test_profiles_with_hardly_anything(load):
    text = f"""\
{"1a" * 32}:
  tags: {{backend: onnx, product_name_regex: '^NVIDIA-A10(?!0).*'}}
{"2b" * 32}:
"""
    assert load(text).profiles == (
        Profile(id="1a" * 32, tags={"backend": "onnx", "product_name_regex": "^NVIDIA-A10(?!0).*"}),
        Profile(id="2b" * 32),
    )


@pytest.mark.parametrize("workspace", ["", "{}", "!workspace {}", "{components: }", "!workspace {components: []}"])
def test_workspaces_without_files(workspace, load):
    assert load(f"{'1a' * 32}:\n  workspace: {workspace}\n").profiles == (Profile(id="1a" * 32),)
