"""Passwords and tokens, under the page's names."""

from fastapi_kit import JWTService, PasswordHasher, TokenClaims
from fastapi_kit.auth import PasswordPolicy

from ..config import settings

passwords = PasswordHasher.from_settings(settings)
policy = PasswordPolicy()
tokens = JWTService.from_settings(settings)


async def verify_password(plain_password: str, hashed_password: str | None) -> bool:
    return await passwords.verify(plain_password, hashed_password)


async def get_password_hash(password: str) -> str:
    return await passwords.hash(password)


def create_access_token(user_id: int) -> str:
    """The subject is the id, which never changes: an address may."""
    return tokens.create_access_token(str(user_id))


def decode_access_token(token: str) -> TokenClaims:
    """Raises InvalidTokenError, which is answered by 401."""
    return tokens.decode(token)
