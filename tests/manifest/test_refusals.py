"""Everything a manifest is refused for, with the message in full: file, line, profile, what."""

import os
from pathlib import Path

import pytest

from nim_core.errors import ManifestError
from nim_core.manifest import load_manifest
from nim_core.manifest.load import MAX_BYTES
from nim_core.uris import LOCAL_SCHEME_SENTENCE

ID = "a1" * 32
AT = f"profile {ID}: "


def version_2(fields, start="schema_version: 2.0.0\nprofiles:\n"):
    return f"{start}- id: {ID}\n{fields}"


def files(entries):
    """The first entry is on line 6."""
    return version_2("  workspace:\n    files:\n" + "".join(f"      {entry}\n" for entry in entries))


def file(entry):
    return files([f"f: {entry}"])


URI = "{uri: 'hf://a/b?file=f'}"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("../x", "'../x' has the component '..'"),
        ("a/../../x", "'a/../../x' has the component '..'"),
        ("/etc/passwd", "'/etc/passwd' is absolute"),
        ("''", "'' is empty"),
        ("C:/x", "'C:/x' is absolute"),
        ("a//b", "'a//b' has the component ''"),
        ("./a", "'./a' has the component '.'"),
        ("a/", "'a/' has the component ''"),
        ("a\\b", "'a\\\\b' has a backslash or control character"),
        ('"a\\0b"', "'a\\x00b' has a backslash or control character"),
        ('"a\\nb"', "'a\\nb' has a backslash or control character"),
        ("NUL.txt", "'NUL.txt' has the reserved name 'NUL.txt'"),
        (f"d/{'x' * 256}", f"'d/{'x' * 198}' has a component of more than 255 bytes"),
    ],
)
def test_destinations_that_are_unsafe(path, why, refusal):
    assert refusal(files([f"ok: {URI}", f"{path}: {URI}"])) == f"m.yaml:7: {AT}unsafe file path: {why}"


@pytest.mark.parametrize(
    ("names", "line", "message"),
    [
        (["a", "a"], 7, "key given twice: 'a'"),
        (["Config.json", "x", "config.json"], 8, "destination differs only by case from 'Config.json': 'config.json'"),
        (["x", "STRASSE", "straße"], 8, "destination differs only by case from 'STRASSE': 'straße'"),
        (["d/A", "D/a"], 7, "destination differs only by case from 'd/A': 'D/a'"),
        (["a", "a/b"], 7, "destination is inside the file 'a': 'a/b'"),
        (["a/b/c", "x", "a"], 6, "destination is inside the file 'a': 'a/b/c'"),
        (["a-b", "A", "a.b", "a/b"], 9, "destination is inside the file 'A': 'a/b'"),
    ],
)
def test_destinations_that_clash(names, line, message, refusal):
    assert refusal(files([f"{name}: {URI}" for name in names])) == f"m.yaml:{line}: {AT}{message}"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{uri: 'hf://a/b', checksum: 'abc'}", "not an algorithm:hex digest: 'abc'"),
        ("{uri: 'hf://a/b', checksum: ''}", "not an algorithm:hex digest: ''"),
        (
            "{uri: 'hf://a/b', checksum: 'sha3:00'}",
            "unknown digest algorithm: 'sha3' (known: blake3, sha256, sha1-git, sha1, md5, crc32c, crc32)",
        ),
        ("{uri: 'hf://a/b', checksum: 'blake3:0011'}", "not a blake3 digest of 64 hex digits: '0011'"),
        ("{uri: 'hf://a/b', checksum: 'crc32c:0011223g'}", "not a crc32c digest of 8 hex digits: '0011223g'"),
        ("{uri: 'hf://a/b', checksum: 5}", "checksum must be text, not a number or date"),
        ("{uri: 'hf://a/b', checksum: [a]}", "checksum must be text, not a list"),
        (
            f"{{uri: 'hf://a/b', checksum: {'a' * 5000}}}",
            f"checksum is longer than 4096 characters: '{'a' * 99}…",
        ),
        ("{checksum: 'crc32c:00112233'}", "missing uri"),
        ("{uri: }", "missing uri"),
        ("{uri: ''}", "missing uri"),
        ("", "missing uri"),
        ("hf://a/b", "file must be a map, not text"),
        ("[hf://a/b]", "file must be a map, not a list"),
        ("{uri: {a: b}}", "uri must be text, not a map"),
        ("{uri: true}", "uri must be text, not a boolean"),
        ("{uri: 2024-01-01}", "uri must be text, not a number or date"),
        (r'{uri: "hf://a/\x07"}', r"control character in URI: 'hf://a/\x07'"),
    ],
)
def test_entries(entry, message, refusal):
    assert refusal(file(entry)) == f"m.yaml:6: {AT}{message}"


def test_a_value_is_named_by_its_own_line(refusal):
    text = files(["f:", "  uri: hf://a/b", "  more: 1", "  checksum: 'blake3:00'"])
    assert refusal(text) == f"m.yaml:9: {AT}not a blake3 digest of 64 hex digits: '00'"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("file:///data/f", "file:// is not supported: 'file:///data/f'"),
        ("FILE:///data/f", "file:// is not supported: 'FILE:///data/f'"),
        ("file:/data/f", "no scheme in URI: 'file:/data/f'"),
        ("/data/f", "no scheme in URI: '/data/f'"),
        ("./f", "no scheme in URI: './f'"),
        ("org/model", "no scheme in URI: 'org/model'"),
    ],
)
def test_files_on_this_machine_have_a_scheme(uri, message, write):
    path = write(file(f"{{uri: '{uri}'}}"))
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert caught.value.message == f"{path}:6: {AT}{message}"
    assert caught.value.hint == LOCAL_SCHEME_SENTENCE
    assert "local:// is the scheme for files on this machine" in LOCAL_SCHEME_SENTENCE


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("5", "key is not text: 5"),
        ("1.0", "key is not text: 1.0"),
        ("2024-01-31", "key is not text: 2024-01-31"),
        ("yes", "key is not text: true"),
        ("Off", "key is not text: false"),
        ("null", "key is not text: null"),
        ("~", "key is not text: null"),
        ("[a]", "a map or list is used as a key"),
        ("{a: b}", "a map or list is used as a key"),
    ],
)
@pytest.mark.parametrize("where", ["files", "tags", "elsewhere"])
def test_keys_that_are_not_text(key, message, where, refusal):
    if where == "files":
        assert refusal(files([f"? {key}", f": {URI}"])) == f"m.yaml:6: {AT}{message}"
    elif where == "tags":
        assert refusal(version_2(f"  tags:\n    ok: 1\n    ? {key}\n    : x\n")) == f"m.yaml:6: {AT}{message}"
    else:
        assert refusal(f"schema_version: 2.0\nother:\n  ? {key}\n  : x\n") == f"m.yaml:3: {message}"


def test_a_key_that_is_not_text_says_how_to_write_it(write):
    with pytest.raises(ManifestError) as caught:
        load_manifest(write(files([f"on: {URI}"])))
    assert caught.value.hint == "put it in quotes"


@pytest.mark.parametrize(
    ("fields", "line", "message"),
    [
        ("  tags: [a]\n", 4, "tags must be a map, not a list"),
        ("  tags: text\n", 4, "tags must be a map, not text"),
        ("  tags:\n    ok: 1\n    bad: [1]\n", 6, "tag 'bad' must be text, not a list"),
        ("  tags:\n    bad: {a: 1}\n", 5, "tag 'bad' must be text, not a map"),
        ('  tags:\n    bad: "\\e[31m"\n', 5, "tag 'bad' has a control character: '\\x1b[31m'"),
        ('  tags:\n    "\\e": x\n', 5, "tag name has a control character: '\\x1b'"),
        ("  workspace: 5\n", 4, "workspace must be a map, not a number or date"),
        ("  workspace:\n    files: [a]\n", 5, "files must be a map, not a list"),
        ("  model: [a]\n", 4, "model must be text, not a list"),
        ("  release: {}\n", 4, "release must be text, not a map"),
        ("  tags:\n    a: 1\n    a: 2\n", 6, "key given twice: 'a'"),
        ("  workspace: !!set {a}\n", 4, "unknown YAML tag: 'tag:yaml.org,2002:set'"),
        ("  tags: {a: !!python/name:os.system ''}\n", 4, "unknown YAML tag: 'tag:yaml.org,2002:python/name:os.system'"),
        ("  tags: {a: !workspace x}\n", 4, "unknown YAML tag: '!workspace'"),
        ("  tags: !name {}\n", 4, "unknown YAML tag: '!name'"),
        ("  tags: !workspace []\n", 4, "unknown YAML tag: '!workspace'"),
        ("  tags: {a: !!binary YQ==}\n", 4, "unknown YAML tag: 'tag:yaml.org,2002:binary'"),
        ("  tags:\n    <<: x\n", 5, "<< needs a map or a list of maps"),
        ("  tags:\n    <<: [x]\n", 5, "<< needs a map or a list of maps"),
        ("  tags:\n    a: *b\n", 5, "alias to nothing before it: *b"),
        ("  tags: &t\n    a: *t\n", 5, "alias to nothing before it: *t"),
        ("  x: &t 1\n  tags: &t\n    a: *t\n", 6, "alias to nothing before it: *t"),
    ],
)
def test_profiles(fields, line, message, refusal):
    assert refusal(version_2(fields)) == f"m.yaml:{line}: {AT}{message}"


UPPER = ID.upper()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": manifest is empty"),
        ("# nothing\n", ": manifest is empty"),
        ("---\n", ": manifest is empty"),
        ("{}", ": manifest is empty"),
        ("- a\n", ":1: manifest must be a map, not a list"),
        ("[]", ":1: manifest must be a map, not a list"),
        ("text", ":1: manifest must be a map, not text"),
        ("5", ":1: manifest must be a map, not a number or date"),
        ("true", ":1: manifest must be a map, not a boolean"),
        ("profiles: []\n", ":1: missing schema_version"),
        ("# a\nschema_version: 2.0\n", ":2: missing profiles"),
        ("schema_version: 2.0\nprofiles:\n", ":2: missing profiles"),
        ("schema_version: 2.0\nprofiles: {}\n", ":2: profiles must be a list, not a map"),
        ("schema_version: 2.0\nprofiles: no\n", ":2: profiles must be a list, not a boolean"),
        ("schema_version: 2.0\nprofiles:\n- a\n", ":3: profile must be a map, not text"),
        ("schema_version: 2.0\nprofiles:\n-\n", ":3: profile without id"),
        ("schema_version: 2.0\nprofiles:\n- tags: {}\n", ":3: profile without id"),
        (f"schema_version: 2.0\nprofiles:\n- x: 1\n  id: {UPPER}\n", f":4: {{id}}: '{UPPER}'"),
        ("schema_version: 2.0\nprofiles:\n- id: abc\n", ":3: {id}: 'abc'"),
        (f"schema_version: 2.0\nprofiles:\n- id: '{ID}\\n'\n", f":3: {{id}}: '{ID}\\\\n'"),
        ("schema_version: 2.0\nprofiles:\n- id: 5\n", ":3: profile id must be text, not a number or date"),
        ("schema_version: 2.0\nprofiles:\n- id: \n", ":3: profile id must be text, not nothing"),
        (
            f"schema_version: 2.0\nprofiles:\n- id: {ID}\n- tags: {{}}\n  id: {ID}\n",
            f":5: {AT}profile id is given twice",
        ),
        ("schema_version: 3.0\nprofiles: []\n", ":1: unsupported schema version: '3.0'"),
        ("schema_version: 1\nprofiles: []\n", ":1: unsupported schema version: '1'"),
        ("schema_version: 2.x\nprofiles: []\n", ":1: unsupported schema version: '2.x'"),
        ("schema_version: 20\nprofiles: []\n", ":1: unsupported schema version: '20'"),
        ("profiles: []\nschema_version:\n", ":2: unsupported schema version: ''"),
        ("schema_version: [2]\nprofiles: []\n", ":1: schema_version must be text, not a list"),
        ("schema_version: 2\nprofile_selection_criteria: [a]\nprofiles: []\n", ":2: criteria must be text, not a list"),
        ("a: 1\nb: [\n", ":3: not valid YAML: did not find expected node content"),
        ("a: 1\n\tb: 2\n", ":2: not valid YAML: found a tab character that violates indentation"),
        ("a: 1\nb: \x01\n", ":2: not valid YAML: control characters are not allowed"),
        ("a: 1\n---\na: 1\n", ":2: more than one YAML document in a manifest"),
        ("a: 1\na: 2\n", ":2: key given twice: 'a'"),
        ("a: !mine x\n", ":1: unknown YAML tag: '!mine'"),
        ("a:\n " + "[" * 40, ":2: nested deeper than 32 levels"),
        ("a:\n " + "[" * 1_000_000, ":2: nested deeper than 32 levels"),
        ("a:\n" + "- " * 5000 + "\n", ":2: nested deeper than 32 levels"),
        ("".join(" " * n + "a:\n" for n in range(5000)), ":33: nested deeper than 32 levels"),
        (b"a: 1\nb: \xff\xfe\n", ":2: not UTF-8"),
        ("schema_version: 2.0\n".encode("utf-16"), ":1: not UTF-8"),
    ],
)
def test_documents(text, message, refusal):
    expected = message.format(id="not a profile id of 64 lower-case hex digits")
    assert refusal(text) == f"m.yaml{expected}"


def version_1(component):
    return f"{ID}:\n  workspace: !workspace\n    components:\n    - {component}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{UPPER}: {{}}\n", f":1: {{id}}: '{UPPER}'"),
        (f"{ID}: {{}}\nmodel_profile: x\n", ":2: {id}: 'model_profile'"),
        (f"{ID}: {{}}\n{ID}: {{}}\n", f":2: {AT}key given twice: '{ID}'"),
        (f"{ID}: []\n", f":1: {AT}profile must be a map, not a list"),
        (f"{ID}:\n  tags: 5\n", f":2: {AT}tags must be a map, not a number or date"),
        (f"{ID}:\n  workspace: []\n", f":2: {AT}workspace must be a map, not a list"),
        (f"{ID}:\n  workspace:\n    components: {{}}\n", f":3: {AT}components must be a list, not a map"),
        (version_1("x"), f":4: {AT}component must be a map, not text"),
        (version_1("{src: x}"), f":4: {AT}src must be a map, not text"),
        (version_1("{dst: [a], src: {repo_id: o/m, files: [f]}}"), f":4: {AT}dst must be text, not a list"),
        (version_1("{src: {repo_id: o/m, files: f}}"), f":4: {AT}files must be a list, not text"),
        (version_1("{src: {repo_id: o/m, files: [5]}}"), f":4: {AT}file name must be text, not a number or date"),
        (version_1("{src: {repo_id: o/m}}"), f":4: {AT}component without files"),
        (version_1("{src: {repo_id: o/m, files: []}}"), f":4: {AT}component without files"),
        (version_1("{src: {files: [f]}}"), f":4: {AT}missing repo_id"),
        (version_1("{src: {repo_id: '', files: [f]}}"), f":4: {AT}missing repo_id"),
        (version_1("{}"), f":4: {AT}missing repo_id"),
        (version_1("{src: {repo_id: o/m?x, files: [f]}}"), f":4: {AT}repo_id with a query: 'o/m?x'"),
        (version_1("{src: {repo_id: /o/m, files: [f]}}"), f":4: {AT}no scheme in URI: '/o/m'"),
        (version_1("{src: {repo_id: file:///o/m, files: [f]}}"), f":4: {AT}file:// is not supported: 'file:///o/m'"),
        (
            version_1("{dst: ../up, src: {repo_id: o/m, files: [f]}}"),
            f":4: {AT}{{path}}: '../up/f' has the component '..'",
        ),
        (version_1("{dst: /, src: {repo_id: o/m, files: [f]}}"), f":4: {AT}{{path}}: '//f' is absolute"),
        (version_1("{dst: d, src: {repo_id: o/m, files: [/f]}}"), f":4: {AT}{{path}}: 'd//f' has the component ''"),
        (version_1("{dst: d, src: {repo_id: o/m, files: ['']}}"), f":4: {AT}{{path}}: 'd/' has the component ''"),
        (version_1("{src: {repo_id: o/m, files: [../f]}}"), f":4: {AT}{{path}}: '../f' has the component '..'"),
        (
            version_1("src:\n        repo_id: o/m\n        files:\n        - a/f\n        - A/f"),
            f":8: {AT}destination differs only by case from 'a/f': 'A/f'",
        ),
        (
            version_1("{dst: a, src: {repo_id: o/m, files: [f]}}\n    - {src: {repo_id: o/n, files: [a/f]}}"),
            f":5: {AT}destination is given twice: 'a/f'",
        ),
        (
            version_1("{dst: a/f, src: {repo_id: o/m, files: [x]}}\n    - {src: {repo_id: o/n, files: [a/f]}}"),
            f":4: {AT}destination is inside the file 'a/f': 'a/f/x'",
        ),
    ],
)
def test_schema_1(text, message, refusal):
    expected = message.format(id="not a profile id of 64 lower-case hex digits", path="unsafe file path")
    assert refusal(text) == f"m.yaml{expected}"


def test_a_document_of_another_kind_says_what_is_read(write):
    with pytest.raises(ManifestError) as caught:
        load_manifest(write("model_profile: MolMIM\nmanifest: []\n"))
    assert caught.value.hint == (
        "schema 2 has schema_version and profiles; schema 1 is a map from profile ids to profiles"
    )


def test_what_is_wrong_in_an_alias_is_named_by_where_it_is_used(refusal):
    text = f"schema_version: 2.0\nx: &f\n  f: {{uri: x}}\nprofiles:\n- id: {ID}\n  workspace:\n    files: *f\n"
    assert refusal(text) == f"m.yaml:7: {AT}no scheme in URI: 'x'"


def test_a_bomb_of_aliases(refusal):
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    message = refusal(f"a0: &a0 [lol, lol]\n{levels}")
    assert message.endswith(": more than 2000000 values in a manifest")


def test_a_bomb_of_merge_keys(refusal):
    pairs = ", ".join(f"k{n}: v" for n in range(100_000))
    text = f"base: &b {{{pairs}}}\n" + "".join(f"m{n}: {{<<: *b}}\n" for n in range(100))
    assert refusal(text).endswith(": more than 2000000 values in a manifest")


def test_many_values(refusal):
    assert refusal("a: [" + "x," * 2_000_001 + "]").endswith(": more than 2000000 values in a manifest")


def test_no_such_file(tmp_path):
    with pytest.raises(ManifestError) as caught:
        load_manifest(tmp_path / "none.yaml")
    assert caught.value.message == f"cannot read manifest: {tmp_path}/none.yaml (No such file or directory)"


def test_a_name_with_nul(tmp_path):
    with pytest.raises(ManifestError, match=r"cannot read manifest: .* \(embedded null byte\)"):
        load_manifest(tmp_path / "a\0b")


def test_a_directory(tmp_path):
    with pytest.raises(ManifestError) as caught:
        load_manifest(tmp_path)
    assert caught.value.message == f"cannot read manifest: {tmp_path} (Is a directory)"


def test_a_pipe_that_nobody_writes_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ManifestError) as caught:
        load_manifest(tmp_path / "pipe")
    assert caught.value.message == f"manifest is not a regular file: {tmp_path}/pipe"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_of_somebody_else(write):
    path = write("x")
    path.chmod(0)
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert caught.value.message == f"cannot read manifest: {path} (Permission denied)"


def test_a_file_that_opens_and_cannot_be_read():
    # reading the unmapped first page of a process is an input/output error, for root too
    with pytest.raises(ManifestError, match=r"cannot read manifest: /proc/self/mem \(Input/output error\)"):
        load_manifest(Path("/proc/self/mem"))


def test_a_huge_file(tmp_path):
    path = tmp_path / "m.yaml"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert caught.value.message == f"manifest is larger than 64 MiB: {path}"


def test_the_exit_code_is_that_of_manifests(write):
    with pytest.raises(ManifestError) as caught:
        load_manifest(write(""))
    assert caught.value.exit_code == 12
