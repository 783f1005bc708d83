"""
Model URIs: text to :class:`~nim_core.types.ModelUri`, without I/O.

The grammar is the one that the scheme's owner declares (:class:`~nim_core.types.UriStyle`), so that a stranger's
scheme parses as ours do. Nothing is decoded, and only the case of the scheme is normalised: ``str`` writes the text
again to the letter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from attrs import evolve

from nim_core.errors import InvalidUriError, NoPluginForSchemeError
from nim_core.known_schemes import KNOWN_SCHEMES
from nim_core.types import ModelUri, UriStyle, check_relative_path

__all__ = ["LOCAL_SCHEME_SENTENCE", "file_uri", "no_plugin_error", "parse_uri", "scheme_of", "without_file"]

LOCAL_SCHEME_SENTENCE: Final = "local:// is the scheme for files on this machine: local:///absolute/path"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_USERINFO = re.compile(r"(?<=://)[^/]*@")
_FILE_QUERY: Final = "?file="


def scheme_of(text: str) -> str:
    """
    Return the scheme of ``text`` in lower case.

    Raises:
        InvalidUriError: ``text`` is a bare path or a ``file://`` URI, has no scheme, or has control characters.
    """
    if _CONTROL.search(text):
        raise InvalidUriError(f"control character in URI: {_shown(text)!r}")
    match = _SCHEME.match(text)
    if match is None:
        raise InvalidUriError(f"no scheme in URI: {_shown(text)!r}", hint=LOCAL_SCHEME_SENTENCE)
    scheme = match[1].lower()
    if scheme == "file":
        raise InvalidUriError(f"file:// is not supported: {_shown(text)!r}", hint=LOCAL_SCHEME_SENTENCE)
    return scheme


def parse_uri(text: str, styles: Mapping[str, UriStyle]) -> ModelUri:
    """
    Read a model URI.

    Args:
        text: The URI as the user or a manifest wrote it.
        styles: The grammar of every scheme that an installed plugin owns.

    Raises:
        InvalidUriError: The text does not fit the scheme's grammar.
        NoPluginForSchemeError: ``styles`` does not have the scheme; the hint names the distribution to install.
    """
    scheme = scheme_of(text)
    style = styles.get(scheme)
    if style is None:
        raise no_plugin_error(scheme)
    rest = text[len(scheme) + len("://") :]
    if not rest:
        raise InvalidUriError(f"nothing after the scheme: {_shown(text)!r}")
    return _PARSERS[style](scheme, rest)


def without_file(uri: ModelUri) -> ModelUri:
    """Return the URI of the repository or folder that ``uri`` names a file of; an OBJECT URI is its own."""
    return ModelUri(scheme=uri.scheme, location=uri.location, revision=uri.revision, style=uri.style)


def file_uri(uri: ModelUri, path: str) -> ModelUri:
    """Return the URI of a file that is listed at ``uri``; an object is named by its own URI."""
    if uri.style is not UriStyle.OBJECT:
        return evolve(uri, file=path)
    return evolve(uri, location=f"{uri.location.removesuffix('/')}/{path}")


def no_plugin_error(scheme: str) -> NoPluginForSchemeError:
    """Return the error for a scheme that no plugin owns; its hint names the distribution to install."""
    distribution = KNOWN_SCHEMES.get(scheme)
    hint = f"install the plugin that brings {scheme}://, or check the spelling (nim-llm plugins list)"
    if distribution is not None:
        hint = f"pip install {distribution}"
    return NoPluginForSchemeError(f"no installed plugin for scheme: {scheme}://", hint=hint)


def _shown(text: str) -> str:
    """Return a URI that is not one, without what may be a password."""
    return _USERINFO.sub("***@", text)


def _split_file(scheme: str, rest: str) -> tuple[str, str | None]:
    """Cut ``?file=`` off; its value is all that follows, literally."""
    before, question, after = rest.partition("?")
    if not question:
        return before, None
    if not after.startswith("file="):
        raise InvalidUriError(
            f"unknown query in URI: {_shown(f'{scheme}://{before}')}?{after.partition('=')[0]}",
            hint=f"{scheme}:// knows one query: {_FILE_QUERY}PATH, literal",
        )
    return before, check_relative_path(after.removeprefix("file="))


def _parse_repository(scheme: str, rest: str) -> ModelUri:
    before, file = _split_file(scheme, rest)
    location, colon, revision = before.partition(":")
    if colon and (not revision or ":" in revision):
        raise InvalidUriError(
            f"bad revision in URI: {_shown(f'{scheme}://{rest}')}",
            hint=f"the form is {scheme}://ORG/MODEL:REVISION?file=PATH",
        )
    if not all(location.split("/")) or "@" in location or "@" in before.partition("/")[0]:
        raise InvalidUriError(
            f"bad repository in URI: {_shown(f'{scheme}://{rest}')}",
            hint=f"the form is {scheme}://ORG/MODEL:REVISION?file=PATH",
        )
    check_relative_path(location)
    return ModelUri(scheme=scheme, location=location, revision=revision or None, file=file, style=UriStyle.REPOSITORY)


def _parse_object(scheme: str, rest: str) -> ModelUri:
    if rest.startswith("/"):
        raise InvalidUriError(f"no host or bucket in URI: {scheme}://{rest}")
    return ModelUri(scheme=scheme, location=rest, style=UriStyle.OBJECT)


def _parse_path(scheme: str, rest: str) -> ModelUri:
    location, file = _split_file(scheme, rest)
    if not location.startswith("/"):
        raise InvalidUriError(
            f"path is not absolute: {scheme}://{rest}", hint=f"write three slashes: {scheme}:///{rest}"
        )
    return ModelUri(scheme=scheme, location=location, file=file, style=UriStyle.PATH)


_PARSERS: Final[Mapping[UriStyle, Callable[[str, str], ModelUri]]] = {
    UriStyle.REPOSITORY: _parse_repository,
    UriStyle.OBJECT: _parse_object,
    UriStyle.PATH: _parse_path,
}
