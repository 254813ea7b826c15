"""Users and time in tests."""

from collections.abc import Awaitable, Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.security import SecurityScopes

from fastapi_kit.auth.passwords.contexts import bcrypt_context
from fastapi_kit.auth.passwords.hasher import PasswordHasher
from fastapi_kit.auth.tokens.claims import TokenClaims
from fastapi_kit.auth.tokens.service import JWTService
from fastapi_kit.errors import InsufficientScopeError

__all__ = ["FrozenClock", "bearer", "cheap_hasher", "login_as"]

UserT = TypeVar("UserT")


def cheap_hasher() -> PasswordHasher:
    """Return a hasher of the lowest cost. Only for tests."""
    return PasswordHasher(context=bcrypt_context(rounds=4))


def bearer(tokens: JWTService, subject: str, *, scopes: Collection[str] = ()) -> Mapping[str, str]:
    """Return the headers of a request by *subject*: a real token, no password hashed."""
    return {"Authorization": f"Bearer {tokens.create_access_token(subject, scopes=scopes)}"}


@contextmanager
def login_as(
    app: FastAPI, get_current_user: Callable[..., Awaitable[UserT]], user: UserT, *, scopes: Collection[str] = ()
) -> Generator[None]:
    """Make every request inside come from *user*, with *scopes* for ``require`` and ``Security``: overrides the user and the claims.

    Guards over *get_current_user* ask the user as ever. What was overridden before is overridden again afterwards.
    """
    granted = frozenset(scopes)
    claims = _claims_of(user, granted)

    def check(needed: SecurityScopes) -> None:
        if frozenset(needed.scopes) - granted:
            raise InsufficientScopeError(frozenset(needed.scopes))

    async def give_user(needed: SecurityScopes) -> UserT:
        check(needed)
        return user

    async def give_claims(needed: SecurityScopes) -> TokenClaims:
        check(needed)
        return claims

    overrides: dict[Callable[..., Any], Callable[..., Any]] = app.dependency_overrides
    before = dict(overrides)
    overrides[get_current_user] = give_user
    if (own_claims := getattr(get_current_user, "claims", None)) is not None:
        overrides[own_claims] = give_claims
    try:
        yield
    finally:
        app.dependency_overrides = before


def _claims_of(user: object, scopes: frozenset[str]) -> TokenClaims:
    now = datetime.now(UTC)
    subject = str(getattr(user, "id", "test"))
    return TokenClaims(sub=subject, type="access", jti="test", iat=now, exp=now + timedelta(hours=1), scopes=scopes)


class FrozenClock:
    """A clock that stands still until it is moved; give it as ``clock=``."""

    def __init__(self, now: datetime | None = None) -> None:
        """Stand at *now*, which has a time zone; at the present moment if none is given."""
        self._now = now or datetime.now(UTC)

    def __call__(self) -> datetime:
        """Return where it stands."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Move it."""
        self._now += by
