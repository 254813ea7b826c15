"""Routes of a generated router, and their order."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from fastapi_kit.handlers.openapi import problem_responses

__all__ = ["ETAG", "IF_MATCH", "IF_NONE_MATCH", "BatchRoute", "CRUDRouter", "RowRoute", "add_route"]

ETAG = {"ETag": "The version of the row (RFC 9110, 8.8.3)"}
IF_MATCH = {"If-Match": "The ETag that the row must have"}
IF_NONE_MATCH = {"If-None-Match": "The ETag that the client has"}

_NOTHING: Mapping[str, str] = {}


class RowRoute(APIRoute):
    """The route of one row. Its path matches any key."""


class BatchRoute(APIRoute):
    """The route of many rows. It takes every method of its path, which is not a row, except those of other routes."""

    allowed: frozenset[str] = frozenset()
    """The methods of the path in its router."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match every method of the path that no other route has."""
        match, child_scope = super().matches(scope)
        is_of_another = scope.get("method") in self.allowed and scope["method"] not in (self.methods or ())
        return (Match.NONE if match is Match.NONE or is_of_another else Match.FULL), child_scope

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the methods of the route, and answer 405 to others (RFC 9110, 15.5.6)."""
        if scope["method"] not in (self.methods or ()):
            # FastAPI's class, of which the handlers keep the header. To Starlette the path of a row is this one's too.
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(self.allowed))})
        await super().handle(scope, receive, send)


class CRUDRouter(APIRouter):
    """Keeps the routes of single rows behind all others, because they would take ``/mine`` for a key.

    Those for many rows, ``/batch`` and ``/export``, are directly before them. They answer 405 to methods that no other route takes.
    """

    row_path = ""

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Add a route in its place."""
        super().add_api_route(path, endpoint, **options)
        self.sort()

    def include_router(self, router: APIRouter, **options: Any) -> None:
        """Add the routes of *router* in their place."""
        super().include_router(router, **options)
        self.sort()

    def sort(self) -> None:
        """Put the routes in order, and tell those of many rows which methods their path has."""
        self.routes.sort(key=lambda route: (self.is_of_rows(route), isinstance(route, BatchRoute)))
        for batch in self.routes:
            if isinstance(batch, BatchRoute):
                same = (route for route in self.routes if isinstance(route, APIRoute) and route.path == batch.path)
                batch.allowed = frozenset(method for route in same for method in route.methods or ())

    def is_of_rows(self, route: BaseRoute) -> bool:
        """Return whether *route* is for single rows: one of the library's, or one of the application for the same path."""
        return isinstance(route, RowRoute) or (isinstance(route, APIRoute) and route.path == self.row_path)


def add_route(
    router: APIRouter,
    method: str,
    path: str,
    endpoint: Callable[..., Any],
    *,
    name: str,
    errors: Sequence[int],
    status_code: int = 200,
    headers: Mapping[str, str] = _NOTHING,
    asks: Mapping[str, str] = _NOTHING,
    requires_asked: bool = False,
    responses: Mapping[int | str, dict[str, Any]] | None = None,
    **documented: Any,
) -> None:
    """Add a route for *endpoint*, with its *errors*, the *headers* of its answer and those that it *asks* for.

    A route for ``GET`` answers ``HEAD`` too.
    """
    # Traces and logs show the function's name.
    endpoint.__name__ = endpoint.__qualname__ = name
    text: Any = {"schema": {"type": "string"}}
    sent = {header: {"description": what, **text} for header, what in headers.items()}
    documented_responses = {**problem_responses(*errors), **(responses or {})}
    if sent:
        documented_responses[status_code] = {**documented_responses.get(status_code, {}), "headers": sent}
    asked = [{"in": "header", "name": header, "description": what, "required": requires_asked, **text} for header, what in asks.items()]
    # HEAD has no operation of its own in OpenAPI.
    for served in ("GET", "HEAD") if method == "GET" else (method,):
        router.add_api_route(
            path,
            endpoint,
            methods=[served],
            name=name,
            status_code=status_code,
            responses=documented_responses,
            openapi_extra={"parameters": asked} if asked else None,
            include_in_schema=served != "HEAD",
            **documented,
        )
