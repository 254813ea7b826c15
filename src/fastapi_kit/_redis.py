"""Connections to Redis, with a time limit."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi_kit.errors import ConfigurationError, MissingExtraError, UnavailableError

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["RedisConnection", "RedisStore"]

ResultT = TypeVar("ResultT")


class RedisConnection:
    """A client of one Redis, for one event loop after the other. redis-py must be installed.

    Args:
        url: ``redis://`` or ``rediss://``, with user, password, host, port and number.
        timeout: Seconds that a command waits at most.
        service: What the Redis is for, as the errors name it.

    Raises:
        ConfigurationError: *url* cannot be parsed. The text shows no part of it.
    """

    def __init__(self, url: str, *, timeout: float, service: str) -> None:
        self._url = url
        self._timeout = timeout
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client = connect(url, timeout, service)

    async def ask(self, command: Callable[[Any], Awaitable[ResultT]]) -> ResultT:
        """Return the result of *command*, which is called with the client. Raises UnavailableError if Redis does not answer."""
        from redis.exceptions import RedisError

        loop, client = asyncio.get_running_loop(), self._client
        if self._loop is not None and self._loop is not loop:
            # Connections belong to the event loop that made them.
            client = connect(self._url, self._timeout, self._service)
        self._loop, self._client = loop, client
        try:
            async with asyncio.timeout(self._timeout):
                return await command(client)
        except (RedisError, OSError) as error:
            raise UnavailableError(self._service) from error

    async def run(self, script: str, keys: Sequence[str], *values: str | int) -> Any:
        """Return the result of *script* in Lua, which nothing interrupts. Raises UnavailableError if Redis does not answer."""
        return await self.ask(lambda client: client.eval(script, len(keys), *keys, *values))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class RedisStore:
    """What stores on Redis have in common.

    Args:
        url: ``redis://`` or ``rediss://``, with user, password, host, port and number.
        prefix: How the names of all keys in Redis begin.
        timeout: Seconds that a command waits at most.
        service: What is stored, as the errors name it.

    Raises:
        MissingExtraError: The extra ``cache`` is not installed.
        ConfigurationError: *url* cannot be parsed. The text shows no part of it.
    """

    def __init__(self, url: str, *, prefix: str, timeout: float, service: str) -> None:
        if find_spec("redis") is None:
            raise MissingExtraError("cache")
        self._prefix = prefix
        self._redis = RedisConnection(url, timeout=timeout, service=service)

    async def ping(self) -> None:
        """Ask for an answer, for a ``HealthCheck``. Raises UnavailableError."""
        await self._redis.ask(lambda client: client.ping())

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncGenerator[None]:
        """Close the connections at the end: ``create_app(lifespans=[store.lifespan])``."""
        try:
            yield
        finally:
            await self._redis.close()


def connect(url: str, timeout: float, service: str) -> "Redis":
    """Return a client, which connects with the first command. Raises ConfigurationError."""
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    pools: Any = BlockingConnectionPool
    options: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "timeout": timeout}
    try:
        if not url.startswith(("redis://", "rediss://")):
            raise ValueError
        return Redis.from_pool(pools.from_url(url, retry=Retry(NoBackoff(), 1), **options))
    except ValueError:
        raise ConfigurationError(f"the URL of {service} is redis:// or rediss:// with user, password, host, port and number") from None
