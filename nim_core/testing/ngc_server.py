"""
A stand-in for NGC: API and token service at one origin, presigned storage at another.

In a test::

    with NgcServer([NgcModel(files=sample_corpus().files)], page_size=2) as server:
        ...  # server.api_url, server.environment(), server.log, server.faults

By hand, until it is interrupted or terminated::

    python -m nim_core.testing.ngc_server --folder demo

which prints its addresses, keys and variables as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from nim_core.testing.certificates import Certificates, make_certificates
from nim_core.testing.corpus import sample_corpus
from nim_core.testing.faults import Faults, answer_with
from nim_core.testing.http_server import HttpOrigin, Request, RequestLog, Response
from nim_core.testing.manifests import manifest_for
from nim_core.testing.ngc_api import NgcApi
from nim_core.testing.ngc_auth import LEGACY_KEY, NVAPI_KEY, NgcAuth
from nim_core.testing.ngc_models import NgcModel, refusal
from nim_core.testing.signed_storage import SignedStorage
from nim_core.testing.tiny_model import tiny_corpus

__all__ = ["NgcServer", "main"]


class NgcServer:
    """
    A stand-in for NGC, serving while it is entered.

    Args:
        models: What it has; of several versions of one model the last is the latest.
        certificates: Makes the API speak TLS, and the storage too.
        prefix: Path before every route, as behind a repository manager; empty or starting with a slash.
        page_size: Most files in one page.
        token_lifetime: Seconds a token is good for.
        url_lifetime: Seconds a presigned URL is good for.

    Attributes:
        log: Every request to either origin, ``api`` and ``storage``. The route of the latter is ``storage``.
        faults: What goes wrong, by route or path.
        storage: The object store; ``storage.leaks`` are requests that brought it a credential.
    """

    nvapi_key = NVAPI_KEY
    legacy_key = LEGACY_KEY

    def __init__(
        self,
        models: Sequence[NgcModel],
        *,
        certificates: Certificates | None = None,
        prefix: str = "",
        page_size: int = 500,
        token_lifetime: float = 900,
        url_lifetime: float = 3600,
    ) -> None:
        self.log = RequestLog()
        self.faults = Faults()
        self.storage = SignedStorage(lifetime=url_lifetime)
        self._auth = NgcAuth(org=models[0].org, token_lifetime=token_lifetime)
        self._api = NgcApi(models, auth=self._auth, sign=self._sign, page_size=page_size, prefix=prefix)
        self._api_origin = HttpOrigin("api", self._answer_api, log=self.log, certificates=certificates)
        self._storage_origin = HttpOrigin("storage", self._answer_storage, log=self.log, certificates=certificates)
        self._running = ExitStack()
        self.api_url = self._api_origin.url + prefix
        self.auth_url = self.api_url
        self.storage_url = self._storage_origin.url
        for model in models:
            self._store(model)

    def __enter__(self) -> Self:
        self._running.enter_context(self._api_origin)
        self._running.enter_context(self._storage_origin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def environment(self, key: str | None = NVAPI_KEY) -> dict[str, str]:
        """Return the variables that direct a client here; without a key when ``key`` is None."""
        scheme, _, place = self.api_url.partition("://")
        variables = {"NGC_API_ENDPOINT": place, "NGC_AUTH_ENDPOINT": place, "NGC_API_SCHEME": scheme}
        return variables if key is None else {**variables, "NGC_API_KEY": key}

    def add(self, model: NgcModel) -> None:
        """Add a model or, as the latest, another version of one."""
        self._api.models.append(model)
        self._store(model)

    def refuse(
        self,
        status: int,
        description: str = "refused",
        *,
        route: str | None = None,
        path: str | None = None,
        times: int | None = None,
    ) -> None:
        """Answer ``status`` in the API's own words; where and how often as for :meth:`Faults.add`."""
        self.faults.add(answer_with(refusal(status, description)), route=route, path=path, times=times)

    def refuse_bulk_manifest(self, status: int = 400) -> None:
        """Give presigned URLs to nobody, as for a key without membership of the organisation."""
        self.refuse(status, "Org contex missing", route="manifest")

    def expire_tokens(self) -> None:
        """Let every token given out so far be expired."""
        self._auth.expire_tokens()

    def expire_urls(self) -> None:
        """Let every presigned URL given out so far be expired."""
        self.storage.expire_urls()

    def _store(self, model: NgcModel) -> None:
        for path, content in model.served_files.items():
            self.storage.put(model.storage_path(path), content)

    def _sign(self, path: str) -> str:
        return self.storage_url + self.storage.sign(path)

    def _answer_api(self, request: Request) -> tuple[str, Response]:
        route, response = self._api.answer(request)
        return route, self.faults.apply(route, request, response)

    def _answer_storage(self, request: Request) -> tuple[str, Response]:
        return "storage", self.faults.apply("storage", request, self.storage.answer(request))


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the sample model until SIGINT or SIGTERM; see ``--help``."""
    options = _parser().parse_args(arguments)
    stop = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)  # before any thread starts, so that all inherit it
    certificates = make_certificates(options.folder) if options.tls else None
    if options.tiny is None:
        model = NgcModel(files=sample_corpus(shard_size=options.shard_size).files, guest=options.guest)
    else:
        files = tiny_corpus(options.tiny).files
        model = NgcModel(files=files, name="nim-tiny", version=options.tiny, guest=options.guest)
    manifest = options.folder / "model_manifest.yaml"
    options.folder.mkdir(parents=True, exist_ok=True)
    manifest.write_text(manifest_for(model), encoding="utf-8")
    with NgcServer([model], certificates=certificates, prefix=options.prefix, page_size=options.page_size) as server:
        described = {
            "api_url": server.api_url,
            "auth_url": server.auth_url,
            "storage_url": server.storage_url,
            "key": server.nvapi_key,
            "legacy_key": server.legacy_key,
            "model": model.uri(),
            "manifest": str(manifest.absolute()),
            "ca": None if certificates is None else str(certificates.ca.absolute()),
            "environment": server.environment(),
        }
        sys.stdout.write(json.dumps(described) + "\n")
        sys.stdout.flush()
        signal.sigwait(stop)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m nim_core.testing.ngc_server",
        description="Serve a small model the way NGC does; prints one line of JSON, runs until interrupted.",
    )
    parser.add_argument("--folder", type=Path, required=True, help="gets the manifest and, with --tls, certificates")
    parser.add_argument("--tls", action="store_true", help="serve https with a private authority")
    parser.add_argument("--prefix", default="", help="path before every route, such as /artifactory/api/nimmodel/repo")
    parser.add_argument("--page-size", type=int, default=500, help="most files in one page")
    parser.add_argument("--shard-size", type=int, default=200_000, help="bytes of the first weight shard")
    parser.add_argument("--tiny", choices=("gguf", "safetensors"), help="serve the model that answers, in this form")
    parser.add_argument("--guest", action="store_true", help="let the model be read without a key")
    return parser


if __name__ == "__main__":
    main()
