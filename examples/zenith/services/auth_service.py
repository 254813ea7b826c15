"""Load the user of a token, and send the mails of accounts."""

import logging

from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit import TokenClaims
from fastapi_kit.auth.users import Account, LoginThrottle, MailFlow

from ..models import User
from ..schemas import UserRegister
from ..utils.security import tokens
from .user_service import UserService, attempts, flow

logger = logging.getLogger("zenith.mail")


async def load_user(session: AsyncSession, claims: TokenClaims) -> User | None:
    return await UserService(session).get_account(claims.sub)


async def send_verification(account: Account, token: str) -> None:
    """Send a mail here. The log shows the id only: an address is personal data, and a token is a secret."""
    logger.info("Verification mail for user %s", account.subject)


async def send_reset(account: Account, token: str) -> None:
    """Send a mail here."""
    logger.info("Reset mail for user %s", account.subject)


mail = MailFlow[User, UserRegister](
    flow=flow,
    tokens=tokens,
    verify=send_verification,
    reset=send_reset,
    throttle=LoginThrottle(name="mail", counter=attempts, per_account=5),
)
