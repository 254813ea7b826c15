"""Both apps on both databases, and on SQLite alone where no row is written."""

import gc
import logging
from collections.abc import AsyncIterator

import pytest
from tests.hostile.sites import Sites, open_site

from fastapi_kit.db import Database


@pytest.fixture(scope="module", autouse=True)
def no_garbage() -> None:
    """What earlier tests left to the garbage collector would be reported in these."""
    gc.collect()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What a host logs at its most talkative, and the library at its."""
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, "fastapi_kit")
    return caplog


@pytest.fixture
async def sites(sqlite_database: Database, postgres_database: Database, log: pytest.LogCaptureFixture) -> AsyncIterator[Sites]:
    """On SQLite and PostgreSQL at once, to compare them."""
    async with open_site(sqlite_database) as small, open_site(postgres_database) as large:
        yield Sites([small, large], log)


@pytest.fixture
async def site(sqlite_database: Database, log: pytest.LogCaptureFixture) -> AsyncIterator[Sites]:
    """On SQLite."""
    async with open_site(sqlite_database) as small:
        yield Sites([small], log)
