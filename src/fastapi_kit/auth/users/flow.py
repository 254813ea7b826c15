"""The steps of logging in, registering and refreshing, without HTTP."""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pydantic import BaseModel, SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit.auth.logins.protocol import Logins, TokenPair
from fastapi_kit.auth.passwords.hasher import PasswordHasher
from fastapi_kit.auth.passwords.policy import PasswordPolicy
from fastapi_kit.auth.users.accounts import Account, Accounts
from fastapi_kit.errors import InvalidCredentialsError, InvalidTokenError, UserInputError

__all__ = ["AuthFlow"]

UserT = TypeVar("UserT")
RegisterT = TypeVar("RegisterT", bound=BaseModel)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AuthFlow(Generic[UserT, RegisterT]):
    """The steps behind the ready routes, for routes of your own.

    *accounts* does the writing. A ``UserAccounts`` commits each write, unless a transaction was opened. While a password is hashed or
    verified, a session of ``Database`` (``db.session``) holds no connection. Any other session holds one, because looking up the user
    begins a transaction there.

    Args:
        accounts: Makes your users from a session: a ``UserAccounts`` class, or a service of your own.
        logins: Starts and renews logins.
        passwords: Hashes and verifies.
        policy: The rules for the passwords of new users.
        scopes: Returns the scopes that a user may have. A login gets those of them that it asks for. Without it, a login has no scopes.
    """

    accounts: Callable[[AsyncSession], Accounts[UserT, RegisterT]]
    logins: Logins
    passwords: PasswordHasher = field(default_factory=PasswordHasher)
    policy: PasswordPolicy = field(default_factory=PasswordPolicy)
    scopes: Callable[[UserT], Collection[str]] | None = None

    async def authenticate(self, session: AsyncSession, *, email: str, password: str | SecretStr) -> UserT:
        """Return the user with this address and password, and replace an outdated hash.

        It takes one password verification, whatever the outcome.

        Raises:
            InvalidCredentialsError: The address is unknown, the password is wrong, or the user is not active.
        """
        user, _ = await self._authenticate(session, email, password)
        return user

    async def login(self, session: AsyncSession, *, email: str, password: str | SecretStr, scopes: Collection[str] = ()) -> TokenPair:
        """Authenticate, and begin a login with those of *scopes* that the user may have. Raises InvalidCredentialsError."""
        user, account = await self._authenticate(session, email, password)
        allowed = frozenset[str]() if self.scopes is None else frozenset(self.scopes(user))
        return await self.logins.start(account.subject, scopes=allowed & frozenset(scopes))

    async def register(self, session: AsyncSession, data: RegisterT, *, password: str | SecretStr) -> UserT:
        """Check the password against the policy, hash it, and create the user.

        Raises:
            UserInputError: The password is too weak, or similar to another field of *data*.
            ConflictError: The address is taken.
        """
        others = [value for name, value in data if name != "password" and isinstance(value, str)]
        await self.policy.check(password, similar_to=others)
        return await self.accounts(session).register(data, hashed_password=await self.passwords.hash(password))

    async def refresh(self, session: AsyncSession, refresh_token: str) -> TokenPair:
        """Exchange a refresh token for a new pair, with the scopes that its user may still have.

        Raises:
            InvalidTokenError: The token is not valid, or its user does not exist or is not active.
        """
        claims = await self.logins.decode_refresh_token(refresh_token)
        accounts = self.accounts(session)
        user = await accounts.get_account(claims.sub)
        if user is None or not accounts.describe(user).is_active:
            raise InvalidTokenError("its user does not exist or is not active")
        return await self.logins.renew(claims, scopes=claims.scopes if self.scopes is None else self.scopes(user))

    async def _authenticate(self, session: AsyncSession, email: str, password: str | SecretStr) -> tuple[UserT, Account]:
        accounts = self.accounts(session)
        try:
            user = await accounts.get_account_by_email(email)
        except UserInputError:
            user = None  # not an address; the login fails after the same time
        account = None if user is None else accounts.describe(user)
        check = await self.passwords.verify_and_update(password, None if account is None else account.hashed_password)
        if user is None or account is None or not check.ok or not account.is_active:
            raise InvalidCredentialsError
        if check.new_hash is not None:
            try:
                # Only over the hash that was verified: a password that was changed meanwhile stays changed.
                await accounts.set_password(user, hashed_password=check.new_hash, replacing=account.hashed_password)
            except Exception as error:
                # The password was right. A failure to store a better hash must not fail the login.
                logger.warning("An outdated password hash could not be replaced: %s", type(error).__name__)
        return user, account
