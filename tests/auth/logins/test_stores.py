"""What the stores of logins do beside their contract."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import async_sessionmaker
from tests.auth.logins.stores import redis_store, service
from tests.redis_server import RedisServer
from tests.reliability.servers import closed_port
from tests.tables.accounts import AccountsBase, Login

from fastapi_kit.auth.logins import LoginInfo, LoginRecord, MemoryLoginStore, StoredLogins, TokenPair
from fastapi_kit.auth.logins.redis import RedisLoginStore
from fastapi_kit.auth.logins.sql import SQLLoginStore
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, InvalidTokenError, UnavailableError
from fastapi_kit.testing import FrozenClock, assert_max_queries, isolated


@pytest.fixture
async def stored(database: Database) -> StoredLogins:
    await database.create_tables(AccountsBase.metadata)
    return StoredLogins(service(FrozenClock()), SQLLoginStore(database.sessions, Login), grace=timedelta(seconds=10))


async def refreshed(logins: StoredLogins, pair: TokenPair) -> TokenPair:
    claims = await logins.decode_refresh_token(pair.refresh_token)
    return await logins.renew(claims, scopes=claims.scopes)


async def test_a_transaction_of_the_application(stored: StoredLogins, database: Database) -> None:
    """R38: the store commits in sessions of its own: what the application rolls back is rolled back, and the refresh stays."""
    pair = await stored.start("7")

    async with database.sessions() as session:
        assert await session.scalar(select(func.count()).select_from(Login)) == 1
        second = await refreshed(stored, pair)
        await session.rollback()

    await refreshed(stored, second)
    (login,) = await stored.store.list("7")
    assert login.previous_hash is not None


async def test_a_refresh_whose_answer_is_lost() -> None:
    """R38: redis-py sends a command again whose answer was lost. That is no second use of the token."""
    async with redis_store() as store:
        reused = list[LoginInfo]()
        logins = StoredLogins(service(FrozenClock()), store, on_reuse=reused.append)
        pair = await logins.start("7")
        replace = store.replace

        async def replace_twice(login: LoginRecord, /, *, token_hash: bytes) -> bool:
            await replace(login, token_hash=token_hash)
            return await replace(login, token_hash=token_hash)

        store.replace = replace_twice  # type: ignore[method-assign]
        second = await refreshed(logins, pair)
        await refreshed(logins, second)
    assert reused == []


async def test_the_statements_of_a_refresh(stored: StoredLogins, database: Database) -> None:
    """A refresh is one read and one UPDATE, a check of an access token one read, everything else one statement."""
    stored.check_access = True
    with assert_max_queries(database, 1):
        pair = await stored.start("7")
    with assert_max_queries(database, 2):
        await refreshed(stored, pair)
    with assert_max_queries(database, 1):
        await stored.verify(pair.access_token)
    with assert_max_queries(database, 1):
        await stored.list_logins("7")
    with assert_max_queries(database, 1):
        await stored.end_all("7")


async def test_sessions_of_your_own(stored: StoredLogins, database: Database) -> None:
    """The store works with any ``async_sessionmaker``."""
    stored.store = SQLLoginStore(async_sessionmaker(database.engine), Login)
    pair = await stored.start("7")

    pairs = await asyncio.gather(*(refreshed(stored, pair) for _ in range(5)))

    assert len({stored.tokens.decode(each.refresh_token, type="refresh").jti for each in pairs}) == 1
    await stored.end_all("7")
    assert list(await stored.list_logins("7")) == []


async def test_an_isolated_test(stored: StoredLogins, database: Database) -> None:
    """Logins of a test with ``isolated`` are rolled back with it."""
    async with isolated(database):
        pair = await refreshed(stored, await stored.start("7"))
        assert len(await stored.list_logins("7")) == 1

    with pytest.raises(InvalidTokenError, match="over"):
        await refreshed(stored, pair)


async def test_a_database_that_is_gone() -> None:
    """R38: while the database does not answer, a login cannot be checked: that is a 503, not a login."""
    gone = Database(f"postgresql+asyncpg://postgres@127.0.0.1:{closed_port()}/test")
    logins = StoredLogins(service(FrozenClock()), SQLLoginStore(gone.sessions, Login), check_access=True)

    for attempt in (lambda: logins.start("7"), lambda: logins.verify(logins.tokens.create_access_token("7", sid="x" * 22))):
        with pytest.raises(UnavailableError):
            await attempt()


async def test_redis_is_gone(tmp_path: Path) -> None:
    """R38: while Redis does not answer nothing is refreshed and no access token passes the check; afterwards both work again."""
    server = RedisServer(tmp_path)
    store = RedisLoginStore(server.url, timeout=5)
    logins = StoredLogins(service(FrozenClock()), store, check_access=True)
    await server.start(dump=True)
    async with store.lifespan(None):
        try:
            pair = await logins.start("7")
            await server.stop()
            for attempt in (store.ping, lambda: refreshed(logins, pair), lambda: logins.verify(pair.access_token)):
                with pytest.raises(UnavailableError):
                    await attempt()
            await server.start(dump=True)
            assert (await logins.verify(pair.access_token)).sub == "7"
            await refreshed(logins, pair)
        finally:
            await server.stop()


async def test_redis_forgets(tmp_path: Path) -> None:
    """R39: Redis removes a login when it is over, and the list of a user with the last one."""
    server = RedisServer(tmp_path)
    store = RedisLoginStore(server.url, timeout=5)
    logins = StoredLogins(service(FrozenClock()), store, idle=timedelta(hours=1))
    await server.start()
    async with store.lifespan(None):
        try:
            await logins.start("7")
            (login,) = await store.list("7")
            left = [await store._redis._client.pttl(f"logins:{name}") for name in (f"login:{login.sid}", "user:7")]
            assert [round(each / 3_600_000) for each in left] == [1, 24]
            await logins.end_all("7")
            assert await store._redis._client.keys("*") == []
        finally:
            await server.stop()


@pytest.mark.parametrize("url", ["http://x", "redis://:secret@x:port", ""])
def test_a_wrong_url(url: str) -> None:
    """A URL that is none of Redis raises ConfigurationError, which shows no part of it."""
    with pytest.raises(ConfigurationError, match="redis://") as caught:
        RedisLoginStore(url)
    assert "secret" not in str(caught.value)


async def test_a_restart_of_the_process() -> None:
    """Logins in memory end with the process; their refresh tokens are then rejected, and nothing is reported."""
    logins = StoredLogins(service(FrozenClock()), MemoryLoginStore())
    pair = await logins.start("7")
    logins.store = MemoryLoginStore()

    with pytest.raises(InvalidTokenError, match="over"):
        await refreshed(logins, pair)
