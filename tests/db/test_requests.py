"""A request's session: when it commits, when its connection is back, what its errors leave behind."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio
import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import Message, Receive, Scope, Send
from tests.models import Author, AuthorCreate, AuthorService, BookService, Loan, LoanCreate, LoanService

from fastapi_kit.db import Database, DatabaseOptions, on_commit
from fastapi_kit.errors import KitError, UnknownReferenceError

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
    """Notes, at the moment the response starts, how many connections are out and how many authors others see."""

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


async def test_a_self_committed_write_is_there_before_the_response_starts(library: Database) -> None:
    """T5, D4: and the connection is back in the pool."""

    async def handler(session: Annotated[AsyncSession, library.session]) -> int:
        return (await AuthorService(session).create(AuthorCreate(email="new@example.org"))).id

    watch, response = await post(library, handler)

    assert response.status_code == 200
    assert (watch.authors, watch.connections_out) == (1, 0)


async def test_a_request_transaction_is_committed_before_the_response_starts(library: Database) -> None:
    """T5, D3: the whole handler is one transaction; hooks run before the response too."""
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
    """T5: HTTPException included."""

    async def handler(session: Annotated[AsyncSession, library.transaction]) -> None:
        await AuthorService(session).create(AuthorCreate(email="new@example.org"))
        raise error

    watch, response = await post(library, handler)

    assert response.status_code in {409, 500}
    assert (watch.authors, watch.connections_out) == (0, 0)


async def test_a_request_has_one_session(library: Database) -> None:
    """T5: db.session, db.transaction and Depends(get_session) give the same one, whatever dependency asks."""

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


async def test_a_request_transaction_works_after_the_user_was_loaded_by_hand(library: Database) -> None:
    """D5: a host's own read has begun a transaction; the handler's writes are still one, committed at the end."""

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


async def test_a_host_transaction_left_open_is_rolled_back(library: Database) -> None:
    """T5: what nobody committed is not kept, and its connection comes back clean."""

    async def handler(session: Annotated[AsyncSession, library.session]) -> None:
        session.add(Author(email="forgotten@example.org"))
        await session.flush()

    watch, _ = await post(library, handler)

    assert (watch.authors, watch.connections_out) == (0, 0)


async def test_a_failed_commit_is_the_clients_error_and_the_next_request_works(library: Database) -> None:
    """D4, T8: on a pool of one."""
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


async def test_a_hosts_own_failed_commit_leaves_a_clean_connection(library: Database) -> None:
    """D4, T5: without the rollback at the end SQLite's connection would take the failed rows into the next request."""
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
    """D4: rolled back and returned, not torn down: the next session gets the same server process."""
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
    """T5: while a password is hashed or a remote call is made the pool is free."""

    async def handler(session: Annotated[AsyncSession, library.session]) -> int:
        await AuthorService(session).list()
        return checked_out(library)

    _, response = await post(library, handler)

    assert response.json() == 0


async def test_no_connection_is_held_while_a_background_task_runs(library: Database) -> None:
    """T5: the session is closed before the response, and so before the tasks."""
    held: list[int] = []

    async def task() -> None:
        held.append(checked_out(library))

    async def handler(session: Annotated[AsyncSession, library.session], background: BackgroundTasks) -> None:
        await session.execute(text("SELECT 1"))
        background.add_task(task)

    await post(library, handler)

    assert held == [0]


async def test_a_streamed_body_takes_a_session_of_its_own(library: Database) -> None:
    """T5: db.begin() works after the request's session is gone."""
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
    """D3: ``dependency_overrides[db.get_session]`` reaches every marker."""
    app = FastAPI()

    @app.post("/")
    async def handler(session: Annotated[AsyncSession, library.session]) -> str:
        return str(session)

    app.dependency_overrides[library.get_session] = lambda: "another"
    async with client_of(app) as client:
        assert (await client.post("/")).json() == "another"


async def test_a_client_that_leaves_gives_the_connection_back(library: Database) -> None:
    """D4: a request cancelled in the middle of its transaction stores nothing and leaks nothing."""
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
    """D7: each request has a session of each, and each commits its own."""
    other = Database(f"sqlite+aiosqlite:///{tmp_path / 'other.db'}")
    await other.create_tables(Author.metadata)

    async def handler(here: Annotated[AsyncSession, library.session], there: Annotated[AsyncSession, other.session]) -> None:
        await AuthorService(here).create(AuthorCreate(email="here@example.org"))
        await AuthorService(there).create_many([{"email": "a@example.org"}, {"email": "b@example.org"}])

    await post(library, handler)

    assert (await count(library), await count(other)) == (1, 2)
    await other.dispose()


def _one_connection() -> DatabaseOptions:
    return DatabaseOptions(pool_size=1, max_overflow=0, pool_timeout=2)
