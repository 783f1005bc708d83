"""
Which distribution usually brings a scheme, and other facts about schemes that hold without any plugin installed.

This is the one place in core where vendors' names may stand: as data, to give advice with.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["KNOWN_SCHEMES", "SCHEMA_1_SCHEME"]

KNOWN_SCHEMES: Mapping[str, str] = {
    "ngc": "nim-source-ngc",
    "hf": "nim-source-hf",
    "s3": "nim-source-s3",
    "gs": "nim-source-gcs",
    "modelscope": "nim-source-modelscope",
    "local": "nim-source-local",
    "http": "nim-source-http",
    "https": "nim-source-http",
}
"""Scheme to the distribution to install for it."""

SCHEMA_1_SCHEME = "ngc"
"""The scheme that a ``repo_id`` of a schema 1 manifest, which has none, stands for."""
