"""Calls of ``on_commit`` run once, after the COMMIT of their transaction."""

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from tests.tables.library import Loan, Tag, TagService

from fastapi_kit.db import Database, on_commit, unit_of_work
from fastapi_kit.db.hooks import has_uncommitted_writes, on_rollback
from fastapi_kit.errors import ConfigurationError, ConflictError, NotFoundError

Sessions = async_sessionmaker[AsyncSession]


async def names(library: Database) -> set[str]:
    """Return the committed names."""
    async with library.begin() as session:
        return set(await session.scalars(select(Tag.name)))


# --- Which transaction a call belongs to. ---


async def test_a_call_waits_for_the_next_transaction(session: AsyncSession) -> None:
    """A call on an idle session runs after the next write; reads before it do not matter."""
    calls: list[str] = []
    on_commit(session, calls.append, "first")
    await TagService(session).list()
    await TagService(session).count()
    async for _ in TagService(session).stream():
        pass
    assert calls == []
    await TagService(session).create({"name": "a"})
    await TagService(session).create({"name": "b"})

    assert calls == ["first"]


@pytest.mark.parametrize("how", ["rejected", "unknown name", "missing", "failing override", "rolled back"])
async def test_a_call_that_waits_is_dropped_with_the_write(session: AsyncSession, how: str) -> None:
    """A waiting call is dropped if the write is rejected, by the database or before any SQL, or rolled back."""
    await TagService(session).create({"name": "a"})
    calls: list[str] = []
    on_commit(session, calls.append, "never")

    if how == "rolled back":
        session.add(Tag(name="x"))
        await session.flush()
        await session.rollback()
    elif how == "failing override":

        class Failing(TagService):
            def prepare_insert(self, values: dict[str, object]) -> dict[str, object]:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await Failing(session).create({"name": "x"})
    elif how == "missing":
        with pytest.raises(NotFoundError):
            await TagService(session).update(99, {"name": "x"})
    else:
        with pytest.raises(ConflictError if how == "rejected" else ConfigurationError):
            await TagService(session).create({"name": "a"} if how == "rejected" else {"colour": "red"})
    await TagService(session).create({"name": "b"})

    assert calls == []


async def test_a_rejected_write_drops_only_what_was_registered_in_it(session: AsyncSession) -> None:
    """A rejected first write of a unit keeps the calls that the unit registered before, in order."""
    await TagService(session).create({"name": "a"})
    calls: list[str] = []

    async with unit_of_work(session) as uow:
        uow.on_commit(calls.append, "before")
        for _ in range(2):
            with pytest.raises(ConflictError):
                async with unit_of_work(session) as inner:
                    inner.on_commit(calls.append, "rejected")
                    await TagService(session).create({"name": "a"})
        uow.on_commit(calls.append, "between")
        await TagService(session).create({"name": "b"})
        with pytest.raises(ConflictError):
            async with unit_of_work(session) as inner:
                inner.on_commit(calls.append, "rejected")
                await TagService(session).create({"name": "a"})
        uow.on_commit(calls.append, "after")
    assert calls == ["before", "between", "after"]


async def test_calls_of_nested_units(session: AsyncSession) -> None:
    """Calls are dropped with the unit that is undone and kept with a unit that is kept, at any depth."""
    calls: list[str] = []
    async with unit_of_work(session) as one:
        one.on_commit(calls.append, "1")
        await TagService(session).create({"name": "a"})
        async with unit_of_work(session) as two:
            two.on_commit(calls.append, "2")
            async with unit_of_work(session) as three:
                three.on_commit(calls.append, "3")
        async with unit_of_work(session) as two:
            two.on_commit(calls.append, "undone 2")
            async with unit_of_work(session) as three:
                three.on_commit(calls.append, "undone 3")
            await two.rollback()
        one.on_commit(calls.append, "4")
    assert calls == ["1", "2", "3", "4"]


async def test_calls_in_savepoints_of_the_applications(application_sessions: Sessions) -> None:
    """Calls follow savepoints, commits and rollbacks of SQLAlchemy on a session of the application."""
    calls: list[str] = []
    async with application_sessions() as session:
        session.add(Tag(name="a"))
        async with session.begin_nested():
            on_commit(session, calls.append, "released")
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                on_commit(session, calls.append, "undone")
                session.add(Tag(name="a"))
        savepoint = await session.begin_nested()
        on_commit(session, calls.append, "undone by hand")
        await savepoint.rollback()
        assert calls == []
        await session.commit()
        assert calls == ["released"]
        session.add(Tag(name="b"))
        await session.flush()
        on_commit(session, calls.append, "closed")
    async with application_sessions() as session:
        await TagService(session).create({"name": "c"})
    assert calls == ["released"]


async def test_a_failed_commit_runs_no_call(session: AsyncSession) -> None:
    """A failed COMMIT runs no call."""
    calls: list[str] = []
    session.add(Loan(book_id=99))
    on_commit(session, calls.append, "never")
    with pytest.raises(IntegrityError):
        await session.commit()
    await session.rollback()
    await TagService(session).create({"name": "a"})
    assert calls == []


# --- What happens inside a call. ---


async def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [ZeroDivisionError(), TimeoutError(), asyncio.CancelledError(), ExceptionGroup("", [ValueError()])])
@pytest.mark.parametrize("is_async", [True, False])
async def test_an_error_inside_a_call(library: Database, session: AsyncSession, error: BaseException, is_async: bool) -> None:
    """An error in a call undoes nothing, the other calls run, and the object shows what is stored."""
    calls: list[str] = []
    tag = await TagService(session).create({"name": "a"})

    def fail_at_once() -> None:
        raise error

    if is_async:
        on_commit(session, fail, error)
    else:
        on_commit(session, fail_at_once)
    on_commit(session, asyncio.sleep, 0)
    on_commit(session, calls.append, "next")
    if isinstance(error, asyncio.CancelledError):
        with pytest.raises(asyncio.CancelledError):
            await TagService(session).update(tag.id, {"name": "b"})
    else:
        await TagService(session).update(tag.id, {"name": "b"})

    assert (calls, tag.name, await names(library)) == (["next"], "b", {"b"})
    assert not session.in_transaction()
    tag.name = "a"
    await session.commit()
    assert await names(library) == {"a"}


Write = Callable[[AsyncSession], Awaitable[object]]


async def by_service(session: AsyncSession) -> None:
    await TagService(session).create({"name": "a"})


async def by_unit(session: AsyncSession) -> None:
    async with unit_of_work(session):
        await TagService(session).create({"name": "a"})


async def by_begin(session: AsyncSession) -> None:
    async with session.begin():
        session.add(Tag(name="a"))


async def by_commit(session: AsyncSession) -> None:
    session.add(Tag(name="a"))
    await session.commit()


@pytest.mark.parametrize("write", [by_service, by_unit, by_begin, by_commit])
@pytest.mark.parametrize("scope", ["asyncio.timeout", "anyio", "task"])
async def test_a_call_that_is_cancelled(library: Database, session: AsyncSession, write: Write, scope: str) -> None:
    """A cancelled call undoes nothing; the other calls run, and the cancellation is raised at the end."""
    calls, started = list[str](), asyncio.Event()

    async def hang() -> None:
        started.set()
        await asyncio.sleep(60)

    async def later() -> None:
        await asyncio.sleep(0.01)
        calls.append("later")

    on_commit(session, hang)
    on_commit(session, later)
    on_commit(session, calls.append, "last")
    if scope == "asyncio.timeout":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await write(session)
    elif scope == "anyio":
        with anyio.move_on_after(0.1) as cancelled:
            await write(session)
        assert cancelled.cancelled_caught
    else:
        task = asyncio.ensure_future(write(session))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert calls == ["later", "last"]
    assert await names(library) == {"a"}
    assert not session.in_transaction()
    await TagService(session).create({"name": "b"})


async def test_a_call_in_a_task_group(library: Database, session: AsyncSession) -> None:
    """A task that fails cancels the call; its error is raised, and the commit stays."""
    calls, started = list[str](), asyncio.Event()

    async def hang() -> None:
        started.set()
        await asyncio.sleep(60)

    async def sibling() -> None:
        await started.wait()
        raise ZeroDivisionError

    on_commit(session, hang)
    on_commit(session, calls.append, "last")
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(by_unit(session))
            group.create_task(sibling())

    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
    assert (calls, await names(library)) == (["last"], {"a"})


async def test_a_call_may_use_another_session_and_register_more(library: Database, session: AsyncSession) -> None:
    """A call can read what was committed, and register calls for the next transaction."""
    seen: list[set[str]] = []

    async def look() -> None:
        async with library.begin() as other:
            await TagService(other).create({"name": f"call {len(seen)}"})
        seen.append(await names(library))
        if len(seen) == 1:
            on_commit(session, look)

    on_commit(session, look)
    await TagService(session).create({"name": "a"})
    assert seen == [{"a", "call 0"}]
    await TagService(session).create({"name": "b"})
    assert len(seen) == 2


# --- Calls after a rollback. ---


@pytest.mark.parametrize("how", ["error", "rollback", "close", "failed commit", "invalidate"])
async def test_a_call_after_a_rollback(application_sessions: Sessions, library: Database, how: str) -> None:
    """The library's own calls of ``on_rollback`` run once, when the transaction has ended without a commit, however it ends."""
    seen: list[set[str]] = []

    async def look() -> None:
        seen.append(await names(library))

    session = application_sessions()
    await session.begin()
    await session.execute(insert(Tag).values(name="a"))
    on_rollback(session, look)
    assert seen == []
    if how == "error":
        with pytest.raises(ZeroDivisionError):
            async with unit_of_work(session):
                raise ZeroDivisionError
        assert seen == []  # the savepoint is another one
        await session.rollback()
    elif how == "failed commit":
        session.add(Tag(name=None))
        with pytest.raises(IntegrityError):
            await session.commit()
    else:
        await getattr(session, how)()
    await session.close()

    assert seen == [set()]
    async with session.begin():
        await session.execute(insert(Tag).values(name="b"))
    assert len(seen) == 1


async def test_a_call_after_the_rollback_of_its_savepoint(session: AsyncSession, library: Database) -> None:
    """A call of ``on_rollback`` belongs to its savepoint, and to the transaction around it when that is released."""
    calls: list[str] = []
    async with unit_of_work(session) as outer:
        await TagService(session).create({"name": "a"})
        async with unit_of_work(session) as inner:
            on_rollback(session, lambda: calls.append("undone"))
            await inner.rollback()
        assert calls == ["undone"]
        async with unit_of_work(session):
            await TagService(session).create({"name": "b"})
            on_rollback(session, lambda: calls.append("released"))
        assert calls == ["undone"]
        await outer.rollback()
    assert calls == ["undone", "released"]

    async with unit_of_work(session):
        await TagService(session).create({"name": "c"})
        on_rollback(session, lambda: calls.append("never"))
    assert (calls, await names(library)) == (["undone", "released"], {"c"})


async def test_a_call_after_a_rollback_that_fails(session: AsyncSession, caplog: pytest.LogCaptureFixture) -> None:
    """A call that fails is logged; the others run, and the request has its own error."""
    calls: list[str] = []

    with pytest.raises(LookupError):
        async with unit_of_work(session):
            on_rollback(session, lambda: fail(ZeroDivisionError()))
            on_rollback(session, lambda: calls.append("second"))
            raise LookupError

    assert calls == ["second"]
    assert "on_rollback: a call failed after the rollback; the others still run" in caplog.text


async def test_a_unit_that_only_waits_has_written_nothing(library: Database) -> None:
    """A call of ``on_rollback`` is no write: a request that registers one and reads is not told of a lost write."""
    async with library.sessions() as session:
        await session.begin()
        on_rollback(session, lambda: None)
        assert not has_uncommitted_writes(session.sync_session)


# --- A unit in a task group. ---


async def test_a_unit_rolled_back_beside_a_task_that_fails(library: Database, session: AsyncSession) -> None:
    """rollback() in a task group leaves the unit; the error of another task is raised."""
    async with unit_of_work(session) as uow:
        await TagService(session).create({"name": "a"})
        async with asyncio.TaskGroup() as group:
            group.create_task(uow.rollback())
    with pytest.raises(ExceptionGroup) as caught:
        async with unit_of_work(session) as uow:
            await TagService(session).create({"name": "a"})
            async with asyncio.TaskGroup() as group:
                group.create_task(uow.rollback())
                group.create_task(fail(ZeroDivisionError()))
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]

    async with unit_of_work(session) as outer:
        await TagService(session).create({"name": "kept?"})
        with pytest.raises(ExceptionGroup):
            async with unit_of_work(session) as inner:
                await TagService(session).create({"name": "b"})
                async with asyncio.TaskGroup() as group, asyncio.TaskGroup() as nested:
                    nested.create_task(inner.rollback())
                    group.create_task(fail(ValueError()))
        await session.execute(insert(Tag).values(name="c"))
        async with asyncio.TaskGroup() as group:
            group.create_task(outer.rollback())
    assert await names(library) == set()
    assert not session.in_transaction()
