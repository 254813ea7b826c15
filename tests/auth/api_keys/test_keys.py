"""The contract of API keys, on every store."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from tests.auth.people import tokens
from tests.auth.tokens.hostile_tokens import hostile_tokens
from tests.redis_server import PATIENT, URL, RedisServer, shared_prefix
from tests.reliability.servers import closed_port
from tests.tables.accounts import AccountsBase, APIKey

from fastapi_kit.auth.api_keys import APIKeyInfo, APIKeyRecord, APIKeys, APIKeyStore, MemoryAPIKeyStore
from fastapi_kit.auth.api_keys.redis import RedisAPIKeyStore
from fastapi_kit.auth.api_keys.sql import SQLAPIKeyStore
from fastapi_kit.auth.logins import StoredLogins
from fastapi_kit.auth.logins.redis import RedisLoginStore
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, InvalidTokenError, NotFoundError, UnavailableError, UserInputError
from fastapi_kit.testing import FrozenClock, assert_max_queries


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
async def on_sqlite(sqlite_database: Database) -> APIKeyStore:
    await sqlite_database.create_tables(AccountsBase.metadata)
    return SQLAPIKeyStore(sqlite_database.sessions, APIKey)


@pytest.fixture
async def on_postgresql(postgres_database: Database) -> APIKeyStore:
    await postgres_database.create_tables(AccountsBase.metadata)
    return SQLAPIKeyStore(postgres_database.sessions, APIKey)


@pytest.fixture
def in_memory() -> APIKeyStore:
    return MemoryAPIKeyStore()


@pytest.fixture
async def on_redis() -> AsyncIterator[APIKeyStore]:
    async with shared_prefix() as prefix:
        store = RedisAPIKeyStore(URL, prefix=prefix, timeout=PATIENT)
        async with store.lifespan(None):
            yield store


@pytest.fixture(params=["in_memory", "on_sqlite", "on_postgresql", "on_redis"])
def store(request: pytest.FixtureRequest) -> APIKeyStore:
    """An empty store of each kind."""
    store: APIKeyStore = request.getfixturevalue(request.param)
    return store


@pytest.fixture
def keys(store: APIKeyStore, clock: FrozenClock) -> APIKeys:
    return APIKeys(store, prefix="shop", clock=clock)


async def is_valid(keys: APIKeys, key: str) -> bool:
    try:
        await keys.verify(key)
    except InvalidTokenError:
        return False
    return True


async def test_a_key(keys: APIKeys, clock: FrozenClock) -> None:
    """R45: a key has a prefix, an id and 256 random bits; it gives claims of type ``api`` with its scopes and without a login."""
    end = clock() + timedelta(days=1)
    new = await keys.create("7", name="Nightly backup", scopes=["b", "a"], expires_at=end)

    claims = await keys.verify(new.key)

    assert new.key == f"shop_{new.info.id}_{new.key[-64:]}"
    assert (len(new.info.id), int(new.key[-64:], 16) > 0) == (32, True)
    assert (claims.sub, claims.type, claims.jti, claims.scopes, claims.sid) == ("7", "api", new.info.id, {"a", "b"}, None)
    assert (claims.iat, claims.exp) == (clock(), end)


async def test_the_list(keys: APIKeys, clock: FrozenClock) -> None:
    """R45: users see a hint, the times and the scopes of their own keys, the newest first; never a key or a hash."""
    first = await keys.create("7", name="First")
    clock.advance(timedelta(hours=1))
    second = await keys.create("7", name="Zweiter Schlüssel 🔑", scopes=["a"], expires_at=clock() + timedelta(days=1))
    await keys.create("8", name="Another user's")

    listed = list(await keys.list("7"))

    assert listed == [second.info, first.info]
    assert {type(key) for key in listed} == {APIKeyInfo}
    assert listed[0].hint == f"shop_…{second.key[-4:]}"
    assert second.key[-64:] not in repr(listed)
    assert (first.info.expires_at, first.info.last_used_at, first.info.created_at.tzinfo) == (None, None, UTC)


async def test_only_hashes_are_stored(keys: APIKeys) -> None:
    """R45: the store has the SHA-256 of the secret. No repr has the key or the hash."""
    new = await keys.create("7", name="Backup")
    (record,) = await keys.store.list("7")

    secret = new.key[-64:]
    assert record.secret_hash == hashlib.sha256(secret.encode()).digest()
    assert [each.name for each in fields(record) if secret in str(getattr(record, each.name))] == []
    assert secret not in repr(new) + repr(record)
    assert repr(record.secret_hash) not in repr(record)


async def test_any_change_of_one_character(keys: APIKeys) -> None:
    """R45: a key with one other character, one less or one more is not valid, and neither is another spelling of it."""
    key = (await keys.create("7", name="Backup")).key
    assert await is_valid(keys, key)

    changed = [key[:at] + ("0" if key[at] != "0" else "1") + key[at + 1 :] for at in range(len(key))]
    spelled = [key.upper(), key[:-1], key + "0", f" {key}", f"{key}\n", key.replace("_", "-"), key.removeprefix("shop_"), key + "\0"]

    assert [other for other in (*changed, *spelled) if await is_valid(keys, other)] == []


@pytest.mark.parametrize("token", [None, b"", 7, "", "shop_", "shop__", "\ud800", "x" * 1_000_000, f"shop_{'٠' * 32}_{'0' * 64}"])
async def test_what_is_no_key(token: Any) -> None:
    """R45: anything else is an InvalidTokenError, before the store is asked."""
    with pytest.raises(InvalidTokenError):
        await APIKeys(SQLAPIKeyStore(lambda: pytest.fail("the store was asked"), APIKey), prefix="shop").verify(token)


@given(st.text(max_size=120) | st.binary(max_size=120))
def test_any_input(token: Any) -> None:
    """R45: no input raises another error."""
    with pytest.raises(InvalidTokenError):
        asyncio.run(APIKeys(MemoryAPIKeyStore(), prefix="shop").verify(token))


async def test_tokens_and_keys_are_not_exchangeable(keys: APIKeys) -> None:
    """R17: no signed token is a key, also not one of type ``api``, and no key is a token."""
    key = (await keys.create("7", name="Backup")).key
    signed = [tokens.create_access_token("7"), tokens.create_token("7", type="api", lifetime=timedelta(days=1)), *hostile_tokens()]

    assert [token for token in signed if await is_valid(keys, token)] == []
    with pytest.raises(InvalidTokenError):
        await tokens.verify(key)
    assert not await is_valid(APIKeys(keys.store, prefix="other"), key)


async def test_a_key_expires(keys: APIKeys, clock: FrozenClock) -> None:
    """R45: a key is invalid from the moment at which it expires; one without an end stays valid."""
    short = await keys.create("7", name="Short", expires_at=clock().astimezone(timezone(timedelta(hours=9))) + timedelta(hours=1))
    forever = await keys.create("7", name="Forever")

    clock.advance(timedelta(minutes=59, seconds=59))
    assert await is_valid(keys, short.key)
    clock.advance(timedelta(seconds=1))
    assert not await is_valid(keys, short.key)
    clock.advance(timedelta(days=36_500))
    assert (await keys.verify(forever.key)).exp.year == 9999
    assert {key.name for key in await keys.list("7")} == {"Short", "Forever"}


async def test_revoked(keys: APIKeys) -> None:
    """R45: a revoked key is invalid at once. An unknown id, and the key of another user, are one NotFoundError."""
    mine, other, theirs = [await keys.create(subject, name="Key") for subject in ("7", "7", "8")]

    await keys.revoke(mine.info.id, subject="7")

    assert [await is_valid(keys, new.key) for new in (mine, other, theirs)] == [False, True, True]
    for id in (mine.info.id, theirs.info.id, "", "x", mine.info.id + "x"):
        with pytest.raises(NotFoundError):
            await keys.revoke(id, subject="7")
    assert await is_valid(keys, theirs.key)


async def test_all_of_a_user(keys: APIKeys) -> None:
    """R45: all keys of a user can be revoked at once, and no other user's."""
    mine, other, theirs = [await keys.create(subject, name="Key") for subject in ("7", "7", "8")]

    await keys.revoke_all("7")

    assert [await is_valid(keys, new.key) for new in (mine, other, theirs)] == [False, False, True]


@pytest.mark.only_full
async def test_twenty_revocations_at_once(keys: APIKeys) -> None:
    """R45: of many revocations of one key at once, one succeeds; uses at the same time do not bring the key back."""
    new = await keys.create("7", name="Key")

    results = await asyncio.gather(
        *(keys.revoke(new.info.id, subject="7") for _ in range(20)), *(keys.verify(new.key) for _ in range(20)), return_exceptions=True
    )

    assert results[:20].count(None) == 1
    assert {type(result) for result in results[:20] if result is not None} == {NotFoundError}
    assert all(isinstance(result, InvalidTokenError) or not isinstance(result, BaseException) for result in results[20:])
    assert not await is_valid(keys, new.key)
    assert list(await keys.list("7")) == []


# --- The last use ---


async def test_the_last_use(keys: APIKeys, clock: FrozenClock) -> None:
    """R45: the last use is stored with the first request, and then at most once per minute."""
    new = await keys.create("7", name="Key")
    stored: list[datetime | None] = []

    for seconds in (0, 59, 1, 30):
        clock.advance(timedelta(seconds=seconds))
        await keys.verify(new.key)
        stored.append((await keys.list("7"))[0].last_used_at)

    start = new.info.created_at
    assert stored == [start, start, start + timedelta(minutes=1), start + timedelta(minutes=1)]


async def test_a_later_use_stays(store: APIKeyStore, keys: APIKeys, clock: FrozenClock) -> None:
    """R45: a slow request does not store an earlier use over a later one, and a use of a revoked key stores nothing."""
    new = await keys.create("7", name="Key")
    later = clock() + timedelta(hours=1)
    await store.touch(new.info.id, at=later)
    await store.touch(new.info.id, at=clock())
    await store.touch("unknown", at=later)

    assert [key.last_used_at for key in await keys.list("7")] == [later]
    await keys.revoke(new.info.id, subject="7")
    await store.touch(new.info.id, at=later)
    assert list(await store.list("7")) == []


async def test_a_use_that_cannot_be_stored(clock: FrozenClock, caplog: pytest.LogCaptureFixture) -> None:
    """R45: if the last use cannot be stored, the request goes on, and a warning without data is logged."""

    class Failing(MemoryAPIKeyStore):
        async def touch(self, id: str, /, *, at: datetime) -> None:
            raise UnavailableError("the store of keys")

    keys = APIKeys(Failing(), prefix="shop", clock=clock)
    new = await keys.create("7", name="Key")

    with caplog.at_level(logging.DEBUG):
        assert (await keys.verify(new.key)).sub == "7"

    (record,) = caplog.records
    assert (record.name, record.levelname) == ("fastapi_kit.auth.api_keys", "WARNING")
    assert new.key not in caplog.text
    assert new.info.id not in caplog.text


# --- What cannot be created ---


@pytest.mark.parametrize(
    "name", ["", " ", "x" * 101, "a\0b", "a\nb", "\ud800", "\u200b", "\u202e"], ids=["empty", "blank", "long", *map(ascii, range(5))]
)
async def test_a_bad_name(keys: APIKeys, name: str) -> None:
    """R45: a name that is empty, too long or not printable is a UserInputError for that field, and creates nothing."""
    with pytest.raises(UserInputError) as caught:
        await keys.create("7", name=name)
    assert caught.value.errors[0].loc == ("body", "name")
    assert list(await keys.list("7")) == []


async def test_a_bad_end(keys: APIKeys, clock: FrozenClock) -> None:
    """R45: an end that is not in the future is a UserInputError; one without a time zone is a TypeError."""
    for end in (clock(), clock() - timedelta(days=1), datetime(1, 1, 1, tzinfo=UTC)):
        with pytest.raises(UserInputError):
            await keys.create("7", name="Key", expires_at=end)
    with pytest.raises(TypeError):
        await keys.create("7", name="Key", expires_at=datetime(2999, 1, 1))  # noqa: DTZ001
    with pytest.raises(TypeError):
        await keys.create("7", name="Key", expires_at="2999-01-01")  # type: ignore[arg-type]
    last = await keys.create("7", name="Key", expires_at=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
    assert await is_valid(keys, last.key)


@pytest.mark.parametrize("scopes", [["a b"], [""], ['"'], ["ä"], ["\ud800"]])
async def test_a_bad_scope(keys: APIKeys, scopes: list[str]) -> None:
    """R45: a malformed scope, which only the application can have allowed, is a ConfigurationError."""
    with pytest.raises(ConfigurationError):
        await keys.create("7", name="Key", scopes=scopes)


@pytest.mark.parametrize("subject", ["", " ", "x" * 256, "a\0", "\ud800"])
async def test_a_bad_subject(keys: APIKeys, subject: str) -> None:
    """R45: a subject that no token could have is a ConfigurationError."""
    with pytest.raises(ConfigurationError):
        await keys.create(subject, name="Key")


async def test_too_many_keys(store: APIKeyStore) -> None:
    """R45: a user has a limited number of keys; the others' do not count."""
    keys = APIKeys(store, prefix="shop", max_keys=2)
    first, _, _ = [await keys.create(subject, name="Key") for subject in ("7", "7", "8")]
    with pytest.raises(UserInputError, match="too many"):
        await keys.create("7", name="Key")
    await keys.revoke(first.info.id, subject="7")
    await keys.create("7", name="Key")


@pytest.mark.parametrize("options", [{"prefix": prefix} for prefix in ("", "_a", "1a", "a-b", "a.b", "ä", "a" * 33)] + [{"max_keys": 0}])
def test_a_wrong_configuration(options: dict[str, Any]) -> None:
    """R45: a prefix that is no word, and a limit below one, raise ConfigurationError."""
    with pytest.raises(ConfigurationError):
        APIKeys(MemoryAPIKeyStore(), **{"prefix": "shop", **options})


async def test_a_prefix_with_underscores(store: APIKeyStore) -> None:
    """R45: a prefix may have underscores itself."""
    keys = APIKeys(store, prefix="shop_live_")
    assert await is_valid(keys, (await keys.create("7", name="Key")).key)


async def test_all_and_a_new_one(keys: APIKeys) -> None:
    """R45: a user whose keys were all revoked can create others, and the old ones stay revoked."""
    old = await keys.create("7", name="Key")
    await keys.revoke_all("7")
    await keys.store.touch(old.info.id, at=old.info.created_at)

    new = await keys.create("7", name="Key")

    assert list(await keys.list("7")) == [new.info]
    assert [await is_valid(keys, each.key) for each in (old, new)] == [False, True]


# --- The table ---


async def test_the_statements(database: Database, clock: FrozenClock) -> None:
    """R45: a request costs one read, and once per minute one UPDATE."""
    await database.create_tables(AccountsBase.metadata)
    keys = APIKeys(SQLAPIKeyStore(database.sessions, APIKey), prefix="shop", clock=clock)
    new = await keys.create("7", name="Key")
    with assert_max_queries(database, 2):
        await keys.verify(new.key)
    with assert_max_queries(database, 1):
        await keys.verify(new.key)
    with assert_max_queries(database, 1):
        await keys.revoke(new.info.id, subject="7")


async def test_a_transaction_of_the_application(database: Database, clock: FrozenClock) -> None:
    """R45: the store commits in sessions of its own: what the application rolls back is rolled back, and the key stays."""
    await database.create_tables(AccountsBase.metadata)
    keys = APIKeys(SQLAPIKeyStore(database.sessions, APIKey), prefix="shop", clock=clock)
    async with database.sessions() as session:
        await session.execute(select(APIKey.id))
        new = await keys.create("7", name="Key")
        await session.rollback()
    assert await is_valid(keys, new.key)


async def test_a_database_that_is_gone() -> None:
    """R45: while the database does not answer, no key is valid: that is a 503, not a login."""
    gone = Database(f"postgresql+asyncpg://postgres@127.0.0.1:{closed_port()}/test")
    keys = APIKeys(SQLAPIKeyStore(gone.sessions, APIKey), prefix="shop")
    with pytest.raises(UnavailableError):
        await keys.verify(f"shop_{'0' * 32}_{'0' * 64}")


def test_the_record() -> None:
    """R45: the table has a column for each field of the record, and no other."""
    assert {column.name for column in APIKey.__table__.columns} == {each.name for each in fields(APIKeyRecord)}


# --- Redis ---


async def test_processes_on_one_redis(clock: FrozenClock) -> None:
    """R45: a key that one process has created works in the others, and ends in all of them when one revokes it."""
    async with shared_prefix() as prefix:
        stores = [RedisAPIKeyStore(URL, prefix=prefix, timeout=PATIENT) for _ in range(2)]
        async with stores[0].lifespan(None), stores[1].lifespan(None):
            one, other = [APIKeys(store, prefix="shop", clock=clock) for store in stores]
            new = await one.create("7", name="Key")
            assert (await other.verify(new.key)).sub == "7"
            assert [key.last_used_at for key in await one.list("7")] == [clock()]

            results = await asyncio.gather(
                *(keys.revoke(new.info.id, subject="7") for keys in (one, other) * 10),
                *(keys.verify(new.key) for keys in (one, other) * 10),
                return_exceptions=True,
            )

            assert results[:20].count(None) == 1
            assert [await is_valid(keys, new.key) for keys in (one, other)] == [False, False]


async def test_logins_and_keys_with_one_prefix() -> None:
    """R45: keys and logins of one user may be on one Redis under one prefix, and end apart."""
    async with shared_prefix() as prefix:
        store, login_store = RedisAPIKeyStore(URL, prefix=prefix, timeout=PATIENT), RedisLoginStore(URL, prefix=prefix, timeout=PATIENT)
        async with store.lifespan(None), login_store.lifespan(None):
            keys, logins = APIKeys(store, prefix="shop"), StoredLogins(tokens, login_store)
            new = await keys.create("7", name="Key")
            await logins.start("7")
            await logins.end_all("7")
            assert await is_valid(keys, new.key)
            await logins.start("7")
            await keys.revoke_all("7")
            assert (len(await keys.list("7")), len(await logins.list_logins("7"))) == (0, 1)


async def test_redis_is_gone(tmp_path: Path) -> None:
    """R45: while Redis does not answer, no key is valid and none is created: that is a 503. Afterwards keys work again."""
    server = RedisServer(tmp_path)
    store = RedisAPIKeyStore(server.url, timeout=5)
    keys = APIKeys(store, prefix="shop")
    await server.start(dump=True)
    async with store.lifespan(None):
        try:
            new = await keys.create("7", name="Key")
            await server.stop()
            id = new.info.id
            attempts = [
                store.ping,
                lambda: keys.verify(new.key),
                lambda: keys.create("7", name="Other"),
                lambda: keys.list("7"),
                lambda: keys.revoke(id, subject="7"),
                lambda: keys.revoke_all("7"),
            ]
            for attempt in attempts:
                with pytest.raises(UnavailableError):
                    await attempt()
            await server.start(dump=True)
            assert (await keys.verify(new.key)).sub == "7"
            await keys.revoke(id, subject="7")
            assert not await is_valid(keys, new.key)
        finally:
            await server.stop()


async def test_nothing_is_left_on_redis(tmp_path: Path) -> None:
    """R45: nothing is left of the keys of a user that were revoked, and Redis has no secret."""
    server = RedisServer(tmp_path)
    store = RedisAPIKeyStore(server.url, timeout=5)
    keys = APIKeys(store, prefix="shop")
    await server.start()
    async with store.lifespan(None):
        try:
            first, second, _ = [await keys.create("7", name="Key") for _ in range(3)]
            await keys.verify(first.key)
            stored = await store._redis.ask(lambda client: client.hgetall(f"api_keys:key:{first.info.id}"))
            assert first.key[-64:] not in str(stored)
            await keys.revoke(second.info.id, subject="7")
            await keys.revoke_all("7")
            assert await store._redis.ask(lambda client: client.keys("*")) == []
        finally:
            await server.stop()


@pytest.mark.parametrize("url", ["http://x", "redis://:secret@x:port", "rediss://:secret@[::1", ""])
def test_a_wrong_url(url: str) -> None:
    """A URL that is none of Redis raises ConfigurationError, which shows no part of it."""
    with pytest.raises(ConfigurationError, match="redis://") as caught:
        RedisAPIKeyStore(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
