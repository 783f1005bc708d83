from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from attrs import evolve

from nim_core.errors import CacheError, InvalidUriError
from nim_core.testing.corpus import inline
from nim_core.workspace.links import RECORD, make_workspace
from nim_core.workspace.plain import put_files

LARGE = "model.safetensors"


def identity(path):
    stat = path.lstat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def made(model, folder):
    return make_workspace(model.present, folder, model.cache)


class TestWorkspace:
    def test_every_name_leads_to_its_file_and_nothing_is_copied(self, model, tmp_path):
        result = made(model, tmp_path / "ws")
        assert result.ways == Counter(symlink=4)
        assert model.differences(tmp_path / "ws") == []
        links = [path for path in (tmp_path / "ws").rglob("*") if path.is_symlink()]
        assert len(links) == 4
        assert all(path.readlink().is_absolute() for path in links)

    def test_within_the_cache_links_are_relative(self, model, tmp_path):
        made(model, model.cache / "workspaces/one")
        moved = tmp_path / "moved"
        shutil.move(model.cache, moved)
        assert model.differences(moved / "workspaces/one") == []

    def test_a_second_run_changes_nothing(self, model, tmp_path):
        made(model, tmp_path / "ws")
        before = {path: identity(path) for path in (tmp_path / "ws").rglob("*")}
        result = made(model, tmp_path / "ws")
        assert (result.ways, result.kept) == (Counter(), 4)
        assert {path: identity(path) for path in (tmp_path / "ws").rglob("*")} == before

    def test_a_way_with_dots_and_links(self, model, tmp_path):
        (tmp_path / "real/deep").mkdir(parents=True)
        (tmp_path / "link").symlink_to("real/deep")
        assert made(model, tmp_path / "link/../ws").folder == tmp_path / "real/ws"
        assert model.differences(tmp_path / "real/ws") == []

    def test_another_version_takes_its_place_and_the_user_s_files_stay(self, model, tmp_path):
        made(model.having(**{"old/only.bin": inline("old")}), tmp_path / "ws")
        (tmp_path / "ws/runtime_config.json").write_text("mine")
        (tmp_path / "ws/my-link").symlink_to(model.present[LARGE].blob)
        new = model.having(**{"config.json": inline("new"), "runtime_config.json": inline("mine")})
        result = make_workspace(
            {path: it for path, it in new.present.items() if path != "runtime_config.json"},
            tmp_path / "ws",
            model.cache,
        )
        assert result.kept == 3
        (tmp_path / "ws/my-link").unlink()
        assert new.differences(tmp_path / "ws") == []
        assert not (tmp_path / "ws/old").exists()

    @pytest.mark.parametrize("there", ["file", "folder", "link"])
    def test_a_name_that_is_taken(self, model, tmp_path, there):
        name = tmp_path / "ws/config.json"
        name.parent.mkdir()
        {"file": name.touch, "folder": name.mkdir, "link": lambda: name.symlink_to("/etc/hostname")}[there]()
        with pytest.raises(CacheError, match=r"(?s)1 of the model's names are taken.*\n  config.json$"):
            made(model, tmp_path / "ws")
        assert [path.name for path in (tmp_path / "ws").iterdir()] == ["config.json"]

    def test_a_link_that_leads_nowhere_or_into_the_cache_gives_way(self, model, tmp_path):
        (tmp_path / "ws").mkdir()
        (tmp_path / "ws/config.json").symlink_to("/nowhere")
        (tmp_path / "ws/empty.txt").symlink_to(model.present[LARGE].blob)
        made(model, tmp_path / "ws")
        assert model.differences(tmp_path / "ws") == []

    def test_a_link_in_the_place_of_a_folder_is_not_followed(self, model, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "ws").mkdir()
        (tmp_path / "ws/nested").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(CacheError, match="something else is in the way"):
            made(model, tmp_path / "ws")
        assert list((tmp_path / "elsewhere").iterdir()) == []

    def test_a_record_that_was_meddled_with_removes_nothing_elsewhere(self, model, tmp_path):
        precious = tmp_path / "precious"
        precious.write_text("mine")
        made(model, tmp_path / "ws")
        (tmp_path / "out").mkdir()
        (tmp_path / "out/file").write_text("mine")
        (tmp_path / "ws/way").symlink_to(tmp_path / "out")
        for names in ("../precious\n", "way/file\n", f"{precious}\n", "\xff"):
            (tmp_path / "ws" / RECORD).write_bytes(names.encode("latin-1"))
            made(model, tmp_path / "ws")
        assert precious.read_text() == (tmp_path / "out/file").read_text() == "mine"

    @pytest.mark.parametrize("path", ["../out", "/etc/x", "a/../../b"])
    def test_paths_that_lead_out(self, model, tmp_path, path):
        with pytest.raises(InvalidUriError):
            make_workspace({path: model.present[LARGE]}, tmp_path / "ws", model.cache)

    def test_without_symbolic_links_hard_links_are_made(self, model, tmp_path, monkeypatch):
        def refuse(*_args, **_options):
            raise OSError(errno.EPERM, "no links")

        monkeypatch.setattr(os, "symlink", refuse)
        assert made(model, tmp_path / "ws").ways == Counter(hardlink=4)
        assert made(model, tmp_path / "ws").kept == 4
        monkeypatch.setattr(os, "link", refuse)
        assert made(model, tmp_path / "other").ways.total() == 4
        assert made(model, tmp_path / "other").kept == 4
        assert model.differences(tmp_path / "other") == []

    def test_a_file_used_from_where_it_is(self, model, tmp_path):
        theirs = tmp_path / "theirs.bin"
        theirs.write_bytes(b"theirs")
        present = evolve(model.present[LARGE], blob=theirs, link=None, size=6)
        make_workspace({"a.bin": present}, tmp_path / "ws", model.cache)
        assert (tmp_path / "ws/a.bin").readlink() == theirs


class TestPlainFiles:
    def test_files_are_plain_and_others_stay(self, model, tmp_path):
        (tmp_path / "hub").mkdir()
        (tmp_path / "hub/mine.txt").write_text("mine")
        assert put_files(model.present, tmp_path / "hub").files == 4
        assert model.differences(tmp_path / "hub") == ["mine.txt"]
        assert not any(path.is_symlink() for path in (tmp_path / "hub").rglob("*"))
        assert put_files(model.present, tmp_path / "hub").kept == 4

    @pytest.mark.parametrize("there", ["file", "link"])
    def test_another_content_is_replaced_and_what_a_link_leads_to_stays(self, model, tmp_path, there):
        (tmp_path / "hub").mkdir()
        (tmp_path / "precious").write_text("mine")
        name = tmp_path / "hub/config.json"
        name.write_text("mine") if there == "file" else name.symlink_to(tmp_path / "precious")
        put_files(model.present, tmp_path / "hub")
        assert model.differences(tmp_path / "hub") == []
        assert (tmp_path / "precious").read_text() == "mine"

    def test_a_folder_in_the_way(self, model, tmp_path):
        Path(tmp_path / "hub/config.json/x").mkdir(parents=True)
        with pytest.raises(CacheError, match="something else is in the way"):
            put_files(model.present, tmp_path / "hub")

    def test_a_link_to_a_cached_file_becomes_a_file(self, model, tmp_path):
        (tmp_path / "hub").mkdir()
        (tmp_path / "hub/config.json").symlink_to(model.present["config.json"].blob)
        put_files(model.present, tmp_path / "hub")
        assert not (tmp_path / "hub/config.json").is_symlink()
