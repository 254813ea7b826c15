"""isolated(): tests that leave nothing behind."""

from contextlib import asynccontextmanager

import pytest
from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from tests.tables.library import LibraryBase, TagService

from fastapi_kit.db import Database, on_commit, unit_of_work
from fastapi_kit.errors import ConfigurationError, ConflictError
from fastapi_kit.testing.database import isolated


async def tags(library: Database) -> int:
    async with library.begin() as session:
        return await TagService(session).count()


async def test_everything_in_the_block_sees_the_same_and_nothing_survives(library: Database) -> None:
    """The request's session, db.begin() and streams see the same rows, and nothing is kept."""
    async with isolated(library):
        async with asynccontextmanager(library.get_session)() as session:
            await TagService(session).create({"name": "a"})
            async with unit_of_work(session):
                await TagService(session).create({"name": "b"})
        async with library.begin() as session:
            await TagService(session).create({"name": "c"})
            assert [tag.name async for tag in TagService(session).stream()] == ["a", "b", "c"]
        assert await tags(library) == 3

    assert await tags(library) == 0


async def test_a_read_of_an_idle_session_stays_inside(library: Database) -> None:
    """A read does not set the test's connection to AUTOCOMMIT."""
    async with isolated(library):
        async with asynccontextmanager(library.get_session)() as session:
            await TagService(session).create({"name": "a"})
        async with asynccontextmanager(library.get_session)() as session:
            assert [tag.name for tag in await TagService(session).list()] == ["a"]
            assert [tag.name for tag in await TagService(session).list()] == ["a"]
            await TagService(session).create({"name": "b"})
        assert await tags(library) == 2

    assert await tags(library) == 0


async def test_a_failed_write_keeps_the_outer_transaction(library: Database) -> None:
    """After a failed write the outer transaction goes on."""
    async with isolated(library):
        async with asynccontextmanager(library.get_session)() as session:
            await TagService(session).create({"name": "a"})
            with pytest.raises(ConflictError):
                await TagService(session).create({"name": "a"})
            await TagService(session).create({"name": "b"})
        assert await tags(library) == 2

    assert await tags(library) == 0


async def test_a_rolled_back_unit_is_rolled_back(library: Database) -> None:
    """A unit that rolls back inside is rolled back."""
    async with isolated(library):
        with pytest.raises(ZeroDivisionError):
            async with library.begin() as session:
                await TagService(session).create({"name": "a"})
                raise ZeroDivisionError
        assert await tags(library) == 0


async def test_hooks_run(library: Database) -> None:
    """on_commit calls run after a commit inside."""
    seen: list[str] = []
    async with isolated(library), library.begin() as session:
        on_commit(session, seen.append, "committed")
        await TagService(session).create({"name": "a"})

    assert seen == ["committed"]


async def test_an_own_sessionmaker_is_isolated(library: Database, application_sessions: async_sessionmaker[AsyncSession]) -> None:
    """An own sessionmaker is isolated, with SQLite's own driver too."""
    async with isolated(application_sessions):
        async with application_sessions() as session:
            await TagService(session).create({"name": "a"})
            await session.commit()
        async with application_sessions.begin() as session:
            assert await TagService(session).count() == 1
    async with application_sessions() as session:
        assert session.bind is not None

    assert await tags(library) == 0


async def test_a_second_session_at_the_same_time_raises(library: Database) -> None:
    """A second session raises ConfigurationError, and the first goes on."""
    async with isolated(library), library.begin() as session:
        await TagService(session).create({"name": "a"})
        with pytest.raises(ConfigurationError, match="two sessions"):
            await tags(library)
        await TagService(session).create({"name": "b"})
        assert await TagService(session).count() == 2


async def test_a_session_that_has_only_read_leaves_room(library: Database) -> None:
    """As outside of the block, a session that has only read is idle: another may write before it is closed."""
    async with isolated(library), library.sessions() as session:
        await TagService(session).count()
        assert not session.in_transaction()
        assert await tags(library) == 0
        async with library.begin() as other:
            await TagService(other).create({"name": "a"})
        assert await TagService(session).count() == 1

    assert await tags(library) == 0


async def test_a_call_after_the_commit_may_write(library: Database) -> None:
    """A call of on_commit may open a session of its own, as outside of the block."""

    async def write() -> None:
        async with library.begin() as other:
            await TagService(other).create({"name": "b"})

    async with isolated(library):
        async with library.begin() as session:
            await TagService(session).create({"name": "a"})
            on_commit(session, write)
        assert await tags(library) == 2


async def test_isolating_twice_raises(library: Database) -> None:
    """isolated() inside isolated() raises ConfigurationError, and the outer one goes on."""
    async with isolated(library):
        with pytest.raises(ConfigurationError):
            async with isolated(library):
                pass
        assert await tags(library) == 0


async def test_afterwards_the_database_is_as_it_was(library: Database) -> None:
    """After the block a commit is a commit."""
    async with isolated(library):
        pass
    async with library.begin() as session:
        await TagService(session).create({"name": "a"})

    assert await tags(library) == 1


async def test_an_app_that_creates_its_tables_runs_inside(database: Database) -> None:
    """An app that creates its tables can start several times inside, and its tables are rolled back."""
    async with isolated(database):
        for name in "ab":
            async with database.lifespan(None):
                await database.create_tables(LibraryBase.metadata)
                async with database.begin() as session:
                    await TagService(session).create({"name": name})
        assert await tags(database) == 2

    async with database.engine.connect() as connection:
        assert not await connection.run_sync(lambda sync: inspect(sync).get_table_names())
