"""Parts of the tests of stored logins."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

from tests.auth.people import SECRET
from tests.redis_server import PATIENT, URL, shared_prefix

from fastapi_kit.auth import JWTService, TokenPolicy
from fastapi_kit.auth.logins.redis import RedisLoginStore
from fastapi_kit.testing import FrozenClock


def service(clock: FrozenClock) -> JWTService:
    policy = TokenPolicy(access_lifetime=timedelta(minutes=5), refresh_lifetime=timedelta(days=1))
    return JWTService(secret_key=SECRET, policy=policy, clock=clock)


@asynccontextmanager
async def redis_store() -> AsyncGenerator[RedisLoginStore]:
    """Yield a store on the shared server, whose keys are removed at the end."""
    async with shared_prefix() as prefix:
        store = RedisLoginStore(URL, prefix=prefix, timeout=PATIENT)
        async with store.lifespan(None):
            yield store
