"""An HTTP client in the event loop of the test."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from fastapi_kit.errors import MissingExtraError

try:
    from httpx import ASGITransport, AsyncClient
except ImportError as error:
    raise MissingExtraError("testing") from error

__all__ = ["app_client"]


@asynccontextmanager
async def app_client(app: FastAPI, *, base_url: str = "https://test", raise_errors: bool = False) -> AsyncGenerator[AsyncClient, None]:
    """Start the lifespan of *app* and open a client to it.

    ``request.state`` of each request has what the lifespan yields, as under a server.

    Args:
        app: The application.
        base_url: The address for relative URLs. The default is https, so that secure cookies come back.
        raise_errors: Raise an unhandled exception in the test instead of answering 500.
    """

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        # Each request has a copy of its own, as under a server.
        await app({**scope, "state": {**state}}, receive, send)

    async with app.router.lifespan_context(app) as yielded:
        state: Mapping[str, Any] = yielded or {}
        transport = ASGITransport(call, raise_app_exceptions=raise_errors)
        async with AsyncClient(transport=transport, base_url=base_url) as client:
            yield client
