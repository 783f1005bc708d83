import pytest

from nim_core.manifest import Manifest, ManifestFile, Profile, load_manifest
from nim_core.types import Digest

LLAMA = "ngc://nim/meta/llama-3.3-70b-instruct"

VLLM = f"""\
schema_version: 2.0.0
profile_selection_criteria: default
profiles:
- id: {"1a" * 32}
  tags:
    feat_lora: 'false'
    llm_engine: vllm
    pp: '1'
    precision: bf16
    tp: '4'
  workspace:
    files:
      LICENSE:
        uri: {LLAMA}:hf-5825c91?file=LICENSE
      README.md:
        uri: {LLAMA}:hf-5825c91?file=README.md
      USE_POLICY.md:
        uri: {LLAMA}:hf-5825c91?file=USE_POLICY.md
      config.json:
        uri: {LLAMA}:hf-5825c91?file=config.json
        checksum: 'blake3:{"0f" * 32}'
"""

PREBUILT = f"""\
schema_version: "2.0"
profiles:
- id: {"2b" * 32}
  tags: {{gpu: A100, gpu_device: '20b2:10de', number_of_gpus: '1', profile: throughput}}
  workspace:
    files:
      LICENSE:
        uri: {LLAMA}:hf-bb46c15-jet?file=LICENSE
      trtllm_engine/rank0.engine:
        uri: {LLAMA}:a100x1-throughput-precision.bf16-udrspesh5q?file=rank0.engine
"""

ODD_URIS = f"""\
schema_version: 2.0.0
profile_selection_criteria: default
profiles:
  - id: {"3c" * 32}
    tags: {{tp: "8"}}
    workspace:
      files:
        engine: {{uri: "ngc://org/team/model/engine.bin"}}
        config: {{uri: "ngc://org/team/model/config.json"}}
        license: {{uri: "ngc://org/team/model/LICENSE"}}
"""


def head(fields):
    return f"schema_version: 2.0.0\nprofiles:\n- id: {'a1' * 32}\n{fields}"


def test_a_profile_from_one_repository(load):
    digest = Digest("blake3", "0f" * 32)
    names = ["LICENSE", "README.md", "USE_POLICY.md", "config.json"]
    files = tuple(
        ManifestFile(path=name, uri=f"{LLAMA}:hf-5825c91?file={name}", digest=digest if name == "config.json" else None)
        for name in names
    )
    tags = {"feat_lora": "false", "llm_engine": "vllm", "pp": "1", "precision": "bf16", "tp": "4"}
    profile = Profile(id="1a" * 32, tags=tags, files=files, model=None, release=None, container_url=None)
    assert load(VLLM) == Manifest(schema_version="2.0.0", selection="default", profiles=(profile,))


def test_a_buildable_profile_has_one_more_tag(load):
    (profile,) = load(VLLM.replace("  tags:\n", "  tags:\n    trtllm_buildable: 'true'\n")).profiles
    assert profile.tags["trtllm_buildable"] == "true"
    assert len(profile.files) == 4


def test_destinations_have_folders_and_versions_mix(load):
    manifest = load(PREBUILT)
    assert manifest.schema_version == "2.0"
    assert [(file.path, file.uri) for file in manifest.profiles[0].files] == [
        ("LICENSE", f"{LLAMA}:hf-bb46c15-jet?file=LICENSE"),
        (
            "trtllm_engine/rank0.engine",
            f"{LLAMA}:a100x1-throughput-precision.bf16-udrspesh5q?file=rank0.engine",
        ),
    ]


def test_odd_uris_stay_as_they_are(load):
    (profile,) = load(ODD_URIS).profiles
    assert [file.uri for file in profile.files] == [
        "ngc://org/team/model/engine.bin",
        "ngc://org/team/model/config.json",
        "ngc://org/team/model/LICENSE",
    ]


def test_profiles_are_found_by_id(write):
    path = write(VLLM)
    manifest = load_manifest(path)
    assert manifest.profile("1a" * 32) == manifest.profiles[0]
    assert manifest.profile("1b" * 32) is None
    assert manifest.origin == str(path)


@pytest.mark.parametrize("version", ["2", "2.0", "2.0.0", "2.1", "2.13.4", '"2"', '"2.0"', "'2.0.0'"])
def test_versions(version, load):
    manifest = load(f"schema_version: {version}\nprofiles: []\n")
    assert manifest == Manifest(schema_version=version.strip("\"'"), selection="default", profiles=())


@pytest.mark.parametrize(
    ("written", "tag"),
    [
        ("4", "4"),
        ("1.10", "1.10"),
        ("0x1F", "0x1F"),
        ("26:10", "26:10"),
        ("-1e3", "-1e3"),
        ("true", "true"),
        ("False", "false"),
        ("yes", "true"),
        ("off", "false"),
        ("2024-01-31", "2024-01-31"),
        ("'true'", "true"),
        ("'007'", "007"),
        ("", ""),
        ("~", ""),
        ("!!str 5", "5"),
        ("=", "="),
        ("<<", "<<"),
        ('"a\\nb\\tc"', "a\nb\tc"),
        ("'{\"max_model_len\": 4096}'", '{"max_model_len": 4096}'),
    ],
)
def test_tags_are_text_as_it_is_written(written, tag, load):
    (profile,) = load(head(f"  tags:\n    t: {written}\n")).profiles
    assert dict(profile.tags) == {"t": tag}


def test_tags_cannot_be_changed(load):
    (profile,) = load(VLLM).profiles
    with pytest.raises(TypeError):
        profile.tags["tp"] = "8"


@pytest.mark.parametrize(
    "fields",
    ["", "  tags:\n", "  workspace:\n", "  workspace: {}\n", "  workspace: {files: }\n", "  workspace: {files: {}}\n"],
)
def test_what_a_profile_may_lack(fields, load):
    assert load(head(fields)).profiles == (Profile(id="a1" * 32),)


def test_fields_that_are_not_known_are_ignored(load):
    text = VLLM.replace("  workspace:\n", "  lately: [1, {a: b}]\n  workspace:\n    more: 1\n").replace(
        "        checksum", "        size: 17\n        checksum"
    )
    assert load(f"news: {{x: 1}}\n{text}") == load(VLLM)


def test_what_schema_1_says_about_a_profile_is_read_here_too(load):
    (profile,) = load(head("  model: meta/llama\n  release: 1.10\n  container_url: r/i:1\n")).profiles
    assert (profile.model, profile.release, profile.container_url) == ("meta/llama", "1.10", "r/i:1")


def test_other_selection(load):
    assert load("schema_version: 2.0\nprofile_selection_criteria: auto\nprofiles: []\n").selection == "auto"


@pytest.mark.parametrize(
    "checksum",
    [f"blake3:{'AB' * 32}", f"sha256:{'ab' * 32}", f"sha1-git:{'ab' * 20}", f"md5:{'ab' * 16}", "crc32c:0123abcd"],
)
def test_digests(checksum, load):
    entry = f"  workspace: {{files: {{f: {{uri: 'hf://a/b?file=f', checksum: '{checksum}'}}}}}}\n"
    (profile,) = load(head(entry)).profiles
    assert profile.files[0].digest == Digest.parse(checksum)


def test_no_digest_is_none(load):
    (profile,) = load(head("  workspace: {files: {f: {uri: 'hf://a/b?file=f', checksum: null}}}\n")).profiles
    assert profile.files == (ManifestFile(path="f", uri="hf://a/b?file=f", digest=None),)


def test_aliases_and_merge_keys(load):
    text = f"""\
schema_version: 2.0.0
shared:
  tags: &tags {{llm_engine: vllm, tp: '1'}}
  more: &more {{tp: '2', pp: '1'}}
  name: &name LICENSE
  files: &files
    LICENSE: {{uri: 'ngc://o/m:1?file=LICENSE'}}
profiles:
- id: {"a1" * 32}
  tags:
    <<: *tags
    tp: '4'
  workspace: {{files: *files}}
- id: {"b2" * 32}
  tags:
    <<: [*more, *tags]
  workspace: {{files: {{*name : {{uri: 'ngc://o/m:2?file=LICENSE'}}}}}}
"""
    one, two = load(text).profiles
    assert dict(one.tags) == {"llm_engine": "vllm", "tp": "4"}
    assert dict(two.tags) == {"llm_engine": "vllm", "tp": "2", "pp": "1"}
    assert [file.uri for file in one.files + two.files] == ["ngc://o/m:1?file=LICENSE", "ngc://o/m:2?file=LICENSE"]


def test_a_byte_order_mark_and_other_line_ends_do_no_harm(load):
    assert load("\ufeff" + VLLM.replace("\n", "\r\n")) == load(VLLM)


def test_destinations_in_any_script_with_spaces_and_signs(load):
    names = ["modèle café.bin", "模型/权重.bin", "a+b=c&d#e%20.bin", "emoji 🐍.txt", ".hidden", "-dash"]
    entries = "".join(f"      '{name}': {{uri: 'ngc://o/m:1?file={name}'}}\n" for name in names)
    (profile,) = load(head(f"  workspace:\n    files:\n{entries}")).profiles
    assert [file.path for file in profile.files] == names


def test_like_named_files_that_do_not_clash(load):
    names = ["a", "a.b", "a-b", "ab/c", "ab/d/e", "c/x", "C/y"]
    entries = "".join(f"      {name}: {{uri: 'ngc://o/m:1?file=x'}}\n" for name in names)
    (profile,) = load(head(f"  workspace:\n    files:\n{entries}")).profiles
    assert [file.path for file in profile.files] == names
