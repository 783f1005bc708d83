"""Looking for files at the targets of the override, with sources that a test fills."""

from __future__ import annotations

import threading
from types import ModuleType
from urllib.parse import quote

import httpx
import pytest
from attrs import evolve
from structlog.testing import capture_logs

from nim_core.cli.tally import Tally
from nim_core.download import DownloadOptions, download
from nim_core.errors import (
    AuthenticationError,
    ConfigError,
    DigestMismatchError,
    NoPluginForSchemeError,
    NotFoundError,
    OverrideUnsupportedError,
    PermissionDeniedError,
    PluginError,
    RateLimitedError,
    SizeMismatchError,
    StalledError,
    TransientError,
)
from nim_core.hookspecs import hookimpl
from nim_core.override import read_overrides
from nim_core.plan import Target, Wanted
from nim_core.redirecting import Redirecting, redirected_schemes
from nim_core.registry import Registry
from nim_core.registry.info import PluginInfo
from nim_core.registry.loading import make_manager
from nim_core.resolve import Resolver
from nim_core.settings import Settings
from nim_core.testing.certificates import make_certificates
from nim_core.testing.corpus import PatternContent
from nim_core.testing.http_server import HttpOrigin, RequestLog
from nim_core.testing.ranged import serve_content, strong_etag
from nim_core.types import (
    CacheKey,
    Capabilities,
    Digest,
    HttpObject,
    Listing,
    ModelUri,
    RemoteFile,
    SourceSpec,
    UriStyle,
)

SHA256, OTHER_SHA256 = Digest("sha256", "1" * 64), Digest("sha256", "2" * 64)
MD5 = Digest("md5", "3" * 32)


class Shelf:
    """
    A source whose listings a test gives, by location.

    Attributes:
        listings: Files there, or what is raised; a location that has neither is NotFoundError.
        down: What everything at a host is answered with, by host.
        asked: Locations that were listed.
        located: Locations that were located.
    """

    def __init__(self, pinned=None):
        self.listings = {}
        self.down = {}
        self.pinned = pinned
        self.asked = []
        self.located = []
        self.lock = threading.Lock()

    def list_files(self, uri):
        with self.lock:
            self.asked.append(uri.location)
        found = self.down.get(uri.location.partition("/")[0]) or self.listings.get(uri.location)
        if found is None:
            raise NotFoundError(f"no such file: {uri.display}")
        if isinstance(found, Exception):
            raise found
        return Listing(uri=uri, files=tuple(found), pinned=self.pinned)

    def locate(self, uri, file):
        self.located.append((uri.location, file.path))
        return HttpObject(url=f"http://{uri.location}/{file.path}")

    def close(self):
        pass


class Repositories(Shelf):
    """The same with an opinion on where its files live."""

    def cache_key(self, uri, pinned):
        return CacheKey(root="repo/hub", repo=uri.location.replace("/", "--"), snapshot=uri.revision or pinned)


class Naming(Shelf):
    """The same that knows names without asking."""

    def file_name(self, uri):
        return uri.location.rpartition("/")[2]


@hookimpl
def nim_rewrite_uri(uri, override):
    """``flat`` and ``naming`` targets have two forms of a URL, ``repo`` targets are proxies."""
    if override.scheme == "repo":
        return evolve(uri, location=f"{override.location}//{uri.location}")
    if override.scheme not in {"flat", "naming"}:
        return None
    if uri.style is not UriStyle.OBJECT and uri.file is None:
        raise OverrideUnsupportedError("cannot list")
    keys = (quote(override.key, safe=""), override.key)
    return tuple(
        ModelUri(scheme=override.scheme, location=f"{override.location}/{key}", style=UriStyle.OBJECT) for key in keys
    )


SPECS = {
    "repo": (UriStyle.REPOSITORY, Capabilities(pins_revisions=True, overridable=True)),
    "other": (UriStyle.REPOSITORY, Capabilities(pins_revisions=True)),
    "flat": (UriStyle.OBJECT, Capabilities()),
    "naming": (UriStyle.OBJECT, Capabilities()),
}


class World:
    """Sources, and what redirects to them."""

    def __init__(self):
        self.shelves = {"repo": Repositories("1.0"), "other": Shelf("0123abc"), "flat": Shelf(), "naming": Naming()}
        manager = make_manager()
        module = ModuleType("shelf")
        module.nim_rewrite_uri = nim_rewrite_uri
        manager.register(module, "shelf")
        sources = tuple(self.spec(scheme, *facts) for scheme, facts in SPECS.items())
        plugin = PluginInfo(name="shelf", distribution="nim-source-shelf", version="1.0", sources=sources)
        self.registry = Registry(Settings({}), (plugin,), manager)
        self.client = httpx.Client()

    def spec(self, scheme, style, capabilities):
        return SourceSpec(
            name=scheme,
            schemes=(scheme,),
            uri_style=style,
            summary="",
            factory=lambda _context: self.shelves[scheme],
            capabilities=capabilities,
        )

    def redirecting(self, *targets, schemes=None):
        settings = Settings({"NIM_REPOSITORY_OVERRIDE_SCHEMES": schemes} if schemes else {})
        resolver = Resolver(self.registry, self.client)
        return Redirecting(
            resolver, self.registry, read_overrides(targets), redirected_schemes(self.registry, settings)
        )

    def wanted(self, text, digest=None):
        uri = self.registry.parse_uri(text)
        return Wanted(path=uri.file or "x", uri=uri, digest=digest)

    def put(self, scheme, place, text, *digests, size=1, twice=True):
        """Put a file where an override to ``place`` looks for it."""
        rest = text.partition("://")[2] if text.startswith("repo://") else text
        key = quote(rest, safe="")
        key = quote(key, safe="") if twice else key
        self.shelves[scheme].listings[f"{place}/{key}"] = [remote(key, *digests, size=size)]


def remote(path, *digests, size=1):
    return RemoteFile(path=path, size=size, digests=digests)


def file(number=1, scheme="repo"):
    return f"{scheme}://org/m:v1?file={number}"


@pytest.fixture
def world():
    world = World()
    yield world
    world.client.close()


def one(redirecting, *items, verify=True):
    (fetch,) = redirecting.fetches(items, verify=verify).values()
    return fetch


# ---------------------------------------------------------------------------------------------------- what is fetched
def test_identity_and_place_are_the_manifest_s(world):
    world.put("flat", "host/p", file("a/b"), size=7)
    fetch = one(world.redirecting("flat://host/p/"), world.wanted(file("a/b"), SHA256))
    assert str(fetch.identity) == file("a/b")
    assert str(fetch.uri) == "flat://host/p/org%252Fm%253Av1%253Ffile%253Da%252Fb"
    assert fetch.file == remote("a/b", SHA256, size=7)
    assert fetch.key == CacheKey(root="repo/hub", repo="org--m", snapshot="v1")
    assert fetch.pinned
    assert world.shelves["repo"].asked == []


def test_located_is_what_the_target_has(world):
    world.put("flat", "host", file(), twice=False)
    redirecting = world.redirecting("flat://host")
    location = redirecting.locate(one(redirecting, world.wanted(file())))
    key = "org%2Fm%3Av1%3Ffile%3D1"
    assert location.url.reveal() == f"http://host/{key}/{key}"


def test_digests_of_the_manifest_stand_alone(world):
    """So that a partial is the same whatever a target lists."""
    world.put("flat", "host", file(), SHA256, MD5)
    redirecting = world.redirecting("flat://host")
    assert one(redirecting, world.wanted(file(), SHA256)).file.digests == (SHA256,)


def test_without_a_promise_the_target_s_count(world):
    world.put("flat", "host", file(), MD5)
    assert one(world.redirecting("flat://host"), world.wanted(file())).file.digests == (MD5,)


def test_a_proxy_is_listed_once_and_pins(world):
    shelf = world.shelves["repo"]
    shelf.listings["host:1/api//org/m"] = [remote(str(number)) for number in range(50)]
    items = [world.wanted(f"repo://org/m?file={number}") for number in range(50)]
    fetches = world.redirecting("repo://host:1/api").fetches(items, verify=True)
    assert shelf.asked == ["host:1/api//org/m"]
    assert {(fetch.key.repo, fetch.key.snapshot, fetch.pinned) for fetch in fetches.values()} == {
        ("org--m", "1.0", True)
    }


def test_sources_that_are_not_redirected_are_asked_themselves(world):
    world.shelves["other"].listings["org/m"] = [remote("1")]
    world.put("flat", "host", file())
    items = [world.wanted(file(scheme="other")), world.wanted(file())]
    fetches = world.redirecting("flat://host").fetches(items, verify=True)
    assert [fetch.uri.scheme for fetch in fetches.values()] == ["other", "flat"]


def test_without_overrides_nothing_is_redirected(world):
    world.shelves["repo"].listings["org/m"] = [remote("1")]
    redirecting = world.redirecting()
    fetch = one(redirecting, world.wanted(file()))
    assert redirecting.locate(fetch).url.reveal() == "http://org/m/1"


def test_other_schemes_when_asked_for(world):
    """Their keys keep the scheme, and their place is the one they give without being asked."""
    world.put("flat", "host", file(scheme="other"))
    fetch = one(world.redirecting("flat://host", schemes="OTHER"), world.wanted(file(scheme="other")))
    assert str(fetch.uri).startswith("flat://host/other%253A%252F%252Forg")
    assert (fetch.key.root, fetch.key.snapshot, fetch.pinned) == ("other/hub", "v1", True)
    assert world.shelves["other"].asked == []


def test_an_object_s_name_is_its_own(world):
    world.put("flat", "host", "flat://bucket/a/x.bin")
    fetch = one(world.redirecting("flat://host", schemes="flat"), world.wanted("flat://bucket/a/x.bin"))
    assert (fetch.file.path, fetch.key.repo) == ("x.bin", "models--bucket--a")
    assert not fetch.pinned


def test_a_scheme_nobody_brings(world):
    with pytest.raises(
        ConfigError, match="no installed plugin for scheme in NIM_REPOSITORY_OVERRIDE_SCHEMES: nope"
    ) as e:
        world.redirecting("flat://host", schemes="repo,nope")
    assert e.value.hint.endswith("installed: flat, naming, other, repo")


# ------------------------------------------------------------------------------------------------ targets that are none
def test_a_registry_is_refused_with_what_to_do(world):
    with pytest.raises(OverrideUnsupportedError) as caught:
        one(world.redirecting("other://org/m"), world.wanted(file()))
    assert str(caught.value) == "other:// cannot stand in for repo://: NIM_REPOSITORY_OVERRIDE names other://org/m"
    assert "name its URIs in the manifest, or use --model-uri" in caught.value.hint
    assert "targets are buckets, web servers, and proxies" in caught.value.hint


def test_a_target_of_nobody_s_says_what_to_install(world):
    with pytest.raises(NoPluginForSchemeError) as caught:
        one(world.redirecting("s3://bucket"), world.wanted(file()))
    assert caught.value.hint == "pip install nim-source-s3"


def test_every_target_is_judged_before_the_first_is_asked(world):
    world.put("flat", "host", file())
    with pytest.raises(OverrideUnsupportedError):
        one(world.redirecting("flat://host", "other://org/m"), world.wanted(file()))
    assert world.shelves["flat"].asked == []


# -------------------------------------------------------------------------------------------------------- model URIs
class TestExpand:
    def test_a_model_at_a_proxy(self, world):
        world.shelves["repo"].listings["host//org/m"] = [remote("a"), remote("b/c")]
        redirecting = world.redirecting("repo://down", "repo://host")
        files = redirecting.expand(world.registry.parse_uri("repo://org/m"))
        assert [(item.path, str(item.uri)) for item in files] == [
            ("a", "repo://org/m?file=a"),
            ("b/c", "repo://org/m?file=b/c"),
        ]
        assert {fetch.key.snapshot for fetch in redirecting.fetches(files, verify=True).values()} == {"1.0"}

    def test_flat_targets_cannot_list(self, world):
        with pytest.raises(OverrideUnsupportedError, match="cannot list"):
            world.redirecting("flat://host").expand(world.registry.parse_uri("repo://org/m:v1"))

    def test_one_file(self, world):
        (wanted,) = world.redirecting("flat://host").expand(world.registry.parse_uri(file("a/b")))
        assert (wanted.path, str(wanted.uri)) == ("a/b", file("a/b"))

    def test_what_is_not_redirected(self, world):
        world.shelves["other"].listings["org/m"] = [remote("a")]
        (wanted,) = world.redirecting("flat://host").expand(world.registry.parse_uri("other://org/m"))
        assert str(wanted.uri) == "other://org/m?file=a"


# ----------------------------------------------------------------------------------------------------- several targets
def hosts(fetches):
    return [fetch.uri.location.partition("/")[0] for fetch in fetches.values()]


@pytest.mark.parametrize("error", [NotFoundError, PermissionDeniedError, AuthenticationError])
def test_a_file_the_first_does_not_have(world, error):
    for number in (1, 3):
        world.put("flat", "one", file(number))
    world.put("flat", "two", file(2))
    world.shelves["flat"].listings["one/" + quote(quote("org/m:v1?file=2", safe=""), safe="")] = error("no")
    with capture_logs() as logs:
        items = [world.wanted(file(number)) for number in (1, 2, 3)]
        fetches = world.redirecting("flat://one", "flat://two").fetches(items, verify=True)
    assert hosts(fetches) == ["one", "two", "one"]
    assert len(logs) == (error is not NotFoundError)


@pytest.mark.parametrize("error", [TransientError, StalledError, RateLimitedError])
def test_a_dead_target_is_given_up_once(world, error, monkeypatch):
    monkeypatch.setattr("nim_core.redirecting.THREADS", 1)
    for number in range(20):
        world.put("flat", "two", file(number))
    world.shelves["flat"].down["one"] = error("no connection to one")
    items = [world.wanted(file(number)) for number in range(20)]
    with capture_logs() as logs:
        fetches = world.redirecting("flat://one", "flat://two").fetches(items, verify=True)
    assert set(hosts(fetches)) == {"two"}
    assert [location for location in world.shelves["flat"].asked if location.startswith("one")] == [
        "one/org%252Fm%253Av1%253Ffile%253D0"
    ]
    (told,) = logs
    assert (told["event"], told["target"], told["reason"]) == (
        "override_given_up",
        "flat://one",
        "no connection to one",
    )


def test_a_listing_that_contradicts_the_manifest(world):
    world.put("flat", "one", file(), OTHER_SHA256)
    world.put("flat", "two", file(), SHA256)
    with capture_logs() as logs:
        fetch = one(world.redirecting("flat://one", "flat://two"), world.wanted(file(), SHA256))
    assert fetch.uri.location.startswith("two")
    assert [(told["event"], told["target"], told["file"]) for told in logs] == [
        ("override_passed_over", "flat://one", file())
    ]


def test_the_form_that_worked_is_tried_first(world, monkeypatch):
    monkeypatch.setattr("nim_core.redirecting.THREADS", 1)
    for number in range(3):
        world.put("flat", "host", file(number), twice=False)
    fetches = world.redirecting("flat://host").fetches([world.wanted(file(n)) for n in range(3)], verify=True)
    assert len(fetches) == 3
    assert len(world.shelves["flat"].asked) == 4


class TestNowhere:
    def test_the_most_telling_error_names_the_others(self, world):
        world.shelves["flat"].down["two"] = PermissionDeniedError("access denied", hint="ask for it")
        with pytest.raises(PermissionDeniedError, match="access denied") as caught:
            one(world.redirecting("flat://one", "flat://two", "flat://three"), world.wanted(file()))
        missing = "no such file: flat://{}/org%252Fm%253Av1%253Ffile%253D1"
        assert caught.value.hint == (
            f"ask for it; NIM_REPOSITORY_OVERRIDE says where {file()} is looked for; also tried: "
            f"flat://one ({missing.format('one')}), flat://three ({missing.format('three')})"
        )

    def test_the_first_where_none_says_more(self, world):
        with pytest.raises(NotFoundError, match="flat://one") as caught:
            one(world.redirecting("flat://one", "flat://two"), world.wanted(file()))
        assert "also tried: flat://two" in caught.value.hint

    def test_a_single_target(self, world):
        world.shelves["flat"].down["one"] = TransientError("cut")
        with capture_logs() as logs, pytest.raises(TransientError) as caught:
            one(world.redirecting("flat://one"), world.wanted(file()))
        assert caught.value.hint == f"NIM_REPOSITORY_OVERRIDE says where {file()} is looked for"
        assert logs == []

    def test_passwords_are_not_shown(self, world):
        with pytest.raises(NotFoundError) as caught:
            one(world.redirecting("flat://u:secret@one", "flat://u:secret@two"), world.wanted(file()))
        assert "secret" not in str(caught.value) + caught.value.hint

    def test_what_is_a_plugin_s_fault_is_not_tried_elsewhere(self, world):
        world.shelves["flat"].down["one"] = ValueError("bug")
        world.put("flat", "two", file())
        with pytest.raises(PluginError, match="nim-source-shelf"):
            one(world.redirecting("flat://one", "flat://two"), world.wanted(file()))


def test_targets_that_are_hosts_are_endpoints_of_the_user_s_own(world, tmp_path, monkeypatch):
    """Such as a link-local address, which no manifest may name."""
    world.put("flat", "bucket", file())
    named = []

    def stop(_settings, endpoints):
        named.extend(endpoints)
        raise ConfigError("stop here")

    monkeypatch.setattr("nim_core.fetching.network_config", stop)
    target = Target(id="t", label="t", files=(world.wanted(file()),))
    settings = Settings({"NIM_REPOSITORY_OVERRIDE": "flat://bucket,repo://169.254.1.1:80/a,http://u:pw@169.254.1.2/b"})
    with pytest.raises(ConfigError, match="stop here"):
        download((target,), DownloadOptions(cache_path=tmp_path / "cache"), world.registry, settings, Watched())
    assert named == ["https://169.254.1.1:80/a", "http://u:pw@169.254.1.2/b"]


class Mirrors(Naming):
    """A file that an origin serves; ``one`` is slow and cuts every answer short."""

    def __init__(self, content):
        super().__init__()
        self.content = content
        self.origin = HttpOrigin("mirrors", self.handle, log=RequestLog())

    def handle(self, request):
        answer = serve_content(request, self.content, etag=strong_etag(self.content))
        return "file", evolve(answer, cut_at=9 << 20, rate=16 << 20) if request.path.startswith("/one/") else answer

    def list_files(self, uri):
        return Listing(uri=uri, files=(remote("weights", size=self.content.size),))

    def locate(self, uri, file):
        return HttpObject(url=f"{self.origin.url}/{uri.location}")


class Watched(Tally):
    """An observer that counts as a live display does, and adds up what it is told."""

    told = 0

    def event(self, event):
        super().event(event)
        self.told += (event.bytes or 0) if event.kind in {"started", "progress", "restart"} else 0

    def damaged(self, path, reason):
        pass


def test_progress_is_right_after_a_change_of_targets(world, tmp_path):
    content = PatternContent(length=24 << 20)
    world.shelves["naming"] = mirrors = Mirrors(content)
    target = Target(id="t", label="t", files=(world.wanted(file("weights"), content.digest("blake3")),))
    settings = {
        "NIM_REPOSITORY_OVERRIDE": "naming://one,naming://two",
        "NIM_SDK_DOWNLOAD_MAX_RETRY_COUNT": "0",
        "SSL_CERT_FILE": str(make_certificates(tmp_path / "ca").ca),
    }
    seen = Watched()
    with mirrors.origin:
        options = DownloadOptions(cache_path=tmp_path / "cache")
        result = download((target,), options, world.registry, Settings(settings), seen)
    assert content.size <= result.bytes_fetched <= content.size + (8 << 20)
    assert seen.told == content.size
    now = seen.snapshot()
    assert (now.done, now.total, now.files_done, now.files) == (content.size, content.size, 1, 1)
    assert [path.read_bytes() == content.data() for path in tmp_path.glob("cache/repo/hub/org--m/blobs/*")] == [True]


# ----------------------------------------------------------------------------------------- when the transfer goes wrong
class TestElsewhere:
    @pytest.fixture
    def redirecting(self, world):
        for place in ("one", "two"):
            for number in range(3):
                world.put("flat", place, file(number), size=len(place) + number)
        return world.redirecting("flat://one", "flat://two")

    @pytest.fixture
    def fetches(self, world, redirecting):
        items = [world.wanted(file(number), SHA256) for number in range(3)]
        return tuple(redirecting.fetches(items, verify=True).values())

    @pytest.mark.parametrize("error", [DigestMismatchError, SizeMismatchError, NotFoundError])
    def test_one_file_moves(self, redirecting, fetches, error):
        after = redirecting.elsewhere(fetches, fetches[1].identity, error("wrong"))
        assert (after[0], after[2]) == (fetches[0], fetches[2])
        assert after[1].uri.location.startswith("two/")
        assert "two" in redirecting.locate(after[1]).url.reveal()

    @pytest.mark.parametrize("error", [TransientError, StalledError, RateLimitedError])
    def test_all_leave_a_dead_target(self, redirecting, fetches, error):
        after = redirecting.elsewhere(fetches[1:], fetches[1].identity, error("cut"))
        assert [fetch.identity for fetch in after] == [fetch.identity for fetch in fetches[1:]]
        assert all(fetch.uri.location.startswith("two/") for fetch in after)

    def test_nowhere_is_left(self, redirecting, fetches):
        after = redirecting.elsewhere(fetches, fetches[0].identity, TransientError("cut"))
        with pytest.raises(TransientError, match="cut") as caught:
            redirecting.elsewhere(after, after[0].identity, DigestMismatchError("wrong"))
        assert "also tried: flat://two (wrong)" in caught.value.hint

    @pytest.mark.parametrize("error", [ConfigError("wrong proxy"), KeyboardInterrupt()], ids=["config", "interrupt"])
    def test_what_no_target_can_help_with(self, redirecting, fetches, error):
        with pytest.raises(type(error)) as caught:
            redirecting.elsewhere(fetches, fetches[0].identity, error)
        assert caught.value is error

    def test_a_file_that_is_not_redirected(self, world, redirecting, fetches):
        error = TransientError("cut")
        with pytest.raises(TransientError) as caught:
            redirecting.elsewhere(fetches, world.registry.parse_uri("other://a/b"), error)
        assert caught.value is error


class TestManyFiles:
    """Digests are enough to go on with; what is where shows when it is fetched."""

    @pytest.fixture(autouse=True)
    def most_asked(self, monkeypatch):
        monkeypatch.setattr("nim_core.redirecting.MOST_ASKED", 2)

    def many(self, world, *targets, digest=SHA256):
        redirecting = world.redirecting(*targets)
        items = [world.wanted(file(number), digest) for number in range(4)]
        return redirecting, list(redirecting.fetches(items, verify=True).values())

    def test_one_is_asked_for(self, world):
        world.put("naming", "one", file(0), twice=False)
        redirecting, fetches = self.many(world, "naming://one")
        assert len(world.shelves["naming"].asked) == 2
        assert [fetch.file for fetch in fetches[1:]] == [remote(str(n), SHA256, size=None) for n in (1, 2, 3)]
        assert {fetch.pinned for fetch in fetches} == {True}
        assert redirecting.locate(fetches[1]).url.reveal().startswith("http://one/org%2Fm")

    @pytest.mark.parametrize(("target", "digest"), [("flat://one", SHA256), ("naming://one", None)])
    def test_all_are_asked_for(self, world, target, digest):
        for number in range(4):
            world.put(target.partition(":")[0], "one", file(number))
        self.many(world, target, digest=digest)
        assert len(world.shelves[target.partition(":")[0]].asked) == 4

    def test_a_refused_one_is_looked_for(self, world):
        world.put("naming", "one", file(0))
        world.put("naming", "two", file(3))
        redirecting, fetches = self.many(world, "naming://one", "naming://two")
        first = redirecting.locate(fetches[3])
        again = redirecting.locate(fetches[3])
        assert first.url.reveal().startswith("http://one/")
        assert again.url.reveal().startswith("http://two/")
        with pytest.raises(NotFoundError):
            [redirecting.locate(fetches[2]) for _ in range(2)]

    def test_one_that_is_there_after_all_stays(self, world):
        for number in (0, 3):
            world.put("naming", "one", file(number))
        redirecting, fetches = self.many(world, "naming://one", "naming://two")
        assert redirecting.locate(fetches[3]) == redirecting.locate(fetches[3])

    def test_a_target_that_dies_is_left_unseen(self, world):
        world.put("naming", "one", file(0))
        world.put("naming", "two", file(0))
        world.put("naming", "two", file(1))
        redirecting, fetches = self.many(world, "naming://one", "naming://two")
        redirecting.locate(fetches[1])
        after = redirecting.elsewhere(fetches, fetches[1].identity, TransientError("cut"))
        assert redirecting.locate(after[0]).url.reveal().startswith("http://two/")
        assert redirecting.locate(after[3]).url.reveal().startswith("http://two/")
        assert [fetch.identity for fetch in after] == [fetch.identity for fetch in fetches]

    def test_an_error_told_while_it_is_located_is_not_told_twice(self, world):
        world.put("naming", "one", file(0))
        redirecting, fetches = self.many(world, "naming://one")
        redirecting.locate(fetches[2])
        with pytest.raises(NotFoundError) as located:
            redirecting.locate(fetches[2])
        with pytest.raises(NotFoundError) as caught:
            redirecting.elsewhere(fetches, fetches[2].identity, located.value)
        assert caught.value is located.value
