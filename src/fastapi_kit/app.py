"""Build an app from all parts of the library. You can do everything here by hand with the parts."""

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
from fastapi_kit.db.database import Database
from fastapi_kit.handlers.problems import ErrorBody, problem_body
from fastapi_kit.handlers.registrars import problem_response, register_exception_handlers
from fastapi_kit.health import HealthCheck, health_router, is_probe
from fastapi_kit.middleware.access_log import AccessLogMiddleware
from fastapi_kit.middleware.body_limit import BodyLimitMiddleware
from fastapi_kit.middleware.cors import CORSMiddleware
from fastapi_kit.middleware.request_id import RequestIdMiddleware
from fastapi_kit.middleware.security_headers import SecurityHeadersMiddleware
from fastapi_kit.routing.operations import check_operation_ids, operation_id
from fastapi_kit.settings import KitSettings

__all__ = ["Lifespan", "create_app"]

Lifespan: TypeAlias = Callable[[FastAPI], AbstractAsyncContextManager[Any]]
"""What FastAPI takes as ``lifespan=``. A mapping that it yields becomes ``request.state``."""


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
    """Build a FastAPI app with error handlers, request id, access log, security headers, CORS, body limit, health checks and lifespan.

    At start-up the app connects to the database, creates missing tables if *create_tables*, and enters *lifespans* in order. At shutdown,
    or if one of them fails to start, it closes what is open in reverse order. Operation ids are ``{tag}_{name}``. Health checks are neither
    logged nor traced. ``ALLOWED_ORIGINS`` with ``*`` allows no credentials.

    Args:
        settings: Title, version, CORS origins, limits and more.
        database: Is checked by ``/health`` and closed at shutdown.
        routers: Are included under ``API_V1_STR``.
        lifespans: Are entered after the database is connected.
        checks: Health checks beside that of the database.
        error_body: Makes the error body from a ``Problem``. The default sends the problem itself.
        create_tables: Create the missing tables of ``Base`` at start-up. It needs a *database*.
        **fastapi: Arguments of ``FastAPI``. They win over *settings*. A ``lifespan`` is entered last, and ``exception_handlers`` replace
            those of the library.

    Raises:
        TypeError: *create_tables* without a *database*, or an argument that ``FastAPI`` does not know.
        ConfigurationError: At start-up, if two operations have the same id.

    Example:
        ```python
        from fastapi_kit import Database, KitSettings, create_app

        settings = KitSettings()
        db = Database.from_settings(settings)
        app = create_app(settings, database=db, create_tables=True)
        ```
    """
    if create_tables and database is None:
        raise TypeError("create_tables needs a database")
    defaults: dict[str, Any] = {
        "title": settings.PROJECT_NAME,
        "version": settings.VERSION,
        "debug": settings.DEBUG,
        "openapi_url": f"{settings.API_V1_STR}/openapi.json",
        "generate_unique_id_function": operation_id,
    }
    app = new_app(defaults | fastapi, telemetry={"exclude": is_probe})
    register_exception_handlers(app, body=error_body)
    app.exception_handlers.update(fastapi.get("exception_handlers") or {})
    add_middleware(app, settings)
    database_checks = [HealthCheck("database", database.ping)] if database else []
    health = health_router(version=app.version, checks=[*database_checks, *checks], drain_seconds=settings.SHUTDOWN_DRAIN_SECONDS)
    # Not included, because the application's dependencies= are not for health checks.
    app.router.routes.extend(health.routes)
    for router in routers:
        app.include_router(router, prefix=settings.API_V1_STR)
    own = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any], None]:
        check_operation_ids(app)
        state: dict[str, Any] = {}
        async with AsyncExitStack() as stack:
            if database:
                await stack.enter_async_context(database.lifespan(app))
                if create_tables:
                    await database.create_tables()
            for each in (*lifespans, own, health.lifespan_context):
                state.update(await stack.enter_async_context(each(app)) or {})
            yield state

    app.router.lifespan_context = lifespan
    return app


def add_middleware(app: FastAPI, settings: KitSettings) -> None:
    """Add the library's middleware from the inside out: what is added later sees the request earlier."""
    # Inside the application's own, because BaseHTTPMiddleware would turn the 413 into a 500, and outside UnhandledErrorMiddleware.
    app.user_middleware.insert(-1, Middleware(BodyLimitMiddleware, max_bytes=settings.MAX_BODY_BYTES))
    if settings.ALLOWED_ORIGINS:
        app.add_middleware(
            ProblemCORSMiddleware,
            allow_origins=settings.ALLOWED_ORIGINS,
            # With credentials "*" would let every origin act as the user.
            allow_credentials="*" not in settings.ALLOWED_ORIGINS,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["ETag", "Link", "Location", "Retry-After", "X-Request-ID"],
        )
    app.add_middleware(SecurityHeadersMiddleware, hsts_seconds=settings.HSTS_SECONDS)
    app.add_middleware(AccessLogMiddleware)
    app.add_middleware(RequestIdMiddleware)


class ProblemCORSMiddleware(CORSMiddleware):
    """Rejects a preflight with the error body of the app."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a preflight."""
        response = super().preflight_response(request_headers)
        return response if response.status_code == 200 else RejectedPreflight(response)


class RejectedPreflight(Response):
    """Starlette's response as a problem. Of its headers only ``Vary`` stays: the others allow something, or repeat the request."""

    def __init__(self, rejected: Response) -> None:
        super().__init__(status_code=rejected.status_code)
        self.error = HTTPException(rejected.status_code, "The preflight is rejected.", {"Vary": rejected.headers["vary"]})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the problem."""
        await problem_response(Request(scope), self.error)(scope, receive, send)
