"""Load the user of a token, and welcome new users."""

import logging

from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit import TokenClaims

from ..models import User
from .user_service import UserService

logger = logging.getLogger("zenith.mail")


async def load_user(session: AsyncSession, claims: TokenClaims) -> User | None:
    return await UserService(session).get_account(claims.sub)


async def send_welcome(user_id: int) -> None:
    """Send a mail here. The log shows the id only: an address is personal data."""
    logger.info("Welcome mail for user %d", user_id)
