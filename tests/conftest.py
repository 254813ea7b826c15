"""Databases for the tests: each test that asks for one runs on SQLite and on PostgreSQL."""

import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from tests.databases import KeptConnections, KeptSchemas, PostgresDatabase, SQLiteDatabase, administer, new_database
from tests.tables.library import LibraryBase
from tests.thorough import FULL, leave_out

from fastapi_kit.db import Database

# How long examples take says more about the machine than about the tests.
settings.register_profile(
    "tests", parent=settings(), max_examples=100 if FULL else 15, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process for each core. In full there is one more: the long suites wait for servers, clients and time-outs."""
    return (os.cpu_count() or 1) + FULL


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Bound the long suites, see ``tests/thorough.py``."""
    if not FULL:
        leave_out(config, items)


# Nothing that is imported and collected is garbage.
gc.disable()


def pytest_collection_finish() -> None:
    """Start the garbage collector. It is spared the modules and the thousands of collected tests, and runs less often than usual.

    To build apps and statements makes many objects and little garbage.
    """
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def spare_the_collector() -> None:
    """Keep garbage collections short: what is alive now stays until the end, or is not worth looking at."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
async def postgres_url() -> AsyncIterator[URL]:
    """A PostgreSQL database of this test process's own."""
    try:
        await administer("SELECT 1")
    except OSError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"PostgreSQL is not reachable: {error}")
        pytest.skip("PostgreSQL is not reachable: set TEST_POSTGRES_URL or start it on 127.0.0.1:5432")
    async with new_database(f"fastapi_kit_tests_{os.getpid()}") as url:
        yield url


@pytest.fixture
async def sqlite_database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty SQLite database."""
    database = SQLiteDatabase(tmp_path / "test.db")
    yield database
    await database.dispose()


@pytest.fixture(scope="session")
def kept_schemas() -> KeptSchemas:
    """Tables that are kept from test to test."""
    return KeptSchemas()


@pytest.fixture(scope="session")
async def kept_connections(postgres_url: URL) -> AsyncIterator[KeptConnections]:
    """Connections that are kept from test to test."""
    kept = KeptConnections()
    yield kept
    await kept.close()


@pytest.fixture
async def postgres_database(postgres_url: URL, kept_schemas: KeptSchemas, kept_connections: KeptConnections) -> AsyncIterator[Database]:
    """An empty PostgreSQL database."""
    database = PostgresDatabase(postgres_url, kept_schemas)
    kept_connections.give_to(database.engine)
    async with database.engine.begin() as connection:
        await kept_schemas.empty(connection)
    yield database
    await kept_connections.keep_those_of(database.engine)
    await database.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Database:
    """An empty database, once SQLite and once PostgreSQL."""
    name = "sqlite_database" if request.param == "sqlite" else "postgres_database"
    found = request.getfixturevalue(name)
    assert isinstance(found, Database)
    return found


@pytest.fixture
async def library(database: Database) -> Database:
    """The tables of ``tests.tables.library``, empty."""
    await database.create_tables(LibraryBase.metadata)
    return database


@pytest.fixture
async def session(library: Database) -> AsyncIterator[AsyncSession]:
    """A request's session on the library, as ``db.session`` gives it."""
    sessions = asynccontextmanager(library.get_session)
    async with sessions() as session:
        yield session


@pytest.fixture
async def application_sessions(library: Database) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Sessions of an application on the same tables: SQLAlchemy's defaults, the stock driver, ``expire_on_commit=True``."""
    engine = create_async_engine(library.engine.url)
    yield async_sessionmaker(engine)
    await engine.dispose()
