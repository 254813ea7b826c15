"""Databases for the tests: each test that asks for one runs on SQLite and on PostgreSQL."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from tests.models import LibraryBase

from fastapi_kit.db import Database

POSTGRES_URL = os.environ.get("TEST_POSTGRES_URL", "postgresql+asyncpg://postgres@127.0.0.1:5432/test")


async def _administer(*statements: str) -> None:
    engine = create_async_engine(POSTGRES_URL, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            for statement in statements:
                await connection.execute(text(statement))
    finally:
        await engine.dispose()


@pytest.fixture(scope="session")
async def postgres_url() -> AsyncIterator[URL]:
    """A PostgreSQL database of this test process's own."""
    name = f"fastapi_kit_tests_{os.getpid()}"
    try:
        await _administer(f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
    except OSError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"PostgreSQL is not reachable: {error}")
        pytest.skip("PostgreSQL is not reachable: set TEST_POSTGRES_URL or start it on 127.0.0.1:5432")
    yield make_url(POSTGRES_URL).set(database=name)
    await _administer(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def sqlite_database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty SQLite database."""
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'test.db'}")
    yield database
    await database.dispose()


@pytest.fixture
async def postgres_database(postgres_url: URL) -> AsyncIterator[Database]:
    """An empty PostgreSQL database."""
    database = Database(postgres_url)
    async with database.engine.begin() as connection:
        await connection.execute(text("DROP SCHEMA public CASCADE"))
        await connection.execute(text("CREATE SCHEMA public"))
    yield database
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
    """The tables of ``tests.models``, empty."""
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
