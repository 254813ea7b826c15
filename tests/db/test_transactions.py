"""Who commits, what a rejected write undoes, and what stays readable."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from sqlalchemy import func, inspect, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import selectinload
from sqlalchemy.orm.session import JoinTransactionMode
from tests.tables.library import (
    Author,
    AuthorCreate,
    AuthorService,
    AuthorUpdate,
    BookService,
    LibraryBase,
    LoanCreate,
    LoanService,
    Tag,
    TagService,
)

from fastapi_kit.db import Database, on_commit, run_transaction, unit_of_work
from fastapi_kit.db.atomic import is_opened
from fastapi_kit.db.transactions import typed_errors
from fastapi_kit.errors import ConfigurationError, ConflictError, KitError, UnavailableError, UnknownReferenceError

ApplicationSessions = async_sessionmaker[AsyncSession]


async def emails(library: Database) -> set[str]:
    """Return what another session reads: what is committed."""
    async with library.begin() as session:
        return set(await session.scalars(select(Author.email)))


@pytest.fixture
async def ada(library: Database) -> Author:
    """An author in the database."""
    async with library.begin() as session:
        return await AuthorService(session).create({"email": "ada@example.org", "name": "Ada"})


# Opened or not


async def test_a_write_without_an_open_transaction_commits_itself(library: Database, session: AsyncSession) -> None:
    """Other sessions see the row when the service returns."""
    await AuthorService(session).create(AuthorCreate(email="new@example.org"))

    assert await emails(library) == {"new@example.org"}
    assert not session.in_transaction()


async def test_a_service_in_an_app_whose_get_db_never_commits_loses_no_write(
    library: Database, application_sessions: ApplicationSessions
) -> None:
    """A write commits itself on a plain session of the application too."""
    async with application_sessions() as session:
        author = await AuthorService(session).create(AuthorCreate(email="new@example.org"))
        await AuthorService(session).update(author.id, AuthorUpdate(name="New"))

    async with application_sessions() as session:
        assert (await session.scalars(select(Author.name))).one() == "New"


async def test_a_success_commits_what_the_application_had_pending(library: Database, session: AsyncSession) -> None:
    """A write commits pending objects of the application, as session.commit() would."""
    session.add(Author(email="pending@example.org"))

    await AuthorService(session).create(AuthorCreate(email="new@example.org"))

    assert await emails(library) == {"pending@example.org", "new@example.org"}


@asynccontextmanager
async def by_begin(session: AsyncSession) -> AsyncIterator[None]:
    async with session.begin():
        yield


@asynccontextmanager
async def by_begin_nested(session: AsyncSession) -> AsyncIterator[None]:
    await session.execute(select(Author.id))
    async with session.begin_nested():
        yield
    await session.commit()


@asynccontextmanager
async def by_unit(session: AsyncSession) -> AsyncIterator[None]:
    async with unit_of_work(session):
        yield


@asynccontextmanager
async def by_unit_after_a_read(session: AsyncSession) -> AsyncIterator[None]:
    await session.execute(select(Author.id))
    async with unit_of_work(session):
        yield


@pytest.mark.parametrize("opened", [by_begin, by_begin_nested, by_unit, by_unit_after_a_read])
async def test_in_an_opened_transaction_the_opener_commits(
    library: Database, application_sessions: ApplicationSessions, opened: object
) -> None:
    """A write inside begin(), begin_nested() or a unit of work flushes, and the opener's commit keeps it."""
    assert callable(opened)
    async with application_sessions() as session:
        async with opened(session):
            assert is_opened(session)
            await AuthorService(session).create(AuthorCreate(email="new@example.org"))
            assert session.in_transaction()
        assert not is_opened(session)

    assert await emails(library) == {"new@example.org"}


@pytest.mark.parametrize("opened", [by_begin, by_begin_nested, by_unit, by_unit_after_a_read])
async def test_in_an_opened_transaction_the_opener_rolls_back(
    library: Database, application_sessions: ApplicationSessions, opened: object
) -> None:
    """A rollback of the opener undoes every write of a service, also with the stock SQLite driver."""
    assert callable(opened)
    with pytest.raises(ZeroDivisionError):
        async with application_sessions() as session, opened(session):
            await AuthorService(session).create(AuthorCreate(email="new@example.org"))
            raise ZeroDivisionError

    assert await emails(library) == set()


async def test_sessionmaker_begin_is_opened(library: Database, application_sessions: ApplicationSessions) -> None:
    """Two services share the application's transaction."""
    with pytest.raises(ConflictError):
        async with application_sessions.begin() as session:
            await AuthorService(session).create(AuthorCreate(email="one@example.org"))
            await AuthorService(session).create(AuthorCreate(email="one@example.org"))

    assert await emails(library) == set()


async def test_reading_does_not_open(session: AsyncSession) -> None:
    """A transaction that a read has begun does not count as opened."""
    await session.execute(select(Author.id))

    assert session.in_transaction()
    assert not is_opened(session)


async def test_a_second_self_commit_of_a_request_is_reported_once_per_place(library: Database, caplog: pytest.LogCaptureFixture) -> None:
    """A second commit in a request logs a warning with both services and the remedy, once for each line."""

    async def handle(number: int) -> None:
        async with asynccontextmanager(library.get_session)() as session:
            author = await AuthorService(session).create(AuthorCreate(email=f"{number}@example.org"))
            await BookService(session).create({"title": "Book", "author_id": author.id})

    with caplog.at_level(logging.WARNING, logger="fastapi_kit.db"):
        await handle(1)
        await handle(2)

    (message,) = [record.getMessage() for record in caplog.records]
    assert "AuthorService.create and BookService.create" in message
    assert "test_transactions.py" in message
    assert "db.transaction" in message


async def test_the_log_says_who_committed(session: AsyncSession, caplog: pytest.LogCaptureFixture) -> None:
    """Each commit logs one debug line: a service, a unit or the application."""
    with caplog.at_level(logging.DEBUG, logger="fastapi_kit.db"):
        await TagService(session).create({"name": "a"})
        async with unit_of_work(session):
            await TagService(session).create({"name": "b"})
        session.add(Tag(name="c"))
        async with session.begin_nested():
            pass
        await session.commit()

    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert lines == ["commit by TagService.create", "commit by unit_of_work", "commit by the application"]


# A rejected write undoes itself and nothing else


async def test_rejected_with_no_transaction_leaves_the_session_idle(library: Database, session: AsyncSession, ada: Author) -> None:
    """A rejected write without a transaction stores nothing and leaves none open; the next statement works."""
    with pytest.raises(ConflictError):
        await AuthorService(session).create(AuthorCreate(email=ada.email))

    assert not session.in_transaction()
    await AuthorService(session).create(AuthorCreate(email="next@example.org"))
    assert await emails(library) == {ada.email, "next@example.org"}


async def test_rejected_after_application_work_keeps_the_application_work(library: Database, session: AsyncSession, ada: Author) -> None:
    """A rejected write keeps earlier flushed work of the application, which can be committed."""
    session.add(Author(email="flushed@example.org"))
    await session.flush()
    session.add(Author(email="pending@example.org"))

    with pytest.raises(ConflictError):
        await AuthorService(session).create(AuthorCreate(email=ada.email))

    assert session.in_transaction()
    await session.commit()
    assert await emails(library) == {ada.email, "flushed@example.org", "pending@example.org"}


async def test_rejected_after_application_work_commits_nothing(library: Database, session: AsyncSession, ada: Author) -> None:
    """A rejected write does not commit earlier work of the application."""
    session.add(Author(email="flushed@example.org"))

    with pytest.raises(ConflictError):
        await AuthorService(session).create(AuthorCreate(email=ada.email))
    await session.rollback()

    assert await emails(library) == {ada.email}


async def test_rejected_in_an_opened_transaction_undoes_only_itself(
    library: Database, application_sessions: ApplicationSessions, ada: Author
) -> None:
    """The application can catch the error, go on and commit the rest."""
    async with application_sessions() as session, session.begin():
        await AuthorService(session).create(AuthorCreate(email="first@example.org"))
        with pytest.raises(ConflictError):
            await AuthorService(session).create(AuthorCreate(email=ada.email))
        await AuthorService(session).create(AuthorCreate(email="second@example.org"))

    assert await emails(library) == {ada.email, "first@example.org", "second@example.org"}


@pytest.mark.parametrize("mode", ["create_savepoint", "conditional_savepoint", "rollback_only"])
async def test_rejected_on_a_bound_connection_leaves_its_transaction(library: Database, ada: Author, mode: JoinTransactionMode) -> None:
    """A session on a test's connection keeps the outer transaction, in every join mode."""
    async with library.engine.connect() as connection:
        outer = await connection.begin()
        session = AsyncSession(connection, expire_on_commit=False, join_transaction_mode=mode)
        await AuthorService(session).create(AuthorCreate(email="kept@example.org"))
        with pytest.raises(ConflictError):
            await AuthorService(session).create(AuthorCreate(email=ada.email))
        await AuthorService(session).create(AuthorCreate(email="after@example.org"))
        assert await AuthorService(session).count() == 3
        await session.close()
        await outer.rollback()

    assert await emails(library) == {ada.email}


async def test_an_error_of_the_applications_own_pending_rows_is_not_the_services(session: AsyncSession, ada: Author) -> None:
    """An error in pending rows of the application is raised as SQLAlchemy raises it."""
    session.add(Author(email=ada.email))

    with pytest.raises(IntegrityError):
        await AuthorService(session).create(AuthorCreate(email="innocent@example.org"))


async def test_a_failing_override_undoes_its_write_in_a_unit(library: Database, session: AsyncSession) -> None:
    """Any exception in an overridden method undoes a unit."""
    with pytest.raises(ZeroDivisionError):
        async with unit_of_work(session):
            await AuthorService(session).create(AuthorCreate(email="new@example.org"))
            raise ZeroDivisionError

    assert await emails(library) == set()


async def test_cancelled_writes_are_undone(library: Database, session: AsyncSession) -> None:
    """A cancelled unit stores nothing, and its session still works."""
    started = asyncio.Event()

    async def work() -> None:
        async with unit_of_work(session):
            await AuthorService(session).create(AuthorCreate(email="new@example.org"))
            started.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await AuthorService(session).count() == 0
    assert not session.in_transaction()


async def test_a_write_cancelled_again_and_again_is_undone(library: Database, session: AsyncSession, ada: Author) -> None:
    """A write in a cancelled scope of anyio is undone to the end."""
    user = await AuthorService(session).get_one(ada.id)

    with anyio.move_on_after(0.2) as scope:
        async with unit_of_work(session):
            await AuthorService(session).update(user.id, AuthorUpdate(name="Changed"))
            await asyncio.sleep(60)

    assert scope.cancelled_caught
    assert not session.in_transaction()
    assert (await AuthorService(session).get_one(ada.id)).name == "Ada"
    assert (await AuthorService(session).update(user.id, AuthorUpdate(name="Next"))).name == "Next"


# What was loaded stays readable


async def test_the_loaded_user_survives_a_rejected_update(session: AsyncSession, ada: Author) -> None:
    """The row of a rejected update reads as before, without SQL and unchanged."""
    other = await AuthorService(session).create(AuthorCreate(email="other@example.org", name="Other"))

    with pytest.raises(ConflictError):
        await AuthorService(session).update(other.id, AuthorUpdate(email=ada.email, name="Changed"))

    assert (other.email, other.name) == ("other@example.org", "Other")
    assert not session.dirty


async def test_the_target_survives_a_rejected_update_in_an_opened_transaction(session: AsyncSession, ada: Author) -> None:
    """The row of a rejected update in a transaction reads as before."""
    async with unit_of_work(session):
        other = await AuthorService(session).create(AuthorCreate(email="other@example.org", name="Other"))
        with pytest.raises(ConflictError):
            await AuthorService(session).update(other.id, AuthorUpdate(email=ada.email, name="Changed"))
        assert (other.email, other.name) == ("other@example.org", "Other")


async def test_a_loaded_collection_survives_a_rejected_insert(session: AsyncSession, ada: Author) -> None:
    """Collections stay loaded, without the rejected row."""
    await BookService(session).create({"title": "One", "author_id": ada.id})
    author = await AuthorService(session).get_one(ada.id, options=[selectinload(Author.books)])

    with pytest.raises(KitError):
        await BookService(session).create({"title": "Two", "author": author, "pages": -1})

    assert [book.title for book in author.books] == ["One"]
    assert author.name == "Ada"
    assert not session.dirty
    assert not session.new


async def test_what_was_loaded_survives_a_failed_commit(session: AsyncSession, ada: Author) -> None:
    """What was loaded is readable after a COMMIT that a deferred foreign key rejects."""
    author = await AuthorService(session).get_one(ada.id)

    with pytest.raises(UnknownReferenceError):
        await LoanService(session).create(LoanCreate(book_id=99))

    assert author.name == "Ada"
    assert not session.in_transaction()


async def test_what_was_loaded_survives_a_failed_commit_after_application_work(session: AsyncSession, ada: Author) -> None:
    """After a failed COMMIT earlier work of the application is undone too, and what was loaded is readable."""
    author = (await session.scalars(select(Author).where(Author.id == ada.id))).one()

    with pytest.raises(UnknownReferenceError):
        await LoanService(session).create(LoanCreate(book_id=99))

    assert author.name == "Ada"


async def test_what_was_loaded_survives_a_unit_that_fails(session: AsyncSession, ada: Author) -> None:
    """After a unit is undone what was loaded before is readable, and what was changed inside is read again."""
    user = await AuthorService(session).get_one(ada.id)
    other = await AuthorService(session).create(AuthorCreate(email="other@example.org", name="Other"))
    key = other.id

    with pytest.raises(ConflictError):
        async with unit_of_work(session):
            await AuthorService(session).update(key, {"name": "Changed"})
            await AuthorService(session).create(AuthorCreate(email=ada.email))

    assert user.name == "Ada"
    assert await AuthorService(session).get_one(key) is other
    assert other.name == "Other"


async def test_however_many_objects_are_loaded(session: AsyncSession, ada: Author) -> None:
    """With many loaded objects, all of them stay readable and none is copied."""
    tags = await TagService(session).create_many([{"name": f"tag {number}"} for number in range(5000)])

    with pytest.raises(ConflictError):
        await TagService(session).update(tags[1].id, {"name": "tag 0"})

    assert [tag.name for tag in tags] == [f"tag {number}" for number in range(5000)]


async def test_a_rejected_row_is_transient_again(session: AsyncSession, ada: Author) -> None:
    """An object of a rejected insert belongs to no session."""
    author = Author(email=ada.email)

    with pytest.raises(ConflictError):
        async with typed_errors(session):
            session.add(author)

    assert inspect(author).transient


# A session of the application with SQLAlchemy's defaults


async def test_rows_are_readable_after_a_write_on_a_default_session(application_sessions: ApplicationSessions) -> None:
    """Rows are readable after a commit of a service with expire_on_commit=True, which keeps its value."""
    async with application_sessions() as session:
        author = await AuthorService(session).create(AuthorCreate(email="new@example.org"))
        assert (author.id, author.email) == (1, "new@example.org")
        author = await AuthorService(session).update(author.id, AuthorUpdate(name="New"))
        assert author.name == "New"
        assert author.updated_at >= author.created_at
        rows = await AuthorService(session).create_many([{"email": "a@example.org"}, {"email": "b@example.org"}])
        assert [row.email for row in rows] == ["a@example.org", "b@example.org"]
        assert session.sync_session.expire_on_commit


# On_commit


async def test_hooks_run_in_order_after_the_outermost_commit(library: Database, session: AsyncSession) -> None:
    """Sync and async calls run once and in order, after the commit and without a connection."""
    seen: list[str] = []

    async def look(name: str) -> None:
        seen.append(f"{name} {sorted(await emails(library))} {session.in_transaction()}")

    async with unit_of_work(session) as outer:
        outer.on_commit(seen.append, "first")
        async with unit_of_work(session) as inner:
            await AuthorService(session).create(AuthorCreate(email="new@example.org"))
            inner.on_commit(look, "second")
        assert seen == []

    assert seen == ["first", "second ['new@example.org'] False"]


async def test_hooks_of_an_undone_unit_are_dropped(session: AsyncSession) -> None:
    """Calls of an undone unit are dropped; those outside of it run."""
    seen: list[str] = []

    async with unit_of_work(session) as outer:
        outer.on_commit(seen.append, "outer")
        async with unit_of_work(session) as inner:
            inner.on_commit(seen.append, "inner")
            async with unit_of_work(session) as innermost:
                innermost.on_commit(seen.append, "innermost")
            await inner.rollback()
    with pytest.raises(ZeroDivisionError):
        async with unit_of_work(session) as failing:
            failing.on_commit(seen.append, "failing")
            raise ZeroDivisionError
    await TagService(session).create({"name": "later"})

    assert seen == ["outer"]


async def test_a_hook_runs_after_a_self_committing_write(session: AsyncSession) -> None:
    """A call on an idle session waits for the next commit."""
    seen: list[str] = []
    on_commit(session, seen.append, "done")

    await TagService(session).count()
    assert seen == []
    await TagService(session).create({"name": "a"})

    assert seen == ["done"]


async def test_a_rejected_self_committing_write_drops_its_hooks(session: AsyncSession) -> None:
    """A call for a rejected write is not run by a later write."""
    seen: list[str] = []
    await TagService(session).create({"name": "a"})
    on_commit(session, seen.append, "never")

    with pytest.raises(ConflictError):
        await TagService(session).create({"name": "a"})
    await TagService(session).create({"name": "b"})

    assert seen == []


async def test_hooks_run_after_the_applications_own_commit(application_sessions: ApplicationSessions) -> None:
    """Calls run after commit() and after begin() of the application."""
    seen: list[str] = []

    async def later(name: str) -> None:
        await asyncio.sleep(0)
        seen.append(name)

    async with application_sessions() as session:
        session.add(Tag(name="a"))
        on_commit(session, later, "commit")
        await session.commit()
        async with session.begin():
            session.add(Tag(name="b"))
            on_commit(session, later, "begin")
        await session.execute(select(Tag.id))
        on_commit(session, later, "rolled back")
        await session.rollback()
        await session.commit()

    assert seen == ["commit", "begin"]


async def test_a_failing_hook_is_logged_and_stops_nothing(session: AsyncSession, caplog: pytest.LogCaptureFixture) -> None:
    """An error in a call is logged; the commit stays and the next call runs."""
    seen: list[str] = []

    async def fail() -> None:
        raise ZeroDivisionError

    async with unit_of_work(session) as uow:
        uow.on_commit(fail)
        uow.on_commit(seen.append, "next")
        await TagService(session).create({"name": "a"})

    assert seen == ["next"]
    assert "ZeroDivisionError" in caplog.text
    assert await TagService(session).count() == 1


# Several writes, one transaction


async def test_a_unit_that_fails_on_its_second_write_leaves_no_row(library: Database, session: AsyncSession, ada: Author) -> None:
    """A unit that fails stores nothing, also after a read has begun the transaction."""
    await session.execute(select(Author.id))

    with pytest.raises(ConflictError):
        async with unit_of_work(session):
            await AuthorService(session).create(AuthorCreate(email="first@example.org"))
            await AuthorService(session).create(AuthorCreate(email=ada.email))

    assert await emails(library) == {ada.email}


async def test_a_unit_undoes_only_itself(library: Database, session: AsyncSession) -> None:
    """Earlier flushed work of the application stays, and the application commits it."""
    session.add(Author(email="pending@example.org"))
    with pytest.raises(ZeroDivisionError):
        async with unit_of_work(session):
            await AuthorService(session).create(AuthorCreate(email="unit@example.org"))
            raise ZeroDivisionError
    await session.commit()

    assert await emails(library) == {"pending@example.org"}


async def test_rollback_leaves_the_unit_and_the_code_after_it_goes_on(library: Database, session: AsyncSession) -> None:
    """rollback() leaves the unit, also through ``except Exception``, and the code after it runs."""
    reached = False
    async with unit_of_work(session) as uow:
        await AuthorService(session).create(AuthorCreate(email="undone@example.org"))
        try:
            await uow.rollback()
        except Exception:
            pytest.fail("rollback() was caught as an error")
        reached = True
    await AuthorService(session).create(AuthorCreate(email="kept@example.org"))

    assert not reached
    assert await emails(library) == {"kept@example.org"}


async def test_rollback_of_the_outer_unit_leaves_both(library: Database, session: AsyncSession) -> None:
    """rollback() of the outer unit leaves the inner one too."""
    async with unit_of_work(session) as outer, unit_of_work(session):
        await AuthorService(session).create(AuthorCreate(email="undone@example.org"))
        await outer.rollback()

    assert await emails(library) == set()


@pytest.mark.parametrize("by_hand", ["commit", "rollback"])
async def test_ending_the_transaction_inside_a_unit_is_an_error(session: AsyncSession, by_hand: str) -> None:
    """commit() or rollback() of the session inside a unit raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match="inside the block"):
        async with unit_of_work(session):
            await AuthorService(session).create(AuthorCreate(email="new@example.org"))
            await getattr(session, by_hand)()

    assert not session.in_transaction()


async def test_typed_errors_are_for_statements_of_the_application(session: AsyncSession, ada: Author) -> None:
    """Statements of the application get the library's error and undo, and the application commits."""
    with pytest.raises(ConflictError) as caught:
        async with typed_errors(session):
            session.add(Author(email=ada.email))

    assert caught.value.fields == ("email",)
    assert await AuthorService(session).count() == 1


class DeadlockError(Exception):
    """An error with the code of PostgreSQL's deadlock."""

    sqlstate = "40P01"


async def test_a_unit_is_tried_again_with_a_fresh_session(library: Database) -> None:
    """A retry has a new session, and the first attempt is undone."""
    seen: list[AsyncSession] = []

    async def work(session: AsyncSession) -> str:
        seen.append(session)
        await TagService(session).create({"name": "a"})
        if len(seen) < 3:
            raise DBAPIError("", None, DeadlockError())
        return "done"

    assert await run_transaction(library.begin, work) == "done"
    assert len({id(session) for session in seen}) == 3
    async with library.begin() as session:
        assert await TagService(session).count() == 1


@pytest.mark.parametrize(("error", "attempts"), [(DBAPIError("", None, DeadlockError()), 2), (ZeroDivisionError(), 1)])
async def test_only_so_often_and_only_for_what_may_pass(library: Database, error: Exception, attempts: int) -> None:
    """The last failure is raised; errors other than a deadlock or serialization failure are raised at once."""
    seen: list[AsyncSession] = []

    async def work(session: AsyncSession) -> None:
        seen.append(session)
        raise error

    with pytest.raises(type(error)):
        await run_transaction(library.begin, work, attempts=2)

    assert len(seen) == attempts


# Errors while committing


async def test_a_failed_commit_of_a_write_is_typed_and_half_written_nothing(library: Database, session: AsyncSession) -> None:
    """A failed COMMIT of a write raises the library's error and stores nothing; the session still works."""
    with pytest.raises(UnknownReferenceError):
        await LoanService(session).create(LoanCreate(book_id=99))

    assert await LoanService(session).count() == 0
    await AuthorService(session).create(AuthorCreate(email="next@example.org"))
    assert await emails(library) == {"next@example.org"}


async def test_a_failed_commit_of_a_unit_is_typed(library: Database, session: AsyncSession) -> None:
    """A failed COMMIT of a unit raises the library's error and stores nothing."""
    with pytest.raises(UnknownReferenceError):
        async with unit_of_work(session):
            await AuthorService(session).create(AuthorCreate(email="undone@example.org"))
            await LoanService(session).create(LoanCreate(book_id=99))

    assert await emails(library) == set()


async def test_a_failed_commit_of_begin_is_typed_and_the_connection_is_whole(library: Database) -> None:
    """A failed COMMIT of db.begin() raises the library's error, and the next transaction works."""
    with pytest.raises(UnknownReferenceError):
        async with library.begin() as session:
            await LoanService(session).create(LoanCreate(book_id=99))

    async with library.begin() as session:
        await AuthorService(session).create(AuthorCreate(email="next@example.org"))
    assert await emails(library) == {"next@example.org"}


async def test_a_lost_connection_is_unavailable_and_the_session_recovers(postgres_database: Database) -> None:
    """A connection that is lost inside a unit raises UnavailableError, and the next write works."""
    await postgres_database.create_tables(LibraryBase.metadata)
    async with asynccontextmanager(postgres_database.get_session)() as session:
        with pytest.raises(UnavailableError):
            async with unit_of_work(session):
                await AuthorService(session).create(AuthorCreate(email="undone@example.org"))
                await _kill_connection_of(session, postgres_database)
                await AuthorService(session).create(AuthorCreate(email="never@example.org"))
        await AuthorService(session).create(AuthorCreate(email="next@example.org"))

    assert await emails(postgres_database) == {"next@example.org"}


async def _kill_connection_of(session: AsyncSession, database: Database) -> None:
    pid = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    async with database.begin() as other:
        await other.execute(select(func.pg_terminate_backend(pid)))
