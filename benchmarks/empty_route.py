"""An empty route: what stands in front of it is all that differs."""

import logging
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter

from fastapi import FastAPI
from pydantic import SecretStr
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from benchmarks.asgi import request
from benchmarks.contenders import Contender, Turn, Work
from benchmarks.login import SECRET_KEY
from benchmarks.stage import Stage
from fastapi_kit import KitSettings, create_app

__all__ = ["bare", "with_access_log", "with_base_http_middleware", "with_kit", "with_kit_but_no_log"]

_access_log = logging.getLogger("fastapi_kit.access")


def _make_app(*middleware: Middleware) -> FastAPI:
    """Make an app as ``create_app`` does, with other middleware in place of its own."""
    app = _make_kit_app()
    app.user_middleware[:] = middleware
    return app


def _make_kit_app() -> FastAPI:
    app = create_app(KitSettings(ENVIRONMENT="test", SECRET_KEY=SecretStr(SECRET_KEY)))

    @app.get("/")
    async def nothing() -> None: ...

    return app


class _Idle(BaseHTTPMiddleware):
    """Does nothing, in the way that tutorials show."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


class _AccessLog:
    """One line for each request, and nothing else."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start, status = perf_counter(), 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self.app(scope, receive, note)
        milliseconds = (perf_counter() - start) * 1000
        _access_log.info("%s %s %d in %.1f ms", scope["method"], scope["path"], status, milliseconds)


class _Nowhere(logging.Handler):
    """Formats each record and writes none."""

    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)


def _calling(app: FastAPI, *, level: int = logging.INFO) -> Contender:
    """Each call is a request to *app*; the access log formats what is of *level* and above, and writes nothing."""

    async def call(_: Turn) -> bytes:
        return await request(app, "GET", "/")

    @asynccontextmanager
    async def ready(_: Stage) -> AsyncGenerator[Work]:
        with _access_log_at(level):
            yield call

    return ready


@contextmanager
def _access_log_at(level: int) -> Generator[None]:
    handler, level_before, propagate_before = _Nowhere(), _access_log.level, _access_log.propagate
    _access_log.addHandler(handler)
    _access_log.setLevel(level)
    _access_log.propagate = False
    try:
        yield
    finally:
        _access_log.removeHandler(handler)
        _access_log.setLevel(level_before)
        _access_log.propagate = propagate_before


bare = _calling(_make_app())
with_access_log = _calling(_make_app(Middleware(_AccessLog)))
with_base_http_middleware = _calling(_make_app(Middleware(_Idle)))
with_kit = _calling(_make_kit_app())
with_kit_but_no_log = _calling(_make_kit_app(), level=logging.WARNING)
