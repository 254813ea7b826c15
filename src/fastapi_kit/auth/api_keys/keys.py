"""Create, verify and revoke API keys."""

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta

from fastapi_kit.auth.api_keys.store import APIKeyInfo, APIKeyRecord, APIKeyStore
from fastapi_kit.auth.tokens.claims import TokenClaims, join_scopes
from fastapi_kit.auth.tokens.policy import check_type, is_printable
from fastapi_kit.auth.tokens.service import Clock, utc_now
from fastapi_kit.errors import ConfigurationError, FieldError, InvalidTokenError, NotFoundError, UserInputError

__all__ = ["APIKeys", "NewAPIKey"]

PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
NAME_LENGTH, SUBJECT_LENGTH = 100, 255
BETWEEN_TOUCHES = timedelta(minutes=1)
NEVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""The end of the claims of a key that does not expire."""

logger = logging.getLogger("fastapi_kit.auth.api_keys")


@dataclass(frozen=True, kw_only=True)
class NewAPIKey:
    """A key that was just created. The repr hides the key."""

    key: str = field(repr=False)
    """The key, which cannot be read again: only its hash is stored."""
    info: APIKeyInfo


class APIKeys:
    """API keys in a store: a ``TokenVerifier`` for ``APIKeyTransport``.

    A key is *prefix*, an id and a secret of 256 random bits: ``shop_<32 digits>_<64 digits>``, in hexadecimal. The store has the SHA-256 of
    the secret. A key is valid until it expires or is revoked, whatever happens to the logins of its user. A user who was deleted or
    deactivated is rejected by ``get_current_user_factory``, as with any token.

    Each use of a key reads the store. ``last_used_at`` is written at most once per minute. If that fails, a warning is logged and the
    request goes on.

    Args:
        store: A ``SQLAPIKeyStore``, ``RedisAPIKeyStore`` or ``MemoryAPIKeyStore``.
        prefix: How all keys begin, so that people and scanners for secrets recognise them: 1 to 32 letters, digits and ``_``, a letter
            first.
        max_keys: How many keys a user may have. Several requests at once may create a few more.
        clock: Returns the current time, with a time zone. Tests pass a ``FrozenClock``.

    Raises:
        ConfigurationError: *prefix* or *max_keys* is out of bounds.
    """

    def __init__(self, store: APIKeyStore, *, prefix: str, max_keys: int = 100, clock: Clock = utc_now) -> None:
        if not PREFIX.fullmatch(prefix):
            raise ConfigurationError("the prefix of API keys is 1 to 32 letters, digits and _, and begins with a letter")
        if max_keys < 1:
            raise ConfigurationError("max_keys must be at least 1")
        self.store = store
        self._prefix = prefix
        self._max_keys = max_keys
        self._clock = clock
        self._form = re.compile(rf"{prefix}_([0-9a-f]{{32}})_([0-9a-f]{{64}})", re.ASCII)

    async def create(self, subject: str, *, name: str, scopes: Collection[str] = (), expires_at: datetime | None = None) -> NewAPIKey:
        """Create and store a key. Its text is only in what this method returns.

        Args:
            subject: The id of the user, as in tokens: ``str(user.id)``. At most 255 characters.
            name: What the user calls it: 1 to 100 printable characters.
            scopes: What the key allows. Check before that its user may have them.
            expires_at: When the key ends, with a time zone. None for a key that is valid until it is revoked.

        Raises:
            UserInputError: *name* is empty, too long or not printable, *expires_at* is not in the future, or the user has *max_keys* keys.
            ConfigurationError: A scope is malformed, or *subject* is not printable or too long.
            TypeError: *expires_at* has no time zone.
        """
        now = self._clock()
        if not is_printable(subject) or len(subject) > SUBJECT_LENGTH:
            raise ConfigurationError("the subject of a key must be 1 to 255 printable characters")
        if not is_printable(name) or len(name) > NAME_LENGTH:
            raise wrong_field("name", "invalid_name", f"must be 1 to {NAME_LENGTH} printable characters")
        if expires_at is not None:
            check_type(expires_at, datetime, "expires_at must be a datetime")
            if expires_at.utcoffset() is None:
                raise TypeError("expires_at must have a time zone")
            if expires_at <= now:
                raise wrong_field("expires_at", "not_in_the_future", "must be in the future")
        granted = frozenset(join_scopes(scopes).split())
        if len(await self.store.list(subject)) >= self._max_keys:
            raise UserInputError("There are too many API keys. Revoke one first.")
        id, secret = secrets.token_hex(16), secrets.token_hex(32)
        record = APIKeyRecord(
            id=id,
            subject=subject,
            name=name,
            hint=f"{self._prefix}_…{secret[-4:]}",
            scopes=granted,
            created_at=now,
            expires_at=expires_at,
            last_used_at=None,
            secret_hash=digest(secret),
        )
        await self.store.add(record)
        return NewAPIKey(key=f"{self._prefix}_{id}_{secret}", info=info_of(record))

    async def list(self, subject: str, /) -> Sequence[APIKeyInfo]:
        """Return the keys of *subject*, the newest first, with those that have expired."""
        found = [info_of(record) for record in await self.store.list(subject)]
        return sorted(found, key=lambda key: (key.created_at, key.id), reverse=True)

    async def revoke(self, id: str, /, *, subject: str) -> None:
        """Revoke the key *id* of *subject*: the next request with it is a 401. Raises NotFoundError if the subject has no such key."""
        if not await self.store.remove(subject, id):
            raise NotFoundError(APIKeyInfo, id)

    async def revoke_all(self, subject: str, /) -> None:
        """Revoke all keys of *subject*."""
        await self.store.remove_all(subject)

    async def verify(self, token: str, /) -> TokenClaims:
        """Return the subject and the scopes of a key as claims of type ``api``. Their ``jti`` is the id of the key; they have no ``sid``.

        Raises:
            InvalidTokenError: The key is malformed or wrong, was revoked, or has expired.
        """
        id, secret = self._parts_of(token)
        key = await self.store.find(id)
        if key is None or not hmac.compare_digest(key.secret_hash, digest(secret)):
            raise InvalidTokenError("no such API key")
        now = self._clock()
        if key.expires_at is not None and now >= key.expires_at:
            raise InvalidTokenError("the API key has expired")
        if key.last_used_at is None or now - key.last_used_at >= BETWEEN_TOUCHES:
            await self._touch(key, now)
        return TokenClaims(sub=key.subject, type="api", jti=key.id, iat=key.created_at, exp=key.expires_at or NEVER, scopes=key.scopes)

    def _parts_of(self, token: object) -> tuple[str, str]:
        parts = self._form.fullmatch(token) if isinstance(token, str) else None
        if parts is None:
            raise InvalidTokenError("not an API key")
        return parts[1], parts[2]

    async def _touch(self, key: APIKeyRecord, now: datetime) -> None:
        try:
            await self.store.touch(key.id, at=now)
        except Exception as error:
            # The key is good. A failure to store when it was used must not fail the request.
            logger.warning("The last use of an API key could not be stored: %s", type(error).__name__)


def digest(secret: str) -> bytes:
    """Return what is stored of a key. Its secret is random, so a plain SHA-256 cannot be guessed."""
    return hashlib.sha256(secret.encode()).digest()


def info_of(key: APIKeyRecord) -> APIKeyInfo:
    """Return what users may see of a key: no hash."""
    return APIKeyInfo(**{each.name: getattr(key, each.name) for each in fields(APIKeyInfo)})


def wrong_field(name: str, code: str, message: str) -> UserInputError:
    """Return the error for one wrong field."""
    return UserInputError("The API key cannot be created so.", errors=[FieldError(("body", name), code, message)])
