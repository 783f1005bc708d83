from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator
from datetime import datetime

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from nim_core.cli.logging import HUMAN, LogStyle, Stderr, configure, format_line, printable
from nim_core.cli.redact import MASK, Redactor
from nim_core.errors import ConfigError
from nim_core.settings import CORE_VARIABLES
from nim_core.types import Secret, Variables

MOMENT = datetime(2026, 3, 3, 12, 0, 10, 79_000).astimezone().timestamp()
BASE = {"timestamp": MOMENT, "level": "info", "filename": "download.py", "lineno": 42, "event": "file_published"}
JSON_LINES = LogStyle(json_lines=True)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Leave the logging of the process as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def human(**facts: object) -> str:
    return format_line(BASE | facts, LogStyle(), Redactor())


def test_the_form_for_people() -> None:
    line = human(file="config.json", bytes=512)
    assert line == "INFO 2026-03-03 12:00:10.079 download.py:42] file_published file=config.json bytes=512"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("with blank", '"with blank"'),
        ('say "x"', r'"say \"x\""'),
        ("", '""'),
        ("a\nb", r'"a\nb"'),
        ("k=v", '"k=v"'),
        (None, "null"),
        (True, "true"),
        (["a", 1], '["a", 1]'),
        ({"a": 1.5}, '{"a": 1.5}'),
        ("é", "é"),
    ],
)
def test_values_for_people(value: object, shown: str) -> None:
    assert human(x=value).endswith(f"] file_published x={shown}")


def test_a_sentence_for_people_takes_the_place_of_the_keys() -> None:
    assert human(bytes=1, **{HUMAN: "downloading  42%"}).endswith("download.py:42] downloading  42%")


def test_a_traceback_comes_below() -> None:
    assert human(exception="Traceback:\n  boom\x1b[2J").splitlines()[1:] == ["Traceback:", r"  boom\x1b[2J"]


def test_the_form_for_machines() -> None:
    line = format_line(BASE | {"bytes": 512, HUMAN: "x"}, JSON_LINES, Redactor())
    written = datetime.fromtimestamp(MOMENT).astimezone()
    parsed = json.loads(line)
    assert datetime.fromisoformat(parsed.pop("timestamp")) == written
    assert parsed == {"level": "INFO", "message": "file_published", "bytes": 512, "caller": "download.py:42"}
    assert list(json.loads(line))[:3] == ["timestamp", "level", "message"]


@given(st.text(), st.dictionaries(st.text(min_size=1), st.text() | st.integers() | st.none()))
def test_every_event_is_one_line(event: str, facts: dict[str, object]) -> None:
    facts.pop("exception", None)
    whole = facts | BASE | {"event": event}
    assert len(format_line(whole, JSON_LINES, Redactor()).splitlines()) == 1
    assert format_line(whole, LogStyle(), Redactor()).isprintable()
    assert json.loads(format_line(whole, JSON_LINES, Redactor()))["message"] == Redactor().text(event)


@given(
    st.text(st.characters(categories=("L", "N")), min_size=4).map("Zq{}".format),
    st.sampled_from([LogStyle(), JSON_LINES]),
)
def test_no_secret_in_any_line(secret: str, style: LogStyle) -> None:
    facts = {"event": f"got {secret}", "list": [secret], "deep": {"x": {"y": f"-{secret}-"}}, secret: 1}
    line = format_line(BASE | facts | {"typed": Secret(secret)}, style, Redactor([secret]))
    assert secret not in line


@pytest.mark.parametrize("secret", ["timestamp", "info", "event", "download.py", "message", HUMAN])
@pytest.mark.parametrize("style", [LogStyle(), JSON_LINES])
def test_a_secret_that_is_a_word_of_the_form_does_no_harm(secret: str, style: LogStyle) -> None:
    assert "file_published" in format_line(BASE | {"x": 1}, style, Redactor([secret]))


@given(st.text())
def test_printable(text: str) -> None:
    assert printable(text).isprintable()
    assert not text.isprintable() or printable(text) == text


@pytest.mark.parametrize(("value", "level"), [(None, "INFO"), ("debug", "DEBUG"), (" Warning ", "WARNING")])
def test_levels(value: str | None, level: str) -> None:
    environ = {} if value is None else {"NIM_LOG_LEVEL": value}
    assert LogStyle.from_variables(Variables(CORE_VARIABLES, environ)) == LogStyle(level=level)


def test_a_level_that_is_none() -> None:
    with pytest.raises(ConfigError) as caught:
        LogStyle.from_variables(Variables(CORE_VARIABLES, {"NIM_LOG_LEVEL": "LOUD"}))
    assert caught.value.message == "NIM_LOG_LEVEL is not a log level: 'LOUD'"
    assert caught.value.hint == "set NIM_LOG_LEVEL to one of DEBUG, INFO, WARNING, ERROR, CRITICAL"


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [re.sub(r" \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} ", " ", line) for line in captured.err.splitlines()]


def test_structlog_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogStyle(), Redactor(["hunter22"]), Stderr())
    log = structlog.get_logger("any")
    log.debug("unseen")
    log.info("seen", key="hunter22")
    line = lines_of(capsys)
    assert re.fullmatch(rf"INFO test_logging\.py:\d+\] seen key=\{MASK[0]}+", line[0].replace(MASK, "***"))


def test_the_standard_library_goes_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogStyle(level="DEBUG"), Redactor(), Stderr())
    logging.getLogger("some.library").warning("took %s s from https://u:p@h/", 3)
    (line,) = lines_of(capsys)
    assert re.fullmatch(r"WARNING test_logging\.py:\d+\] took 3 s from https://\*\*\*@h/", line)


def test_libraries_that_tell_urls_are_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogStyle(level="DEBUG"), Redactor(), Stderr())
    logging.getLogger("httpx").info("HTTP Request: GET https://host/?sig=x")
    logging.getLogger("httpcore.http11").debug("headers")
    assert lines_of(capsys) == []


def test_warnings_are_log_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogStyle(), Redactor(), Stderr())
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old", UserWarning, stacklevel=1)
    logging.captureWarnings(capture=False)
    assert "UserWarning: old" in capsys.readouterr().err


def test_exceptions_are_logged_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogStyle(), Redactor(["hunter22"]), Stderr())
    try:
        raise ValueError("no hunter22")
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("x").exception("failed")
    captured = capsys.readouterr().err
    assert captured.count("ValueError: no ***") == 2
    assert "hunter22" not in captured


def test_a_record_that_cannot_be_formatted_does_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogStyle(), Redactor(), Stderr())
    logging.getLogger("x").warning("%d", "no number")
    assert "Logging error" in capsys.readouterr().err


def test_lines_go_through_a_display_while_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    stderr, shown = Stderr(), list[str]()
    with stderr.through(shown.append):
        stderr.line("above")
    stderr.line("after")
    assert (shown, capsys.readouterr().err) == (["above"], "after\n")


def test_a_closed_stderr_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    Stderr().line("x")
