"""
An origin that misbehaves as told, request by request, the same in every run.

:class:`MisbehavingFiles` answers for files and passes each answer through a script, which says what is wrong with it;
what can be wrong is in :mod:`nim_core.testing.bad_answers`::

    script = in_turn(bad_answers.cut(1000), bad_answers.status(503), None, bad_answers.wrong_bytes(5))
    with HttpOrigin("bad", MisbehavingFiles({"/model.bin": content}, script), log=RequestLog()) as origin:
        ...  # fetch origin.url + "/model.bin"; what arrives has to be ``content``

What a client owes its user whatever the origin does: the right bytes or an error, never wrong bytes, never a wait
without end. :func:`every_fault` has one of each kind for a test's parameters; :func:`random_faults` draws from those a
client can recover from by itself. At :func:`refusing` and :func:`never_accepting` nobody answers at all; a slow or
endless TLS handshake is ``keep_waiting`` of :class:`~nim_core.testing.http_server.HttpOrigin`.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from nim_core.testing import bad_answers as bad
from nim_core.testing.bad_answers import Misbehaviour
from nim_core.testing.corpus import Content
from nim_core.testing.faults import Fault
from nim_core.testing.http_server import Request, Response
from nim_core.testing.ranged import serve_content, strong_etag

__all__ = [
    "MisbehavingFiles",
    "Script",
    "after",
    "always",
    "every_fault",
    "expiring",
    "in_turn",
    "never_accepting",
    "random_faults",
    "refusing",
    "well_behaved",
]

_FULL_SECONDS: Final = 0.2


# -------------------------------------------------------------------------------------------------- which request, when
Script = Callable[[Request, int], Fault | None]
"""Told a request and its number among those of its method and path, from 1; None: it is answered properly."""


def well_behaved(_request: Request, _number: int) -> None:
    """Answer everything properly."""


def always(fault: Fault) -> Script:
    """Misbehave in every answer."""
    return lambda _request, _number: fault


def in_turn(*faults: Fault | None) -> Script:
    """Misbehave in the first answers, in this order, then no more."""
    return lambda _request, number: faults[number - 1] if number <= len(faults) else None


def after(count: int, fault: Fault) -> Script:
    """Misbehave in every answer but the first ``count``."""
    return lambda _request, number: fault if number > count else None


def expiring(uses: int, code: int = 403) -> Script:
    """Let each URL, query included, be good for so many requests; the source has to hand out another one then."""
    used: Counter[str] = Counter()
    lock = threading.Lock()
    refuse = bad.status(code)

    def script(request: Request, _number: int) -> Fault | None:
        with lock:
            used[request.target] += 1
            return refuse if used[request.target] > uses else None

    return script


class MisbehavingFiles:
    """
    A handler for :class:`~nim_core.testing.http_server.HttpOrigin`: files by path, served as the script says.

    Both attributes may be changed while the origin runs. The log's route of an exchange is the name of its fault, or
    ``file``, or ``nothing`` for a path without a file.

    Args:
        files: Contents by path, which starts with a slash and is not encoded.
        script: Which request gets which fault.
    """

    def __init__(self, files: Mapping[str, Content], script: Script = well_behaved) -> None:
        self.files = files
        self.script = script
        self._numbers: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> tuple[str, Response]:
        """Answer."""
        content = self.files.get(request.path)
        if content is None:
            return "nothing", Response(status=404)
        with self._lock:
            self._numbers[request.method, request.path] += 1
            number = self._numbers[request.method, request.path]
        fault = self.script(request, number)
        proper = serve_content(request, content, etag=strong_etag(content))
        return ("file", proper) if fault is None else (str(fault), fault(proper))


# ------------------------------------------------------------------------------------- ports where nobody answers
@contextlib.contextmanager
def refusing() -> Iterator[str]:
    """Yield the URL of a port that refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextlib.contextmanager
def never_accepting() -> Iterator[str]:
    """Yield the URL of a port at which connecting never ends: its queue is full, and nobody takes from it."""
    with socket.socket() as listener, contextlib.ExitStack() as queue:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        while _connects(queue.enter_context(socket.socket()), listener.getsockname()):
            pass
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def _connects(client: socket.socket, address: tuple[str, int]) -> bool:
    client.settimeout(0)
    client.connect_ex(address)
    with selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_WRITE)
        return bool(selector.select(_FULL_SECONDS))


# --------------------------------------------------------------------------------------------------------- many at once
def every_fault(size: int) -> tuple[Misbehaviour, ...]:
    """
    Return one of each kind, for a file of ``size`` bytes; those that hold a client up do so for ever.

    Redirects are left out, as where they lead is the test's business, and so is ``trickle``, which is not wrong.
    """
    middle = size // 2
    return (
        *(bad.no_answer(), bad.reset_at_once(), bad.not_http(), bad.late(float("inf"))),
        *(bad.cut(0), bad.cut(middle), bad.reset(middle), bad.stall(0), bad.stall(middle)),
        *(bad.chunked(), bad.close_delimited(), bad.broken_chunks(), bad.huge_header(), bad.many_headers(5000)),
        *(bad.short_body(1), bad.long_body(1), bad.overrun(1), bad.wrong_bytes(middle), bad.gzipped()),
        *(bad.other_version(), bad.other_etag()),
        *(bad.whole_file(), bad.shifted_range(1), bad.other_total(1), bad.no_content_range(), bad.multipart_range()),
        *map(bad.status, _STATUSES),
        *(bad.rate_limited(form) for form in bad.WAIT_FORMS),
    )


def random_faults(seed: int, count: int, size: int) -> tuple[Misbehaviour, ...]:
    """
    Return ``count`` faults that a client can recover from by itself, for a file of ``size`` bytes.

    Equal arguments give equal faults. None of them holds a client up for longer than half a second.
    """
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    return tuple(_recoverable(chance, size) for _ in range(count))


def _recoverable(chance: random.Random, size: int) -> Misbehaviour:
    at = chance.choice([0, 1, max(0, size - 1), chance.randrange(size + 1)])
    few, seconds = chance.randrange(1, 1000), round(chance.uniform(0, 0.5), 2)
    return chance.choice(
        [
            *(bad.no_answer(), bad.reset_at_once(), bad.not_http(), bad.late(seconds)),
            *(bad.cut(at), bad.reset(at), bad.stall(at, seconds)),
            *(bad.chunked(), bad.close_delimited(), bad.broken_chunks()),
            *(bad.short_body(few), bad.long_body(few), bad.overrun(few), bad.wrong_bytes(at), bad.gzipped()),
            *(bad.whole_file(), bad.shifted_range(few), bad.no_content_range(), bad.multipart_range()),
            bad.status(chance.choice(_PASSING)),
            bad.rate_limited(chance.choice(_NO_WAIT)),
        ]
    )


_PASSING: Final = (408, 425, 429, 500, 502, 503, 504)
_STATUSES: Final = (400, 401, 402, 403, 404, 410, 412, 416, 418, 451, *_PASSING)
_NO_WAIT: Final = ("no time", "a past date", "words", "a negative number")
