"""The application. Run ``python -m uvicorn examples.zenith.main:app`` from the root of the repository."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware

from fastapi_kit import create_app
from fastapi_kit.logs import configure_logging

from .config import settings
from .database import db, init_db
from .dependencies import runner
from .middleware import AuditMiddleware
from .routers import auth, organizations, users
from .services import logins


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    if not settings.is_production:
        await init_db()
    yield


configure_logging(level=settings.LOG_LEVEL)
app = create_app(
    settings,
    database=db,
    lifespans=[lifespan, runner.lifespan],
    middleware=[Middleware(AuditMiddleware, tokens=logins)],
)

app.include_router(auth.router, prefix=f"{settings.API_V1_STR}/auth", tags=["auth"])
app.include_router(users.router, prefix=f"{settings.API_V1_STR}/users", tags=["users"])
app.include_router(organizations.router, prefix=f"{settings.API_V1_STR}/organizations", tags=["organizations"])
