"""Tokens of uploads that are under way, kept for the process that goes on with them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path
from typing import Final

from nim_core.cache.layout import Layout, make_folder
from nim_core.errors import CacheError
from nim_core.types import NewObject, Secret

__all__ = ["Tokens"]

_FORGOTTEN_SECONDS: Final = 7 * 86_400.0
"""As long as Google Cloud Storage keeps an unfinished upload (cloud.google.com/storage/docs/resumable-uploads)."""


class Tokens:
    """
    Files in ``tmp/uploads`` of a cache, one per upload, readable by their owner alone: a token may open an upload.

    Nothing depends on them but bytes that would be sent twice: where they cannot be written, there are none.

    Args:
        layout: Of the cache.
        place: Names the sink and its bucket.
    """

    def __init__(self, layout: Layout, place: str) -> None:
        self._layout = layout
        self._folder = layout.partials / "uploads"
        self._place = place

    def find(self, new: NewObject) -> Secret | None:
        """Return the token of an upload of this content to this key. None: there is none."""
        try:
            return Secret(self._path(new).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def keep(self, new: NewObject, token: Secret) -> None:
        """Remember a token."""
        with contextlib.suppress(OSError, CacheError):
            make_folder(self._layout.path, str(self._folder.relative_to(self._layout.path)))
            path = self._path(new)
            draft = path.with_suffix(f".{os.getpid()}")
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(token.reveal())
            draft.replace(path)

    def forget(self, new: NewObject) -> None:
        """Forget the token of an upload that is over."""
        with contextlib.suppress(OSError):
            self._path(new).unlink(missing_ok=True)

    def prune(self) -> None:
        """Remove tokens that no store knows any more."""
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                if time.time() - path.lstat().st_mtime > _FORGOTTEN_SECONDS:
                    path.unlink()

    def _path(self, new: NewObject) -> Path:
        text = "\n".join([self._place, new.key, *sorted(str(digest) for digest in new.digests)])
        return self._folder / hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
