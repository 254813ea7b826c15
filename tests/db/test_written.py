"""What a failed statement wrote is known for every kind of statement and every driver, and is never shown."""

import gc
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from sqlalchemy import (
    URL,
    Column,
    Executable,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    column,
    event,
    func,
    insert,
    table,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_kit.db import Database
from fastapi_kit.db.errors import as_kit_error, watch
from fastapi_kit.errors import ConflictError, InvalidDataError, KitError, StillReferencedError, UnknownReferenceError

SECRET = "hunter2-hunter2-hunter2"


class Base(DeclarativeBase):
    pass


class Odd(Base):
    __tablename__ = "odd words"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column("full name", String(10), key="nm")
    percent: Mapped[str | None] = mapped_column('per%cent("x")', String(5))
    name_m1: Mapped[str | None] = mapped_column(String(12))
    note: Mapped[str | None] = mapped_column(Text)


ODD = Base.metadata.tables["odd words"]
NAME, PERCENT = "full name", 'per%cent("x")'


@pytest.fixture(params=["asyncpg", "psycopg"])
async def engine(request: pytest.FixtureRequest, postgres_database: Database, postgres_url: URL) -> AsyncIterator[AsyncEngine]:
    """A watched engine of the application on PostgreSQL, with one row."""
    engine = create_async_engine(postgres_url.set(drivername=f"postgresql+{request.param}"))
    watch(engine)
    await postgres_database.create_tables(Base.metadata)
    async with engine.begin() as connection:
        await connection.execute(insert(ODD).values(id=100, nm="a"))
    yield engine
    await engine.dispose()


async def failure_of(work: Awaitable[object]) -> Exception:
    try:
        await work
    except Exception as error:
        return error
    pytest.fail("nothing was rejected")


async def execute(engine: AsyncEngine, *statements: Executable, parameters: Any = None, **options: Any) -> None:
    async with engine.execution_options(**options).begin() as connection:
        for statement in statements:
            await connection.execute(statement, parameters)


LONG = {"nm": SECRET}
FINE = {"nm": "fine"}


@pytest.mark.parametrize(
    ("statement", "parameters", "field"),
    [
        (insert(ODD).values(LONG), None, "nm"),
        (insert(ODD), [FINE, LONG], "nm"),
        (insert(ODD).returning(ODD.c.id), [FINE, LONG], "nm"),
        (insert(ODD).returning(ODD.c.id, sort_by_parameter_order=True), [FINE, LONG], "nm"),
        (insert(ODD).values([{"nm": "a", "name_m1": "b"}, {"nm": "c", "name_m1": SECRET}]), None, "name_m1"),
        (insert(ODD).values({"nm": "a", PERCENT: SECRET}), None, PERCENT),
        (insert(ODD), [{"nm": "a", PERCENT: "b"}, {"nm": "a", PERCENT: SECRET}], PERCENT),
        (insert(ODD).values(nm=func.replace(bindparam("a"), "x", "y"), name_m1=bindparam("n")), [{"a": "a", "n": SECRET}] * 2, "name_m1"),
        (insert(Odd).values(name=SECRET).returning(Odd), None, "nm"),
        (insert(Odd).returning(Odd.id), [{"name": "b"}, {"name": SECRET}], "nm"),
        (upsert(ODD).values(id=100, nm="a").on_conflict_do_update(index_elements=["id"], set_={"nm": SECRET}), None, "nm"),
        (upsert(ODD).values(id=100, nm=SECRET).on_conflict_do_nothing(), None, "nm"),
        (
            upsert(ODD).on_conflict_do_update(index_elements=["id"], set_={"nm": SECRET}).returning(ODD.c.id),
            [{"id": 100, "nm": "a"}, {"id": 2, "nm": "b"}],
            "nm",
        ),
        (update(ODD).where(ODD.c.id.in_([100, 2]), ODD.c.name_m1.is_distinct_from(SECRET)).values(nm=SECRET, name_m1="a"), None, "nm"),
        (update(ODD).where(ODD.c.id == bindparam("key")).values(nm=bindparam("n")), [{"key": 100, "n": SECRET}] * 2, "nm"),
        (update(Odd).where(Odd.id == 100).values(name=SECRET).returning(Odd), None, "nm"),
    ],
)
async def test_every_kind_of_write(engine: AsyncEngine, statement: Executable, parameters: Any, field: str) -> None:
    """A text that is too long names its field, in every kind of statement."""

    async def write() -> None:
        async with AsyncSession(engine) as session, session.begin():
            await session.execute(statement, parameters)

    error = as_kit_error(await failure_of(write()))

    assert isinstance(error, InvalidDataError)
    assert (error.fields, error.reason, error.table) == ((field,), "too_long", "odd words")


@pytest.mark.parametrize("update_it", [False, True])
async def test_flush(engine: AsyncEngine, update_it: bool) -> None:
    """A flush names the fields as attributes."""

    async def flush() -> None:
        async with AsyncSession(engine) as session, session.begin():
            if update_it:
                (await session.get_one(Odd, 100)).name = SECRET
            else:
                session.add_all([Odd(name="b"), Odd(name=SECRET)])

    error = as_kit_error(await failure_of(flush()), mapper=Odd.__mapper__)

    assert isinstance(error, InvalidDataError)
    assert (error.fields, error.reason) == (("name",), "too_long")


async def test_condition_is_not_what_was_written(engine: AsyncEngine) -> None:
    """A wrong value in a condition names no field."""
    statement = update(ODD).where(ODD.c.id == 10**20).values(name_m1="a")

    error = as_kit_error(await failure_of(execute(engine, statement)))

    assert isinstance(error, InvalidDataError)
    assert error.fields == ()


@pytest.mark.parametrize("values", [{"nm": 5}, {"nm": "a", "note": object()}])
@pytest.mark.parametrize("engine", ["asyncpg"], indirect=True)
async def test_parameter_that_the_driver_counts(engine: AsyncEngine, values: dict[str, object]) -> None:
    """A parameter that asyncpg rejects names its field, in one row and in many."""
    rows = [{"nm": "a", "note": "b"}, {"nm": "a", "note": "b"} | values]

    for statement in (insert(ODD).returning(ODD.c.id, sort_by_parameter_order=True), insert(ODD)):
        error = as_kit_error(await failure_of(execute(engine, statement, parameters=rows)))

        assert isinstance(error, InvalidDataError)
        assert (error.fields, error.reason) == (tuple(values)[-1:], "wrong_type")


# --- Which table. ---


async def test_translated_schema(engine: AsyncEngine) -> None:
    """A table in another schema by schema_translate_map is known, and not taken for a table of the same name."""
    metadata = MetaData()
    things = Table("things", metadata, Column("id", Integer, primary_key=True), Column("name", String(5), unique=True), schema="tenant")
    Table("things", metadata, Column("id", Integer, primary_key=True), Column("other", String(5), unique=True), schema="acme")
    await execute(engine, text("DROP SCHEMA IF EXISTS acme2 CASCADE"), text("CREATE SCHEMA acme2"))
    options = {"schema_translate_map": {"tenant": "acme2"}}
    async with engine.execution_options(**options).begin() as connection:
        await connection.run_sync(lambda sync: things.create(sync))

    taken = as_kit_error(await failure_of(execute(engine, insert(things).values([{"name": "a"}, {"name": "a"}]), **options)))
    long = as_kit_error(await failure_of(execute(engine, insert(things).values(name=SECRET), **options)))

    assert isinstance(taken, ConflictError)
    assert isinstance(long, InvalidDataError)
    assert (taken.fields, taken.table) == (long.fields, long.table) == (("name",), "tenant.things")


async def test_another_table_fails(database: Database) -> None:
    """If the driver names another table, as for a row of a trigger, that table is used."""
    metadata = MetaData()
    notes = Table("notes", metadata, Column("id", Integer, primary_key=True))
    Table("logs", metadata, Column("id", Integer, primary_key=True), Column("line", String(5), nullable=False))
    await database.create_tables(metadata)
    if database.engine.dialect.name == "postgresql":
        body = "BEGIN INSERT INTO logs (line) VALUES (NULL); RETURN NEW; END"
        function = text(f"CREATE OR REPLACE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
        triggers = [function, text("CREATE TRIGGER log BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION log()")]
    else:
        triggers = [text("CREATE TRIGGER log BEFORE INSERT ON notes BEGIN INSERT INTO logs (line) VALUES (NULL); END")]

    error = as_kit_error(await failure_of(execute(database.engine, *triggers, insert(notes).values(id=1))))

    assert isinstance(error, InvalidDataError)
    assert (error.fields, error.table, error.reason) == (("line",), "logs", "null")


async def test_lightweight_table(database: Database) -> None:
    """For a statement on table() the error has what the driver and the given metadata know."""
    await database.create_tables(Base.metadata)
    light = table("odd words", column("id"), column("full name"))
    statement = insert(light).values([{"id": 1, "full name": "a"}, {"id": 1, "full name": "a"}])

    error = as_kit_error(await failure_of(execute(database.engine, statement)), metadata=Base.metadata)

    assert isinstance(error, ConflictError)
    assert (error.fields, error.table) == (("id",), "odd words")


async def test_metadata_of_another_package(database: Database) -> None:
    """A table that is missing in the given metadata is known from its statement."""
    await database.create_tables(Base.metadata)

    error = as_kit_error(await failure_of(execute(database.engine, insert(ODD).values(nm=None))), metadata=MetaData())

    assert isinstance(error, InvalidDataError)
    assert (error.fields, error.table) == (("nm",), "odd words")


FAMILY = MetaData()
PARENTS = Table("parents", FAMILY, Column("id", Integer, primary_key=True))
CHILDREN = Table("children", FAMILY, Column("id", Integer, primary_key=True), Column("parent_id", ForeignKey("parents.id")))


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (text("DELETE FROM parents"), StillReferencedError),
        (text("/* nightly */ -- job\n delete from parents"), StillReferencedError),
        (text("WITH old AS (SELECT 1) DELETE FROM parents"), StillReferencedError),
        (text("INSERT INTO children (parent_id) VALUES (9)"), UnknownReferenceError),
    ],
)
@pytest.mark.parametrize("watched", [True, False])
async def test_plain_sql(database: Database, statement: Executable, expected: type[KitError], watched: bool) -> None:
    """The verb of a text statement tells the two directions of a foreign key."""
    await database.create_tables(FAMILY)
    engine = database.engine if watched else create_async_engine(database.engine.url)
    async with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            await connection.execute(text("PRAGMA foreign_keys=ON"))
        await connection.execute(insert(PARENTS).values(id=1))
        await connection.execute(insert(CHILDREN).values(parent_id=1))
        error = as_kit_error(await failure_of(connection.execute(statement)))
        await connection.rollback()
    if not watched:
        await engine.dispose()

    assert type(error) is expected


# --- Engines that are not watched, and what the memory costs. ---


async def test_unwatched_engine(database: Database) -> None:
    """Without watch() the error has the fields that the driver names."""
    await database.create_tables(Base.metadata)
    engine = create_async_engine(database.engine.url)

    taken = as_kit_error(await failure_of(execute(engine, insert(ODD).values([{"id": 1, "nm": "a"}] * 2))), mapper=Odd.__mapper__)
    null = as_kit_error(await failure_of(execute(engine, insert(ODD).values(nm=None))), mapper=Odd.__mapper__)
    await engine.dispose()

    assert isinstance(taken, ConflictError)
    assert isinstance(null, InvalidDataError)
    assert (taken.fields, null.fields) == (("id",), ("name",))


async def test_watching_twice(database: Database) -> None:
    """watch() adds one listener, however often it is called."""
    engine = create_async_engine(database.engine.url)
    for _ in range(3):
        watch(engine)
        watch(engine.sync_engine)
        watch(engine.execution_options(isolation_level="AUTOCOMMIT"))
        async with engine.connect() as connection:
            watch(connection)
            await connection.run_sync(watch)
    await engine.dispose()

    assert len(list(engine.dialect.dispatch.handle_error)) == 1


async def test_values_are_never_shown(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """No text or repr shows the values."""
    await database.create_tables(Base.metadata)
    failure = await failure_of(
        execute(database.engine, insert(ODD).values(id=1, nm="a", note=SECRET), insert(ODD).values(id=1, nm="a", note=SECRET))
    )
    assert isinstance(failure, StatementError)

    logging.getLogger("application").error("failed: %r %r", vars(failure.orig), failure.orig, exc_info=failure.orig)

    assert SECRET not in caplog.text
    assert "Written" in repr(vars(failure.orig))


async def test_no_circle_is_left(database: Database) -> None:
    """The values are freed with the exception, without the garbage collector."""
    await database.create_tables(Base.metadata)
    failure: Any = await failure_of(execute(database.engine, insert(ODD).values(nm=None)))
    kept = weakref.ref(next(value for value in vars(failure.orig).values() if type(value).__name__ == "Written"))
    gc.collect()
    gc.disable()
    try:
        failure.orig.__traceback__ = failure.orig.__cause__ = failure.orig.__context__ = None
        failure.__traceback__ = failure.__cause__ = failure.__context__ = None
        del failure
        assert kept() is None
    finally:
        gc.enable()


async def test_frozen_exception_of_the_application(database: Database) -> None:
    """An exception of the application that rejects attributes is raised unchanged."""

    class FrozenError(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            if not name.startswith("__"):
                raise TypeError("frozen")
            super().__setattr__(name, value)

    await database.create_tables(Base.metadata)

    def reject(*_: object) -> None:
        raise FrozenError

    event.listen(database.engine.sync_engine, "before_cursor_execute", reject)
    failure = await failure_of(execute(database.engine, insert(ODD).values(nm="a")))
    event.remove(database.engine.sync_engine, "before_cursor_execute", reject)

    assert type(failure) is FrozenError
    assert as_kit_error(failure) is None
