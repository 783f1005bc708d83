"""
From whatever a command raises to the text on stderr and the exit code: one ordered table, and nothing else decides.

The last line on stderr is the diagnosis, with what can be done about it: Kubernetes shows the end of a failed
container's log, and some tools only its last line::

    error: no installed plugin for scheme: s3:// (exit 24); hint: pip install nim-source-s3

On a terminal the hint has a line of its own; with NIM_JSONL_LOGGING the line is a JSON object like the others. Further
lines of an error's message, such as the profiles there are, come before it.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import typer
from attrs import frozen

from nim_core.cli.logging import format_line, printable
from nim_core.cli.output import forget_stdout, reader_is_gone
from nim_core.cli.session import Session, core_version
from nim_core.errors import NimError

__all__ = ["OTHER_EXIT_CODES", "Failure", "Terminated", "explain", "failure_text", "run"]

OTHER_EXIT_CODES: Final = {
    0: "done",
    1: "an internal error, to be reported, or any error without a code of its own",
    2: "the command line cannot be read or combines what excludes each other",
    130: "interrupted (SIGINT, Ctrl-C)",
    141: "nobody read the output any more, as after `| head`",
    143: "terminated (SIGTERM)",
}
"""Exit codes that no error class has, and what they mean."""

# typer exports its usage error only through this subclass
_UsageError: Final[Any] = typer.BadParameter.__base__


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; ends a command just as an interrupt does."""


class Command(Protocol):
    """A command as typer makes it."""

    def make_context(self, info_name: str | None, args: list[str], *, obj: object) -> Any:
        """Parse the arguments."""

    def invoke(self, ctx: Any) -> Any:
        """Run it."""


@frozen(kw_only=True)
class Failure:
    """
    How a command ends when it does not succeed.

    Attributes:
        exit_code: What the process ends with.
        message: The diagnosis, one line. Empty when nothing is to be said.
        hint: What can be done.
        details: Lines to show before the diagnosis.
    """

    exit_code: int
    message: str = ""
    hint: str | None = None
    details: tuple[str, ...] = ()


def run(command: Command, arguments: Sequence[str], name: str, session: Session) -> int:
    """Run a command and return its exit code; whatever it raises has been explained on stderr by then."""
    try:
        with command.make_context(name, list(arguments), obj=session) as context:
            command.invoke(context)
    except BaseException as error:  # noqa: BLE001 -- the one place where everything ends
        failure = explain(error)
        _report(failure, error, session)
        return failure.exit_code
    return 0


def explain(error: BaseException) -> Failure:
    """Return what ``error`` means for the user."""
    return next(make for kind, make in _TABLE if isinstance(error, kind))(error)


def _ended(error: Any) -> Failure:
    return Failure(exit_code=error.exit_code)


def _usage(error: Any) -> Failure:
    message = str(error.format_message()).rstrip(".")
    context = error.ctx
    return Failure(
        exit_code=error.exit_code,
        message=message[:1].lower() + message[1:],
        hint=f"see {context.command_path} --help" if context else None,
    )


def _known(error: Any) -> Failure:
    first, *details = error.message.split("\n")
    uri = getattr(error, "uri", None)
    if uri and uri not in first:
        first = f"{first}: {uri}"
    return Failure(exit_code=error.exit_code, message=first, hint=error.hint, details=tuple(details))


def _broken_pipe(error: BaseException) -> Failure:
    """Tell the reader of our output from a connection: only the former went away on purpose."""
    if not reader_is_gone():
        return _internal(error)
    forget_stdout()
    return Failure(exit_code=141)


def _internal(error: BaseException) -> Failure:
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return Failure(
        exit_code=1,
        message=f"internal error: {what.splitlines()[0]}",
        hint=f"this is a bug in nim-core {core_version()}; please report it with the output under NIM_LOG_LEVEL=DEBUG",
    )


_KEPT: Final = "what was fetched is kept, the same command goes on with it"

_TABLE: Final[tuple[tuple[type[BaseException], Callable[[Any], Failure]], ...]] = (
    (typer.Exit, _ended),
    (_UsageError, _usage),
    (NimError, _known),
    (Terminated, lambda _error: Failure(exit_code=143, message="terminated", hint=_KEPT)),
    (KeyboardInterrupt, lambda _error: Failure(exit_code=130, message="interrupted", hint=_KEPT)),
    (BrokenPipeError, _broken_pipe),
    (BaseException, _internal),
)


def _report(failure: Failure, error: BaseException, session: Session) -> None:
    if not failure.message:
        return
    style = session.log_style
    trace = "".join(traceback.format_exception(error)).splitlines() if style.level == "DEBUG" else []
    if style.json_lines:
        session.stderr.line(format_line(_as_event(failure, trace), style, session.redactor))
        return
    lines = [*map(printable, trace), failure_text(failure, session)]
    session.stderr.line(session.redactor.text("\n".join(lines)))


def _as_event(failure: Failure, trace: Sequence[str]) -> dict[str, Any]:
    event = {"timestamp": time.time(), "level": "error", "event": failure.message, "exit_code": failure.exit_code}
    extra = {"hint": failure.hint, "details": failure.details, "exception": "\n".join(trace)}
    return event | {name: value for name, value in extra.items() if value}


def failure_text(failure: Failure, session: Session) -> str:
    """Return the lines that say what went wrong, the diagnosis last."""
    label = "\x1b[1;31merror:\x1b[0m" if session.colours else "error:"
    diagnosis = f"{label} {printable(failure.message)} (exit {failure.exit_code})"
    hint = "" if failure.hint is None else f"hint: {printable(' '.join(failure.hint.split()))}"
    separator = "\n" if session.on_terminal else "; "
    return "\n".join([*map(printable, failure.details), separator.join(filter(None, (diagnosis, hint)))])
