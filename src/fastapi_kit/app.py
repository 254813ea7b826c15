"""The whole, composed. Everything here can be done by hand with the pieces."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias

from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.telemetry import TelemetryConfig

from fastapi_kit.db import Database
from fastapi_kit.handlers import ErrorBody, problem_body, register_exception_handlers
from fastapi_kit.health import HealthCheck, health_router, is_probe
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
    """Build a plain FastAPI with error handlers, CORS, health and lifespan.

    *routers* are included under API_V1_STR. At start the *database* is tried, its missing tables are created if
    *create_tables*, and *lifespans* are entered in order; all are closed in reverse, also when a later one fails to start.
    *fastapi* are FastAPI's own arguments and win over what the settings say; its ``lifespan`` is entered last, its
    ``exception_handlers`` go before the library's. An unknown one raises TypeError, as does *create_tables* without a *database*.
    ``ALLOWED_ORIGINS`` with ``*`` allows no credentials.
    """
    if create_tables and database is None:
        raise TypeError("create_tables needs a database")
    telemetry: TelemetryConfig = fastapi.pop("telemetry", None) or TelemetryConfig()
    app = FastAPI(**(_defaults(settings) | fastapi), telemetry={"exclude": is_probe, **telemetry})
    register_exception_handlers(app, body=error_body)
    app.exception_handlers.update(fastapi.get("exception_handlers") or {})
    _add_cors(app, settings.ALLOWED_ORIGINS)
    probes = health_router(
        version=app.version, checks=[*_database_checks(database), *checks], drain_seconds=settings.SHUTDOWN_DRAIN_SECONDS
    )
    app.include_router(probes)
    for router in routers:
        app.include_router(router, prefix=settings.API_V1_STR)
    own = [_database_lifespan(database, create_tables)] if database else []
    app.router.lifespan_context = _in_order([*own, *lifespans, app.router.lifespan_context])
    return app


def _defaults(settings: KitSettings) -> dict[str, Any]:
    return {
        "title": settings.PROJECT_NAME,
        "version": settings.VERSION,
        "debug": settings.DEBUG,
        "openapi_url": f"{settings.API_V1_STR}/openapi.json",
    }


def _add_cors(app: FastAPI, origins: Sequence[str]) -> None:
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            # With credentials "*" would mean every origin, as the user.
            allow_credentials="*" not in origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["ETag", "Link", "Location", "Retry-After", "X-Request-ID"],
        )


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


def _in_order(lifespans: Sequence[Lifespan]) -> Lifespan:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any], None]:
        state: dict[str, Any] = {}
        async with AsyncExitStack() as stack:
            for each in lifespans:
                state.update(await stack.enter_async_context(each(app)) or {})
            yield state

    return lifespan
