"""Signed tokens and the keys that sign them. Loads neither FastAPI nor SQLAlchemy."""

from fastapi_kit.auth.tokens.claims import TokenClaims, TokenType
from fastapi_kit.auth.tokens.keys import Algorithm, JWKSet, Key, Keyring
from fastapi_kit.auth.tokens.policy import Clock, TokenPolicy
from fastapi_kit.auth.tokens.service import JWTService, TokenVerifier

__all__ = [
    "Algorithm",
    "Clock",
    "JWKSet",
    "JWTService",
    "Key",
    "Keyring",
    "TokenClaims",
    "TokenPolicy",
    "TokenType",
    "TokenVerifier",
]
