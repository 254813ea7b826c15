"""The application. Run ``python -m uvicorn examples.zenith.main:app`` from the root of the repository."""

from starlette.middleware import Middleware

from fastapi_kit import create_app
from fastapi_kit.health import HealthCheck
from fastapi_kit.logs import configure_logging

from .cache import cache
from .config import settings
from .database import db
from .middleware import AuditMiddleware
from .models import Base
from .routers import auth, organizations, users
from .services import logins

configure_logging(level=settings.LOG_LEVEL)
app = create_app(
    settings,
    database=db,
    create_tables=not settings.is_production,
    metadata=Base.metadata,
    lifespans=[cache.lifespan],
    checks=[HealthCheck("cache", cache.ping, critical=False)],
    middleware=[Middleware(AuditMiddleware, tokens=logins)],
)

app.include_router(auth.router, prefix=f"{settings.API_V1_STR}/auth", tags=["auth"])
app.include_router(users.router, prefix=f"{settings.API_V1_STR}/users", tags=["users"])
app.include_router(organizations.router, prefix=f"{settings.API_V1_STR}/organizations", tags=["organizations"])
