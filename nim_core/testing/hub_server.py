"""
A stand-in for the Hugging Face Hub: API and small files at one origin, signed storage at another, Xet's at a third.

In a test::

    with HubServer([HubModel(files=sample_corpus().files)], page_size=3) as server:
        ...  # server.url, server.environment(), server.log, server.faults

By hand, until it is interrupted or terminated::

    python -m nim_core.testing.hub_server

which prints its addresses, token and variables as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from attrs import evolve

from nim_core.testing.certificates import Certificates
from nim_core.testing.corpus import inline, sample_corpus
from nim_core.testing.faults import Faults, answer_with
from nim_core.testing.http_server import HttpOrigin, Request, RequestLog, Response
from nim_core.testing.hub_api import HUB_TOKEN, STRANGERS_TOKEN, XET_TOKEN, HubApi
from nim_core.testing.hub_models import HubModel, hub_refusal
from nim_core.testing.hub_xet import XetStorage
from nim_core.testing.signed_storage import SignedStorage

__all__ = ["HubServer", "main"]


class HubServer:
    """
    A stand-in for the Hub, serving while it is entered.

    Args:
        models: Commits of repositories; of several of one repository the last that a revision leads to counts.
        certificates: Makes it speak TLS, and the storage too.
        page_size: Most entries in one page of a tree.
        url_lifetime: Seconds a signed URL is good for.
        prefix: Path that the Hub is beneath, such as ``/v1/hf``.

    Attributes:
        log: Every request to an origin, ``hub``, ``storage`` or ``xet``. The route of the second is ``storage``.
        faults: What goes wrong, by route or path.
        storage: The store of large files; ``storage.leaks`` are requests that brought it a credential.
    """

    token = HUB_TOKEN
    strangers_token = STRANGERS_TOKEN

    def __init__(
        self,
        models: Sequence[HubModel],
        *,
        certificates: Certificates | None = None,
        page_size: int = 1000,
        url_lifetime: float = 3600,
        prefix: str = "",
    ) -> None:
        self.log = RequestLog()
        self.faults = Faults()
        self.storage = SignedStorage(lifetime=url_lifetime)
        self._xet = XetStorage(XET_TOKEN)
        self._origins = {
            name: HttpOrigin(name, answer, log=self.log, certificates=certificates)
            for name, answer in (
                ("hub", self._answer_hub),
                ("storage", self._answer_storage),
                ("xet", self._answer_xet),
            )
        }
        self._prefix = prefix
        self.url = self._origins["hub"].url + prefix
        self.storage_url = self._origins["storage"].url
        self._xet.url = self._origins["xet"].url
        self._api = HubApi([], sign=self._sign, cas_url=self._xet.url, page_size=page_size, url=self.url)
        self._running = ExitStack()
        for model in models:
            self.add(model)

    def __enter__(self) -> Self:
        for origin in self._origins.values():
            self._running.enter_context(origin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def environment(self, token: str | None = HUB_TOKEN) -> dict[str, str]:
        """Return the variables that direct a client here; without a token when ``token`` is None."""
        return {"HF_ENDPOINT": self.url} if token is None else {"HF_ENDPOINT": self.url, "HF_TOKEN": token}

    def add(self, model: HubModel) -> None:
        """Add a model, or another commit of one; its revisions lead there from now on."""
        self._api.models.append(model)
        for path in filter(model.is_large, model.files):
            self.storage.put(model.storage_path(path), model.files[path])
            name = model.xet_hash(path)
            if name is not None:
                self._xet.put(name, model.files[path])
            if path in model.xet_only:
                refusal = Response(status=400, body=inline("too large"))
                self.faults.add(answer_with(refusal), route="storage", path=model.storage_path(path))

    def expire_urls(self) -> None:
        """Let every signed URL given out so far be expired."""
        self.storage.expire_urls()

    def _sign(self, path: str) -> str:
        return self.storage_url + self.storage.sign(path)

    def _answer_hub(self, request: Request) -> tuple[str, Response]:
        if not request.target.startswith(f"{self._prefix}/"):
            return "none", hub_refusal(404, message="Sorry, we can't find the page you are looking for.")
        asked = evolve(request, target=request.target.removeprefix(self._prefix))
        route, response = self._api.answer(asked)
        return route, self.faults.apply(route, asked, response)

    def _answer_storage(self, request: Request) -> tuple[str, Response]:
        return "storage", self.faults.apply("storage", request, self.storage.answer(request))

    def _answer_xet(self, request: Request) -> tuple[str, Response]:
        route, response = self._xet.answer(request)
        return route, self.faults.apply(route, request, response)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the sample model until SIGINT or SIGTERM; see ``--help``."""
    options = _parser().parse_args(arguments)
    stop = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)  # before any thread starts, so that all inherit it
    model = HubModel(files=sample_corpus(shard_size=options.shard_size).files, gated=options.gated)
    with HubServer([model], page_size=options.page_size) as server:
        described = {
            "url": server.url,
            "storage_url": server.storage_url,
            "token": server.token,
            "model": model.uri(),
            "commit": model.commit,
            "environment": server.environment(),
        }
        sys.stdout.write(json.dumps(described) + "\n")
        sys.stdout.flush()
        signal.sigwait(stop)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m nim_core.testing.hub_server",
        description="Serve a small model the way the Hub does; prints one line of JSON, runs until interrupted.",
    )
    parser.add_argument("--page-size", type=int, default=1000, help="most entries in one page of a tree")
    parser.add_argument("--shard-size", type=int, default=200_000, help="bytes of the first weight shard")
    parser.add_argument("--gated", action="store_true", help="give files out to those alone who have the token")
    return parser


if __name__ == "__main__":
    main()
