"""An engine, its parts as in production, against an origin whose answers a test scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from attrs import define, field

from nim_core.settings import Settings
from nim_core.testing.corpus import Content, PatternContent
from nim_core.testing.http_server import HttpOrigin, Request, RequestLog, Response
from nim_core.testing.ranged import serve_content, strong_etag
from nim_core.transfer.engine import Engine
from nim_core.transfer.jobs import Job, Verified
from nim_core.transfer.network import network_config
from nim_core.transfer.options import EngineOptions
from nim_core.types import Digest, HttpObject, Location, ModelUri, RemoteFile, TransferEvent

Script = Callable[[Request, int], Response | None]


@define
class Site:
    """An origin with files; ``script`` may answer instead of it, and is told how often it has been asked."""

    files: dict[str, Content] = field(factory=dict)
    script: Script | None = None
    requests: list[Request] = field(factory=list)

    def handle(self, request: Request) -> tuple[str, Response]:
        self.requests.append(request)
        scripted = self.script(request, len(self.requests)) if self.script else None
        if scripted is not None:
            return "scripted", scripted
        content = self.files[request.path]
        return "file", serve_content(request, content, etag=strong_etag(content))

    def ranges(self) -> list[str | None]:
        return [request.header("Range") for request in self.requests]


@define
class Bench:
    """Runs engines in one folder and keeps them, what they said and what they published."""

    folder: Path
    origin: HttpOrigin
    site: Site
    events: list[TransferEvent] = field(factory=list)
    published: dict[str, Verified] = field(factory=dict)
    contents: dict[str, bytes] = field(factory=dict)
    locates: int = 0
    refuse: OSError | None = None
    engines: list[Engine] = field(factory=list)

    @property
    def partials(self) -> Path:
        return self.folder / "tmp"

    def url(self, path: str) -> str:
        return self.origin.url + path

    def job(
        self,
        path: str,
        *,
        size: int | None = -1,
        digests: tuple[Digest, ...] | None = None,
        locate: Callable[[], Location] | None = None,
    ) -> Job:
        content = self.site.files.get(path)
        known = content.size if content is not None and size == -1 else size
        expected = digests if digests is not None else (content.digest("blake3"),) if content is not None else ()
        return Job(
            id=path.strip("/").replace("/", "-"),
            identity=ModelUri(scheme="test", location="repo", file=path.strip("/")),
            file=RemoteFile(path=path.strip("/"), size=known, digests=expected),
            locate=locate or (lambda: self.locate(path)),
        )

    def locate(self, path: str) -> HttpObject:
        self.locates += 1
        return HttpObject(url=self.url(path), headers={"Authorization": "Bearer secret"})

    def run(self, *jobs: Job, environ: dict[str, str] | None = None, **options: object) -> Engine:
        engine = Engine(
            options=EngineOptions(**{"backoff": 0.01, "retries": 3, **options}),
            network=network_config(Settings(environ or {}), [self.origin.url]),
            folder=self.partials,
            publish=self.publish,
            emit=self.events.append,
        )
        self.engines.append(engine)
        engine.run(jobs)
        return engine

    def publish(self, batch: Sequence[Verified]) -> None:
        if self.refuse is not None:
            raise self.refuse
        for verified in batch:
            if not verified.outside:
                target = self.folder / "out" / verified.job.id
                verified.path.rename(target)
                self.contents[verified.job.file.path] = target.read_bytes()
            self.published[verified.job.file.path] = verified

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events if event.kind != "progress"]

    def left_over(self) -> list[str]:
        return sorted(path.name for path in self.partials.iterdir())


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def bench(tmp_path: Path, site: Site) -> Iterator[Bench]:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "out").mkdir()
    with HttpOrigin("origin", site.handle, log=RequestLog()) as origin:
        yield Bench(folder=tmp_path, origin=origin, site=site)


@pytest.fixture
def pattern() -> Callable[[int], Content]:
    return lambda size: PatternContent(length=size, seed=size % 97)
