"""What code in the database rejects: triggers, policies, generated columns; and statements prepared before a migration."""

from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from sqlalchemy import (
    URL,
    Column,
    Computed,
    Enum,
    Executable,
    Identity,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from fastapi_kit.db import Database, run_transaction
from fastapi_kit.db.errors import as_kit_error, is_retryable, watch
from fastapi_kit.errors import ConflictError, InvalidDataError, KitError, PermissionDeniedError, UnavailableError

SECRET = "hunter2"
METADATA = MetaData()
ROOMS = Table("rooms", METADATA, Column("id", Integer, primary_key=True), Column("no", Integer), Column("owner", String(20), key="boss"))


@pytest.fixture(params=["asyncpg", "psycopg"])
async def engine(request: pytest.FixtureRequest, postgres_database: Database, postgres_url: URL) -> AsyncIterator[AsyncEngine]:
    """A watched engine on PostgreSQL for each driver."""
    engine = create_async_engine(postgres_url.set(drivername=f"postgresql+{request.param}"))
    watch(engine)
    await postgres_database.create_tables(METADATA)
    yield engine
    await engine.dispose()


async def failure_of(work: Awaitable[object]) -> Exception:
    try:
        await work
    except Exception as error:
        return error
    pytest.fail("nothing was rejected")


async def run(engine: AsyncEngine, *statements: Executable | str, parameters: Any = None) -> None:
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement) if isinstance(statement, str) else statement, parameters)


async def error_of(engine: AsyncEngine, *statements: Executable | str, parameters: Any = None) -> KitError | None:
    return as_kit_error(await failure_of(run(engine, *statements, parameters=parameters)), metadata=METADATA)


def trigger(body: str, timing: str = "BEFORE INSERT OR UPDATE OR DELETE", kind: str = "") -> tuple[str, str]:
    """Return the SQL of a PostgreSQL trigger on rooms that runs *body*."""
    function = f"CREATE OR REPLACE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$"
    deferred = "DEFERRABLE INITIALLY DEFERRED" if kind else ""
    return function, f"CREATE {kind} TRIGGER reject {timing} ON rooms {deferred} FOR EACH ROW EXECUTE FUNCTION reject()"


# --- Triggers. ---


@pytest.mark.parametrize(
    "raised",
    [
        f"RAISE EXCEPTION 'closed: {SECRET}';",
        f"RAISE EXCEPTION 'closed' USING ERRCODE = 'AB123', DETAIL = '{SECRET}';",
        f"RAISE EXCEPTION 'closed' USING ERRCODE = '45000', HINT = '{SECRET}';",
        "RAISE EXCEPTION 'closed' USING ERRCODE = 'object_not_in_prerequisite_state';",
        "RAISE EXCEPTION USING ERRCODE = 'no_data_found';",
        "SELECT id INTO STRICT NEW.no FROM rooms WHERE id = -1;",
        "ASSERT FALSE;",
    ],
)
async def test_exception_of_a_trigger(engine: AsyncEngine, raised: str) -> None:
    """An exception of a trigger is a ConflictError, whatever its code; its text is not shown."""
    await run(engine, insert(ROOMS).values(id=1, no=1), *trigger(raised))

    for write in (insert(ROOMS).values(id=2, no=99), update(ROOMS).values(no=99), delete(ROOMS), "INSERT INTO rooms (no) VALUES (3)"):
        error = await error_of(engine, write)
        assert type(error) is ConflictError
        assert (error.fields, SECRET in str(error)) == ((), False)


async def test_trigger_that_names_a_column(engine: AsyncEngine) -> None:
    """The column, table and constraint that a RAISE names are in the error."""
    await run(engine, *trigger("RAISE EXCEPTION 'no' USING COLUMN = 'owner', TABLE = 'rooms', CONSTRAINT = 'rooms_owner';"))

    error = await error_of(engine, insert(ROOMS).values(no=1))

    assert isinstance(error, InvalidDataError)
    assert (error.fields, error.reason, error.table) == (("boss",), "check", "rooms")


async def test_trigger_that_raises_as_a_constraint(engine: AsyncEngine) -> None:
    """A RAISE with the code of a constraint gives the same error as the constraint."""
    await run(engine, *trigger("RAISE unique_violation USING COLUMN = 'no';"))

    error = await error_of(engine, insert(ROOMS).values(no=1))

    assert type(error) is ConflictError
    assert error.fields == ("no",)


async def test_deferred_trigger(engine: AsyncEngine) -> None:
    """A constraint trigger that rejects at COMMIT gives the same error."""
    await run(engine, *trigger("RAISE EXCEPTION 'closed';", "AFTER INSERT", "CONSTRAINT"))

    assert type(await error_of(engine, insert(ROOMS).values(no=1))) is ConflictError


@pytest.mark.parametrize("code", ["P0001", "AB123", "42501", "0A000"])
async def test_exception_of_a_function_that_is_read(engine: AsyncEngine, code: str) -> None:
    """An exception in a SELECT, DO or CALL is a mistake in the code, not a rejected write."""
    body = f"BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END"
    await run(engine, f"CREATE OR REPLACE FUNCTION failing() RETURNS int LANGUAGE plpgsql AS $$ {body} $$")

    for statement in ("SELECT failing()", select(text("failing()")), f"DO $$ {body} $$", "WITH a AS (SELECT 1) SELECT failing()"):
        failure = await failure_of(run(engine, statement))
        assert as_kit_error(failure) is None
        assert not is_retryable(failure)


@pytest.mark.parametrize("how", ["ABORT", "FAIL", "ROLLBACK"])
async def test_exception_of_a_trigger_on_sqlite(sqlite_database: Database, how: str) -> None:
    """A RAISE of an SQLite trigger is a ConflictError, also if it rolls back the whole transaction."""
    await sqlite_database.create_tables(METADATA)
    await run(
        sqlite_database.engine,
        insert(ROOMS).values(id=1),
        f"CREATE TRIGGER reject BEFORE UPDATE ON rooms BEGIN SELECT RAISE({how}, '{SECRET}'); END",
        f"CREATE TRIGGER keep BEFORE DELETE ON rooms BEGIN SELECT RAISE({how}, '{SECRET}'); END",
    )

    for write in (update(ROOMS).values(no=2), delete(ROOMS)):
        error = await error_of(sqlite_database.engine, write)
        assert type(error) is ConflictError
        assert (error.fields, error.table, SECRET in str(error)) == ((), "rooms", False)


# --- Row-level security. ---


async def test_row_level_security(engine: AsyncEngine) -> None:
    """A row that a policy rejects is a PermissionDeniedError; a table without privileges is a mistake in the deployment."""
    await run(
        engine,
        "DROP ROLE IF EXISTS tenant_of_tests",
        "CREATE ROLE tenant_of_tests",
        "GRANT USAGE ON SCHEMA public TO tenant_of_tests",
        "GRANT INSERT, SELECT, UPDATE ON rooms TO tenant_of_tests",
        "ALTER TABLE rooms ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY own ON rooms USING (true) WITH CHECK (owner = 'me')",
        insert(ROOMS).values(id=1, no=1, boss="me"),
    )
    try:
        as_tenant = "SET LOCAL ROLE tenant_of_tests"
        inserted = await error_of(engine, as_tenant, insert(ROOMS).values(id=5, no=1, boss="you"))
        updated = await error_of(engine, as_tenant, update(ROOMS).values(boss="you"))
        denied = await error_of(engine, as_tenant, delete(ROOMS))
    finally:
        await run(engine, "DROP OWNED BY tenant_of_tests CASCADE", "DROP ROLE tenant_of_tests")

    assert type(inserted) is type(updated) is PermissionDeniedError
    assert str(inserted) == "a policy of rooms rejects the row"
    assert denied is None


async def test_trigger_that_denies(engine: AsyncEngine) -> None:
    """A trigger that raises insufficient_privilege gives the same error as a policy."""
    await run(engine, *trigger("RAISE insufficient_privilege;"))

    assert type(await error_of(engine, insert(ROOMS).values(no=1))) is PermissionDeniedError


# --- Generated columns. ---

MADE = Table(
    "made",
    METADATA,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("no", Integer),
    Column("twice as much", Integer, Computed("no * 2", persisted=True), key="double"),
)


@pytest.mark.parametrize("watched", [True, False])
async def test_generated_columns(engine: AsyncEngine, watched: bool) -> None:
    """A value for a generated column names the field, in INSERT and UPDATE."""
    own = engine if watched else create_async_engine(engine.url)
    row = insert(MADE).values(no=1)
    key = [await error_of(own, insert(MADE).values(id=7, no=1)), await error_of(own, row, update(MADE).values(id=8))]
    double = [await error_of(own, insert(MADE).values(no=1, double=3)), await error_of(own, row, update(MADE).values(double=3))]
    if not watched:
        await own.dispose()

    for errors, field in ((key, "id"), (double, "double" if watched else "twice as much")):
        for error in errors:
            assert isinstance(error, InvalidDataError)
            assert (error.fields, error.reason) == ((field,), "read_only")


async def test_generated_column_of_sqlite(sqlite_database: Database) -> None:
    """A value for a generated column names the field on SQLite."""
    await sqlite_database.create_tables(METADATA)

    for write in (insert(MADE).values(no=1, double=3), update(MADE).values(double=3)):
        error = await error_of(sqlite_database.engine, write)
        assert isinstance(error, InvalidDataError)
        assert (error.fields, error.reason, error.table) == (("double",), "read_only", "made")


# --- Statements that were prepared before a migration. ---


@pytest.mark.parametrize(
    "migration",
    [
        ["ALTER TABLE words ALTER COLUMN n TYPE bigint"],
        [
            "ALTER TYPE word_kind RENAME TO old_kind",
            "CREATE TYPE word_kind AS ENUM ('noun', 'verb', 'name')",
            "ALTER TABLE words ALTER COLUMN kind TYPE word_kind USING kind::text::word_kind",
            "DROP TYPE old_kind",
        ],
        ["ALTER TABLE words ADD COLUMN more text", "ALTER TABLE words DROP COLUMN gone"],
    ],
    ids=["type", "enum", "columns"],
)
async def test_first_statement_after_a_migration(postgres_database: Database, postgres_url: URL, migration: list[str]) -> None:
    """A statement that was prepared before a migration is unavailable and retryable, and the retry succeeds."""
    metadata = MetaData()
    words = Table(
        "words",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("n", Integer),
        Column("kind", Enum("noun", "verb", name="word_kind")),
    )
    await postgres_database.create_tables(metadata)
    database = Database(postgres_url)
    await run(database.engine, "ALTER TABLE words ADD COLUMN gone text", insert(words).values(id=1, n=1, kind="noun"))
    queries = [select(words).where(words.c.kind == "noun"), text("SELECT * FROM words")]
    await run(database.engine, *queries)
    await run(postgres_database.engine, *migration)
    failures: list[Exception] = []

    for query in queries:

        async def work(session: AsyncSession, query: Executable = query) -> None:
            try:
                await session.execute(query)
            except Exception as failure:
                failures.append(failure)
                raise

        await run_transaction(database.begin, work)
    await database.dispose()

    assert failures
    assert all(isinstance(as_kit_error(failure), UnavailableError) for failure in failures)


async def test_migration_that_the_code_does_not_know(postgres_database: Database) -> None:
    """A column or table that a migration has dropped is a mistake in the code."""
    await postgres_database.create_tables(METADATA)
    await run(postgres_database.engine, "ALTER TABLE rooms DROP COLUMN no")

    assert await error_of(postgres_database.engine, insert(ROOMS).values(no=1)) is None
    assert await error_of(postgres_database.engine, "DROP TABLE rooms", insert(ROOMS).values(id=1)) is None
