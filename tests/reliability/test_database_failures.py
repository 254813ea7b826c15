"""The database cannot be reached: nothing listens, nothing answers, or the login fails."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import URL, make_url
from tests.databases import administer
from tests.reliability.aside import PASSWORD, Aside, eventually
from tests.reliability.proxy import Fault, Proxy, proxied
from tests.reliability.servers import (
    Talk,
    closed_port,
    hang_up,
    rejecting,
    say_garbage,
    say_garbage_after_login,
    say_nothing,
    say_nothing_after_login,
    serving,
)
from tests.reliability.sites import ACTIONS, KINDS, Site, assert_unavailable, open_site

SOON: dict[str, Any] = {"pool_timeout": 0.2, "command_timeout": 0.2}
NOWHERE = make_url(f"postgresql+asyncpg://shopkeeper:{PASSWORD}@127.0.0.1/nowhere")

TALKS: dict[str, Talk] = {
    "hangs up": hang_up,
    "says nothing": say_nothing,
    "says garbage": say_garbage,
    "says garbage after the login": say_garbage_after_login,
    "says nothing after the login": say_nothing_after_login,
    "starts": rejecting("57P03", "the database system is starting up"),
    "stops": rejecting("57P03", "the database system is shutting down"),
    "recovers": rejecting("57P03", "the database system is in recovery mode"),
    "is stopped": rejecting("57P01", "terminating connection due to administrator command"),
    "has crashed": rejecting("57P02", "terminating connection because of crash of another server process"),
    "is full": rejecting("53300", "sorry, too many clients already"),
    "is out of memory": rejecting("53200", "out of memory"),
    "cannot fork": rejecting("58000", "could not fork new process for connection: Resource temporarily unavailable"),
    "a pooler's own": rejecting("08P01", "server login has been failing, try again later"),
    "knows another password": rejecting("28P01", 'password authentication failed for user "shopkeeper"'),
    "knows no such user": rejecting("28000", 'no pg_hba.conf entry for host "10.1.2.3", user "shopkeeper", database "nowhere"'),
}


async def assert_red(site: Site) -> None:
    """Check the probes of an app whose database is away."""
    ready, alive = await site.client.get("/readyz"), await site.client.get("/livez")
    assert (ready.status_code, alive.status_code) == (503, 200)
    assert ready.json()["checks"]["database"] in {"failed", "timeout"}
    assert not [word for word in (PASSWORD, "127.0.0.1", "shopkeeper", "nowhere") if word in ready.text]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("action", ACTIONS)
async def test_nothing_listens(kind: str, action: str) -> None:
    """Asyncpg's bare ConnectionRefusedError is a 503, whatever is asked for."""
    async with open_site(kind, NOWHERE.set(port=closed_port())) as site:
        answer = await site.act(action)

    assert_unavailable(answer)
    assert site.checked_out == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_an_unknown_host_name(kind: str) -> None:
    """A host name that does not resolve is a 503, and the answer does not show the name."""
    async with open_site(kind, NOWHERE.set(host="no-such-host.invalid")) as site:
        answer = await site.act("create")

    assert_unavailable(answer)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS.keys())
async def test_a_server_that_does_not_let_the_app_in(kind: str, talk: Talk) -> None:
    """A server that is silent, talks nonsense or rejects the login is a 503 in time, and no connection leaks."""
    async with serving(talk) as port, open_site(kind, NOWHERE.set(port=port), **SOON) as site:
        answers = [await site.act("create"), await site.act("list")]
        if kind == "kit":
            await assert_red(site)
        out = site.checked_out

    assert out == 0
    for answer in answers:
        assert_unavailable(answer)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("talk", [hang_up, say_nothing, TALKS["starts"]], ids=["hangs up", "says nothing", "starts"])
async def test_the_first_request_after_the_return_works(server: URL, aside: Aside, kind: str, talk: Talk) -> None:
    """The server comes back at its old address, and the app needs no restart and no second try."""
    async with serving(talk) as port:
        url = server.set(port=port)
        async with open_site(kind, url, **SOON) as site:
            assert_unavailable(await site.act("create"))
    async with open_site(kind, url, **SOON) as site:
        assert_unavailable(await site.act("create"))
        async with proxied(server, port=port):
            answer = await site.act("create")

    assert answer.status_code == 201
    assert await aside.names() == ["old", "new"]


@pytest.mark.only_full
async def test_the_app_starts_without_its_database(server: URL, aside: Aside) -> None:
    """It starts, is alive and not ready, and is ready once the database is there."""
    async with open_site("kit", server.set(port=(port := closed_port()))) as site:
        await assert_red(site)
        async with proxied(server, port=port):
            # The last result is kept for a second.
            await eventually(lambda: is_ready(site))


async def is_ready(site: Site) -> bool:
    """Return what the probe says."""
    return (await site.client.get("/readyz")).status_code == 200


async def test_the_log_of_the_start_names_no_address(caplog: pytest.LogCaptureFixture) -> None:
    """A database that does not answer at the start is logged without address and user."""
    async with open_site("kit", NOWHERE.set(port=(port := closed_port()))):
        pass

    assert "does not answer yet" in caplog.text
    assert not [word for word in (PASSWORD, "shopkeeper", "127.0.0.1", str(port)) if word in caplog.text]


# --- What the real server rejects. ---


@pytest.mark.parametrize("kind", KINDS)
async def test_no_such_database(server: URL, kind: str) -> None:
    """A database that has been dropped, or is not restored yet, is a 503 (3D000)."""
    async with open_site(kind, server.set(database="fastapi_kit_no_such_database")) as site:
        answer = await site.act("create")
        out = site.checked_out

    assert_unavailable(answer)
    assert out == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_no_such_role(server: URL, kind: str) -> None:
    """A role that the server does not know is a 503 that does not show the name (28000)."""
    async with open_site(kind, server.set(username="fastapi_kit_no_such_role")) as site:
        answer = await site.act("create")

    assert_unavailable(answer)


@pytest.fixture
async def clerk(aside: Aside) -> AsyncIterator[str]:
    """A role that is no superuser and may use the tables."""
    name = f"fastapi_kit_clerk_{os.getpid()}"
    await aside.run(f"DROP ROLE IF EXISTS {name}", f"CREATE ROLE {name} LOGIN")
    await aside.run(
        f"GRANT USAGE ON SCHEMA public TO {name}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}",
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {name}",
    )
    yield name
    await aside.run(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


@pytest.mark.parametrize("kind", KINDS)
async def test_too_many_connections(server: URL, aside: Aside, clerk: str, kind: str) -> None:
    """No connection slot is a 503 (53300), and the next request after one is free works."""
    await aside.run(f"ALTER ROLE {clerk} CONNECTION LIMIT 0")
    async with open_site(kind, server.set(username=clerk)) as site:
        rejected = await site.act("create")
        await aside.run(f"ALTER ROLE {clerk} CONNECTION LIMIT 1")
        allowed = await site.act("create")

    assert_unavailable(rejected)
    assert allowed.status_code == 201


@pytest.mark.parametrize("kind", KINDS)
async def test_a_database_that_accepts_no_connections(server: URL, aside: Aside, kind: str) -> None:
    """``ALLOW_CONNECTIONS false``, as before a restore, is a 503 (55000)."""
    await administer(f"ALTER DATABASE {server.database} ALLOW_CONNECTIONS false")
    try:
        async with open_site(kind, server) as site:
            rejected = await site.act("create")
            await administer(f"ALTER DATABASE {server.database} ALLOW_CONNECTIONS true")
            allowed = await site.act("create")
    finally:
        await administer(f"ALTER DATABASE {server.database} ALLOW_CONNECTIONS true")

    assert_unavailable(rejected)
    assert allowed.status_code == 201


# --- Readiness of a frozen database. ---


@pytest.mark.only_full
async def test_readiness_of_a_frozen_database_is_bounded(proxy: Proxy) -> None:
    """A database that freezes under the app is red when the check's two seconds are over, though a command may take longer."""
    async with open_site("kit", proxy.url, command_timeout=30, pool_timeout=30) as site:
        assert (await site.act("list")).status_code == 200
        proxy.arm(Fault.FREEZE_ALL, at=1)
        probe = asyncio.create_task(assert_red(site))
        done, _ = await asyncio.wait({probe}, timeout=3)
        await probe
        proxy.arm()
        proxy.cut()

    assert done == {probe}
