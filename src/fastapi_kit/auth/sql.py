"""Another import path for the names of ``fastapi_kit.auth.users.sql``."""

from fastapi_kit.auth.users.sql import NoChanges, UserAccounts, UserMixin

__all__ = ["NoChanges", "UserAccounts", "UserMixin"]
