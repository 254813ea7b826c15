"""The whole, composed. Everything here can be done by hand with the pieces."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias

from fastapi import APIRouter, FastAPI
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fastapi_kit._compat_web import new_app
from fastapi_kit.db import Database
from fastapi_kit.handlers import ErrorBody, problem_body, problem_response, register_exception_handlers
from fastapi_kit.health import HealthCheck, health_router, is_probe
from fastapi_kit.middleware import AccessLogMiddleware, BodyLimitMiddleware, RequestIdMiddleware, SecurityHeadersMiddleware
from fastapi_kit.middleware.cors import CORSMiddleware
from fastapi_kit.routing import check_operation_ids, operation_id
from fastapi_kit.settings import KitSettings

__all__ = ["Lifespan", "create_app"]

Lifespan: TypeAlias = Callable[[FastAPI], AbstractAsyncContextManager[Any]]
"""What FastAPI takes as ``lifespan=``; a yielded mapping becomes ``request.state``."""


def create_app(
    settings: KitSettings,
    *,
    database: Database | None = None,
    routers: Sequence[APIRouter] = (),
    lifespans: Sequence[Lifespan] = (),
    checks: Sequence[HealthCheck] = (),
    error_body: ErrorBody = problem_body,
    create_tables: bool = False,
    **fastapi: Any,
) -> FastAPI:
    """Build a plain FastAPI with error handlers, request id, access log, security headers, CORS, body limit, health and lifespan.

    *routers* are included under API_V1_STR. At start the *database* is tried, its missing tables are created if
    *create_tables*, and *lifespans* are entered in order; all are closed in reverse, also when a later one fails to start.
    Operation ids are ``{tag}_{name}``; two operations with one id raise ConfigurationError at start.

    *fastapi* are FastAPI's own arguments and win over what the settings say; its ``lifespan`` is entered last, its
    ``exception_handlers`` go before the library's. An unknown one raises TypeError, as does *create_tables* without a *database*.
    ``ALLOWED_ORIGINS`` with ``*`` allows no credentials. Probes are neither logged nor traced.
    """
    if create_tables and database is None:
        raise TypeError("create_tables needs a database")
    app = new_app(_defaults(settings) | fastapi, telemetry={"exclude": is_probe})
    register_exception_handlers(app, body=error_body)
    app.exception_handlers.update(fastapi.get("exception_handlers") or {})
    _add_middleware(app, settings)
    probes = health_router(
        version=app.version, checks=[*_database_checks(database), *checks], drain_seconds=settings.SHUTDOWN_DRAIN_SECONDS
    )
    # Not included, because the host's dependencies= are no matter of theirs.
    app.router.routes.extend(probes.routes)
    for router in routers:
        app.include_router(router, prefix=settings.API_V1_STR)
    own = [_database_lifespan(database, create_tables)] if database else []
    app.router.lifespan_context = _in_order(
        [_checked_operation_ids, *own, *lifespans, app.router.lifespan_context, probes.lifespan_context]
    )
    return app


def _defaults(settings: KitSettings) -> dict[str, Any]:
    return {
        "title": settings.PROJECT_NAME,
        "version": settings.VERSION,
        "debug": settings.DEBUG,
        "openapi_url": f"{settings.API_V1_STR}/openapi.json",
        "generate_unique_id_function": operation_id,
    }


def _add_middleware(app: FastAPI, settings: KitSettings) -> None:
    """From the inside out: what is added later sees the request earlier."""
    # Inside the host's own, of which BaseHTTPMiddleware would turn the refusal into a 500; outside the last resort.
    app.user_middleware.insert(-1, Middleware(BodyLimitMiddleware, max_bytes=settings.MAX_BODY_BYTES))
    _add_cors(app, settings.ALLOWED_ORIGINS)
    app.add_middleware(SecurityHeadersMiddleware, hsts_seconds=settings.HSTS_SECONDS)
    app.add_middleware(AccessLogMiddleware)
    app.add_middleware(RequestIdMiddleware)


def _add_cors(app: FastAPI, origins: Sequence[str]) -> None:
    if origins:
        app.add_middleware(
            _CORSMiddleware,
            allow_origins=origins,
            # With credentials "*" would mean every origin, as the user.
            allow_credentials="*" not in origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["ETag", "Link", "Location", "Retry-After", "X-Request-ID"],
        )


class _CORSMiddleware(CORSMiddleware):
    """Refuses a preflight in the app's own error body."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        return response if response.status_code == 200 else _RefusedPreflight(response)


class _RefusedPreflight(Response):
    def __init__(self, refusal: Response) -> None:
        super().__init__(status_code=refusal.status_code)
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # What else is in it allows something, or repeats what the client has asked for.
        error = HTTPException(self._refusal.status_code, "The preflight is refused.", {"Vary": self._refusal.headers["vary"]})
        await problem_response(Request(scope), error)(scope, receive, send)


def _database_checks(database: Database | None) -> list[HealthCheck]:
    return [HealthCheck("database", database.ping)] if database else []


def _database_lifespan(database: Database, create_tables: bool) -> Lifespan:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        async with database.lifespan(app):
            if create_tables:
                await database.create_tables()
            yield

    return lifespan


@asynccontextmanager
async def _checked_operation_ids(app: FastAPI) -> AsyncGenerator[None, None]:
    check_operation_ids(app)
    yield


def _in_order(lifespans: Sequence[Lifespan]) -> Lifespan:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any], None]:
        state: dict[str, Any] = {}
        async with AsyncExitStack() as stack:
            for each in lifespans:
                state.update(await stack.enter_async_context(each(app)) or {})
            yield state

    return lifespan
