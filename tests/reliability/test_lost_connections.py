"""The connection is lost: at every statement of a request in turn, between requests, and by a restart of the server."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from httpx import AsyncClient, Response
from sqlalchemy import URL, event
from tests.reliability.aside import Aside, eventually
from tests.reliability.proxy import Fault, Proxy, proxied
from tests.reliability.sites import ACTIONS, KINDS, Site, assert_unavailable, open_site

CUTS = {
    ("kit", "asyncpg"): [Fault.CUT, Fault.RESET, Fault.CUT_ANSWER],
    ("mixed", "asyncpg"): [Fault.CUT, Fault.CUT_ANSWER],
    ("by hand", "asyncpg"): [Fault.CUT, Fault.CUT_ANSWER],
    ("kit", "psycopg"): [Fault.CUT],
}
DONE = {"create": ["old", "new"], "pair": ["old", "new 1", "new 2"], "update": ["new"], "delete": []}
"""What the tags are called after each write."""


async def statements_of(site: Site, proxy: Proxy, action: str) -> int:
    """Return how many statements the request sends."""
    proxy.arm()
    answer = await site.act(action)
    assert answer.is_success
    return len(proxy.statements)


def assert_whole(action: str, answer: Response, stored: list[str]) -> None:
    """Check that the request was done or not done; and done, if it says so."""
    assert stored in (["old"], DONE.get(action, ["old"]))
    if answer.is_success:
        assert stored == DONE.get(action, ["old"])
    else:
        assert_unavailable(answer)


@pytest.mark.parametrize(("kind", "driver"), CUTS)
@pytest.mark.parametrize("action", ACTIONS)
async def test_a_connection_cut_at_every_statement(proxy: Proxy, aside: Aside, kind: str, action: str, driver: str) -> None:
    """Whichever statement the connection dies at, the answer is a 503, or the request is done; the next request works."""
    async with open_site(kind, proxy.url.set(drivername=f"postgresql+{driver}")) as site:
        for fault in CUTS[kind, driver]:
            await aside.start_over()
            await site.act("list")
            for number in range(1, await statements_of(site, proxy, action) + 1):
                await aside.start_over()
                assert (await site.act("list")).status_code == 200
                proxy.arm(fault, at=number)

                answer = await site.act(action)
                assert proxy.struck.is_set()
                proxy.arm()

                stored = await aside.names()
                assert_whole(action, answer, stored)
                assert site.checked_out == 0
                if kind != "by hand" and not fault.is_done:
                    # The library sends nothing after the COMMIT: what was not acknowledged was not stored.
                    assert answer.is_success == (stored == DONE.get(action)) or action in {"list", "get"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("action", ACTIONS)
async def test_a_new_connection_cut(proxy: Proxy, aside: Aside, kind: str, action: str) -> None:
    """A connection that dies at the login, or at the first statement after it, is a 503."""
    async with open_site(kind, proxy.url) as site:
        for number in (1, 2):
            await site.engine.dispose()
            proxy.arm(Fault.CUT, at=number)

            answer = await site.act(action)
            assert proxy.struck.is_set()
            proxy.arm()

            assert_unavailable(answer)
            assert (site.checked_out, await aside.names()) == (0, ["old"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("action", ["list", "pair", "update"])
async def test_a_backend_killed_at_every_statement(proxy: Proxy, aside: Aside, kind: str, action: str) -> None:
    """``pg_terminate_backend`` between any two statements of a request is a 503, and what came before is undone."""
    async with open_site(kind, proxy.url) as site:
        await site.act("list")
        for number in range(1, await statements_of(site, proxy, action) + 1):
            await aside.start_over()
            assert (await site.act("list")).status_code == 200
            proxy.arm(Fault.HOLD, at=number)
            request = asyncio.create_task(site.act(action))
            await proxy.struck.wait()
            await aside.kill()
            proxy.released.set()

            answer = await request

            assert_whole(action, answer, await aside.names())
            assert site.checked_out == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("action", ["create", "update", "delete", "move"])
async def test_a_backend_killed_in_a_statement(server: URL, aside: Aside, kind: str, action: str) -> None:
    """Killed while it works, it is a 503 and nothing is stored; the next request gets a new connection."""
    async with open_site(kind, server) as site:
        async with aside.database.engine.begin() as blocker:
            await blocker.exec_driver_sql("LOCK TABLE tags IN EXCLUSIVE MODE")
            request = asyncio.create_task(site.act(action))
            process = await aside.until_waiting()
            await aside.kill(process)
            answer = await request
        out = site.checked_out
        again = await site.act(action)

    assert_unavailable(answer)
    assert out == 0
    assert again.is_success


@pytest.mark.parametrize("kind", KINDS)
async def test_a_backend_killed_between_two_writes(server: URL, aside: Aside, kind: str) -> None:
    """Of a transaction whose backend dies between its two writes nothing is left."""
    async with open_site(kind, server) as site:
        site.hooks.between = aside.kill
        answer = await site.act("move")
        out = site.checked_out

    assert_unavailable(answer)
    assert out == 0
    assert await aside.column("SELECT weight FROM tags") == [1, 1]


@pytest.mark.parametrize("path", ["/attempts", "/loose-attempts"])
@pytest.mark.parametrize("kind", ["kit", "mixed"])
async def test_a_transaction_that_lost_its_connection_writes_no_more(server: URL, aside: Aside, kind: str, path: str) -> None:
    """A handler that goes on after the loss stores nothing: what came before in the transaction is gone, so what comes after must be."""
    async with open_site(kind, server) as site:
        site.hooks.between = aside.kill
        answer = await site.client.post(path, json={"first": "first", "attempted": "attempted", "last": "last"})
        out = site.checked_out

    assert not answer.is_success
    assert (out, await aside.names()) == (0, ["old"])


# --- Between requests. ---


@asynccontextmanager
async def pooled(site: Site) -> AsyncGenerator[Callable[[], Awaitable[None]]]:
    """Fill the pool with three connections; yield what waits until the driver has noticed that they are closed."""
    connections: list[Any] = []

    def note(connection: Any, _record: object) -> None:
        connections.append(connection.driver_connection)

    async def all_closed() -> bool:
        return all(connection.is_closed() for connection in connections)

    async def noticed() -> None:
        await eventually(all_closed)

    await site.engine.dispose()
    event.listen(site.engine.sync_engine, "connect", note)
    async with site.engine.connect(), site.engine.connect(), site.engine.connect():
        pass
    assert len(connections) == 3
    yield noticed


async def test_connections_that_die_in_the_pool_cost_no_request(server: URL, aside: Aside) -> None:
    """The driver knows that an idle connection was closed, so no request is given one."""
    async with open_site("kit", server) as site, pooled(site) as noticed:
        await aside.kill()
        await noticed()
        statuses = [(await site.act("list")).status_code for _ in range(4)]

    assert statuses == [200] * 4


@pytest.mark.parametrize("kind", ["mixed", "by hand"])
async def test_connections_that_die_in_the_pool_of_the_application_cost_one_request(server: URL, aside: Aside, kind: str) -> None:
    """An engine of the application finds out by a 503, one for the whole pool."""
    async with open_site(kind, server) as site, pooled(site) as noticed:
        await aside.kill()
        await noticed()
        first, *others = [await site.act("list") for _ in range(4)]

    assert_unavailable(first)
    assert [answer.status_code for answer in others] == [200] * 3


@pytest.mark.only_full
@pytest.mark.parametrize("fault", [Fault.CUT, Fault.RESET, Fault.FREEZE])
async def test_an_idle_connection_that_is_found_dead_costs_no_request(proxy: Proxy, aside: Aside, fault: Fault) -> None:
    """The ping after idle time replaces a connection that has died or that a firewall has silently dropped; the request is served."""
    async with open_site("kit", proxy.url, ping_after_idle=-1.0, command_timeout=1) as site:
        await site.act("list")
        proxy.arm(fault, at=1)

        answer = await site.act("list")

    assert proxy.struck.is_set()
    assert answer.status_code == 200


@pytest.mark.only_full
@pytest.mark.parametrize("kind", KINDS)
async def test_a_restart_under_load(server: URL, aside: Aside, kind: str) -> None:
    """Every request that meets the restart is a 503 or done, what is acknowledged is stored, and the first one afterwards works."""
    async with proxied(server) as proxy:
        url, port = proxy.url, proxy.url.port
        assert port is not None
        context = open_site(kind, url, pool_size=5, max_overflow=0)
        site = await context.__aenter__()
        try:
            # All connections are open, so one of the five has sent at least twelve of the statements: more than one request needs.
            await asyncio.gather(*(site.act("create", name=f"warm {number}") for number in range(5)))
            proxy.arm(Fault.HOLD, at=60)
            load = [asyncio.create_task(site.act("create", name=f"tag {number}")) for number in range(30)]
            await proxy.struck.wait()
        except BaseException:
            await context.__aexit__(None, None, None)
            raise
    try:
        answers = await asyncio.gather(*load)
        rejected = await site.act("create", name="rejected")
        async with proxied(server, port=port):
            first = await site.act("create", name="first")
        out = site.checked_out
    finally:
        await context.__aexit__(None, None, None)

    stored = await aside.names()
    assert {answer.status_code for answer in answers} == {201, 503}
    assert_unavailable(rejected)
    for number, answer in enumerate(answers):
        if answer.is_success:
            assert f"tag {number}" in stored
        else:
            assert_unavailable(answer)
    assert (first.status_code, out) == (201, 0)


# --- What the client's connection sees. ---


@pytest.mark.parametrize("kind", KINDS)
async def test_the_clients_connection_stays_open(proxy: Proxy, aside: Aside, kind: str) -> None:
    """Under a real server a 503 does not cost the client its keep-alive connection."""
    uvicorn = pytest.importorskip("uvicorn")
    async with open_site(kind, proxy.url) as site:
        await site.act("list")
        with socket.create_server(("127.0.0.1", 0)) as listening:
            server = uvicorn.Server(uvicorn.Config(site.app, lifespan="off", log_config=None))
            serving = asyncio.create_task(server.serve([listening]))
            async with AsyncClient(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}") as client:
                proxy.arm(Fault.CUT, at=2)
                answers = [await client.post("/tags", json={"name": name}) for name in ("one", "two")]
                addresses = {answer.extensions["network_stream"].get_extra_info("client_addr") for answer in answers}
            server.should_exit = True
            await serving

    assert_unavailable(answers[0])
    assert answers[1].status_code == 201
    assert len(addresses) == 1
