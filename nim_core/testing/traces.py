"""
What strace saw a program do to files, as operations of :mod:`nim_core.testing.power_loss`.

Threads are followed, and a flush is known to cover only what had ended when it began. What strace cannot show, such as
writes through memory, is not there: compare :func:`~nim_core.testing.power_loss.tree_after` with the folder itself
before drawing conclusions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import define, evolve, field, frozen

from nim_core.testing.power_loss import ROOT, Enter, Leave, Move, Operation, Resize, Sync, Tree, Write, operations_of

__all__ = ["CALLS", "read_trace"]

_LINE: Final = re.compile(r"(\d+) +(.*)")
_RESUMED: Final = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
_UNFINISHED: Final = "<unfinished ...>"
_VECTOR: Final = re.compile(r"iov_base=(\"[^\"]*\")")
_SIZE_STAYS: Final = "FALLOC_FL_KEEP_SIZE"
_HERE: Final = "AT_FDCWD"


@frozen(kw_only=True)
class _Call:
    """
    A system call that did what it was asked to.

    Attributes:
        name: Of the general form: ``mkdirat`` for ``mkdir`` too.
        arguments: As strace writes them.
        answer: What it returned.
        since: How many operations had ended when it began.
    """

    name: str
    arguments: Sequence[str]
    answer: int
    since: int

    def number(self, index: int) -> int:
        return int(self.arguments[index])

    def text(self, index: int) -> str:
        return os.fsdecode(_bytes(self.arguments[index]))


@define
class _Open:
    """An open file, which several descriptors may share."""

    node: int
    append: bool = False
    position: int = 0


_Place = tuple[int, str]
"""A folder and a name in it."""


@define
class _Reader:
    """The files beneath ``root`` as they are after each line of a trace."""

    root: str
    cwd: str
    operations: list[Operation]
    names: dict[_Place, int] = field(factory=dict)
    kinds: dict[int, str] = field(factory=dict)
    sizes: dict[int, int] = field(factory=dict)
    handles: dict[int, _Open] = field(factory=dict)
    unfinished: dict[str, tuple[str, int]] = field(factory=dict)

    def begin(self, tree: Tree) -> None:
        """Take over what was there before."""
        for operation in operations_of(tree):
            self.operations.append(operation)
            if isinstance(operation, Enter):
                self.names[operation.folder, operation.name] = operation.node
                self.kinds[operation.node], self.sizes[operation.node] = operation.kind, 0
            elif isinstance(operation, Write):
                self.sizes[operation.node] = len(operation.data)

    def line(self, text: str) -> None:
        """Read one line."""
        found = _LINE.fullmatch(text)
        if found is None or found[2].startswith(("+++", "---")):
            return
        thread, rest, since = found[1], found[2], len(self.operations)
        if rest.endswith(_UNFINISHED):
            start = rest.removesuffix(_UNFINISHED)
            if start.startswith("close("):  # from now on, another thread may be given the same descriptor
                self.handles.pop(int(start.strip(" )")[6:]), None)
                start = ""
            self.unfinished[thread] = (start, since)
            return
        resumed = _RESUMED.fullmatch(rest)
        if resumed is not None:
            start, since = self.unfinished.pop(thread, ("", since))
            rest = start + resumed[2] if start else ""
        call = _read_call(rest, since)
        if call is not None:
            _STEPS[call.name](self, call)

    # ---------------------------------------------------------------------------------------------------------- places
    def place(self, call: _Call, index: int) -> _Place | None:
        """Return what a descriptor of a folder and the path after it name. None when that is not beneath the root."""
        folder, text = call.arguments[index], call.text(index + 1)
        if not text.startswith("/") and folder != _HERE:
            opened = self.handles.get(int(folder))
            return None if opened is None else self._walked(opened.node, text)
        whole = self._whole(text)
        return self._walked(ROOT, whole[len(self.root) + 1 :]) if whole.startswith(f"{self.root}/") else None

    def _whole(self, text: str) -> str:
        return os.path.normpath(f"{self.cwd}/{text}" if not text.startswith("/") else text)

    def _walked(self, node: int, path: str) -> _Place:
        *folders, last = path.split("/")
        for name in folders:
            node = self.names[node, name]
        return node, last

    def _enter(self, place: _Place | None, kind: str, target: str = "") -> None:
        if place is not None:
            node = len(self.kinds) + 1
            self.names[place], self.kinds[node], self.sizes[node] = node, kind, 0
            self.operations.append(Enter(folder=place[0], name=place[1], node=node, kind=kind, target=target))

    # ----------------------------------------------------------------------------------------------------- descriptors
    def on_openat(self, call: _Call) -> None:
        self.handles.pop(call.answer, None)
        if call.arguments[0] == _HERE and self._whole(call.text(1)) == self.root:
            self.handles[call.answer] = _Open(ROOT)
            return
        place, flags = self.place(call, 0), call.arguments[2]
        if place is None:
            return
        if place not in self.names:
            self._enter(place, "file")
        elif "O_TRUNC" in flags:
            self._resize(self.names[place], 0)
        if self.kinds[self.names[place]] != "link":
            self.handles[call.answer] = _Open(self.names[place], append="O_APPEND" in flags)

    def on_close(self, call: _Call) -> None:
        self.handles.pop(call.number(0), None)

    def on_dup(self, call: _Call) -> None:
        self.handles.pop(call.answer, None)
        if call.number(0) in self.handles:
            self.handles[call.answer] = self.handles[call.number(0)]

    def on_fcntl(self, call: _Call) -> None:
        if call.arguments[1].startswith("F_DUPFD"):
            self.on_dup(call)

    def on_chdir(self, call: _Call) -> None:
        self.cwd = self._whole(call.text(0))

    def on_lseek(self, call: _Call) -> None:
        if call.number(0) in self.handles:
            self.handles[call.number(0)].position = call.answer

    # ----------------------------------------------------------------------------------------------------------- names
    def on_mkdirat(self, call: _Call) -> None:
        self._enter(self.place(call, 0), "folder")

    def on_symlinkat(self, call: _Call) -> None:
        self._enter(self.place(call, 1), "link", call.text(0))

    def on_linkat(self, call: _Call) -> None:
        place, to = self.place(call, 0), self.place(call, 2)
        if place is not None and to is not None:
            node = self.names[to] = self.names[place]
            self.operations.append(Enter(folder=to[0], name=to[1], node=node, kind=self.kinds[node]))

    def on_unlinkat(self, call: _Call) -> None:
        place = self.place(call, 0)
        if place is not None:
            del self.names[place]
            self.operations.append(Leave(folder=place[0], name=place[1]))

    def on_renameat(self, call: _Call) -> None:
        place, to = self.place(call, 0), self.place(call, 2)
        if place is not None and to is not None:
            node = self.names[to] = self.names.pop(place)
            self.operations.append(Move(folder=place[0], name=place[1], node=node, to_folder=to[0], to_name=to[1]))
        elif place != to:
            raise ValueError(f"a rename into or out of the folder that is watched: {call.text(1)}, {call.text(3)}")

    # -------------------------------------------------------------------------------------------------------- contents
    def on_write(self, call: _Call) -> None:
        self._append(call, _bytes(call.arguments[1]))

    def on_writev(self, call: _Call) -> None:
        self._append(call, _vector(call))

    def on_pwrite64(self, call: _Call) -> None:
        self._write(call, _bytes(call.arguments[1]), call.number(3))

    def on_pwritev(self, call: _Call) -> None:
        self._write(call, _vector(call), call.number(-1))

    def _append(self, call: _Call, data: bytes) -> None:
        opened = self.handles.get(call.number(0))
        if opened is not None:
            start = self.sizes[opened.node] if opened.append else opened.position
            opened.position = start + call.answer
            self._write(call, data, start)

    def _write(self, call: _Call, data: bytes, offset: int) -> None:
        opened = self.handles.get(call.number(0))
        if opened is not None and call.answer:
            self.sizes[opened.node] = max(self.sizes[opened.node], offset + call.answer)
            self.operations.append(Write(node=opened.node, offset=offset, data=data[: call.answer]))

    def on_ftruncate(self, call: _Call) -> None:
        if call.number(0) in self.handles:
            self._resize(self.handles[call.number(0)].node, call.number(1))

    def on_truncate(self, call: _Call) -> None:
        place = self.place(evolve(call, arguments=[_HERE, *call.arguments]), 0)
        if place is not None:
            self._resize(self.names[place], call.number(1))

    def on_fallocate(self, call: _Call) -> None:
        opened = self.handles.get(call.number(0))
        if opened is not None and _SIZE_STAYS not in call.arguments[1]:
            self._resize(opened.node, max(self.sizes[opened.node], call.number(2) + call.number(3)))

    def _resize(self, node: int, size: int) -> None:
        if self.sizes[node] != size:
            self.sizes[node] = size
            self.operations.append(Resize(node=node, size=size))

    # --------------------------------------------------------------------------------------------------------- flushes
    def on_fsync(self, call: _Call) -> None:
        opened = self.handles.get(call.number(0))
        if opened is not None:
            self.operations.append(Sync(node=opened.node, since=call.since))

    def on_syncfs(self, call: _Call) -> None:
        self.operations.append(Sync(node=None, since=call.since))


def _bytes(argument: str) -> bytes:
    if not argument.startswith('"') or not argument.endswith('"'):
        raise ValueError(f"the trace cuts a string short: {argument[:40]}...")
    return bytes.fromhex(argument[1:-1].replace("\\x", ""))


def _vector(call: _Call) -> bytes:
    return b"".join(map(_bytes, _VECTOR.findall(", ".join(call.arguments))))


def _read_call(text: str, since: int) -> _Call | None:
    """Return a call by its general form. None when it failed, or is none of :data:`CALLS`."""
    head, _, answer = text.rpartition(" = ")
    name, _, inner = head.strip().partition("(")
    words = answer.split()
    if name not in CALLS or not words or not words[0].isdecimal():
        return None
    arguments = [argument.strip() for argument in inner.removesuffix(")").split(",")]
    general, add = _GENERAL.get(name, (name, lambda given: given))
    return _Call(name=general, arguments=add(arguments), answer=int(words[0]), since=since)


_GENERAL: Final[Mapping[str, tuple[str, Callable[[list[str]], list[str]]]]] = {
    "open": ("openat", lambda given: [_HERE, *given]),
    "creat": ("openat", lambda given: [_HERE, given[0], "O_TRUNC"]),
    "mkdir": ("mkdirat", lambda given: [_HERE, *given]),
    "symlink": ("symlinkat", lambda given: [given[0], _HERE, given[1]]),
    "link": ("linkat", lambda given: [_HERE, given[0], _HERE, given[1]]),
    "unlink": ("unlinkat", lambda given: [_HERE, *given]),
    "rmdir": ("unlinkat", lambda given: [_HERE, *given]),
    "rename": ("renameat", lambda given: [_HERE, given[0], _HERE, given[1]]),
    "renameat2": ("renameat", lambda given: given),
    "pwritev2": ("pwritev", lambda given: given[:-1]),
    "fdatasync": ("fsync", lambda given: given),
    "sync": ("syncfs", lambda given: given),
    "dup2": ("dup", lambda given: given),
    "dup3": ("dup", lambda given: given),
}

_STEPS: Final[Mapping[str, Callable[[_Reader, _Call], None]]] = {
    name.removeprefix("on_"): step for name, step in vars(_Reader).items() if name.startswith("on_")
}

CALLS: Final = frozenset({*_STEPS, *_GENERAL})
"""The system calls that have to be traced."""


def read_trace(lines: Iterable[str], root: Path, *, cwd: Path, before: Tree) -> list[Operation]:
    """
    Return what a trace says was done beneath ``root``, after operations that make what was there ``before``.

    Args:
        lines: Of ``strace -f -xx``, with strings in full.
        root: A folder, without links in its path.
        cwd: Where the program began.
        before: What was beneath ``root`` when it began.

    Raises:
        ValueError: A string is cut short, or a name comes from elsewhere.
        KeyError: A name is used that the trace has not seen appear.
    """
    reader = _Reader(root=str(root), cwd=str(cwd), operations=[])
    reader.begin(before)
    for line in lines:
        reader.line(line.rstrip("\n"))
    return reader.operations
