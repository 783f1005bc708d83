import contextlib
import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest
from nim_source_local.plugin import nim_register_sources

from nim_core.errors import InvalidUriError, NotFoundError, PermissionDeniedError, SourceError, UnsupportedError
from nim_core.types import Anonymous, LocalObject, ModelUri, RemoteFile, SourceContext, UriStyle, Variables
from nim_core.uris import parse_uri

NOBODY = 65534


@pytest.fixture
def source():
    (spec,) = nim_register_sources()
    context = SourceContext(http=None, variables=Variables((), {}), credential=lambda *_: Anonymous())
    made = spec.factory(context)
    yield made
    made.close()


def uri_of(path):
    return parse_uri(f"local://{path}", {"local": UriStyle.PATH})


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def listed(source, path):
    return [(file.path, file.size) for file in source.list_files(uri_of(path)).files]


def test_what_the_plugin_declares():
    (spec,) = nim_register_sources()
    assert (spec.name, spec.schemes, spec.uri_style) == ("local", ("local",), UriStyle.PATH)
    assert (spec.capabilities.overridable, spec.environment) == (False, ())


def test_a_folder_is_listed_with_sizes_in_the_order_of_paths(source, tmp_path):
    write(tmp_path, b="22", a__z="1", a__b__c="333", **{"a-b": "4444", ".hidden": "", "A": "55555"})
    expected = [(".hidden", 0), ("A", 5), ("a-b", 4), ("a/b/c", 3), ("a/z", 1), ("b", 2)]
    assert listed(source, tmp_path) == expected
    listing = source.list_files(uri_of(tmp_path))
    assert (listing.uri, listing.pinned) == (uri_of(tmp_path), None)
    assert all(file.digests == () for file in listing.files)


def test_one_file_is_listed_alone(source, tmp_path):
    write(tmp_path, model="abc", other="d")
    assert listed(source, tmp_path / "model") == [("model", 3)]


def test_version_control_is_left_out_and_nothing_else(source, tmp_path):
    write(tmp_path, **{".git/config": "x", "sub/.git": "gitdir: x", ".gitattributes": "x", ".github/a": "x"})
    assert [path for path, _ in listed(source, tmp_path)] == [".gitattributes", ".github/a"]


def test_a_snapshot_of_links_is_followed(source, tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    write(blobs, one="11", two="222")
    (snapshot / "sub").mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/one")
    (snapshot / "sub" / "model").symlink_to("../../../blobs/two")
    (snapshot / "folder").symlink_to("../../blobs")
    assert listed(source, snapshot) == [("config.json", 2), ("folder/one", 2), ("folder/two", 3), ("sub/model", 3)]
    located = source.locate(uri_of(snapshot), RemoteFile(path="sub/model"))
    assert located == LocalObject(path=snapshot / "sub" / "model")
    assert located.path.is_symlink()


def test_the_uri_itself_may_be_a_link(source, tmp_path):
    write(tmp_path / "real", a="1")
    (tmp_path / "link").symlink_to("real")
    assert listed(source, tmp_path / "link") == [("a", 1)]
    assert source.locate(uri_of(tmp_path / "link"), RemoteFile(path="a")).path == tmp_path / "link" / "a"


def test_two_ways_to_one_folder_are_no_loop(source, tmp_path):
    write(tmp_path, real__a="1")
    (tmp_path / "again").symlink_to("real")
    assert listed(source, tmp_path) == [("again/a", 1), ("real/a", 1)]


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_a_loop_of_links_is_named(source, tmp_path, target):
    write(tmp_path / "root", a__b__c="1")
    (tmp_path / "root" / "a" / "b" / "back").symlink_to(target)
    with pytest.raises(SourceError, match=f"link leads back to a folder it is in: {tmp_path}.*/a/b/back"):
        source.list_files(uri_of(tmp_path / "root"))


def test_broken_links_are_all_named(source, tmp_path):
    write(tmp_path, good="1")
    for name in "edcbagf":
        (tmp_path / name).symlink_to("missing")
    (tmp_path / "a").unlink()
    (tmp_path / "a").symlink_to("a")
    shown = ", ".join(str(tmp_path / name) for name in "abcde")
    with pytest.raises(NotFoundError, match=f"^broken links: {shown} and 2 more$") as caught:
        source.list_files(uri_of(tmp_path))
    assert "mount" in caught.value.hint


def test_sockets_and_pipes_are_passed_over(source, tmp_path):
    write(tmp_path, a="1")
    os.mkfifo(tmp_path / "pipe")
    with contextlib.chdir(tmp_path), socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
        assert listed(source, tmp_path) == [("a", 1)]


def test_a_uri_that_names_neither_file_nor_folder_is_refused(source, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnsupportedError, match="neither a file nor a folder"):
        source.list_files(uri_of(tmp_path / "pipe"))


def test_an_empty_folder_is_no_model(source, tmp_path):
    (tmp_path / "sub").mkdir()
    with pytest.raises(NotFoundError, match=f"no files in folder: {tmp_path}"):
        source.list_files(uri_of(tmp_path))


@pytest.mark.parametrize("link", [False, True])
def test_what_is_missing_is_named(source, tmp_path, link):
    if link:
        (tmp_path / "model").symlink_to("nowhere")
    with pytest.raises(NotFoundError, match=f"no such file or folder: {tmp_path}/model") as caught:
        source.list_files(uri_of(tmp_path / "model"))
    assert caught.value.uri == f"local://{tmp_path}/model"


def test_what_has_gone_since_is_named(source, tmp_path):
    write(tmp_path, a="1")
    with pytest.raises(NotFoundError, match=f"no such file or folder: {tmp_path}/b"):
        source.locate(uri_of(tmp_path), RemoteFile(path="b"))


def test_one_file_is_located_as_itself(source, tmp_path):
    write(tmp_path, model="abc")
    (file,) = source.list_files(uri_of(tmp_path / "model")).files
    assert source.locate(uri_of(tmp_path / "model"), file).path == tmp_path / "model"


def test_a_folder_may_hold_a_file_of_its_own_name(source, tmp_path):
    write(tmp_path, model__model="abc")
    (file,) = source.list_files(uri_of(tmp_path / "model")).files
    assert source.locate(uri_of(tmp_path / "model"), file).path == tmp_path / "model" / "model"


@pytest.mark.parametrize("name", ["with blank", "ünï", "per%20cent", "ab:c", "q=1&r", "#hash", "~"])
def test_names_are_literal(source, tmp_path, name):
    write(tmp_path / name, **{name: "1"})
    assert listed(source, tmp_path / name) == [(name, 1)]
    assert source.locate(uri_of(tmp_path / name), RemoteFile(path=name)).path.read_text() == "1"


@pytest.mark.parametrize(
    ("name", "shown"),
    [(b"back\\slash", "back"), (b"new\nline", "new"), (b"not-utf8-\xff", "not-utf8"), (b"NUL", "NUL")],
)
def test_a_name_that_could_not_be_created_elsewhere_is_named(source, tmp_path, name, shown):
    Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_text("1")
    with pytest.raises(InvalidUriError, match=f"unsafe file path: '{shown}"):
        source.list_files(uri_of(tmp_path))


def test_a_relative_path_is_refused(source):
    uri = ModelUri(scheme="local", location="models/x", style=UriStyle.PATH)
    with pytest.raises(InvalidUriError, match="path is not absolute") as caught:
        source.list_files(uri)
    assert "local:///models/x" in caught.value.hint


@pytest.fixture
def as_nobody():
    """A folder that another user owns, seen without the rights of root, who may read everything."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    write(folder, open__a="1", closed__b="2")
    yield folder
    os.seteuid(0)
    shutil.rmtree(folder)


@pytest.mark.parametrize("locked", ["closed", "closed/b"])
def test_what_may_not_be_read_is_named_with_the_user(source, as_nobody, locked):
    (as_nobody / locked).chmod(0o600)
    os.seteuid(NOBODY)
    with pytest.raises(PermissionDeniedError, match=f"not readable for user {NOBODY} .*: {as_nobody}/closed"):
        source.list_files(uri_of(as_nobody))


def test_a_link_into_a_closed_folder_is_not_taken_for_broken(source, as_nobody):
    (as_nobody / "open" / "link").symlink_to("../closed/b")
    (as_nobody / "closed").chmod(0o600)
    os.seteuid(NOBODY)
    with pytest.raises(PermissionDeniedError, match="open/link"):
        source.list_files(uri_of(as_nobody / "open"))
