from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from attrs import frozen

from nim_core.cli import fetch
from nim_core.cli.app import command
from nim_core.cli.errors import run
from nim_core.cli.session import Session
from nim_core.download import DownloadOptions, DownloadResult, Observer, TargetResult
from nim_core.manifest import Manifest, ManifestFile, Profile, dump_manifest
from nim_core.plan import Plan, Present, Target, Wanted
from nim_core.registry import PluginInfo
from nim_core.settings import Settings
from nim_core.types import Digest, ModelUri, UriStyle
from nim_core.uris import parse_uri

STYLES = {"store": UriStyle.REPOSITORY, "bucket": UriStyle.OBJECT}


@frozen
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.err.splitlines()[-1]


class FakeRegistry:
    """Knows two schemes; brings no plugin."""

    plugins: tuple[PluginInfo, ...] = ()

    def parse_uri(self, text: str) -> ModelUri:
        return parse_uri(text, STYLES)


class FakeDownload:
    """Takes the place of ``download``: remembers what it was asked for, finds two files behind every model URI."""

    def __init__(self) -> None:
        self.targets: tuple[Target, ...] = ()
        self.options: DownloadOptions | None = None
        self.error: BaseException | None = None

    def __call__(
        self,
        targets: tuple[Target, ...],
        options: DownloadOptions,
        _registry: object,
        _settings: object,
        seen: Observer,
    ) -> DownloadResult:
        self.targets, self.options = targets, options
        seen.phase("listing")
        if self.error is not None:
            raise self.error
        seen.planned(Plan())
        seen.phase("fetching")
        results = tuple(self._result(target, options) for target in targets)
        return DownloadResult(targets=results, plan=Plan(), bytes_fetched=2_000_000, seconds=0.5)

    def _result(self, target: Target, options: DownloadOptions) -> TargetResult:
        files = target.files or tuple(
            Wanted(path=name, uri=parse_uri(f"{target.uri}:v1?file={name}", STYLES)) for name in ("a.json", "b.bin")
        )
        filled = Target(id=target.id, label=target.label, files=files, uri=target.uri)
        return TargetResult(
            target=filled,
            receipt=options.cache_path / "receipts" / f"{target.id}.json",
            files=len(files),
            fetched=len(files),
            present={file.path: self._present(file) for file in files},
        )

    def _present(self, file: Wanted) -> Present:
        digest = Digest("sha256", hashlib.sha256(file.path.encode()).hexdigest())
        return Present(identity=file.uri, blob=Path("/blob"), link=None, size=1, mtime_ns=0, digests=(digest,))


Cli = Callable[..., Ended]


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> FakeDownload:
    """The download behind the commands, which fetches nothing."""
    fake = FakeDownload()
    monkeypatch.setattr(fetch, "download", fake)
    monkeypatch.setattr(Session, "load_registry", lambda _session: FakeRegistry())
    return fake


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """Run one of the commands in this process."""

    def call(*arguments: str, name: str | None = None, environ: Mapping[str, str] | None = None) -> Ended:
        settings = Settings({"NIM_CACHE_PATH": str(tmp_path / "cache")} | dict(environ or {}))
        code = run(command(name), arguments, name or "nim-llm", Session(settings))
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return call


def profile(digit: str, **tags: str) -> Profile:
    """Return a profile whose id is 64 times ``digit``."""
    files = (ManifestFile(path="config.json", uri=f"store://org/model:{digit}?file=config.json"),)
    return Profile(id=digit * 64, tags=tags, files=files)


@pytest.fixture
def manifest_file(tmp_path: Path) -> Path:
    """A manifest of three profiles, one of them for LoRA adapters."""
    profiles = (
        profile("a", llm_engine="vllm", precision="bf16", tp="1", pp="1"),
        profile("b", llm_engine="vllm", precision="fp8", tp="2", pp="1"),
        profile("c", llm_engine="vllm", precision="bf16", tp="1", pp="1", feat_lora="true"),
    )
    path = tmp_path / "model_manifest.yaml"
    dump_manifest(Manifest(schema_version="2.0.0", profiles=profiles), path)
    return path
