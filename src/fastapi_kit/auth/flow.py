"""Logging in, registering and refreshing, as steps without a web."""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pydantic import BaseModel, SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit.auth.accounts import Accounts, normalize_email
from fastapi_kit.auth.passwords import PasswordHasher, PasswordPolicy
from fastapi_kit.auth.sessions import Logins, TokenPair
from fastapi_kit.errors import InvalidCredentialsError, InvalidTokenError, UserInputError

__all__ = ["AuthFlow"]

UserT = TypeVar("UserT")
RegisterT = TypeVar("RegisterT", bound=BaseModel)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AuthFlow(Generic[UserT, RegisterT]):
    """Everything the routes stand on, and the same steps as methods for routes of one's own.

    Writes are those of *accounts*: a ``UserAccounts`` commits them, unless a transaction was opened. Hashing holds no connection where the
    session is one of a ``Database`` (``db.session``). On another session the look-up of the user begins a transaction, as every read
    does there, and its connection is held while the password is verified.
    """

    accounts: Callable[[AsyncSession], Accounts[UserT, RegisterT]]
    """Makes the host's users from a session: ``UserAccounts``, or a service class of the host."""
    logins: Logins
    passwords: PasswordHasher = field(default_factory=PasswordHasher)
    policy: PasswordPolicy = field(default_factory=PasswordPolicy)
    scopes: Callable[[UserT], Collection[str]] | None = None
    """The scopes that a user may have. A token gets those of them that the login asks for; without this none."""

    async def authenticate(self, session: AsyncSession, *, email: str, password: str | SecretStr) -> UserT:
        """Return the user, one password verification whatever happens. An outdated hash is replaced.

        Raises InvalidCredentialsError, the same for an unknown address, a wrong password and a user who is not active.
        """
        accounts = self.accounts(session)
        user = await _find(accounts, email)
        account = accounts.describe(user) if user is not None else None
        check = await self.passwords.verify_and_update(password, account.hashed_password if account else None)
        if user is None or account is None or not check.ok or not account.is_active:
            raise InvalidCredentialsError
        if check.new_hash is not None:
            await _upgrade(accounts, user, account.hashed_password, check.new_hash)
        return user

    async def login(self, session: AsyncSession, *, email: str, password: str | SecretStr, scopes: Collection[str] = ()) -> TokenPair:
        """Authenticate, and begin a login with those of *scopes* that the user may have. Raises InvalidCredentialsError."""
        user = await self.authenticate(session, email=email, password=password)
        allowed = frozenset(self.scopes(user)) if self.scopes else frozenset[str]()
        return await self.logins.start(self.accounts(session).describe(user).subject, scopes=allowed & frozenset(scopes))

    async def register(self, session: AsyncSession, data: RegisterT, *, password: str | SecretStr) -> UserT:
        """Check the policy, hash, and create the user.

        Raises UserInputError for a password that is too weak, or like what else is in *data*, and ConflictError for a taken address.
        """
        others = [value for name, value in data if name != "password" and isinstance(value, str)]
        await self.policy.check(password, similar_to=others)
        return await self.accounts(session).register(data, hashed_password=await self.passwords.hash(password))

    async def refresh(self, session: AsyncSession, refresh_token: str) -> TokenPair:
        """Exchange a refresh token of a user who is still there and active, for scopes that the user still may have.

        Raises InvalidTokenError.
        """
        claims = self.logins.tokens.decode(refresh_token, type="refresh")
        accounts = self.accounts(session)
        user = await accounts.get_account(claims.sub)
        if user is None or not accounts.describe(user).is_active:
            raise InvalidTokenError("its user does not exist or is not active")
        return await self.logins.refresh(refresh_token, allowed=None if self.scopes is None else self.scopes(user))


async def _find(accounts: Accounts[UserT, RegisterT], email: str) -> UserT | None:
    try:
        return await accounts.get_account_by_email(normalize_email(email))
    except UserInputError:
        # What is no address belongs to nobody; a login takes as long for it.
        return None


async def _upgrade(accounts: Accounts[UserT, RegisterT], user: UserT, old_hash: str | None, new_hash: str) -> None:
    try:
        # Only over what was verified: a password that was changed meanwhile stays changed.
        await accounts.set_password(user, hashed_password=new_hash, replacing=old_hash)
    except Exception as error:
        # The password was right: whatever hinders the host from storing a better hash must not hinder the login.
        _logger.warning("An outdated password hash could not be replaced: %s", type(error).__name__)
