"""Structured logs: JSON lines for machines, readable lines on a terminal, the ids of the work at hand in both.

    with context(task_id=task.id):
        log.info("rendered", extra={"render_s": 1.2})

Whatever a library logs meanwhile carries the ids too. Nothing here logs a request's body or an Authorization header.
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

from serve.observability.redaction import redacted

__all__ = ["configure", "context", "current"]

_IDS: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("rushes_ids", default=())
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_LEVEL_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31;1m"}


@contextmanager
def context(**ids: str | None) -> Iterator[None]:
    """Put `task_id`, `batch_id`, `request_id` … on everything logged inside. None leaves one as it is."""
    now = dict(_IDS.get()) | {name: value for name, value in ids.items() if value is not None}
    token = _IDS.set(tuple(now.items()))
    try:
        yield
    finally:
        _IDS.reset(token)


def current() -> dict[str, str]:
    """The ids in force here, to hand to another process."""
    return dict(_IDS.get())


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """The ids, then what the call gave as `extra`."""
    own = {name: value for name, value in vars(record).items() if name not in _STANDARD and not name.startswith("_")}
    return {**dict(_IDS.get()), **own}


class JsonFormatter(logging.Formatter):
    """One JSON object: time (UTC), level, logger, message, ids, `extra`, and the error if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
        }
        for name, value in _fields(record).items():
            entry.setdefault(name, redacted(value) if isinstance(value, str) else value)
        if record.exc_info:
            entry["error"] = redacted(self.formatException(record.exc_info))
        return json.dumps(entry, default=lambda value: redacted(str(value)), ensure_ascii=False)


class TerminalFormatter(logging.Formatter):
    """`07:15:02 warning dispatcher: message  task_id=… cause=…`."""

    def __init__(self, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        fields = "".join(f"  {name}={value}" for name, value in _fields(record).items())
        level = record.levelname.lower()
        if self._colour and record.levelname in _LEVEL_COLOURS:
            level = f"{_LEVEL_COLOURS[record.levelname]}{level}\x1b[0m"
        said = _one_line(redacted(record.getMessage() + fields))
        line = f"{clock} {level} {record.name.removeprefix('serve.')}: {said}"
        if record.exc_info:
            line += "\n" + redacted(self.formatException(record.exc_info))
        return line


def _one_line(text: str) -> str:
    """A prompt with a line break in it, or an escape sequence, cannot forge a log line."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def configure(level: str = "INFO", *, stream: TextIO | None = None, as_json: bool | None = None) -> logging.Handler:
    """Send this process's logs to `stream` (stderr), as JSON unless it is a terminal. May be called again."""
    stream = stream or sys.stderr
    terminal = stream.isatty()
    handler = logging.StreamHandler(stream)
    handler.set_name("rushes")
    handler.setFormatter(
        JsonFormatter() if (as_json if as_json is not None else not terminal) else TerminalFormatter(terminal)
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.get_name() == "rushes"]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # One line a request is what the metrics are for; what it did to a task is logged by who did it.
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return handler
