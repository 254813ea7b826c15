"""Logging on the standard library: one handler, two styles, secrets masked."""

import json
import logging
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from opentelemetry.trace import format_span_id, format_trace_id, get_current_span
from pydantic import JsonValue

from fastapi_kit._masking import mask_fields
from fastapi_kit._text import text_of
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.middleware.request_id import get_request_id

__all__ = ["configure_logging"]

HANDLER_NAME = "fastapi_kit"
ACCESS_LOG = "uvicorn.access"
SERVERS = [
    logging.getLogger(name) for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi", ACCESS_LOG, "gunicorn.error", "gunicorn.access")
]


def configure_logging(*, level: str = "INFO", style: Literal["console", "json"] = "console") -> None:
    """Write every record of *level* and above to stderr, with request id and trace id. Passwords, tokens and keys are masked.

    Call it at import, in the module that makes the application. A second call replaces the first.

    Handlers of the root logger that write to stdout or stderr are removed. The loggers of uvicorn and gunicorn use this handler,
    whether the server configures its logging before or after the call. ``uvicorn.access`` is turned off: ``AccessLogMiddleware``
    writes that line without the query string. All other handlers stay.

    Args:
        level: A level of the logging module, in upper or lower case.
        style: ``json`` writes one object per line: ``time`` (UTC, RFC 3339), ``level``, ``logger``, ``message``; ``request_id``,
            ``trace_id``, ``span_id``, ``exception`` and ``stack`` where they exist; and the record's extras. ``console`` is for
            people: one line, and an indented traceback. In both, line ends in the logged text are escaped.

    Raises:
        ConfigurationError: *level* or *style* is unknown.
    """
    number = logging.getLevelNamesMapping().get(str(level).strip().upper())
    if number is None:
        raise ConfigurationError(f"level {level!r} is not a level of the logging module: use DEBUG, INFO, WARNING, ERROR or CRITICAL")
    if style not in RENDERERS:
        raise ConfigurationError(f"style {style!r} is unknown: use {' or '.join(RENDERERS)}")
    handler = StderrHandler()
    handler.set_name(HANDLER_NAME)
    handler.addFilter(add_ids)
    handler.setFormatter(RecordFormatter(RENDERERS[style]))
    root = logging.getLogger()
    for other in [*terminal_handlers(root), *(each for each in root.handlers if each.get_name() == HANDLER_NAME)]:
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(number)
    redirect_servers()
    # At DEBUG aiosqlite logs every statement with its values.
    aiosqlite = logging.getLogger("aiosqlite")
    if aiosqlite.level == logging.NOTSET:
        aiosqlite.setLevel(logging.INFO)


def terminal_handlers(logger: logging.Logger) -> list[logging.Handler]:
    """Return the handlers of *logger* that write to stdout or stderr."""
    streams = [stream for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__) if stream is not None]
    return [handler for handler in logger.handlers if getattr(handler, "stream", None) in streams]


def redirect_servers() -> None:
    """Send the records of the servers to the root logger's handlers."""
    for logger in SERVERS:
        for handler in terminal_handlers(logger):
            logger.removeHandler(handler)
        logger.propagate = logger.name != ACCESS_LOG
        logger.setLevel(logging.NOTSET)
        logger.addFilter(redirect_servers_again)


def redirect_servers_again(record: logging.LogRecord) -> bool:
    """Redirect at the first record: ``fastapi run`` and ``uvicorn.run(app)`` configure logging after they have imported the application."""
    if any(terminal_handlers(logger) for logger in SERVERS):
        redirect_servers()
    return logging.getLogger(record.name).isEnabledFor(record.levelno)


def add_ids(record: logging.LogRecord) -> bool:
    """Set the ids on the record, in the thread that logs. A handler behind a queue runs in another one."""
    span = get_current_span().get_span_context()
    ids = {"request_id": get_request_id()}
    if span.is_valid:
        ids |= {"trace_id": format_trace_id(span.trace_id), "span_id": format_span_id(span.span_id)}
    for name, value in ids.items():
        if getattr(record, name, None) is None:
            setattr(record, name, value)
    return True


class StderrHandler(logging.Handler):
    """Writes to the current ``sys.stderr``. If that fails, the record is lost and the application goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record) + "\n"
        # handleError would print the arguments of the record without masking them.
        with suppress(AttributeError, OSError, ValueError):
            sys.stderr.write(line)
            sys.stderr.flush()


Entry: TypeAlias = dict[str, JsonValue]
Renderer: TypeAlias = Callable[[Entry, logging.LogRecord], str]

IDS = ("request_id", "trace_id", "span_id")
MEMBERS = ("time", "level", "logger", "message", *IDS, "exception", "stack")
# color_message is uvicorn's second copy of the message.
STANDARD_ATTRIBUTES = {*logging.makeLogRecord({}).__dict__, *IDS, "message", "asctime", "taskName", "color_message"}


class RecordFormatter(logging.Formatter):
    """Turns a record into masked fields, and these into text."""

    def __init__(self, render: Renderer) -> None:
        super().__init__()
        self.render = render

    def format(self, record: logging.LogRecord) -> str:
        try:
            return self.render(self.entry_of(record), record)
        except Exception as error:
            text = f"A record of {record.pathname}:{record.lineno} could not be formatted: {type(error).__name__}"
            now = rfc3339(datetime.now(UTC))
            return self.render({"time": now, "level": "ERROR", "logger": __name__, "message": text}, record)

    def entry_of(self, record: logging.LogRecord) -> Entry:
        try:
            message = record.getMessage().rstrip("\n")
        except Exception:
            message = f"{text_of(record.msg)} (its arguments do not fit: {text_of(record.args)})"
        head = {"time": rfc3339(datetime.fromtimestamp(record.created, UTC)), "level": record.levelname, "logger": record.name}
        ids = {name: value for name in IDS if (value := getattr(record, name, None)) is not None}
        extras = {name: value for name, value in record.__dict__.items() if name not in STANDARD_ATTRIBUTES}
        named = {f"{name}_" if name in MEMBERS else name: value for name, value in extras.items()}
        exception = record.exc_text
        # Other handlers format the exception their own way: the text is not stored on the record.
        if record.exc_info:
            exception = self.formatException(record.exc_info) if record.exc_info[0] else None
        tail = {"exception": exception, "stack": record.stack_info}
        return (
            mask_fields({**head, "message": message, **ids})
            | mask_fields(named)
            | mask_fields({name: text for name, text in tail.items() if text})
        )


def rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def render_json(entry: Entry, _: logging.LogRecord) -> str:
    # ASCII contains no other line ends, and every stream can encode it.
    return json.dumps(entry)


def render_console(entry: Entry, record: logging.LogRecord) -> str:
    # An extra that the message already shows, as in "%(method)s", is not repeated.
    shown = {*MEMBERS, *record.args} if isinstance(record.args, Mapping) else MEMBERS
    request = f" [{entry['request_id']}]" if "request_id" in entry else ""
    extras = "".join(f" {name}={plain_or_json(value)}" for name, value in entry.items() if name not in shown)
    head = f"{entry['time']} {entry['level']:<8} {entry['logger']}{request} {entry['message']}{extras}"
    lines = [line for name in ("exception", "stack") if name in entry for line in str(entry[name]).split("\n")]
    return "\n    ".join(UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), line) for line in (head, *lines))


def plain_or_json(value: JsonValue) -> str:
    return value if isinstance(value, str) and re.fullmatch(r"[^\s\"'=]+", value) else json.dumps(value, ensure_ascii=False)


# Control characters except the tab, line ends that some readers know, and characters that change the direction of text.
UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
RENDERERS: dict[str, Renderer] = {"console": render_console, "json": render_json}
