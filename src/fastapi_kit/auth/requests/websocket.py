"""Where a WebSocket carries its token, for browsers, which cannot set its headers."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from anyio import CancelScope
from fastapi.security.base import SecurityBase
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketState

from fastapi_kit.auth.requests.transports import Transport, is_word
from fastapi_kit.auth.tokens.claims import TokenClaims
from fastapi_kit.auth.tokens.service import TokenVerifier
from fastapi_kit.errors import AuthenticationError, ConfigurationError, InvalidTokenError, UnavailableError

__all__ = ["FirstMessageTransport", "SubprotocolTransport", "accept_websocket", "while_logged_in"]

WORD = "bearer"
"""The subprotocol that stands before the token."""
LONGEST_WAIT = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class SubprotocolTransport(Transport):
    """The token among the subprotocols of the handshake, after the word ``bearer``: ``new WebSocket(url, ["bearer", token])``.

    The user is known before the WebSocket is accepted. Accept it with ``accept_websocket``, which answers the subprotocol that the browser
    waits for, and never the token. Other requests than handshakes have no token here.
    """

    @property
    def scheme(self) -> SecurityBase | None:
        """None: OpenAPI has no WebSockets."""
        return None

    async def authenticate(self, connection: HTTPConnection, tokens: TokenVerifier) -> TokenClaims | None:
        """Return the claims of the token after the word."""
        offered = offered_by(connection)
        if WORD not in offered:
            return None
        if offered.count(WORD) > 1 or offered[-1] == WORD:
            raise InvalidTokenError("not one token among the subprotocols")
        return await tokens.verify(offered[offered.index(WORD) + 1])


class AuthMessage(BaseModel):
    """The first message of a client."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    type: Literal["auth"]
    token: str = Field(repr=False)


@dataclass(frozen=True, kw_only=True)
class FirstMessageTransport(Transport):
    """The token in the first message of a WebSocket: the text ``{"type": "auth", "token": "..."}``.

    The transport accepts the WebSocket and waits for the message. Anything else closes it with 1008: no message in time, a longer or a
    binary one, an invalid token. It is the last of ``transports``, because it waits for a token; the user is never optional with it.
    ``accept_websocket`` in the route then does nothing. Other requests than handshakes have no token here.

    Args:
        timeout: How long the client has for the message. At most a minute.
        max_length: The longest message, in characters. The server has its own limit for what it receives at all.
        subprotocols: Those that the application speaks, the preferred one first, as for ``accept_websocket``.

    Raises:
        ConfigurationError: *timeout* or *max_length* is out of bounds, or a subprotocol is malformed.
    """

    timeout: timedelta = timedelta(seconds=10)
    max_length: int = 10_000
    subprotocols: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not timedelta() < self.timeout <= LONGEST_WAIT:
            raise ConfigurationError("the timeout of the first message must be more than nothing and at most a minute")
        if self.max_length < 1:
            raise ConfigurationError("max_length must be at least 1")
        check_subprotocols(self.subprotocols)

    @property
    def scheme(self) -> SecurityBase | None:
        """None: OpenAPI has no WebSockets."""
        return None

    async def authenticate(self, connection: HTTPConnection, tokens: TokenVerifier) -> TokenClaims | None:
        """Accept the WebSocket, and return the claims of the token in its first message."""
        if not isinstance(connection, WebSocket):
            return None
        await accept_websocket(connection, subprotocols=self.subprotocols)
        try:
            async with asyncio.timeout(self.timeout.total_seconds()):
                message = await connection.receive()
        except TimeoutError:
            raise AuthenticationError from None
        text = message.get("text")
        if message["type"] != "websocket.receive" or text is None:
            raise AuthenticationError
        if len(text) > self.max_length:
            raise InvalidTokenError("the first message is too long")
        try:
            found = AuthMessage.model_validate_json(text)
        except ValueError:
            raise InvalidTokenError("the first message is not one with a token") from None
        return await tokens.verify(found.token)


async def accept_websocket(socket: WebSocket, *, subprotocols: Sequence[str] = ()) -> None:
    """Accept *socket*, unless ``FirstMessageTransport`` has accepted it, and answer the right subprotocol.

    That is the first of *subprotocols* that the client offers. Without one it is ``bearer``, if the client offers that with its token: a
    browser closes the WebSocket if it offered subprotocols and none was chosen. The token is never answered.

    Args:
        socket: The WebSocket of the route.
        subprotocols: Those that the application speaks, the preferred one first.

    Raises:
        ConfigurationError: A subprotocol is malformed, or is the word ``bearer``.
    """
    check_subprotocols(subprotocols)
    if socket.application_state is not WebSocketState.CONNECTING:
        return
    offered = offered_by(socket)
    if WORD in offered:
        # What follows the word is a token, even one with the name of a subprotocol.
        position = offered.index(WORD)
        offered = [*offered[:position], *offered[position + 2 :], WORD]
    await socket.accept(next((name for name in (*subprotocols, WORD) if name in offered), None))


@asynccontextmanager
async def while_logged_in(check: Callable[[], Awaitable[None]], *, every: timedelta = timedelta(seconds=30)) -> AsyncGenerator[None]:
    """Run the block until it ends or *check* raises an error. Then cancel the block, and raise that error.

    It is for a WebSocket, which would stay open after its login: the error goes out of the route, and closes the WebSocket with 1008 if the
    login is over, and with 1013 if that cannot be found out. The connections that *check* opens are its own.

    Args:
        check: Raises InvalidTokenError if the login is over: it awaits ``logins.check_login(claims)``, and may look at the user, too.
        every: How long the block goes on between two checks, and how long a check may take. So it ends at most twice as long after the
            login.

    Raises:
        Exception: What *check* raised.
        UnavailableError: A check took too long.
        ConfigurationError: *every* is not positive.
    """
    seconds = every.total_seconds()
    if seconds <= 0:
        raise ConfigurationError("every must be longer than nothing")
    failures: list[Exception] = []
    is_running = True

    async def watch() -> None:
        failure: Exception = UnavailableError("the check of a login")
        try:
            while True:
                await asyncio.sleep(seconds)
                async with asyncio.timeout(seconds):
                    await check()
        except TimeoutError:
            pass
        except Exception as error:
            failure = error
        finally:
            # Also if something has cancelled the check: the block must not go on without.
            if is_running:
                failures.append(failure)
                scope.cancel()

    # A scope cancels until the block ends: a single cancellation may be lost in it.
    with CancelScope() as scope:
        watcher = asyncio.ensure_future(watch())
        try:
            yield
        finally:
            is_running = False
            watcher.cancel()
            with CancelScope(shield=True):
                await asyncio.wait([watcher])
    if failures:
        raise failures.pop()


def offered_by(connection: HTTPConnection) -> list[str]:
    """Return the subprotocols that the client of a handshake offers."""
    if connection.scope["type"] != "websocket":
        return []
    # Some servers pass the values of the header on as they are.
    return [name.strip() for value in connection.scope.get("subprotocols") or () for name in value.split(",")]


def check_subprotocols(names: Sequence[str]) -> None:
    """Raise ConfigurationError unless *names* are words that a handshake can have (RFC 6455, 4.1)."""
    if isinstance(names, str) or not all(is_word(name) and name != WORD for name in names):
        raise ConfigurationError("subprotocols is a collection of words without space, and the word bearer is for the token")
