"""SQLite: what is cancelled, at whatever moment, leaves no lock behind, though the driver's thread goes on with it."""

import asyncio
import gc
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import event, insert, select, text
from tests.reliability.aside import Aside, eventually, execute
from tests.tables.library import Tag, TagCreate, TagService

from fastapi_kit.db import Database, DatabaseOptions

Work = Callable[[Database], Awaitable[None]]


@pytest.fixture
def bystanders() -> frozenset[str]:
    """SQLAlchemy and asyncio report a connection whose closing is cancelled."""
    return frozenset({"asyncio", "sqlalchemy.pool.impl.AsyncAdaptedQueuePool"})


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No garbage is collected: what a traceback holds stays alive, as it does between two collections."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def file(sqlite_aside: Aside) -> Path:
    return Path(sqlite_aside.database.engine.url.database or "")


def begin(file: Path, kind: str = "IMMEDIATE") -> None:
    """Take the lock at once, as another process would, and give it back."""
    with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as connection:
        connection.execute(f"BEGIN {kind}").close()


async def is_free(file: Path) -> bool:
    try:
        begin(file, "EXCLUSIVE")
    except sqlite3.OperationalError:
        return False
    return True


async def by_a_service(database: Database) -> None:
    async with database.sessions() as session:
        await TagService(session).create_many([TagCreate(name=f"tag {number}") for number in range(3)])


async def by_returning(database: Database) -> None:
    async with database.sessions() as session:
        await session.execute(insert(Tag).returning(Tag.id), [{"name": "a"}, {"name": "b"}])
        await session.commit()


async def by_a_savepoint(database: Database) -> None:
    async with database.begin() as session:
        async with session.begin_nested():
            session.add(Tag(name="a"))
        await session.execute(text("UPDATE tags SET weight = 2"))


async def by_reading(database: Database) -> None:
    async with database.sessions() as session:
        async for _ in await session.stream(select(Tag)):
            await asyncio.sleep(0)


async def cancelled_at(moment: int, work: Awaitable[None]) -> bool:
    """Cancel *work* the *moment*-th time that it waits for something; return whether it was done before."""
    task, last, count = asyncio.ensure_future(work), None, 0
    while not task.done() and count < moment:
        await asyncio.sleep(0)
        waiter = getattr(task, "_fut_waiter", None)
        if waiter not in (None, last):
            last, count = waiter, count + 1
    task.cancel()
    await asyncio.wait([task])
    return not task.cancelled()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
@pytest.mark.parametrize("work", [by_a_service, by_returning, by_a_savepoint, by_reading])
async def test_work_that_is_cancelled_leaves_no_lock(sqlite_aside: Aside, file: Path, work: Work, mode: str) -> None:
    """At each of its awaits in turn, by services and by hand, with WAL and with the journal of a file that cannot have it."""
    await sqlite_aside.database.engine.dispose()
    database = Database(f"sqlite:///{file}")

    def set_mode(connection: Any, _record: object) -> None:
        execute(connection, f"PRAGMA journal_mode={mode}")

    event.listen(database.engine.sync_engine, "connect", set_mode)
    moment, done = 0, False
    while not done:
        moment += 1
        await database.engine.dispose()
        done = await cancelled_at(moment, work(database))
        await eventually(lambda: is_free(file))
    await database.dispose()

    assert moment > 5


@pytest.mark.parametrize("is_begun", [True, False])
async def test_a_statement_that_is_cancelled_is_stopped(file: Path, is_begun: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that would write for hours does not hold its lock, or the task that waits for its end.

    If the thread has not begun it when its task is cancelled, ``interrupt()`` does nothing.
    """
    if not is_begun:
        monkeypatch.setattr(aiosqlite.Connection, "interrupt", do_nothing)
    database = Database(f"sqlite:///{file}")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO tags (name, weight) SELECT i, i FROM n"

    async def write() -> None:
        async with database.begin() as session:
            await session.execute(text(endless))

    log = file.with_name(f"{file.name}-wal")
    before = log.stat().st_size if log.exists() else 0

    async def is_writing() -> bool:
        # Before its first page is stored it may have the lock, but not begun.
        return log.exists() and log.stat().st_size > before + 1_000_000

    task = asyncio.create_task(write())
    await eventually(is_writing)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=5)

    assert done
    assert task.cancelled()
    begin(file)
    async with database.begin() as session:
        assert (await session.scalars(text("SELECT count(*) FROM tags"))).one() == 2
    await database.dispose()


async def do_nothing(_connection: aiosqlite.Connection) -> None: ...


async def test_waiting_for_the_lock_can_be_cancelled(file: Path) -> None:
    """The driver's thread goes on waiting and gets the lock; it is given back, and the next write gets it."""
    database = Database(f"sqlite:///{file}", options=DatabaseOptions(pool_size=1, max_overflow=0, pool_timeout=5))
    async with database.sessions() as session:
        await session.execute(text("SELECT 1"))
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(by_returning(database))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.sleep(0.05)
        other.execute("ROLLBACK")
    await asyncio.wait([task])

    assert task.cancelled()
    await eventually(lambda: is_free(file))
    await by_returning(database)
    await database.dispose()


async def test_a_session_goes_on_after_a_cancelled_wait(file: Path) -> None:
    """Whoever catches the cancellation and rolls back can write with the same session."""
    database = Database(f"sqlite:///{file}", options=DatabaseOptions(pool_size=1, max_overflow=0, pool_timeout=0.2))
    async with database.sessions() as session:
        await session.execute(text("SELECT 1"))
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await session.execute(text("UPDATE tags SET weight = 3"))
        await session.rollback()
        await session.execute(text("UPDATE tags SET weight = 4"))
        await session.commit()
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT DISTINCT weight FROM tags").fetchall() == [(4,)]
    await database.dispose()
