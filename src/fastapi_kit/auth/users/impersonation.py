"""Superusers who act as another user."""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from inspect import isawaitable
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit.auth.tokens.claims import TokenClaims
from fastapi_kit.auth.tokens.service import JWTService
from fastapi_kit.auth.users.accounts import is_superuser
from fastapi_kit.auth.users.flow import AuthFlow
from fastapi_kit.errors import ConfigurationError, ImpersonatedError, NotFoundError, PermissionDeniedError

__all__ = ["Impersonation", "ImpersonationStart", "ImpersonationToken"]

UserT = TypeVar("UserT")
RegisterT = TypeVar("RegisterT", bound=BaseModel)

LONGEST = timedelta(hours=1)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ImpersonationToken:
    """The answer: an access token (RFC 6749, 5.1). There is no refresh token. The repr hides the token."""

    access_token: str = field(repr=False)
    token_type: Literal["bearer"] = "bearer"
    expires_in: int
    """The lifetime in seconds."""
    scope: str = ""
    """What the token allows, separated by spaces."""


@dataclass(frozen=True, kw_only=True)
class ImpersonationStart:
    """What an audit needs to know."""

    actor: str
    """The id of the superuser."""
    subject: str
    """The id of the user whom the superuser acts as."""
    jti: str
    """The id of the token."""
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class Impersonation(Generic[UserT, RegisterT]):
    """Lets a superuser act as a user who is none: an access token of the user, whose claim ``act`` names the superuser (RFC 8693, 4.1).

    Dependencies of ``get_current_user_factory`` load both users with each request. The token ends when one of them is deleted or not
    active, when the actor is no longer a superuser, or when the user becomes one. With ``StoredLogins(check_access=True)`` it also ends
    with the login of the actor. It cannot be refreshed, and is no basis for another impersonation.

    Args:
        flow: Has the users, and the scopes that they may have.
        tokens: Signs the token, and has the clock.
        lifetime: From one second to one hour.
        on_start: Called, sync or async, before the token is returned: write an audit log. If it raises an error, there is no token.

    Raises:
        ConfigurationError: *lifetime* is out of bounds.
    """

    flow: AuthFlow[UserT, RegisterT]
    tokens: JWTService
    lifetime: timedelta = timedelta(minutes=15)
    on_start: Callable[[ImpersonationStart], object] | None = None

    def __post_init__(self) -> None:
        if not timedelta(seconds=1) <= self.lifetime <= LONGEST:
            raise ConfigurationError("the lifetime of an impersonation must be from one second to one hour")

    async def start(self, session: AsyncSession, claims: TokenClaims, subject: str, *, scopes: Collection[str] = ()) -> ImpersonationToken:
        """Return a token with which the user of *claims* acts as *subject*. Log the ids of both.

        Args:
            session: A session of your database.
            claims: The claims of the request: ``Depends(get_current_user.claims)``.
            subject: The id of the other user.
            scopes: What the token shall allow. It gets those of them that the other user may have.

        Raises:
            ImpersonatedError: The user of *claims* is acted as already.
            PermissionDeniedError: The user of *claims* is not an active superuser, or the other user is a superuser or not active.
            NotFoundError: There is no other user with this id.
        """
        if claims.actor is not None:
            raise ImpersonatedError
        accounts = self.flow.accounts(session)
        actor = await accounts.get_account(claims.sub)
        if actor is None or claims.type != "access" or not accounts.describe(actor).is_active or not is_superuser(actor):
            raise PermissionDeniedError("only a superuser may act as another user")
        user = await accounts.get_account(subject)
        if user is None:
            raise NotFoundError(type(actor), subject)
        account = accounts.describe(user)
        if is_superuser(user) or not account.is_active:
            raise PermissionDeniedError("the other user is a superuser, or not active")
        allowed = frozenset[str]() if self.flow.scopes is None else frozenset(self.flow.scopes(user))
        granted = allowed & frozenset(scopes)
        token = self.tokens.create_access_token(account.subject, scopes=granted, lifetime=self.lifetime, sid=claims.sid, actor=claims.sub)
        await self._report(self.tokens.decode(token))
        return ImpersonationToken(access_token=token, expires_in=int(self.lifetime.total_seconds()), scope=" ".join(sorted(granted)))

    async def _report(self, claims: TokenClaims) -> None:
        logger.info("User %s acts as user %s until %s", claims.actor, claims.sub, claims.exp)
        if self.on_start is not None:
            start = ImpersonationStart(actor=claims.actor or "", subject=claims.sub, jti=claims.jti, expires_at=claims.exp)
            result = self.on_start(start)
            if isawaitable(result):
                await result
