"""The command ``plugins new``: the project of a new plugin, from the template."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

import nim_core
from nim_core.cli.logging import printable
from nim_core.cli.output import write_data
from nim_core.cli.session import Session
from nim_core.errors import ConfigError, NimError

__all__ = ["new_plugin", "template_folder"]

_STEPS: Final = ("pip install --editable . --group dev", "pytest")


class Kind(StrEnum):
    """What a plugin brings."""

    SOURCE = "source"
    SINK = "sink"
    BACKEND = "backend"


class Ci(StrEnum):
    """Where a plugin's tests run."""

    NONE = "none"
    GITHUB = "github"
    GITLAB = "gitlab"


class License(StrEnum):
    """What others may do with a plugin."""

    APACHE = "Apache-2.0"
    MIT = "MIT"
    NONE = "none"


def new_plugin(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the plugin, and of its URIs' scheme: acme.")],
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Where to; named like the distribution when not given.")
    ] = None,
    *,
    kind: Annotated[
        Kind, typer.Option(help="What it brings: models to read, a place to mirror them to, an engine to serve them.")
    ] = Kind.SOURCE,
    summary: Annotated[str | None, typer.Option(help="What it reads, writes or serves, in a few words.")] = None,
    author: Annotated[str | None, typer.Option(help="Who publishes it.")] = None,
    licence: Annotated[License | None, typer.Option("--license", help="Its licence. [default: Apache-2.0]")] = None,
    ci: Annotated[Ci | None, typer.Option(help="Where its tests run. [default: none]")] = None,
    distribution: Annotated[
        str | None, typer.Option(metavar="NAME", help="Package that people install. [default: nim-KIND-NAME]")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Git repository of nim-core, so that copier update brings later changes."),
    ] = None,
    defaults: Annotated[bool, typer.Option("--defaults", help="Ask nothing, also at a terminal.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON, and ask nothing.")] = False,
) -> None:
    """
    Write the project of a new plugin: one that works, with its tests.

    At a terminal, what is not given is asked for. Needs nim-core[template]. Nothing is written into a folder that has
    files.
    """
    session: Session = context.obj
    session.start_logging(level="ERROR")
    package = distribution or f"nim-{kind.value}-{name}"
    target = folder or Path(package)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"there is something already: {target}", hint="name a folder that is new or empty")
    given = {"summary": summary, "author": author, "license": licence, "ci": ci}
    data = {"kind": kind.value, "name": name, "distribution": package}
    data |= {key: str(value) for key, value in given.items() if value is not None}
    _render(template, target, data, ask=not (defaults or as_json) and sys.stdin.isatty() and sys.stderr.isatty())
    _tell(target, as_json=as_json)


def template_folder() -> Path:
    """Return the folder that has ``copier.yml``: in an installed package, else in the source tree."""
    package = Path(nim_core.__file__).parent
    installed = package / "template"
    return installed if installed.is_dir() else package.parent


def _render(template: str | None, target: Path, data: Mapping[str, str], *, ask: bool) -> None:
    """
    Write the project; a template of somebody else's may not run programs.

    Args:
        template: Address. None: that of this version.
        target: Folder.
        data: Answers to the template's questions, by name.
        ask: Whether somebody can answer the others; else they have defaults.
    """
    try:
        from copier import run_copy
        from copier.errors import CopierAnswersInterrupt, CopierError
    except ImportError as exc:
        raise ConfigError(
            "new plugins are made by copier, which is not installed", hint='pip install "nim-core[template]"'
        ) from exc
    address, version = (template, None) if template else (str(template_folder()), "HEAD")
    try:
        with redirect_stdout(sys.stderr):  # questions; what is printed afterwards is data
            run_copy(address, target, data=dict(data), vcs_ref=version, defaults=not ask, quiet=True)
    except CopierAnswersInterrupt:
        raise KeyboardInterrupt from None
    except ValueError as exc:
        raise ConfigError(f"cannot write the project: {exc}") from exc
    except (CopierError, OSError) as exc:
        raise NimError(f"cannot write the project: {exc}") from exc


def _tell(target: Path, *, as_json: bool) -> None:
    """Say what was written, and what to do next."""
    files = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    steps = [f"cd {target}", *_STEPS]
    if as_json:
        write_data(json.dumps({"folder": str(target), "files": files, "next": steps}, indent=2))
        return
    lines = [*(f"{target}/{file}" for file in files), "", "next:", *(f"  {step}" for step in steps)]
    write_data("\n".join(map(printable, lines)))
