"""Log in, and load the user of a token."""

import logging

from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit import TokenClaims
from fastapi_kit.auth.logins import StatelessLogins
from fastapi_kit.auth.users import AuthFlow

from ..models import User
from ..schemas import UserRegister
from ..utils.security import passwords, policy, tokens
from .user_service import UserService

logger = logging.getLogger("zenith.mail")

logins = StatelessLogins(tokens)
flow = AuthFlow[User, UserRegister](accounts=UserService, logins=logins, passwords=passwords, policy=policy)


async def load_user(session: AsyncSession, claims: TokenClaims) -> User | None:
    return await UserService(session).get_account(claims.sub)


async def send_welcome(user_id: int) -> None:
    """Send a mail here. The log shows the id only: an address is personal data."""
    logger.info("Welcome mail for user %d", user_id)
