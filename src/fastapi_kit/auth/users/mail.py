"""What needs a link in a mail: to verify an address, to change it, and to reset a forgotten password."""

import json
import logging
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import sha256
from secrets import token_hex
from typing import Generic, TypeAlias, TypeVar

from pydantic import BaseModel, SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit.auth.logins.protocol import ClientInfo
from fastapi_kit.auth.tokens.claims import TokenClaims, TokenType
from fastapi_kit.auth.tokens.service import JWTService
from fastapi_kit.auth.users.accounts import Account, EditableAccounts, editable, normalize_email
from fastapi_kit.auth.users.flow import AuthFlow
from fastapi_kit.auth.users.throttle import LoginThrottle
from fastapi_kit.db.hooks import on_rollback
from fastapi_kit.db.sessions import finish
from fastapi_kit.db.transactions import unit_of_work
from fastapi_kit.errors import ConfigurationError, ConflictError, FieldError, InvalidTokenError, UserInputError
from fastapi_kit.ratelimit.counters import AttemptCounter, MemoryCounter

__all__ = ["Mail", "MailFlow", "SendLink"]

UserT = TypeVar("UserT")
RegisterT = TypeVar("RegisterT", bound=BaseModel)

Mail: TypeAlias = Callable[[], Awaitable[None]]
"""A call that sends a mail, or does nothing. Make it after the response: ``background.add_task(mail)``. It never raises an Exception."""

SendLink: TypeAlias = Callable[[Account, str], Awaitable[object]]
"""A function of your application. It sends a mail to ``account.email`` with a link that contains the token."""

LONGEST_VERIFY = timedelta(hours=24)
LONGEST_RESET = timedelta(hours=1)
CLOCKS_DIFFER = timedelta(minutes=10)
"""More than twice the longest ``leeway`` of a token."""

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class MailFlow(Generic[UserT, RegisterT]):
    """The steps that need a mail. ``auth_router(mail=...)`` has routes for them.

    Each link works once. It ends with its lifetime, and as soon as the password or the address of its user changes. A link that verifies an
    address ends as soon as an address is verified. *used* notes the id of a used link until its lifetime is over. It is noted while the
    row of the user is locked, and forgotten if the transaction is rolled back, so a confirmation that fails uses up no link.

    A method that may send a mail takes where the request comes from, for *throttle*. It returns a call, which you make after the response.
    The answer to a client is then the same for known and unknown addresses, and takes the same time. A mail that cannot be sent is logged
    as an error, by the type of the exception.

    *accounts* of the flow must have the methods of ``EditableAccounts``. Writes commit, unless a transaction was opened.

    Args:
        flow: The steps of logging in.
        tokens: Creates and decodes the tokens in the links.
        verify: Sends the link that verifies ``account.email``: the address of a new user, or the new address of a user.
        reset: Sends the link to set a new password.
        taken: Sends a mail to the owner of a taken address with which a client registers, or which another user wants. With it,
            ``register`` does not show that the address is taken. The flow then needs ``verified=True``: otherwise a login right after the
            registration shows it. For a taken address, ``register`` of *accounts* is called once more, inside a transaction that is rolled
            back, to find out whether another field is taken, too.
        verify_lifetime: How long the link works: 24 hours at most.
        reset_lifetime: How long the link works: 1 hour at most.
        throttle: Limits how many mails of each kind an address gets, and how many a client causes:
            ``LoginThrottle(name="mail", per_account=5)``. Without it, they are not limited.
        used: Notes the links that were used: a ``RateLimiter`` on Redis for several processes. The default is the memory of this process.
            Give it no counter in memory that a throttle has: strangers could fill that. Where a link is not noted, as in another process,
            after a restart or beyond ``max_keys``, it still ends with the password or the address; it then works again if the user returns
            to the old address within its lifetime. If Redis does not answer, ``RateLimiter(fail_open=False)`` makes the use of a link a
            503; otherwise it works, and is not noted.

    Raises:
        ConfigurationError: A lifetime is out of bounds, or *taken* is given without ``verified=True`` or without *verify*.
    """

    flow: AuthFlow[UserT, RegisterT]
    tokens: JWTService
    verify: SendLink | None = None
    reset: SendLink | None = None
    taken: Callable[[str], Awaitable[object]] | None = None
    verify_lifetime: timedelta = LONGEST_VERIFY
    reset_lifetime: timedelta = LONGEST_RESET
    throttle: LoginThrottle | None = None
    used: AttemptCounter = field(default_factory=MemoryCounter)

    def __post_init__(self) -> None:
        for name, longest in {"verify_lifetime": LONGEST_VERIFY, "reset_lifetime": LONGEST_RESET}.items():
            if not timedelta(seconds=1) <= getattr(self, name) <= longest:
                raise ConfigurationError(f"{name} must be from 1 second to {longest // timedelta(hours=1)} hours")
        if self.taken is not None and not (self.flow.verified and self.verify):
            raise ConfigurationError("taken= hides which addresses are registered: it needs verify= and AuthFlow(verified=True)")

    async def register(
        self, session: AsyncSession, data: RegisterT, *, password: str | SecretStr, client: ClientInfo | None = None
    ) -> Mail:
        """Create the user, and return the mail that verifies the address, or the mail *taken* to the owner of a taken address.

        Raises:
            UserInputError: The password is too weak, or similar to another field of *data*.
            ConflictError: The address is taken, and there is no *taken*.
            RateLimitedError: The address got, or the client caused, too many mails.
        """
        await self.limit_registration(data, client)
        try:
            user = await self.flow.register(session, data, password=password)
        except ConflictError as error:
            email = getattr(data, "email", None)
            # Another unique field, such as a user name, is not hidden.
            if self.taken is None or not isinstance(email, str) or error.fields not in {(), ("email",)}:
                raise
            await self._check_other_fields(session, data)
            return mail_of(self.taken, normalize_email(email))
        return self.verification(session, user)

    async def limit_registration(self, data: RegisterT, client: ClientInfo | None) -> None:
        """Count the mail of a registration, as ``register`` does. Raises RateLimitedError."""
        await self._limit("register", getattr(data, "email", None), client)

    def verification(self, session: AsyncSession, user: UserT) -> Mail:
        """Return the mail that verifies the address of *user*, or one that does nothing if it is verified."""
        account = self._accounts(session).describe(user)
        return nothing if account.is_verified or not account.email else self._verify_mail(account, account.email)

    async def request_verification(self, session: AsyncSession, *, email: str, client: ClientInfo | None = None) -> Mail:
        """Return the mail that verifies an address. It does nothing if no active user has it, or if it is verified.

        Raises:
            RateLimitedError: The address got, or the client caused, too many mails.
        """
        await self._limit("verify", email, client)
        user = await self.flow.find(session, email)
        return nothing if user is None or not self._accounts(session).describe(user).is_active else self.verification(session, user)

    async def request_email(
        self,
        session: AsyncSession,
        user: UserT,
        *,
        email: str,
        current: str | SecretStr,
        code: str | SecretStr | None = None,
        client: ClientInfo | None = None,
    ) -> Mail:
        """Return the mail to a new address of *user*. Its link makes it the address, verified; until then the old one stays.

        A taken address is not shown: the mail is *taken*, or does nothing.

        Args:
            session: A session of your database.
            user: The user as stored now.
            email: The new address.
            current: The current password.
            code: A code of the second factor, or a recovery code, for a user who has enabled one. It is used up.
            client: Where the request comes from.

        Raises:
            UserInputError: The current password is wrong, *code* is missing or wrong, or *email* is not an address.
            RateLimitedError: The address got, or the client caused, too many mails, or the user had too many attempts.
        """
        accounts = self._accounts(session)
        email = normalize_email(email)
        await self.flow.confirm(session, user, current)
        await self.flow.confirm_code(session, user, code)
        await self._limit("email", email, client)
        if await accounts.get_account_by_email(email) is None:
            return self._verify_mail(accounts.describe(user), email)
        own = accounts.describe(user)
        return nothing if self.taken is None or own.email == email else mail_of(self.taken, email)

    async def confirm_email(self, session: AsyncSession, token: str) -> UserT:
        """Use the link of a verification, and return the user with the verified address.

        Raises:
            UserInputError: The link is not valid any more, with the code ``invalid_link``.
            ConflictError: Another user has the address now. The link still works.
            UnavailableError: The counter of *used* does not answer.
        """
        claims = self._decode(token, "verify")
        email = claims.extra.get("email")
        accounts = self._accounts(session)

        async def store() -> UserT:
            async with unit_of_work(session):
                user = self._check(accounts, await accounts.lock_account(claims.sub), claims)
                before = accounts.describe(user)
                if not isinstance(email, str) or (before.is_verified and before.email == email):
                    raise invalid_link()
                await self._use(session, claims)
                await accounts.set_email(user, email=email)
                if before.email != email:
                    await self.flow.tell(session, "email", before=before, after=replace(before, email=email, is_verified=True))
            return user

        return await finish(store())

    async def request_reset(self, session: AsyncSession, *, email: str, client: ClientInfo | None = None) -> Mail:
        """Return the mail to reset a password. It does nothing if no active user with a password has this address.

        Raises:
            RateLimitedError: The address got, or the client caused, too many mails.
        """
        await self._limit("reset", email, client)
        user = await self.flow.find(session, email)
        if user is None or self._accounts(session).describe(user).hashed_password is None:
            return nothing
        return self.reset_mail(session, user)

    def reset_mail(self, session: AsyncSession, user: UserT) -> Mail:
        """Return the mail with which *user* sets a password, also the first one. It does nothing if the user is not active."""
        account = self._accounts(session).describe(user)
        if not account.is_active or not account.email:
            return nothing
        return self._mail(self.reset, account, "reset", self.reset_lifetime, {})

    async def reset_password(self, session: AsyncSession, token: str, *, new: str | SecretStr) -> UserT:
        """Use the link of a reset: store the new password, and end all stored logins, and what ``revoke`` ends, after the commit.

        The address counts as verified afterwards, because the link was sent there.

        Raises:
            UserInputError: The link is not valid any more, with the code ``invalid_link``, or the password is too weak.
            UnavailableError: The counter of *used* does not answer.
        """
        claims = self._decode(token, "reset")
        accounts = self._accounts(session)
        account = accounts.describe(self._check(accounts, await accounts.get_account(claims.sub), claims))
        new_hash = await self.flow.hash_password(new, similar_to=[account.email])

        async def store() -> UserT:
            async with unit_of_work(session) as unit:
                # Once more, and locked: the link, the password or the address may have been used or changed while the password was hashed.
                user = self._check(accounts, await accounts.lock_account(claims.sub), claims)
                await self._use(session, claims)
                await accounts.set_password(user, hashed_password=new_hash)
                if not accounts.describe(user).is_verified:
                    await accounts.set_email(user, email=account.email)
                self.flow.end_logins(unit, account.subject)
                await self.flow.tell(session, "password", before=account, after=accounts.describe(user))
            return user

        return await finish(store())

    async def _limit(self, kind: str, email: str | None, client: ClientInfo | None) -> None:
        # Each kind has its own limit: requests that send another mail, or none, must not use up the resets of an address.
        if self.throttle is not None and email:
            name, address = self.flow.account_name(email), None if client is None else client.address
            await self.throttle.attempt(account=name, client=address, kind=kind)

    async def _check_other_fields(self, session: AsyncSession, data: RegisterT) -> None:
        """Raise the ConflictError that *data* would cause with a free address, and store nothing.

        The database names one field of several that are taken. So a name that is known to be taken would show whether the address is, too.
        """
        free = data.model_copy(update={"email": f"{token_hex(16)}@example.com"})
        async with unit_of_work(session) as unit:
            await self.flow.accounts(session).register(free, hashed_password="")
            await unit.rollback()

    def _accounts(self, session: AsyncSession) -> EditableAccounts[UserT, RegisterT]:
        return editable(self.flow.accounts(session))

    def _verify_mail(self, account: Account, email: str) -> Mail:
        return self._mail(self.verify, account, "verify", self.verify_lifetime, {"email": email})

    def _mail(self, send: SendLink | None, account: Account, type: TokenType, lifetime: timedelta, extra: Mapping[str, str]) -> Mail:
        if send is None:
            raise ConfigurationError(f"this MailFlow sends no such mail: pass {type}=")

        async def send_link() -> None:
            # The token is created here, after the response: to sign one takes time that an unknown address does not take.
            token = self.tokens.create_token(account.subject, type=type, lifetime=lifetime, extra={**extra, "state": state_of(account)})
            await send(replace(account, email=extra.get("email", account.email)), token)

        return mail_of(send_link)

    def _decode(self, token: str, type: TokenType) -> TokenClaims:
        try:
            return self.tokens.decode(token, type=type)
        except InvalidTokenError:
            raise invalid_link() from None

    async def _use(self, session: AsyncSession, claims: TokenClaims) -> None:
        """Note that a link is used, until it would have ended. Call it with the user locked. Raises ``invalid_link`` if it was used."""
        key, lifetime = f"link {claims.jti}", claims.exp - claims.iat + CLOCKS_DIFFER
        if await self.used.hit(key, limit=1, window=lifetime.total_seconds()):
            raise invalid_link()
        on_rollback(session, lambda: finish(self.used.reset(key)))

    def _check(self, accounts: EditableAccounts[UserT, RegisterT], user: UserT | None, claims: TokenClaims) -> UserT:
        account = None if user is None else accounts.describe(user)
        if user is None or account is None or not account.is_active or claims.extra.get("state") != state_of(account):
            raise invalid_link()
        return user


def state_of(account: Account) -> str:
    """Return a digest of the password's hash and of the address. A link works while it is the same."""
    state = json.dumps([account.hashed_password, account.email])
    return urlsafe_b64encode(sha256(state.encode()).digest()[:16]).decode().rstrip("=")


async def nothing() -> None:
    """Send no mail."""


def mail_of(send: Callable[..., Awaitable[object]], *args: str) -> Mail:
    """Return a call of *send* that logs the error that it raises: the response was sent, and the client must not learn of it."""

    async def send_mail() -> None:
        try:
            await send(*args)
        except Exception as error:
            # The application's function may raise anything. The text may have an address.
            logger.error("A mail could not be sent: %s", type(error).__name__)

    return send_mail


def invalid_link() -> UserInputError:
    """Return the error for a link that does not work any more."""
    text = "The link is not valid any more. Ask for a new one."
    return UserInputError(text, errors=[FieldError(("body", "token"), "invalid_link", "is not valid any more")])
