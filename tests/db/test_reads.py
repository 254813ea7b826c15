"""How reads run: in AUTOCOMMIT or not, what an idle session shows, and which ``execute`` they use."""

from collections.abc import AsyncIterator
from contextlib import nullcontext
from inspect import signature
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Engine, ForeignKey, Result, String, create_engine, event, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, column_property, mapped_column, relationship, selectinload, undefer

from fastapi_kit.crud import FOR_UPDATE, CRUDService
from fastapi_kit.db import Database, DatabaseOptions, unit_of_work
from fastapi_kit.errors import ConflictError, NotFoundError, UnavailableError
from fastapi_kit.pagination import PageParams


class Base(DeclarativeBase): ...


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(default="author")
    name: Mapped[str] = mapped_column(String(20), unique=True)
    diary: Mapped[str | None] = mapped_column(deferred=True)
    books: Mapped[list["Book"]] = relationship(back_populates="author", order_by="Book.id")
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_on": "kind", "polymorphic_identity": "author"}


class Poet(Author):
    __tablename__ = "poets"
    id: Mapped[int] = mapped_column(ForeignKey("authors.id"), primary_key=True)
    metre: Mapped[str] = mapped_column(default="free")
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "poet"}


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    author: Mapped[Author] = relationship(back_populates="books")


Author.count = column_property(select(func.count(Book.id)).where(Book.author_id == Author.id).scalar_subquery())


class Anything(BaseModel): ...


class AuthorRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    name: str


class Authors(CRUDService[Author, Anything, Anything]): ...


class Poets(CRUDService[Poet, Anything, Anything]): ...


class Books(CRUDService[Book, Anything, Anything]): ...


async def fill(database: Database) -> Database:
    await database.create_tables(Base.metadata)
    async with database.begin() as session:
        session.add_all([Author(name="one", books=[Book(title="a"), Book(title="b")]), Poet(name="two", metre="iamb")])
    return database


@pytest.fixture
async def shelf(database: Database) -> Database:
    return await fill(database)


@pytest.fixture
async def postgres_shelf(postgres_database: Database) -> Database:
    return await fill(postgres_database)


# --- AUTOCOMMIT. ---


async def level_of_a_read(database: Database, *, session: AsyncSession | None = None) -> str:
    """Return the isolation level in which a service reads."""
    levels: list[str] = []

    def note(connection: Any, *_: object) -> None:
        levels.append(connection.get_execution_options().get("isolation_level") or connection.get_isolation_level())

    async with nullcontext(session) if session else database.sessions() as used:
        await Authors(used).list()
        event.listen(database.engine.sync_engine, "before_cursor_execute", note)
        try:
            rows = await Authors(used).list()
        finally:
            event.remove(database.engine.sync_engine, "before_cursor_execute", note)
        assert [author.name for author in rows] == ["one", "two"]
        if session is None:
            assert not used.in_transaction()
    return levels[0]


async def test_idle_reads_are_in_autocommit(postgres_shelf: Database) -> None:
    """A read on an idle session of a Database takes one round trip in AUTOCOMMIT."""
    assert await level_of_a_read(postgres_shelf) == "AUTOCOMMIT"


async def test_but_not_on_sqlite(sqlite_database: Database) -> None:
    assert await level_of_a_read(await fill(sqlite_database)) == "SERIALIZABLE"


def ignore(*_: object) -> None: ...


@pytest.fixture(params=["session", "its class", "every Session", "engine", "every Engine"])
async def listened(request: pytest.FixtureRequest, postgres_shelf: Database) -> AsyncIterator[AsyncSession]:
    """A session with a listener that may set something for the transaction."""
    session = postgres_shelf.sessions()
    targets: dict[str, tuple[Any, str]] = {
        "session": (session.sync_session, "after_begin"),
        "its class": (type(session.sync_session), "after_begin"),
        "every Session": (Session, "after_begin"),
        "engine": (postgres_shelf.engine.sync_engine, "begin"),
        "every Engine": (Engine, "begin"),
    }
    target, name = targets[request.param]
    event.listen(target, name, ignore)
    yield session
    event.remove(target, name, ignore)
    await session.close()


async def test_no_autocommit_where_a_listener_may_set_something(postgres_shelf: Database, listened: AsyncSession) -> None:
    """Settings of a listener, such as the tenant for row-level security, apply to reads."""
    assert await level_of_a_read(postgres_shelf, session=listened) == "READ COMMITTED"


@pytest.mark.parametrize("how", ["option", "create_engine", "execution_options", "sessions", "role"])
async def test_no_autocommit_where_a_level_is_chosen(postgres_shelf: Database, how: str) -> None:
    """Reads are in a transaction if an isolation level is chosen, or with autocommit_reads=False."""
    url, expected = postgres_shelf.engine.url, "REPEATABLE READ"
    if how == "option":
        database, expected = Database(url, options=DatabaseOptions(autocommit_reads=False)), "READ COMMITTED"
    elif how == "create_engine":
        database = Database(create_async_engine(url, isolation_level=expected))
    elif how == "execution_options":
        database = Database(create_async_engine(url).execution_options(isolation_level=expected))
    elif how == "sessions" and "execution_options" not in signature(Session).parameters:
        pytest.skip("a Session of SQLAlchemy 2.0 has no execution options")
    elif how == "sessions":
        database = Database(url)
        database.sessions.configure(execution_options={"isolation_level": expected})
    else:
        async with postgres_shelf.engine.begin() as connection:
            await connection.execute(text(f"ALTER DATABASE {url.database} SET default_transaction_isolation = 'repeatable read'"))
        database = Database(url)
    try:
        assert await level_of_a_read(database) == expected
    finally:
        await database.dispose()
        async with postgres_shelf.engine.begin() as connection:
            await connection.execute(text(f"ALTER DATABASE {url.database} RESET default_transaction_isolation"))


@pytest.mark.parametrize("place", ["unit", "begin", "read", "lock"])
async def test_no_autocommit_in_a_transaction(postgres_shelf: Database, place: str) -> None:
    """A read in a transaction stays in it, and keeps its lock."""
    async with postgres_shelf.sessions() as session:
        if place == "unit":
            async with unit_of_work(session):
                assert await level_of_a_read(postgres_shelf, session=session) == "READ COMMITTED"
        elif place == "begin":
            transaction = await session.begin()
            assert transaction.is_active
            assert await level_of_a_read(postgres_shelf, session=session) == "READ COMMITTED"
        elif place == "read":
            await session.execute(select(Author.id))
            assert await level_of_a_read(postgres_shelf, session=session) == "READ COMMITTED"
        else:
            assert await Authors(session).get(1, lock=FOR_UPDATE)
            assert session.in_transaction()
            assert await level_of_a_read(postgres_shelf, session=session) == "READ COMMITTED"


async def test_the_connection_has_its_level_again(postgres_shelf: Database) -> None:
    """A write after a read in AUTOCOMMIT can be rolled back."""
    async with postgres_shelf.sessions() as session:
        await Authors(session).list()
        with pytest.raises(ZeroDivisionError):
            async with unit_of_work(session):
                await Authors(session).create({"name": "undone"})
                raise ZeroDivisionError
        assert await Authors(session).count() == 2


async def test_a_page_is_one_snapshot_where_the_level_promises_it(postgres_shelf: Database) -> None:
    """In REPEATABLE READ rows and total of a page agree."""
    database = Database(create_async_engine(postgres_shelf.engine.url, isolation_level="REPEATABLE READ"))
    plain = create_engine(postgres_shelf.engine.url.set(drivername="postgresql+psycopg"))

    def add(*_: object) -> None:
        with plain.begin() as connection:
            connection.execute(text("INSERT INTO authors (kind, name) VALUES ('author', '' || left(random()::text, 9))"))

    event.listen(database.engine.sync_engine, "after_cursor_execute", add)
    async with database.sessions() as session:
        page = await Authors(session).page_as(AuthorRead, PageParams())
    await database.dispose()
    plain.dispose()

    assert (len(page.items), page.total) == (2, 2)
    async with postgres_shelf.sessions() as session:
        assert await Authors(session).count() > 2


# --- A session that is idle again. ---


async def test_no_free_connection_leaves_the_session_idle(shelf: Database) -> None:
    """After an empty pool the next read works, and what was loaded stays."""
    single = Database(shelf.engine.url, options=DatabaseOptions(pool_size=1, max_overflow=0, pool_timeout=0.1))
    async with single.sessions() as session:
        author = await Authors(session).get_one(1)
        async with single.engine.connect():
            for work in (Authors(session).list, Authors(session).count):
                with pytest.raises(UnavailableError):
                    await work()
                assert not session.in_transaction()
            with pytest.raises(UnavailableError):
                await Authors(session).get(1, lock=FOR_UPDATE)
            with pytest.raises(UnavailableError):
                await Authors(session).create({"name": "x"})
            assert not session.in_transaction()
        assert author.name == "one"
        assert len(await Authors(session).list()) == 2
    await single.dispose()


@pytest.fixture
async def held(shelf: Database) -> AsyncIterator[AsyncSession]:
    """A session that has loaded everything, while another one has changed all of it."""
    async with shelf.sessions() as session:
        options = [selectinload(Author.books), undefer(Author.diary)]
        await session.scalars(select(Author).options(*options).order_by(Author.id))
        session.info["rows"] = (await session.scalars(select(Author).options(*options).order_by(Author.id))).all()
        session.info["books"] = (await session.scalars(select(Book).options(selectinload(Book.author)).order_by(Book.id))).all()
        await session.commit()
        async with shelf.begin() as other:
            await other.execute(update(Author).values(name=Author.name + "!", diary="new"))
            await other.execute(update(Poet).values(metre="trochee"))
            await other.execute(update(Book).where(Book.id == 2).values(author_id=2))
            other.add(Book(title="c", author_id=1))
        yield session


async def test_an_idle_session_shows_what_is_stored(held: AsyncSession) -> None:
    """A read on an idle session refreshes its objects, expressions and deferred columns included."""
    one, two = held.info["rows"]
    collection = one.books
    for rows in (await Authors(held).list(), await Authors(held).get_many([1, 2]), [await Authors(held).get(key) for key in (1, 2)]):
        assert (rows[0], rows[1]) == (one, two)
    assert (one.name, one.count, two.name, two.count) == ("one!", 2, "two!", 1)
    assert one.books is collection
    assert [book.id for book in collection] == [1, 2]
    poet = await Poets(held).get_one(2)
    assert (poet is two, poet.metre, poet.name) == (True, "trochee", "two!")
    assert not held.dirty


async def test_a_reference_whose_key_has_changed_is_unloaded(held: AsyncSession) -> None:
    """A relationship whose foreign key has changed is unloaded; others stay."""
    first, second = held.info["books"]
    await Books(held).list()

    assert "author" not in vars(second)
    assert vars(first)["author"] is held.info["rows"][0]
    assert second.author_id == 2
    await held.refresh(second, ["author"])
    assert second.author is held.info["rows"][1]


async def test_what_is_pending_or_read_in_a_transaction_is_left_alone(held: AsyncSession) -> None:
    """A read in a transaction refreshes nothing, and keeps unflushed changes."""
    one, _ = held.info["rows"]
    one.name = "mine"
    await Authors(held).list()
    assert one.name == "mine"
    await held.commit()
    assert await Authors(held).get_by(name="mine") is one


async def test_expired_objects_are_loaded(held: AsyncSession) -> None:
    """Expired objects are loaded by any read that returns them."""
    one, two = held.info["rows"]
    held.expire(one)
    held.expire(two, ["name"])
    assert await Authors(held).list() == [one, two]
    assert (one.name, one.kind, two.name, two.count) == ("one!", "author", "two!", 1)


async def test_deferred_columns_that_were_loaded_are_written_and_shown(held: AsyncSession) -> None:
    """After a write deferred columns that were loaded show what is stored."""
    one, _ = held.info["rows"]
    assert await Authors(held).update(1, {"diary": "mine"}) is one
    assert one.diary == "mine"
    assert not held.dirty


# --- Sessions with an ``execute`` of the application's. ---

ASKED: list[str] = []


class AskingSession(Session):
    def execute(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        ASKED.append(str(statement).split()[0])
        return super().execute(statement, *args, **kwargs)


class AskingAsyncSession(AsyncSession):
    async def execute(self, statement: Any, *args: Any, **kwargs: Any) -> Result[Any]:
        ASKED.append(str(statement).split()[0])
        rows: Result[Any] = await super().execute(statement, *args, **kwargs)
        return rows


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("is_own", [True, False])
async def test_an_execute_of_the_application_is_used(shelf: Database, kind: str, is_own: bool) -> None:
    """Every read, write and lock uses an overridden ``execute``, and errors are undone as elsewhere."""
    sessions = shelf.sessions
    if kind == "sync":
        sessions.configure(sync_session_class=AskingSession)
    else:
        sessions.class_ = type("Sessions", (AskingAsyncSession,), {})
    if not is_own:
        sessions.kw["info"] = {}
    async with sessions() as session:
        service = Authors(session)
        for work in (
            *(service.list, service.count, service.exists, lambda: service.get(1), lambda: service.get_many([1, 2])),
            *(
                lambda: service.get_as(AuthorRead, 1),
                lambda: service.list_as(AuthorRead),
                lambda: service.page_as(AuthorRead, PageParams()),
            ),
            lambda: service.update(1, {"name": "changed"}),
        ):
            ASKED.clear()
            await work()
            assert ASKED
        ASKED.clear()
        assert [row.id async for row in service.stream()] == [1, 2]
        assert ASKED
        one = await service.get_one(1)
        with pytest.raises(ConflictError):
            await service.update(1, {"name": "two"})
        await session.rollback() if session.in_transaction() and not is_own else None
        if is_own:
            assert one.name == "changed"
            assert not session.in_transaction()


# --- Rows of columns, which come from the session's connection where the session has nothing to add. ---


async def test_rows_of_columns_see_what_is_pending(held: AsyncSession) -> None:
    """Pending objects and changes are flushed before their columns are read, unless the application has switched that off."""
    three = Author(name="three")
    held.add(three)
    held.info["rows"][0].name = "mine"
    with held.no_autoflush:
        assert [row.name for row in await Authors(held).list_as(AuthorRead)] == ["one!", "two!"]
        assert await Authors(held).count() == 2
    assert [row.name for row in await Authors(held).list_as(AuthorRead)] == ["mine", "two!", "three"]
    assert await Authors(held).count() == 3
    await held.delete(three)
    with pytest.raises(NotFoundError):
        await Authors(held).get_as(AuthorRead, three.id)


@pytest.mark.skipif("execution_options" not in signature(Session).parameters, reason="a Session of SQLAlchemy 2.0 has no execution options")
async def test_rows_of_columns_have_the_options_of_the_session(shelf: Database) -> None:
    """Execution options of the session apply to reads of columns."""
    seen: list[object] = []

    def note(*arguments: Any) -> None:
        seen.append(arguments[4].execution_options.get("tenant"))

    shelf.sessions.configure(execution_options={"tenant": "acme"})
    event.listen(shelf.engine.sync_engine, "before_cursor_execute", note)
    try:
        async with shelf.sessions() as session:
            await Authors(session).list_as(AuthorRead)
            await Authors(session).get_as(AuthorRead, 1)
            await Authors(session).count()
    finally:
        event.remove(shelf.engine.sync_engine, "before_cursor_execute", note)
    assert seen == ["acme"] * 3
