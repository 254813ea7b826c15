"""Typed building blocks for FastAPI applications on SQLAlchemy async. The names of the core, imported on first use (PEP 562)."""

from typing import TYPE_CHECKING

from fastapi_kit._lazy import names_of

if TYPE_CHECKING:
    from fastapi_kit.app import create_app
    from fastapi_kit.auth import JWTService, PasswordHasher, TokenClaims, get_current_user_factory, require, require_access
    from fastapi_kit.crud import CRUDService
    from fastapi_kit.db import Base, Database, TimestampMixin, UUIDv7Mixin, unit_of_work
    from fastapi_kit.errors import ConflictError, KitError, NotFoundError, PermissionDeniedError, UserInputError
    from fastapi_kit.handlers import register_exception_handlers
    from fastapi_kit.health import health_router
    from fastapi_kit.pagination import Page, PageParams
    from fastapi_kit.routing import Endpoint, RouterOptions, crud_router
    from fastapi_kit.settings import KitSettings

__all__ = [
    "Base",
    "CRUDService",
    "ConflictError",
    "Database",
    "Endpoint",
    "JWTService",
    "KitError",
    "KitSettings",
    "NotFoundError",
    "Page",
    "PageParams",
    "PasswordHasher",
    "PermissionDeniedError",
    "RouterOptions",
    "TimestampMixin",
    "TokenClaims",
    "UUIDv7Mixin",
    "UserInputError",
    "create_app",
    "crud_router",
    "get_current_user_factory",
    "health_router",
    "register_exception_handlers",
    "require",
    "require_access",
    "unit_of_work",
]

__version__ = "0.1.0"

_MODULES = {
    "app": ["create_app"],
    "auth": ["JWTService", "PasswordHasher", "TokenClaims", "get_current_user_factory", "require", "require_access"],
    "crud": ["CRUDService"],
    "db": ["Base", "Database", "TimestampMixin", "UUIDv7Mixin", "unit_of_work"],
    "errors": ["ConflictError", "KitError", "NotFoundError", "PermissionDeniedError", "UserInputError"],
    "handlers": ["register_exception_handlers"],
    "health": ["health_router"],
    "pagination": ["Page", "PageParams"],
    "routing": ["Endpoint", "RouterOptions", "crud_router"],
    "settings": ["KitSettings"],
}

# Type checkers must not see this function: they would accept any name.
if not TYPE_CHECKING:
    __getattr__ = names_of(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
