"""
Ways to misbehave, and when.

A fault is a function from the answer that would be given to the answer that is given. :class:`Faults` holds them with
the requests they strike; a server of the kit has one and passes every answer through it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from fnmatch import fnmatchcase

from attrs import define, evolve

from nim_core.testing.corpus import inline
from nim_core.testing.http_server import Request, Response

__all__ = ["Fault", "Faults", "answer_with", "cut", "html_error", "wrong_length"]

Fault = Callable[[Response], Response]


def answer_with(response: Response) -> Fault:
    """Give ``response`` whatever was asked."""
    return lambda _: response


def html_error(status: int) -> Fault:
    """Give the page a proxy or load balancer makes up."""
    page = f"<html>\r\n<head><title>{status} Error</title></head>\r\n<body><h1>{status}</h1></body>\r\n</html>"
    return answer_with(Response(status=status, headers={"Content-Type": "text/html"}, body=inline(page)))


def cut(after: int) -> Fault:
    """Close the connection after that many bytes of body."""
    return lambda response: evolve(response, cut_at=after)


def wrong_length(difference: int) -> Fault:
    """Announce that many bytes more (or, negative, fewer) than the body has, then close the connection."""
    return lambda response: evolve(response, length=response.body.size + difference)


@define(kw_only=True)
class _Rule:
    fault: Fault
    route: str | None
    path: str | None
    method: str | None
    left: int | None

    def strikes(self, route: str, request: Request) -> bool:
        if self.left == 0 or self.route not in {None, route} or self.method not in {None, request.method}:
            return False
        return self.path is None or fnmatchcase(request.path, self.path)


class Faults:
    """The faults in force; may be changed while the server runs, from any thread."""

    def __init__(self) -> None:
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()

    def add(
        self,
        fault: Fault,
        *,
        route: str | None = None,
        path: str | None = None,
        method: str | None = None,
        times: int | None = None,
    ) -> None:
        """
        Put a fault in force for requests that match everything given.

        Args:
            fault: What to do.
            route: Name of a route as the log shows it.
            path: Pattern with ``*`` for the decoded path.
            method: In capitals.
            times: How many requests it strikes. None: all of them.
        """
        with self._lock:
            self._rules.append(_Rule(fault=fault, route=route, path=path, method=method, left=times))

    def clear(self) -> None:
        """Behave again."""
        with self._lock:
            self._rules.clear()

    def apply(self, route: str, request: Request, response: Response) -> Response:
        """Return what is answered instead of ``response``, itself when no fault strikes."""
        with self._lock:
            struck = [rule for rule in self._rules if rule.strikes(route, request)]
            for rule in struck:
                rule.left = None if rule.left is None else rule.left - 1
        for rule in struck:
            response = rule.fault(response)
        return response
