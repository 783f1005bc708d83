"""
What a plugin raises or returns, turned into the contract's errors with the plugin's name on them.

A plugin may raise the errors of :mod:`nim_core.errors`; anything else, and any answer of another type than the
contract's, is that plugin's bug and is reported as such.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO, Final, TypeVar

import attrs

from nim_core.errors import NimError, PluginError, SourceError
from nim_core.registry.abilities import BACKEND_ABILITIES, SINK_ABILITIES, abilities
from nim_core.registry.info import PluginInfo
from nim_core.types import (
    Adapter,
    AdapterLoader,
    Argument,
    Backend,
    Body,
    CacheKey,
    CachePlacement,
    CopyingSink,
    EngineCall,
    FileNaming,
    LaunchPlan,
    LaunchRequest,
    Listing,
    Location,
    ModelUri,
    NearbyOptions,
    NewObject,
    Option,
    Part,
    PartedSink,
    RemoteFile,
    RemoteReader,
    Secret,
    Sink,
    Source,
    StoredObject,
    StoredPart,
    StreamObject,
    Upload,
    Verdict,
)

__all__ = [
    "GuardedBackend",
    "GuardedSink",
    "attributed",
    "describe",
    "guard_backend",
    "guard_sink",
    "guard_source",
    "wrong_answer",
]

T = TypeVar("T")

_MAX_TEXT = 300
_USERINFO = re.compile(r"(?<=://)[^/\s]*@")
_QUERY = re.compile(r"(://[^\s?'\"]*\?)[^\s'\"]+")


def describe(exc: BaseException) -> str:
    """Return an exception's type and text in one line, its URLs without userinfo and query."""
    text = _QUERY.sub(r"\1...", _USERINFO.sub("***@", " ".join(str(exc).split())))
    return f"{type(exc).__name__}: {text[:_MAX_TEXT]}" if text else type(exc).__name__


@contextmanager
def attributed(plugin: PluginInfo, call: str) -> Iterator[None]:
    """
    Run ``call`` of ``plugin``.

    Raises:
        NimError: What the plugin raised; a SourceError has ``plugin`` filled in.
        PluginError: The plugin raised something else. Its text is left to the cause: it may hold a secret.
    """
    try:
        yield
    except SourceError as exc:
        exc.plugin = exc.plugin or plugin.name
        raise
    except NimError:
        raise
    except (Exception, SystemExit) as exc:
        raise PluginError(
            f"plugin {plugin.label} failed in {call}: {type(exc).__name__}", hint=_report_hint(plugin)
        ) from exc


def wrong_answer(plugin: PluginInfo, call: str, answer: object, expected: str) -> PluginError:
    """Return the error for an answer of the wrong type; the answer itself is not shown."""
    got = type(answer).__name__
    return PluginError(
        f"plugin {plugin.label} returned {got} from {call}, expected {expected}", hint=_report_hint(plugin)
    )


def guard_source(make: Callable[[], Source], plugin: PluginInfo) -> Source:
    """
    Make a source and return it wrapped, with every call and answer checked.

    Raises:
        PluginError: What was made lacks a method of :class:`~nim_core.types.Source`, or making it failed.
    """
    with attributed(plugin, "factory"):
        source = make()
    for method in ("list_files", "locate", "close"):
        if not callable(getattr(source, method, None)):
            raise wrong_answer(plugin, "factory", source, f"a source with the method {method}")
    guarded = _GUARDS[isinstance(source, CachePlacement), isinstance(source, FileNaming)]
    return guarded(source, plugin)


def guard_sink(make: Callable[[], Sink], plugin: PluginInfo) -> GuardedSink:
    """
    Make a sink and return it wrapped, with every call and answer checked.

    Raises:
        PluginError: What was made lacks a method of :class:`~nim_core.types.Sink`, or making it failed.
    """
    with attributed(plugin, "factory"):
        sink = make()
    for method in ("head", "list_objects", "put", "close"):
        if not callable(getattr(sink, method, None)):
            raise wrong_answer(plugin, "factory", sink, f"a sink with the method {method}")
    return GuardedSink(sink, plugin)


def guard_backend(make: Callable[[], Backend], plugin: PluginInfo) -> GuardedBackend:
    """
    Make a backend and return it wrapped, with every call and answer checked.

    Raises:
        PluginError: What was made lacks a method of :class:`~nim_core.types.Backend`, or making it failed.
    """
    with attributed(plugin, "factory"):
        backend = make()
    for method in ("options", "propose", "probe", "plan_launch"):
        if not callable(getattr(backend, method, None)):
            raise wrong_answer(plugin, "factory", backend, f"a backend with the method {method}")
    return GuardedBackend(backend, plugin)


def _report_hint(plugin: PluginInfo) -> str:
    return f"report this to the authors of {plugin.distribution}"


class _GuardedSource:
    """A source whose failures and answers carry its plugin's name."""

    def __init__(self, source: Any, plugin: PluginInfo) -> None:
        self._source = source
        self._plugin = plugin

    def __repr__(self) -> str:
        return f"<source of plugin {self._plugin.label}>"

    def list_files(self, uri: ModelUri) -> Listing:
        """List as the source does."""
        with attributed(self._plugin, "list_files"):
            listing = self._source.list_files(uri)
        if not isinstance(listing, Listing):
            raise wrong_answer(self._plugin, "list_files", listing, "Listing")
        if not isinstance(listing.files, tuple):
            raise wrong_answer(self._plugin, "list_files", listing.files, "a tuple as Listing.files")
        for file in listing.files:
            if not isinstance(file, RemoteFile):
                raise wrong_answer(self._plugin, "list_files", file, "RemoteFile in Listing.files")
        return listing

    def locate(self, uri: ModelUri, file: RemoteFile) -> Location:
        """Locate as the source does; opening a stream is guarded like the source's own calls."""
        with attributed(self._plugin, "locate"):
            location = self._source.locate(uri, file)
        if not isinstance(location, Location):
            raise wrong_answer(self._plugin, "locate", location, "HttpObject, LocalObject or StreamObject")
        if isinstance(location, StreamObject):
            return attrs.evolve(location, open=partial(self._open, location.open))
        return location

    def close(self) -> None:
        """Close as the source does."""
        with attributed(self._plugin, "close"):
            self._source.close()

    def _open(self, open_stream: Callable[[], BinaryIO]) -> BinaryIO:
        with attributed(self._plugin, "StreamObject.open"):
            return open_stream()


class _PlacingSource(_GuardedSource):
    """The same for a source that has an opinion on where its files live in the cache."""

    def cache_key(self, uri: ModelUri, pinned: str | None) -> CacheKey:
        """Place as the source does."""
        with attributed(self._plugin, "cache_key"):
            key = self._source.cache_key(uri, pinned)
        if not isinstance(key, CacheKey):
            raise wrong_answer(self._plugin, "cache_key", key, "CacheKey")
        return key


class _NamingSource(_GuardedSource):
    """The same for a source that names files without asking."""

    def file_name(self, uri: ModelUri) -> str:
        """Name as the source does."""
        with attributed(self._plugin, "file_name"):
            name = self._source.file_name(uri)
        if not isinstance(name, str):
            raise wrong_answer(self._plugin, "file_name", name, "str")
        return name


class _PlacingNamingSource(_PlacingSource, _NamingSource):
    """The same for a source that does both."""


_GUARDS: Final[Mapping[tuple[bool, bool], type[_GuardedSource]]] = {
    (False, False): _GuardedSource,
    (True, False): _PlacingSource,
    (False, True): _NamingSource,
    (True, True): _PlacingNamingSource,
}
"""By whether a source is a CachePlacement and whether it is a FileNaming."""


class GuardedSink:
    """
    A sink whose failures and answers carry its plugin's name.

    Attributes:
        copies: Whether it is a :class:`~nim_core.types.CopyingSink`; ``copy`` answers False where it is none.
        abilities: What it can do beyond the minimum, in words.
    """

    def __init__(self, sink: Any, plugin: PluginInfo) -> None:
        self._sink = sink
        self._plugin = plugin
        self._parted = isinstance(sink, PartedSink)
        self.copies = isinstance(sink, CopyingSink)
        self.abilities = abilities(sink, SINK_ABILITIES)

    def __repr__(self) -> str:
        return f"<sink of plugin {self._plugin.label}>"

    def head(self, key: str) -> StoredObject | None:
        """Ask as the sink does."""
        found = self._call("head", key)
        return None if found is None else self._checked("head", found, StoredObject)

    def list_objects(self, prefix: str) -> Iterable[StoredObject]:
        """List as the sink does."""
        with attributed(self._plugin, "list_objects"):
            for found in self._sink.list_objects(prefix):
                yield self._checked("list_objects", found, StoredObject)

    def put(self, new: NewObject, body: Body) -> None:
        """Write as the sink does."""
        self._call("put", new, body)

    def part_bytes(self, size: int) -> int | None:
        """Return the size of parts. None: an object of ``size`` bytes is written at once."""
        return self._call("part_bytes", size) if self._parted else None

    def begin(self, new: NewObject, token: Secret | None) -> Upload:
        """Begin as the sink does."""
        return self._checked("begin", self._call("begin", new, token), Upload)

    def put_part(self, new: NewObject, upload: Upload, part: Part) -> StoredPart:
        """Send a part as the sink does."""
        return self._checked("put_part", self._call("put_part", new, upload, part), StoredPart)

    def finish(self, new: NewObject, upload: Upload, parts: Sequence[StoredPart]) -> None:
        """Finish as the sink does."""
        self._call("finish", new, upload, parts)

    def abort(self, new: NewObject, upload: Upload) -> None:
        """Drop as the sink does."""
        self._call("abort", new, upload)

    def copy(self, new: NewObject, uri: ModelUri) -> bool:
        """Copy as the sink does."""
        return self.copies and bool(self._call("copy", new, uri))

    def close(self) -> None:
        """Close as the sink does."""
        self._call("close")

    def _call(self, method: str, *arguments: object) -> Any:
        with attributed(self._plugin, method):
            return getattr(self._sink, method)(*arguments)

    def _checked(self, method: str, answer: object, expected: type[T]) -> T:
        if not isinstance(answer, expected):
            raise wrong_answer(self._plugin, method, answer, expected.__name__)
        return answer


class GuardedBackend:
    """
    A backend whose failures and answers carry its plugin's name.

    Attributes:
        plugin: Brings it.
        loads_adapters: Whether it is an :class:`~nim_core.types.AdapterLoader`.
        abilities: What it can do beyond the minimum, in words.
    """

    def __init__(self, backend: Any, plugin: PluginInfo) -> None:
        self._backend = backend
        self.plugin = plugin
        self.loads_adapters = isinstance(backend, AdapterLoader)
        self.abilities = abilities(backend, BACKEND_ABILITIES)

    def __repr__(self) -> str:
        return f"<backend of plugin {self.plugin.label}>"

    def options(self) -> tuple[Option, ...]:
        """Tell as the backend does."""
        return self._several("options", Option)

    def options_are_exact(self) -> bool:
        """Tell as the backend does; True for those that know one version only."""
        if not isinstance(self._backend, NearbyOptions):
            return True
        return self._one("options_are_exact", bool)

    def reads_remotely(self, request: LaunchRequest) -> bool:
        """Tell as the backend does; False for those that cannot."""
        return isinstance(self._backend, RemoteReader) and self._one("reads_remotely", bool, request)

    def propose(self, request: LaunchRequest) -> tuple[Argument, ...]:
        """Propose as the backend does."""
        return self._several("propose", Argument, request)

    def probe(self, request: LaunchRequest) -> Verdict:
        """Judge as the backend does."""
        return self._one("probe", Verdict, request)

    def plan_launch(self, request: LaunchRequest) -> LaunchPlan:
        """Plan as the backend does."""
        return self._one("plan_launch", LaunchPlan, request)

    def load_adapter(self, adapter: Adapter, request: LaunchRequest) -> EngineCall:
        """Tell as the backend does; only where it loads adapters."""
        return self._one("load_adapter", EngineCall, adapter, request)

    def unload_adapter(self, adapter: Adapter, request: LaunchRequest) -> EngineCall:
        """Tell as the backend does; only where it loads adapters."""
        return self._one("unload_adapter", EngineCall, adapter, request)

    def _one(self, method: str, expected: type[T], *arguments: object) -> T:
        with attributed(self.plugin, method):
            answer = getattr(self._backend, method)(*arguments)
        if not isinstance(answer, expected):
            raise wrong_answer(self.plugin, method, answer, expected.__name__)
        return answer

    def _several(self, method: str, expected: type[T], *arguments: object) -> tuple[T, ...]:
        with attributed(self.plugin, method):
            answers = tuple(getattr(self._backend, method)(*arguments))
        for answer in answers:
            if not isinstance(answer, expected):
                raise wrong_answer(self.plugin, method, answer, f"{expected.__name__} in its answer")
        return answers
