"""What all counters of attempts have in common, what the memory holds, and what happens without Redis."""

import asyncio
import logging
import sys
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from tests.ratelimit.counters import Seconds, limiter_on
from tests.redis_server import PATIENT, URL, RedisServer, loops_that_leave_connections
from tests.reliability.servers import closed_port
from tests.thorough import FULL

from fastapi_kit.errors import ConfigurationError, MissingExtraError, UnavailableError
from fastapi_kit.ratelimit import MemoryCounter, RateLimiter, client_key

KEYS = 10_000 if FULL else 2_000
"""How many keys the memory holds."""


@pytest.fixture(params=["memory", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def limiter(kind: str) -> AsyncIterator[RateLimiter]:
    async with limiter_on(kind) as limiter:
        yield limiter


async def waits(counter: RateLimiter | MemoryCounter, times: int, key: str = "a", *, limit: int = 3, window: float = 60) -> list[float]:
    return [await counter.hit(key, limit=limit, window=window) for _ in range(times)]


async def test_the_limit(limiter: RateLimiter) -> None:
    """Attempts within the limit pass. Later ones are told how long to wait, at most the window."""
    *passed, fourth, fifth = await waits(limiter, 5)

    assert passed == [0, 0, 0]
    assert 0 < fifth <= fourth <= 60


async def test_keys_do_not_share(limiter: RateLimiter) -> None:
    """Each key is counted alone."""
    await waits(limiter, 4, "a")

    assert await waits(limiter, 3, "b") == [0, 0, 0]


async def test_a_reset(limiter: RateLimiter) -> None:
    """After a reset a key starts anew, and other keys do not."""
    await waits(limiter, 4, "a")
    await waits(limiter, 4, "b")

    await limiter.reset("a")
    await limiter.reset("unknown")

    assert await waits(limiter, 3, "a") == [0, 0, 0]
    assert await limiter.hit("b", limit=3, window=60) > 0


async def test_fifty_at_once(limiter: RateLimiter) -> None:
    """Of fifty attempts at the same time as many pass as the limit allows."""
    found = await asyncio.gather(*(limiter.hit("a", limit=7, window=60) for _ in range(50)))

    assert found.count(0) == 7


async def test_the_end_of_the_window(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt passes again after the time that was said, and not before."""
    async with limiter_on(kind) as limiter:
        now = time.time()
        clock = "limits.aio.storage.redis.redispy.time.time" if kind == "redis" else "time.time"
        monkeypatch.setattr(clock, lambda: now)
        monkeypatch.setattr(limiter._memory, "_clock", lambda: now)
        wait = (await waits(limiter, 2, limit=1))[1]

        seen = list[float]()
        for later in (wait - 5, 10):
            now += later
            seen.append(await limiter.hit("a", limit=1, window=60))

    assert [round(each) for each in seen] == [5, 0]


@pytest.mark.parametrize("key", ["", "\0", "x" * 1_000_000, "\ud800", "a\r\nDEL *\r\n", "{a}", "é", "e\u0301", "../*"], ids=range(9))
async def test_hostile_keys(limiter: RateLimiter, key: str) -> None:
    """Any text is a key, and only that key is counted."""
    assert await waits(limiter, 1, "a", limit=1) == [0]
    first, second = await waits(limiter, 2, key, limit=1)
    await limiter.reset(key)

    assert (first, await limiter.hit(key, limit=1, window=60)) == (0, 0)
    assert second > 0


@pytest.mark.parametrize(("limit", "window"), [(0, 60), (-1, 60), (1, 0), (1, -1), (1, float("inf")), (1, float("nan"))])
async def test_an_impossible_limit(limiter: RateLimiter, limit: int, window: float) -> None:
    """A limit or a window that cannot be counted is a mistake of the application."""
    with pytest.raises(ConfigurationError):
        await limiter.hit("a", limit=limit, window=window)


def test_several_event_loops(kind: str) -> None:
    """The attempts of one event loop count in the next one, whether or not the first one was closed, and back in the first one."""

    async def attempt(limiter: RateLimiter) -> float:
        return await limiter.hit("loops", limit=4, window=60)

    async def close(limiter: RateLimiter) -> None:
        async with limiter.lifespan(None):
            await limiter.reset("loops")

    url = "memory://" if kind == "memory" else URL
    limiter = RateLimiter(url, prefix=f"fastapi_kit_tests_{uuid4().hex}:", timeout=PATIENT, fail_open=False)
    with loops_that_leave_connections():
        one, two = asyncio.new_event_loop(), asyncio.new_event_loop()
        found = [loop.run_until_complete(attempt(limiter)) for loop in (one, two, one)]
        one.close()
        two.close()
        del one, two
        found += [asyncio.run(attempt(limiter)) for _ in range(2)]
        asyncio.run(close(limiter))

    assert found[:4] == [0, 0, 0, 0]
    assert found[4] > 0


async def test_several_threads() -> None:
    """A counter in memory counts right from several threads, each with an event loop of its own."""
    counter, passed = MemoryCounter(), list[float]()

    def attempt() -> None:
        passed.extend(asyncio.run(waits(counter, 200, limit=100)))

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)

    assert passed.count(0) == 100


# --- The memory ---


async def test_the_window_moves() -> None:
    """Each attempt leaves the window on its own; an attempt that was rejected does not lengthen the wait."""
    clock = Seconds()
    counter = MemoryCounter(clock=clock)
    for _ in range(3):
        await counter.hit("a", limit=3, window=60)
        clock.now += 10

    seen = list[float]()
    for _ in range(4):
        seen.append(await counter.hit("a", limit=3, window=60))
        clock.now += 10

    assert seen == [30, 20, 10, 0]
    assert await counter.hit("a", limit=3, window=60) == 0


async def test_what_is_left() -> None:
    """A count says how many attempts are left, and when there is one more."""
    clock = Seconds()
    counter = MemoryCounter(clock=clock)
    seen = list[tuple[float, int, float]]()
    for _ in range(3):
        count = await counter.count("a", limit=2, window=60)
        seen.append((count.wait, count.left, count.resets_in))
        clock.now += 5

    assert seen == [(0, 1, 60), (0, 0, 55), (50, 0, 50)]


@pytest.mark.only_full
async def test_a_flood_of_keys() -> None:
    """Ten times as many keys as fit, some of them huge, take a bounded memory, and none when their windows are over."""
    clock = Seconds()
    counter = MemoryCounter(max_keys=KEYS, clock=clock)
    tracemalloc.start()
    try:
        for number in range(10 * KEYS):
            await counter.hit(f"{number}{'x' * (number % 500)}", limit=10, window=60)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(counter) == KEYS
    assert size < 1000 * KEYS
    clock.now += 61
    assert await counter.hit("a", limit=10, window=60) == 0
    assert len(counter) == 1


async def test_the_oldest_keys_go_first() -> None:
    """If there are too many keys, the one that was counted last the longest time ago is forgotten."""
    counter = MemoryCounter(max_keys=3)
    for key in ("a", "b", "c", "a", "d"):
        await counter.hit(key, limit=2, window=60)

    assert await counter.hit("a", limit=2, window=60) > 0
    assert await counter.hit("b", limit=1, window=60) == 0


async def test_the_limit_changes() -> None:
    """A smaller limit counts at once, also over attempts that a larger one has let pass."""
    clock = Seconds()
    counter = MemoryCounter(clock=clock)
    for _ in range(10):
        await counter.hit("a", limit=10, window=60)
        clock.now += 1

    assert await counter.hit("a", limit=2, window=60) == 58


async def test_clear() -> None:
    """A counter can be emptied between tests."""
    counter = MemoryCounter()
    await waits(counter, 4)

    counter.clear()

    assert await waits(counter, 3) == [0, 0, 0]


def test_no_room() -> None:
    """A counter needs room for one key."""
    with pytest.raises(ConfigurationError):
        MemoryCounter(max_keys=0)


# --- Redis ---


async def test_two_processes_share() -> None:
    """Two limiters on one Redis count together. Its keys are short, hold nothing of what is counted, and expire."""
    prefix = f"fastapi_kit_tests_{closed_port()}:"
    one, two = (RateLimiter(URL, prefix=prefix, timeout=PATIENT) for _ in range(2))
    client = Redis.from_url(URL)
    async with one.lifespan(None), two.lifespan(None):
        try:
            found = [await each.hit("ann@example.com" * 100, limit=3, window=60.5) for each in (one, two, one, two)]

            (name,) = [key async for key in client.scan_iter(f"{prefix}*")]
            assert (found[:3], found[3] > 0) == ([0, 0, 0], True)
            assert b"ann" not in name
            assert len(name) == len(prefix) + 32
            assert 0 < await client.pttl(name) <= 61_000
        finally:
            await one.reset("ann@example.com" * 100)
            await client.aclose()


async def test_redis_is_stopped_and_started(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """While Redis is gone each process counts for itself, and the log has one line. When it is back Redis counts again."""
    monkeypatch.setattr("fastapi_kit.ratelimit.limiter.PAUSE", 0.0)
    server = RedisServer(tmp_path)
    limiter = RateLimiter(server.url, timeout=5)
    await server.start()
    async with limiter.lifespan(None):
        try:
            assert [wait > 0 for wait in await waits(limiter, 2, limit=1)] == [False, True]
            await server.stop()
            assert [wait > 0 for wait in await waits(limiter, 5, limit=1)] == [False, *(4 * [True])]
            await limiter.reset("a")
            assert [wait > 0 for wait in await waits(limiter, 2, limit=1)] == [False, True]
            with pytest.raises(UnavailableError):
                await limiter.ping()
            await server.start()
            assert [wait > 0 for wait in await waits(limiter, 2, limit=1)] == [False, True]
        finally:
            await server.stop()

    lines = [record.getMessage() for record in caplog.records if record.name == "fastapi_kit.ratelimit"]
    assert [line.partition(":")[0].partition(" (")[0] for line in lines] == ["Redis does not answer", "Redis answers again"]
    assert str(server.port) not in caplog.text


async def test_closed_without_redis(caplog: pytest.LogCaptureFixture) -> None:
    """With ``fail_open=False`` an attempt that cannot be counted is a 503, also while nothing asks Redis."""
    caplog.set_level(logging.WARNING)
    limiter = RateLimiter(f"redis://127.0.0.1:{closed_port()}", fail_open=False)

    for _ in range(3):
        with pytest.raises(UnavailableError):
            await limiter.hit("a", limit=1, window=60)
    with pytest.raises(UnavailableError):
        await limiter.reset("a")
    assert len(caplog.records) == 1


async def test_a_redis_that_hangs() -> None:
    """A server that accepts a connection and says nothing holds up one attempt for the timeout, and the next ones not at all."""
    held = list[asyncio.StreamWriter]()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    limiter = RateLimiter(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=0.2)
    try:
        async with asyncio.timeout(10), limiter.lifespan(None):
            assert (await waits(limiter, 1000, limit=600)).count(0) == 600
    finally:
        for writer in held:
            writer.close()
        server.close()
    assert len(held) <= 2


@pytest.mark.parametrize("url", ["http://x", "redis://:secret@x:port", "", "memory"])
def test_a_wrong_url(url: str) -> None:
    """A URL that is none of Redis raises ConfigurationError, which shows no part of it."""
    with pytest.raises(ConfigurationError, match="redis://") as caught:
        RateLimiter(url)
    assert "secret" not in str(caught.value)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the error names the extra. A counter in memory needs none."""
    monkeypatch.setitem(sys.modules, "limits", None)

    with pytest.raises(MissingExtraError, match="ratelimit"):
        RateLimiter()
    MemoryCounter()


# --- Who is counted ---


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("192.0.2.7:50124", "192.0.2.7"),
        ("[2001:db8:1:2:3:4:5:6]:50124", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2:3:4:5:6]", "2001:db8:1:2::/64"),
        ("[::ffff:192.0.2.7]:50124", "192.0.2.7"),
        ("192.0.2.7:port", "192.0.2.7:port"),
        ("300.0.2.7:50124", "300.0.2.7:50124"),
        ("[name]:50124", "[name]:50124"),
        ("unix:socket", "unix:socket"),
        ("", ""),
        (None, ""),
    ],
)
def test_a_client(address: str | None, key: str) -> None:
    """IPv4 clients are counted by address, IPv6 clients by network, because one client has 2**64 addresses there."""
    assert client_key(address) == key


def test_no_two_networks_are_one() -> None:
    """Neighbouring networks have different keys."""
    keys = [client_key(f"2001:db8::{number:x}:0:0:0:1") for number in range(1, 20)]

    assert all(one != two for one, two in pairwise(keys))
