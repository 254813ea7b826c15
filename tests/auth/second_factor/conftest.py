"""A user with and one without a second factor, on SQLite and on PostgreSQL."""

from collections.abc import AsyncIterator

import pytest
from tests.auth.second_factor.site import Person, Site, store_user
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
    return Site(users)


@pytest.fixture
async def ann(site: Site) -> AsyncIterator[Person]:
    """A user with an enabled factor. The code of the next step is not used yet."""
    await store_user(site.database)
    async with app_client(site.app) as client:
        person = Person(site, client)
        await person.enrol()
        yield person


@pytest.fixture
async def bare(site: Site) -> AsyncIterator[Person]:
    """A user without a factor."""
    await store_user(site.database)
    async with app_client(site.app) as client:
        yield Person(site, client)
