"""What the cache knows about the models of profiles: sizes of files, ``config.json``, the index of the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nim_core.cache.index import ReceiptIndex
from nim_core.cache.layout import Layout
from nim_core.cache.receipts import ReceiptFile, receipts_of
from nim_core.manifest import Profile
from nim_core.profiles.generate import WEIGHT_BYTES_TAG
from nim_core.profiles.model import INDEX_NAME, Model, shape_of, weight_bytes

__all__ = ["CachedModels"]

_LARGEST: Final = 64 * 1024 * 1024


class CachedModels:
    """
    Finds out about models without a network: a profile's own receipt says all, and what another profile fetched of the
    same files will do as well.

    Args:
        cache_path: Folder of the cache; it need not exist.
    """

    def __init__(self, cache_path: Path) -> None:
        self._layout = Layout(cache_path)
        self._index = ReceiptIndex(self._layout)
        self._by_uri: dict[str, ReceiptFile] | None = None
        self._read: dict[str, Mapping[str, Any] | None] = {}

    def model_of(self, profile: Profile) -> Model | None:
        """
        Return what is known of a profile's model.

        None when its weights are not all in the cache, and its tags do not say how large they are.
        """
        stated = int(profile.tags.get(WEIGHT_BYTES_TAG, 0))
        files = self._files(profile) or (self._cached(profile) if stated else None)
        if files is None:
            return None
        index = self._json(files.get(INDEX_NAME))
        weights = stated or weight_bytes({path: file.size for path, file in files.items()}, index)
        if weights is None:
            return None
        config = self._json(files.get("config.json"))
        return Model(weights=weights, shape=None if config is None else shape_of(config))

    def _files(self, profile: Profile) -> dict[str, ReceiptFile] | None:
        """Return the profile's files by path. None when one is missing."""
        own = self._index.files_of(profile.id)
        if own:
            return {file.path: file for file in own.values()}
        known = self._known()
        if not known or not profile.files or any(file.uri not in known for file in profile.files):
            return None
        return self._cached(profile)

    def _cached(self, profile: Profile) -> dict[str, ReceiptFile]:
        known = self._known()
        return {file.path: known[file.uri] for file in profile.files if file.uri in known}

    def _known(self) -> dict[str, ReceiptFile]:
        if self._by_uri is None:
            self._by_uri = {file.uri: file for receipt in receipts_of(self._layout) for file in receipt.files}
        return self._by_uri

    def _json(self, file: ReceiptFile | None) -> Mapping[str, Any] | None:
        """Return the content of a JSON file of the cache. None when it is not there, or is something else."""
        if file is None or file.size > _LARGEST:
            return None
        if file.blob not in self._read:
            try:
                value = json.loads((self._layout.path / (file.link or file.blob)).read_bytes())
            except (OSError, ValueError, RecursionError):
                value = None
            self._read[file.blob] = value if isinstance(value, dict) else None
        return self._read[file.blob]
