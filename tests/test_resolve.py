"""Asking sources: which files a URI names, what each must be, and where it goes."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest
from attrs import evolve

from nim_core.errors import DigestMismatchError, NoPluginForSchemeError, NotFoundError, PluginError, SourceError
from nim_core.plan import Wanted
from nim_core.registry import Registry
from nim_core.registry.info import PluginInfo
from nim_core.registry.loading import make_manager
from nim_core.resolve import Resolver
from nim_core.settings import Settings
from nim_core.types import (
    CacheKey,
    Digest,
    HttpObject,
    Listing,
    LocalObject,
    ModelUri,
    RemoteFile,
    SourceSpec,
    UriStyle,
)

SHA256, OTHER_SHA256 = Digest("sha256", "1" * 64), Digest("sha256", "2" * 64)
MD5, OTHER_MD5 = Digest("md5", "3" * 32), Digest("md5", "4" * 32)


class Shelf:
    """
    A source whose listings a test gives, by location.

    Attributes:
        listings: What is where; a location that has none is NotFoundError.
        pinned: Of every listing.
        asked: URIs that were listed.
    """

    def __init__(self):
        self.listings = {}
        self.pinned = None
        self.asked = []
        self.closed = 0
        self.local = {}
        self.lock = threading.Lock()

    def __call__(self, _context):
        return self

    def list_files(self, uri):
        with self.lock:
            self.asked.append(str(uri))
        if uri.location not in self.listings:
            raise NotFoundError(f"no such place: {uri.display}")
        return Listing(uri=uri, files=tuple(self.listings[uri.location]), pinned=self.pinned)

    def locate(self, uri, file):
        if file.path in self.local:
            return LocalObject(path=self.local[file.path])
        return HttpObject(url=f"http://127.0.0.1/{uri.location}/{file.path}")

    def close(self):
        self.closed += 1


class PlacingShelf(Shelf):
    """The same with an opinion on where files live."""

    def cache_key(self, uri, pinned):
        return CacheKey(root="elsewhere/hub", repo=uri.location.replace("/", "-"), snapshot=pinned or "none")


class NamingShelf(Shelf):
    """The same that knows names without asking."""

    def file_name(self, uri):
        return uri.location.rpartition("/")[2]


class FailingShelf(Shelf):
    """A source that cannot even be closed."""

    def close(self):
        super().close()
        raise OSError("odd")


SCHEMES = {"repo": UriStyle.REPOSITORY, "obj": UriStyle.OBJECT, "dir": UriStyle.PATH}


@pytest.fixture
def shelves():
    return {scheme: Shelf() for scheme in SCHEMES}


@pytest.fixture
def registry(shelves):
    def spec(scheme, style):
        def make(context):
            return shelves[scheme](context)

        return SourceSpec(name=scheme, schemes=(scheme,), uri_style=style, summary="", factory=make)

    sources = tuple(spec(scheme, style) for scheme, style in SCHEMES.items())
    plugin = PluginInfo(name="shelf", distribution="nim-source-shelf", version="1.0", sources=sources)
    return Registry(Settings({}), (plugin,), make_manager())


@pytest.fixture
def resolver(registry):
    with httpx.Client() as client:
        resolver = Resolver(registry, client)
        yield resolver
        resolver.close()


@pytest.fixture
def uri(registry):
    return registry.parse_uri


def remote(path, *digests, size=1):
    return RemoteFile(path=path, size=size, digests=digests)


def expanded(resolver, uri):
    return [(wanted.path, str(wanted.uri), wanted.digest) for wanted in resolver.expand(uri)]


class TestExpand:
    def test_a_repository(self, resolver, shelves, uri):
        shelves["repo"].listings["org/name"] = [remote("a"), remote("b/c d&e")]
        assert expanded(resolver, uri("repo://org/name:v1")) == [
            ("a", "repo://org/name:v1?file=a", None),
            ("b/c d&e", "repo://org/name:v1?file=b/c d&e", None),
        ]

    def test_the_revision_stays_as_it_was_written(self, resolver, shelves, uri):
        shelves["repo"].listings["org/name"] = [remote("a")]
        shelves["repo"].pinned = "0123abc"
        assert expanded(resolver, uri("repo://org/name:main")) == [("a", "repo://org/name:main?file=a", None)]
        assert expanded(resolver, uri("repo://org/name")) == [("a", "repo://org/name?file=a", None)]

    def test_one_file_of_a_repository(self, resolver, shelves, uri):
        shelves["repo"].listings["org/name"] = [remote("a"), remote("b/c")]
        assert expanded(resolver, uri("repo://org/name?file=b/c")) == [("b/c", "repo://org/name?file=b/c", None)]

    def test_a_folder(self, resolver, shelves, uri):
        shelves["dir"].listings["/models/x"] = [remote("a"), remote("b/c")]
        assert expanded(resolver, uri("dir:///models/x")) == [
            ("a", "dir:///models/x?file=a", None),
            ("b/c", "dir:///models/x?file=b/c", None),
        ]

    def test_a_file_named_as_a_folder(self, resolver, shelves, uri):
        shelves["dir"].listings["/models/x.bin"] = [remote("x.bin")]
        assert expanded(resolver, uri("dir:///models/x.bin")) == [("x.bin", "dir:///models/x.bin?file=x.bin", None)]

    def test_an_object(self, resolver, shelves, uri):
        shelves["obj"].listings["bucket/a/x.bin"] = [remote("x.bin")]
        assert expanded(resolver, uri("obj://bucket/a/x.bin")) == [("x.bin", "obj://bucket/a/x.bin", None)]

    @pytest.mark.parametrize(
        ("prefix", "objects"),
        [
            ("bucket/model", ["bucket/model/a", "bucket/model/b/c?d#e"]),
            ("bucket/model/", ["bucket/model/a", "bucket/model/b/c?d#e"]),
            ("bucket/model//", ["bucket/model//a", "bucket/model//b/c?d#e"]),
            ("bucket", ["bucket/a", "bucket/b/c?d#e"]),
            ("u:pw@bucket/model", ["u:pw@bucket/model/a", "u:pw@bucket/model/b/c?d#e"]),
        ],
    )
    def test_objects_beneath_a_prefix(self, resolver, shelves, uri, prefix, objects):
        shelves["obj"].listings[prefix] = [remote("a"), remote("b/c?d#e")]
        assert expanded(resolver, uri(f"obj://{prefix}")) == [
            ("a", f"obj://{objects[0]}", None),
            ("b/c?d#e", f"obj://{objects[1]}", None),
        ]

    def test_what_the_source_calls_the_listing_does_not_matter(self, resolver, shelves, uri, monkeypatch):
        shelf = shelves["repo"]
        canonical = uri("repo://org/canonical:0123abc")
        monkeypatch.setattr(shelf, "list_files", lambda _uri: Listing(uri=canonical, files=(remote("a"),)))
        assert expanded(resolver, uri("repo://org/alias:main")) == [("a", "repo://org/alias:main?file=a", None)]

    @pytest.mark.parametrize("text", ["repo://org/name", "obj://bucket/model", "dir:///models"])
    def test_nothing_there(self, resolver, shelves, uri, text):
        named = uri(text)
        shelves[named.scheme].listings[named.location] = []
        with pytest.raises(NotFoundError, match="nothing there"):
            resolver.expand(named)

    def test_a_file_that_is_not_listed(self, resolver, shelves, uri):
        shelves["repo"].listings["org/name"] = [remote("config.json"), remote("model.bin")]
        with pytest.raises(NotFoundError, match="no such file") as caught:
            resolver.expand(uri("repo://org/name?file=confg.json"))
        assert caught.value.hint == "did you mean config.json"
        assert caught.value.uri == "repo://org/name?file=confg.json"

    def test_a_file_like_no_other(self, resolver, shelves, uri):
        shelves["repo"].listings["org/name"] = [remote("config.json"), remote("model.bin")]
        with pytest.raises(NotFoundError) as caught:
            resolver.expand(uri("repo://org/name?file=qqqq"))
        assert caught.value.hint == "the source lists 2 files, this is none of them"


def wanted(uri, digest=None):
    return Wanted(path=uri.file or "x", uri=uri, digest=digest)


class TestFetches:
    def one(self, resolver, *items, verify=True):
        (fetch,) = resolver.fetches(items, verify=verify).values()
        return fetch

    def test_what_a_fetch_is(self, resolver, shelves, uri):
        shelves["repo"].listings["org/name"] = [remote("a", SHA256, size=7)]
        shelves["repo"].pinned = "0123abc"
        named = uri("repo://org/name:main?file=a")
        fetch = self.one(resolver, wanted(named, SHA256))
        assert (fetch.identity, fetch.uri, fetch.pinned) == (named, uri("repo://org/name:main"), True)
        assert fetch.file == remote("a", SHA256, size=7)
        key = CacheKey(root="repo/hub", repo="models--org--name", snapshot="0123abc", refs=("main",))
        assert fetch.key == key

    def test_a_repository_is_listed_once(self, resolver, shelves, uri):
        shelves["repo"].listings["org/name"] = [remote(str(number)) for number in range(50)]
        named = [uri(f"repo://org/name:v1?file={number}") for number in range(50)]
        assert list(resolver.fetches([wanted(each) for each in named], verify=True)) == named
        assert shelves["repo"].asked == ["repo://org/name:v1"]

    def test_two_revisions_are_two_listings(self, resolver, shelves, uri):
        shelves["repo"].listings["org/name"] = [remote("a")]
        items = [wanted(uri(f"repo://org/name:{revision}?file=a")) for revision in ("v1", "v2")]
        assert len(resolver.fetches(items, verify=True)) == 2
        assert sorted(shelves["repo"].asked) == ["repo://org/name:v1", "repo://org/name:v2"]

    def test_the_same_file_twice_is_one_fetch(self, resolver, shelves, uri):
        shelves["repo"].listings["org/name"] = [remote("a")]
        named = uri("repo://org/name?file=a")
        assert len(resolver.fetches([wanted(named), wanted(named)], verify=True)) == 1

    def test_objects(self, resolver, shelves, uri):
        for folder in "ab":
            shelves["obj"].listings[f"bucket/{folder}/config.json"] = [remote("config.json")]
        items = [wanted(uri(f"obj://bucket/{folder}/config.json")) for folder in "ab"]
        fetches = resolver.fetches(items, verify=True)
        places = {(fetch.key.repo, fetch.key.snapshot, fetch.file.path) for fetch in fetches.values()}
        assert len(places) == 2

    def test_an_object_that_is_not_there(self, resolver, shelves, uri):
        shelves["obj"].listings["bucket/x"] = []
        with pytest.raises(NotFoundError, match="no such file"):
            resolver.fetches([wanted(uri("obj://bucket/x"))], verify=True)

    def test_an_object_that_is_several(self, resolver, shelves, uri):
        shelves["obj"].listings["bucket/x"] = [remote("a"), remote("b")]
        with pytest.raises(SourceError, match="not one file but 2"):
            resolver.fetches([wanted(uri("obj://bucket/x"))], verify=True)

    def test_a_file_that_is_not_listed(self, resolver, shelves, uri):
        shelves["repo"].listings["org/name"] = [remote("model-00001.bin"), remote("model-00002.bin")]
        with pytest.raises(NotFoundError) as caught:
            resolver.fetches([wanted(uri("repo://org/name?file=model-0002.bin"))], verify=True)
        assert caught.value.hint == "did you mean model-00002.bin or model-00001.bin"

    def test_a_place_of_the_source_s_own_choice(self, registry, shelves, uri):
        shelves["repo"] = PlacingShelf()
        shelves["repo"].listings["org/name"] = [remote("a")]
        with httpx.Client() as client:
            resolver = Resolver(registry, client)
            (fetch,) = resolver.fetches([wanted(uri("repo://org/name?file=a"))], verify=True).values()
        assert fetch.key == CacheKey(root="elsewhere/hub", repo="org-name", snapshot="none")
        assert not fetch.pinned

    def test_several_sources_at_once(self, resolver, shelves, uri):
        shelves["repo"].listings["org/name"] = [remote("a")]
        shelves["dir"].listings["/models"] = [remote("a")]
        items = [wanted(uri("repo://org/name?file=a")), wanted(uri("dir:///models?file=a"))]
        assert [fetch.uri.scheme for fetch in resolver.fetches(items, verify=True).values()] == ["repo", "dir"]


class TestPromises:
    NAMED = ModelUri(scheme="repo", location="org/name", file="a")

    def digests(self, resolver, shelves, listed, promised, *, verify=True):
        shelves["repo"].listings["org/name"] = [remote("a", *listed)]
        items = [Wanted(path="a", uri=self.NAMED, digest=digest) for digest in promised]
        return resolver.fetches(items, verify=verify)[self.NAMED].file.digests

    @pytest.mark.parametrize(
        ("listed", "promised", "expected"),
        [
            ((), [None], ()),
            ((SHA256,), [None], (SHA256,)),
            ((), [SHA256], (SHA256,)),
            ((SHA256,), [SHA256], (SHA256,)),
            ((SHA256,), [MD5], (MD5, SHA256)),
            ((SHA256, MD5), [MD5], (MD5, SHA256)),
            ((SHA256,), [MD5, None], (MD5, SHA256)),
            ((SHA256,), [None, MD5], (MD5, SHA256)),
            ((), [MD5, SHA256, MD5], (MD5, SHA256)),
        ],
    )
    def test_what_manifests_promise_comes_first(self, resolver, shelves, listed, promised, expected):
        assert self.digests(resolver, shelves, listed, promised) == expected

    @pytest.mark.parametrize("others", [(), (None,), (MD5,)])
    def test_a_listing_that_contradicts_is_told_before_the_first_byte(self, resolver, shelves, others):
        with pytest.raises(DigestMismatchError) as caught:
            self.digests(resolver, shelves, (SHA256,), [*others, OTHER_SHA256, *others])
        assert str(caught.value) == (
            f"wrong content of repo://org/name?file=a: source lists {SHA256}, manifest has {OTHER_SHA256}"
        )

    def test_two_promises_that_contradict_each_other(self, resolver, shelves):
        with pytest.raises(DigestMismatchError, match="two contents promised"):
            self.digests(resolver, shelves, (), [MD5, OTHER_MD5])

    def test_promises_that_do_not_count(self, resolver, shelves):
        assert self.digests(resolver, shelves, (SHA256,), [OTHER_SHA256, MD5], verify=False) == (SHA256,)


class TestFailures:
    def test_what_one_source_raises_ends_it(self, resolver, shelves, uri):
        shelves["repo"].listings["org/name"] = [remote("a")]
        items = [wanted(uri("repo://org/name?file=a")), wanted(uri("repo://org/other?file=a"))]
        with pytest.raises(NotFoundError, match="no such place"):
            resolver.fetches(items, verify=True)

    def test_a_scheme_of_nobody_s(self, resolver):
        with pytest.raises(NoPluginForSchemeError):
            resolver.expand(ModelUri(scheme="none", location="org/name"))

    def test_a_listing_that_is_none(self, resolver, shelves, uri, monkeypatch):
        monkeypatch.setattr(shelves["repo"], "list_files", lambda _uri: ["a"])
        with pytest.raises(PluginError, match="nim-source-shelf"):
            resolver.expand(uri("repo://org/name"))

    def test_every_source_is_closed_once(self, registry, shelves, uri):
        shelves["repo"], shelves["dir"] = FailingShelf(), Shelf()
        for scheme, location in (("repo", "org/name"), ("dir", "/models")):
            shelves[scheme].listings[location] = [remote("a")]
        with httpx.Client() as client:
            resolver = Resolver(registry, client)
            resolver.expand(uri("repo://org/name"))
            resolver.expand(uri("dir:///models"))
            resolver.close()
        assert [shelf.closed for shelf in shelves.values()] == [1, 0, 1]


class TestLocations:
    def test_where_a_file_is_now(self, resolver, shelves, uri):
        shelves["repo"].listings["org/name"] = [remote("a")]
        (fetch,) = resolver.fetches([wanted(uri("repo://org/name?file=a"))], verify=True).values()
        assert resolver.locate(fetch) == HttpObject(url="http://127.0.0.1/org/name/a")

    def test_files_on_this_machine(self, resolver, shelves, uri):
        for scheme, location in (("dir", "/models"), ("repo", "org/name")):
            shelves[scheme].listings[location] = [remote("a"), remote("b")]
            shelves[scheme].local["a"] = Path("/models/a")
        named = [uri(text) for text in ("dir:///models?file=a", "dir:///models?file=b", "repo://org/name?file=a")]
        fetches = resolver.fetches([wanted(each) for each in named], verify=True)
        assert resolver.local_paths(fetches) == {named[0]: Path("/models/a")}


def test_a_listing_is_asked_for_once_however_often_it_is_needed(resolver, shelves, uri):
    shelves["repo"].listings["org/name"] = [remote("a")]
    named = uri("repo://org/name")
    items = resolver.expand(named)
    resolver.fetches(items, verify=True)
    resolver.expand(evolve(named, file="a"))
    assert shelves["repo"].asked == ["repo://org/name"]


class TestManyFiles:
    """Of many files a digest is enough to go on with, where their source knows their names."""

    @pytest.fixture(autouse=True)
    def most_asked(self, monkeypatch):
        monkeypatch.setattr("nim_core.resolve.MOST_ASKED", 2)

    def wanted(self, uri, count, digest=SHA256):
        return [Wanted(path=str(n), uri=uri(f"obj://bucket/{n}.bin"), digest=digest) for n in range(count)]

    def fill(self, shelves, shelf):
        shelves["obj"] = shelf
        shelf.listings = {f"bucket/{n}.bin": [remote(f"{n}.bin")] for n in range(9)}
        return shelf

    def test_they_are_not_asked_for(self, resolver, shelves, uri):
        shelf = self.fill(shelves, NamingShelf())
        fetches = resolver.fetches(self.wanted(uri, 3), verify=True)
        assert shelf.asked == []
        assert [fetch.file for fetch in fetches.values()] == [remote(f"{n}.bin", SHA256, size=None) for n in range(3)]

    @pytest.mark.parametrize(
        ("make", "count", "digest", "verify"),
        [
            (NamingShelf, 2, SHA256, True),
            (NamingShelf, 3, None, True),
            (NamingShelf, 3, SHA256, False),
            (Shelf, 3, SHA256, True),
        ],
        ids=["few", "no digest", "not checked", "no names"],
    )
    def test_otherwise_they_are(self, resolver, shelves, uri, make, count, digest, verify):
        shelf = self.fill(shelves, make())
        fetches = resolver.fetches(self.wanted(uri, count, digest), verify=verify)
        assert len(shelf.asked) == count
        assert {fetch.file.size for fetch in fetches.values()} == {1}
