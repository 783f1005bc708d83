"""Whatever a file holds, the answer is a manifest or a ManifestError."""

import json

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nim_core.errors import ManifestError
from nim_core.manifest import Manifest, load_manifest, tree
from nim_core.manifest import yaml_tokens as yaml_tokens_module
from nim_core.manifest.tokens import json_tokens

ID = "a1" * 32
QUICK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def outcome(path):
    try:
        return load_manifest(path)
    except ManifestError as exc:
        return exc.message


def is_manifest_or_refused(path):
    result = outcome(path)
    if isinstance(result, Manifest):
        assert all(file.uri for profile in result.profiles for file in profile.files)
    else:
        assert str(path) in result


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def loader(request, monkeypatch):
    monkeypatch.setattr(yaml_tokens_module, "_LOADER", getattr(yaml, request.param))


WORDS = [
    "schema_version", "profiles", "id", "tags", "workspace", "files", "uri", "checksum", "components", "dst", "src",
    "repo_id", "model", "<<", "a", "a/b", "../x", "", "hf://a/b?file=c", "/x", "blake3:00", "2.0", "yes", "\ud800",
    ID, "a2" * 32, f"blake3:{ID}",
]  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)
ENTRIES = st.dictionaries(
    st.sampled_from(WORDS), VALUES | st.fixed_dictionaries({"uri": SCALARS}, optional={"checksum": SCALARS}), max_size=3
)
PROFILES = st.fixed_dictionaries(
    {"id": st.just(ID) | SCALARS},
    optional={"tags": VALUES, "model": VALUES, "workspace": VALUES | st.fixed_dictionaries({"files": ENTRIES})},
)
COMPONENTS = st.fixed_dictionaries(
    {"src": VALUES | st.fixed_dictionaries({"repo_id": SCALARS, "files": st.lists(SCALARS, max_size=3)})},
    optional={"dst": SCALARS},
)
OLD_PROFILES = st.fixed_dictionaries(
    {"workspace": VALUES | st.fixed_dictionaries({"components": VALUES | st.lists(COMPONENTS, max_size=2)})}
)
DOCUMENTS = (
    VALUES
    | st.fixed_dictionaries(
        {"schema_version": st.just("2.0") | SCALARS, "profiles": VALUES | st.lists(PROFILES, max_size=3)}
    )
    | st.dictionaries(st.sampled_from([ID, "a2" * 32, "x"]), OLD_PROFILES, max_size=3)
)


@QUICK
@given(data=st.binary(max_size=200))
def test_bytes(data, loader, write):
    is_manifest_or_refused(write(data))


@QUICK
@given(data=st.text(st.sampled_from("ab:-?#&*!|>'\"%@`{}[], \n\t\\<~0123.e_xu"), max_size=60))
def test_punctuation(data, loader, write):
    is_manifest_or_refused(write(data))
    is_manifest_or_refused(write("{" + data, "m.json"))


@QUICK
@given(value=DOCUMENTS)
def test_documents(value, loader, write):
    is_manifest_or_refused(write(json.dumps(value), "m.json"))
    is_manifest_or_refused(write(yaml.safe_dump(value).encode(errors="replace")))


@QUICK
@given(value=DOCUMENTS, data=st.data())
def test_documents_with_a_bite_out(value, data, loader, write):
    text = yaml.safe_dump(value).encode(errors="replace")
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    is_manifest_or_refused(write(text[:start] + text[end:]))


@QUICK
@given(value=DOCUMENTS, indent=st.sampled_from([None, 1]))
def test_both_ways_of_reading_json_agree(value, indent):
    """What json reads, and the tokens that find lines in it, come to the same."""
    text = json.dumps({"top": value}, indent=indent)
    assert tree._build(json_tokens(text)) == tree._read_json(text)


@QUICK
@given(value=st.dictionaries(st.sampled_from(["a", "b", ID]), DOCUMENTS, min_size=1))
def test_lines_are_those_of_keys_and_items(value):
    """In JSON with an item a line, every value but a closing bracket is on a line of its own."""
    text = json.dumps(value, indent=1)
    found = tree.read_tree(text, strict_json=True)
    paths = list(paths_of(found.value))
    starts = [number for number, line in enumerate(text.split("\n"), 1) if line.strip(" ,") not in {"]", "}"}]
    assert [found.line_of(path) for path in paths] == starts


def paths_of(value, path=()):
    yield path
    children = dict(enumerate(value)) if isinstance(value, list) else value
    for step, child in children.items() if isinstance(children, dict) else ():
        yield from paths_of(child, (*path, step))


@pytest.mark.parametrize(
    "text", ['"\\UFFFFFFFF"', '"\\ud800"', '"\\xZZ"', "%YAML 9.9\n---\na", "!%ff a", "&a\u3000b c", "a: !<> b"]
)
def test_escapes_and_directives(text, loader, refusal):
    assert refusal(text).startswith("m.yaml")


def test_the_pure_loader_reads_the_same(large, write, monkeypatch):
    fast = load_manifest(write(large))
    for path in write("").parent.glob(".*.parsed"):
        path.unlink()
    monkeypatch.setattr(yaml_tokens_module, "_LOADER", yaml.SafeLoader)
    assert load_manifest(write(large)) == fast
