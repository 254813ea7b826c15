"""Another import path for the names of ``fastapi_kit.auth.requests``."""

from fastapi_kit.auth.requests.current_user import CurrentUserDependency, UserDependency, get_claims_factory, get_current_user_factory
from fastapi_kit.auth.requests.guards import require, require_access
from fastapi_kit.auth.requests.roles import Roles

__all__ = [
    "CurrentUserDependency",
    "Roles",
    "UserDependency",
    "get_claims_factory",
    "get_current_user_factory",
    "require",
    "require_access",
]
