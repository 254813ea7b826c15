"""Users and time in tests."""

from collections.abc import Awaitable, Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.security import SecurityScopes

from fastapi_kit.auth.passwords.contexts import bcrypt_context
from fastapi_kit.auth.passwords.hasher import PasswordHasher
from fastapi_kit.auth.tokens.claims import TokenClaims
from fastapi_kit.auth.tokens.service import JWTService
from fastapi_kit.auth.users.accounts import Account
from fastapi_kit.auth.users.mail import MailFlow, SendLink
from fastapi_kit.auth.users.notices import AccountChange
from fastapi_kit.errors import InsufficientScopeError

__all__ = ["CapturedMail", "FrozenClock", "bearer", "captured_mails", "cheap_hasher", "login_as"]

UserT = TypeVar("UserT")


def cheap_hasher() -> PasswordHasher:
    """Return a hasher with the lowest cost, for tests only."""
    return PasswordHasher(context=bcrypt_context(rounds=4))


def bearer(tokens: JWTService, subject: str, *, scopes: Collection[str] = ()) -> Mapping[str, str]:
    """Return the headers of a request by *subject*, with a real token. No password is hashed."""
    return {"Authorization": f"Bearer {tokens.create_access_token(subject, scopes=scopes)}"}


@contextmanager
def login_as(
    app: FastAPI, get_current_user: Callable[..., Awaitable[UserT]], user: UserT, *, scopes: Collection[str] = ()
) -> Generator[None]:
    """Give *user* to every request inside the block, instead of the user of a token.

    It overrides *get_current_user*, its claims and its ``optional``. Guards still check the user. Earlier overrides are restored at the
    end.

    Args:
        app: The app under test.
        get_current_user: The dependency that a factory built, or your own.
        user: The user, who need not be stored.
        scopes: The scopes of the token, for ``require`` and ``Security``.
    """
    granted = frozenset(scopes)
    now = datetime.now(UTC)
    claims = TokenClaims(
        sub=str(getattr(user, "id", "test")), type="access", jti="test", iat=now, exp=now + timedelta(hours=1), scopes=granted
    )

    def check_scopes(needed: SecurityScopes) -> None:
        if not granted.issuperset(needed.scopes):
            raise InsufficientScopeError(frozenset(needed.scopes))

    async def give_user(needed: SecurityScopes) -> UserT:
        check_scopes(needed)
        return user

    async def give_claims(needed: SecurityScopes) -> TokenClaims:
        check_scopes(needed)
        return claims

    overrides: dict[Callable[..., Any], Callable[..., Any]] = app.dependency_overrides
    before = dict(overrides)
    overrides[get_current_user] = give_user
    for name, give in {"optional": give_user, "claims": give_claims}.items():
        if (dependency := getattr(get_current_user, name, None)) is not None:
            overrides[dependency] = give
    try:
        yield
    finally:
        app.dependency_overrides = before


@dataclass(frozen=True)
class CapturedMail:
    """A mail that was not sent."""

    kind: str
    """``verify``, ``reset`` or ``taken``: the argument of ``MailFlow``. For a notice the kind of the ``AccountChange``."""
    to: str
    token: str = field(default="", repr=False)
    """The token in the link."""


@contextmanager
def captured_mails(mail: MailFlow[Any, Any]) -> Generator[list[CapturedMail]]:
    """Collect the mails of *mail* inside the block instead of sending them, and the notices of its flow.

    The functions of your application are not called.
    """
    mails: list[CapturedMail] = []

    def capture(kind: str) -> SendLink:
        async def keep(account: Account, token: str) -> None:
            mails.append(CapturedMail(kind, account.email, token))

        return keep

    async def keep_taken(email: str) -> None:
        mails.append(CapturedMail("taken", email))

    async def keep_notice(change: AccountChange) -> None:
        mails.append(CapturedMail(change.kind, change.to))

    flow, notify = mail.flow, mail.flow.notify
    before = mail.verify, mail.reset, mail.taken
    mail.verify, mail.reset = mail.verify and capture("verify"), mail.reset and capture("reset")
    mail.taken = mail.taken and keep_taken
    # The flow is frozen for applications. A copy would not be the one that the routes have.
    object.__setattr__(flow, "notify", notify and keep_notice)
    try:
        yield mails
    finally:
        mail.verify, mail.reset, mail.taken = before
        object.__setattr__(flow, "notify", notify)


class FrozenClock:
    """A clock that moves only when a test advances it: ``JWTService(clock=FrozenClock())``."""

    def __init__(self, now: datetime | None = None) -> None:
        """Start at *now*, which has a time zone. Without it, start at the current time."""
        self._now = now or datetime.now(UTC)

    def __call__(self) -> datetime:
        """Return the time of the clock."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Move the clock."""
        self._now += by
