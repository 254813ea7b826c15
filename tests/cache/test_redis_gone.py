"""A Redis that is stopped, started, frozen or locked: the cache behaves as if empty, and says so once."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest
from fastapi import FastAPI
from redis.asyncio import Redis
from tests.cache.test_cache import Source, reading
from tests.redis_server import PATIENT, RedisServer, answers
from tests.reliability.aside import eventually
from tests.reliability.servers import closed_port

from fastapi_kit.cache import Cache
from fastapi_kit.errors import UnavailableError
from fastapi_kit.health import HealthCheck, health_router
from fastapi_kit.testing import app_client

PASSWORD = "hush-4711"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    server = RedisServer(tmp_path, password=PASSWORD)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def cache(server: RedisServer) -> AsyncIterator[Cache]:
    cache = Cache(server.url, timeout=PATIENT)
    async with cache.lifespan(None):
        yield cache


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_stopped_redis_counts_as_empty(server: RedisServer, cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    """Every call loads, nothing is raised, and one warning is logged; it is kept again when Redis is back, with one more."""
    source = Source()
    read = reading(cache, source)
    await read()
    await server.stop()

    assert [await read() for _ in range(5)] == ["old"] * 5
    await cache.delete("key")
    await cache.clear()
    await cache.clear("k")
    with pytest.raises(UnavailableError):
        await cache.ping()
    assert source.loads == 6
    assert len(warnings_in(caplog)) == 1
    assert warnings_in(caplog)[0].startswith("the cache is gone")

    await server.start()
    await eventually(lambda: answers(cache))
    assert [await read(), await read()] == ["old", "old"]
    assert source.loads == 7
    assert warnings_in(caplog)[1:] == ["the cache is back"]
    assert PASSWORD not in caplog.text
    assert str(server.port) not in caplog.text


async def test_what_could_not_be_dropped_is_dropped_when_redis_is_back(server: RedisServer, cache: Cache) -> None:
    """A Redis that comes back with its entries, as from a snapshot, does not show what was deleted while it was gone."""
    await server.stop()
    await server.start(dump=True)
    await eventually(lambda: answers(cache))
    source = Source()
    read = reading(cache, source)
    await read("a")
    await read("b")
    await server.stop()

    source.value = "new"
    await cache.delete("a")
    await server.start(dump=True)
    await eventually(lambda: answers(cache))

    assert (await read("a"), await read("b")) == ("new", "old")


async def test_many_drops_that_could_not_be_made_drop_everything(
    server: RedisServer, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is owed is bounded: beyond that, all entries go."""
    monkeypatch.setattr("fastapi_kit.cache.store.MOST_OWED", 3)
    await server.stop()
    await server.start(dump=True)
    await eventually(lambda: answers(cache))
    source = Source()
    read = reading(cache, source)
    await read("a")
    await server.stop()

    source.value = "new"
    for number in range(5):
        await cache.delete(f"other {number}")
    await server.start(dump=True)
    await eventually(lambda: answers(cache))

    assert await read("a") == "new"


async def test_a_missing_redis_is_not_waited_for_each_time(caplog: pytest.LogCaptureFixture) -> None:
    """A server that accepts connections and never answers costs one timeout; then calls go on at once."""
    held: list[asyncio.StreamWriter] = []

    async def freeze(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    frozen = await asyncio.start_server(freeze, "127.0.0.1", 0)
    port = frozen.sockets[0].getsockname()[1]
    cache, source = Cache(f"redis://127.0.0.1:{port}"), Source()
    read, before = reading(cache, source), monotonic()
    try:
        async with cache.lifespan(None):
            await read()
            once = monotonic() - before
            for _ in range(100):
                await read()
            assert once > 0.2
            assert monotonic() - before < once + 0.5
            assert source.loads == 101
            assert len(warnings_in(caplog)) == 1
    finally:
        frozen.close()
        for writer in held:
            writer.close()


async def test_a_wrong_password_is_not_shown(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """A Redis that rejects the login counts as gone; the log has the class of the error."""
    caplog.set_level(logging.DEBUG)
    cache, source = Cache(server.url.replace(PASSWORD, "wrong-4712"), timeout=PATIENT), Source()
    async with cache.lifespan(None):
        assert await reading(cache, source)() == "old"
        with pytest.raises(UnavailableError) as caught:
            await cache.ping()

    assert "wrong-4712" not in caplog.text + str(caught.value) + repr(cache)
    assert [text for text in warnings_in(caplog) if "AuthenticationError" in text] == warnings_in(caplog)


async def test_a_full_redis_serves_what_it_has(server: RedisServer, cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    """What it has no room for is loaded each time; one warning is logged, however long it is full."""
    kept, new = Source(), Source()
    await reading(cache, kept)("kept")
    async with Redis.from_url(server.url) as administrator:
        await administrator.config_set("maxmemory", "1")
        for _ in range(5):
            await reading(cache, kept)("kept")
            await reading(cache, new)("new")
        assert (kept.loads, new.loads) == (1, 5)
        await cache.delete("kept")
        await reading(cache, kept)("kept")
        assert kept.loads == 2
        assert len(warnings_in(caplog)) == 1
        assert "rejects commands (OutOfMemoryError)" in warnings_in(caplog)[0]

        await administrator.config_set("maxmemory", "0")
        for _ in range(2):
            await reading(cache, new)("new")
        assert new.loads == 6


async def test_the_application_starts_and_reports(server: RedisServer) -> None:
    """The app serves without Redis, and /health says that it is degraded."""
    cache = Cache(f"redis://127.0.0.1:{closed_port()}")
    app = FastAPI(lifespan=cache.lifespan)
    app.include_router(health_router(version="1", checks=[HealthCheck("cache", cache.ping, critical=False)]))

    async with app_client(app) as client:
        answer = await client.get("/health")

    assert answer.status_code == 200
    assert answer.json() == {"status": "degraded", "version": "1", "checks": {"cache": "failed"}}
