"""API keys on Redis, for several processes. Needs the extra ``cache``."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi_kit._redis import RedisStore
from fastapi_kit.auth.api_keys.store import APIKeyRecord

__all__ = ["RedisAPIKeyStore"]

START = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

# Each script runs as a whole, with nothing in between. KEYS: the API key, or the set of a user's API keys.
ADD = """
redis.call('SADD', KEYS[2], ARGV[3])
redis.call('HSET', KEYS[1], 'subject', ARGV[1], 'data', ARGV[2])
"""
TOUCH = """
local stored = redis.call('HMGET', KEYS[1], 'data', 'used')
local is_later = not stored[2] or tonumber(stored[2]) < tonumber(ARGV[1])
if stored[1] and is_later then redis.call('HSET', KEYS[1], 'used', ARGV[1]) end
"""
REMOVE = """
if redis.call('HGET', KEYS[1], 'subject') ~= ARGV[1] then return 0 end
redis.call('SREM', KEYS[2], ARGV[2])
return redis.call('DEL', KEYS[1])
"""
REMOVE_ALL = """
for _, id in ipairs(redis.call('SMEMBERS', KEYS[1])) do redis.call('DEL', ARGV[1] .. id) end
redis.call('DEL', KEYS[1])
"""
LIST = """
local found = {}
for _, id in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local stored = redis.call('HMGET', ARGV[1] .. id, 'data', 'used')
  if stored[1] then found[#found + 1] = stored end
end
return found
"""


class RedisAPIKeyStore(RedisStore):
    """An ``APIKeyStore`` on one Redis, shared by all processes. As in a table, a key that has expired stays in the list of its user.

    Each method is one command or one script. If Redis does not answer, it raises UnavailableError (503).
    Redis must keep its data: with ``maxmemory-policy noeviction`` and ``appendonly yes``. What it loses when it stops, it has not stored:
    a revocation, too. By default that is up to a second; with ``appendfsync always`` it is nothing. The scripts use several keys, so a
    cluster does not work.

    Args:
        url: ``redis://`` or ``rediss://``, with user, password, host, port and number.
        prefix: How the names of all keys in Redis begin.
        timeout: Seconds that a command waits at most.

    Raises:
        MissingExtraError: The extra ``cache`` is not installed.
        ConfigurationError: *url* cannot be parsed. The text shows no part of it.
    """

    def __init__(self, url: str, *, prefix: str = "api_keys:", timeout: float = 1.0) -> None:
        super().__init__(url, prefix=prefix, timeout=timeout, service="the store of API keys")

    async def add(self, key: APIKeyRecord, /) -> None:
        """Store a new key."""
        await self._redis.run(ADD, (self._key(key.id), self._user(key.subject)), key.subject, written(key), key.id)

    async def find(self, id: str, /) -> APIKeyRecord | None:
        """Return the key, or None if it was revoked."""
        data, used = await self._redis.ask(lambda client: client.hmget(self._key(id), "data", "used"))
        return None if data is None else read_key(data, used)

    async def list(self, subject: str, /) -> Sequence[APIKeyRecord]:
        """Return the keys of *subject*."""
        return [read_key(data, used) for data, used in await self._redis.run(LIST, (self._user(subject),), self._key(""))]

    async def touch(self, id: str, /, *, at: datetime) -> None:
        """Store when the key was used, unless a later time is stored."""
        await self._redis.run(TOUCH, (self._key(id),), (at - START) // MICROSECOND)

    async def remove(self, subject: str, id: str, /) -> bool:
        """Remove the key *id* of *subject*, and return whether there was one."""
        return bool(await self._redis.run(REMOVE, (self._key(id), self._user(subject)), subject, id))

    async def remove_all(self, subject: str, /) -> None:
        """Remove all keys of *subject*."""
        await self._redis.run(REMOVE_ALL, (self._user(subject),), self._key(""))

    def _key(self, id: str) -> str:
        return f"{self._prefix}key:{id}"

    def _user(self, subject: str) -> str:
        return f"{self._prefix}keys:{subject}"


def written(key: APIKeyRecord) -> str:
    """Return *key* as JSON, without its last use."""
    values = asdict(key)
    del values["last_used_at"]
    values["created_at"] = key.created_at.isoformat()
    values["expires_at"] = None if key.expires_at is None else key.expires_at.isoformat()
    return json.dumps({**values, "scopes": sorted(key.scopes), "secret_hash": key.secret_hash.hex()})


def read_key(data: bytes, used: bytes | None) -> APIKeyRecord:
    """Return the key in the JSON, with its last use in microseconds since 1970."""
    values: dict[str, Any] = json.loads(data)
    values["created_at"] = datetime.fromisoformat(values["created_at"])
    values["expires_at"] = None if values["expires_at"] is None else datetime.fromisoformat(values["expires_at"])
    values |= {"scopes": frozenset(values["scopes"]), "secret_hash": bytes.fromhex(values["secret_hash"])}
    return APIKeyRecord(**values, last_used_at=None if used is None else START + int(used) * MICROSECOND)
