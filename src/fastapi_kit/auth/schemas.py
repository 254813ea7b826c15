"""Another import path for the names of ``fastapi_kit.auth.users.schemas``."""

from fastapi_kit.auth.users.schemas import RefreshRequest, UserProfile, UserRegister

__all__ = ["RefreshRequest", "UserProfile", "UserRegister"]
