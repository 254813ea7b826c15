"""Logging on the standard library: one handler, two styles, and no secrets."""

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


def configure_logging(*, level: str = "INFO", style: Literal["console", "json"] = "console") -> None:
    """Send every record of *level* and above to stderr, with request and trace id; passwords, tokens and keys are masked.

    ``json`` writes one object per line: ``time`` (UTC, RFC 3339), ``level``, ``logger``, ``message``, ``request_id``, ``trace_id`` and
    ``span_id`` where there are any, the record's extras, ``exception`` and ``stack``. ``console`` is for people: tracebacks have lines of
    their own, indented. In both, nothing that is logged can begin a second record.

    Call it where the app is made, at import; servers may set their logging up before or after. The root logger's handlers for the terminal
    are replaced, those of uvicorn and gunicorn give way to it, and ``uvicorn.access`` is turned off, because ``AccessLogMiddleware`` says
    it without the query string. All other handlers stay as they are. A second call replaces the first.

    Raises ConfigurationError if *level* or *style* is unknown.
    """
    number, render = _level_number(level), _renderer(style)
    handler = _StderrHandler()
    handler.set_name(_HANDLER)
    handler.addFilter(_add_ids)
    handler.setFormatter(_Formatter(render))
    root = logging.getLogger()
    for other in [*_terminal_handlers(root), *(known for known in root.handlers if known.get_name() == _HANDLER)]:
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(number)
    _take_servers()
    _hush_drivers()


_HANDLER = "fastapi_kit"
_SILENT = "uvicorn.access"
_SERVERS = [logging.getLogger(name) for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi", _SILENT, "gunicorn.error", "gunicorn.access")]


def _level_number(level: str) -> int:
    number = logging.getLevelNamesMapping().get(str(level).strip().upper())
    if number is None:
        raise ConfigurationError(f"level {level!r} is not a level of the logging module: use DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return number


def _renderer(style: str) -> "_Renderer":
    if style not in _RENDERERS:
        raise ConfigurationError(f"style {style!r} is unknown: use {' or '.join(_RENDERERS)}")
    return _RENDERERS[style]


def _terminal_handlers(logger: logging.Logger) -> list[logging.Handler]:
    """Return the handlers that write to stdout or stderr. Files, Sentry's and pytest's are none."""
    streams = [stream for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__) if stream is not None]
    return [handler for handler in logger.handlers if getattr(handler, "stream", None) in streams]


def _take_servers() -> None:
    """Have the servers' loggers write through the root's handlers, at the root's level, or not at all."""
    for logger in _SERVERS:
        for handler in _terminal_handlers(logger):
            logger.removeHandler(handler)
        logger.propagate = logger.name != _SILENT
        logger.setLevel(logging.NOTSET)
        logger.addFilter(_take_servers_again)


def _take_servers_again(record: logging.LogRecord) -> bool:
    """Undo what ``fastapi run`` and ``uvicorn.run(app)`` do: they import the app first, and set their logging up then."""
    if any(_terminal_handlers(logger) for logger in _SERVERS):
        _take_servers()
    return logging.getLogger(record.name).isEnabledFor(record.levelno)


def _hush_drivers() -> None:
    """Keep aiosqlite, which logs every statement with its values at DEBUG, at INFO, unless the host has set it."""
    logger = logging.getLogger("aiosqlite")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


def _add_ids(record: logging.LogRecord) -> bool:
    """Give the record the ids of where it was made: in the handler's thread, later, they are gone. Those it has stay."""
    span = get_current_span().get_span_context()
    ids = {"request_id": get_request_id()}
    if span.is_valid:
        ids |= {"trace_id": format_trace_id(span.trace_id), "span_id": format_span_id(span.span_id)}
    for name, value in ids.items():
        if getattr(record, name, None) is None:
            setattr(record, name, value)
    return True


class _StderrHandler(logging.Handler):
    """Writes to what ``sys.stderr`` is at that moment. A record that cannot be written is lost and breaks nothing."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record) + "\n"
        # Not handleError: it prints the record's arguments as they are.
        with suppress(AttributeError, OSError, ValueError):
            sys.stderr.write(line)
            sys.stderr.flush()


_Entry: TypeAlias = dict[str, JsonValue]
_Renderer: TypeAlias = Callable[[_Entry, logging.LogRecord], str]

_IDS = ("request_id", "trace_id", "span_id")
_MEMBERS = ("time", "level", "logger", "message", *_IDS, "exception", "stack")
# color_message is uvicorn's message once more.
_NO_EXTRAS = {*logging.makeLogRecord({}).__dict__, *_IDS, "message", "asctime", "taskName", "color_message"}


class _Formatter(logging.Formatter):
    def __init__(self, render: _Renderer) -> None:
        super().__init__()
        self._render = render

    def format(self, record: logging.LogRecord) -> str:
        try:
            return self._render(self._entry(record), record)
        except Exception as error:
            message = f"A record of {record.pathname}:{record.lineno} could not be formatted: {type(error).__name__}"
            return self._render({"time": _time(), "level": "ERROR", "logger": __name__, "message": message}, record)

    def _entry(self, record: logging.LogRecord) -> _Entry:
        head = {"time": _time(record.created), "level": record.levelname, "logger": record.name, "message": _message(record)}
        ids = {name: value for name in _IDS if (value := getattr(record, name, None)) is not None}
        # An extra of a member's name gets an underscore.
        named = ((f"{name}_" if name in _MEMBERS else name, value) for name, value in record.__dict__.items() if name not in _NO_EXTRAS)
        tail = {"exception": self._exception(record), "stack": record.stack_info}
        return mask_fields(head | ids) | mask_fields(dict(named)) | mask_fields({name: text for name, text in tail.items() if text})

    def _exception(self, record: logging.LogRecord) -> str | None:
        if not record.exc_info:
            return record.exc_text
        # Not kept on the record: other handlers format it their own way.
        return self.formatException(record.exc_info) if record.exc_info[0] else None


def _time(created: float | None = None) -> str:
    moment = datetime.now(UTC) if created is None else datetime.fromtimestamp(created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage().rstrip("\n")
    except Exception:
        return f"{text_of(record.msg)} (its arguments do not fit: {text_of(record.args)})"


def _render_json(entry: _Entry, _: logging.LogRecord) -> str:
    # ASCII, so that no reader finds another end of line in it, and no stream fails to encode it.
    return json.dumps(entry)


def _render_console(entry: _Entry, record: logging.LogRecord) -> str:
    # What the message is made of by name is not said twice.
    said = {*_MEMBERS, *record.args} if isinstance(record.args, Mapping) else _MEMBERS
    request = f" [{entry['request_id']}]" if "request_id" in entry else ""
    extras = "".join(f" {name}={_plain(value)}" for name, value in entry.items() if name not in said)
    head = f"{entry['time']} {entry['level']:<8} {entry['logger']}{request} {entry['message']}{extras}"
    lines = [line for name in ("exception", "stack") if name in entry for line in str(entry[name]).split("\n")]
    return "\n    ".join(_visible(line) for line in (head, *lines))


def _plain(value: JsonValue) -> str:
    return value if isinstance(value, str) and re.fullmatch(r"[^\s\"'=]+", value) else json.dumps(value, ensure_ascii=False)


# Controls, ends of lines that editors and collectors know, and what turns the direction of a text round; not the tab.
_UNSEEN = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def _visible(text: str) -> str:
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


_RENDERERS: dict[str, _Renderer] = {"console": _render_console, "json": _render_json}
