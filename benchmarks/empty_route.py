"""An empty route: what stands in front of it is all that differs."""

import logging
from collections.abc import Sequence

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

from fastapi_kit.middleware import (
    AccessLogMiddleware,
    BodyLimitMiddleware,
    RequestIdMiddleware,
    SecurityHeadersMiddleware,
    UnhandledErrorMiddleware,
)

__all__ = ["bare", "with_base_http_middleware", "with_kit"]

_LOGGER = "benchmarks.access"


class _Nowhere(logging.Handler):
    """Formats each record and writes none."""

    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)


class _Idle(BaseHTTPMiddleware):
    """Does nothing, in the way that tutorials show."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


def _make_app(middleware: Sequence[Middleware] = ()) -> FastAPI:
    app = FastAPI(middleware=middleware)

    @app.get("/")
    async def nothing() -> None: ...

    return app


def _start_log() -> None:
    logger = logging.getLogger(_LOGGER)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(_Nowhere())


_start_log()
bare = _make_app()
with_base_http_middleware = _make_app([Middleware(_Idle)])
with_kit = _make_app(
    [
        Middleware(RequestIdMiddleware),
        Middleware(AccessLogMiddleware, logger=_LOGGER),
        Middleware(SecurityHeadersMiddleware),
        Middleware(BodyLimitMiddleware),
        Middleware(UnhandledErrorMiddleware),
    ]
)
