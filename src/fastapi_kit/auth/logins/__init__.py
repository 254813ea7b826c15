"""Logins: a pair of tokens, how it is renewed, and how it ends.

The stores that need a database or Redis have their own modules: ``fastapi_kit.auth.logins.sql`` and ``fastapi_kit.auth.logins.redis``.
"""

from fastapi_kit.auth.logins.memory import MemoryLoginStore
from fastapi_kit.auth.logins.protocol import ClientInfo, EndableLogins, LoginInfo, Logins, TokenPair
from fastapi_kit.auth.logins.stateless import StatelessLogins
from fastapi_kit.auth.logins.store import LoginRecord, LoginStore
from fastapi_kit.auth.logins.stored import StoredLogins

__all__ = [
    "ClientInfo",
    "EndableLogins",
    "LoginInfo",
    "LoginRecord",
    "LoginStore",
    "Logins",
    "MemoryLoginStore",
    "StatelessLogins",
    "StoredLogins",
    "TokenPair",
]
