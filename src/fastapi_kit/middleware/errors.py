"""Answer unhandled exceptions, inside CORS and request id."""

import logging
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from inspect import isawaitable

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.status import WS_1011_INTERNAL_ERROR
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from fastapi_kit.middleware.request_id import read_request_id

__all__ = ["UnhandledErrorMiddleware", "closing_headers"]

_logger = logging.getLogger(__name__)


def closing_headers(scope: Scope) -> dict[str, str]:
    """Return ``Connection: close`` for HTTP/1, whose servers close the connection after an exception (RFC 9112, 9.6)."""
    return {"Connection": "close"} if scope.get("http_version", "1.1").startswith("1") else {}


def answer_plainly(connection: HTTPConnection, error: Exception) -> Response:
    """Return a 500 as a plain problem (RFC 9457)."""
    content = {"type": "about:blank", "title": "Internal Server Error", "status": 500}
    return JSONResponse(content, 500, closing_headers(connection.scope), media_type="application/problem+json")


@dataclass
class UnhandledErrorMiddleware:
    """Answer an unhandled exception with *respond*, log one line, and raise it on to the server.

    It has to be the innermost middleware, so that the answer passes through CORS and the others. Nothing is sent after the response has
    started, or to a client that has left while its body was read. The server logs the traceback of what is raised. Only gunicorn's asgi
    worker does not, if the answer is complete: then the line has the traceback.

    A WebSocket that was accepted is closed with the code 1011 (RFC 6455, 7.4.1), unless either side has closed it. Before that, *respond*
    is called with the WebSocket if the server can send an answer to the handshake. Other servers send a 500 of their own.

    Args:
        respond: Makes the answer from the connection and the exception. The default is a plain problem (RFC 9457).
    """

    app: ASGIApp
    respond: Callable[[HTTPConnection, Exception], Response | Awaitable[Response]] = answer_plainly

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and answer an exception."""
        match scope["type"]:
            case "http":
                await self._serve_request(scope, receive, send)
            case "websocket":
                await self._serve_socket(scope, receive, send)
            case _:
                await self.app(scope, receive, send)

    async def _serve_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        def watch(message: Message) -> Awaitable[None]:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            return send(message)

        try:
            await self.app(scope, receive, watch)
        except ClientDisconnect:
            raise
        except Exception as error:
            # gunicorn's asgi worker is the only one that loads this module. Over HTTP/2 it logs as others do.
            is_silent = "gunicorn.workers.gasgi" in sys.modules and scope.get("http_version", "1.1").startswith("1")
            traceback = True if is_silent and not started else None
            _logger.error("Unhandled %s in request %s", type(error).__name__, read_request_id(scope), exc_info=traceback)
            if not started:
                await self._answer(Request(scope), error, scope, receive, send)
            raise

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        accepted = ended = False

        async def listen() -> Message:
            nonlocal ended
            message = await receive()
            ended = ended or message["type"] == "websocket.disconnect"
            return message

        async def watch(message: Message) -> None:
            nonlocal accepted, ended
            accepted = accepted or message["type"] == "websocket.accept"
            ended = ended or message["type"] in {"websocket.close", "websocket.http.response.start"}
            await send(message)

        try:
            await self.app(scope, listen, watch)
        except WebSocketDisconnect:
            raise
        except Exception as error:
            _logger.error("Unhandled %s in request %s", type(error).__name__, read_request_id(scope))
            # The first error says more than that the client has left.
            with suppress(OSError):
                if accepted and not ended:
                    await send({"type": "websocket.close", "code": WS_1011_INTERNAL_ERROR, "reason": "internal_error"})
                elif not ended and "websocket.http.response" in (scope.get("extensions") or {}):
                    await self._answer(WebSocket(scope, receive, send), error, scope, receive, send)
            raise

    async def _answer(self, connection: HTTPConnection, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        response = self.respond(connection, error)
        await (await response if isawaitable(response) else response)(scope, receive, send)
