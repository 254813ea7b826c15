"""A bound on request bodies."""

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
from fastapi_kit.middleware.errors import closing_headers, read_request_id

__all__ = ["BodyLimitMiddleware"]

_logger = logging.getLogger(__name__)

# Longer than any length that could be meant, and short enough to be read as a number.
_MOST_DIGITS = 30


class _BodyTooLargeError(HTTPException):
    pass


@dataclass
class BodyLimitMiddleware:
    """Refuse a body over *max_bytes*, announced or counted, with a 413 in the shape of the app's own errors.

    Reading past the limit raises Starlette's ``HTTPException(413)`` in the reader. An announced body is refused before its first byte is
    read, so that a client that waits for ``100 Continue`` (RFC 9110, 10.1.1) never sends it; it is told ``Connection: close``. Any other
    is cut off after the chunk that is too much. Without that wait the connection stays open, because closing it under a client that is
    still sending can lose the answer; the server throws the rest away. A body that nobody reads is not refused.

    ``max_body_size`` of a route, a router or the app counts instead where it is set: FastAPI's way to allow one route more.
    Once the answer has begun, a body that is too large counts as a client that has gone, and is logged.

    Add it first (innermost): middleware outside reads without bound. Raises ConfigurationError if *max_bytes* is negative.
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
        body = _BoundedBody(scope, receive, send, self.max_bytes)
        try:
            await self.app(scope, body.receive, body.send)
        except _BodyTooLargeError as error:
            if body.is_answered:
                raise
            await _answer(error, scope, receive, send)


class _BoundedBody:
    """A body on its way in, and whether the answer is on its way out."""

    __slots__ = ("_max_bytes", "_read", "_receive", "_scope", "_send", "is_answered")

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_bytes: int) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._max_bytes = max_bytes
        self._read = 0
        self.is_answered = False

    async def receive(self) -> Message:
        bound = self._scope.get(MAX_BODY_SIZE_SCOPE_KEY, self._max_bytes)
        if (self._read or _announced(self._scope)) > bound:
            return await self._refuse(bound)
        message = await self._receive()
        self._read += len(message.get("body", b""))
        return await self._refuse(bound) if self._read > bound else message

    def send(self, message: Message) -> Awaitable[None]:
        self.is_answered = True
        return self._send(message)

    async def _refuse(self, bound: int) -> Message:
        # Who asks may be the listener of a streamed answer, and the task beside it about to begin: a refusal would come too late.
        await asyncio.sleep(0)
        if self.is_answered:
            _logger.warning(
                "Request %s was ended while it was answered: its body has more than %d bytes", read_request_id(self._scope), bound
            )
            return {"type": "http.disconnect"}
        raise _BodyTooLargeError(413, f"The body may have {bound} bytes at most.", self._closing())

    def _closing(self) -> dict[str, str] | None:
        waits = self._read == 0 and b"100-continue" in map(bytes.lower, sent_values(self._scope, b"expect"))
        return closing_headers(self._scope) if waits else None


def _announced(scope: Scope) -> int:
    """Return the length that the request gives for its body, the largest of several; 0 if it gives none that is a number."""
    values = sent_values(scope, b"content-length")
    return max((int(value[:_MOST_DIGITS]) for value in values if value.isdigit()), default=0)


async def _answer(error: _BodyTooLargeError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer for a reader that was outside all handlers, with the handlers of the app."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> NoReturn:
        raise error

    handlers = getattr(scope.get("app"), "exception_handlers", None)
    await ExceptionMiddleware(refuse, handlers=handlers)(scope, receive, send)
