"""Logins on Redis, for several processes. Needs the extra ``cache``."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from fastapi_kit._redis import RedisStore
from fastapi_kit.auth.logins.store import LoginRecord

__all__ = ["RedisLoginStore"]

MOMENTS = ("created_at", "last_used_at", "ends_at", "expires_at")
HASHES = ("token_hash", "previous_hash", "salt")

# Each script runs as a whole, with nothing in between. KEYS: the login, or the list of a user's logins.
ADD = """
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'subject', ARGV[2], 'data', ARGV[3])
redis.call('PEXPIREAT', KEYS[1], ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[5], ARGV[6])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[7])
redis.call('PEXPIREAT', KEYS[2], redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')[2])
"""
REPLACE = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'token', ARGV[2], 'data', ARGV[3])
redis.call('PEXPIREAT', KEYS[1], ARGV[4])
return 1
"""
END = """
if redis.call('HGET', KEYS[1], 'subject') ~= ARGV[1] then return 0 end
redis.call('ZREM', KEYS[2], ARGV[2])
return redis.call('DEL', KEYS[1])
"""
END_ALL = """
for _, sid in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if sid ~= ARGV[2] then
    redis.call('DEL', ARGV[1] .. sid)
    redis.call('ZREM', KEYS[1], sid)
  end
end
"""
LIST = """
local found = {}
for _, sid in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local data = redis.call('HGET', ARGV[1] .. sid, 'data')
  if data then found[#found + 1] = data end
end
return found
"""


class RedisLoginStore(RedisStore):
    """A ``LoginStore`` on one Redis, shared by all processes. A login that is over disappears by itself.

    Each method is one command or one script. If Redis does not answer, it raises UnavailableError (503).
    Redis must keep its data: with ``maxmemory-policy noeviction``, and ``appendonly yes`` if logins shall outlive a restart. The scripts
    use several keys, so a cluster does not work.

    Args:
        url: ``redis://`` or ``rediss://``, with user, password, host, port and number.
        prefix: How the names of all keys begin.
        timeout: Seconds that a command waits at most.

    Raises:
        MissingExtraError: The extra ``cache`` is not installed.
        ConfigurationError: *url* cannot be parsed. The text shows no part of it.
    """

    def __init__(self, url: str, *, prefix: str = "logins:", timeout: float = 1.0) -> None:
        super().__init__(url, prefix=prefix, timeout=timeout, service="the store of logins")

    async def add(self, login: LoginRecord, /) -> None:
        """Store a new login."""
        keys = self._login(login.sid), self._user(login.subject)
        stored = login.token_hash.hex(), login.subject, written(login), milliseconds(login.ends_at)
        listed = milliseconds(login.expires_at), login.sid, milliseconds(login.created_at)
        await self._redis.run(ADD, keys, *stored, *listed)

    async def find(self, sid: str, /) -> LoginRecord | None:
        """Return the login, or None if it was ended or has expired."""
        data = await self._redis.ask(lambda client: client.hget(self._login(sid), "data"))
        return None if data is None else read_login(data)

    async def replace(self, login: LoginRecord, /, *, token_hash: bytes) -> bool:
        """Store *login* if the stored one still has *token_hash*, and return whether it had."""
        values = token_hash.hex(), login.token_hash.hex(), written(login), milliseconds(login.ends_at)
        return bool(await self._redis.run(REPLACE, (self._login(login.sid),), *values))

    async def list(self, subject: str, /) -> Sequence[LoginRecord]:
        """Return the logins of *subject*."""
        return [read_login(data) for data in await self._redis.run(LIST, (self._user(subject),), self._login(""))]

    async def end(self, subject: str, sid: str, /) -> bool:
        """Remove the login *sid* of *subject*, and return whether there was one."""
        return bool(await self._redis.run(END, (self._login(sid), self._user(subject)), subject, sid))

    async def end_all(self, subject: str, /, *, keep: str | None) -> None:
        """Remove all logins of *subject*, except *keep*."""
        await self._redis.run(END_ALL, (self._user(subject),), self._login(""), keep or "")

    async def purge(self, before: datetime, /) -> int:
        """Return 0: Redis removes logins when they are over."""
        return 0

    def _login(self, sid: str) -> str:
        return f"{self._prefix}login:{sid}"

    def _user(self, subject: str) -> str:
        return f"{self._prefix}user:{subject}"


def milliseconds(moment: datetime) -> int:
    """Return the Unix time."""
    return int(moment.timestamp() * 1000)


def written(login: LoginRecord) -> str:
    """Return *login* as JSON."""
    values = asdict(login)
    values |= {name: values[name].isoformat() for name in MOMENTS}
    values |= {name: None if values[name] is None else values[name].hex() for name in HASHES}
    return json.dumps({**values, "scopes": sorted(login.scopes)})


def read_login(data: bytes) -> LoginRecord:
    """Return the login in the JSON."""
    values: dict[str, Any] = json.loads(data)
    values |= {name: datetime.fromisoformat(values[name]) for name in MOMENTS}
    values |= {name: None if values[name] is None else bytes.fromhex(values[name]) for name in HASHES}
    values["scopes"] = frozenset(values["scopes"])
    return LoginRecord(**values)
