"""What this distribution brings: one source."""

from __future__ import annotations

from nim_core.hookspecs import hookimpl
from nim_core.types import SourceSpec, UriStyle
from nim_source_local.source import LocalSource


@hookimpl
def nim_register_sources() -> list[SourceSpec]:
    """Declare ``local://``."""
    return [
        SourceSpec(
            name="local",
            schemes=("local",),
            uri_style=UriStyle.PATH,
            summary="folders and files on this machine, used where they are",
            factory=LocalSource,
        )
    ]
