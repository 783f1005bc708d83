from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nim_core.cli.generated import check_writable, make_manifest, profile_for
from nim_core.errors import CachePermissionError, ManifestError
from nim_core.manifest import Manifest, Profile, dump_manifest, load_manifest
from nim_core.plan import Patterns, Present, Wanted
from nim_core.types import Digest, ModelUri, UriStyle
from nim_core.uris import parse_uri

STYLES = {"store": UriStyle.REPOSITORY, "web": UriStyle.OBJECT}
URI = parse_uri("store://org/model:v1", STYLES)
SHA256, MD5 = Digest("sha256", "a" * 64), Digest("md5", "b" * 32)


def wanted(path: str, digest: Digest | None = None) -> Wanted:
    return Wanted(path=path, uri=parse_uri(f"store://org/model:v1?file={path}", STYLES), digest=digest)


def present(uri: ModelUri, *digests: Digest) -> Present:
    return Present(identity=uri, blob=Path("/b"), link=None, size=1, mtime_ns=0, digests=digests)


def test_it_says_what_was_downloaded() -> None:
    files = (wanted("b/c.bin", MD5), wanted("a.json"), wanted("d.txt"))
    seen = {"a.json": present(files[1].uri, MD5, SHA256), "b/c.bin": present(files[0].uri, SHA256)}
    (profile,) = make_manifest(URI, Patterns(), files, seen).profiles
    assert profile.tags == {"model_uri": "store://org/model:v1"}
    assert [(file.path, file.uri, file.digest) for file in profile.files] == [
        ("b/c.bin", "store://org/model:v1?file=b/c.bin", MD5),
        ("a.json", "store://org/model:v1?file=a.json", SHA256),
        ("d.txt", "store://org/model:v1?file=d.txt", None),
    ]


def test_the_id_depends_on_the_files_alone() -> None:
    files = (wanted("b"), wanted("a", SHA256))
    other_uri = parse_uri("store://org/model", STYLES)
    same = make_manifest(other_uri, Patterns(), files[::-1], {}).profiles[0].id
    assert make_manifest(URI, Patterns(), files, {}).profiles[0].id == same
    assert make_manifest(URI, Patterns(), files[:1], {}).profiles[0].id != same
    assert len(same) == 64


@pytest.mark.parametrize("name", ["m.json", "m.yaml"])
def test_it_reads_back(name: str, tmp_path: Path) -> None:
    manifest = make_manifest(URI, Patterns(), (wanted("a", SHA256), wanted("b")), {})
    dump_manifest(manifest, tmp_path / name)
    assert load_manifest(tmp_path / name) == manifest
    assert (tmp_path / name).read_text().startswith("{") == (name == "m.json")


def test_it_holds_no_userinfo() -> None:
    uri = parse_uri("web://user:hunter22@host/a", STYLES)
    file = Wanted(path="a", uri=uri)
    assert "hunter22" not in repr(make_manifest(uri, Patterns(), (file,), {})) + repr(
        make_manifest(uri, Patterns(), (file,), {}).profiles[0].files
    )


def test_the_manifest_of_this_model() -> None:
    manifest = make_manifest(URI, Patterns(), (wanted("a"),), {})
    assert profile_for(URI, Patterns(), manifest) is manifest.profiles[0]


@pytest.mark.parametrize("text", ["store://org/model", "store://org/model:v2", "store://org/other:v1"])
def test_the_manifest_of_another_model(text: str) -> None:
    with pytest.raises(ManifestError, match=r"^manifest is not of store://org/.* but of store://org/model:v1: "):
        profile_for(parse_uri(text, STYLES), Patterns(), make_manifest(URI, Patterns(), (wanted("a"),), {}))


def test_a_manifest_of_an_image() -> None:
    profiles = (Profile(id="a" * 64), Profile(id="b" * 64))
    with pytest.raises(ManifestError, match=r"of an unknown model: m\.yaml"):
        profile_for(URI, Patterns(), Manifest(schema_version="2.0.0", profiles=profiles[:1], origin="m.yaml"))
    with pytest.raises(ManifestError, match=r"manifest with 2 profiles given together with a model URI: m\.yaml"):
        profile_for(URI, Patterns(), Manifest(schema_version="2.0.0", profiles=profiles, origin="m.yaml"))


def test_writing_is_possible(tmp_path: Path) -> None:
    check_writable(tmp_path / "m.json")


def test_there_is_no_folder_to_write_to(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        check_writable(tmp_path / "missing" / "m.json")
    assert caught.value.hint == f"mkdir -p {tmp_path / 'missing'}"


@pytest.fixture
def closed_folder() -> Iterator[Path]:
    """A folder that everybody may see and nobody but root may write."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        yield Path(folder)


def as_nobody(action: Callable[[], None]) -> int:
    """Do ``action`` in a process without rights; return 0 when it did not raise CachePermissionError, else 62."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            action()
            code = 0
        except CachePermissionError as error:
            code = error.exit_code
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_the_folder_cannot_be_written(closed_folder: Path) -> None:
    assert as_nobody(lambda: check_writable(closed_folder / "m.json")) == 62


def test_the_folder_cannot_be_looked_into(closed_folder: Path) -> None:
    (closed_folder / "deep").mkdir(mode=0o700)
    closed_folder.chmod(0o500)
    assert as_nobody(lambda: check_writable(closed_folder / "deep" / "m.json")) == 62
