"""Where a cache keeps its bytes: cashews, in memory or on Redis. A store that is gone behaves as if empty."""

import asyncio
import logging
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.util import find_spec
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from fastapi_kit.errors import ConfigurationError, MissingExtraError, UnavailableError

if TYPE_CHECKING:
    import cashews

__all__ = ["Store"]

ResultT = TypeVar("ResultT")

PAUSE = 1.0
"""Seconds between two attempts to reach a Redis that is gone. Meanwhile nothing waits for it."""
MOST_OWED = 10_000
_log = logging.getLogger("fastapi_kit.cache")


class Store:
    """Bytes by name. Only ``ping`` raises.

    What could not be deleted is deleted before anything else is read, so a Redis that comes back shows nothing old.

    Args:
        url: The URL of a Redis, or None for the memory of this process.
        timeout: Seconds that a command waits at most.
        max_entries: How much the memory holds. What was not used for the longest time goes first.
        everything: The name whose deletion makes all entries worthless.
    """

    def __init__(self, url: str | None, *, timeout: float, max_entries: int, everything: str) -> None:
        if find_spec("cashews") is None or (url is not None and find_spec("redis") is None):
            raise MissingExtraError("cache")
        if url is not None:
            check_url(url)
        self._url = url
        self._timeout = timeout
        self._everything = everything
        self._loop: asyncio.AbstractEventLoop | None = None
        # Made now, because the first import of cashews takes longer than a command may.
        self._client: cashews.Cache | None = memory(max_entries) if url is None else redis(url, timeout)
        self._is_gone = False
        self._rejections: set[str] = set()
        self._next_attempt = 0.0
        self._owed: dict[str, int] = {}
        self._serial = count()
        self._paying: set[asyncio.Future[None]] = set()

    async def get_many(self, *names: str) -> list[bytes | None] | None:
        """Return what is stored, or None if the store is gone."""
        found = await self._attempt(lambda client: client.get_many(*names))
        return None if found is None else [each if isinstance(each, bytes) else None for each in found]

    async def set(self, name: str, value: bytes, *, lifetime: float) -> None:
        """Store *value* for *lifetime* seconds."""
        await self._attempt(lambda client: client.set(name, value, expire=lifetime))

    async def add(self, name: str, value: bytes, *, lifetime: float | None) -> bytes | None:
        """Store *value* unless something is stored, and return what is stored then. None if that is unknown."""

        async def add(client: "cashews.Cache") -> bytes | None:
            if await client.set(name, value, expire=lifetime, exist=False):
                return value
            stored = await client.get(name)
            return stored if isinstance(stored, bytes) else None

        return await self._attempt(add)

    async def delete(self, *names: str) -> None:
        """Delete *names*, at the latest before anything is read again, also if the caller is cancelled."""
        self._owe(*names)
        paying = asyncio.ensure_future(self._attempt(nothing))
        self._paying.add(paying)
        paying.add_done_callback(self._paying.discard)
        await asyncio.shield(paying)

    async def delete_all(self, prefix: str) -> None:
        """Delete the names that start with *prefix*. Takes longer the more is stored."""

        async def delete(client: "cashews.Cache") -> bool:
            await client.delete_match(f"{prefix}*")
            return True

        if not await self._attempt(delete, takes_long=True):
            self._owe(self._everything)

    async def ping(self) -> None:
        """Ask for an answer. Raises UnavailableError."""
        self._next_attempt = 0.0
        if await self._attempt(lambda client: client.ping()) is None:
            raise UnavailableError("the cache")

    async def close(self) -> None:
        """Close the connections. The next command connects again."""
        if self._url is not None and self._client is not None:
            client, self._client = self._client, None
            # Nothing is lost if a connection that is given up cannot be closed.
            with suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # cashews calls a method that redis has renamed
                await client.close()

    async def _attempt(self, command: Callable[["cashews.Cache"], Awaitable[ResultT]], *, takes_long: bool = False) -> ResultT | None:
        if self._is_gone:
            if monotonic() < self._next_attempt:
                return None
            self._next_attempt = monotonic() + PAUSE
        try:
            client = self._connected()
            async with asyncio.timeout(None if takes_long else self._timeout):
                if self._owed:
                    await self._pay(client)
                result = await command(client)
        except Exception as error:
            # Redis, the network and cashews raise many types. A cache never fails its caller.
            self._note_failure(error)
            return None
        if self._is_gone:
            self._is_gone = False
            _log.warning("the cache is back")
        return result

    def _connected(self) -> "cashews.Cache":
        loop = asyncio.get_running_loop()
        if self._client is None or (self._url is not None and self._loop is not loop):
            # Connections belong to the event loop that made them.
            self._client, self._loop = redis(self._url or "", self._timeout), loop
        return self._client

    def _note_failure(self, error: Exception) -> None:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        name = type(cause).__name__  # only the class: the text may contain the URL
        if is_answer(cause):
            if name not in self._rejections:
                self._rejections.add(name)
                _log.warning("the cache rejects commands (%s): what it does not keep is loaded", name)
            return
        self._next_attempt = monotonic() + PAUSE
        if not self._is_gone:
            self._is_gone = True
            _log.warning("the cache is gone (%s): everything is loaded until it is back", name)

    def _owe(self, *names: str) -> None:
        self._owed.update((name, next(self._serial)) for name in names)
        if len(self._owed) > MOST_OWED:
            self._owed = {self._everything: next(self._serial)}

    async def _pay(self, client: "cashews.Cache") -> None:
        owed = dict(self._owed)
        await client.delete_many(*owed)
        for name, serial in owed.items():
            if self._owed.get(name) == serial:
                del self._owed[name]


def is_answer(error: Exception) -> bool:
    """Return whether Redis has answered with this error, because it is full or read-only for example."""
    from redis.exceptions import ResponseError

    return isinstance(error, ResponseError)


async def nothing(_client: "cashews.Cache") -> None: ...


def check_url(url: str) -> None:
    from redis.asyncio.connection import parse_url

    try:
        if not url.startswith(("redis://", "rediss://")):
            raise ValueError
        parse_url(url)
    except ValueError:
        raise ConfigurationError("the URL of a cache is redis:// or rediss:// with user, password, host, port and number") from None


def memory(max_entries: int) -> "cashews.Cache":
    import cashews

    client = cashews.Cache()
    # What has expired is removed when it is read or pushed out, not by a task in the background.
    client.setup("mem://", size=max_entries, check_interval=0)
    return client


def redis(url: str, timeout: float) -> "cashews.Cache":
    import cashews
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    client = cashews.Cache()
    client.setup(
        url,
        pickle_type="null",  # never unpickle what others may have written
        client_side=False,
        suppress=False,
        max_connections=50,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        wait_for_connection_timeout=timeout,
        retry=Retry(NoBackoff(), 1),
    )
    return client
