"""The ``Server-Timing`` header."""

from collections.abc import Awaitable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_kit.errors import ConfigurationError
from fastapi_kit.middleware._headers import is_token, replaced

__all__ = ["ServerTimingMiddleware", "timed"]

_TOTAL = "total"
_HEADER = b"server-timing"
_MARK = "fastapi_kit.server_timing"


@dataclass
class Blocks:
    """The blocks of one request that have ended. Appending is safe from several threads."""

    start: float
    ended: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    is_open: bool = True

    def add(self, name: str, seconds: float) -> None:
        """Add the time of a block."""
        if self.is_open:
            self.ended.append((name, seconds))

    def close(self) -> bytes:
        """Accept no more blocks, and return the value of the header."""
        self.is_open = False
        sums = {_TOTAL: perf_counter() - self.start}
        for name, seconds in self.ended:
            sums[name] = sums.get(name, 0.0) + seconds
        return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in sums.items()).encode()


_current: ContextVar[Blocks | None] = ContextVar("fastapi_kit_server_timing", default=None)


@contextmanager
def timed(name: str) -> Generator[None]:
    """Add the time spent in the block to the current response's ``Server-Timing``.

    Blocks of one name add up, whichever of the request's tasks and threads they run in. A block that ends after the response has started
    is ignored, and so is one outside a request or without the middleware.

    Raises:
        ConfigurationError: *name* is ``total``, or not a token (RFC 9110, 5.6.2).
    """
    if name == _TOTAL or not is_token(name):
        raise ConfigurationError(f"{name!r} cannot name a block: it must be a token other than {_TOTAL!r}")
    blocks = _current.get()
    start = perf_counter()
    try:
        yield
    finally:
        if blocks is not None:
            blocks.add(name, perf_counter() - start)


@dataclass
class ServerTimingMiddleware:
    """Send the time until the response starts, and the time of every ``timed`` block, in milliseconds.

    They are in one ``Server-Timing`` header, after those of the response itself. Every client can read them. In a mounted app the outermost
    of these middlewares sends them.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and time it."""
        if scope["type"] != "http" or _MARK in scope:
            await self.app(scope, receive, send)
            return
        blocks = Blocks(perf_counter())
        scope[_MARK] = blocks

        def send_timed(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ())]
                given = [value for name, value in headers if name.lower() == _HEADER]
                own = (_HEADER, b", ".join([*given, blocks.close()]))
                message = {**message, "headers": replaced(headers, own)}
            return send(message)

        token = _current.set(blocks)
        try:
            await self.app(scope, receive, send_timed)
        finally:
            _current.reset(token)
