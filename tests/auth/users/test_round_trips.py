"""Statements and round trips of authentication."""

from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from fastapi import Depends
from httpx import AsyncClient
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession
from tests.auth.accounts import PASSWORD, Site, Users, store_user
from tests.tables.accounts import AccountsBase
from tests.wire import Wire, counted

from fastapi_kit.auth import require
from fastapi_kit.db import Database
from fastapi_kit.testing import app_client, assert_max_queries, bearer


def site_on(database: Database) -> Site:
    """The app, with a public list and one behind guards."""
    site = Site(database)
    guard = require(require(site.get_user, scopes=["a"]), check=lambda user: user.is_active)

    async def list_users(session: Annotated[AsyncSession, database.session]) -> int:
        return len(await Users(session).list())

    site.app.add_api_route("/users", list_users, dependencies=[Depends(site.get_user)])
    site.app.add_api_route("/guarded", list_users, dependencies=[Depends(guard), Depends(site.get_user), Depends(site.get_user.claims)])
    return site


REQUESTS = {"/auth/me": 1, "/users": 2, "/guarded": 2}


@pytest.mark.parametrize("path", REQUESTS)
async def test_statements_of_a_request(users: Database, path: str) -> None:
    """R29: a request loads its user with one statement, whatever its guards."""
    user, site = await store_user(users), site_on(users)

    async with app_client(site.app) as client:
        with assert_max_queries(users, REQUESTS[path]) as log:
            response = await client.get(path, headers=bearer(site.tokens, str(user.id), scopes=["a"]))

    assert (response.status_code, log.count) == (200, REQUESTS[path])


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer x.y.z"}])
async def test_a_rejected_request_costs_no_statement(users: Database, headers: dict[str, str]) -> None:
    """R21, R22: a request without a valid token runs no statement."""
    site = site_on(users)

    async with app_client(site.app) as client:
        with assert_max_queries(users, 0):
            assert (await client.get("/guarded", headers=headers)).status_code == 401


@pytest.fixture
async def wired(postgres_url: URL, postgres_database: Database) -> AsyncIterator[tuple[Wire, AsyncClient, Site]]:
    """The app behind a counting proxy, with open connections."""
    await postgres_database.create_tables(AccountsBase.metadata)
    await store_user(postgres_database)
    async with counted(postgres_url) as wire:
        database = Database(wire.url)
        site = site_on(database)
        async with app_client(site.app) as client:
            await client.get("/guarded", headers=bearer(site.tokens, "1", scopes=["a"]))
            yield wire, client, site
        await database.dispose()


@pytest.mark.parametrize("path", REQUESTS)
async def test_round_trips_of_a_request(wired: tuple[Wire, AsyncClient, Site], path: str) -> None:
    """R29: an authenticated read is one round trip for the user and one for the rows."""
    wire, client, site = wired
    before = wire.round_trips

    await client.get(path, headers=bearer(site.tokens, "1", scopes=["a"]))

    assert wire.round_trips - before == REQUESTS[path]


async def test_round_trips_of_a_login(wired: tuple[Wire, AsyncClient, Site]) -> None:
    """R31: a login is one round trip, also if it fails; a refresh is one, too."""
    wire, client, _ = wired
    known, unknown = ({"username": name, "password": PASSWORD} for name in ("ann@example.com", "bob@example.com"))

    before = wire.round_trips
    pair = (await client.post("/auth/login", data=known)).json()
    logged_in = wire.round_trips
    await client.post("/auth/login", data=unknown)
    refused = wire.round_trips
    await client.post("/auth/refresh", json={"refresh_token": pair["refresh_token"]})

    assert (logged_in - before, refused - logged_in, wire.round_trips - refused) == (1, 1, 1)
