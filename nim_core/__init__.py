"""Get a model from wherever it lives to a serving engine: verified, resumable, from any source."""

from nim_core.hookspecs import hookimpl

__all__ = ["hookimpl"]
