"""A plugin that brings next to nothing, installed by hand; every argument breaks something."""

from __future__ import annotations

from pathlib import Path

__all__ = ["install"]

PACKAGE = """
from nim_core import hookimpl
from nim_core.types import EnvVar
{imports}

@hookimpl
def nim_register_environment():
    {body}
    return [EnvVar(name="{variable}", summary="a variable")]
"""


def install(folder: Path, *, requires="nim-core>=1.0.0.dev0,<2", imports="", body="pass", variable="PLAIN_URL") -> None:
    """Write the distribution ``plain`` with one plugin."""
    info = folder / "plain-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: plain\nVersion: 1.0\nRequires-Dist: {requires}\n")
    (info / "entry_points.txt").write_text("[nim_core.plugins]\nplain = plain_plugin\n")
    (info / "RECORD").write_text("plain_plugin.py,,\n")
    (folder / "plain_plugin.py").write_text(PACKAGE.format(imports=imports, body=body, variable=variable))
