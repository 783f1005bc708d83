import json

import pytest

from nim_core.manifest import Manifest, ManifestFile, Profile

ID = "a1" * 32


def document(**fields):
    return {"schema_version": "2.0.0", "profiles": [{"id": ID, **fields}]}


FULL = document(
    tags={"tp": 4, "x": 1.50, "lora": True, "other": False, "none": None, "text": "t"},
    workspace={"files": {"ü/f": {"uri": "hf://a/b?file=f"}}},
)


def profile():
    return Profile(
        id=ID,
        tags={"tp": "4", "x": "1.5", "lora": "true", "other": "false", "none": "", "text": "t"},
        files=(ManifestFile(path="ü/f", uri="hf://a/b?file=f"),),
    )


@pytest.mark.parametrize("name", ["m.json", "m.yaml", "m"])
@pytest.mark.parametrize("options", [{}, {"indent": 2}, {"indent": "\t", "ensure_ascii": False}])
def test_json_is_known_by_its_content(name, options, load):
    assert load(json.dumps(FULL, **options), name) == Manifest(schema_version="2.0.0", profiles=(profile(),))


def test_schema_1_in_json(load):
    component = {"dst": "d", "src": {"repo_id": "o/m:1", "files": ["f"]}}
    manifest = load(json.dumps({ID: {"model": "m", "workspace": {"components": [component]}}}))
    files = (ManifestFile(path="d/f", uri="ngc://o/m:1?file=f"),)
    assert manifest == Manifest(schema_version="1", profiles=(Profile(id=ID, model="m", files=files),))


@pytest.mark.parametrize("version", [2, 2.0, "2.0"])
def test_versions_that_are_numbers(version, load):
    manifest = load(json.dumps({"schema_version": version, "profiles": []}))
    assert manifest == Manifest(schema_version=str(version))


def test_numbers_of_any_size_are_text(load):
    text = json.dumps(document(tags={"n": "NUMBER"})).replace('"NUMBER"', "9" * 5000)
    assert load(text).profiles[0].tags["n"] == "9" * 5000


def test_flow_style_yaml_looks_like_json_and_is_not(load):
    text = f"{{schema_version: 2.0.0, profiles: [{{id: {ID},}}]}}"
    assert load(text) == Manifest(schema_version="2.0.0", profiles=(Profile(id=ID),))


def test_what_calls_itself_json_must_be(refusal):
    text = f'{{"schema_version": "2.0.0",\n"profiles": [{{"id": "{ID}",}}]}}'
    assert refusal(text, "m.json").startswith("m.json:2: not valid JSON: ")


def test_the_line_is_found_in_json_too(refusal):
    text = json.dumps(document(workspace={"files": {"a": {"uri": 'hf://a/b?file="\\\\{['}, "../x": {}}}), indent=1)
    line = text[: text.index("../x")].count("\n") + 1
    assert refusal(text) == f"m.yaml:{line}: profile {ID}: unsafe file path: '../x' has the component '..'"


def test_a_key_given_twice(refusal):
    text = f'{{"schema_version": "2.0.0",\n "profiles": [\n  {{"id": "{ID}",\n   "tags": {{"a": "1",\n  "a": "2"}}}}]}}'
    assert refusal(text) == f"m.yaml:5: profile {ID}: key given twice: 'a'"


def test_deep_nesting(refusal):
    text = f'{{"schema_version": "2.0.0",\n "x": \n {"[" * 40}{"]" * 40}}}'
    assert refusal(text) == "m.yaml:3: nested deeper than 32 levels"


def test_endless_nesting(refusal):
    assert refusal('{"a":\n' + "[" * 500_000, "m.json") == "m.json:2: nested deeper than 32 levels"
    assert refusal('{"a":\n' * 100_000) == "m.yaml:33: nested deeper than 32 levels"


def test_too_many_values(refusal):
    assert refusal('{"a": [' + "[]," * 2_000_000 + "1]}") == "m.yaml: more than 2000000 values in a manifest"


def test_a_lone_surrogate_is_no_text(refusal):
    text = json.dumps(document(tags={"a": "\ud800"}), indent=1)
    assert refusal(text) == f"m.yaml:7: profile {ID}: tag 'a' has a control character: '\\ud800'"
