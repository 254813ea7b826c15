"""Waiting that does not end well: an empty pool, locks, deadlocks, lost races, timeouts of the server, a server that freezes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from httpx import Response
from sqlalchemy import URL
from tests.reliability.aside import Aside
from tests.reliability.proxy import Fault, Proxy, proxied
from tests.reliability.sites import ACTIONS, KINDS, Site, assert_unavailable, open_site

SetDefault = Callable[[str, str], Awaitable[None]]


@asynccontextmanager
async def locked(aside: Aside) -> AsyncGenerator[None]:
    """Hold a lock on the table, which readers wait for too."""
    async with aside.database.engine.begin() as connection:
        await connection.exec_driver_sql("LOCK TABLE tags")
        yield


@pytest.fixture
async def set_default(aside: Aside) -> AsyncIterator[SetDefault]:
    """Set a default of the server's for new connections to the database."""
    names: list[str] = []

    async def change(name: str, value: str) -> None:
        names.append(name)
        await aside.run(f"ALTER DATABASE {aside.database.engine.url.database} SET {name} = '{value}'")

    yield change
    async with aside.database.engine.begin() as connection:
        await connection.exec_driver_sql("SET LOCAL transaction_read_only = off")
        for name in names:
            await connection.exec_driver_sql(f"ALTER DATABASE {aside.database.engine.url.database} RESET {name}")


# --- The pool. ---


@pytest.mark.only_full
@pytest.mark.parametrize("kind", KINDS)
async def test_one_connection_for_many_requests(server: URL, aside: Aside, kind: str) -> None:
    """While the only connection waits for a lock, all others are answered 503 in time; then everything works again."""
    async with open_site(kind, server, pool_size=1, max_overflow=0, pool_timeout=0.1, command_timeout=1.5) as site:
        async with locked(aside):
            answers = await asyncio.gather(*(site.act(action) for action in ACTIONS * 3))
        out = site.checked_out
        again = [await site.act(action, name=action) for action in ("list", "create", "update", "delete")]

    for answer in answers:
        assert_unavailable(answer)
    assert out == 0
    assert all(answer.is_success for answer in again)


@pytest.mark.only_full
@pytest.mark.parametrize("kind", KINDS)
async def test_two_hundred_requests_for_five_connections(server: URL, aside: Aside, kind: str) -> None:
    """None waits for ever, none is a 500, none keeps its connection."""
    async with open_site(kind, server, pool_size=5, max_overflow=0, pool_timeout=0.2, command_timeout=1.5) as site:
        async with locked(aside):
            answers = await asyncio.gather(*(site.act("list") for _ in range(200)))
        out = site.checked_out
        again = [await site.act("list") for _ in range(6)]

    assert {answer.status_code for answer in answers} == {503}
    assert out == 0
    assert {answer.status_code for answer in again} == {200}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_that_waited_long_enough_is_served(server: URL, aside: Aside, kind: str) -> None:
    """Where a lock is released in time, all the requests that queued for the one connection are served."""
    async with open_site(kind, server, pool_size=1, max_overflow=0) as site:
        async with locked(aside):
            requests = [asyncio.create_task(site.act("create", name=f"tag {number}")) for number in range(10)]
            await aside.until_waiting()
        answers = await asyncio.gather(*requests)

    assert {answer.status_code for answer in answers} == {201}
    assert len(await aside.names()) == 11


# --- Locks and races. ---


async def both_at_once(site: Site) -> list[Response]:
    """Send two transactions that write the same two rows, in opposite order; each has written its first before either goes on."""
    barrier = asyncio.Barrier(2)
    site.hooks.between = barrier.wait
    return list(await asyncio.gather(site.act("move", key=0), site.act("move", key=-1)))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_deadlock(server: URL, aside: Aside, set_default: SetDefault, kind: str) -> None:
    """One of the two wins, the other is a 503 of which nothing is left."""
    await set_default("deadlock_timeout", "10ms")
    async with open_site(kind, server) as site:
        answers = sorted(await both_at_once(site), key=lambda answer: answer.status_code)
        out = site.checked_out

    assert answers[0].status_code == 204
    assert_unavailable(answers[1])
    assert out == 0
    assert sorted(await aside.column("SELECT weight FROM tags")) == [10, 20]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_lost_race(server: URL, aside: Aside, set_default: SetDefault, kind: str, level: str) -> None:
    """A row that another transaction changed meanwhile is a 503 at these levels (40001), and nothing is half-written."""
    await set_default("default_transaction_isolation", level)
    async with open_site(kind, server) as site:
        site.hooks.between = lambda: aside.run("UPDATE tags SET weight = 5 WHERE id = -1")
        answer = await site.act("move")
        out = site.checked_out

    assert_unavailable(answer)
    assert out == 0
    assert sorted(await aside.column("SELECT weight FROM tags")) == [1, 5]


async def test_reading_does_not_lose_the_isolation_level(server: URL, aside: Aside, set_default: SetDefault) -> None:
    """After a read of the library the next transaction has the isolation level that the server is configured for."""
    await set_default("default_transaction_isolation", "serializable")
    async with open_site("kit", server, pool_size=1, max_overflow=0) as site:
        await site.act("list")
        site.hooks.between = lambda: aside.run("UPDATE tags SET weight = 5 WHERE id = -1")
        answer = await site.act("move")

    assert_unavailable(answer)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("action", ["create", "list", "pair"])
async def test_a_lock_timeout(server: URL, aside: Aside, set_default: SetDefault, kind: str, action: str) -> None:
    """A lock that is not granted in time is a 503 (55P03)."""
    await set_default("lock_timeout", "30ms")
    async with open_site(kind, server) as site:
        async with locked(aside):
            answer = await site.act(action)
        out = site.checked_out
        again = await site.act(action)

    assert_unavailable(answer)
    assert (out, again.is_success) == (0, True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("action", ["create", "list", "pair"])
async def test_a_statement_timeout(server: URL, aside: Aside, kind: str, action: str) -> None:
    """A statement that the server stops is a 503 (57014), and the connection lives on."""
    async with open_site(kind, server, statement_timeout=0.1, pool_size=1, max_overflow=0) as site:
        await site.act("list")
        before = await aside.backends()
        async with locked(aside):
            answer = await site.act(action)
        out = site.checked_out
        again = await site.act(action)
        after = await aside.backends()

    assert_unavailable(answer)
    assert (out, again.is_success) == (0, True)
    assert after == before


@pytest.mark.parametrize("kind", KINDS)
async def test_a_statement_that_is_cancelled(server: URL, aside: Aside, kind: str) -> None:
    """``pg_cancel_backend`` by an operator is a 503 (57014)."""
    async with open_site(kind, server) as site:
        async with locked(aside):
            request = asyncio.create_task(site.act("create"))
            process = await aside.until_waiting()
            await aside.run(f"SELECT pg_cancel_backend({process})")
            answer = await request
        out = site.checked_out

    assert_unavailable(answer)
    assert out == 0
    assert await aside.names() == ["old"]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_idle_transaction_timeout(server: URL, aside: Aside, set_default: SetDefault, kind: str) -> None:
    """A transaction that the server ends because nothing happens in it is a 503 (25P03), and is undone."""
    await set_default("idle_in_transaction_session_timeout", "30ms")

    async def dawdle() -> None:
        await aside.until("SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE state = 'idle in transaction')")

    async with open_site(kind, server) as site:
        site.hooks.between = dawdle
        answer = await site.act("move")
        out = site.checked_out

    assert_unavailable(answer)
    assert out == 0
    assert await aside.column("SELECT weight FROM tags") == [1, 1]


# --- A standby, or a primary that became one. ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("action", ["create", "delete", "pair"])
async def test_a_read_only_database(server: URL, aside: Aside, set_default: SetDefault, kind: str, action: str) -> None:
    """After a failover a write is a 503 (25006) until it reaches the primary; reads are served."""
    await set_default("default_transaction_read_only", "on")
    async with open_site(kind, server) as site:
        read, answer = await site.act("list"), await site.act(action)
        out = site.checked_out

    assert read.status_code == 200
    assert_unavailable(answer)
    assert out == 0


# --- A server that freezes. ---


FREEZES = [Fault.FREEZE, Fault.FREEZE_ALL, Fault.FREEZE_ANSWER]


@pytest.mark.only_full
@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_freezes_at_any_statement(server: URL, aside: Aside, kind: str) -> None:
    """The socket stays open and nothing answers: a 503, and the pool is whole again."""

    async def frozen(site: Site, proxy: Proxy, fault: Fault, action: str, number: int) -> Response | None:
        proxy.arm(fault, at=number)
        answer = await site.act(action, name=f"{fault.name}-{number}")
        struck = proxy.struck.is_set()
        proxy.arm()
        assert (await site.act("get")).status_code == 200
        assert site.checked_out == 0
        return answer if struck else None

    places = [("get", 1), ("pair", 1), ("pair", 2), ("pair", 3), ("pair", 4), ("pair", 8)]
    runs = [(fault, action, number) for fault in FREEZES for action, number in places]
    async with AsyncExitStack() as stack:
        # Started one after the other, so that none waits for its database because others start.
        sites = [await stack.enter_async_context(behind_proxy(kind, server, command_timeout=1.5)) for _ in runs]
        answers = await asyncio.gather(
            *(frozen(*site, fault, action, number) for site, (fault, action, number) in zip(sites, runs, strict=True))
        )

    struck = [answer for answer in answers if answer is not None]
    assert len(struck) >= len(FREEZES) * 5
    for answer in struck:
        assert_unavailable(answer)
    stored = (await aside.names())[1:]
    assert len(stored) == 2 * len({name.split()[0] for name in stored})


@asynccontextmanager
async def behind_proxy(kind: str, server: URL, *, command_timeout: float) -> AsyncGenerator[tuple[Site, Proxy]]:
    """Start an app behind a proxy of its own, with one connection in its pool."""
    async with proxied(server) as proxy, open_site(kind, proxy.url, command_timeout=command_timeout) as site:
        await site.act("list")
        yield site, proxy


async def test_a_frozen_server_is_waited_for_once(server: URL, aside: Aside) -> None:
    """A socket that did not answer is not asked for a ROLLBACK: the answer comes after one command timeout, not after two."""

    async def in_time(site: Site, proxy: Proxy, fault: Fault, action: str) -> bool:
        proxy.arm(fault, at=2)
        request = asyncio.create_task(site.act(action))
        done, _ = await asyncio.wait({request}, timeout=3.6)
        assert_unavailable(await request)
        return done == {request}

    runs = [(fault, action) for fault in FREEZES for action in ("list", "create")]
    async with AsyncExitStack() as stack:
        sites = [await stack.enter_async_context(behind_proxy("kit", server, command_timeout=2.0)) for _ in runs]
        answered = await asyncio.gather(*(in_time(*site, *run) for site, run in zip(sites, runs, strict=True)))

    assert [run for run, soon in zip(runs, answered, strict=True) if not soon] == []


@pytest.mark.only_full
@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_that_freezes_while_it_is_made(server: URL, kind: str, proxy: Proxy) -> None:
    """A login that is not answered is given up after the pool's timeout."""
    async with open_site(kind, proxy.url, pool_timeout=1) as site:
        await site.engine.dispose()
        proxy.arm(Fault.FREEZE, at=1)
        async with asyncio.timeout(10):
            answer = await site.act("create")
        proxy.arm()
        again = await site.act("create")

    assert_unavailable(answer)
    assert again.status_code == 201
