"""The arguments of ``transformers serve`` that are taken; those of 5.17 to 5.23 are the same."""

from __future__ import annotations

from typing import Final

from nim_core.types import Option

__all__ = ["ENGINE", "LAUNCH", "OPTIONS"]

ENGINE: Final = (
    Option(name="continuous-batching", kind="switch"),
    Option(name="attn-implementation"),
    Option(name="compile", kind="switch"),
    Option(name="quantization", choices=("bnb-4bit", "bnb-8bit")),
    Option(name="reasoning", choices=("on", "off", "auto")),
    Option(name="chat-template-kwargs", kind="json"),
    Option(name="device"),
    Option(name="dtype"),
    Option(name="trust-remote-code", kind="switch"),
    Option(name="cb-block-size", kind="integer"),
    Option(name="cb-num-blocks", kind="integer"),
    Option(name="cb-max-batch-tokens", kind="integer"),
    Option(name="cb-max-memory-percent", kind="number"),
    Option(name="cb-use-cuda-graph", kind="switch"),
    Option(name="log-level", choices=("debug", "info", "warning", "error", "critical")),
    Option(name="default-seed", kind="integer"),
)
"""Arguments that are passed on."""

LAUNCH: Final = (
    Option(name="served-model-name", many=True),
    Option(name="api-key", many=True, secret=True),
    Option(name="host"),
    Option(name="port", kind="integer"),
)
"""Arguments of other engines that are turned into something else: this one knows neither names nor keys."""

OPTIONS: Final = (*ENGINE, *LAUNCH)
