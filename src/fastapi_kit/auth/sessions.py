"""Another import path for the names of ``fastapi_kit.auth.logins``."""

from fastapi_kit.auth.logins import (
    ClientInfo,
    EndableLogins,
    LoginInfo,
    LoginRecord,
    Logins,
    LoginStore,
    MemoryLoginStore,
    StatelessLogins,
    StoredLogins,
    TokenPair,
)

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
