"""Users in a database, on SQLite and on PostgreSQL."""

from collections.abc import AsyncIterator

import pytest
from httpx import AsyncClient
from tests.auth.accounts import Site
from tests.tables.accounts import AccountsBase

from fastapi_kit.db import Database
from fastapi_kit.testing import app_client


@pytest.fixture
async def users(database: Database) -> Database:
    """A database with an empty table of users."""
    await database.create_tables(AccountsBase.metadata)
    return database


@pytest.fixture
def site(users: Database) -> Site:
    """The app."""
    return Site(users, scopes=["notes:read", "notes:write"])


@pytest.fixture
async def client(site: Site) -> AsyncIterator[AsyncClient]:
    """A client of the app."""
    async with app_client(site.app) as client:
        yield client
