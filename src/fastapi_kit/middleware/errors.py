"""The last resort, inside CORS and request id."""

import logging
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["UnhandledErrorMiddleware", "closing_headers", "read_request_id"]

_logger = logging.getLogger(__name__)


def read_request_id(scope: Scope) -> str | None:
    """Return the id of the request in *scope*, or None if nothing gave it one (``request.state.request_id``)."""
    value = scope.get("state", {}).get("request_id")
    return value if isinstance(value, str) else None


def closing_headers(scope: Scope) -> dict[str, str]:
    """Return the headers of a 500: servers close an HTTP/1 connection after a raised exception, so the client is told (RFC 9112, 9.6)."""
    return {"Connection": "close"} if scope.get("http_version", "1.1").startswith("1") else {}


def _is_server_silent(scope: Scope) -> bool:
    """Whether gunicorn's own asgi worker serves, which is loaded nowhere else; over HTTP/2 it logs as others do."""
    return "gunicorn.workers.gasgi" in sys.modules and scope.get("http_version", "1.1").startswith("1")


def _answer_plainly(request: Request, error: Exception) -> Response:
    content = {"type": "about:blank", "title": "Internal Server Error", "status": 500}
    return JSONResponse(content, 500, closing_headers(request.scope), media_type="application/problem+json")


@dataclass
class UnhandledErrorMiddleware:
    """Answer an unhandled exception with *respond*, log one line, and raise it on to the server.

    It has to be the innermost middleware, so that the answer passes through CORS and the like. Nothing is sent once the
    response has started, or to a client that has gone while its body was read. The traceback is left to the server, which
    logs what is raised. Only gunicorn's asgi worker does not, once the answer is complete: there the line has the traceback.
    """

    app: ASGIApp
    respond: Callable[[Request, Exception], Response | Awaitable[Response]] = _answer_plainly

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer what comes back as an exception."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
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
            alone = not started and _is_server_silent(scope)
            _logger.error("Unhandled %s in request %s", type(error).__name__, read_request_id(scope), exc_info=alone or None)
            if not started:
                response = self.respond(Request(scope), error)
                await (await response if isawaitable(response) else response)(scope, receive, send)
            raise
