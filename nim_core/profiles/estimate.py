"""
How much memory a model takes on each GPU: pure. ``docs/profiles.md`` has the formula in full, with worked examples.

::

    per GPU     = weights / tp x share + KV cache + activations + overhead
    share       = ceil(layers / pp) / layers
    KV cache    = share x sum over kinds of layers of: layers x ceil(heads / tp) x values x bytes x tokens
    tokens      = context, or window + 8192 if that is less
    activations = 8192 x (2 x hidden + 2 x intermediate / tp) x 2 + 256 x vocabulary x 4 x 2
    overhead    = 1.5 GiB, and 0.5 GiB more on several GPUs

8192 tokens and 256 sequences are what engines put into one step at most by default; the overhead is the context of the
driver, captured graphs and the buffers of collective operations.
"""

from __future__ import annotations

import math
from typing import Final

from attrs import frozen

from nim_core.profiles.model import Attention, Model, ModelShape

__all__ = ["CONTEXT_STEP", "GIB", "Estimate", "estimate", "largest_context"]

GIB: Final = 2**30
"""What the product and the drivers call a GB of GPU memory."""

CONTEXT_STEP: Final = 1024
"""Suggested contexts are multiples of this many tokens."""

_BATCH_TOKENS: Final = 8192
_SEQUENCES: Final = 256
_RESERVE: Final = 0.05


@frozen(kw_only=True)
class Estimate:
    """
    Bytes on each GPU.

    Attributes:
        weights: Of the model.
        cache: Keys and values of one request of full length.
        activations: Of one step.
        overhead: Of driver and engine.
    """

    weights: int
    cache: int
    activations: int
    overhead: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.activations + self.overhead


def estimate(model: Model, *, tp: int = 1, pp: int = 1, context: int | None = None) -> Estimate:
    """
    Return what ``model`` takes on each GPU.

    Args:
        model: Where its shape is not known, weights and overhead are all that is counted.
        tp: GPUs that each layer is divided among.
        pp: Groups of GPUs that the layers are divided among.
        context: Tokens of the longest request. None for the model's own longest; more than that is that.
    """
    overhead = int(1.5 * GIB) + (GIB // 2 if tp * pp > 1 else 0)
    shape = model.shape
    if shape is None:
        return Estimate(weights=math.ceil(model.weights / tp / pp), cache=0, activations=0, overhead=overhead)
    share = math.ceil(shape.layers / pp) / shape.layers
    tokens = shape.context if context is None else min(context, shape.context)
    return Estimate(
        weights=math.ceil(model.weights / tp * share),
        cache=math.ceil(share * sum(_cache(kind, shape.cache_bytes, tp, tokens) for kind in shape.attention)),
        activations=_activations(shape, tp),
        overhead=overhead,
    )


def _cache(kind: Attention, width: int, tp: int, tokens: int) -> int:
    """Return the bytes that all layers of one kind keep; each GPU has at least one head."""
    kept = tokens if kind.window is None else min(tokens, kind.window + _BATCH_TOKENS)
    return kind.layers * math.ceil(kind.heads / tp) * kind.values * width * kept


def _activations(shape: ModelShape, tp: int) -> int:
    step = _BATCH_TOKENS * (2 * shape.hidden + 2 * math.ceil(shape.intermediate / tp)) * 2
    return step + _SEQUENCES * shape.vocabulary * 4 * 2


def largest_context(model: Model, available: int, *, tp: int = 1, pp: int = 1) -> int | None:
    """
    Return the longest context that fits, for a suggestion: a multiple of :data:`CONTEXT_STEP`.

    Args:
        model: As for :func:`estimate`.
        available: Free bytes on each GPU, of which 5 % are left free.
        tp: As for :func:`estimate`, like ``pp``.
        pp: As above.

    Returns:
        None when not even one step fits, or the shape is not known.
    """
    if model.shape is None:
        return None
    usable = available * (1 - _RESERVE)
    low, high = 0, model.shape.context // CONTEXT_STEP
    while low < high:
        middle = (low + high + 1) // 2
        fits = estimate(model, tp=tp, pp=pp, context=middle * CONTEXT_STEP).total <= usable
        low, high = (middle, high) if fits else (low, middle - 1)
    return low * CONTEXT_STEP or None
