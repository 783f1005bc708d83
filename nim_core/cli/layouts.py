"""What ``create-model-store`` and ``download-model`` do: the download, the files outside the cache, the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

from attrs import frozen

from nim_core.cache.names import Way
from nim_core.cli.fetch import Request, fetch
from nim_core.cli.logging import HUMAN
from nim_core.cli.session import Session
from nim_core.cli.units import size
from nim_core.download import TargetResult
from nim_core.errors import CacheError
from nim_core.plan import Present
from nim_core.workspace.links import make_workspace
from nim_core.workspace.places import Made
from nim_core.workspace.plain import put_files
from nim_core.workspace.store import make_store

__all__ = ["LaidOut", "create_store", "create_workspace", "fill_folder", "result_as_json", "result_as_text"]

_WORDS: Final[Mapping[Way, tuple[str, str]]] = {
    "symlink": ("link", "links"),
    "reflink": ("reflink", "reflinks"),
    "hardlink": ("hard link", "hard links"),
    "copy": ("copy", "copies"),
}
_SHARED: Final = (
    "a hard link is the cache's own file: replace it, do not change it in place; --copy makes a store without any"
)


@frozen(kw_only=True)
class LaidOut:
    """What was downloaded, and where it was laid out."""

    item: TargetResult
    made: Made


def create_store(request: Request, folder: Path, session: Session, *, share: bool) -> LaidOut:
    """
    Make a model store.

    Args:
        request: What to download, one profile or model.
        folder: The store.
        session: The run of the command.
        share: Whether hard links into the cache may be made.

    Raises:
        NimError: In its most fitting subclass.
    """
    cache = request.cache_path or session.settings.cache_path
    trust = request.use_cache or session.settings.downloads_disabled

    def make(files: Mapping[str, Present]) -> Made:
        return make_store(files, folder, cache, share=share, trust=trust)

    done = _lay_out("model store", request, session, make)
    if done.made.ways["hardlink"]:
        import structlog

        structlog.get_logger().info("hard_links", store=str(folder), **{HUMAN: _SHARED})
    return done


def create_workspace(request: Request, folder: Path | None, session: Session) -> LaidOut:
    """Make a workspace, in a fresh temporary folder when none is given; else as :func:`create_store`."""
    cache = request.cache_path or session.settings.cache_path

    def make(files: Mapping[str, Present]) -> Made:
        return make_workspace(files, folder or _fresh_folder(), cache)

    return _lay_out("workspace", request, session, make)


def _fresh_folder() -> Path:
    try:
        return Path(mkdtemp(prefix="nim-workspace-"))
    except OSError as exc:
        raise CacheError(
            f"no temporary folder for the workspace: {(exc.strerror or str(exc)).lower()}",
            hint="name its folder by --workspace-path, or a folder for temporary ones by TMPDIR",
        ) from exc


def fill_folder(request: Request, folder: Path, session: Session) -> LaidOut:
    """Put a model's files into a folder among others; arguments and errors as :func:`create_store`."""
    return _lay_out("folder", request, session, lambda files: put_files(files, folder))


def _lay_out(what: str, request: Request, session: Session, make: Callable[[Mapping[str, Present]], Made]) -> LaidOut:
    (item,) = fetch(request, session).targets
    import structlog  # only after logging has been set up, see there

    log = structlog.get_logger()
    facts = {"label": item.target.label, "id": item.target.id, "files": item.files}
    log.info("laying_out", **facts, **{HUMAN: f"making {what}: {_count(item.files, ('file', 'files'))}"})
    made = make(item.present)
    log.info(
        "laid_out",
        **facts,
        folder=str(made.folder),
        made=dict(made.ways),
        kept=made.kept,
        **{HUMAN: _summary(what, made)},
    )
    return LaidOut(item=item, made=made)


def _summary(what: str, made: Made) -> str:
    """Return the line on what was made: ``model store /m: 18 files, 2.9 GB: 4 hard links, 14 copies``."""
    parts = [_count(made.ways[way], words) for way, words in _WORDS.items() if made.ways[way]]
    if made.kept:
        parts.append(f"{made.kept} there already")
    return f"{what} {made.folder}: {_count(made.files, ('file', 'files'))}, {size(made.bytes)}: {', '.join(parts)}"


def _count(number: int, words: tuple[str, str]) -> str:
    return f"{number} {words[number != 1]}"


def result_as_text(done: LaidOut) -> str:
    """Return the id and, after a tab, the folder."""
    return f"{done.item.target.id}\t{done.made.folder}"


def result_as_json(done: LaidOut) -> Mapping[str, Any]:
    """Return the result as it is printed with ``--json``."""
    return {
        "id": done.item.target.id,
        "label": done.item.target.label,
        "folder": str(done.made.folder),
        "files": done.made.files,
        "bytes": done.made.bytes,
        "fetched": done.item.fetched,
        "made": dict(done.made.ways),
        "kept": done.made.kept,
    }
