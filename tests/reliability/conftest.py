"""What the tests of failures share: a database with two rows, a look at it from the side, and an eye on the log."""

import logging
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import create_async_engine
from tests.databases import new_database
from tests.reliability.aside import PASSWORD, Aside, telling_words
from tests.reliability.proxy import Proxy, proxied
from tests.tables.library import LibraryBase

from fastapi_kit.db import Database

pytest.register_assert_rewrite("tests.reliability.sites")


@pytest.fixture(scope="session")
async def tables(postgres_url: URL) -> AsyncIterator[Database]:
    """A PostgreSQL database of these tests' own, with the tables of ``tests.tables.library``: they are made once."""
    async with new_database(f"{postgres_url.database}_failures") as url:
        database = Database(create_async_engine(url, connect_args={"server_settings": {"application_name": "aside"}}))
        await database.create_tables(LibraryBase.metadata)
        yield database
        await database.dispose()


@pytest.fixture
async def aside(tables: Database) -> Aside:
    """Those tables, with two tags."""
    found = Aside(tables)
    await found.start_over()
    return found


@pytest.fixture
def server(aside: Aside) -> URL:
    """The URL of that database, as an app gets it."""
    return aside.database.engine.url.set(password=PASSWORD)


@pytest.fixture
async def proxy(server: URL) -> AsyncIterator[Proxy]:
    """A proxy in front of that database."""
    async with proxied(server) as found:
        yield found


@pytest.fixture
async def sqlite_aside(sqlite_database: Database) -> Aside:
    """The same on SQLite."""
    await sqlite_database.create_tables(LibraryBase.metadata)
    found = Aside(sqlite_database)
    await found.start_over()
    return found


@pytest.fixture(params=["sqlite", "postgresql"])
def any_aside(request: pytest.FixtureRequest) -> Aside:
    """Once the one and once the other."""
    found = request.getfixturevalue("sqlite_aside" if request.param == "sqlite" else "aside")
    assert isinstance(found, Aside)
    return found


@pytest.fixture
def bystanders() -> frozenset[str]:
    """Loggers of others that a module lets say what they like, but no password."""
    return frozenset()


@pytest.fixture(autouse=True)
def discreet_log(caplog: pytest.LogCaptureFixture, bystanders: frozenset[str]) -> Iterator[None]:
    """No record tells of statements, addresses or names, and none at all, debug records included, a password."""
    caplog.set_level(logging.DEBUG, "fastapi_kit")
    yield
    lines = [(logging.Formatter().format(record), record) for record in caplog.get_records("call")]
    # The start has a test of its own. SQLAlchemy's closing of an aiosqlite connection, cancelled in one test, is reported in any other.
    lines = [(line, record) for line, record in lines if "does not answer yet" not in line and "_terminate_graceful_close" not in line]
    loud = [line for line, record in lines if record.levelno > logging.DEBUG and record.name not in bystanders]
    assert not [line for line, _ in lines if PASSWORD in line]
    assert not [line for line in loud if telling_words(line)]
