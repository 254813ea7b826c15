"""One log line per request."""

import logging
from collections.abc import Awaitable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter

from opentelemetry.trace import format_trace_id, get_current_span
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_kit.errors import ConfigurationError
from fastapi_kit.middleware._routes import app_path, route_template
from fastapi_kit.middleware.errors import read_request_id

__all__ = ["AccessLogMiddleware"]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"})
_MESSAGE = "%(method)s %(route)s %(status)d in %(duration_ms).1f ms"
_STARTS = frozenset({"http.response.start", "websocket.http.response.start"})
_HANDSHAKES = {"websocket.accept": 101, "websocket.close": 403}
_CLIENT_GONE = 499
_MARK = "fastapi_kit.access_log"


@dataclass
class AccessLogMiddleware:
    """Log method, route template, status, duration, request id and trace id; *skip* names paths that stay out.

    There is one record per request, that of the outermost of these middlewares, written when the last of the answer is sent, before
    background tasks run. It is INFO, or
    WARNING if the status is 5xx; the error behind that has a record of its own. Its attributes are ``method``, ``route``,
    ``status``, ``duration_ms``, ``request_id`` and ``trace_id`` (None without OpenTelemetry).

    ``route`` is the template, such as ``/api/v1/items/{item_id}``, never the path or the query, which may hold secrets; ``-`` if
    none matched. ``method`` is ``-`` if it is not one of HTTP's own. ``status`` is 499 if the client went before it was answered.
    A WebSocket is logged when it ends, with the method ``WEBSOCKET`` and the status of its handshake: 101 if it was accepted.

    *skip* holds whole paths below the ``root_path``. *logger* is the name of the logger. A record that cannot be written is lost; the
    request goes on. Raises ConfigurationError if *skip* is one text.
    """

    app: ASGIApp
    skip: Collection[str] = ("/livez", "/readyz", "/health", "/metrics")
    logger: str = "fastapi_kit.access"
    _skipped: frozenset[str] = field(init=False, repr=False)
    _logger: logging.Logger = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.skip, str):
            raise ConfigurationError("skip= is a collection of paths, not one text")
        self._skipped = frozenset(self.skip)
        self._logger = logging.getLogger(self.logger)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and log it once."""
        if scope["type"] == "lifespan" or _MARK in scope or app_path(scope) in self._skipped:
            await self.app(scope, receive, send)
            return
        scope[_MARK] = True
        exchange = _Exchange(self._logger, scope, send)
        without_answer = _CLIENT_GONE
        try:
            await self.app(scope, receive, exchange.send)
        except Exception as error:
            # The server answers now.
            without_answer = _CLIENT_GONE if isinstance(error, ClientDisconnect) else 500
            raise
        finally:
            exchange.end(without_answer)


class _Exchange:
    """A request and its answer, up to the record."""

    __slots__ = ("_app", "_is_logged", "_logger", "_root_path", "_scope", "_send", "_start", "_status")

    def __init__(self, logger: logging.Logger, scope: Scope, send: Send) -> None:
        self._logger = logger
        self._scope = scope
        self._send = send
        # A mounted app puts its own in their place.
        self._app = scope.get("app")
        self._root_path: str = scope.get("root_path", "")
        self._status: int | None = None
        self._is_logged = False
        self._start = perf_counter()

    def send(self, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if self._status is None:
            self._status = message["status"] if kind in _STARTS else _HANDSHAKES.get(kind)
        is_last = kind == "http.response.body" and not message.get("more_body", False)
        return self._send_last(message) if is_last else self._send(message)

    async def _send_last(self, message: Message) -> None:
        await self._send(message)
        self.end(_CLIENT_GONE)

    def end(self, without_answer: int) -> None:
        """Write the record unless it is written; *without_answer* is the status if nothing was sent."""
        if self._is_logged:
            return
        self._is_logged = True
        status = without_answer if self._status is None else self._status
        level = logging.WARNING if status >= 500 else logging.INFO
        if self._logger.isEnabledFor(level):
            # Filters and handlers of the host run here.
            with suppress(Exception):
                self._log(level, status)

    def _log(self, level: int, status: int) -> None:
        fields = {
            "method": _method(self._scope),
            "route": route_template(self._scope, getattr(self._app, "routes", ()), self._root_path) or "-",
            "status": status,
            "duration_ms": round((perf_counter() - self._start) * 1000, 3),
            "request_id": read_request_id(self._scope),
            "trace_id": _trace_id(),
        }
        # Not Logger.log(), which looks for its caller on the stack and takes longer over that than over all of the fields.
        record = self._logger.makeRecord(self._logger.name, level, __file__, 0, _MESSAGE, (fields,), None)
        record.__dict__.update(fields)
        self._logger.handle(record)


def _method(scope: Scope) -> str:
    method = scope.get("method", "WEBSOCKET")
    return method if method in _METHODS or scope["type"] == "websocket" else "-"


def _trace_id() -> str | None:
    context = get_current_span().get_span_context()
    return format_trace_id(context.trace_id) if context.is_valid else None
