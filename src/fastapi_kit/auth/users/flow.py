"""The steps of logging in, registering, changing and refreshing, without HTTP."""

import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from pydantic import BaseModel, SecretStr
from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstanceState

from fastapi_kit.auth.logins.protocol import ClientInfo, EndableLogins, LoginInfo, Logins, TokenPair
from fastapi_kit.auth.passwords.hasher import PasswordHasher
from fastapi_kit.auth.passwords.policy import PasswordPolicy
from fastapi_kit.auth.second_factor.steps import SecondFactor, wrong_code
from fastapi_kit.auth.tokens.claims import TokenClaims
from fastapi_kit.auth.users.accounts import Account, Accounts, check_own_fields, editable, normalize_email
from fastapi_kit.auth.users.notices import AccountChange, ChangeKind, Notify, after_commit, send_notice
from fastapi_kit.auth.users.throttle import LoginThrottle, limited_codes
from fastapi_kit.db.sessions import finish
from fastapi_kit.db.transactions import UnitOfWork, unit_of_work
from fastapi_kit.errors import (
    ConfigurationError,
    FieldError,
    ImpersonatedError,
    InvalidCredentialsError,
    InvalidTokenError,
    NotFoundError,
    UserInputError,
)

__all__ = ["AuthFlow", "wrong_password"]

UserT = TypeVar("UserT")
RegisterT = TypeVar("RegisterT", bound=BaseModel)

Revoke: TypeAlias = Callable[[str], Coroutine[Any, Any, object]]
"""An ``async def`` function of the subject of a user, such as ``APIKeys.revoke_all``."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AuthFlow(Generic[UserT, RegisterT]):
    """The steps behind the ready routes, for routes of your own.

    *accounts* does the writing. A ``UserAccounts`` commits each write, unless a transaction was opened. While a password is hashed or
    verified, a session of ``Database`` (``db.session``) holds no connection. Any other session holds one, because looking up the user
    begins a transaction there.

    Args:
        accounts: Makes your users from a session: a ``UserAccounts`` class, or a service of your own.
        logins: Starts and renews logins. ``authenticate``, ``register`` and ``change`` work without. With ``StoredLogins`` a new password
            ends the other logins of its user, and users can log out.
        passwords: Hashes and verifies.
        policy: The rules for new passwords.
        scopes: Returns the scopes that a user may have. A login gets those of them that it asks for. Without it, a login has no scopes.
        identify: Finds the user by what the client typed, such as a user name or a phone number. Without it, by the e-mail address.
        verified: Only users with a verified address can log in and refresh. For others the answer is that of a wrong password.
        second_factor: Asks users who have enabled it for a code after the password. ``authenticate`` does not ask.
        guarded: The fields that users change only with their current password, beside the password: those that they log in with.
        throttle: Limits guesses at passwords, in logins and in changes, and how many notices a user gets. Without it, they are not
            limited.
        notify: Tells a user of a new password, a new address, a second factor that was enabled or disabled, and new recovery codes. It is
            called after the commit and before the response, for each change, if the account had an address. An error is logged.
        revoke: What else ends with a password: functions that take the subject, such as ``keys.revoke_all``. Each is called after the
            commit of a new password, of a reset and of a deletion, as stored logins are ended. An error is logged.
    """

    accounts: Callable[[AsyncSession], Accounts[UserT, RegisterT]]
    logins: Logins | None = None
    passwords: PasswordHasher = field(default_factory=PasswordHasher)
    policy: PasswordPolicy = field(default_factory=PasswordPolicy)
    scopes: Callable[[UserT], Collection[str]] | None = None
    identify: Callable[[AsyncSession, str], Awaitable[UserT | None]] | None = None
    verified: bool = False
    second_factor: SecondFactor[UserT] | None = None
    guarded: Collection[str] = ("email",)
    throttle: LoginThrottle | None = None
    notify: Notify | None = None
    revoke: Collection[Revoke] = ()

    async def authenticate(
        self, session: AsyncSession, *, email: str, password: str | SecretStr, client: ClientInfo | None = None
    ) -> UserT:
        """Return the user with this address and password, and replace an outdated hash.

        It takes one password verification, whatever the outcome, and none if there were too many attempts.

        Args:
            session: A session of your database.
            email: The address, or what *identify* takes.
            password: What the client sent.
            client: Where the request comes from. Without it, *throttle* counts only the attempts on the account.

        Raises:
            InvalidCredentialsError: There is no such user, the password is wrong, or the user may not log in.
            RateLimitedError: The account or the client had too many attempts.
        """
        user, _ = await self._authenticate(session, email, password, client)
        return user

    async def login(
        self,
        session: AsyncSession,
        *,
        email: str,
        password: str | SecretStr,
        scopes: Collection[str] = (),
        client: ClientInfo | None = None,
    ) -> TokenPair:
        """Authenticate, and begin a login with those of *scopes* that the user may have.

        Args:
            session: A session of your database.
            email: The address, or what *identify* takes.
            password: What the client sent.
            scopes: What the client asks for.
            client: Where the request comes from, for *throttle* and for the list of logins.

        Raises:
            InvalidCredentialsError: There is no such user, the password is wrong, or the user may not log in.
            RateLimitedError: There were too many attempts.
            SecondFactorRequiredError: ``login_with_code`` takes its challenge and a code.
        """
        logins = self._needed_logins()
        user, account = await self._authenticate(session, email, password, client)
        allowed = frozenset[str]() if self.scopes is None else frozenset(self.scopes(user))
        if self.second_factor is not None:
            stored = self.accounts(session).describe(user).hashed_password  # an outdated one was replaced
            granted = allowed & frozenset(scopes)
            await self.second_factor.require(session, user, subject=account.subject, hashed_password=stored, scopes=granted)
        if not isinstance(logins, EndableLogins):
            return await logins.start(account.subject, scopes=allowed & frozenset(scopes))
        pair = await logins.start(account.subject, scopes=allowed & frozenset(scopes), client=client)
        # A change of the password ends the logins that it finds. It may have come between the verification and the start.
        if not await self._still_has_password(session, user, password):
            begun = await logins.decode_refresh_token(pair.refresh_token)
            await logins.end(account.subject, begun.sid or "")
            raise InvalidCredentialsError
        return pair

    async def hash_password(self, password: str | SecretStr, *, similar_to: Collection[str] = ()) -> str:
        """Check a new password against the policy, and return its hash. Raises UserInputError if it is too weak."""
        await self.policy.check(password, similar_to=similar_to)
        return await self.passwords.hash(password)

    async def register(self, session: AsyncSession, data: RegisterT, *, password: str | SecretStr) -> UserT:
        """Check the password against the policy, hash it, and create the user.

        Raises:
            UserInputError: The password is too weak, or similar to another field of *data*.
            ConflictError: The address is taken.
        """
        others = [value for name, value in data if name != "password" and isinstance(value, str)]
        return await self.accounts(session).register(data, hashed_password=await self.hash_password(password, similar_to=others))

    async def change(
        self,
        session: AsyncSession,
        user: UserT,
        data: BaseModel,
        *,
        confirm: bool = True,
        code: str | SecretStr | None = None,
        keep: str | None = None,
        actor: str | None = None,
    ) -> UserT:
        """Change the data of *user* to the fields that *data* sets, in one write, and return the user.

        A new ``password`` is checked against the policy and hashed before the write begins. A new password, and another value of a field
        in *guarded*, need the field ``current_password``, which is never stored. Another value of a field in *guarded* needs *code*, too,
        if the user has enabled a second factor.

        A new password ends the user's stored logins directly after the commit, except the login *keep*, and what ``revoke`` ends. If their
        store does not answer then, the password is changed, an error is logged, and the logins go on.

        Args:
            session: A session of your database.
            user: The user as stored now.
            data: What the client sent, such as a ``partial_model``.
            confirm: False for a change by another user, such as a superuser: it needs neither a current password nor a code.
            code: A code of the second factor, or a recovery code. It is used up.
            keep: The ``sid`` of the claims of the request, so that the user stays logged in there.
            actor: The ``actor`` of the claims of the request, who may not change the password or what needs it.

        Raises:
            UserInputError: The new password is too weak, or the current one is missing, wrong, or was changed meanwhile, or *code* is
                missing or wrong.
            RateLimitedError: The user had too many attempts at the current password or at codes.
            ImpersonatedError: *actor* would change the password, or what needs it.
            ConflictError: The address is taken.
            ConfigurationError: Users could grant themselves privileges: with *confirm*, *data* has a flag or a role, or ``extra="allow"``.
        """
        if confirm:
            check_own_fields(type(data))
        accounts = self.accounts(session)
        account = accounts.describe(user)
        changes = {name: getattr(data, name) for name in data.model_fields_set}
        password, current = changes.pop("password", None), changes.pop("current_password", None)
        needs_code = any(changes[name] != getattr(user, name, None) for name in changes.keys() & set(self.guarded))
        is_guarded = password is not None or needs_code
        if is_guarded and actor is not None:
            raise ImpersonatedError
        new_hash = verified = None
        if confirm and is_guarded:
            verified = await self.confirm(session, user, current)
            if needs_code:
                await self.confirm_code(session, user, code)
        if password is not None:
            known = [account.email, *changes.values(), *(getattr(user, name, None) for name in type(data).model_fields)]
            new_hash = await self.hash_password(password, similar_to=[text for text in known if isinstance(text, str)])
        ends_something = new_hash is not None and (bool(self.revoke) or isinstance(self.logins, EndableLogins))
        if not ends_something and self.notify is None:
            changed = await accounts.change(user, data, hashed_password=new_hash, replacing=verified)
        else:

            async def store() -> UserT | None:
                async with unit_of_work(session) as unit:
                    changed = await accounts.change(user, data, hashed_password=new_hash, replacing=verified)
                    if changed is not None and new_hash is not None:
                        self.end_logins(unit, account.subject, keep=keep)
                        await self.tell(session, "password", before=account, after=accounts.describe(changed))
                    if changed is not None and accounts.describe(changed).email != account.email:
                        await self.tell(session, "email", before=account, after=accounts.describe(changed))
                return changed

            changed = await finish(store())
        if changed is None:
            raise wrong_password()
        return changed

    async def confirm(self, session: AsyncSession, user: UserT, current: str | SecretStr | None) -> str:
        """Return the hash of *user* if *current* is the password.

        Call it before what a stolen token must not do. Then do that only if the same hash is still stored.

        Raises:
            UserInputError: The password is missing or wrong.
            RateLimitedError: The user had too many attempts.
        """
        account = self.accounts(session).describe(user)
        # Counted apart from logins, whatever name is typed there: strangers must not keep a user from a new password.
        if current is not None and self.throttle is not None:
            await self.throttle.attempt(account=account.subject, client=None, kind="password")
        stored = account.hashed_password
        if current is None or stored is None or not await self.passwords.verify(current, stored):
            raise wrong_password()
        if self.throttle is not None:
            await self.throttle.succeeded(account=account.subject, kind="password")
        return stored

    async def confirm_code(self, session: AsyncSession, user: UserT, code: str | SecretStr | None) -> None:
        """Use up a code of the second factor, or a recovery code, if *user* has enabled one. Otherwise do nothing.

        Call it after ``confirm``, before what a stolen token and the password must not do.

        Raises:
            UserInputError: The code is missing, wrong, or was used.
            RateLimitedError: The user had too many attempts.
        """
        factor = self.second_factor
        if factor is None or not await factor.is_enabled(session, user):
            return
        text = code.get_secret_value() if isinstance(code, SecretStr) else code
        if not text:
            raise wrong_code()
        async with limited_codes(self.throttle, self.accounts(session).describe(user).subject):
            await factor.use(session, user, text)

    async def delete_account(
        self, session: AsyncSession, user: UserT, *, current: str | SecretStr, code: str | SecretStr | None = None
    ) -> None:
        """Delete *user*, and end the stored logins, and what ``revoke`` ends, after the commit.

        It commits, unless a transaction was opened.

        Args:
            session: A session of your database.
            user: The user as stored now.
            current: The current password.
            code: A code of the second factor, or a recovery code, for a user who has enabled one. It is used up.

        Raises:
            UserInputError: The current password is wrong, or was changed meanwhile, or *code* is missing or wrong.
            RateLimitedError: The user had too many attempts.
            StillReferencedError: Other rows reference the user.
            ConfigurationError: *accounts* cannot delete users.
        """
        accounts = editable(self.accounts(session))
        verified = await self.confirm(session, user, current)
        await self.confirm_code(session, user, code)
        subject = accounts.describe(user).subject

        async def remove() -> None:
            async with unit_of_work(session) as unit:
                stored = await accounts.lock_account(subject)
                if stored is None or accounts.describe(stored).hashed_password != verified:
                    raise wrong_password()
                await accounts.remove(stored)
                self.end_logins(unit, subject)

        await finish(remove())

    def end_logins(self, unit: UnitOfWork, subject: str, *, keep: str | None = None) -> None:
        """End the stored logins of *subject*, except *keep*, and what ``revoke`` ends, after the commit of *unit*.

        Logins that are not stored go on. A cancellation, of a client that has gone, does not stop it. Put the unit into ``finish``, so that
        it cannot come between the commit and this call either.
        """
        logins = self.logins
        if isinstance(logins, EndableLogins):
            unit.on_commit(lambda: finish(logins.end_all(subject, keep=keep)))
        for revoke in self.revoke:
            unit.on_commit(end_with, revoke, subject)

    async def tell(self, session: AsyncSession, kind: ChangeKind, *, before: Account, after: Account) -> None:
        """Call ``notify`` with a change, after the commit, if there is one and the account had an address. It raises no Exception."""
        if self.notify is not None and before.email:
            change = AccountChange(kind=kind, to=before.email, account=after)
            await after_commit(session, partial(send_notice, self.notify, change, self.throttle))

    async def refresh(self, session: AsyncSession, refresh_token: str) -> TokenPair:
        """Exchange a refresh token for a new pair, with the scopes that its user may still have.

        Raises:
            InvalidTokenError: The token is not valid, or its user does not exist or may not log in.
        """
        logins = self._needed_logins()
        claims = await logins.decode_refresh_token(refresh_token)
        accounts = self.accounts(session)
        user = await accounts.get_account(claims.sub)
        if user is None or not self.may_log_in(accounts.describe(user)):
            raise InvalidTokenError("its user does not exist or may not log in")
        return await logins.renew(claims, scopes=claims.scopes if self.scopes is None else self.scopes(user))

    async def logout(self, claims: TokenClaims) -> None:
        """End the login that a token belongs to. A token without a login, and a login that is over, are no error.

        The refresh token ends at once. Access tokens end when they expire, or at once with ``StoredLogins(check_access=True)``.

        Args:
            claims: The claims of the request: ``Depends(get_current_user.claims)``.
        """
        if claims.sid is not None:
            await self._endable_logins(claims).end(claims.sub, claims.sid)

    async def logout_everywhere(self, claims: TokenClaims) -> None:
        """End all logins of the user of a token, the one of the request included."""
        await self._endable_logins(claims).end_all(claims.sub)

    async def list_logins(self, claims: TokenClaims) -> Sequence[LoginInfo]:
        """Return the logins of the user of a token that are not over, the last used one first."""
        return await self._endable_logins(claims).list_logins(claims.sub)

    async def end_login(self, claims: TokenClaims, sid: str) -> None:
        """End the login *sid* of the user of a token. Raises NotFoundError if the user has no such login."""
        if not await self._endable_logins(claims).end(claims.sub, sid):
            raise NotFoundError(LoginInfo, sid)

    async def find(self, session: AsyncSession, name: str) -> UserT | None:
        """Return the user with this address, or whom *identify* finds, or None."""
        try:
            return await (self.accounts(session).get_account_by_email(name) if self.identify is None else self.identify(session, name))
        except UserInputError:
            return None  # not an address

    def account_name(self, name: str) -> str:
        """Return what a client typed in the form in which it is looked up, for a throttle."""
        try:
            return name if self.identify is not None else normalize_email(name)
        except UserInputError:
            return name

    def may_log_in(self, account: Account) -> bool:
        """Return whether the user is active, and verified if that is needed."""
        return account.is_active and (account.is_verified or not self.verified)

    def _endable_logins(self, claims: TokenClaims) -> EndableLogins:
        if claims.actor is not None:
            raise ImpersonatedError
        logins = self._needed_logins()
        if not isinstance(logins, EndableLogins):
            raise ConfigurationError(f"{type(logins).__name__} cannot list or end logins: pass logins=StoredLogins(tokens, store)")
        return logins

    def _needed_logins(self) -> Logins:
        if self.logins is None:
            raise ConfigurationError("this AuthFlow has no logins: pass logins=StatelessLogins(tokens), or use authenticate()")
        return self.logins

    async def still_has_hash(self, session: AsyncSession, user: UserT, hashed_password: str | None) -> bool:
        """Return whether *hashed_password* is stored for *user* now."""
        return await self._stored_hash(session, user) == hashed_password

    async def _still_has_password(self, session: AsyncSession, user: UserT, password: str | SecretStr) -> bool:
        before = self.accounts(session).describe(user).hashed_password
        stored = await self._stored_hash(session, user)
        # Another login may have replaced an outdated hash of the same password.
        return stored == before or await self.passwords.verify(password, stored)

    async def _stored_hash(self, session: AsyncSession, user: UserT) -> str | None:
        accounts = self.accounts(session)
        subject = accounts.describe(user).subject
        state = inspect(user, raiseerr=False)
        if isinstance(state, InstanceState) and state.session is session.sync_session and not state.modified:
            session.expire(user)  # so that it is read again
        now = await accounts.get_account(subject)
        return None if now is None else accounts.describe(now).hashed_password

    async def _authenticate(
        self, session: AsyncSession, email: str, password: str | SecretStr, client: ClientInfo | None
    ) -> tuple[UserT, Account]:
        if self.throttle is not None:
            await self.throttle.attempt(account=self.account_name(email), client=None if client is None else client.address)
        accounts = self.accounts(session)
        user = await self.find(session, email)
        account = None if user is None else accounts.describe(user)
        check = await self.passwords.verify_and_update(password, None if account is None else account.hashed_password)
        if user is None or account is None or not check.ok or not self.may_log_in(account):
            raise InvalidCredentialsError
        if self.throttle is not None:
            await self.throttle.succeeded(account=self.account_name(email))
        if check.new_hash is not None:
            try:
                # Only over the hash that was verified: a password that was changed meanwhile stays changed.
                await accounts.set_password(user, hashed_password=check.new_hash, replacing=account.hashed_password)
            except Exception as error:
                # The password was right. A failure to store a better hash must not fail the login.
                logger.warning("An outdated password hash could not be replaced: %s", type(error).__name__)
        return user, account


async def end_with(revoke: Revoke, subject: str) -> None:
    """Await *revoke* to its end, also while the task is being cancelled."""
    await finish(revoke(subject))


def wrong_password() -> UserInputError:
    """Return the error for a change without the right current password."""
    reason = FieldError(("body", "current_password"), "wrong_password", "is not the current password")
    return UserInputError("The current password is missing or wrong.", errors=[reason])
