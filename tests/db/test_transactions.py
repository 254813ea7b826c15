"""Who commits, what a rejected write undoes, what stays readable."""

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
from tests.models import (
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
    """What another session sees: what is committed."""
    async with library.begin() as session:
        return set(await session.scalars(select(Author.email)))


@pytest.fixture
async def ada(library: Database) -> Author:
    """An author who is in the database already."""
    async with library.begin() as session:
        return await AuthorService(session).create({"email": "ada@example.org", "name": "Ada"})


# Opened or not


async def test_a_write_in_a_session_nobody_opened_commits_itself(library: Database, session: AsyncSession) -> None:
    """The row is there for others as soon as the service returns."""
    await AuthorService(session).create(AuthorCreate(email="new@example.org"))

    assert await emails(library) == {"new@example.org"}
    assert not session.in_transaction()


async def test_a_service_in_an_app_whose_get_db_never_commits_loses_no_write(
    library: Database, application_sessions: ApplicationSessions
) -> None:
    """On the host's plain session too."""
    async with application_sessions() as session:
        author = await AuthorService(session).create(AuthorCreate(email="new@example.org"))
        await AuthorService(session).update(author.id, AuthorUpdate(name="New"))

    async with application_sessions() as session:
        assert (await session.scalars(select(Author.name))).one() == "New"


async def test_a_success_commits_what_the_host_had_pending(library: Database, session: AsyncSession) -> None:
    """Exactly as session.commit() would."""
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
    """A service inside begin(), begin_nested() or a unit only flushes; the opener's commit keeps it."""
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
    """Nothing that a service did outlives the opener's rollback, on the stock SQLite driver either."""
    assert callable(opened)
    with pytest.raises(ZeroDivisionError):
        async with application_sessions() as session, opened(session):
            await AuthorService(session).create(AuthorCreate(email="new@example.org"))
            raise ZeroDivisionError

    assert await emails(library) == set()


async def test_sessionmaker_begin_is_opened(library: Database, application_sessions: ApplicationSessions) -> None:
    """Two services compose into the host's one transaction."""
    with pytest.raises(ConflictError):
        async with application_sessions.begin() as session:
            await AuthorService(session).create(AuthorCreate(email="one@example.org"))
            await AuthorService(session).create(AuthorCreate(email="one@example.org"))

    assert await emails(library) == set()


async def test_reading_does_not_open(session: AsyncSession) -> None:
    """A transaction that began by itself is nobody's."""
    await session.execute(select(Author.id))

    assert session.in_transaction()
    assert not is_opened(session)


async def test_a_second_self_commit_of_a_request_is_reported_once_per_place(library: Database, caplog: pytest.LogCaptureFixture) -> None:
    """The log names both services and the cure."""

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
    """One debug line per commit: a service, a unit or the host."""
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
    """Nothing is stored, no transaction stays, the next statement works."""
    with pytest.raises(ConflictError):
        await AuthorService(session).create(AuthorCreate(email=ada.email))

    assert not session.in_transaction()
    await AuthorService(session).create(AuthorCreate(email="next@example.org"))
    assert await emails(library) == {ada.email, "next@example.org"}


async def test_rejected_after_application_work_keeps_the_application_work(library: Database, session: AsyncSession, ada: Author) -> None:
    """What the host added and flushed stays, uncommitted; committing it works."""
    session.add(Author(email="flushed@example.org"))
    await session.flush()
    session.add(Author(email="pending@example.org"))

    with pytest.raises(ConflictError):
        await AuthorService(session).create(AuthorCreate(email=ada.email))

    assert session.in_transaction()
    await session.commit()
    assert await emails(library) == {ada.email, "flushed@example.org", "pending@example.org"}


async def test_rejected_after_application_work_commits_nothing(library: Database, session: AsyncSession, ada: Author) -> None:
    """A rejection does not commit the host's work either."""
    session.add(Author(email="flushed@example.org"))

    with pytest.raises(ConflictError):
        await AuthorService(session).create(AuthorCreate(email=ada.email))
    await session.rollback()

    assert await emails(library) == {ada.email}


async def test_rejected_in_an_opened_transaction_undoes_only_itself(
    library: Database, application_sessions: ApplicationSessions, ada: Author
) -> None:
    """The host catches the error, goes on and commits the rest."""
    async with application_sessions() as session, session.begin():
        await AuthorService(session).create(AuthorCreate(email="first@example.org"))
        with pytest.raises(ConflictError):
            await AuthorService(session).create(AuthorCreate(email=ada.email))
        await AuthorService(session).create(AuthorCreate(email="second@example.org"))

    assert await emails(library) == {ada.email, "first@example.org", "second@example.org"}


@pytest.mark.parametrize("mode", ["create_savepoint", "conditional_savepoint", "rollback_only"])
async def test_rejected_on_a_bound_connection_leaves_its_transaction(library: Database, ada: Author, mode: JoinTransactionMode) -> None:
    """A fixture's session on one connection keeps its outer transaction, however it joins it."""
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
    """It comes as SQLAlchemy raised it, and before the service's savepoint."""
    session.add(Author(email=ada.email))

    with pytest.raises(IntegrityError):
        await AuthorService(session).create(AuthorCreate(email="innocent@example.org"))


async def test_a_failing_override_undoes_its_write_in_a_unit(library: Database, session: AsyncSession) -> None:
    """Any exception undoes a unit, not only the database's."""
    with pytest.raises(ZeroDivisionError):
        async with unit_of_work(session):
            await AuthorService(session).create(AuthorCreate(email="new@example.org"))
            raise ZeroDivisionError

    assert await emails(library) == set()


async def test_cancelled_writes_are_undone(library: Database, session: AsyncSession) -> None:
    """A cancelled unit leaves no row, and its session goes on working."""
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
    """A cancel scope, as of a request that timed out, cancels every await; the undo is finished all the same."""
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
    """The target of a rejected UPDATE reads as before, with no statement and nothing dirty."""
    other = await AuthorService(session).create(AuthorCreate(email="other@example.org", name="Other"))

    with pytest.raises(ConflictError):
        await AuthorService(session).update(other.id, AuthorUpdate(email=ada.email, name="Changed"))

    assert (other.email, other.name) == ("other@example.org", "Other")
    assert not session.dirty


async def test_the_target_survives_a_rejected_update_in_an_opened_transaction(session: AsyncSession, ada: Author) -> None:
    """ROLLBACK TO expires the target; it is put back as well."""
    async with unit_of_work(session):
        other = await AuthorService(session).create(AuthorCreate(email="other@example.org", name="Other"))
        with pytest.raises(ConflictError):
            await AuthorService(session).update(other.id, AuthorUpdate(email=ada.email, name="Changed"))
        assert (other.email, other.name) == ("other@example.org", "Other")


async def test_a_loaded_collection_survives_a_rejected_insert(session: AsyncSession, ada: Author) -> None:
    """Relationships stay loaded, and the rejected row is not among them."""
    await BookService(session).create({"title": "One", "author_id": ada.id})
    author = await AuthorService(session).get_one(ada.id, options=[selectinload(Author.books)])

    with pytest.raises(KitError):
        await BookService(session).create({"title": "Two", "author": author, "pages": -1})

    assert [book.title for book in author.books] == ["One"]
    assert author.name == "Ada"
    assert not session.dirty
    assert not session.new


async def test_what_was_loaded_survives_a_failed_commit(session: AsyncSession, ada: Author) -> None:
    """A deferred foreign key fails at COMMIT; the rollback of all expires nothing that was loaded."""
    author = await AuthorService(session).get_one(ada.id)

    with pytest.raises(UnknownReferenceError):
        await LoanService(session).create(LoanCreate(book_id=99))

    assert author.name == "Ada"
    assert not session.in_transaction()


async def test_what_was_loaded_survives_a_failed_commit_after_application_work(session: AsyncSession, ada: Author) -> None:
    """The same where the host's transaction had begun: its work is undone with the rest, its loaded rows stay readable."""
    author = (await session.scalars(select(Author).where(Author.id == ada.id))).one()

    with pytest.raises(UnknownReferenceError):
        await LoanService(session).create(LoanCreate(book_id=99))

    assert author.name == "Ada"


async def test_what_was_loaded_survives_a_unit_that_fails(session: AsyncSession, ada: Author) -> None:
    """After a unit is rolled back the current user can still be read; what was changed inside is read again."""
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
    """Nothing is copied, and untouched objects stay readable."""
    tags = await TagService(session).create_many([{"name": f"tag {number}"} for number in range(5000)])

    with pytest.raises(ConflictError):
        await TagService(session).update(tags[1].id, {"name": "tag 0"})

    assert [tag.name for tag in tags] == [f"tag {number}" for number in range(5000)]


async def test_a_rejected_row_is_transient_again(session: AsyncSession, ada: Author) -> None:
    """What was new inside the undone part belongs to no session."""
    author = Author(email=ada.email)

    with pytest.raises(ConflictError):
        async with typed_errors(session):
            session.add(author)

    assert inspect(author).transient


# The host's session may be SQLAlchemy's default


async def test_rows_are_readable_after_a_write_on_a_default_session(application_sessions: ApplicationSessions) -> None:
    """Expire_on_commit=True expires nothing of a service's own commit, and is what it was afterwards."""
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
    """Sync and async ones, once each, when the row is there for others and no connection is held."""
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
    """With their savepoint or transaction; those around it run."""
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
    """Queued on an idle session it waits for the next commit, reads do not count."""
    seen: list[str] = []
    on_commit(session, seen.append, "done")

    await TagService(session).count()
    assert seen == []
    await TagService(session).create({"name": "a"})

    assert seen == ["done"]


async def test_a_rejected_self_committing_write_drops_its_hooks(session: AsyncSession) -> None:
    """What was queued for it is not run by a later write."""
    seen: list[str] = []
    await TagService(session).create({"name": "a"})
    on_commit(session, seen.append, "never")

    with pytest.raises(ConflictError):
        await TagService(session).create({"name": "a"})
    await TagService(session).create({"name": "b"})

    assert seen == []


async def test_hooks_run_after_the_applications_own_commit(application_sessions: ApplicationSessions) -> None:
    """Whoever commits, by commit() or by leaving begin()."""
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
    """The commit stands, the next hook runs."""
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
    """After a read, and on a transaction that began by itself."""
    await session.execute(select(Author.id))

    with pytest.raises(ConflictError):
        async with unit_of_work(session):
            await AuthorService(session).create(AuthorCreate(email="first@example.org"))
            await AuthorService(session).create(AuthorCreate(email=ada.email))

    assert await emails(library) == {ada.email}


async def test_a_unit_undoes_only_itself(library: Database, session: AsyncSession) -> None:
    """What the host flushed before stays, for the host to commit."""
    session.add(Author(email="host@example.org"))
    with pytest.raises(ZeroDivisionError):
        async with unit_of_work(session):
            await AuthorService(session).create(AuthorCreate(email="unit@example.org"))
            raise ZeroDivisionError
    await session.commit()

    assert await emails(library) == {"host@example.org"}


async def test_rollback_leaves_the_unit_and_the_code_after_it_goes_on(library: Database, session: AsyncSession) -> None:
    """Not even ``except Exception`` inside keeps it from leaving."""
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
    """The inner block is left on the way."""
    async with unit_of_work(session) as outer, unit_of_work(session):
        await AuthorService(session).create(AuthorCreate(email="undone@example.org"))
        await outer.rollback()

    assert await emails(library) == set()


@pytest.mark.parametrize("by_hand", ["commit", "rollback"])
async def test_ending_the_transaction_inside_a_unit_is_loud(session: AsyncSession, by_hand: str) -> None:
    """A unit that was committed or rolled back by hand cannot keep its promise, and says so."""
    with pytest.raises(ConfigurationError, match="inside the block"):
        async with unit_of_work(session):
            await AuthorService(session).create(AuthorCreate(email="new@example.org"))
            await getattr(session, by_hand)()

    assert not session.in_transaction()


async def test_typed_errors_types_a_applications_own_statements(session: AsyncSession, ada: Author) -> None:
    """Hand-written code gets the same error and the same undo, and commits by itself."""
    with pytest.raises(ConflictError) as caught:
        async with typed_errors(session):
            session.add(Author(email=ada.email))

    assert caught.value.fields == ("email",)
    assert await AuthorService(session).count() == 1


class DeadlockError(Exception):
    """What PostgreSQL's driver raises, for the tests of who tries again."""

    sqlstate = "40P01"


async def test_a_unit_is_tried_again_with_a_fresh_session(library: Database) -> None:
    """What the first attempt wrote is undone, and each gets a session of its own."""
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
    """The last failure is raised; anything but a deadlock or a serialization failure at once."""
    seen: list[AsyncSession] = []

    async def work(session: AsyncSession) -> None:
        seen.append(session)
        raise error

    with pytest.raises(type(error)):
        await run_transaction(library.begin, work, attempts=2)

    assert len(seen) == attempts


# Errors while committing


async def test_a_failed_commit_of_a_write_is_typed_and_half_written_nothing(library: Database, session: AsyncSession) -> None:
    """The constraint's own error; the same session and pool go on."""
    with pytest.raises(UnknownReferenceError):
        await LoanService(session).create(LoanCreate(book_id=99))

    assert await LoanService(session).count() == 0
    await AuthorService(session).create(AuthorCreate(email="next@example.org"))
    assert await emails(library) == {"next@example.org"}


async def test_a_failed_commit_of_a_unit_is_typed(library: Database, session: AsyncSession) -> None:
    """Nothing of the unit stays."""
    with pytest.raises(UnknownReferenceError):
        async with unit_of_work(session):
            await AuthorService(session).create(AuthorCreate(email="undone@example.org"))
            await LoanService(session).create(LoanCreate(book_id=99))

    assert await emails(library) == set()


async def test_a_failed_commit_of_begin_is_typed_and_the_connection_is_whole(library: Database) -> None:
    """The next transaction on the pool works."""
    with pytest.raises(UnknownReferenceError):
        async with library.begin() as session:
            await LoanService(session).create(LoanCreate(book_id=99))

    async with library.begin() as session:
        await AuthorService(session).create(AuthorCreate(email="next@example.org"))
    assert await emails(library) == {"next@example.org"}


async def test_a_lost_connection_is_unavailable_and_the_session_recovers(postgres_database: Database) -> None:
    """Its server process killed in the middle of a unit, the unit is gone and the next write works."""
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
