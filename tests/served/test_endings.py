"""The servers end as they should: requests in flight are finished, and no request meets a closed connection."""

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.served.servers import PATIENCE, Command, Connection, Server, fastapi_run, gunicorn, until, uvicorn
from tests.served.sites import Site, ask, site
from tests.thorough import few

NEVER = "3600"
"""Seconds of SHUTDOWN_DRAIN_SECONDS that no test waits for: a second signal ends them."""

OLD, NEW = uvicorn("--http", "h11", "--loop", "asyncio"), uvicorn("--http", "httptools", "--loop", "uvloop")


def label(value: tuple[Command, str]) -> str:
    return " on ".join(map(str, value))


async def status(connection: Connection, path: str) -> int | None:
    answer = await connection.get(path)
    return answer.status if answer else None


async def not_ready(connection: Connection) -> None:
    """Wait until the app says that it is not ready, on this connection."""
    found: int | None = 200
    async with asyncio.timeout(PATIENCE):
        while found == 200:
            found = await status(connection, "/readyz")
    assert found == 503


async def serves_new_connections(server: Server) -> None:
    # uvicorn checks every 0.1 s whether it must stop: if it had to, it would not accept connections by now.
    await asyncio.sleep(0.3)
    async with Connection.to(server) as connection:
        await not_ready(connection)
        assert await status(connection, "/livez") == 200
    async with server.client() as client:
        assert (await client.post("/notes", json={"title": "meanwhile"})).status_code == 201


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Site:
    return site(request, *request.param)


IN_FLIGHT = [
    (OLD, "sqlite"),
    (gunicorn(workers=2), "postgresql"),
    (NEW, "postgresql"),
    (fastapi_run(), "sqlite"),
    (uvicorn(workers=2), "postgresql"),
]


@pytest.mark.parametrize("place", few(IN_FLIGHT), ids=label, indirect=True)
async def test_requests_in_flight_are_finished(place: Site, tmp_path: Path) -> None:
    """From SIGTERM on the app is not ready; what is in flight is answered and committed; the server ends by itself."""
    async with (
        place.open(tmp_path, SHUTDOWN_DRAIN_SECONDS=NEVER) as (server, url),
        Connection.to(server) as kept,
        server.client() as client,
    ):
        held = asyncio.create_task(client.post("/held", json={"title": "held"}))
        streamed = asyncio.create_task(client.post("/stream", json={"title": "streamed"}))
        await server.holds("held")
        await server.holds("streamed")
        assert await status(kept, "/readyz") == 200

        server.send(signal.SIGTERM)
        await not_ready(kept)
        if server.command.drains:
            await serves_new_connections(server)
            server.send_workers(signal.SIGTERM)
        await server.logs("hutting down", times=server.command.workers)
        server.release("held")
        server.release("streamed")

        assert (await held).status_code == 201
        assert ((await streamed).status_code, (await streamed).text) == (200, "begin end")
        assert await server.ended() == server.command.exit_code
        assert server.alarms == []
        assert {"held", "streamed"} <= set(await ask(url, "SELECT title FROM notes"))
        assert await place.connections(url) == 0


@pytest.mark.only_full
@pytest.mark.parametrize("command", few([NEW, OLD]), ids=str)
async def test_the_wait_ends_by_itself(command: Command, tmp_path: Path) -> None:
    """The server shuts down SHUTDOWN_DRAIN_SECONDS after SIGTERM, with each event loop."""
    async with Site(command).open(tmp_path, SHUTDOWN_DRAIN_SECONDS="0.2") as (server, _), server.client() as client:
        held = asyncio.create_task(client.post("/held", json={"title": "held"}))
        await server.holds("held")

        server.send(signal.SIGTERM)
        await server.logs("Shutting down")
        server.release("held")

        assert (await held).status_code == 201
        assert await server.ended() == -signal.SIGTERM
        assert server.alarms == []


@pytest.mark.only_full
@pytest.mark.parametrize("command", few([gunicorn(), OLD, NEW]), ids=str)
async def test_a_late_request_is_answered_whole_or_not_at_all(command: Command, tmp_path: Path) -> None:
    """A client that goes on asking on a kept connection after SIGTERM never gets half an answer."""

    async def ask_on(connection: Connection) -> set[int]:
        statuses = set[int]()
        while (answer := await connection.get("/notes")) is not None:
            statuses.add(answer.status)
        return statuses

    async with Site(command).open(tmp_path) as (server, _), AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(Connection.to(server)) for _ in range(8)]
        asking = [asyncio.create_task(ask_on(connection)) for connection in connections]
        await until(lambda: all(connection.answered for connection in connections))

        server.send(signal.SIGTERM)

        assert await asyncio.gather(*asking) == [{200}] * len(asking)
        assert await server.ended() == command.exit_code
        assert server.alarms == []


@pytest.mark.only_full
async def test_ctrl_c_ends_the_wait(tmp_path: Path) -> None:
    """Ctrl-C in a terminal does not wait for SHUTDOWN_DRAIN_SECONDS."""
    async with Site(NEW).open(tmp_path, SHUTDOWN_DRAIN_SECONDS=NEVER) as (server, _), Connection.to(server) as kept:
        server.send(signal.SIGTERM)
        await not_ready(kept)

        server.send(signal.SIGINT)

        assert await server.ended() == 0
        assert server.alarms == []


@pytest.mark.only_full
@pytest.mark.parametrize("command", few([uvicorn(workers=2), gunicorn(workers=2)]), ids=str)
async def test_ctrl_c_ends_all_processes(command: Command, tmp_path: Path) -> None:
    """At a terminal every process gets the signal, and none is left."""
    async with Site(command).open(tmp_path, SHUTDOWN_DRAIN_SECONDS=NEVER) as (server, _):
        server.send(signal.SIGINT, everyone=True)

        assert await server.ended() == 0
        assert server.alarms == []
