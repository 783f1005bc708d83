"""The model of a disk whose power fails: what has to be there, what may be, and what may not."""

from __future__ import annotations

import random

import pytest

from nim_core.testing.power_loss import (
    ROOT,
    Enter,
    Leave,
    Move,
    Resize,
    Sync,
    Tree,
    Write,
    after_power_loss,
    operations_of,
    tree_after,
)

DRAWS = 300
FILE, FOLDER = 1, 2


def enter(name, node=FILE, folder=ROOT, **more):
    return Enter(folder=folder, name=name, node=node, **more)


def write(data, offset=0, node=FILE):
    return Write(node=node, offset=offset, data=data)


def move(name, to_name, node=FILE, folder=ROOT, to_folder=ROOT):
    return Move(folder=folder, name=name, node=node, to_folder=to_folder, to_name=to_name)


def sync(node, operations):
    """Return ``operations`` and a flush that began after all of them."""
    return [*operations, Sync(node=node, since=len(operations))]


def states(operations, **options):
    """Return states a disk may be in, as many as a few hundred draws give."""
    return [after_power_loss(operations, random.Random(seed), **options) for seed in range(DRAWS)]


def files(operations, **options):
    return [state.files for state in states(operations, **options)]


SAVED = sync(ROOT, sync(FILE, [enter("f"), write(b"old")]))


def test_what_is_flushed_is_there():
    assert all(state == {"f": b"old"} for state in files(SAVED))
    assert all(state == {"f": b"old"} for state in files(SAVED, journalled=True))


def test_bytes_that_are_not_flushed_may_be_there():
    seen = {state["f"] for state in files([*SAVED, write(b"new")])}
    assert seen == {b"old", b"new"}


def test_a_file_that_grew_may_have_zeros_instead():
    seen = {state["f"] for state in files([*SAVED, write(b"more", offset=3)])}
    assert seen == {b"old", b"oldmore", b"old\0\0\0\0"}


def test_blocks_are_torn_at_multiples_of_their_size():
    operations = [*sync(ROOT, sync(FILE, [enter("f"), write(bytes(16384))])), write(b"x" * 12000, offset=100)]
    seen = {state["f"] for state in files(operations)}
    torn = {tuple(state[at] == ord("x") for at in (100, 4095, 4096, 8191, 8192, 12099)) for state in seen}
    assert torn == {(a, a, b, b, c, c) for a in (True, False) for b in (True, False) for c in (True, False)}
    assert all(state[:100] == bytes(100) and state[12100:] == bytes(4284) for state in seen)


def test_a_file_may_be_cut_or_not():
    seen = {state["f"] for state in files([*SAVED, Resize(node=FILE, size=1)])}
    assert seen == {b"old", b"o", b"o\0\0"}


def test_a_name_without_a_flush_of_its_folder_may_be_gone():
    operations = sync(FILE, [enter("f"), write(b"data")])
    assert {tuple(state.items()) for state in files(operations)} == {(), (("f", b"data"),)}


def test_a_renamed_file_may_have_either_name_and_never_both_or_none():
    operations = [*SAVED, move("f", "g")]
    assert {tuple(state) for state in files(operations)} == {("f",), ("g",)}
    assert {tuple(state) for state in files(sync(ROOT, operations))} == {("g",)}


def test_the_usual_mistake_is_found():
    """Written and renamed without a flush: the right name with nothing in it, where there was a good file before."""
    other = [*SAVED, enter("f.new", node=3), write(b"new content", node=3), move("f.new", "f", node=3)]
    assert b"" in [state["f"] for state in files(other)]
    assert b"" in [state["f"] for state in files(other, journalled=True)]
    right = [*SAVED, enter("f.new", node=3), write(b"new content", node=3)]
    right = [*sync(3, right), move("f.new", "f", node=3)]
    assert {state["f"] for state in files(right)} == {b"old", b"new content"}


def test_a_flush_covers_only_what_ended_before_it_began():
    operations = [enter("f"), Sync(node=ROOT, since=1), write(b"late"), Sync(node=FILE, since=2)]
    assert {state["f"] for state in files(operations)} >= {b"", b"late"}


def test_a_flush_of_everything_covers_everything():
    assert all(state == {"f": b"data"} for state in files(sync(None, [enter("f"), write(b"data")])))


def test_a_lost_folder_takes_all_with_it():
    operations = [enter("d", node=FOLDER, kind="folder"), enter("f", folder=FOLDER), write(b"data")]
    operations = sync(FOLDER, sync(FILE, operations))
    seen = states(operations)
    assert {(tuple(state.folders), tuple(state.files)) for state in seen} == {((), ()), (("d",), ("d/f",))}
    assert all(state.files == {"d/f": b"data"} for state in states(operations, journalled=True))


def test_a_flush_of_either_folder_covers_a_rename_between_them():
    made = [*SAVED, enter("d", node=FOLDER, kind="folder")]
    made = [*sync(ROOT, made), move("f", "g", to_folder=FOLDER)]
    assert {tuple(state) for state in files(made)} == {("f",), ("d/g",)}
    for folder in (ROOT, FOLDER):
        assert {tuple(state) for state in files(sync(folder, made))} == {("d/g",)}


def test_removal_may_be_lost():
    operations = [*SAVED, Leave(folder=ROOT, name="f")]
    assert {tuple(state) for state in files(operations)} == {(), ("f",)}


def test_names_survive_in_any_selection_or_in_order():
    operations = [enter(name, node=node) for node, name in enumerate("abc", 1)]
    assert {"".join(sorted(state)) for state in files(operations)} == {"", "a", "b", "c", "ab", "ac", "bc", "abc"}
    assert {"".join(sorted(state)) for state in files(operations, journalled=True)} == {"", "a", "ab", "abc"}


def test_a_running_system_shows_everything():
    operations = [
        enter("d", node=FOLDER, kind="folder"),
        enter("f.new", folder=FOLDER),
        write(b"0123456789"),
        write(b"xy", offset=3),
        Resize(node=FILE, size=7),
        move("f.new", "f", folder=FOLDER, to_folder=ROOT),
        enter("l", node=3, kind="link", target="f"),
        enter("g", node=4),
        Leave(folder=ROOT, name="g"),
    ]
    expected = Tree(folders=frozenset({"d"}), files={"f": b"012xy56"}, links={"l": "f"})
    assert tree_after(operations) == expected


TREE = Tree(
    folders=frozenset({"a", "a/b"}), files={"a/b/f": b"data", "e": b""}, links={"a/l": "b/f", "dangling": "nowhere"}
)


def test_a_tree_is_written_and_read(tmp_path):
    TREE.write_to(tmp_path / "t")
    assert Tree.of(tmp_path / "t") == TREE


def test_what_was_there_before_stays():
    assert tree_after(operations_of(TREE)) == TREE
    assert all(state == TREE for state in states(operations_of(TREE)))


@pytest.mark.parametrize("journalled", [True, False])
def test_draws_are_repeatable(journalled):
    operations = [*operations_of(TREE), write(b"x" * 100_000), move("e", "f", node=5)]
    assert states(operations, journalled=journalled) == states(operations, journalled=journalled)
