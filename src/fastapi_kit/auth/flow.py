"""Another import path for the names of ``fastapi_kit.auth.users.flow``."""

from fastapi_kit.auth.users.flow import AuthFlow

__all__ = ["AuthFlow"]
