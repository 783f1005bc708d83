"""The parsed form: used when it is right and ours, ignored and made anew when not."""

import json
import os
import subprocess
import sys

import pytest
from blake3 import blake3

from nim_core.errors import ManifestError
from nim_core.manifest import load_manifest
from nim_core.manifest.parsed import is_trusted


def parsed_forms(folder):
    return sorted(folder.glob(".*.parsed"))


def the_parsed_form(folder):
    (path,) = parsed_forms(folder)
    return path


def altered(path):
    """Give the parsed form another tag, rightly signed, so that its use shows."""
    header, body = path.read_bytes().split(b"\n", 1)
    body = body.replace(b'"tp":"0"', b'"tp":"9"')
    path.write_bytes(json.dumps({**json.loads(header), "body": blake3(body).hexdigest()}).encode() + b"\n" + body)


def first_tag(path, **options):
    return load_manifest(path, **options).profiles[0].tags["tp"]


@pytest.fixture
def manifest(write, large):
    return write(large)


def test_second_load_gives_the_same(manifest):
    first, second = load_manifest(manifest), load_manifest(manifest)
    assert first == second
    assert second.origin == str(manifest)
    assert second.profiles[3].files[99].path == "part-99.bin"
    assert second.profiles[3].files[99].digest is not None
    assert second.profiles[3].files is second.profiles[3].files


def test_second_load_uses_it(manifest):
    assert first_tag(manifest) == "0"
    altered(the_parsed_form(manifest.parent))
    assert first_tag(manifest) == "9"


def test_schema_1_and_json_have_one_too(write):
    files = [f"f{number:05}" for number in range(4000)]
    profile = {"tags": {"tp": "0"}, "workspace": {"components": [{"src": {"repo_id": "o/m:1", "files": files}}]}}
    path = write(json.dumps({"a1" * 32: profile}), "m.json")
    first = load_manifest(path)
    altered(the_parsed_form(path.parent))
    second = load_manifest(path)
    assert second.schema_version == "1"
    assert second.profiles[0].files == first.profiles[0].files
    assert second.profiles[0].tags["tp"] == "9"


def test_it_is_named_after_the_content_and_readable_like_the_manifest(manifest):
    load_manifest(manifest)
    path = the_parsed_form(manifest.parent)
    assert path.name.startswith(".m.yaml.")
    assert path.stat().st_mode & 0o777 == 0o644
    manifest.write_text(manifest.read_text() + "# changed\n")
    load_manifest(manifest)
    assert len(parsed_forms(manifest.parent)) == 2


def test_it_is_no_more_readable_than_the_manifest(manifest):
    manifest.chmod(0o600)
    load_manifest(manifest)
    assert the_parsed_form(manifest.parent).stat().st_mode & 0o777 == 0o600


def test_a_changed_manifest_is_read_again(manifest, large):
    load_manifest(manifest)
    manifest.write_text(large.replace("{tp: '0'}", "{tp: '5'}"))
    assert first_tag(manifest) == "5"


def test_another_version_reads_again(manifest, monkeypatch):
    load_manifest(manifest)
    altered(the_parsed_form(manifest.parent))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "99")
    assert first_tag(manifest) == "0"


def test_a_small_manifest_has_none(write):
    path = write(f"schema_version: 2.0\nprofiles:\n- id: {'a1' * 32}\n")
    load_manifest(path)
    assert list(path.parent.iterdir()) == [path]


def test_a_refused_manifest_has_none(write, large):
    path = write(large + "- id: x\n")
    with pytest.raises(ManifestError):
        load_manifest(path)
    assert list(path.parent.iterdir()) == [path]


def cut(data):
    return data[: len(data) // 2]


def flipped(data):
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


def header_of_another(data):
    return data.replace(b'"key":"', b'"key":"0', 1)


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        flipped,
        header_of_another,
        lambda data: b"",
        lambda data: b"{}",
        lambda data: b"[" * 100_000,
        lambda data: b"\xff" * 100,
        lambda data: b"\n" * 3,
        lambda data: data.replace(b'"format":1', b'"format":2', 1),
    ],
)
def test_a_damaged_one_is_ignored_and_made_anew(damage, manifest):
    load_manifest(manifest)
    path = the_parsed_form(manifest.parent)
    right = path.read_bytes()
    path.write_bytes(damage(right))
    assert first_tag(manifest) == "0"
    assert path.read_bytes() == right


@pytest.mark.parametrize("body", [b"", b"[]", b"5", b"{}", b'{"schema_version":"2","selection":"x","profiles":[[1]]}'])
def test_one_of_another_shape_is_ignored_and_made_anew(body, manifest):
    load_manifest(manifest)
    path = the_parsed_form(manifest.parent)
    right = path.read_bytes()
    header = {**json.loads(right.split(b"\n", 1)[0]), "body": blake3(body).hexdigest()}
    path.write_bytes(json.dumps(header).encode() + b"\n" + body)
    assert first_tag(manifest) == "0"
    assert path.read_bytes() == right


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_one_that_others_can_write_is_ignored_and_made_anew(mode, manifest):
    load_manifest(manifest)
    path = the_parsed_form(manifest.parent)
    altered(path)
    path.chmod(mode)
    assert first_tag(manifest) == "0"
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_one_of_somebody_else_is_ignored_and_made_anew(manifest):
    load_manifest(manifest)
    path = the_parsed_form(manifest.parent)
    altered(path)
    os.chown(path, 12345, 12345)
    assert first_tag(manifest) == "0"
    assert path.stat().st_uid == 0


def test_who_is_trusted(manifest):
    def status(mode, owner):
        return os.stat_result((mode, 0, 0, 1, owner, 0, 0, 0, 0, 0))

    assert is_trusted(status(0o100644, 1000), 1000)
    assert is_trusted(status(0o100644, 0), 1000)
    assert not is_trusted(status(0o100644, 1001), 1000)
    assert not is_trusted(status(0o100644, 1000), 0)
    assert not is_trusted(status(0o100664, 1000), 1000)
    assert not is_trusted(status(0o100646, 1000), 1000)
    assert not is_trusted(status(0o010644, 1000), 1000)
    assert not is_trusted(status(0o040755, 1000), 1000)


@pytest.mark.parametrize("make", ["link", "pipe", "folder"])
def test_what_is_no_plain_file_is_not_followed(make, manifest, tmp_path):
    load_manifest(manifest)
    path = the_parsed_form(manifest.parent)
    altered(path)
    moved = path.rename(tmp_path / "moved")
    if make == "link":
        path.symlink_to(moved)
    elif make == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert first_tag(manifest) == "0"


def test_a_folder_that_cannot_be_written_is_replaced_by_the_cache(manifest, tmp_path):
    cache = tmp_path / "cache"
    with manifest.open("rb") as file:
        # nobody, not even root, can make a file in this folder
        path = type(manifest)(f"/proc/self/fd/{file.fileno()}")
        assert first_tag(path, cache_dir=cache) == "0"
        assert not parsed_forms(manifest.parent)
        altered(the_parsed_form(cache / "manifests"))
        assert first_tag(path, cache_dir=cache) == "9"


def test_what_lies_beside_the_manifest_comes_before_the_cache(manifest, tmp_path):
    cache = tmp_path / "cache"
    load_manifest(manifest)
    altered(the_parsed_form(manifest.parent))
    assert first_tag(manifest, cache_dir=cache) == "9"
    assert not cache.exists()


@pytest.mark.parametrize("cache_dir", [None, "file"])
def test_nowhere_to_write_is_no_failure(cache_dir, manifest, tmp_path):
    (tmp_path / "file").touch()
    cache = None if cache_dir is None else tmp_path / cache_dir
    with manifest.open("rb") as file:
        path = type(manifest)(f"/proc/self/fd/{file.fileno()}")
        assert [first_tag(path, cache_dir=cache) for _ in range(2)] == ["0", "0"]


def test_a_failed_write_leaves_nothing(manifest, monkeypatch):
    def refuse(descriptor, mode):
        raise PermissionError

    monkeypatch.setattr("os.fchmod", refuse)
    assert first_tag(manifest) == "0"
    assert list(manifest.parent.iterdir()) == [manifest]


def test_many_at_once(manifest):
    code = (
        "import sys; from pathlib import Path; from nim_core.manifest import load_manifest;"
        "print(sum(len(profile.files) for profile in load_manifest(Path(sys.argv[1])).profiles))"
    )
    command = [sys.executable, "-c", code, str(manifest)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate()[0] for process in running] == ["400\n"] * 4
    assert set(manifest.parent.iterdir()) == {manifest, the_parsed_form(manifest.parent)}


def test_second_load_imports_no_yaml(manifest):
    load_manifest(manifest)
    code = (
        "import sys; from pathlib import Path; from nim_core.manifest import load_manifest;"
        "load_manifest(Path(sys.argv[1])).profiles[0].files; print('yaml' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, manifest], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
