"""Passwords and tokens, under the names of the tutorial."""

from fastapi_kit import JWTService, PasswordHasher, TokenClaims

from ..config import settings

passwords = PasswordHasher.from_settings(settings)
tokens = JWTService.from_settings(settings)


async def verify_password(plain_password: str, hashed_password: str | None) -> bool:
    return await passwords.verify(plain_password, hashed_password)


async def get_password_hash(password: str) -> str:
    return await passwords.hash(password)


def create_access_token(user_id: int) -> str:
    """Use the id as the subject: it never changes, an address can."""
    return tokens.create_access_token(str(user_id))


def decode_access_token(token: str) -> TokenClaims:
    """Return the claims. Raises InvalidTokenError, a 401 over HTTP."""
    return tokens.decode(token)
