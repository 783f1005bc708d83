"""
The manifest of a model that has none: pure.

Which profiles there are follows from the model alone, never from a machine: tensor parallelism by 1, 2, 4 and 8, where
that divides the attention heads, and the KV heads, or is a multiple of them; pipeline parallelism by 2 and 4 on top of
the most tensor parallelism, where there are as many layers; each of these without and with LoRA. Of GGUF files, and of
a model whose ``config.json`` does not tell its heads, there is one profile, for one GPU, as what divides it is not
known.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from nim_core.errors import NotFoundError, UnsupportedError
from nim_core.manifest import Manifest, ManifestFile, Profile
from nim_core.profiles.estimate import GIB, estimate
from nim_core.profiles.model import Heads, Model, heads_of, shape_of, weight_bytes, weight_files
from nim_core.types import DIGEST_HEX_LENGTHS, ModelUri, RemoteFile
from nim_core.uris import file_uri

__all__ = ["MODEL_URI_TAG", "WEIGHT_BYTES_TAG", "generate_manifest"]

MODEL_URI_TAG: Final = "model_uri"
"""What the manifest was generated for."""

WEIGHT_BYTES_TAG: Final = "weight_bytes"
"""How large the weights are together, as nothing else of a manifest tells before they are in the cache."""

_ENGINE: Final = "vllm"
_TENSOR: Final = (1, 2, 4, 8)
_PIPELINE: Final = (2, 4)
_PART_OF_ONE: Final = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


@frozen(kw_only=True)
class _Way:
    """One way to run a model: tensor parallelism, pipeline parallelism, and whether for LoRA."""

    tp: int = 1
    pp: int = 1
    lora: bool = False


def generate_manifest(
    uri: ModelUri,
    files: Sequence[RemoteFile],
    config: Mapping[str, Any] | None = None,
    index: Mapping[str, Any] | None = None,
) -> Manifest:
    """
    Return the manifest of a model; the same arguments make the same one.

    An id is the SHA-256, as canonical JSON, of the URI as it is shown and of the tags ``llm_engine``, ``tp``, ``pp``
    and ``feat_lora``. So an id that somebody wrote down keeps its meaning when a file of the model changes, or when
    the estimate gets better; which content belongs to it the digests of the files tell.

    Args:
        uri: The model.
        files: What its source lists there.
        config: Content of ``config.json``. None where there is none.
        index: Content of the index of the weights. None where there is none.

    Raises:
        UnsupportedError: The URI names a single file.
        NotFoundError: There are no weights, or no ``config.json`` where the weights need one.
    """
    weights = weight_files(file.path for file in files)
    _check(uri, files, weights, config)
    model = _model(files, weights, config, index)
    heads = None if config is None or _are_gguf(weights) else heads_of(config)
    listed = tuple(_described(uri, file) for file in sorted(files, key=lambda file: file.path))
    profiles = (_profile(uri, way, model, listed) for way in _ways(heads))
    return Manifest(schema_version="2.0.0", profiles=tuple(profiles), origin=uri.display)


def _check(
    uri: ModelUri, files: Sequence[RemoteFile], weights: Sequence[str], config: Mapping[str, Any] | None
) -> None:
    shown = uri.display
    if uri.file is not None or [file.path for file in files] == [uri.location.rpartition("/")[2]]:
        raise UnsupportedError(
            f"names a single file, not a model: {shown}", uri=shown, hint="name the folder or repository it is in"
        )
    if not weights:
        raise NotFoundError(
            f"no weights of a model: {shown}",
            uri=shown,
            hint=f"it has {len(files)} files, but no *.safetensors, pytorch_model*.bin or *.gguf is among them",
        )
    if config is None and not _are_gguf(weights):
        raise NotFoundError(
            f"Missing HuggingFace configuration file named config.json: {shown}",
            uri=shown,
            hint="a model is a folder with config.json and the weights beside it",
        )


def _are_gguf(weights: Sequence[str]) -> bool:
    return weights[0].endswith(".gguf")


def _model(
    files: Sequence[RemoteFile],
    weights: Sequence[str],
    config: Mapping[str, Any] | None,
    index: Mapping[str, Any] | None,
) -> Model | None:
    """Return the model as far as memory goes. None when a size is missing, or GGUF files are several models."""
    sizes = {file.path: file.size for file in files if file.size is not None}
    known = all(path in sizes for path in weights)
    if _are_gguf(weights) and len(weights) > 1:
        known = known and all(map(_PART_OF_ONE.search, weights))
    total = weight_bytes(sizes if known else {}, index)
    return None if total is None else Model(weights=total, shape=None if config is None else shape_of(config))


def _ways(heads: Heads | None) -> Iterator[_Way]:
    if heads is None:
        yield _Way()
        return
    tensor = [tp for tp in _TENSOR if _divides(tp, heads)]
    sizes = [(tp, 1) for tp in tensor] + [(tensor[-1], pp) for pp in _PIPELINE if pp <= heads.layers]
    yield from (_Way(tp=tp, pp=pp, lora=lora) for lora in (False, True) for tp, pp in sizes)


def _divides(tp: int, heads: Heads) -> bool:
    """Whether engines can divide a layer among so many GPUs; fewer KV heads than GPUs are copied."""
    return heads.query % tp == 0 and (heads.key_value % tp == 0 or tp % heads.key_value == 0)


def _described(uri: ModelUri, file: RemoteFile) -> ManifestFile:
    listed = {digest.algorithm: digest for digest in file.digests}
    strongest = next((listed[algorithm] for algorithm in DIGEST_HEX_LENGTHS if algorithm in listed), None)
    return ManifestFile(path=file.path, uri=file_uri(uri, file.path).display, digest=strongest)


def _profile(uri: ModelUri, way: _Way, model: Model | None, files: tuple[ManifestFile, ...]) -> Profile:
    tags = {"llm_engine": _ENGINE, "tp": str(way.tp), "pp": str(way.pp), "feat_lora": str(way.lora).lower()}
    canonical = json.dumps({MODEL_URI_TAG: uri.display, **tags}, sort_keys=True, separators=(",", ":"))
    known = {}
    if model is not None:
        gigabytes = estimate(model, tp=way.tp, pp=way.pp).total / GIB
        known = {"estimated_vram": f"{gigabytes:.1f}", WEIGHT_BYTES_TAG: str(model.weights)}
    return Profile(
        id=hashlib.sha256(canonical.encode()).hexdigest(),
        tags={**tags, **known, MODEL_URI_TAG: uri.display},
        files=files,
    )
