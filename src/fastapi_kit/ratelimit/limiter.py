"""Limits on requests, as dependencies. Needs the extra ``ratelimit``."""

# No ``from __future__ import annotations`` here: FastAPI reads the signatures of the closures below.
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from importlib.util import find_spec
from time import monotonic
from typing import Annotated, Any, TypeVar

from fastapi import Response
from fastapi.params import Depends
from starlette.requests import HTTPConnection

from fastapi_kit.dependencies import answering
from fastapi_kit.errors import ConfigurationError, MissingExtraError, RateLimitedError, UnavailableError
from fastapi_kit.middleware.routes import effective_route
from fastapi_kit.ratelimit.counters import MemoryCounter, client_key
from fastapi_kit.ratelimit.fields import rate_limit_headers
from fastapi_kit.ratelimit.redis import RedisCounter

__all__ = ["RateLimiter", "client_address"]

ResultT = TypeVar("ResultT")

PAUSE = 1.0
"""Seconds between two attempts to reach a Redis that does not answer. Meanwhile nothing waits for it."""

_logger = logging.getLogger("fastapi_kit.ratelimit")


async def client_address(connection: HTTPConnection) -> str:
    """Return the address of the client as the server says it, or the /64 of an IPv6 address. Headers are not read.

    Behind a proxy, configure the server with the proxies that it trusts: ``uvicorn --forwarded-allow-ips``.
    """
    return client_key(connection.client.host if connection.client else None)


class RateLimiter:
    """Counts in a moving window: in memory, or in Redis for several processes. An ``AttemptCounter``.

    Args:
        url: ``memory://``, or the URL of a Redis: ``redis://`` or ``rediss://``.
        prefix: How the names of all keys in Redis begin.
        timeout: Seconds that a count in Redis waits at most.
        fail_open: If Redis does not answer, count in the memory of this process. With False, raise UnavailableError (503).
        max_keys: How many keys the memory has at most. With one more, it forgets the key whose last attempt is the longest ago.

    Raises:
        MissingExtraError: The extra ``ratelimit`` is not installed.
        ConfigurationError: *url* cannot be parsed, or *max_keys* is less than 1.

    Example:
        ```python
        from fastapi import Depends, FastAPI

        from fastapi_kit import register_exception_handlers
        from fastapi_kit.ratelimit import RateLimiter

        limiter = RateLimiter()
        app = FastAPI()
        register_exception_handlers(app)


        @app.get("/search", dependencies=[Depends(limiter.limit("10/minute"))])
        async def search() -> list[str]:
            return []
        ```
    """

    def __init__(
        self,
        url: str = "memory://",
        *,
        prefix: str = "ratelimit:",
        timeout: float = 0.5,
        fail_open: bool = True,
        max_keys: int = 100_000,
    ) -> None:
        if find_spec("limits") is None or find_spec("redis") is None:
            raise MissingExtraError("ratelimit")
        self._fail_open = fail_open
        self._memory = MemoryCounter(max_keys=max_keys)
        self._redis = None if url == "memory://" else RedisCounter(url, prefix=prefix, timeout=timeout)
        self._is_gone = False
        self._next_attempt = 0.0

    async def hit(self, key: str, /, *, limit: int, window: float) -> float:
        """Count one attempt, and return 0. If there were *limit* in *window* seconds, count nothing and return the seconds to wait.

        Redis has whole seconds: it rounds *window* up.

        Raises:
            ConfigurationError: *limit* is less than 1, or *window* is not a positive number.
            UnavailableError: Redis does not answer, and *fail_open* is False.
        """
        return (await self._ask(lambda counter: counter.count(key, limit=limit, window=window))).wait

    async def reset(self, key: str, /) -> None:
        """Forget the attempts of *key*. Raises UnavailableError if Redis does not answer and *fail_open* is False."""
        await self._memory.reset(key)
        await self._ask(lambda counter: counter.reset(key))

    def limit(
        self, rate: str, *, by: Callable[..., str | Awaitable[str]] = client_address, name: str | None = None
    ) -> Callable[..., Awaitable[None]]:
        """Build the dependency that allows *rate* for each value of *by*.

        The dependency raises RateLimitedError (429). The answers have ``Retry-After``, ``RateLimit-Policy`` and ``RateLimit``
        (draft-ietf-httpapi-ratelimit-headers-10). If the route returns a response of its own, only the 429 has them.

        Args:
            rate: A number and a time: ``"10/minute"``, ``"100 per 2 hours"``.
            by: A dependency that says who is counted: the id of the user, for example. The default is the client's address.
            name: Count the requests of all routes with this name together. Without it, each route counts its own.

        Raises:
            ConfigurationError: *rate* cannot be parsed, or has more than one limit; or *by* has a parameter without a type.
        """
        limit, window = read_rate(rate)
        check_is_dependency(by)

        @answering(*({429} if self._fail_open else {429, 503}))
        async def check_rate(connection: HTTPConnection, response: Response, who: Annotated[Any, Depends(by)]) -> None:
            what = route_of(connection) if name is None else f"name {name}"
            count = await self._ask(lambda counter: counter.count(f"{what} {rate} {who}", limit=limit, window=window))
            if count.wait:
                raise RateLimitedError(count.wait, limit=limit, window=window)
            for field, value in rate_limit_headers(limit, window, count.left, count.resets_in).items():
                response.headers.append(field, value)

        return check_rate

    async def ping(self) -> None:
        """Ask Redis for an answer, for a ``HealthCheck``. Raises UnavailableError."""
        if self._redis is not None:
            await self._redis.ping()

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncGenerator[None]:
        """Close the connections at the end: ``create_app(lifespans=[limiter.lifespan])``."""
        try:
            yield
        finally:
            if self._redis is not None:
                await self._redis.close()

    async def _ask(self, command: Callable[[MemoryCounter | RedisCounter], Awaitable[ResultT]]) -> ResultT:
        """Return the result of *command*, which is called with the counter that counts now."""
        if self._redis is None:
            return await command(self._memory)
        cause: UnavailableError | None = None
        if not self._is_gone or monotonic() >= self._next_attempt:
            try:
                found = await command(self._redis)
            except UnavailableError as error:
                cause = error
                self._next_attempt = monotonic() + PAUSE
                self._report(is_gone=True, reason=type(error.__cause__).__name__)
            else:
                self._report(is_gone=False)
                return found
        if self._fail_open:
            # Not without a limit: a flood of guesses is what makes Redis too slow to answer.
            return await command(self._memory)
        raise UnavailableError("the counter of attempts") from cause

    def _report(self, *, is_gone: bool, reason: str = "") -> None:
        """Log once that Redis is gone, and once that it is back."""
        if is_gone and not self._is_gone:
            effect = "each process counts for itself" if self._fail_open else "attempts are rejected"
            _logger.warning("Redis does not answer (%s): %s", reason, effect)
        elif self._is_gone and not is_gone:
            _logger.warning("Redis answers again: it counts for all processes")
        self._is_gone = is_gone


def read_rate(rate: str) -> tuple[int, int]:
    """Return how many attempts in how many seconds *rate* allows. Raises ConfigurationError."""
    from limits import parse_many

    try:
        (item,) = parse_many(rate)
    except ValueError:
        raise ConfigurationError(f"{rate!r} is not one rate, such as '10/minute' or '100 per 2 hours'") from None
    if item.amount < 1:
        raise ConfigurationError("a limit must be at least 1")
    return item.amount, item.get_expiry()


def check_is_dependency(by: Callable[..., object]) -> None:
    """Raise ConfigurationError if *by* has a parameter without a type, which FastAPI would read from the query."""
    for parameter in inspect.signature(by).parameters.values():
        if parameter.annotation is inspect.Parameter.empty:
            raise ConfigurationError(f"by= is a dependency: write the type of its parameter {parameter.name!r}, such as Request")


def route_of(connection: HTTPConnection) -> str:
    """Return the methods and the template of the route."""
    route = effective_route(connection.scope)
    methods: Collection[str] = getattr(route, "methods", None) or ()
    return f"{' '.join(sorted(methods))} {getattr(route, 'path_format', '')}"
