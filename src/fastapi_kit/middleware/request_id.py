"""One id per request."""

import re
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from os import urandom

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_kit.middleware._headers import header_name, replaced, sent_values
from fastapi_kit.middleware.errors import read_request_id

__all__ = ["RequestIdMiddleware", "get_request_id"]

_current: ContextVar[str | None] = ContextVar("fastapi_kit_request_id", default=None)

_SAFE = re.compile(r"[A-Za-z0-9._-]{1,128}")
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


def get_request_id() -> str | None:
    """Return the id of the current request, or None outside one.

    It is known in all that the request calls: dependencies, endpoints in threads, background tasks, and tasks created
    in it, even once it is over.
    """
    return _current.get()


def _make_id() -> str:
    """Return a random UUID (RFC 9562, 5.4), in a third of the time that ``str(uuid4())`` takes."""
    digits = urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"


def _is_safe(value: str) -> bool:
    return _SAFE.fullmatch(value) is not None


@dataclass
class RequestIdMiddleware:
    """Take a safe inbound id or make one; return it in *header*, and keep it in a context variable. Add it last (outermost).

    The id is ``request.state.request_id`` and ``get_request_id()``. An inbound id counts if the request has one such
    header and *accept* says yes to its value: by default 1 to 128 ASCII letters, digits, dots, underscores and hyphens. *generator*
    makes any other: by default a random UUID, the only kind that an error body can name as its ``instance``. An id that is in
    ``request.state`` already, from an app outside or a middleware of the host's, is kept.

    The header is on every answer that passes through, and on the answer to a WebSocket handshake unless the server writes that
    itself. Raises ConfigurationError if *header* is not the name of one.
    """

    app: ASGIApp
    header: str = "X-Request-ID"
    generator: Callable[[], str] = _make_id
    accept: Callable[[str], bool] = _is_safe
    _name: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._name = header_name(self.header)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Name the request before anything else sees it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        request_id = read_request_id(scope) or self._inbound(scope) or self.generator()
        scope.setdefault("state", {})["request_id"] = request_id
        own = (self._name, request_id.encode("latin-1"))

        def send_named(message: Message) -> Awaitable[None]:
            if message["type"] in _STARTS:
                # Neither the message nor its list is ours: an app may send the same ones again.
                message = {**message, "headers": replaced(message.get("headers", ()), own)}
            return send(message)

        token = _current.set(request_id)
        await self.app(scope, receive, send_named)
        # Not after an exception: whoever logs it outside, the server first of all, knows the id.
        _current.reset(token)

    def _inbound(self, scope: Scope) -> str | None:
        # Of several, nobody knows which one a proxy before us has checked.
        values = sent_values(scope, self._name)
        if len(values) != 1:
            return None
        value = values[0].decode("latin-1")
        return value if self.accept(value) else None
