"""
What a disk may hold after the power failed: what a file system promises, and nothing beyond.

A pure model. Operations are values, in the order in which they ended; :mod:`nim_core.testing.traces` makes them from
what a real program did. :func:`after_power_loss` draws one of the states that the disk may be in after them:

- The bytes of a file are there as far as a flush of that file covers them. Of what was written since, each block of
  4 KiB is there or not, and the size is any that the file has had since: a tail of zeros where it grew.
- A name is there when its folder was flushed after the name appeared. Of names that appeared, moved or went since, any
  selection has; a rename is never torn, and a flush of either of its folders covers it. A file whose name is gone is
  gone, however often it was flushed itself.
- A flush covers what had ended when it began; what another thread did meanwhile it does not.

That is less than ext4, XFS or Btrfs keep, where names survive in order and any flush brings all earlier ones along:
``journalled`` draws from those states alone. What holds in the weaker model holds on all of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from attrs import define, field, frozen

__all__ = [
    "ROOT",
    "Enter",
    "Leave",
    "Move",
    "Operation",
    "Resize",
    "Sync",
    "Tree",
    "Write",
    "after_power_loss",
    "operations_of",
    "tree_after",
]

ROOT: Final = 0
"""The folder that everything is beneath; it is there whatever happens."""

_BLOCK: Final = 4096


@frozen(kw_only=True)
class Enter:
    """
    A name appeared.

    Attributes:
        folder: Where.
        name: The name.
        node: What it leads to: a number that stays the same while names change.
        kind: What that is.
        target: Where a link leads.
    """

    folder: int
    name: str
    node: int
    kind: str = "file"
    target: str = ""


@frozen(kw_only=True)
class Leave:
    """The name ``name`` went from ``folder``."""

    folder: int
    name: str


@frozen(kw_only=True)
class Move:
    """``node`` got the name ``to_name`` in ``to_folder`` instead of ``name`` in ``folder``."""

    folder: int
    name: str
    node: int
    to_folder: int
    to_name: str


@frozen(kw_only=True)
class Write:
    """Bytes were written to a file at ``offset``."""

    node: int
    offset: int
    data: bytes = field(repr=lambda data: f"<{len(data)} bytes>")


@frozen(kw_only=True)
class Resize:
    """A file was cut or grown to ``size`` bytes."""

    node: int
    size: int


@frozen(kw_only=True)
class Sync:
    """
    A flush ended.

    Attributes:
        node: The file whose bytes, or the folder whose names, it covers. None: everything.
        since: How many operations had ended when it began.
    """

    node: int | None
    since: int


Operation = Enter | Leave | Move | Write | Resize | Sync


@frozen(kw_only=True)
class Tree:
    """
    Everything beneath a folder, by path relative to it.

    Attributes:
        folders: Paths.
        files: Path and bytes.
        links: Path and target.
    """

    folders: frozenset[str] = frozenset()
    files: dict[str, bytes] = field(factory=dict, repr=lambda files: repr({k: len(v) for k, v in files.items()}))
    links: dict[str, str] = field(factory=dict)

    @classmethod
    def of(cls, folder: Path) -> Tree:
        """Return what is beneath ``folder`` now."""
        paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
        links = {name: str(path.readlink()) for name, path in paths.items() if path.is_symlink()}
        rest = {name: path for name, path in paths.items() if name not in links}
        return cls(
            folders=frozenset(name for name, path in rest.items() if path.is_dir()),
            files={name: path.read_bytes() for name, path in rest.items() if path.is_file()},
            links=links,
        )

    def write_to(self, folder: Path) -> None:
        """Make it beneath ``folder``, which is empty or not there."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in sorted(self.folders):
            (folder / name).mkdir()
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        for name, target in self.links.items():
            (folder / name).symlink_to(target)


def operations_of(tree: Tree) -> list[Operation]:
    """Return operations that lead to ``tree``, all of it flushed: what was there before a program began."""
    numbers = {"": ROOT}
    made: list[Operation] = []
    kinds: dict[str, tuple[str, str]] = dict.fromkeys(tree.folders, ("folder", ""))
    kinds |= dict.fromkeys(tree.files, ("file", "")) | {name: ("link", target) for name, target in tree.links.items()}
    for name in sorted(kinds):
        parent, _, last = name.rpartition("/")
        numbers[name] = len(numbers)
        kind, target = kinds[name]
        made.append(Enter(folder=numbers[parent], name=last, node=numbers[name], kind=kind, target=target))
        if name in tree.files:
            made.append(Write(node=numbers[name], offset=0, data=tree.files[name]))
    return [*made, Sync(node=None, since=len(made))]


def tree_after(operations: Sequence[Operation]) -> Tree:
    """Return what a running system shows after ``operations``."""
    contents = {node: _File.of(changes).data for node, changes in _changes(operations).items()}
    return _tree(operations, frozenset(range(len(operations))), contents)


def after_power_loss(operations: Sequence[Operation], chance: random.Random, *, journalled: bool = False) -> Tree:
    """
    Return one of the states a disk may be in when the power fails after ``operations``.

    Args:
        operations: All that ended until then.
        chance: Draws it.
        journalled: Whether names survive in order and every flush covers all earlier names.
    """
    flushes = _Flushes(operations)
    names = _surviving_names(operations, flushes, chance, journalled=journalled)
    luck = _luck(chance)
    contents = {
        node: _torn(changes, flushes.until(node), luck, chance) for node, changes in _changes(operations).items()
    }
    return _tree(operations, names, contents)


def _luck(chance: random.Random) -> float:
    """Return which share of what was not flushed survives; nothing and everything are as interesting as all between."""
    return chance.choice([0.0, 1.0, chance.random()])


class _Flushes:
    """Up to which operation, not including it, each file or folder is flushed."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.everything = 0
        self.anything = 0
        self._until: dict[int, int] = {}
        for operation in operations:
            if isinstance(operation, Sync):
                self.anything = max(self.anything, operation.since)
                if operation.node is None:
                    self.everything = max(self.everything, operation.since)
                else:
                    self._until[operation.node] = max(self._until.get(operation.node, 0), operation.since)

    def until(self, *nodes: int) -> int:
        return max([self.everything, *(self._until.get(node, 0) for node in nodes)])


# --------------------------------------------------------------------------------------------------------------- names
def _surviving_names(
    operations: Sequence[Operation], flushes: _Flushes, chance: random.Random, *, journalled: bool
) -> frozenset[int]:
    """Return which operations on names, by number, are on the disk."""
    durable: list[int] = []
    pending: list[int] = []
    for number, operation in enumerate(operations):
        if isinstance(operation, (Enter, Leave, Move)):
            until = flushes.anything if journalled else flushes.until(*_folders(operation))
            (durable if number < until else pending).append(number)
    luck = _luck(chance)
    if journalled:
        survivors = pending[: round(luck * len(pending))]
    else:
        survivors = [number for number in pending if chance.random() < luck]
    return frozenset([*durable, *survivors])


def _folders(operation: Enter | Leave | Move) -> tuple[int, ...]:
    return (operation.folder, operation.to_folder) if isinstance(operation, Move) else (operation.folder,)


def _tree(operations: Sequence[Operation], names: frozenset[int], contents: dict[int, bytearray]) -> Tree:
    inside: dict[int, dict[str, int]] = {}
    known: dict[int, Enter] = {}
    for number, operation in enumerate(operations):
        if isinstance(operation, Enter):
            known[operation.node] = operation
        if number in names and isinstance(operation, (Enter, Leave, Move)):
            inside.setdefault(operation.folder, {}).pop(operation.name, None)
            if isinstance(operation, Enter):
                inside[operation.folder][operation.name] = operation.node
            elif isinstance(operation, Move):
                inside.setdefault(operation.to_folder, {})[operation.to_name] = operation.node
    return _walked(inside, known, contents)


def _walked(inside: dict[int, dict[str, int]], known: dict[int, Enter], contents: dict[int, bytearray]) -> Tree:
    folders, files, links = set(), {}, {}
    waiting = [("", ROOT)]
    while waiting:
        path, folder = waiting.pop()
        for name, node in inside.get(folder, {}).items():
            here = f"{path}{name}"
            match known[node].kind:
                case "folder":
                    folders.add(here)
                    waiting.append((f"{here}/", node))
                case "link":
                    links[here] = known[node].target
                case _:
                    files[here] = bytes(contents.get(node, b""))
    return Tree(folders=frozenset(folders), files=files, links=links)


# ------------------------------------------------------------------------------------------------------------ contents
@define
class _File:
    """The bytes of a file while changes are applied."""

    data: bytearray = field(factory=bytearray)

    @classmethod
    def of(cls, changes: Iterable[tuple[int, Write | Resize]]) -> _File:
        file = cls()
        for _, change in changes:
            file.resize(_size_after(change, len(file.data)))
            if isinstance(change, Write):
                file.data[change.offset : change.offset + len(change.data)] = change.data
        return file

    def resize(self, size: int) -> None:
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))


def _changes(operations: Sequence[Operation]) -> dict[int, list[tuple[int, Write | Resize]]]:
    """Return what was done to the bytes of each file, with the numbers of the operations."""
    changes: dict[int, list[tuple[int, Write | Resize]]] = {}
    for number, operation in enumerate(operations):
        if isinstance(operation, (Write, Resize)):
            changes.setdefault(operation.node, []).append((number, operation))
    return changes


def _size_after(change: Write | Resize, size: int) -> int:
    return change.size if isinstance(change, Resize) else max(size, change.offset + len(change.data))


def _torn(changes: Sequence[tuple[int, Write | Resize]], until: int, luck: float, chance: random.Random) -> bytearray:
    """Return what may be left of a file of which everything before operation ``until`` is flushed."""
    file = _File.of(change for change in changes if change[0] < until)
    size = len(file.data)
    sizes = [size]
    for number, change in changes:
        if number >= until:
            size = _size_after(change, size)
            sizes.append(size)
            for offset, piece in _surviving_blocks(change, luck, chance):
                file.resize(max(len(file.data), offset + len(piece)))
                file.data[offset : offset + len(piece)] = piece
            if isinstance(change, Resize) and chance.random() < luck:
                file.resize(change.size)
    file.resize(size if luck == 1 else chance.choice(sizes))
    return file.data


def _surviving_blocks(change: Write | Resize, luck: float, chance: random.Random) -> Iterator[tuple[int, bytes]]:
    if isinstance(change, Resize):
        return
    if luck == 1:
        yield change.offset, change.data
    elif luck > 0:
        end = change.offset + len(change.data)
        for block in range(change.offset // _BLOCK * _BLOCK, end, _BLOCK):
            first, last = max(block, change.offset), min(block + _BLOCK, end)
            if chance.random() < luck:
                yield first, change.data[first - change.offset : last - change.offset]
