"""Parts of the tests of stored logins."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

from redis.asyncio import Redis
from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase
from tests.auth.people import SECRET
from tests.redis_server import URL, leave_out

from fastapi_kit.auth import JWTService, TokenPolicy
from fastapi_kit.auth.logins.redis import RedisLoginStore
from fastapi_kit.auth.logins.sql import LoginMixin
from fastapi_kit.db import NAMING_CONVENTION
from fastapi_kit.errors import UnavailableError
from fastapi_kit.testing import FrozenClock


class LoginsBase(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class Login(LoginMixin, LoginsBase):
    __tablename__ = "logins"


def service(clock: FrozenClock) -> JWTService:
    policy = TokenPolicy(access_lifetime=timedelta(minutes=5), refresh_lifetime=timedelta(days=1))
    return JWTService(secret_key=SECRET, policy=policy, clock=clock)


@asynccontextmanager
async def redis_store() -> AsyncGenerator[RedisLoginStore]:
    """Yield a store on the shared server, whose keys are removed at the end."""
    prefix = f"fastapi_kit_tests_{uuid4().hex}:"
    store = RedisLoginStore(URL, prefix=prefix, timeout=10)
    async with store.lifespan(None):
        try:
            await store.ping()
        except UnavailableError:
            leave_out("Redis is not reachable: set TEST_REDIS_URL or start it on 127.0.0.1:6379")
        yield store
        client = Redis.from_url(URL)
        keys = [key async for key in client.scan_iter(f"{prefix}*")]
        if keys:
            await client.delete(*keys)
        await client.aclose()
