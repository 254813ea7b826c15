"""What every kind of login can do."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

from fastapi_kit.auth.tokens.claims import TokenClaims

__all__ = ["ClientInfo", "EndableLogins", "LoginInfo", "Logins", "TokenPair"]


@dataclass(frozen=True, kw_only=True)
class TokenPair:
    """The answer to a login or a refresh (RFC 6749, 5.1). The repr hides the tokens."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    token_type: Literal["bearer"] = "bearer"
    expires_in: int
    """The lifetime of the access token in seconds."""
    scope: str = ""
    """What the access token allows, separated by spaces."""


@dataclass(frozen=True, kw_only=True)
class ClientInfo:
    """Where a login comes from, as its user sees it in the list of logins."""

    address: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True, kw_only=True)
class LoginInfo:
    """One login of a user."""

    sid: str
    """The id of the login. Its tokens carry it. It gives no access."""
    subject: str
    created_at: datetime
    last_used_at: datetime
    """When the login began or was last refreshed."""
    ends_at: datetime
    """When the login ends unless it is refreshed before."""
    expires_at: datetime
    """When the login ends in any case."""
    address: str | None = None
    user_agent: str | None = None


class Logins(Protocol):
    """Starts and renews logins, and verifies their access tokens: a ``TokenVerifier`` is expected wherever one is passed.

    A refresh has two steps. Between them the caller checks that the user may still log in, as ``AuthFlow.refresh`` does.
    """

    async def start(self, subject: str, *, scopes: Collection[str] = ()) -> TokenPair:
        """Begin a login of *subject*."""
        ...

    async def decode_refresh_token(self, refresh_token: str, /) -> TokenClaims:
        """Return the claims of a refresh token that can be used now. Raises InvalidTokenError."""
        ...

    async def renew(self, claims: TokenClaims, /, *, scopes: Collection[str]) -> TokenPair:
        """Continue the login of a refresh token.

        Args:
            claims: From ``decode_refresh_token``.
            scopes: The scopes that the user may have now. The new tokens get those of them that the refresh token has.

        Raises:
            InvalidTokenError: The login is over.
        """
        ...

    async def verify(self, token: str, /) -> TokenClaims:
        """Return the claims of an access token whose login is not over. Raises InvalidTokenError."""
        ...


@runtime_checkable
class EndableLogins(Logins, Protocol):
    """Logins that are stored, so that they can be listed and ended: ``StoredLogins``, or a class of your own.

    ``AuthFlow`` and ``auth_router`` need them to log out.
    """

    async def start(self, subject: str, *, scopes: Collection[str] = (), client: ClientInfo | None = None) -> TokenPair:
        """Begin a login of *subject* from *client*."""
        ...

    async def list_logins(self, subject: str, /) -> Sequence[LoginInfo]:
        """Return the logins of *subject* that are not over, the last used one first."""
        ...

    async def end(self, subject: str, sid: str, /) -> bool:
        """End the login *sid* of *subject*. Return False if there is none, or if it is the login of another subject."""
        ...

    async def end_all(self, subject: str, /, *, keep: str | None = None) -> None:
        """End all logins of *subject*, except the login *keep*."""
        ...
