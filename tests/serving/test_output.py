"""What an engine writes becomes whole lines."""

from __future__ import annotations

import threading

import pytest

from nim_core.serving.output import LINE_BYTES, Lines, Patient


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def fed(*pieces: bytes) -> list[str]:
    lines: list[str] = []
    reader = Lines(lines.append, Clock())
    for piece in pieces:
        reader.feed(piece)
    reader.finish()
    return lines


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ((b"one\ntwo\n",), ["one", "two"]),
        ((b"o", b"ne\nt", b"wo"), ["one", "two"]),
        ((b"one\r\ntwo\r", b"\n"), ["one", "two"]),
        ((b"\n\n",), ["", ""]),
        ((b" 10%|#\r 50%|###\r100%|####\ndone\n",), ["100%|####", "done"]),
        ((b"gr\xc3", b"\xbcn\n"), ["gr\u00fcn"]),
        ((b"\xff\xfe\n",), ["\ufffd\ufffd"]),
        ((b"progress\rno end",), ["no end"]),
    ],
)
def test_pieces_become_lines(pieces: tuple[bytes, ...], expected: list[str]) -> None:
    assert fed(*pieces) == expected


@pytest.mark.parametrize("size", [LINE_BYTES - 1, LINE_BYTES, 3 * LINE_BYTES + 5])
def test_long_lines_come_in_pieces(size: int) -> None:
    lines = fed(b"x" * size + b"\n", b"short\n")
    assert "".join(lines[:-1]) == "x" * size
    assert max(map(len, lines)) <= LINE_BYTES
    assert lines[-1] == "short"


def test_an_endless_line_needs_no_memory() -> None:
    lines: list[str] = []
    reader = Lines(lines.append, Clock())
    for _ in range(100):
        reader.feed(b"x" * LINE_BYTES)
    assert sum(map(len, lines)) == 100 * LINE_BYTES


def test_a_progress_bar_is_shown_now_and_then() -> None:
    lines: list[str] = []
    clock = Clock()
    reader = Lines(lines.append, clock)
    for percent in range(100):
        clock.now += 0.2
        reader.feed(b"\r%3d%%" % percent)
    reader.feed(b"\r100%\n")
    assert lines[-1] == "100%"
    assert 4 <= len(lines) <= 6


def test_who_is_slow_makes_nobody_wait() -> None:
    gate, lines = threading.Event(), []

    def slow(text: str) -> None:
        gate.wait(20)
        lines.append(text)

    patient = Patient(slow)
    for number in range(30_000):
        patient.put(str(number))
    gate.set()
    patient.close(20)
    assert lines[-1] == "29999"
    left_out = sum(int(line.split()[0][1:]) for line in lines if line.startswith("("))
    shown = [line for line in lines if not line.startswith("(")]
    assert len(shown) + left_out == 30_000
    assert left_out > 0


def test_a_line_that_cannot_be_shown_holds_nothing_up() -> None:
    lines: list[str] = []

    def picky(text: str) -> None:
        if text == "bad":
            raise ValueError(text)
        lines.append(text)

    patient = Patient(picky)
    for text in ("good", "bad", "better"):
        patient.put(text)
    patient.close(20)
    assert lines == ["good", "better"]
