"""Logins: a pair of tokens, and what comes after it. Where logins are kept is behind one protocol."""

import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, Protocol

from fastapi_kit.auth.tokens import JWTService, TokenClaims
from fastapi_kit.errors import InvalidTokenError

__all__ = ["Logins", "StatelessLogins", "TokenPair"]


@dataclass(frozen=True, kw_only=True)
class TokenPair:
    """The answer to a login or a refresh (RFC 6749, 5.1). *expires_in* is the life of the access token in seconds."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    token_type: Literal["bearer"] = "bearer"
    expires_in: int
    scope: str = ""
    """What the token allows, space-separated."""


class Logins(Protocol):
    """Starts and refreshes logins, and verifies their access tokens: give it where a TokenVerifier is asked for."""

    @property
    def tokens(self) -> JWTService:
        """What makes and reads the tokens."""
        ...

    async def start(self, subject: str, *, scopes: Collection[str] = ()) -> TokenPair:
        """Begin a login."""
        ...

    async def refresh(self, refresh_token: str, *, allowed: Collection[str] | None = None) -> TokenPair:
        """Exchange a refresh token; of its scopes those stay that are *allowed*, all if that is None.

        Raises InvalidTokenError. The caller checks that the user may still log in.
        """
        ...

    async def verify(self, token: str, /) -> TokenClaims:
        """Return the claims of an access token whose login still lives. Raises InvalidTokenError."""
        ...


class StatelessLogins:
    """Logins that are nowhere but in their tokens: nothing to store, and nothing to take back before it expires.

    A login ends *refresh_lifetime* of the token policy after it began, however often it is refreshed. Its tokens share a ``sid``, and no
    refresh widens its scopes. A refresh token that is not used up stays valid beside its successor.
    """

    def __init__(self, tokens: JWTService) -> None:
        self.tokens = tokens

    async def start(self, subject: str, *, scopes: Collection[str] = ()) -> TokenPair:
        """Begin a login of *subject* with *scopes*."""
        sid = secrets.token_urlsafe(16)
        return self._pair(subject, scopes, sid, self.tokens.create_refresh_token(subject, scopes=scopes, sid=sid))

    async def refresh(self, refresh_token: str, *, allowed: Collection[str] | None = None) -> TokenPair:
        """Exchange a refresh token for a pair that ends no later. Raises InvalidTokenError."""
        claims = self.tokens.decode(refresh_token, type="refresh")
        left = claims.exp - self.tokens.now()
        if left.total_seconds() < 1:
            raise InvalidTokenError("its login is over")
        scopes = claims.scopes if allowed is None else claims.scopes & frozenset(allowed)
        renewed = self.tokens.create_refresh_token(claims.sub, scopes=scopes, lifetime=left, sid=claims.sid)
        return self._pair(claims.sub, scopes, claims.sid, renewed, at_most=left)

    async def verify(self, token: str, /) -> TokenClaims:
        """Return the claims of a valid access token. Raises InvalidTokenError."""
        return await self.tokens.verify(token)

    def _pair(
        self, subject: str, scopes: Collection[str], sid: str | None, refresh_token: str, *, at_most: timedelta = timedelta.max
    ) -> TokenPair:
        lifetime = min(self.tokens.policy.access_lifetime, at_most)
        return TokenPair(
            access_token=self.tokens.create_access_token(subject, scopes=scopes, lifetime=lifetime, sid=sid),
            refresh_token=refresh_token,
            expires_in=int(lifetime.total_seconds()),
            scope=" ".join(sorted(scopes)),
        )
