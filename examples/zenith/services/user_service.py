"""Operations on users, and how they log in."""

import logging
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit.auth import TokenClaims
from fastapi_kit.auth.logins import StoredLogins
from fastapi_kit.auth.logins.sql import SQLLoginStore
from fastapi_kit.auth.users import AccountChange, AuthFlow, Impersonation, LoginThrottle, UserAccounts
from fastapi_kit.crud.cached import CachedReadsMixin
from fastapi_kit.ratelimit import MemoryCounter

from ..cache import cache
from ..database import db
from ..models import Login, User
from ..schemas import UserChange, UserCreate, UserRegister, UserUpdate
from ..utils.security import passwords, tokens

logger = logging.getLogger("zenith.mail")


class UserService(CachedReadsMixin[User], UserAccounts[User, UserRegister, UserChange]):
    """Users, read and written on behalf of *actor*, or of the application if it is None. Profiles are kept in the cache.

    *claims* are those of the request: when the actor changes the password, this login goes on, and the others end.
    """

    cache = cache
    cache_lifetime = timedelta(minutes=1)
    create_schema = UserCreate
    update_schema = UserUpdate

    def __init__(self, session: AsyncSession, actor: User | None = None, claims: TokenClaims | None = None) -> None:
        super().__init__(session)
        self.actor = actor
        self.claims = claims

    async def create_values(self, data: UserRegister) -> dict[str, Any]:
        """Check and hash the password of a user whom a superuser creates. For registrations the flow does it."""
        values = await super().create_values(data)
        values["hashed_password"] = await flow.hash_password(values.pop("password"), similar_to=[data.email, data.full_name])
        return values

    async def update(self, ident: object, data: UserChange | Any, /, **options: Any) -> User:
        """Change a user. Their own address and password need the current password."""
        if not isinstance(data, UserChange):
            return await super().update(ident, data, **options)
        user = await self.get_one(ident)
        is_self = self.actor is not None and self.actor.id == user.id
        sid, impersonator = (self.claims.sid, self.claims.actor) if self.claims else (None, None)
        return await flow.change(self.session, user, data, confirm=is_self, keep=sid, actor=impersonator)


logins = StoredLogins(tokens, SQLLoginStore(db.sessions, Login), grace=timedelta(seconds=10))
# With several workers, count on Redis: LoginThrottle(counter=RateLimiter("redis://...")).
attempts = MemoryCounter()


async def send_notice(change: AccountChange) -> None:
    """Send a mail to the old address here: what was changed, and how to get help."""
    logger.info("Notice of a new %s for user %s", change.kind, change.account.subject)


flow = AuthFlow[User, UserRegister](
    accounts=UserService, logins=logins, passwords=passwords, throttle=LoginThrottle(counter=attempts), notify=send_notice
)
impersonation = Impersonation(flow=flow, tokens=tokens)
