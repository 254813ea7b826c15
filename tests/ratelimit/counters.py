"""Parts of the tests of rate limits."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import uuid4

from redis.asyncio import Redis
from tests.redis_server import PATIENT, URL, leave_out

from fastapi_kit.errors import UnavailableError
from fastapi_kit.ratelimit import RateLimiter


class Seconds:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def redis_limiter(prefix: str | None = None) -> AsyncGenerator[RateLimiter]:
    """Yield a limiter on the shared server, whose keys are removed at the end. Those with one *prefix* count together."""
    prefix = prefix or f"fastapi_kit_tests_{uuid4().hex}:"
    limiter = RateLimiter(URL, prefix=prefix, timeout=PATIENT, fail_open=False)
    async with limiter.lifespan(None):
        try:
            await limiter.ping()
        except UnavailableError:
            leave_out("Redis is not reachable: set TEST_REDIS_URL or start it on 127.0.0.1:6379")
        yield limiter
        client = Redis.from_url(URL)
        keys = [key async for key in client.scan_iter(f"{prefix}*")]
        if keys:
            await client.delete(*keys)
        await client.aclose()


@asynccontextmanager
async def limiter_on(kind: str) -> AsyncGenerator[RateLimiter]:
    """Yield an empty limiter in memory, or on Redis."""
    if kind == "memory":
        yield RateLimiter()
        return
    async with redis_limiter() as limiter:
        yield limiter
