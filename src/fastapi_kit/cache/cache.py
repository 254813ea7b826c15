"""The cache of an application: entries, the groups that drop them, and one load at a time."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from hashlib import sha256
from typing import Self, TypeVar
from urllib.parse import quote

from fastapi_kit.cache.codec import Codec
from fastapi_kit.cache.store import Store
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.settings import KitSettings

__all__ = ["Cache", "check_lifetime"]

ValueT = TypeVar("ValueT")

DAY = 86_400.0
LONGEST = 128


class Cache:
    """Keeps what was loaded, in the memory of this process or on Redis. An application makes one.

    An entry depends on groups: its own key, or those that were given. ``delete`` of one of them drops the entry in every process that uses
    the same Redis and *prefix*. A value that was loaded before a ``delete`` is never shown after it, also if it is stored later.

    A Redis that is gone counts as empty. No method but ``ping`` raises then. One warning is logged when it goes and one when it is back;
    between, it is tried once a second. What could not be deleted meanwhile is deleted first.

    Args:
        url: ``redis://`` or ``rediss://``. None: the memory of this process, which other processes do not see.
        prefix: What all names on the Redis begin with. Applications that share a Redis need different ones.
        timeout: Seconds that a command waits for Redis at most.
        max_entries: How many names the memory holds: an entry, and each of its groups. What was not used for the longest time goes first.

    Raises:
        ConfigurationError: The URL is not one of Redis. The text does not contain it.
        MissingExtraError: The extra ``cache`` is not installed.
    """

    def __init__(self, url: str | None = None, *, prefix: str = "cache:", timeout: float = 0.25, max_entries: int = 10_000) -> None:
        if not timeout > 0 or max_entries < 1:
            raise ConfigurationError("the timeout of a cache must be above 0 and max_entries at least 1")
        self._kind = "memory" if url is None else "redis"
        self._prefix = encoded(prefix)
        self._everything = f"{self._prefix}all"
        self._store = Store(url, timeout=timeout, max_entries=max_entries, everything=self._everything)
        self._flights: dict[object, asyncio.Future[bytes | None]] = {}

    @classmethod
    def from_settings(cls, settings: KitSettings) -> Self:
        """Create the cache from CACHE_URL: on Redis, or in memory without one.

        Raises:
            ConfigurationError: As in ``Cache(...)``.
            MissingExtraError: The extra ``cache`` is not installed.
        """
        return cls(None if settings.CACHE_URL is None else settings.CACHE_URL.get_secret_value())

    def __repr__(self) -> str:
        return f"Cache({self._kind}, prefix={self._prefix!r})"

    async def fetch(
        self,
        key: str,
        load: Callable[[], Awaitable[ValueT]],
        *,
        codec: Codec[ValueT],
        lifetime: timedelta,
        groups: Sequence[str] = (),
    ) -> ValueT:
        """Return the entry, or what *load* returns, which is stored. ``cached`` and ``CachedReadsMixin`` call it.

        Others who want the same entry meanwhile wait for that one load.

        An exception of *load* is raised and not stored; those who wait load for themselves. If the task that loads is cancelled, another
        one loads. Each caller gets an object of its own.

        Args:
            key: Any text.
            load: Loads the value.
            codec: How the value is stored.
            lifetime: How long the entry is kept at most.
            groups: What drops the entry. The default is *key*.
        """
        seconds, name = lifetime.total_seconds(), f"{self._prefix}v:{shortened(key)}"
        names = [self._everything, *map(self._group, groups or [key])]
        found = await self._store.get_many(*names, name)
        if found is None or (stamp := await self._stamp(names, found, seconds)) is None:
            return await load()
        head, _, raw = (found[-1] or b"").partition(b"\n")
        if head == stamp:
            # An entry that cannot be read, such as one of another version of the application, is as good as none.
            with suppress(Exception):
                return codec.decode(raw)
        flight_key = (asyncio.get_running_loop(), name, stamp)
        if (flight := self._flights.get(flight_key)) is not None:
            await asyncio.wait([flight])
            if flight.cancelled():
                return await self.fetch(key, load, codec=codec, lifetime=lifetime, groups=groups)
            loaded = flight.result()
            return await load() if loaded is None else codec.decode(loaded)
        flight = self._flights[flight_key] = asyncio.get_running_loop().create_future()
        try:
            value = await load()
            new = codec.encode(value)
            flight.set_result(new)
            if new is not None:
                await self._store.set(name, stamp + b"\n" + new, lifetime=seconds)
        except Exception:
            flight.set_result(None)
            raise
        finally:
            flight.cancel()  # unless it is done
            del self._flights[flight_key]
        return value

    async def delete(self, *keys: str) -> None:
        """Drop the entries with these keys, or of these groups, in every process. Use it as ``on_commit(session, cache.delete, key)``."""
        if keys:
            await self._store.delete(*map(self._group, keys))

    async def clear(self, prefix: str = "") -> None:
        """Drop all entries, or those whose key or one of whose groups starts with *prefix*. With a prefix all names are searched."""
        if prefix:
            await self._store.delete_all(f"{self._prefix}g:{encoded(prefix)[:LONGEST]}")
        else:
            await self._store.delete(self._everything)

    async def ping(self) -> None:
        """Ask Redis for an answer: ``HealthCheck("cache", cache.ping, critical=False)``.

        Raises:
            UnavailableError: There is none within the timeout.
        """
        await self._store.ping()

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncGenerator[None]:
        """Close the connections at the end. The application starts also if Redis does not answer."""
        try:
            yield
        finally:
            await self._store.close()

    async def _stamp(self, names: Sequence[str], found: Sequence[bytes | None], seconds: float) -> bytes | None:
        """Return the marks of the groups, which an entry must have to be valid. Missing ones are made. None if the store is gone."""
        marks: list[bytes] = []
        for name, mark in zip(names, found, strict=False):
            if mark is None:
                # The last is the entry's own group. The others are shared by entries of longer lifetimes.
                lifetime = None if name == self._everything else 2 * seconds if name == names[-1] else max(2 * seconds, DAY)
                mark = await self._store.add(name, secrets.token_urlsafe(9).encode(), lifetime=lifetime)
            if mark is None:
                return None
            marks.append(mark)
        return b" ".join(marks)

    def _group(self, key: str) -> str:
        return f"{self._prefix}g:{shortened(key)}"


def check_lifetime(lifetime: timedelta) -> timedelta:
    """Return *lifetime*. Raises ConfigurationError unless it is at least a millisecond."""
    if lifetime < timedelta(milliseconds=1):
        raise ConfigurationError("the lifetime of a cache entry must be at least one millisecond")
    return lifetime


def encoded(text: str) -> str:
    """Return *text* in ASCII without the characters that patterns give a meaning."""
    return quote(text, safe=":/", errors="surrogatepass").replace(".", "%2E")


def shortened(key: str) -> str:
    """Return *key* as a name of bounded length that starts as *key* does."""
    name = encoded(key)
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}~{sha256(name.encode()).hexdigest()}"
