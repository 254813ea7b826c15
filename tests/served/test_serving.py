"""The servers serve: in one process or several, with the same answers."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from hashlib import sha256

import pytest
from httpx import AsyncClient
from tests.served.servers import Command, Connection, Server, alarms, fastapi_run, gunicorn, uvicorn
from tests.served.sites import Site, site
from tests.thorough import few

ONE = few([(uvicorn(), "sqlite"), (fastapi_run(), "sqlite")])
SEVERAL = few([(gunicorn(workers=2), "postgresql"), (uvicorn(workers=4), "postgresql"), (gunicorn(workers=4), "sqlite")])


def name(value: tuple[Command, str]) -> str:
    return " on ".join(map(str, value))


@pytest.fixture(scope="module", params=few([*SEVERAL, *ONE]), ids=name)
def place(request: pytest.FixtureRequest) -> Site:
    return site(request, *request.param)


@pytest.fixture(scope="module")
async def server(place: Site, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server that has started without a word of complaint."""
    async with place.open(tmp_path_factory.mktemp("served")) as (server, _):
        assert server.alarms == []
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[AsyncClient]:
    async with server.client() as client:
        yield client


async def test_rows_are_written_and_read(client: AsyncClient, server: Server) -> None:
    """The endpoints of a service work, whichever process answers, and nothing is complained about."""
    before = server.log

    created = await client.post("/notes", json={"title": "first"})
    path = created.headers["location"]
    changed = await client.patch(path, json={"title": "second"})
    read = await client.get(path)
    deleted = await client.delete(path)
    gone = await client.get(path)

    assert [answer.status_code for answer in (created, changed, read, deleted, gone)] == [201, 200, 200, 204, 404]
    assert read.json() == {**created.json(), "title": "second"}
    assert (gone.headers["content-type"], gone.json()["code"]) == ("application/problem+json", "not_found")
    assert alarms(server.log.removeprefix(before)) == [], server.output


async def test_it_is_alive_and_ready(client: AsyncClient) -> None:
    """The probes answer, and the database is well."""
    alive, ready = await client.get("/livez"), await client.get("/readyz")

    assert (alive.status_code, alive.json()) == (200, {"status": "alive"})
    assert (ready.status_code, ready.json()["checks"]) == (200, {"database": "ok"})


async def test_a_bug_is_answered_and_logged_once(server: Server) -> None:
    """A 500 is a problem and says that the connection ends, as it does; the log has one line with its id, and one traceback."""
    before = server.log

    async with Connection.to(server) as connection:
        answer = await connection.get("/bug")
        afterwards = await connection.get("/livez")

    assert answer is not None, server.output
    assert (answer.status, answer.headers["content-type"]) == (500, "application/problem+json")
    assert (answer.headers["connection"], afterwards) == ("close", None)
    assert json.loads(answer.body)["code"] == "internal_error"
    said = server.log.removeprefix(before)
    assert said.count(f"Unhandled RuntimeError in request {answer.headers['x-request-id']}") == 1, server.output
    assert said.count("Traceback (most recent call last)") == 1, server.output


@pytest.mark.only_full
async def test_a_bug_harms_no_other_request(client: AsyncClient) -> None:
    """No request is lost on a connection that a 500 has used: the 500 closes its connection."""
    for _ in range(10):
        answers = await asyncio.gather(*(client.get(path) for path in ["/bug", "/livez"] * 4))

        assert [answer.status_code for answer in answers] == [500, 200] * 4


async def test_many_requests_at_once_are_all_answered(client: AsyncClient, server: Server) -> None:
    """Each of many connections at once is served, and each row is written once."""
    titles = {f"one of many {number}" for number in range(20)}

    created = await asyncio.gather(*(client.post("/notes", json={"title": title}) for title in titles))

    assert {answer.status_code for answer in created} == {201}, server.output
    page = await client.get("/notes", params={"limit": 1000})
    assert sorted(titles & {note["title"] for note in page.json()["items"]}) == sorted(titles)


@pytest.mark.only_full
async def test_all_processes_agree_on_the_development_secret(server: Server) -> None:
    """Processes that start together in an empty folder make one secret, and keep it."""
    kept = (server.folder / ".fastapi_kit" / "secret_key").read_text()

    assert len(server.workers) >= server.command.workers
    assert set(server.workers.values()) == {sha256(kept.encode()).hexdigest()}


@pytest.mark.only_full
@pytest.mark.parametrize("place", SEVERAL, ids=name, indirect=True)
async def test_a_worker_that_dies_is_replaced(server: Server, client: AsyncClient) -> None:
    """While one is missing the others answer, and a new one takes its place."""
    started = server.log.count(server.command.ready)
    before = set(server.workers)

    os.kill(max(before), signal.SIGKILL)
    answers = [await client.get("/livez", headers={"connection": "close"}) for _ in range(20)]
    await server.logs(server.command.ready, times=started + 1)

    assert {answer.status_code for answer in answers} == {200}, server.output
    assert len(set(server.workers) - before) == 1
