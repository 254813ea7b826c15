"""The session of a request: when it commits, when its connection is returned, and what errors leave."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Literal

import anyio
import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from sqlalchemy import Integer, delete, func, insert, inspect, select, text, union, update
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import Message, Receive, Scope, Send
from tests.tables.library import Author, AuthorCreate, AuthorService, BookService, Loan, LoanCreate, LoanService, Tag, TagService

from fastapi_kit.crud import FOR_UPDATE
from fastapi_kit.db import Database, DatabaseOptions, on_commit, unit_of_work
from fastapi_kit.db.transactions import UnitOfWork
from fastapi_kit.errors import KitError, UnknownReferenceError
from fastapi_kit.testing import isolated

App = Callable[[Scope, Receive, Send], Awaitable[None]]


async def count(library: Database) -> int:
    async with library.begin() as session:
        return await AuthorService(session).count()


@asynccontextmanager
async def client_of(app: App) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="https://test") as client:
        yield client


class Watch:
    """Notes, when the response starts, how many connections are in use and how many authors others see."""

    def __init__(self, app: App, library: Database) -> None:
        self.app, self.library = app, library
        self.connections_out = -1
        self.authors = -1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watching(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.connections_out = checked_out(self.library)
                self.authors = await count(self.library)
            await send(message)

        await self.app(scope, receive, watching)


def checked_out(library: Database) -> int:
    pool: Any = library.engine.pool
    return int(pool.checkedout())


async def post(library: Database, handler: Callable[..., Awaitable[object]]) -> tuple[Watch, httpx.Response]:
    app = FastAPI()
    app.post("/")(handler)
    watch = Watch(app, library)
    async with client_of(watch) as client:
        return watch, await client.post("/")


async def test_a_self_committed_write_is_stored_before_the_response_starts(library: Database) -> None:
    """A write is committed and its connection returned before the response starts."""

    async def handler(session: Annotated[AsyncSession, library.session]) -> int:
        return (await AuthorService(session).create(AuthorCreate(email="new@example.org"))).id

    watch, response = await post(library, handler)

    assert response.status_code == 200
    assert (watch.authors, watch.connections_out) == (1, 0)


async def test_a_request_transaction_is_committed_before_the_response_starts(library: Database) -> None:
    """db.transaction commits the whole request, and runs on_commit calls, before the response starts."""
    seen: list[str] = []

    async def handler(session: Annotated[AsyncSession, library.transaction]) -> int:
        author = await AuthorService(session).create(AuthorCreate(email="new@example.org"))
        await BookService(session).create({"title": "One", "author_id": author.id})
        on_commit(session, seen.append, "committed")
        assert await count(library) == 0
        return author.id

    watch, response = await post(library, handler)

    assert response.status_code == 200
    assert (watch.authors, watch.connections_out, seen) == (1, 0, ["committed"])


@pytest.mark.parametrize("error", [HTTPException(409), ZeroDivisionError("bug")])
async def test_a_request_transaction_is_rolled_back_on_any_exception(library: Database, error: Exception) -> None:
    """Any exception rolls db.transaction back, HTTPException included."""

    async def handler(session: Annotated[AsyncSession, library.transaction]) -> None:
        await AuthorService(session).create(AuthorCreate(email="new@example.org"))
        raise error

    watch, response = await post(library, handler)

    assert response.status_code in {409, 500}
    assert (watch.authors, watch.connections_out) == (0, 0)


async def test_a_request_has_one_session(library: Database) -> None:
    """db.session, db.transaction and Depends(get_session) give a request the same session."""

    async def current_user(session: Annotated[AsyncSession, library.session]) -> AsyncSession:
        await AuthorService(session).get(1)
        return session

    async def handler(
        one: Annotated[AsyncSession, library.session],
        user: Annotated[AsyncSession, Depends(current_user)],
        two: Annotated[AsyncSession, library.transaction],
        three: Annotated[AsyncSession, Depends(library.get_session, scope="function")],
    ) -> bool:
        return one is user is two is three

    _, response = await post(library, handler)

    assert response.json() is True


async def test_the_marker_may_stand_inside_depends(library: Database) -> None:
    """Depends(db.session) gives the same session, and closes it before the response."""

    async def handler(
        one: Annotated[AsyncSession, library.session],
        two: AsyncSession = Depends(library.session),
        three: AsyncSession = Depends(library.transaction, scope="function"),
        four: AsyncSession = Depends(library.session, use_cache=False),
    ) -> bool:
        await AuthorService(two).create(AuthorCreate(email="two@example.org"))
        return one is two is three is four

    watch, response = await post(library, handler)

    assert response.json() is True
    assert (watch.authors, watch.connections_out) == (1, 0)


async def test_a_request_transaction_works_after_the_user_was_loaded_by_hand(library: Database) -> None:
    """A read of the application before db.transaction does not change that the handler's writes are one transaction."""

    async def current_user(session: Annotated[AsyncSession, library.session]) -> Author | None:
        return (await session.scalars(select(Author))).first()

    async def handler(
        session: Annotated[AsyncSession, library.transaction], user: Annotated[object, Depends(current_user)], fail: bool = False
    ) -> None:
        await AuthorService(session).create(AuthorCreate(email="one@example.org"))
        await AuthorService(session).create(AuthorCreate(email="one@example.org" if fail else "two@example.org"))

    app = FastAPI()
    app.post("/")(handler)
    async with client_of(app) as client:
        assert (await client.post("/", params={"fail": True})).status_code == 500
        assert await count(library) == 0
        assert (await client.post("/")).status_code == 200
        assert await count(library) == 2


async def test_a_transaction_that_is_left_open_is_rolled_back(library: Database) -> None:
    """A transaction that a request leaves open is rolled back, and its connection is clean."""

    async def handler(session: Annotated[AsyncSession, library.session]) -> None:
        session.add(Author(email="forgotten@example.org"))
        await session.flush()

    watch, response = await post(library, handler)

    assert response.status_code == 500
    assert (watch.authors, watch.connections_out) == (0, 0)


async def test_a_failed_commit_is_the_clients_error_and_the_next_request_works(library: Database) -> None:
    """A failed COMMIT is answered with 409, and the next request works on a pool of one."""
    single = Database(library.engine.url, options=_one_connection())
    app = FastAPI()

    @app.post("/loans/{book_id}")
    async def lend(book_id: int, session: Annotated[AsyncSession, single.transaction]) -> int:
        return (await LoanService(session).create(LoanCreate(book_id=book_id))).id

    @app.post("/authors")
    async def create(session: Annotated[AsyncSession, single.session]) -> int:
        return (await AuthorService(session).create(AuthorCreate(email="new@example.org"))).id

    @app.exception_handler(KitError)
    async def answer(_request: object, error: Exception) -> httpx.Response | Any:
        assert isinstance(error, UnknownReferenceError)
        raise HTTPException(422)

    async with client_of(app) as client:
        assert (await client.post("/loans/99")).status_code >= 400
        assert (await client.post("/authors")).status_code == 200
    await single.dispose()

    assert await count(library) == 1


async def test_a_failed_commit_of_the_application_leaves_a_clean_connection(library: Database) -> None:
    """The next request does not get the rows of a failed COMMIT on SQLite."""
    single = Database(library.engine.url, options=_one_connection())
    app = FastAPI()

    @app.post("/loans")
    async def lend(session: Annotated[AsyncSession, single.session]) -> None:
        session.add(Loan(book_id=99))
        await session.commit()

    @app.post("/authors")
    async def create(session: Annotated[AsyncSession, single.session]) -> None:
        session.add(Author(email="new@example.org"))
        await session.commit()

    async with client_of(app) as client:
        assert (await client.post("/loans")).status_code == 500
        assert (await client.post("/authors")).status_code == 200
    await single.dispose()

    assert await count(library) == 1


async def test_a_cancelled_transaction_gives_its_connection_back_alive(postgres_database: Database) -> None:
    """A cancelled transaction returns its connection, which the next session uses."""
    single = Database(postgres_database.engine.url, options=_one_connection())
    backends = [await _backend_of(single)]
    with anyio.move_on_after(0.2) as scope:
        async with single.begin() as session:
            backends.append((await session.scalars(text("SELECT pg_backend_pid()"))).one())
            await asyncio.sleep(60)
    backends.append(await _backend_of(single))
    await single.dispose()

    assert scope.cancelled_caught
    assert len(set(backends)) == 1


async def _backend_of(database: Database) -> int:
    async with database.begin() as session:
        return (await session.scalars(text("SELECT pg_backend_pid()"))).one()


async def test_no_connection_is_held_after_a_read(library: Database) -> None:
    """After a read no connection is in use."""

    async def handler(session: Annotated[AsyncSession, library.session]) -> int:
        await AuthorService(session).list()
        return checked_out(library)

    _, response = await post(library, handler)

    assert response.json() == 0


async def test_no_connection_is_held_while_a_background_task_runs(library: Database) -> None:
    """The session is closed before background tasks run."""
    held: list[int] = []

    async def task() -> None:
        held.append(checked_out(library))

    async def handler(session: Annotated[AsyncSession, library.session], background: BackgroundTasks) -> None:
        await session.execute(text("SELECT 1"))
        background.add_task(task)

    await post(library, handler)

    assert held == [0]


async def test_a_streamed_body_takes_a_session_of_its_own(library: Database) -> None:
    """db.begin() works in a streamed body, after the session of the request is closed."""
    async with library.begin() as session:
        await AuthorService(session).create_many([{"email": f"{number}@example.org"} for number in range(5)])

    async def lines() -> AsyncIterator[str]:
        async with library.begin() as session:
            async for author in AuthorService(session).stream(batch_size=2):
                yield f"{author.email}\n"

    async def handler() -> StreamingResponse:
        return StreamingResponse(lines())

    _, response = await post(library, handler)

    assert response.text == "".join(f"{number}@example.org\n" for number in range(5))
    assert checked_out(library) == 0


async def test_a_bare_get_session_is_overridable(library: Database) -> None:
    """``dependency_overrides[db.get_session]`` applies to every marker."""
    app = FastAPI()

    @app.post("/")
    async def handler(session: Annotated[AsyncSession, library.session]) -> str:
        return str(session)

    app.dependency_overrides[library.get_session] = lambda: "another"
    async with client_of(app) as client:
        assert (await client.post("/")).json() == "another"


async def test_a_client_that_leaves_gives_the_connection_back(library: Database) -> None:
    """A request that is cancelled in its transaction stores nothing and returns its connection."""
    app, inside = FastAPI(), asyncio.Event()

    @app.post("/")
    async def handler(session: Annotated[AsyncSession, library.transaction]) -> None:
        await AuthorService(session).create(AuthorCreate(email="new@example.org"))
        inside.set()
        await asyncio.sleep(60)

    async with client_of(app) as client:
        request = asyncio.create_task(client.post("/"))
        await inside.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    assert checked_out(library) == 0
    assert await count(library) == 0


async def test_two_databases_work_side_by_side(library: Database, tmp_path: Any) -> None:
    """A request can have a session of each of two databases, and each commits."""
    other = Database(f"sqlite+aiosqlite:///{tmp_path / 'other.db'}")
    await other.create_tables(Author.metadata)

    async def handler(here: Annotated[AsyncSession, library.session], there: Annotated[AsyncSession, other.session]) -> None:
        await AuthorService(here).create(AuthorCreate(email="here@example.org"))
        await AuthorService(there).create_many([{"email": "a@example.org"}, {"email": "b@example.org"}])

    await post(library, handler)

    assert (await count(library), await count(other)) == (1, 2)
    await other.dispose()


# --- Who commits: what was written and not committed is an error before the response. ---

Work = Callable[[AsyncSession], Awaitable[object]]


async def _added(session: AsyncSession) -> None:
    session.add(Tag(name="x"))
    await session.flush()


async def _changed(session: AsyncSession) -> None:
    (await session.get_one(Tag, 1)).weight = 5
    await session.scalars(select(Tag.id))


async def _added_and_not_flushed(session: AsyncSession) -> None:
    session.add(Tag(name="x"))


async def _deleted_and_not_flushed(session: AsyncSession) -> None:
    await session.delete(await session.get_one(Tag, 1))


async def _in_a_savepoint(session: AsyncSession) -> None:
    async with session.begin_nested():
        session.add(Tag(name="x"))


async def _on_the_connection(session: AsyncSession) -> None:
    await (await session.connection()).execute(insert(Tag).values(name="x"))


async def _after_a_service(session: AsyncSession) -> None:
    await TagService(session).create({"name": "y"})
    await session.execute(insert(Tag).values(name="x"))


def _sql(statement: str) -> Work:
    return lambda session: session.execute(text(statement))


WRITTEN: dict[str, Work] = {
    "flush": _added,
    "add": _added_and_not_flushed,
    "mark as deleted": _deleted_and_not_flushed,
    "autoflush of a change": _changed,
    "savepoint": _in_a_savepoint,
    "connection": _on_the_connection,
    "after a service's own commit": _after_a_service,
    "insert": lambda session: session.execute(insert(Tag).values(name="x")),
    "insert returning": lambda session: session.scalars(insert(Tag).values(name="x").returning(Tag)),
    "many rows": lambda session: session.execute(insert(Tag), [{"name": "x"}, {"name": "y"}]),
    "table": lambda session: session.execute(Tag.__table__.insert().values(name="x")),  # type: ignore[attr-defined]
    "update": lambda session: session.execute(update(Tag).values(weight=5)),
    "delete": lambda session: session.execute(delete(Tag)),
    "bulk": lambda session: session.run_sync(lambda sync: sync.bulk_insert_mappings(inspect(Tag), [{"name": "x"}])),
    "from_statement": lambda session: session.scalars(select(Tag).from_statement(insert(Tag).values(name="x").returning(Tag))),
    "text": _sql("INSERT INTO tags (name) VALUES ('x')"),
    "text after comments": _sql("/* one */ -- two\n  UPDATE tags SET weight = 5"),
    "text with columns": lambda session: session.execute(text("DELETE FROM tags RETURNING id").columns(id=Integer)),
    "text WITH": _sql("WITH new AS (SELECT 'x' AS name) INSERT INTO tags (name) SELECT name FROM new"),
    "text CREATE": _sql("CREATE TABLE others (id int)"),
    "service in begin_nested": lambda session: _service_in_a_savepoint(session),
}
WRITTEN_ON_POSTGRES: dict[str, Work] = {
    "CTE": lambda session: session.execute(select(insert(Tag).values(name="x").returning(Tag.id).cte())),
    "text CTE": _sql("WITH gone AS (DELETE FROM tags RETURNING id) SELECT count(*) FROM gone"),
    "text CTE that updates": _sql("WITH changed AS (UPDATE tags SET weight = 5 RETURNING id) SELECT count(*) FROM changed"),
    "text DO": _sql("DO $$ BEGIN DELETE FROM tags; END $$"),
    "text MERGE": _sql("MERGE INTO tags USING (SELECT 9 AS id) n ON tags.id = n.id WHEN NOT MATCHED THEN INSERT (name) VALUES ('x')"),
}


async def _service_in_a_savepoint(session: AsyncSession) -> None:
    async with session.begin_nested():
        await TagService(session).create({"name": "x"})


async def _committed(session: AsyncSession) -> None:
    await _added(session)
    await session.commit()


async def _rolled_back(session: AsyncSession) -> None:
    await _added(session)
    await session.rollback()


async def _savepoint_rolled_back(session: AsyncSession) -> None:
    savepoint = await session.begin_nested()
    await session.execute(insert(Tag).values(name="x"))
    await savepoint.rollback()


async def _savepoint_rejected(session: AsyncSession) -> None:
    with suppress(IntegrityError):
        async with session.begin_nested():
            session.add(Tag(name="one"))
    with suppress(IntegrityError):
        async with session.begin_nested():
            await session.execute(insert(Tag).values(name="one"))


async def _rejected(session: AsyncSession) -> None:
    with suppress(IntegrityError):
        await session.execute(insert(Tag).values(name="one"))


async def _rejected_by_the_service(session: AsyncSession) -> None:
    await session.scalars(select(Tag))
    with suppress(KitError):
        await TagService(session).create({"name": "one"})


async def _begun(session: AsyncSession) -> None:
    async with session.begin():
        await session.execute(insert(Tag).values(name="x"))


async def _begun_and_undone(session: AsyncSession) -> None:
    with suppress(ZeroDivisionError):
        async with session.begin():
            await session.execute(insert(Tag).values(name="x"))
            raise ZeroDivisionError


async def _unit(session: AsyncSession) -> None:
    await session.scalars(select(Tag))
    async with unit_of_work(session):
        await TagService(session).create({"name": "x"})


FINE: dict[str, Work] = {
    "commit": _committed,
    "rollback": _rolled_back,
    "savepoint rolled back": _savepoint_rolled_back,
    "savepoint rejected": _savepoint_rejected,
    "statement rejected": _rejected,
    "service rejected": _rejected_by_the_service,
    "begin": _begun,
    "begin undone": _begun_and_undone,
    "unit": _unit,
    "select": lambda session: session.execute(select(Tag)),
    "FOR UPDATE": lambda session: session.execute(select(Tag).with_for_update()),
    "lock of a service": lambda session: TagService(session).get(1, lock=FOR_UPDATE),
    "function": lambda session: session.scalar(func.count()),
    "union": lambda session: session.execute(union(select(Tag.id), select(Tag.id))),
    "from_statement": lambda session: session.scalars(select(Tag).from_statement(text("SELECT id, name, weight FROM tags"))),
    "text": _sql("SELECT 'INSERT INTO tags', 1"),
    "text WITH": _sql('WITH words AS (SELECT \'delete from it\' AS "update") SELECT "update" FROM words -- UPDATE'),
}
FINE_ON_POSTGRES: dict[str, Work] = {
    "SET LOCAL": _sql("SET LOCAL statement_timeout = 1000"),
    "text FOR UPDATE": _sql("WITH held AS (SELECT id FROM tags FOR UPDATE) SELECT * FROM held"),
    "text FOR NO KEY UPDATE": _sql("WITH held AS (SELECT id FROM tags FOR NO KEY UPDATE) SELECT * FROM held"),
}


@pytest.mark.parametrize("name", [*WRITTEN, *WRITTEN_ON_POSTGRES])
async def test_what_was_written_and_not_committed_is_an_error(library: Database, name: str) -> None:
    """Something written and not committed is a 500, is not stored, and the connection is returned."""
    response = await _answer_to(library, {**WRITTEN, **WRITTEN_ON_POSTGRES}[name], skip=name in WRITTEN_ON_POSTGRES)

    assert response.status_code == 500
    async with library.begin() as session:
        assert [(tag.name, tag.weight) for tag in await TagService(session).list() if tag.name != "y"] == [("one", None)]
    assert checked_out(library) == 0


@pytest.mark.parametrize("name", [*FINE, *FINE_ON_POSTGRES])
async def test_what_is_no_uncommitted_write_is_no_error(library: Database, name: str) -> None:
    """Reads, undone or rejected writes and committed writes are no error."""
    response = await _answer_to(library, {**FINE, **FINE_ON_POSTGRES}[name], skip=name in FINE_ON_POSTGRES)

    assert response.status_code == 200
    assert checked_out(library) == 0


async def test_an_exception_of_the_handler_is_answered_as_it_is(library: Database) -> None:
    """An exception of the handler undoes its writes and is answered as it is."""

    async def work(session: AsyncSession) -> None:
        await _added(session)
        raise HTTPException(409)

    assert (await _answer_to(library, work)).status_code == 409


async def test_work_of_another_session_is_not_the_requests(library: Database) -> None:
    """Uncommitted work of another session is no error of the request."""

    async def work(session: AsyncSession) -> None:
        await session.scalars(select(Tag))
        await session.rollback()
        async with library.engine.begin() as connection:
            await connection.execute(insert(Tag).values(name="x"))
        async with library.begin() as other:
            await other.execute(update(Tag).values(weight=1))
        await session.scalars(select(Tag))

    assert (await _answer_to(library, work)).status_code == 200


async def _answer_to(library: Database, work: Work, *, skip: bool = False) -> httpx.Response:
    if skip and library.engine.dialect.name == "sqlite":
        pytest.skip("PostgreSQL's own")
    async with library.begin() as session:
        if not await TagService(session).count():
            await TagService(session).create({"name": "one"})

    async def handler(session: Annotated[AsyncSession, library.session]) -> None:
        await work(session)

    return (await post(library, handler))[1]


@pytest.mark.parametrize("later", ["streamed body", "background task"])
async def test_the_requests_session_cannot_be_used_after_it(library: Database, later: str) -> None:
    """A session that is used after its request raises an error."""
    errors: list[Exception] = []

    async def use(session: AsyncSession) -> None:
        for use in (
            lambda: session.execute(select(Tag)),
            lambda: TagService(session).list(),
            lambda: TagService(session).create({"name": "x"}),
        ):
            try:
                await use()
            except Exception as error:
                errors.append(error)

    async def stream(session: AsyncSession) -> AsyncIterator[str]:
        await use(session)
        yield ""

    async def handler(session: Annotated[AsyncSession, library.session], background: BackgroundTasks) -> Any:
        await TagService(session).list()
        if later == "streamed body":
            return StreamingResponse(stream(session))
        background.add_task(use, session)
        return None

    await post(library, handler)

    assert [type(error) for error in errors] == [InvalidRequestError] * 3
    assert all("closed" in str(error) for error in errors)
    assert checked_out(library) == 0


def _one_connection() -> DatabaseOptions:
    return DatabaseOptions(pool_size=1, max_overflow=0, pool_timeout=2)


# --- A unit that a dependency opened. ---


def app_with_unit(library: Database, *, scope: Literal["function", "request"] = "function") -> FastAPI:
    """Return an app whose dependency opens a unit of work, with routes that roll it back."""
    app = FastAPI()

    async def get_db() -> AsyncIterator[AsyncSession]:
        async with library.sessions() as session:
            yield session

    marker = library.session if scope == "function" else Depends(get_db)

    async def get_unit(session: Annotated[AsyncSession, marker], read: bool = False) -> AsyncIterator[UnitOfWork]:
        if read:
            await session.execute(select(Author))  # SQLAlchemy begins a transaction, so the unit is a savepoint
        async with unit_of_work(session) as unit:
            yield unit

    async def get_checked(session: Annotated[AsyncSession, marker]) -> AsyncIterator[bool]:
        left = True
        async with unit_of_work(session) as unit:
            await AuthorService(session).create(AuthorCreate(email="dependency@example.org"))
            await unit.rollback()
            left = False
        yield left

    opened = Depends(get_unit, scope=scope)

    @app.post("/try/{email}")
    async def try_out(email: str, session: Annotated[AsyncSession, marker], unit: Annotated[UnitOfWork, opened]) -> str:
        author = await AuthorService(session).create(AuthorCreate(email=email))
        unit.on_commit(pytest.fail, "the call of a unit that is undone ran")
        shown = author.email
        await unit.rollback()
        await unit.rollback()
        return f"{shown} and {await AuthorService(session).count()} others"

    @app.post("/task/{email}")
    async def try_out_in_a_task(email: str, session: Annotated[AsyncSession, marker], unit: Annotated[UnitOfWork, opened]) -> str:
        await AuthorService(session).create(AuthorCreate(email=email))
        async with asyncio.TaskGroup() as group:
            group.create_task(unit.rollback())
        return email

    @app.post("/nested/{email}")
    async def leave_a_unit_inside(email: str, session: Annotated[AsyncSession, marker], unit: Annotated[UnitOfWork, opened]) -> str:
        async with unit_of_work(session) as inner:
            await AuthorService(session).create(AuthorCreate(email="undone@example.org"))
            await inner.rollback()
        await AuthorService(session).create(AuthorCreate(email=email))
        return email

    @app.post("/go-on/{email}")
    async def write_afterwards(email: str, session: Annotated[AsyncSession, marker], unit: Annotated[UnitOfWork, opened]) -> None:
        await unit.rollback()
        await session.execute(insert(Author).values(email="raw@example.org"))
        await AuthorService(session).create(AuthorCreate(email=email))

    @app.post("/helper/{email}")
    async def leave_a_helper_of_the_application(email: str, session: Annotated[AsyncSession, marker]) -> bool:
        async with asynccontextmanager(get_unit)(session) as unit:
            await AuthorService(session).create(AuthorCreate(email=email))
            await unit.rollback()
            return False
        return True

    async def undo(unit: Annotated[UnitOfWork, opened]) -> AsyncIterator[str]:
        await unit.rollback()
        yield "a@example.org"

    @app.post("/later-dependency")
    async def undo_in_a_dependency(undone: Annotated[str, Depends(undo, scope=scope)]) -> str:
        return undone

    @app.post("/checked")
    async def checked(checked: Annotated[bool, Depends(get_checked, scope=scope)]) -> bool:
        return checked

    return app


@pytest.mark.parametrize("scope", ["function", "request"])
@pytest.mark.parametrize(
    ("path", "status", "stored"),
    [
        ("/try/a@example.org", 200, []),
        ("/try/a@example.org?read=yes", 200, []),
        ("/task/a@example.org", 200, []),
        ("/nested/a@example.org", 200, ["a@example.org"]),
        ("/go-on/a@example.org", 500, []),
        ("/helper/a@example.org", 200, []),
        ("/later-dependency", 200, []),
        ("/checked", 200, []),
    ],
)
async def test_a_unit_of_a_dependency_can_be_rolled_back(
    library: Database, scope: Literal["function", "request"], path: str, status: int, stored: list[str]
) -> None:
    """The unit is undone and the route answers. A service that writes afterwards raises, and a block inside is left as always."""
    async with client_of(app_with_unit(library, scope=scope)) as client:
        answer = await client.post(path)
        again = await client.post("/nested/again@example.org")

    assert (answer.status_code, again.status_code) == (status, 200), answer.text
    if status == 200:
        assert answer.json() in {"a@example.org and 0 others", "a@example.org", True}
    async with library.begin() as session:
        assert list(await session.scalars(select(Author.email).order_by(Author.id))) == [*stored, "again@example.org"]
    assert checked_out(library) == 0


@pytest.mark.parametrize("path", ["/try/a@example.org", "/task/a@example.org"])
async def test_a_unit_of_a_dependency_can_be_rolled_back_under_isolated(library: Database, path: str) -> None:
    """The same in a test that is rolled back as a whole: what was there before the request stays."""
    async with isolated(library), client_of(app_with_unit(library)) as client:
        await client.post("/nested/before@example.org")
        assert (await client.post(path)).status_code == 200
        assert await count(library) == 1
