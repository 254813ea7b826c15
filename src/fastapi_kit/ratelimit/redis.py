"""Counts attempts in Redis, for several processes. Needs the extra ``ratelimit``."""

import math
import time
from typing import TYPE_CHECKING, Any

from fastapi_kit._redis import RedisConnection
from fastapi_kit.ratelimit.counters import SHORTEST_WAIT, Count, check_limit, digest

if TYPE_CHECKING:
    from limits.aio.storage import RedisStorage

__all__ = ["RedisCounter"]


class RedisCounter:
    """An ``AttemptCounter`` over the scripts of the package ``limits``. Each key disappears by itself after its window.

    If Redis does not answer, the methods raise UnavailableError. The processes need clocks that agree.
    """

    def __init__(self, url: str, *, prefix: str, timeout: float) -> None:
        self._redis = RedisConnection(url, timeout=timeout, service="the counter of attempts")
        self._prefix = prefix
        self._made: tuple[object, RedisStorage] | None = None

    async def count(self, key: str, /, *, limit: int, window: float) -> Count:
        """Count one attempt if there were less than *limit* in *window* seconds, rounded up."""
        check_limit(limit, window)
        name, seconds = digest(key).hex(), math.ceil(window)

        async def count(client: Any) -> Count:
            storage = self._storage(client)
            is_counted = await storage.acquire_entry(name, limit, seconds)
            began, made = await storage.get_moving_window(name, limit, seconds)
            resets_in = max(began + seconds - time.time(), SHORTEST_WAIT)
            return Count(wait=0.0 if is_counted else resets_in, left=max(limit - made, 0), resets_in=resets_in)

        return await self._redis.ask(count)

    async def reset(self, key: str, /) -> None:
        """Forget the attempts of *key*."""
        await self._redis.ask(lambda client: self._storage(client).clear(digest(key).hex()))

    async def ping(self) -> None:
        """Ask for an answer. Raises UnavailableError."""
        await self._redis.ask(lambda client: client.ping())

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.close()

    def _storage(self, client: Any) -> "RedisStorage":
        from limits.aio.storage import RedisStorage

        made = self._made
        if made is None or made[0] is not client:
            # The pool has the URL. The package puts a colon after the prefix.
            options: dict[str, Any] = {"key_prefix": self._prefix.removesuffix(":"), "connection_pool": client.connection_pool}
            self._made = made = client, RedisStorage("async+redis://", implementation="redispy", **options)
        return made[1]
