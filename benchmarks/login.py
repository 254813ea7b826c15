"""The user who is logged in, on both sides by the same token."""

from typing import Final

from fastapi_kit.auth import JWTService

__all__ = ["ALGORITHM", "AUTHORIZATION", "SECRET_KEY", "TOKENS"]

SECRET_KEY = "of-the-benchmarks-which-guard-nothing-at-all"
ALGORITHM: Final = "HS256"
TOKENS = JWTService(secret_key=SECRET_KEY, algorithm=ALGORITHM)

_ACTIVE_USER = 2
AUTHORIZATION = (b"authorization", f"Bearer {TOKENS.create_access_token(str(_ACTIVE_USER))}".encode())
"""The header of each request."""
