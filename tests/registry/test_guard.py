"""Whatever a source does, what leaves it is the contract's answer or an error that names its plugin."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from nim_core.errors import AuthenticationError, ConfigError, NotFoundError, PluginError, SourceError
from nim_core.registry.guard import describe, guard_source
from nim_core.registry.info import PluginInfo
from nim_core.types import (
    CacheKey,
    CachePlacement,
    FileNaming,
    HttpObject,
    Listing,
    LocalObject,
    ModelUri,
    RemoteFile,
    StreamObject,
)

PLUGIN = PluginInfo(name="s", distribution="dist-s", version="1.5")
URI = ModelUri(scheme="s", location="a/b")
FILE = RemoteFile(path="x")
NAMED = r"plugin s \(dist-s 1\.5\) "


class AnsweringSource:
    """Answers every call with what it was made with; raises it when it is an exception."""

    def __init__(self, answer=None):
        self.answer = answer

    def _give(self):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def list_files(self, uri):
        return self._give()

    def locate(self, uri, file):
        return self._give()

    def close(self):
        self._give()


class PlacingSource(AnsweringSource):
    def cache_key(self, uri, pinned):
        return self._give()


class NamingSource(AnsweringSource):
    def file_name(self, uri):
        return self._give()


class PlacingNamingSource(PlacingSource, NamingSource):
    pass


def guarded(source):
    return guard_source(lambda: source, PLUGIN)


CALLS = {
    "list_files": lambda source: source.list_files(URI),
    "locate": lambda source: source.locate(URI, FILE),
    "close": lambda source: source.close(),
    "cache_key": lambda source: source.cache_key(URI, None),
    "file_name": lambda source: source.file_name(URI),
}


@pytest.mark.parametrize("call", CALLS)
class TestErrors:
    @pytest.mark.parametrize("raised", [KeyError("top-secret"), StopIteration(), SystemExit(1), OSError("disk")])
    def test_other_exceptions_are_the_plugins_bug(self, call, raised):
        with pytest.raises(PluginError, match=f"^{NAMED}failed in {call}: {type(raised).__name__}$") as caught:
            CALLS[call](guarded(PlacingNamingSource(raised)))

        assert caught.value.__cause__ is raised
        assert caught.value.hint == "report this to the authors of dist-s"

    def test_errors_of_the_source_get_the_plugins_name(self, call):
        raised = NotFoundError("no such model", uri="s://a/b")

        with pytest.raises(NotFoundError) as caught:
            CALLS[call](guarded(PlacingNamingSource(raised)))

        assert caught.value is raised
        assert caught.value.plugin == "s"

    def test_a_name_that_is_there_stays(self, call):
        with pytest.raises(SourceError) as caught:
            CALLS[call](guarded(PlacingNamingSource(AuthenticationError("no", plugin="vault"))))

        assert caught.value.plugin == "vault"

    def test_other_errors_of_the_contract_pass(self, call):
        raised = ConfigError("bad setting")

        with pytest.raises(ConfigError) as caught:
            CALLS[call](guarded(PlacingNamingSource(raised)))

        assert caught.value is raised

    def test_an_interrupt_passes(self, call):
        with pytest.raises(KeyboardInterrupt):
            CALLS[call](guarded(PlacingNamingSource(KeyboardInterrupt())))


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("list_files", Listing(uri=URI, files=(FILE,), pinned="r")),
        ("locate", HttpObject(url="https://h/x")),
        ("locate", LocalObject(path=Path("/x"))),
        ("close", None),
        ("cache_key", CacheKey(root="s/hub", repo="r", snapshot="main")),
        ("file_name", "model.bin"),
    ],
)
def test_right_answers_pass_unchanged(call, answer):
    assert CALLS[call](guarded(PlacingNamingSource(answer))) is answer


@pytest.mark.parametrize(
    ("call", "answer", "message"),
    [
        ("list_files", None, "returned NoneType from list_files, expected Listing"),
        ("list_files", [FILE], "returned list from list_files, expected Listing"),
        ("list_files", Listing(uri=URI, files=[FILE]), "returned list from list_files, expected a tuple"),
        ("list_files", Listing(uri=URI, files=(FILE, "x")), "returned str from list_files, expected RemoteFile"),
        ("locate", None, "returned NoneType from locate, expected HttpObject"),
        ("locate", "https://user:top-secret@h/x", "returned str from locate, expected HttpObject"),
        ("cache_key", "s/hub", "returned str from cache_key, expected CacheKey"),
        ("file_name", None, "returned NoneType from file_name, expected str"),
    ],
)
def test_wrong_answers_are_the_plugins_bug(call, answer, message):
    with pytest.raises(PluginError, match=f"^{NAMED}{message}") as caught:
        CALLS[call](guarded(PlacingNamingSource(answer)))

    assert "top-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "places", "names"),
    [
        (AnsweringSource, False, False),
        (PlacingSource, True, False),
        (NamingSource, False, True),
        (PlacingNamingSource, True, True),
    ],
)
def test_it_places_and_names_files_only_when_the_source_does(source, places, names):
    made = guarded(source())
    assert (isinstance(made, CachePlacement), isinstance(made, FileNaming)) == (places, names)


def test_opening_a_stream_is_guarded_too():
    stream = io.BytesIO(b"x")
    good = guarded(AnsweringSource(StreamObject(open=lambda: stream))).locate(URI, FILE)
    bad = guarded(AnsweringSource(StreamObject(open=lambda: 1 / 0))).locate(URI, FILE)

    assert good.open() is stream
    with pytest.raises(PluginError, match=f"{NAMED}failed in StreamObject.open: ZeroDivisionError"):
        bad.open()


@pytest.mark.parametrize("made", [None, object(), print])
def test_what_is_made_must_be_a_source(made):
    with pytest.raises(PluginError, match=f"{NAMED}returned .* from factory, expected a source with the method list_"):
        guarded(made)


def test_a_factory_that_fails():
    with pytest.raises(PluginError, match=f"{NAMED}failed in factory: ZeroDivisionError"):
        guard_source(lambda: 1 / 0, PLUGIN)


def test_its_repr_names_the_plugin():
    assert repr(guarded(AnsweringSource())) == "<source of plugin s (dist-s 1.5)>"


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (ValueError(), "ValueError"),
        (ValueError("a\n  b"), "ValueError: a b"),
        (
            OSError("GET https://user:p@ss@h/x?X-Signature=abc&y=1 'failed'"),
            "OSError: GET https://***@h/x?... 'failed'",
        ),
        (ValueError("x" * 1000), "ValueError: " + "x" * 300),
    ],
)
def test_describing_an_exception(exc, text):
    assert describe(exc) == text
