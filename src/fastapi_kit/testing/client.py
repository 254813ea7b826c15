"""A client in the same event loop."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_kit.errors import MissingExtraError

try:
    from httpx import ASGITransport, AsyncClient
except ImportError as error:
    raise MissingExtraError("testing") from error

__all__ = ["app_client"]


@asynccontextmanager
async def app_client(app: FastAPI, *, base_url: str = "https://test", raise_errors: bool = False) -> AsyncGenerator[AsyncClient, None]:
    """Open the app's lifespan and a client to it.

    What the lifespan yields is each request's ``request.state``, as under a server. With *raise_errors* an unhandled
    exception is raised in the test, not answered by 500.
    """
    async with app.router.lifespan_context(app) as state:
        transport = ASGITransport(_with_state(app, state or {}), raise_app_exceptions=raise_errors)
        async with AsyncClient(transport=transport, base_url=base_url) as client:
            yield client


def _with_state(app: ASGIApp, state: Mapping[str, Any]) -> ASGIApp:
    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        # Each request has a copy of its own, as servers give it.
        await app({**scope, "state": {**state}}, receive, send)

    return call
