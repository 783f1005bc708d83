"""
Taking secrets out of what people read: pure, and the last thing that happens to a text before it is written.

Three nets, the surest first: values known to be secret (by type, or declared so by their variable), the places in a URL
that hold secrets (userinfo, signatures and tokens in the query), and names that sound like one. A text without any of
these is returned unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus, unquote

from nim_core.types import Secret, Variables

__all__ = ["MASK", "Redactor", "secret_values"]

MASK: Final = "***"

_MIN_LENGTH: Final = 4
"""A shorter value is no secret, and taking out every "1" would leave no text."""

_TELLING: Final = r"token(?!iz)|secret|passw(?:or)?d|api[-_]?key|authorization|cookie"
_SECRET_NAME = re.compile(_TELLING, re.IGNORECASE)

_USERINFO = re.compile(r"(?P<keep>[a-z][a-z0-9+.-]{0,30}://)(?!USER:PASSWORD@)[^\s/?#\"'<>]+(?=@)", re.IGNORECASE)
_QUERY = re.compile(
    r"(?P<keep>(?:[?&;]|%3f|%26)"
    r"(?:[\w.-]{0,60}(?:" + _TELLING + r"|signature|credential)[\w.-]{0,60}"
    r"|sig|policy|key-pair-id|awsaccesskeyid|googleaccessid)(?:=|%3d))"
    r"[^\s&;#\"'<>]+",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"(?P<keep>\b(?:(?:proxy-)?authorization|(?:set-)?cookie|x-[\w-]{0,60}(?:token|key))['\"]?\s*:\s*['\"]?)"
    r"[^'\"\r\n]+",
    re.IGNORECASE,
)
_SCHEME = re.compile(
    r"(?P<keep>\b(?i:bearer|basic)\s+)(?=[\w.~+/=-]*(?:[\d=+/]|[a-z][A-Z]))[\w.~+/=-]{8,}",  # not a mere word
)
_ASSIGNMENT = re.compile(
    r"(?P<keep>[\w-]{0,60}(?:" + _TELLING + r")[\w-]{0,60}['\"]?=['\"]?)[^\s'\"&;,)\]}]+",
    re.IGNORECASE,
)
_NEXT_URL = re.compile(r"\s*,\s*(?=[a-z][a-z0-9+.-]{0,30}://)", re.IGNORECASE)
_PATTERNS: Final = (_USERINFO, _QUERY, _HEADER, _SCHEME, _ASSIGNMENT)


class Redactor:
    """
    Takes secrets out of texts and log events.

    Args:
        secrets: Values that must not be seen, wherever they stand.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        written = {form for secret in secrets if len(secret) >= _MIN_LENGTH for form in _written_forms(secret)}
        longest_first = sorted(written, key=lambda form: (-len(form), form))
        self._known = re.compile("|".join(map(re.escape, longest_first))) if written else None

    def text(self, text: str) -> str:
        """Return ``text`` with :data:`MASK` in place of every secret."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        for pattern in _PATTERNS:
            text = pattern.sub(_mask, text)
        return text

    def value(self, name: str, value: object) -> object:
        """Return ``value``, known by ``name``, fit to be shown: numbers and the like as they are, all else as text."""
        if isinstance(value, Secret) or (_SECRET_NAME.search(name) and not isinstance(value, bool | None)):
            return MASK
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(str(key), item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(name, item) for item in value]
        return self.text(value if isinstance(value, str) else str(value))

    def event(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Return a log event fit to be shown."""
        return {self.text(name): self.value(name, value) for name, value in event.items()}


def secret_values(variables: Variables) -> set[str]:
    """
    Return what must not be seen of the variables that are declared secret.

    Of a URL, such as a proxy's, that is its user and password; the host stays readable, because diagnoses name it.
    """
    texts = {
        item.name: (variables.text(item.name) or "").strip()
        for item in variables.declared
        if item.secret and variables.is_set(item.name)
    }
    urls = (url for name, text in texts.items() if text for url in _NEXT_URL.split(_as_url(name, text)))
    return {part for url in urls for part in _secret_parts(url)}


def _as_url(variable: str, text: str) -> str:
    """Give a proxy written as ``host:port`` the scheme it stands for, so that it is seen to be no secret."""
    return f"http://{text}" if variable.lower().endswith("_proxy") and "://" not in text else text


def _secret_parts(text: str) -> set[str]:
    if "://" not in text or _QUERY.search(text):
        return {text}
    userinfo, at, _host = text.partition("://")[2].rpartition("@")
    if not at:
        return set()
    return {userinfo, userinfo.partition(":")[2]} - {""}


def _written_forms(secret: str) -> set[str]:
    """Return the ways ``secret`` may be written: as it is, decoded, in a URL, in JSON, in a Python literal."""
    plain = {secret, unquote(secret)}
    quoted = {form for text in plain for form in (quote(text, safe=""), quote(text), quote_plus(text))}
    escaped = {form for text in plain for form in (json.dumps(text)[1:-1], repr(text)[1:-1])}
    return {form for form in plain | quoted | escaped if len(form) >= _MIN_LENGTH}


def _mask(match: re.Match[str]) -> str:
    return match["keep"] + MASK
