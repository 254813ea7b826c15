"""One log line for each request."""

import logging
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter

from opentelemetry.trace import format_trace_id, get_current_span
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_kit.errors import ConfigurationError
from fastapi_kit.middleware.request_id import read_request_id
from fastapi_kit.middleware.routes import app_path, route_template

__all__ = ["AccessLogMiddleware"]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"})
_MESSAGE = "%(method)s %(route)s %(status)d in %(duration_ms).1f ms"
_STARTS = frozenset({"http.response.start", "websocket.http.response.start"})
_HANDSHAKES = {"websocket.accept": 101, "websocket.close": 403}
_CLIENT_LEFT = 499
_MARK = "fastapi_kit.access_log"


@dataclass
class AccessLogMiddleware:
    """Log method, route template, status, duration, request id and trace id of each request.

    There is one record for a request, by the outermost of these middlewares. It is written after the last part of the answer, before
    background tasks run. Its level is INFO, or WARNING for a 5xx; the error behind that has a record of its own. Its attributes are
    ``method``, ``route``, ``status``, ``duration_ms``, ``request_id`` and ``trace_id`` (None without OpenTelemetry).

    ``route`` is the template, such as ``/api/v1/items/{item_id}``, or ``-`` if none matched. It is never the path or the query, which may
    hold secrets. ``method`` is ``-`` if it is not one of HTTP. ``status`` is 499 if the client left before the answer. A WebSocket is
    logged when it ends, with the method ``WEBSOCKET`` and the status of its handshake: 101 if it was accepted. A record that cannot be
    written is lost, and the request goes on.

    Args:
        skip: Whole paths below the ``root_path`` that are not logged.
        logger: The name of the logger.

    Raises:
        ConfigurationError: *skip* is one string.
    """

    app: ASGIApp
    skip: Collection[str] = ("/livez", "/readyz", "/health", "/metrics")
    logger: str = "fastapi_kit.access"
    _skipped: frozenset[str] = field(init=False, repr=False)
    _logger: logging.Logger = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.skip, str):
            raise ConfigurationError("skip= takes a collection of paths, not one string")
        self._skipped = frozenset(self.skip)
        self._logger = logging.getLogger(self.logger)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and log it once."""
        if scope["type"] == "lifespan" or _MARK in scope or app_path(scope) in self._skipped:
            await self.app(scope, receive, send)
            return
        scope[_MARK] = True
        exchange = Exchange(self._logger, scope, send)
        without_answer = _CLIENT_LEFT
        try:
            await self.app(scope, receive, exchange.send)
        except Exception as error:
            # The server sends the 500.
            without_answer = _CLIENT_LEFT if isinstance(error, ClientDisconnect) else 500
            raise
        finally:
            exchange.log(without_answer)


class Exchange:
    """A request and its answer."""

    __slots__ = ("app", "is_logged", "logger", "root_path", "scope", "send_on", "start", "status")

    def __init__(self, logger: logging.Logger, scope: Scope, send: Send) -> None:
        self.logger = logger
        self.scope = scope
        self.send_on = send
        # A mounted app replaces these two.
        self.app = scope.get("app")
        self.root_path: str = scope.get("root_path", "")
        self.status: int | None = None
        self.is_logged = False
        self.start = perf_counter()

    async def send(self, message: Message) -> None:
        """Pass *message* on. Log the request after the last one."""
        kind = message["type"]
        if self.status is None:
            self.status = message["status"] if kind in _STARTS else _HANDSHAKES.get(kind)
        await self.send_on(message)
        if kind == "http.response.body" and not message.get("more_body", False):
            self.log(_CLIENT_LEFT)

    def log(self, without_answer: int) -> None:
        """Write the record unless it is written. *without_answer* is the status if nothing was sent."""
        if self.is_logged:
            return
        self.is_logged = True
        status = without_answer if self.status is None else self.status
        level = logging.WARNING if status >= 500 else logging.INFO
        if self.logger.isEnabledFor(level):
            # Filters and handlers of the application run here.
            with suppress(Exception):
                self.write(level, status)

    def write(self, level: int, status: int) -> None:
        """Write the record."""
        scope, context = self.scope, get_current_span().get_span_context()
        method = scope.get("method", "WEBSOCKET")
        fields = {
            "method": method if method in _METHODS or scope["type"] == "websocket" else "-",
            "route": route_template(scope, getattr(self.app, "routes", ()), self.root_path) or "-",
            "status": status,
            "duration_ms": round((perf_counter() - self.start) * 1000, 3),
            "request_id": read_request_id(scope),
            "trace_id": format_trace_id(context.trace_id) if context.is_valid else None,
        }
        # Logger.log() looks for its caller on the stack, which takes longer than all of the fields.
        record = self.logger.makeRecord(self.logger.name, level, __file__, 0, _MESSAGE, (fields,), None)
        record.__dict__.update(fields)
        self.logger.handle(record)
