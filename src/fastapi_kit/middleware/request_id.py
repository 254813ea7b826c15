"""One id for each request."""

import re
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from os import urandom

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_kit.middleware._headers import header_name, replaced, sent_values

__all__ = ["RequestIdMiddleware", "get_request_id", "read_request_id"]

_current: ContextVar[str | None] = ContextVar("fastapi_kit_request_id", default=None)

_SAFE = re.compile(r"[A-Za-z0-9._-]{1,128}")
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


def get_request_id() -> str | None:
    """Return the id of the current request, or None outside one.

    Everything that the request calls sees it: dependencies, endpoints in threads, background tasks, and tasks that it has started, even
    after the request.
    """
    return _current.get()


def read_request_id(scope: Scope) -> str | None:
    """Return the id of the request in *scope*, ``request.state.request_id``, or None if it has none."""
    value = scope.get("state", {}).get("request_id")
    return value if isinstance(value, str) else None


def make_id() -> str:
    """Return a random UUID (RFC 9562, 5.4). ``str(uuid4())`` takes three times as long."""
    digits = urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"


def is_safe(value: str) -> bool:
    """Return whether *value* is 1 to 128 ASCII letters, digits, dots, underscores and hyphens."""
    return _SAFE.fullmatch(value) is not None


@dataclass
class RequestIdMiddleware:
    """Take the id that the client or a proxy sends, or make one. Return it in *header*, and keep it in a context variable.

    Add it last (outermost). The id is ``request.state.request_id`` and ``get_request_id()``. An id that is in ``request.state`` already is
    kept: an outer app, or a middleware of your application, has put it there. The header is on every answer that passes through, and on
    the answer to a WebSocket handshake unless the server writes that itself.

    Args:
        header: The name of the header, for requests and answers.
        generator: Makes an id. The default is a random UUID, the only kind that an error body shows as its ``instance``.
        accept: Returns whether an id in the request is taken. By default it has to be 1 to 128 ASCII letters, digits, dots,
            underscores and hyphens. An id is taken only if the request has exactly one such header.

    Raises:
        ConfigurationError: *header* is not a valid name.
    """

    app: ASGIApp
    header: str = "X-Request-ID"
    generator: Callable[[], str] = make_id
    accept: Callable[[str], bool] = is_safe
    _name: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._name = header_name(self.header)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Set the id before anything else sees the request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        request_id = read_request_id(scope)
        if not request_id:
            # Of several ids it is unknown which one a proxy has checked.
            inbound = [value.decode("latin-1") for value in sent_values(scope, self._name)]
            request_id = inbound[0] if len(inbound) == 1 and self.accept(inbound[0]) else self.generator()
        scope.setdefault("state", {})["request_id"] = request_id
        own = (self._name, request_id.encode("latin-1"))

        def send_named(message: Message) -> Awaitable[None]:
            if message["type"] in _STARTS:
                # A copy: the app may send the same message again.
                message = {**message, "headers": replaced(message.get("headers", ()), own)}
            return send(message)

        token = _current.set(request_id)
        await self.app(scope, receive, send_named)
        # Not after an exception: the server, which logs it, still sees the id.
        _current.reset(token)
