"""Both apps on both databases, and on SQLite alone where no row is written."""

import gc
import logging
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import URL
from tests.databases import new_database
from tests.hostile.sites import Site, Sites, open_site

from fastapi_kit.db import Database


@pytest.fixture(scope="module", autouse=True)
def no_garbage() -> None:
    """What earlier tests left to the garbage collector would be reported in these."""
    gc.collect()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log of the application at INFO, and of the library at DEBUG."""
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, "fastapi_kit")
    return caplog


@pytest.fixture(scope="session")
async def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """The apps on SQLite, started once."""
    async with open_site(Database(f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('hostile') / 'test.db'}")) as site:
        yield site


@pytest.fixture(scope="session")
async def on_postgresql(postgres_url: URL) -> AsyncIterator[Site]:
    """The apps on a PostgreSQL database of their own, started once."""
    async with new_database(f"{postgres_url.database}_hostile") as url, open_site(Database(url)) as site:
        yield site


@pytest.fixture
async def sites(on_sqlite: Site, on_postgresql: Site, log: pytest.LogCaptureFixture) -> AsyncIterator[Sites]:
    """On SQLite and PostgreSQL at once, to compare them."""
    async with Sites([on_sqlite, on_postgresql], log).in_use() as sites:
        yield sites


@pytest.fixture
async def site(on_sqlite: Site, log: pytest.LogCaptureFixture) -> AsyncIterator[Sites]:
    """On SQLite."""
    async with Sites([on_sqlite], log).in_use() as sites:
        yield sites
