"""Logins in a store: refresh tokens that can be used once, and logins that can be ended."""

import hashlib
import hmac
import logging
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Collection, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from inspect import isawaitable

from fastapi_kit.auth.logins.protocol import ClientInfo, LoginInfo, TokenPair
from fastapi_kit.auth.logins.store import LoginRecord, LoginStore
from fastapi_kit.auth.tokens.claims import TokenClaims
from fastapi_kit.auth.tokens.service import JWTService
from fastapi_kit.errors import ConfigurationError, InvalidTokenError

__all__ = ["StoredLogins"]

SHORTEST = timedelta(seconds=1)
LONGEST_GRACE = timedelta(seconds=30)
ADDRESS_LENGTH, USER_AGENT_LENGTH = 64, 255

logger = logging.getLogger("fastapi_kit.auth.logins")


class StoredLogins:
    """Logins in a store. Each refresh token can be used once; a login can be ended at any time.

    A refresh replaces the refresh token. If the replaced token is used again, two clients have it: the login ends, and *on_reuse* is
    called (RFC 9700, 4.14.2). There is one exception, for a client that sends a token twice at once or that has lost the answer: within
    *grace* after the refresh, and only while the new token is unused, the old token gets the same new token again. That lengthens nothing,
    and gives a thief no login of their own: the thief and the client then have one token, and the second to use it ends the login.

    A login ends ``refresh_lifetime`` of the token policy after its start, however often it is refreshed. A refresh never adds a scope.

    An access token is valid until it expires, also after its login was ended. With *check_access* it ends with its login, at the cost of
    one read of the store for each request.

    The store has no token, only the SHA-256 of the random id of the current one.

    Args:
        tokens: Signs the tokens, and has the lifetimes and the clock.
        store: A ``SQLLoginStore``, ``RedisLoginStore`` or ``MemoryLoginStore``.
        idle: End a login that was not refreshed for so long. Without it, only ``refresh_lifetime`` counts.
        grace: How long a used token gets its successor again: 0 to 30 seconds. With the default, 0, two tabs that refresh at once end the
            login.
        check_access: Look up the login of each access token. A token that belongs to no login is then rejected.
        on_reuse: Called, sync or async, with a login that was ended because a used token came back: warn its user, write an audit log. An
            error that it raises is logged.

    Raises:
        ConfigurationError: *grace* or *idle* is out of bounds.
    """

    def __init__(
        self,
        tokens: JWTService,
        store: LoginStore,
        *,
        idle: timedelta | None = None,
        grace: timedelta = timedelta(),
        check_access: bool = False,
        on_reuse: Callable[[LoginInfo], object] | None = None,
    ) -> None:
        if not timedelta() <= grace <= LONGEST_GRACE:
            raise ConfigurationError("grace must be from 0 to 30 seconds")
        if idle is not None and idle < SHORTEST:
            raise ConfigurationError("idle must be at least one second")
        self.tokens = tokens
        self.store = store
        self.idle = idle
        self.grace = grace
        self.check_access = check_access
        self.on_reuse = on_reuse

    async def start(self, subject: str, *, scopes: Collection[str] = (), client: ClientInfo | None = None) -> TokenPair:
        """Begin a login of *subject* with *scopes*, and store it. What *client* says of itself is cut to 255 printable characters."""
        now, jti = self.tokens.now(), secrets.token_urlsafe(32)
        expires_at = now + self.tokens.policy.refresh_lifetime
        client = client or ClientInfo()
        login = LoginRecord(
            sid=secrets.token_urlsafe(16),
            subject=subject,
            scopes=frozenset(scopes),
            token_hash=digest(jti),
            created_at=now,
            last_used_at=now,
            ends_at=self._end(now, expires_at),
            expires_at=expires_at,
            address=shown(client.address, ADDRESS_LENGTH),
            user_agent=shown(client.user_agent, USER_AGENT_LENGTH),
        )
        pair = self._pair(login, jti, scopes=login.scopes, now=now)
        await self.store.add(login)
        return pair

    async def decode_refresh_token(self, refresh_token: str, /) -> TokenClaims:
        """Return the claims of a signed refresh token. ``renew`` asks the store whether it was used. Raises InvalidTokenError."""
        return self.tokens.decode(refresh_token, type="refresh")

    async def renew(self, claims: TokenClaims, /, *, scopes: Collection[str]) -> TokenPair:
        """Use up a refresh token, and return its successor with a new access token.

        Args:
            claims: From ``decode_refresh_token``.
            scopes: The scopes that the user may have now. The new tokens get those of them that the login has.

        Raises:
            InvalidTokenError: The login is over, or the token was used before, which ends the login.
        """
        if claims.type != "refresh":
            raise InvalidTokenError("another type of token")
        now, used = self.tokens.now(), digest(claims.jti)
        login = await self._find(claims, now)
        if login.token_hash == used:
            salt, allowed = secrets.token_bytes(32), login.scopes & frozenset(scopes)
            jti = successor(claims.jti, salt)
            ends_at = self._end(now, login.expires_at)
            renewed = replace(
                login, scopes=allowed, token_hash=digest(jti), previous_hash=used, salt=salt, last_used_at=now, ends_at=ends_at
            )
            pair = self._pair(renewed, jti, scopes=allowed, now=now)
            if await self.store.replace(renewed, token_hash=used):
                return pair
            login = await self._find(claims, now)  # another request was faster
            if login.token_hash == renewed.token_hash:
                return pair  # none was: the store's client sent the command again, because its answer was lost
        if login.salt is not None and login.previous_hash == used and self.grace and now - login.last_used_at < self.grace:
            return self._pair(login, successor(claims.jti, login.salt), scopes=login.scopes & frozenset(scopes), now=now)
        await self._end_reused(login)
        raise InvalidTokenError("the refresh token was used before")

    async def verify(self, token: str, /) -> TokenClaims:
        """Return the claims of a valid access token. With *check_access*, its login must not be over. Raises InvalidTokenError."""
        claims = await self.tokens.verify(token)
        if self.check_access:
            await self._find(claims, self.tokens.now())
        return claims

    async def check_login(self, claims: TokenClaims, /) -> None:
        """Raise InvalidTokenError if the login of an access token is over, also without *check_access*. The token may have expired.

        It is for what outlives an access token, such as a WebSocket. Who acts as another user does so until the token expires.
        """
        now = self.tokens.now()
        if claims.actor is not None and now >= claims.exp:
            raise InvalidTokenError("the token of its actor has expired")
        await self._find(claims, now)

    async def list_logins(self, subject: str, /) -> Sequence[LoginInfo]:
        """Return the logins of *subject* that are not over, the last used one first."""
        now = self.tokens.now()
        live = [info_of(login) for login in await self.store.list(subject) if login.ends_at > now]
        return sorted(live, key=lambda login: (login.last_used_at, login.created_at), reverse=True)

    async def end(self, subject: str, sid: str, /) -> bool:
        """End the login *sid* of *subject*. Return False if there is none, or if it is the login of another subject."""
        return await self.store.end(subject, sid)

    async def end_all(self, subject: str, /, *, keep: str | None = None) -> None:
        """End all logins of *subject*, except the login *keep*."""
        await self.store.end_all(subject, keep=keep)

    async def purge(self) -> int:
        """Remove the logins that are over from the store, and return how many. Call it once a day or so. Redis needs no call."""
        return await self.store.purge(self.tokens.now())

    async def _find(self, claims: TokenClaims, now: datetime) -> LoginRecord:
        login = None if claims.sid is None else await self.store.find(claims.sid)
        # Who acts as another user does so within a login of their own.
        if login is None or login.subject != (claims.actor or claims.sub) or login.ends_at - now < SHORTEST:
            raise InvalidTokenError("its login is over")
        return login

    async def _end_reused(self, login: LoginRecord) -> None:
        # Only the request that ends it reports it.
        if not await self.store.end(login.subject, login.sid):
            return
        logger.warning("A refresh token was used twice: its login was ended")
        if self.on_reuse is None:
            return
        try:
            result = self.on_reuse(info_of(login))
            if isawaitable(result):
                await result
        except Exception as error:
            # The application's function may raise anything. The login has ended.
            logger.warning("on_reuse failed: %s", type(error).__name__)

    def _end(self, now: datetime, expires_at: datetime) -> datetime:
        return expires_at if self.idle is None else min(expires_at, now + self.idle)

    def _pair(self, login: LoginRecord, jti: str, *, scopes: Collection[str], now: datetime) -> TokenPair:
        left = login.ends_at - now
        access = min(self.tokens.policy.access_lifetime, left)
        return TokenPair(
            access_token=self.tokens.create_access_token(login.subject, scopes=scopes, lifetime=access, sid=login.sid),
            refresh_token=self.tokens.create_refresh_token(login.subject, scopes=scopes, lifetime=left, sid=login.sid, jti=jti),
            expires_in=int(access.total_seconds()),
            scope=" ".join(sorted(scopes)),
        )


def digest(jti: str) -> bytes:
    """Return what is stored of a refresh token. Its id is random, so a plain SHA-256 cannot be guessed."""
    return hashlib.sha256(jti.encode()).digest()


def successor(jti: str, salt: bytes) -> str:
    """Return the id of the next token. It takes the token before and the salt in the store to make it."""
    made = hmac.digest(salt, jti.encode(), "sha256")
    return urlsafe_b64encode(made).rstrip(b"=").decode()


def shown(text: str | None, length: int) -> str | None:
    """Return the printable characters of what a client has sent, cut to *length*."""
    return "".join(filter(str.isprintable, text))[:length] or None if text else None


def info_of(login: LoginRecord) -> LoginInfo:
    """Return what users may see of a login: no hashes."""
    return LoginInfo(**{each.name: getattr(login, each.name) for each in fields(LoginInfo)})
