"""What every kind of login can do."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal, Protocol

from fastapi_kit.auth.tokens.claims import TokenClaims

__all__ = ["Logins", "TokenPair"]


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
