"""One log line for each request that may change something."""

import logging
from dataclasses import dataclass

from fastapi.routing import iter_route_contexts
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_kit.auth import BearerTransport, TokenVerifier
from fastapi_kit.errors import InvalidTokenError

logger = logging.getLogger("zenith.audit")
SAFE_METHODS = {"GET", "HEAD", "OPTIONS", "TRACE"}


@dataclass
class AuditMiddleware:
    """Logs who asks, and as whom, method, route and status; never the path or the token. It rejects no request: the routes do."""

    app: ASGIApp
    tokens: TokenVerifier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS:
            await self.app(scope, receive, send)
            return
        status = "unanswered"

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, note_status)
        finally:
            logger.info("%s %s %s %s", await self.subject(scope), scope["method"], route_of(scope), status)

    async def subject(self, scope: Scope) -> str:
        try:
            claims = await BearerTransport().authenticate(HTTPConnection(scope), self.tokens)
        except InvalidTokenError:
            return "anonymous"
        if claims is None:
            return "anonymous"
        return f"{claims.actor} as {claims.sub}" if claims.actor else claims.sub


def route_of(scope: Scope) -> str:
    """Return the template of the route, such as ``/users/{id}``."""
    routes = iter_route_contexts(scope["app"].routes) if "app" in scope else ()
    templates = (route.path_format for route in routes if route.endpoint is scope.get("endpoint"))
    return next(templates, None) or "-"
