"""A limit for request bodies."""

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import NoReturn

from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import MAX_BODY_SIZE_SCOPE_KEY
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_kit.errors import ConfigurationError
from fastapi_kit.middleware._headers import sent_values
from fastapi_kit.middleware.errors import closing_headers
from fastapi_kit.middleware.request_id import read_request_id

__all__ = ["BodyLimitMiddleware"]

_logger = logging.getLogger(__name__)

# Longer than any length that could be meant, and short enough to be read as a number.
_MOST_DIGITS = 30


class BodyTooLargeError(HTTPException):
    """A body over the limit."""


@dataclass
class BodyLimitMiddleware:
    """Reject a body over *max_bytes*, by its announced length or by counting, with a 413 in the shape of the app's own errors.

    Reading past the limit raises Starlette's ``HTTPException(413)`` in the reader. A body that announces too many bytes is rejected before
    its first byte is read, so that a client that waits for ``100 Continue`` (RFC 9110, 10.1.1) never sends it; its answer has
    ``Connection: close``. Any other body is cut off after the chunk that exceeds the limit. Without that wait the connection stays open,
    because closing it under a client that is still sending can lose the answer: the server discards the rest. A body that is never read is
    not rejected.

    ``max_body_size`` of a route, a router or the app takes precedence: it is FastAPI's way to allow one route more. After the answer has
    begun, a body over the limit counts as a client that has left, and is logged.

    Add it first (innermost): middleware outside of it reads without a limit.

    Args:
        max_bytes: The limit. The default is 1 MiB.

    Raises:
        ConfigurationError: *max_bytes* is negative.
    """

    app: ASGIApp
    max_bytes: int = 1_048_576

    def __post_init__(self) -> None:
        if self.max_bytes < 0:
            raise ConfigurationError("max_bytes cannot be negative")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a bound on what is received."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = BoundedBody(scope, receive, send, self.max_bytes)
        try:
            await self.app(scope, body.receive, body.send)
        except BodyTooLargeError as error:
            if body.is_answered:
                raise
            # The reader was outside all handlers: answer with those of the app.
            too_large = error

            async def reject(scope: Scope, receive: Receive, send: Send) -> NoReturn:
                raise too_large

            handlers = getattr(scope.get("app"), "exception_handlers", None)
            await ExceptionMiddleware(reject, handlers=handlers)(scope, receive, send)


class BoundedBody:
    """A request body with a limit. It knows whether the answer has begun."""

    __slots__ = ("is_answered", "max_bytes", "read", "receive_more", "scope", "send_on")

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_bytes: int) -> None:
        self.scope = scope
        self.receive_more = receive
        self.send_on = send
        self.max_bytes = max_bytes
        self.read = 0
        self.is_answered = False

    async def receive(self) -> Message:
        """Return the next message, or raise if the body is over the limit."""
        limit = self.scope.get(MAX_BODY_SIZE_SCOPE_KEY, self.max_bytes)
        # Of several lengths the largest counts. A length that is not a number counts as none.
        lengths = sent_values(self.scope, b"content-length") if self.read == 0 else []
        announced = max((int(value[:_MOST_DIGITS]) for value in lengths if value.isdigit()), default=self.read)
        if announced > limit:
            return await self.reject(limit)
        message = await self.receive_more()
        self.read += len(message.get("body", b""))
        return await self.reject(limit) if self.read > limit else message

    def send(self, message: Message) -> Awaitable[None]:
        """Pass *message* on."""
        self.is_answered = True
        return self.send_on(message)

    async def reject(self, limit: int) -> Message:
        """Raise 413, or report that the client has left if the answer has begun."""
        # The reader may be the listener of a streamed answer, and the task beside it about to begin: a 413 would come too late.
        await asyncio.sleep(0)
        if self.is_answered:
            _logger.warning("Request %s was cut off during its answer: its body exceeds %d bytes", read_request_id(self.scope), limit)
            return {"type": "http.disconnect"}
        waits = self.read == 0 and b"100-continue" in map(bytes.lower, sent_values(self.scope, b"expect"))
        raise BodyTooLargeError(413, f"The body may have {limit} bytes at most.", closing_headers(self.scope) if waits else None)
