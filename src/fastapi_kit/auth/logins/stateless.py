"""Logins that are stored nowhere but in their tokens."""

import secrets
from collections.abc import Collection
from datetime import timedelta

from fastapi_kit.auth.logins.protocol import TokenPair
from fastapi_kit.auth.tokens.claims import TokenClaims
from fastapi_kit.auth.tokens.service import JWTService
from fastapi_kit.errors import InvalidTokenError

__all__ = ["StatelessLogins"]


class StatelessLogins:
    """Logins without a store: the smallest choice. A login cannot be ended before it expires.

    A login ends when its first refresh token expires, however often it is renewed. All its tokens have the same ``sid``. A renewal never
    adds a scope.

    What it cannot do, and ``StoredLogins`` can: log out, here or everywhere; list logins; end the other logins when a password changes;
    use a refresh token once, and notice a stolen one. A refresh token that was used stays valid beside its successor.
    """

    def __init__(self, tokens: JWTService) -> None:
        self.tokens = tokens

    async def start(self, subject: str, *, scopes: Collection[str] = ()) -> TokenPair:
        """Begin a login of *subject* with *scopes*."""
        policy = self.tokens.policy
        return self._pair(subject, scopes, sid=secrets.token_urlsafe(16), access=policy.access_lifetime, refresh=policy.refresh_lifetime)

    async def decode_refresh_token(self, refresh_token: str, /) -> TokenClaims:
        """Return the claims of a valid refresh token. Raises InvalidTokenError."""
        return self.tokens.decode(refresh_token, type="refresh")

    async def renew(self, claims: TokenClaims, /, *, scopes: Collection[str]) -> TokenPair:
        """Continue the login of a refresh token; the new tokens expire when the old refresh token does.

        Args:
            claims: From ``decode_refresh_token``.
            scopes: The scopes that the user may have now. The new tokens get those of them that the refresh token has.

        Raises:
            InvalidTokenError: Less than a second of the login is left, or the claims are of another type of token.
        """
        if claims.type != "refresh":
            raise InvalidTokenError("another type of token")
        left = claims.exp - self.tokens.now()
        if left < timedelta(seconds=1):
            raise InvalidTokenError("its login is over")
        access = min(self.tokens.policy.access_lifetime, left)
        return self._pair(claims.sub, claims.scopes & frozenset(scopes), sid=claims.sid, access=access, refresh=left)

    async def verify(self, token: str, /) -> TokenClaims:
        """Return the claims of a valid access token. Raises InvalidTokenError."""
        return await self.tokens.verify(token)

    def _pair(self, subject: str, scopes: Collection[str], *, sid: str | None, access: timedelta, refresh: timedelta) -> TokenPair:
        return TokenPair(
            access_token=self.tokens.create_access_token(subject, scopes=scopes, lifetime=access, sid=sid),
            refresh_token=self.tokens.create_refresh_token(subject, scopes=scopes, lifetime=refresh, sid=sid),
            expires_in=int(access.total_seconds()),
            scope=" ".join(sorted(set(scopes))),
        )
