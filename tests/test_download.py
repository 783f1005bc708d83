"""From targets to receipts, with a source that a test fills and the rest as in production."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from attrs import define, evolve, field

from nim_core import rechecking
from nim_core.cache.index import ReceiptIndex
from nim_core.cache.layout import Layout
from nim_core.cache.lease import lease
from nim_core.cache.receipts import read_receipt, receipt_path
from nim_core.download import DownloadOptions, download, plan_download
from nim_core.errors import (
    CacheIncompleteError,
    CachePermissionError,
    ConfigError,
    DigestMismatchError,
    DiskFullError,
    NimError,
    NotFoundError,
    PermissionDeniedError,
    SourceError,
)
from nim_core.plan import Target, Wanted
from nim_core.planning import CredentialUse, HostUse, SourceUse
from nim_core.registry import Registry
from nim_core.registry.info import PluginInfo
from nim_core.registry.loading import make_manager
from nim_core.settings import Settings
from nim_core.testing.certificates import make_certificates
from nim_core.testing.corpus import Content, Corpus, PatternContent, inline, sample_corpus
from nim_core.testing.http_server import HttpOrigin, RequestLog, Response
from nim_core.testing.ranged import serve_content, strong_etag
from nim_core.transfer.engine import Engine
from nim_core.transfer.jobs import file_record
from nim_core.transfer.journal import PartRecord, open_partial
from nim_core.types import (
    BasicPair,
    CacheKey,
    Digest,
    HttpObject,
    Listing,
    LocalObject,
    RemoteFile,
    SourceSpec,
    StreamObject,
    UriStyle,
)

SCHEMES = {"repo": UriStyle.REPOSITORY, "obj": UriStyle.OBJECT, "dir": UriStyle.PATH}
SAMPLE = sample_corpus().files
NAMES = ("config.json", "empty.txt", "model-00001-of-00002.safetensors", "données/日本語 ü.txt")
CORPUS = Corpus(files={name: SAMPLE[name] for name in NAMES})
BIG = PatternContent(length=(1 << 20) + 17)


@define(eq=False)
class World:
    """
    What sources have, and how they give it.

    Attributes:
        files: Contents by location and path.
        pinned: Revision of every listing. None: names may get another content.
        digests: Algorithms that listings give.
        sizes: Whether listings give sizes.
        give: How ``locate`` answers: ``http``, ``stream`` or ``local``.
        folder: Where files are for ``local``.
        origin: Where they are for ``http``.
        listed: URIs that were listed.
        located: Files that were located.
        opened: How many sources were made.
        passwords: Of the URIs that were located; None for one without.
    """

    folder: Path
    origin: HttpOrigin | None = None
    files: dict[str, dict[str, Content]] = field(factory=dict)
    pinned: str | None = "0123abc"
    digests: tuple[str, ...] = ("sha256",)
    sizes: bool = True
    give: str = "stream"
    listed: list[str] = field(factory=list)
    located: list[str] = field(factory=list)
    opened: int = 0
    passwords: list[str | None] = field(factory=list)
    lock: threading.Lock = field(factory=threading.Lock)

    def remote(self, path: str, content: Content) -> RemoteFile:
        digests = tuple(content.digest(algorithm) for algorithm in self.digests)
        return RemoteFile(path=path, size=content.size if self.sizes else None, digests=digests)

    def forget(self) -> None:
        self.listed.clear()
        self.located.clear()
        self.passwords.clear()
        self.opened = 0

    def handle(self, request):
        _, location, path = request.path.split("|")
        content = self.files[location][path]
        return "file", serve_content(request, content, etag=strong_etag(content))


class WorldSource:
    """The source of all schemes."""

    def __init__(self, world):
        self.world = world
        world.opened += 1

    def list_files(self, uri):
        with self.world.lock:
            self.world.listed.append(str(uri))
        location = plain(uri)
        if location not in self.world.files:
            raise NotFoundError(f"no such place: {uri.display}")
        files = self.world.files[location]
        return Listing(
            uri=uri,
            files=tuple(self.world.remote(path, content) for path, content in files.items()),
            pinned=self.world.pinned,
        )

    def locate(self, uri, file):
        location = plain(uri)
        with self.world.lock:
            self.world.located.append(file.path)
            userinfo, at, _ = uri.location.partition("/")[0].rpartition("@")
            self.world.passwords.append(userinfo.partition(":")[2] if at else None)
        content = self.world.files[location][file.path]
        if self.world.give == "http":
            pair = BasicPair(username="u", password="hunter2", origin="test")
            url = f"{self.world.origin.url}/|{location}|{file.path}".replace(" ", "%20").replace("#", "%23")
            return HttpObject(url=ascii_url(url), headers={"X-Secret": pair.password})
        if self.world.give == "local" or uri.style is UriStyle.PATH:
            return LocalObject(path=self.world.folder / file.path)
        return StreamObject(open=lambda: io.BytesIO(content.data()))

    def close(self):
        pass


class PlacingSource(WorldSource):
    """The same with an opinion on where files live: one place for every object, told apart by nothing."""

    def cache_key(self, uri, pinned):
        return CacheKey(root="placed/hub", repo="models--placed", snapshot=pinned or "current")


def ascii_url(url):
    return "".join(char if char.isascii() else "".join(f"%{byte:02X}" for byte in char.encode()) for char in url)


def plain(uri):
    """Return the location of a URI without userinfo."""
    host, slash, rest = uri.location.partition("/")
    return host.rpartition("@")[2] + slash + rest


class Listener:
    """An observer that remembers."""

    def __init__(self):
        self.phases = []
        self.plans = []
        self.events = []
        self.damages = []

    def phase(self, name):
        self.phases.append(name)

    def planned(self, plan):
        self.plans.append(plan)

    def event(self, event):
        self.events.append(event)

    def damaged(self, path, reason):
        self.damages.append((path, reason))


def make_registry(world, source=WorldSource):
    def spec(scheme, style):
        return SourceSpec(
            name=scheme, schemes=(scheme,), uri_style=style, summary="", factory=lambda _context: source(world)
        )

    plugin = PluginInfo(
        name="world",
        distribution="nim-source-world",
        version="1.0",
        sources=tuple(spec(scheme, style) for scheme, style in SCHEMES.items()),
    )
    return Registry(Settings({}), (plugin,), make_manager())


@define(eq=False)
class Bench:
    """A world, a cache, and the way from one to the other."""

    world: World
    cache: Path
    registry: Registry
    environ: dict[str, str]
    listener: Listener = field(factory=Listener)

    @property
    def layout(self):
        return Layout(self.cache)

    def target(self, uri, target_id="t1"):
        parsed = self.registry.parse_uri(uri)
        return Target(id=target_id, label=parsed.display, uri=parsed)

    def profile(self, *uris, target_id="p1", digest=None):
        """Return a profile of a manifest; the files' digests come from ``digest``, by URI."""
        promise = digest or (lambda _uri: None)
        files = tuple(
            Wanted(path=re.split("[=/]", uri)[-1], uri=self.registry.parse_uri(uri), digest=promise(uri))
            for uri in uris
        )
        return Target(id=target_id, label=target_id, files=files)

    def run(self, *targets, **options):
        self.world.forget()
        self.listener = Listener()
        chosen = DownloadOptions(cache_path=self.cache, **options)
        settings = Settings(self.environ)
        return download(targets, chosen, self.registry, settings, self.listener)

    def receipt(self, target_id="t1"):
        return read_receipt(receipt_path(self.layout, target_id))

    def names(self):
        found = (path for path in self.cache.rglob("*") if path.is_symlink() or path.is_file())
        return sorted(path.relative_to(self.cache).as_posix() for path in found)


@pytest.fixture
def world(tmp_path):
    world = World(folder=tmp_path / "models")
    world.files["org/name"] = dict(CORPUS.files)
    with HttpOrigin("world", world.handle, log=RequestLog()) as origin:
        world.origin = origin
        yield world


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """An authority to trust: reading all of the system's takes longer than most of these downloads."""
    return make_certificates(tmp_path_factory.mktemp("authority")).ca


@pytest.fixture
def bench(world, tmp_path, authority):
    environ = {
        "NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "1",
        "NIM_SDK_DOWNLOAD_BACKOFF_INTERVAL_MS": "1",
        "SSL_CERT_FILE": str(authority),
    }
    return Bench(world=world, cache=tmp_path / "cache", registry=make_registry(world), environ=environ)


REPO = "repo://org/name:main"


class TestModel:
    @pytest.mark.parametrize("give", ["http", "stream"])
    @pytest.mark.parametrize("sizes", [True, False])
    def test_all_files_arrive(self, bench, world, give, sizes):
        world.give, world.sizes = give, sizes
        result = bench.run(bench.target(REPO))
        (item,) = result.targets
        assert CORPUS.differences(bench.cache / "repo/hub/models--org--name/snapshots/0123abc") == []
        assert (bench.cache / "repo/hub/models--org--name/refs/main").read_text() == "0123abc"
        assert (item.files, item.fetched) == (len(CORPUS.files), len(CORPUS.files))
        assert result.bytes_fetched == CORPUS.size
        assert item.present.keys() == CORPUS.files.keys()
        assert [path.name for path in (bench.cache / "tmp").iterdir()] == []

    def test_the_receipt(self, bench, world):
        world.give = "http"
        (item,) = bench.run(bench.target(REPO)).targets
        receipt = bench.receipt()
        assert item.receipt == receipt_path(bench.layout, "t1")
        assert (receipt.label, receipt.plugins) == (REPO, {"nim-source-world": "1.0"})
        (file,) = [file for file in receipt.files if file.path == "config.json"]
        content = CORPUS.files["config.json"]
        assert file.uri == f"{REPO}?file=config.json"
        assert file.blob == f"repo/hub/models--org--name/blobs/{content.digest('blake3').value}"
        assert file.link == "repo/hub/models--org--name/snapshots/0123abc/config.json"
        assert (file.size, file.host) == (content.size, "127.0.0.1")
        assert file.digests == (content.digest("blake3"), content.digest("sha256"))
        assert file.mtime_ns == (bench.cache / file.blob).stat().st_mtime_ns

    def test_what_the_observer_hears(self, bench):
        bench.run(bench.target(REPO))
        assert bench.listener.phases == ["listing", "verifying", "fetching", "finishing"]
        (plan,) = bench.listener.plans
        assert (plan.bytes_to_fetch, len(plan.fetches)) == (CORPUS.size, len(CORPUS.files))
        published = [event.file for event in bench.listener.events if event.kind == "published"]
        assert sorted(published) == sorted(CORPUS.files)

    def test_nothing_to_do(self, bench):
        assert bench.run().targets == ()

    def test_one_file(self, bench):
        (item,) = bench.run(bench.target(f"{REPO}?file=config.json")).targets
        assert list(item.present) == ["config.json"]

    def test_the_environment_s_retries_are_obeyed(self, bench, world):
        world.give = "http"
        bench.environ |= {"NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "2"}
        world.origin.handler = lambda _request: ("failed", Response(status=500))
        with pytest.raises(SourceError, match="HTTP 500"):
            bench.run(bench.profile(f"{REPO}?file=config.json"))
        assert len(world.origin.log) == 3


def damage(path):
    """Change a byte as a disk does: neither size nor time of last change show it."""
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


class TestLeftovers:
    def test_those_of_files_that_are_here_now_are_removed(self, bench, world):
        world.files["org/name"]["config.json"] = BIG
        left = leave_partials(bench, world)
        other = open_partial(bench.cache / "tmp", "0" * 32)
        other.close()
        world.give = "stream"
        assert len(left) == 1
        bench.run(bench.target(REPO))
        assert [path.name for path in (bench.cache / "tmp").iterdir()] == [other.folder.name]

    def test_also_when_all_was_here(self, bench, world):
        world.files["org/name"]["config.json"] = BIG
        left = leave_partials(bench, world)
        kept = [path.rename(bench.cache / f"{path.name}-kept") for path in left]
        bench.run(bench.target(REPO))
        for path in kept:
            path.rename(bench.cache / "tmp" / path.name.removesuffix("-kept"))
        bench.run(bench.target(REPO))
        assert list((bench.cache / "tmp").iterdir()) == []


def leave_partials(bench, world):
    """Have a download of a large file fail, and return what it left."""
    world.give = "http"
    handler = world.origin.handler
    world.origin.handler = lambda _request: ("failed", Response(status=500))
    with pytest.raises(NimError):
        bench.run(bench.target(REPO))
    world.origin.handler = handler
    return sorted((bench.cache / "tmp").iterdir())


class TestRecheck:
    @pytest.fixture
    def filled(self, bench):
        bench.run(bench.target(REPO))
        return bench.cache / "repo/hub/models--org--name/snapshots/0123abc"

    def test_all_is_right_and_nobody_is_asked(self, bench, world, filled):
        (bench.cache / "tmp").rmdir()
        result = bench.run(bench.target(REPO), recheck=True)
        assert (world.opened, result.damaged, bench.listener.damages) == (0, (), [])
        assert (result.targets[0].files, result.targets[0].fetched) == (len(CORPUS.files), 0)
        assert not (bench.cache / "tmp").exists()

    def test_what_is_damaged_and_no_more_is_fetched_again(self, bench, world, filled):
        damage(filled / "config.json")
        assert bench.run(bench.target(REPO), use_cache=True).targets[0].fetched == 0
        result = bench.run(bench.target(REPO), recheck=True)
        assert world.located == ["config.json"]
        assert result.damaged == ("config.json",)
        ((path, reason),) = bench.listener.damages
        digest = CORPUS.files["config.json"].digest("blake3")
        assert path == "config.json"
        assert re.fullmatch(rf"got blake3:[0-9a-f]{{64}}, expected {digest}", reason)
        assert CORPUS.differences(filled) == []
        assert bench.run(bench.target(REPO), recheck=True).damaged == ()

    @pytest.mark.parametrize("change", [lambda path: os.truncate(path, 3), lambda path: path.write_bytes(b"")])
    def test_another_size(self, bench, world, filled, change):
        change(filled / "config.json")
        assert bench.run(bench.target(REPO), recheck=True).damaged == ("config.json",)
        assert world.located == ["config.json"]
        assert CORPUS.differences(filled) == []

    @pytest.mark.parametrize("name", ["snapshot", "blob"])
    def test_what_is_missing_is_fetched_and_is_not_damage(self, bench, world, filled, name):
        path = filled / "config.json"
        (path if name == "snapshot" else path.resolve()).unlink()
        assert bench.run(bench.target(REPO), recheck=True).damaged == ()
        assert world.located == ([] if name == "snapshot" else ["config.json"])
        assert CORPUS.differences(filled) == []

    def test_a_copy_in_the_snapshot_is_read_too(self, bench, world, filled):
        path = filled / "config.json"
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
        damage(path)
        assert bench.run(bench.target(REPO), recheck=True).damaged == ("config.json",)
        assert CORPUS.differences(filled) == []

    def test_a_file_in_several_profiles_is_read_and_told_once(self, bench, world):
        names = [f"{REPO}?file=config.json", f"{REPO}?file=empty.txt"]
        profiles = bench.profile(*names, target_id="p1"), bench.profile(*names, target_id="p2")
        bench.run(*profiles)
        damage(bench.cache / "repo/hub/models--org--name/snapshots/0123abc/config.json")
        result = bench.run(*profiles, recheck=True)
        assert result.damaged == ("config.json",)
        assert world.located == ["config.json"]
        assert [item.fetched for item in result.targets] == [1, 1]

    def test_a_profile_that_promises_another_content_gets_it(self, bench, world):
        bench.run(bench.profile(f"{REPO}?file=config.json"))
        world.files["org/name"]["config.json"] = BIG
        promised = bench.profile(f"{REPO}?file=config.json", digest=lambda _uri: BIG.digest("blake3"))
        assert bench.run(promised, recheck=True).damaged == ()
        assert world.located == ["config.json"]

    def test_without_the_source_they_are_listed(self, bench, world, filled):
        for name in ("config.json", "données/日本語 ü.txt"):
            damage(filled / name)
        del world.files["org/name"]
        with pytest.raises(DigestMismatchError) as caught:
            bench.run(bench.target(REPO), recheck=True)
        first, *lines = caught.value.message.splitlines()
        assert first == f"2 damaged files in the cache, not fetched again: no such place: {REPO}"
        assert sorted(line.partition(":")[0] for line in lines) == ["  config.json", "  données/日本語 ü.txt"]
        assert isinstance(caught.value.__cause__, NotFoundError)
        assert not (filled / "config.json").exists()

    def test_without_the_source_what_is_only_missing_is_the_source_s_error(self, bench, world, filled):
        (filled / "config.json").resolve().unlink()
        del world.files["org/name"]
        with pytest.raises(NotFoundError):
            bench.run(bench.target(REPO), recheck=True)

    def test_in_a_cache_that_cannot_be_written_they_are_listed(self, bench, world, filled, monkeypatch):
        damage(filled / "config.json")

        def refuse(path, missing_ok=False):
            raise OSError(errno.EROFS, "Read-only file system", str(path))

        monkeypatch.setattr(Path, "unlink", refuse)
        with pytest.raises(DigestMismatchError, match="1 damaged file in the cache, cannot be removed: read-only file"):
            bench.run(bench.target(REPO), recheck=True)
        assert world.opened == 0

    def test_a_disk_that_cannot_read_a_file(self, bench, world, filled, monkeypatch):
        bad, opened = (filled / "config.json").stat().st_ino, Path.open

        def fail(path, *arguments, **options):
            if path.exists() and path.stat().st_ino == bad:
                raise OSError(errno.EIO, "Input/output error", str(path))
            return opened(path, *arguments, **options)

        monkeypatch.setattr(Path, "open", fail)
        assert bench.run(bench.target(REPO), recheck=True).damaged == ("config.json",)
        assert bench.listener.damages == [("config.json", "cannot be read: input/output error")]
        assert world.located == ["config.json"]

    def test_what_another_process_has_replaced_meanwhile_stays(self, bench, filled):
        path = filled / "config.json"
        damage(path)
        found = rechecking.recheck(
            [bench.profile(f"{REPO}?file=config.json", target_id="t1")], ReceiptIndex(bench.layout), bench.layout
        )
        assert len(found.damaged) == 1
        right = path.resolve().with_name("right")
        right.write_bytes(CORPUS.files["config.json"].data())
        right.rename(path.resolve())
        rechecking.remove_from_view(found.damaged)
        assert path.read_bytes() == CORPUS.files["config.json"].data()

    def test_files_that_are_used_from_where_they_are(self, bench, world):
        world.give = "local"
        world.folder.mkdir()
        for name in ("config.json", "empty.txt"):
            (world.folder / name).write_bytes(CORPUS.files[name].data())
        world.files = {str(world.folder): {name: CORPUS.files[name] for name in ("config.json", "empty.txt")}}
        world.digests = ()
        target = bench.target(f"dir://{world.folder}")
        bench.run(target)
        (world.folder / "config.json").write_bytes(b"mine to change")
        result = bench.run(target, recheck=True)
        assert result.damaged == ()
        assert (world.folder / "config.json").read_bytes() == b"mine to change"


class TestDisabled:
    """NIM_DISABLE_MODEL_DOWNLOAD is set."""

    @pytest.fixture
    def disabled(self, bench):
        bench.run(bench.target(REPO))
        bench.environ["NIM_DISABLE_MODEL_DOWNLOAD"] = "true"
        return bench

    def test_a_complete_cache_is_enough_and_nobody_is_asked(self, disabled, world):
        result = disabled.run(disabled.target(REPO))
        assert (result.targets[0].fetched, world.opened) == (0, 0)

    def test_what_is_missing_is_listed_and_nobody_is_asked(self, disabled, world):
        blob = disabled.cache / "repo/hub/models--org--name/snapshots/0123abc/config.json"
        blob.resolve().unlink()
        with pytest.raises(CacheIncompleteError) as caught:
            disabled.run(disabled.target(REPO))
        diagnosis, *listed = str(caught.value).splitlines()
        assert diagnosis == (
            f"NIM_DISABLE_MODEL_DOWNLOAD is set, and 1 file cannot be found in the cache {disabled.cache}"
        )
        assert listed == ["  repo://org/name:main?file=config.json"]
        assert world.opened == 0

    def test_a_model_that_was_never_downloaded(self, disabled, world):
        with pytest.raises(
            CacheIncompleteError, match=r"(?s)and the model cannot.*\n  repo://org/other: not downloaded"
        ):
            disabled.run(disabled.target("repo://org/other", "t2"))
        assert world.opened == 0

    def test_of_very_many_some_are_listed(self, disabled):
        profile = disabled.profile(*(f"repo://org/name:main?file=f{number}" for number in range(150)))
        with pytest.raises(CacheIncompleteError) as caught:
            disabled.run(profile)
        assert len(str(caught.value).splitlines()) == 102
        assert str(caught.value).splitlines()[-1] == "  and 50 more"

    def test_files_of_this_machine_need_no_download(self, disabled, world):
        world.folder.mkdir()
        (world.folder / "config.json").write_bytes(b"{}")
        world.files = {str(world.folder): {"config.json": inline("{}")}}
        assert disabled.run(disabled.target(f"dir://{world.folder}", "t2")).targets[0].files == 1

    def test_damaged_files_are_listed_and_stay(self, disabled, world):
        blob = (disabled.cache / "repo/hub/models--org--name/snapshots/0123abc/config.json").resolve()
        blob.write_bytes(b"x" * blob.stat().st_size)
        with pytest.raises(DigestMismatchError, match="1 damaged file in the cache, and NIM_DISABLE_MODEL_DOWNLOAD is"):
            disabled.run(disabled.target(REPO), recheck=True)
        assert blob.exists()
        assert world.opened == 0

    def test_to_force_a_download_is_a_contradiction(self, disabled):
        with pytest.raises(ConfigError, match="NIM_DISABLE_MODEL_DOWNLOAD is set"):
            disabled.run(disabled.target(REPO), force=True)


class TestAgain:
    def test_without_use_cache_the_source_is_asked_and_everything_is_read(self, bench, world):
        bench.run(bench.target(REPO))
        (item,) = bench.run(bench.target(REPO)).targets
        assert (item.fetched, world.located) == (0, [])
        assert world.listed == [REPO]

    def test_with_use_cache_nobody_is_asked(self, bench, world):
        bench.run(bench.target(REPO))
        result = bench.run(bench.target(REPO), use_cache=True)
        assert (world.opened, world.listed, world.located) == (0, [], [])
        assert (result.targets[0].files, result.targets[0].fetched) == (len(CORPUS.files), 0)
        assert result.plan.bytes_present == CORPUS.size

    def test_an_unchanged_receipt_is_not_written_again(self, bench):
        before = bench.run(bench.target(REPO)).targets[0].receipt.stat()
        for use_cache in (True, False):
            after = bench.run(bench.target(REPO), use_cache=use_cache).targets[0].receipt.stat()
            assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    def test_force(self, bench, world):
        bench.run(bench.target(REPO))
        (item,) = bench.run(bench.target(REPO), force=True, use_cache=True).targets
        assert item.fetched == len(CORPUS.files)
        assert bench.receipt().files[0].mtime_ns == (bench.cache / bench.receipt().files[0].blob).stat().st_mtime_ns

    def test_only_what_is_gone_is_fetched(self, bench, world):
        bench.run(bench.target(REPO))
        (bench.cache / bench.receipt().files[0].blob).unlink()
        (item,) = bench.run(bench.target(REPO), use_cache=True).targets
        assert (item.fetched, world.located) == (1, [bench.receipt().files[0].path])

    def test_only_what_is_damaged_is_fetched(self, bench, world):
        bench.run(bench.target(REPO))
        link = bench.cache / "repo/hub/models--org--name/snapshots/0123abc/config.json"
        times = link.stat()
        link.resolve().write_bytes(bytes(times.st_size))
        os.utime(link, ns=(times.st_atime_ns, times.st_mtime_ns))
        bench.run(bench.target(REPO))
        assert world.located == ["config.json"]
        assert CORPUS.differences(link.parent) == []

    def test_a_link_that_is_gone_is_made_again_without_fetching(self, bench, world):
        bench.run(bench.target(REPO))
        link = bench.cache / "repo/hub/models--org--name/snapshots/0123abc/config.json"
        link.unlink()
        bench.run(bench.target(REPO))
        assert world.located == []
        assert link.read_bytes() == CORPUS.files["config.json"].data()

    def test_another_revision_shares_what_is_equal(self, bench, world):
        bench.run(bench.target(REPO))
        world.pinned = "4567def"
        world.files["org/name"] = {**CORPUS.files, "config.json": inline(b"{}")}
        bench.run(bench.target(REPO))
        assert world.located == ["config.json"]
        assert (bench.cache / "repo/hub/models--org--name/refs/main").read_text() == "4567def"

    @pytest.mark.parametrize("how", ["moved", "copied", "copied without links", "behind a link"])
    def test_a_cache_that_is_elsewhere_now(self, bench, world, tmp_path, how):
        bench.run(bench.target(REPO))
        elsewhere = tmp_path / "elsewhere"
        if how == "moved":
            bench.cache.rename(elsewhere)
        elif how == "behind a link":
            elsewhere.symlink_to(bench.cache)
        else:
            shutil.copytree(bench.cache, elsewhere, symlinks=how == "copied", copy_function=shutil.copyfile)
            shutil.rmtree(bench.cache)
        bench.cache = elsewhere
        (item,) = bench.run(bench.target(REPO), use_cache=True).targets
        assert (world.opened, item.fetched) == (0, 0)
        bench.run(bench.target(REPO))
        assert world.located == []
        assert CORPUS.differences(elsewhere / "repo/hub/models--org--name/snapshots/0123abc") == []
        assert not any(Path(file.blob).is_absolute() for file in bench.receipt().files)

    def test_a_damaged_receipt_is_no_receipt(self, bench, world):
        bench.run(bench.target(REPO))
        path = receipt_path(bench.layout, "t1")
        value = json.loads(path.read_text())
        value["files"][0]["uri"] = "no uri at all"
        path.write_text(json.dumps(value))
        (item,) = bench.run(bench.target(REPO), use_cache=True).targets
        assert (world.listed, item.fetched) == ([REPO], 0)

    def test_equal_files_keep_one_time(self, bench, world):
        """The blob is replaced when the second one comes; receipts must still know it afterwards."""
        world.files["org/name"] = {f"{number}/same.txt": inline(b"same") for number in range(40)}
        bench.run(bench.target(REPO))
        bench.run(bench.target(REPO), use_cache=True)
        assert world.opened == 0
        assert len([name for name in bench.names() if "/blobs/" in name]) == 1


class TestUnpinned:
    @pytest.fixture
    def bare(self, bench, world):
        """A source that gives neither a revision nor digests."""
        world.pinned, world.digests = None, ()
        return bench

    def test_what_nobody_vouches_for_is_fetched_again(self, bare, world):
        bare.run(bare.target(REPO))
        (item,) = bare.run(bare.target(REPO)).targets
        assert item.fetched == len(CORPUS.files)

    def test_but_not_with_use_cache(self, bare, world):
        bare.run(bare.target(REPO))
        bare.run(bare.target(REPO), use_cache=True)
        assert world.opened == 0

    def test_a_digest_is_enough(self, bare, world):
        world.digests = ("md5",)
        bare.run(bare.target(REPO))
        bare.run(bare.target(REPO))
        assert world.located == []

    def test_a_pinned_name_is_enough(self, bare, world):
        world.pinned = "0123abc"
        bare.run(bare.target(REPO))
        bare.run(bare.target(REPO))
        assert world.located == []

    def test_a_new_content_takes_the_place_of_the_old_one(self, bare, world):
        bare.run(bare.target(REPO))
        world.files["org/name"] = {**CORPUS.files, "config.json": inline(b"new")}
        bare.run(bare.target(REPO))
        link = bare.cache / "repo/hub/models--org--name/snapshots/main/config.json"
        assert link.read_bytes() == b"new"


class TestProfiles:
    URI = f"{REPO}?file=config.json"
    CONTENT = CORPUS.files["config.json"]

    def test_the_same_file_of_two_targets_is_fetched_once(self, bench, world):
        targets = [bench.profile(self.URI, target_id=target_id) for target_id in ("p1", "p2")]
        result = bench.run(*targets, bench.target(self.URI))
        assert world.located == ["config.json"]
        assert [item.files for item in result.targets] == [1, 1, 1]
        assert len({bench.receipt(target_id).files for target_id in ("p1", "p2", "t1")}) == 1

    @pytest.mark.parametrize("algorithm", ["blake3", "sha256", "md5", "sha1-git", "sha1", "crc32c", "crc32"])
    @pytest.mark.parametrize("listed", [(), ("sha256",)])
    def test_what_a_manifest_promises_is_checked_and_remembered(self, bench, world, algorithm, listed):
        """Also where the source lists something stronger: only the manifest knows what was wanted."""
        world.digests, world.pinned = listed, None
        right = self.CONTENT.digest(algorithm)
        bench.run(bench.profile(self.URI, digest=lambda _uri: right))
        assert right in bench.receipt("p1").files[0].digests
        bench.run(bench.profile(self.URI, digest=lambda _uri: right), use_cache=True)
        assert world.opened == 0
        wrong = Digest(algorithm, "0" * len(right.value))
        with pytest.raises(DigestMismatchError):
            bench.run(bench.profile(self.URI, target_id="p2", digest=lambda _uri: wrong), use_cache=True)
        assert bench.receipt("p2") is None

    def test_a_wrong_content_is_never_visible(self, bench, world):
        world.digests = ()
        with pytest.raises(DigestMismatchError):
            bench.run(bench.profile(self.URI, digest=lambda _uri: Digest("sha256", "0" * 64)))
        assert [name for name in bench.names() if not name.startswith("tmp/")] == []

    def test_a_listing_that_contradicts_the_manifest_costs_no_byte(self, bench, world):
        with pytest.raises(DigestMismatchError, match="source lists"):
            bench.run(bench.profile(self.URI, digest=lambda _uri: Digest("sha256", "0" * 64)))
        assert world.located == []

    @pytest.mark.parametrize("order", [1, -1])
    def test_a_promise_of_one_profile_counts_for_all(self, bench, world, order):
        world.digests, world.pinned = (), None
        promised = bench.profile(self.URI, target_id="a", digest=lambda _uri: Digest("sha256", "0" * 64))
        careless = bench.profile(self.URI, target_id="b")
        with pytest.raises(DigestMismatchError):
            bench.run(*[promised, careless][::order])
        assert bench.receipt("a") is bench.receipt("b") is None

    @pytest.mark.parametrize("use_cache", [False, True])
    def test_promises_that_contradict_each_other(self, bench, world, use_cache):
        world.digests, world.pinned = (), None
        good = bench.profile(self.URI, target_id="a", digest=lambda _uri: self.CONTENT.digest("sha256"))
        bad = bench.profile(self.URI, target_id="b", digest=lambda _uri: Digest("sha256", "0" * 64))
        bench.run(good)
        with pytest.raises(DigestMismatchError):
            bench.run(good, bad, use_cache=use_cache)

    def test_promises_that_do_not_count(self, bench, world):
        wrong = bench.profile(self.URI, digest=lambda _uri: Digest("sha256", "0" * 64))
        bench.run(wrong, verify=False)
        bench.run(wrong, verify=False, use_cache=True)
        assert world.opened == 0
        with pytest.raises(DigestMismatchError):
            bench.run(wrong, use_cache=True)

    def test_without_verification_nothing_cached_is_read(self, bench, world):
        bench.run(bench.profile(self.URI))
        blob = bench.cache / bench.receipt("p1").files[0].blob
        blob.write_bytes(bytes(self.CONTENT.size))
        bench.run(bench.profile(self.URI), verify=False)
        assert world.located == []
        bench.run(bench.profile(self.URI))
        assert world.located == ["config.json"]

    def test_a_file_that_is_not_listed(self, bench):
        with pytest.raises(NotFoundError) as caught:
            bench.run(bench.profile(f"{REPO}?file=confg.json"))
        assert "config.json" in caught.value.hint
        assert caught.value.exit_code == 31

    def test_what_was_verified_before_an_error_stays(self, bench, world, monkeypatch):
        locate = WorldSource.locate

        def refuse_weights(self, uri, file):
            if "model-" in file.path:
                raise PermissionDeniedError("gated", hint="ask")
            return locate(self, uri, file)

        with monkeypatch.context() as patched:
            patched.setattr(WorldSource, "locate", refuse_weights)
            with pytest.raises(PermissionDeniedError, match="gated"):
                bench.run(bench.target(REPO))
        assert bench.receipt() is None
        there = [name for name in bench.names() if "/blobs/" in name]
        bench.run(bench.target(REPO))
        assert len(world.located) == len(CORPUS.files) - len(there)


class TestObjects:
    @pytest.fixture
    def bucket(self, bench, world):
        """A prefix with two files of one name in two folders; every object is listed by its own name too."""
        world.pinned = None
        world.files["b/m"] = {"config.json": inline(b"one"), "sub/config.json": inline(b"two"), "w.bin": BIG}
        for path, content in world.files["b/m"].items():
            world.files[f"b/m/{path}"] = {path.rpartition("/")[2]: content}
        return bench

    def test_a_prefix(self, bucket):
        (item,) = bucket.run(bucket.target("obj://b/m")).targets
        contents = {path: present.link.read_bytes() for path, present in item.present.items()}
        assert contents == {"config.json": b"one", "sub/config.json": b"two", "w.bin": BIG.data()}
        assert sorted(file.uri for file in bucket.receipt().files) == [
            "obj://b/m/config.json",
            "obj://b/m/sub/config.json",
            "obj://b/m/w.bin",
        ]

    def test_a_prefix_again(self, bucket, world):
        bucket.run(bucket.target("obj://b/m"))
        bucket.run(bucket.target("obj://b/m"), use_cache=True)
        assert world.opened == 0
        (item,) = bucket.run(bucket.target("obj://b/m")).targets
        assert item.fetched == 0

    def test_userinfo_is_in_no_file_of_the_cache(self, bucket, world):
        world.files["b/m/w.bin"] = {"w.bin": BIG}
        bucket.run(bucket.target("obj://user:hunter2@b/m/w.bin"), bucket.target("obj://user:hunter2@b/m", "t2"))
        assert bucket.receipt().files[0].uri == "obj://b/m/w.bin"
        for path in bucket.cache.rglob("*"):
            assert "hunter2" not in str(path)
            assert not path.is_file() or b"hunter2" not in path.read_bytes()
        assert "hunter2" not in repr(bucket.listener.events)

    @pytest.mark.parametrize("named", ["obj://user:hunter2@b/m/w.bin", "obj://user:hunter2@b/m"])
    def test_userinfo_is_there_when_a_file_is_fetched_again(self, bucket, world, named):
        bucket.run(bucket.target(named))
        assert set(world.passwords) == {"hunter2"}
        for path in bucket.cache.rglob("*/blobs/*"):
            path.unlink()
        bucket.run(bucket.target(named), use_cache=True)
        assert set(world.passwords) == {"hunter2"}

    def test_another_password_makes_no_other_file(self, bucket, world):
        targets = [bucket.target(f"obj://u:{secret}@b/m/w.bin", secret) for secret in ("one", "two")]
        result = bucket.run(*targets)
        assert world.located == ["w.bin"]
        assert [list(item.present) for item in result.targets] == [["w.bin"], ["w.bin"]]

    def test_a_signed_url_is_known_again(self, bucket, world):
        named = "obj://b/m/w.bin?X-Amz-Signature=abc&x=1"
        world.files["b/m/w.bin?X-Amz-Signature=abc&x=1"] = {"w.bin": BIG}
        bucket.run(bucket.target(named))
        assert "abc" not in receipt_path(bucket.layout, "t1").read_text().replace(bucket.receipt().files[0].blob, "")
        bucket.run(bucket.target(named), use_cache=True)
        assert world.opened == 0
        (bucket.cache / bucket.receipt().files[0].blob).unlink()
        bucket.run(bucket.target(named), use_cache=True)
        assert world.located == ["w.bin"]


class TestLocal:
    @pytest.fixture
    def models(self, bench, world):
        """The sample model in a folder of this machine."""
        CORPUS.write_to(world.folder)
        world.files[str(world.folder)] = dict(CORPUS.files)
        world.pinned, world.digests = None, ()
        return world.folder

    def test_files_are_used_where_they_are(self, bench, models):
        (item,) = bench.run(bench.target(f"dir://{models}")).targets
        assert (item.files, item.fetched) == (len(CORPUS.files), 0)
        assert item.present["config.json"].blob == models / "config.json"
        assert item.present["config.json"].link is None
        assert [name for name in bench.names() if not name.startswith("receipts/")] == []

    def test_again(self, bench, world, models):
        bench.run(bench.target(f"dir://{models}"))
        bench.run(bench.target(f"dir://{models}"), use_cache=True)
        assert world.opened == 0

    def test_a_file_that_has_changed(self, bench, world, models):
        bench.run(bench.target(f"dir://{models}"))
        world.files[str(models)]["config.json"] = inline(b"changed")
        (models / "config.json").write_bytes(b"changed")
        (item,) = bench.run(bench.target(f"dir://{models}"), use_cache=True).targets
        assert world.listed == [f"dir://{models}"]
        assert item.present["config.json"].size == len(b"changed")
        assert {file.path: file.size for file in bench.receipt().files}["config.json"] == len(b"changed")

    def test_a_changed_file_that_a_manifest_promises(self, bench, world, models):
        target = bench.profile(
            f"dir://{models}?file=config.json", digest=lambda _uri: CORPUS.files["config.json"].digest("sha256")
        )
        bench.run(target)
        before = bench.receipt("p1")
        (models / "config.json").write_bytes(bytes(CORPUS.files["config.json"].size))
        for use_cache in (True, False):
            with pytest.raises(DigestMismatchError):
                bench.run(target, use_cache=use_cache)
        assert bench.receipt("p1") == before
        assert (models / "config.json").exists()

    def test_a_file_that_is_gone(self, bench, world, models):
        bench.run(bench.target(f"dir://{models}"))
        (models / "config.json").unlink()
        with pytest.raises(Exception, match="no such file") as caught:
            bench.run(bench.target(f"dir://{models}"), use_cache=True)
        assert "config.json" in str(caught.value)

    def test_a_source_of_another_kind_may_have_files_here_too(self, bench, world, models):
        world.give, world.digests = "local", ("sha256",)
        (item,) = bench.run(bench.target(REPO)).targets
        assert {path: present.blob for path, present in item.present.items()} == {
            path: models / path for path in CORPUS.files
        }
        for use_cache in (True, False):
            bench.run(bench.target(REPO), use_cache=use_cache)
            assert world.located == []
        assert [name for name in bench.names() if "/blobs/" in name or "/snapshots/" in name] == []

    def test_force_does_not_copy_them(self, bench, models):
        (item,) = bench.run(bench.target(f"dir://{models}"), force=True).targets
        assert item.fetched == 0
        assert item.present["config.json"].blob == models / "config.json"


class TestSeveralAtOnce:
    def test_the_second_takes_what_the_first_has_brought(self, bench, world):
        results = []

        def run():
            options = DownloadOptions(cache_path=bench.cache)
            results.append(
                download((bench.target(REPO),), options, bench.registry, Settings(bench.environ), Listener())
            )

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(result.targets[0].fetched for result in results) == [0, 0, len(CORPUS.files)]
        assert sorted(world.located) == sorted(CORPUS.files)

    def test_what_an_older_receipt_tells_of_is_not_what_was_brought(self, bench, world):
        """Of a name that gets new contents, while somebody else was waited for."""
        world.pinned = None
        bench.run(bench.target(REPO, "old"))
        world.files["org/name"] = {**CORPUS.files, "config.json": inline(b"new")}
        held, done = threading.Event(), threading.Event()

        def hold():
            with lease(bench.layout, ["t1"], lambda _holder: None):
                held.set()
                done.wait(0.7)

        other = threading.Thread(target=hold)
        other.start()
        held.wait(5)
        (item,) = bench.run(bench.target(REPO)).targets
        done.set()
        other.join()
        assert any(phase.startswith("waiting for process") for phase in bench.listener.phases)
        assert item.present["config.json"].blob.read_bytes() == b"new"

    def test_a_lease_that_cannot_be_had_excludes_nobody(self, bench, world):
        (bench.cache / "tmp").mkdir(parents=True)
        (bench.cache / "tmp" / "lease.t1").symlink_to("somewhere")
        (item,) = bench.run(bench.target(REPO)).targets
        assert item.fetched == len(CORPUS.files)
        assert not (bench.cache / "tmp" / "somewhere").exists()


class TestCachesThatCannotBeWritten:
    @pytest.fixture
    def read_only(self, bench):
        """Have the cache's volume read-only, which root obeys too."""
        if os.getuid() != 0:
            pytest.skip("only root can mount")
        mounted = []

        def remount():
            for command in (["mount", "--bind"], ["mount", "-o", "remount,bind,ro"]):
                if subprocess.run([*command, bench.cache, bench.cache], capture_output=True, check=False).returncode:
                    pytest.skip("mounting is not allowed here")
                mounted.append(bench.cache)

        yield remount
        if mounted:
            subprocess.run(["umount", bench.cache], check=True)

    @pytest.mark.parametrize("use_cache", [True, False])
    def test_a_complete_one_works(self, bench, world, read_only, use_cache):
        bench.run(bench.target(REPO))
        read_only()
        (item,) = bench.run(bench.target(REPO), use_cache=use_cache).targets
        assert (item.fetched, world.located) == (0, [])
        assert item.receipt == receipt_path(bench.layout, "t1")

    def test_a_complete_one_whose_receipt_would_change(self, bench, world, read_only):
        bench.run(bench.target(REPO))
        read_only()
        (item,) = bench.run(bench.target(REPO, "another"), use_cache=False).targets
        assert (item.fetched, item.receipt) == (0, None)
        assert len(item.present) == len(CORPUS.files)

    def test_an_incomplete_one_says_so_before_the_first_byte(self, bench, world, read_only):
        bench.run(bench.target(f"{REPO}?file=config.json"))
        read_only()
        with pytest.raises(CachePermissionError, match="read-only file system"):
            bench.run(bench.target(REPO))
        assert world.located == []

    def test_one_that_is_too_small(self, bench, world):
        world.files["org/huge"] = {"w.bin": PatternContent(length=1 << 60)}
        world.digests = ()
        with pytest.raises(DiskFullError, match="not enough space"):
            bench.run(bench.target("repo://org/huge"))
        assert world.located == []


WARM_START = """
import json, sys
from pathlib import Path
from nim_core.download import DownloadOptions, download
from nim_core.plan import Target, Wanted
from nim_core.registry import Registry
from nim_core.registry.info import PluginInfo
from nim_core.registry.loading import make_manager
from nim_core.settings import Settings
from nim_core.types import Digest, SourceSpec, UriStyle

class Silent:
    def phase(self, name): pass
    def planned(self, plan): pass
    def event(self, event): pass

def never(context):
    raise AssertionError("a source was made")

source = SourceSpec(name="repo", schemes=("repo",), uri_style=UriStyle.REPOSITORY, summary="", factory=never)
plugin = PluginInfo(name="world", distribution="nim-source-world", version="1.0", sources=(source,))
registry = Registry(Settings({}), (plugin,), make_manager())
cache, uri, path, digest = sys.argv[1:]
wanted = Wanted(path=path, uri=registry.parse_uri(f"{uri}?file={path}"), digest=Digest.parse(digest))
targets = (Target(id="t1", label="", uri=registry.parse_uri(uri)), Target(id="p1", label="", files=(wanted,)))
options = DownloadOptions(cache_path=Path(cache), use_cache=True)
result = download(targets, options, registry, Settings({}), Silent())
loaded = {name.partition(".")[0] for name in sys.modules}
heavy = {"httpx", "httpcore", "pycurl", "ssl", "h11", "anyio", "blake3"}
print(json.dumps([[item.files, item.fetched] for item in result.targets]), sorted(loaded & heavy))
"""


def test_a_warm_start_loads_nothing_that_talks_to_a_network(bench):
    content = CORPUS.files["config.json"]
    bench.run(
        bench.target(REPO), bench.profile(f"{REPO}?file=config.json", digest=lambda _uri: content.digest("sha256"))
    )
    arguments = [str(bench.cache), REPO, "config.json", str(content.digest("sha256"))]
    command = [sys.executable, "-c", WARM_START, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stderr == ""
    assert ended.stdout == f"[[{len(CORPUS.files)}, 0], [1, 0]] []\n"


class TestPlan:
    """What is planned without being done; that it is what then happens is tested with real commands."""

    def plan(self, bench, *targets, **options):
        chosen = DownloadOptions(cache_path=bench.cache, **options)
        return plan_download(targets, chosen, bench.registry, Settings(bench.environ), Listener())

    def test_what_it_has(self, bench, world):
        world.give = "http"
        planned = self.plan(bench, bench.target(REPO))
        assert [(file.path, file.size, file.state) for file in planned.files] == [
            (path, content.size, "fetch") for path, content in CORPUS.files.items()
        ]
        assert planned.bytes_to_fetch == CORPUS.size
        assert planned.outlook.sources == (SourceUse(scheme="repo", distribution="nim-source-world", version="1.0"),)
        assert planned.outlook.hosts == (HostUse(host=world.origin.url, files=True),)
        (device,) = planned.outlook.devices
        assert (device.needed, device.files, device.error) == (CORPUS.size, len(CORPUS.files), None)
        assert planned.error is None
        assert not bench.cache.exists()

    def test_files_that_several_targets_want_are_there_once(self, bench):
        targets = bench.target(REPO), bench.profile(f"{REPO}?file=config.json"), bench.target(REPO, "t2")
        planned = self.plan(bench, *targets)
        assert len(planned.files) == len(CORPUS.files)
        assert [len(target.files) for target in planned.targets] == [len(CORPUS.files), 1, len(CORPUS.files)]

    def test_uris_that_differ_in_userinfo_alone_are_one_file_and_bring_their_credential(self, bench, world):
        world.files["bucket/a.bin"] = {"a.bin": BIG}
        planned = self.plan(bench, bench.profile("obj://u:hunter2@bucket/a.bin", "obj://bucket/a.bin"))
        assert [file.to_fetch for file in planned.files] == [BIG.length]
        assert planned.outlook.credentials == (
            CredentialUse(source="obj", endpoint="obj://bucket", kind="basic_pair", origin="the URI itself"),
        )
        assert "hunter2" not in str(planned.files)

    def test_a_file_of_each_place_is_looked_up_and_of_few_places_only(self, bench, world):
        uris = [f"obj://bucket{number}/{name}" for number in range(11) for name in "ab"]
        for uri in uris:
            world.files[uri.partition("://")[2]] = {uri[-1]: inline("x")}
        world.forget()
        planned = self.plan(bench, bench.profile(*uris))
        assert len(world.located) == 8
        assert planned.outlook.unasked == 3
        assert planned.outlook.streamed == ("obj",)
        assert planned.outlook.hosts == ()

    def test_what_a_partial_of_a_file_without_digests_has_depends_on_its_version(self, bench, world):
        world.digests, world.files["org/name"] = (), {"w.bin": BIG}
        fetch = self.broken_off(bench, world, validator='"v1"')
        assert fetch("v1") == ("resume", 1 << 20)
        assert fetch("v2") == ("fetch", 0)
        assert fetch(None) == ("fetch", 0)

    def broken_off(self, bench, world, validator):
        """Leave a partial behind; return what is planned where the source says which version it has."""
        target = bench.target(REPO)
        found = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("nim_core.forecast.unfinished", lambda _folder, file_id: found.append(file_id))
            self.plan(bench, target)
        bench.layout.partials.mkdir(parents=True)
        partial = open_partial(bench.layout.partials, found[0])
        partial.begin(file_record(BIG.length, validator, ()))
        partial.finish_part(PartRecord(number=0, crc=1, done=1 << 20))
        partial.close()

        def planned(version):
            location = HttpObject(url=f"{world.origin.url}/f", validator=version and f'"{version}"')
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(WorldSource, "locate", lambda *_arguments: location)
                (file,) = self.plan(bench, target).files
            return file.state, file.resumed

        return planned

    def test_a_size_that_only_its_place_tells(self, bench, world, monkeypatch):
        world.sizes = False
        location = HttpObject(url=f"{world.origin.url}/f", size=7)
        monkeypatch.setattr(WorldSource, "locate", lambda *_arguments: location)
        planned = self.plan(bench, bench.profile(f"{REPO}?file=config.json", f"{REPO}?file=empty.txt"))
        assert [file.size for file in planned.files] == [7, None]
        assert (planned.bytes_to_fetch, planned.unknown_sizes) == (7, 1)

    def test_damaged_files_stay_and_are_named(self, bench):
        bench.run(bench.target(REPO))
        damage(bench.cache / bench.receipt().files[0].blob)
        names = bench.names()
        planned = self.plan(bench, bench.target(REPO), recheck=True)
        assert planned.damaged == (bench.receipt().files[0].path,)
        assert [file.path for file in planned.wanting] == list(planned.damaged)
        assert bench.names() == names

    def test_damaged_files_that_could_not_be_fetched_again(self, bench, monkeypatch):
        bench.run(bench.target(REPO))
        damage(bench.cache / bench.receipt().files[0].blob)
        refusal = CachePermissionError("read-only file system")
        monkeypatch.setattr("nim_core.forecast.write_error", lambda _folders: refusal)
        planned = self.plan(bench, bench.target(REPO), recheck=True)
        assert isinstance(planned.error, DigestMismatchError)
        assert "1 damaged file in the cache, not fetched again: read-only file system" in planned.error.message

    def test_what_a_source_refuses_is_an_error_here_too(self, bench):
        with pytest.raises(NotFoundError):
            self.plan(bench, bench.target("repo://org/none"))


def test_a_source_that_puts_two_files_in_one_place(bench, world):
    """Its own fault, and the last one wins; the first is not found to be there when it is wanted again."""
    bench.registry = make_registry(world, PlacingSource)
    world.pinned = None
    for folder in "ab":
        world.files[f"{folder}/config.json"] = {"config.json": inline(folder * 5)}
    for folder in "ab":
        bench.run(bench.target(f"obj://{folder}/config.json", folder))
    bench.run(bench.target("obj://a/config.json", "a"), use_cache=True)
    assert (bench.cache / bench.receipt("a").files[0].link).read_bytes() == b"aaaaa"


@pytest.mark.parametrize("how", ["manifest", "user"])
def test_a_manifest_names_no_endpoints(bench, world, how, monkeypatch):
    """What a user names may be anywhere; what a manifest names may not be where a cloud keeps its secrets."""
    world.files["169.254.169.254/latest"] = {"latest": inline(b"x")}
    seen = []
    monkeypatch.setattr("nim_core.fetching.network_config", lambda _settings, endpoints: seen.extend(endpoints))
    monkeypatch.setattr("nim_core.fetching.control_client", lambda *_arguments, **_options: pytest.fail("far enough"))
    registry = Registry(Settings({}), (http_plugin(world),), make_manager())
    bench = evolve(bench, registry=registry)
    named = "http://169.254.169.254/latest"
    with pytest.raises(pytest.fail.Exception, match="far enough"):
        bench.run(bench.profile(named) if how == "manifest" else bench.target(named))
    assert seen == ([] if how == "manifest" else [named])


def http_plugin(world):
    def make(_context):
        return WorldSource(world)

    source = SourceSpec(name="http", schemes=("http",), uri_style=UriStyle.OBJECT, summary="", factory=make)
    return PluginInfo(name="http", distribution="nim-source-http", version="1.0", sources=(source,))


class TestAnswers:
    """What servers do to a file of a run, and whether the run still comes to an end."""

    URI = f"{REPO}?file=config.json"

    @pytest.mark.timeout(10)
    @pytest.mark.parametrize(
        "answer",
        [
            Response(body=inline(b"a" * 1000), framing="chunked", reset_at=1000),
            Response(body=inline(b"a" * 2000), framing="chunked", stall_at=1000, stall_seconds=0.05),
        ],
    )
    def test_a_small_file_whose_end_is_wrong(self, bench, world, answer):
        """All bytes come, then a reset instead of the end, or more bytes."""
        world.give = "http"
        world.files["org/name"] = {"config.json": inline(b"a" * 1000)}
        world.origin.handler = lambda _request: ("scripted", answer)
        with contextlib.suppress(NimError):
            bench.run(bench.profile(self.URI))

    def test_an_end_that_comes_long_after_the_last_byte(self, bench, world):
        world.give, world.digests = "http", ()
        world.files["org/name"] = {"large": PatternContent(length=2 << 20), "slow": inline(b"abc")}

        def answer(request):
            if request.path.endswith("slow"):
                return "slow", Response(body=inline(b"abc"), delay=0.9)
            body = PatternContent(length=2 << 20)
            return "large", Response(body=body, framing="chunked", stall_at=body.size, stall_seconds=0.4)

        world.origin.handler = answer
        (item,) = bench.run(bench.target(REPO)).targets
        assert item.fetched == 2

    def test_a_git_blob_id_of_a_file_of_unknown_size_is_checked(self, bench, world):
        world.digests, world.sizes = (), False
        wrong = Digest("sha1-git", "0" * 40)
        with pytest.raises(DigestMismatchError):
            bench.run(bench.profile(self.URI, digest=lambda _uri: wrong))

    def test_a_partial_that_cannot_be_made(self, bench, world, monkeypatch):
        def refuse(*_arguments):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("nim_core.transfer.engine.open_partial", refuse)
        world.files["org/name"] = {"w.bin": BIG}
        with pytest.raises(DiskFullError):
            bench.run(bench.target(REPO))

    def test_an_empty_file_that_is_not_what_was_promised(self, bench, world, monkeypatch):
        world.digests = ()
        world.files["org/name"] = {"config.json": inline(b"")}
        location = HttpObject(url=f"{world.origin.url}/f", ranges=False)
        monkeypatch.setattr(WorldSource, "locate", lambda *_arguments: location)
        with pytest.raises(DigestMismatchError):
            bench.run(bench.profile(self.URI, digest=lambda _uri: Digest("sha256", "0" * 64)))

    def test_a_location_that_cannot_be_asked_for(self, bench, world, monkeypatch):
        location = HttpObject(url=f"{world.origin.url}/größer")
        monkeypatch.setattr(WorldSource, "locate", lambda *_arguments: location)
        with pytest.raises(NimError):
            bench.run(bench.profile(self.URI))


@pytest.mark.parametrize(("largest", "connections"), [(1 << 20, 32), ((1 << 20) + 1, 8)])
def test_where_all_files_are_small_all_connections_are_used_at_once(bench, world, monkeypatch, largest, connections):
    begun = []

    def engine(**arguments):
        begun.append(arguments["options"].connections)
        return Engine(**arguments)

    monkeypatch.setattr("nim_core.fetching.Engine", engine)
    world.give = "http"
    world.files["org/name"] = {"small": inline(b"abc"), "largest": PatternContent(length=largest)}
    bench.run(bench.target(REPO))
    assert begun == [connections]
