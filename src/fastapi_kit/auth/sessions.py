"""Another import path for the names of ``fastapi_kit.auth.logins``."""

from fastapi_kit.auth.logins.protocol import Logins, TokenPair
from fastapi_kit.auth.logins.stateless import StatelessLogins

__all__ = ["Logins", "StatelessLogins", "TokenPair"]
