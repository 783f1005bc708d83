"""What ``huggingface-cli download`` does."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from nim_core.cli.fetch import Request, fetch
from nim_core.cli.layouts import fill_folder
from nim_core.cli.selection import Choice
from nim_core.cli.session import Session
from nim_core.errors import NotFoundError
from nim_core.plan import Patterns, Present

__all__ = ["HubRequest", "download_from_hub"]


@frozen(kw_only=True)
class HubRequest:
    """
    What of the Hub is asked for.

    Attributes:
        repo: ``org/name``.
        dataset: Whether that is a dataset and not a model.
        files: Paths in it. Empty for what patterns choose.
        revision: Branch, tag or commit. None for the default one.
        include: Patterns, as for :class:`~nim_core.plan.Patterns`, like the next.
        exclude: Patterns.
        force: Whether what is cached is fetched again.
        max_connections: Connections at once, at most.
    """

    repo: str
    dataset: bool = False
    files: tuple[str, ...] = ()
    revision: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    force: bool = False
    max_connections: int = 32

    @property
    def uri(self) -> str:
        """Its URI."""
        return f"hf://{'datasets/' if self.dataset else ''}{self.repo}" + (f":{self.revision}" if self.revision else "")


def download_from_hub(request: HubRequest, folder: Path | None, session: Session) -> Path:
    """
    Download, and return where the files are.

    Args:
        request: What is asked for.
        folder: Where they are laid out. None leaves them in the cache.
        session: The run of the command.

    Raises:
        NimError: In its most fitting subclass.
    """
    wanted = Request(
        choice=Choice(),
        model_uri=request.uri,
        patterns=Patterns(include=request.include or tuple(map(glob.escape, request.files)), exclude=request.exclude),
        force=request.force,
        max_connections=request.max_connections,
    )
    if folder is None:
        (item,) = fetch(wanted, session).targets
        _check_there(request, item.present)
        return _snapshot(item.present)
    done = fill_folder(wanted, folder, session)
    _check_there(request, done.item.present)
    return done.made.folder


def _check_there(request: HubRequest, present: Mapping[str, Present]) -> None:
    absent = [path for path in request.files if path not in present]
    if absent:
        raise NotFoundError(f"{request.repo} has no file of this name: {', '.join(absent)}", uri=request.uri)


def _snapshot(present: Mapping[str, Present]) -> Path:
    """Return the folder that files are in by their paths."""
    path, file = next(iter(present.items()))
    link = file.link or file.blob
    return link.parents[path.count("/")]
