"""Logins: a pair of tokens, and how it is renewed."""

from fastapi_kit.auth.logins.protocol import Logins, TokenPair
from fastapi_kit.auth.logins.stateless import StatelessLogins

__all__ = ["Logins", "StatelessLogins", "TokenPair"]
