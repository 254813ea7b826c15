"""Another import path for the names of ``fastapi_kit.auth.users.router``."""

from fastapi_kit.auth.users.router import AuthEndpoint, NoStoreRoute, PasswordForm, auth_router

__all__ = ["AuthEndpoint", "NoStoreRoute", "PasswordForm", "auth_router"]
