"""Core as a command has it, pointed at a relay: what the tests of sources ask, read and download with."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

import httpx
import pytest
from attrs import field, frozen

from nim_core.download import DownloadOptions, DownloadResult, download
from nim_core.errors import NimError
from nim_core.fetching import named_endpoints
from nim_core.plan import Plan, Target, model_id
from nim_core.registry import PluginInfo, Registry, load_registry
from nim_core.settings import Settings
from nim_core.testing.conformance.relay import Relay
from nim_core.testing.conformance.served import Served
from nim_core.testing.conformance.watching import Watch, WatchedRegistry
from nim_core.testing.corpus import Content
from nim_core.transfer.control import control_client
from nim_core.transfer.network import network_config
from nim_core.transfer.retry import retry_policy
from nim_core.types import HttpObject, Listing, ModelUri, Source, TransferEvent, UriStyle
from nim_core.uris import without_file

__all__ = ["PROXY_VARIABLES", "Bench", "Downloaded", "origin_of", "wrong_blobs", "wrong_files"]

_PATIENCE: Final = 1.0
_COMMAND_SECONDS: Final = 60
_SHORTEST_SECRET: Final = 4
PROXY_VARIABLES: Final = tuple(
    form for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for form in (name, name.upper())
)


@cache
def _plugins() -> Registry:
    return load_registry(Settings({}))


@cache
def _the_watch() -> Watch:
    return Watch()


@frozen(kw_only=True)
class Downloaded:
    """How a download ended: an error, or what came; ``cache`` is where to."""

    error: NimError | None
    result: DownloadResult | None
    cache: Path


class _Nobody:
    """Hears how a download goes on, and does nothing."""

    def phase(self, name: str) -> None: ...

    def planned(self, plan: Plan) -> None: ...

    def event(self, event: TransferEvent) -> None: ...

    def damaged(self, path: str, reason: str) -> None: ...


@frozen(kw_only=True, eq=False)
class Bench:
    """
    All that a test of a source needs.

    Attributes:
        plugin: The plugin.
        served: What its author's fixture gave.
        relay: Between core and the server.
        folder: For caches and homes; empty in the beginning.
        watch: Sees what the source does in this process.
        retries: How often core tries again, at once.
        environment: As ``served`` has it, or what a test makes of it.
        relayed: Whether requests go through the relay; not where the service is a real one, and its own proxies count.
    """

    plugin: PluginInfo
    served: Served
    relay: Relay
    folder: Path
    watch: Watch = field(factory=_the_watch)
    retries: int = 2
    environment: Mapping[str, str] = field(factory=dict)
    relayed: bool = True

    @property
    def settings(self) -> Settings:
        """The environment of core: the author's, and the relay."""
        return Settings(self.variables())

    def variables(self) -> dict[str, str]:
        """Return all variables, as a process would have them."""
        if not self.relayed:
            return dict(self.environment)
        return {
            **self.environment,
            "http_proxy": self.relay.url,
            "NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": str(self.retries),
            "NIM_SDK_DOWNLOAD_BACKOFF_INTERVAL_MS": "1",
            "NIM_PLUGIN_STRICT": "0",
        }

    @property
    def secret_variables(self) -> frozenset[str]:
        """Names of the variables that the plugin declares secret."""
        return frozenset(variable.name for variable in self.plugin.variables if variable.secret)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be seen: values of secret variables, and what the author names."""
        values = [value for name, value in self.served.environment.items() if name in self.secret_variables]
        return tuple(value for value in (*values, *self.served.secrets) if len(value) >= _SHORTEST_SECRET)

    @property
    def files(self) -> Mapping[str, Content]:
        """What the model consists of; only for tests that need it."""
        if self.served.files is None:
            pytest.fail("this test needs Served.files", pytrace=False)
        return self.served.files

    @property
    def largest(self) -> str:
        """The path of the largest file."""
        return max(self.files, key=lambda path: self.files[path].size)

    def registry(self) -> WatchedRegistry:
        """Return the installed plugins, watched."""
        return WatchedRegistry(self.settings, self.relay, self.watch)

    @property
    def plugins(self) -> Registry:
        """The installed plugins, with an empty environment; for what does not depend on one."""
        return _plugins()

    def uri(self, text: str | None = None) -> ModelUri:
        """Return a URI as core reads it: the model's when none is given."""
        return self.plugins.parse_uri(text or self.served.uri)

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """Yield core's client for control requests."""
        endpoints = [*named_endpoints(self.plugins, self.settings), *self.served.allowed]
        with control_client(network_config(self.settings, endpoints), retry_policy(self.settings)) as client:
            client.timeout = httpx.Timeout(_PATIENCE * 5)
            yield client

    @contextmanager
    def source(self) -> Iterator[Source]:
        """Yield the source, made and closed as core does it."""
        with self.client() as client:
            source = self.registry().open_source(self.uri().scheme, client)
            try:
                yield source
            finally:
                source.close()

    def asked(self, text: str | None = None) -> ModelUri:
        """Return the URI that a listing is asked for."""
        uri = self.uri(text)
        return uri if uri.style is UriStyle.OBJECT else without_file(uri)

    def listing(self, text: str | None = None) -> Listing:
        """Return the listing of the model, or of another URI, by a source of its own."""
        with self.source() as source:
            return source.list_files(self.asked(text))

    def error(self, text: str | None = None) -> BaseException | None:
        """Return what listing, or locating what is listed, raises. None: nothing."""
        try:
            with self.source() as source:
                listing = source.list_files(self.asked(text))
                for file in listing.files[:1]:
                    source.locate(listing.uri, file)
        except Exception as exc:  # noqa: BLE001 - it is looked at
            return exc
        return None

    def download(self, text: str | None = None, *, cache: str = "cache") -> Downloaded:
        """Download the model, or another URI, in this process; waits are short."""
        registry = self.registry()
        uri = registry.parse_uri(text or self.served.uri)
        folder = self.folder / cache
        target = Target(id=model_id(uri), label=uri.display, uri=uri)
        options = DownloadOptions(cache_path=folder, patience=_PATIENCE)
        try:
            result = download((target,), options, registry, self.settings, _Nobody())
        except NimError as exc:
            return Downloaded(error=exc, result=None, cache=folder)
        return Downloaded(error=None, result=result, cache=folder)

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run ``nim-llm`` with the model's environment, and nothing of this machine's."""
        command = [str(Path(sysconfig.get_path("scripts"), "nim-llm")), *arguments]
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            **self.variables(),
            **(environment or {}),
        }
        return subprocess.run(  # noqa: S603 - core's own command
            command, env=environ, cwd=self.folder, capture_output=True, text=True, check=False, timeout=_COMMAND_SECONDS
        )

    def found_secret(self, text: str) -> str | None:
        """Return the first few characters of a secret that ``text`` has in it, in whatever form. None: none."""
        for secret in self.secrets:
            if any(form in text for form in _forms(secret)):
                return f"{secret[:2]}..."
        return None

    def strangers(self, origin: str | None = None) -> list[str]:
        """Return what went to origins that may not have it, or to that one of them, in words."""
        allowed = {origin_of(url) for url in self.served.allowed}
        found = []
        for exchange in self.relay.seen():
            request = exchange.request
            where = origin_of(request.target)
            if where in allowed or where != origin_of(origin or where):
                continue
            secret = self.found_secret(request.target)
            if secret is not None:
                found.append(f"the URL of a request to {where} has a secret in it ({secret})")
            for name, value in request.headers:
                if self.found_secret(value) or name.lower() in {"authorization", "cookie"}:
                    found.append(f"the header {name} went to {where}")
            if request.body and self.found_secret(request.body.decode("latin-1")):
                found.append(f"the body of a request to {where} has a secret in it")
        return list(dict.fromkeys(found))

    def forget(self) -> None:
        """Forget what was asked until now, and put no more faults in."""
        self.relay.clear()
        self.watch.clear()

    def asked_for(self) -> str:
        """Return what was asked of anybody until now, as words. Empty: nothing."""
        requests = [f"{it.request.method} {origin_of(it.request.target)}" for it in self.relay.seen()]
        return ", ".join(requests + self.past_relay())

    def past_relay(self) -> list[str]:
        """Return the addresses that the source connected to by itself."""
        port = urlsplit(self.relay.url).port
        return [f"{host}:{number}" for host, number in self.watch.connections if number != port]

    def fetched(self, client: httpx.Client, location: HttpObject, stop: int) -> bytes | None:
        """Return the first ``stop`` bytes behind a location, asked for as core does. None: refused."""
        url = location.url.reveal()
        scheme, _, rest = url.partition("://")
        authority, slash, path = rest.partition("/")
        headers = {name: value.reveal() for name, value in location.headers}
        extensions = {"target": (slash + path or "/").encode("ascii")}
        response = client.get(
            f"{scheme}://{authority}/", headers=headers | {"Range": f"bytes=0-{stop - 1}"}, extensions=extensions
        )
        return response.content[:stop] if response.status_code in {200, 206} else None


def wrong_files(bench: Bench, downloaded: Downloaded) -> list[str]:
    """Return what is wrong with the files a download says it brought; one line each."""
    result = downloaded.result
    if result is None:
        return [f"the download failed: {type(downloaded.error).__name__}: {downloaded.error}"]
    (target,) = result.targets
    there = {path: present.blob for path, present in target.present.items()}
    missing = [f"missing: {path}" for path in sorted(bench.files.keys() - there.keys())]
    extra = [f"not a file of the model: {path}" for path in sorted(there.keys() - bench.files.keys())]
    both = sorted(there.keys() & bench.files.keys())
    return missing + extra + [f"wrong bytes: {path}" for path in both if not _same(bench.files[path], there[path])]


def wrong_blobs(bench: Bench, cache: Path, *, or_else: Content | None = None) -> list[str]:
    """Return names in the snapshots of a cache that lead to bytes of no file of the model, nor to ``or_else``."""
    contents = [*bench.files.values(), *([] if or_else is None else [or_else])]
    known = {content.digest("sha256").value for content in contents}
    links = [link for link in cache.glob("**/snapshots/**/*") if link.is_file()]
    return [str(link.relative_to(cache)) for link in links if _sha256(link) not in known]


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL, the port always."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def _forms(secret: str) -> tuple[str, ...]:
    """Return a secret as it may be found in a text: plain, percent-encoded, in base64."""
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    return (secret, quote(secret, safe=""), encoded)


def _same(content: Content, path: Path) -> bool:
    return path.stat().st_size == content.size and _sha256(path) == content.digest("sha256").value


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
