"""What a test leaves behind in a database, the next test does not find."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Column, Integer, MetaData, Table, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from tests.databases import KeptConnections, KeptSchemas, PostgresDatabase, SQLiteDatabase, administer, new_database
from tests.tables.library import LibraryBase

from fastapi_kit.db import Database, DatabaseOptions


@pytest.fixture(scope="module")
async def databases(postgres_url: URL) -> AsyncIterator["Databases"]:
    """Databases as one test after the other gets them."""
    async with new_database(f"{postgres_url.database}_kept") as url:
        found = Databases(url)
        yield found
        assert found.database is not None
        await found.database.dispose()


class Databases:
    def __init__(self, url: URL) -> None:
        self.url, self.schemas = url, KeptSchemas()
        self.database: PostgresDatabase | None = None

    async def start_test(self) -> AsyncEngine:
        """Return the engine of an empty database."""
        if self.database is not None:
            await self.database.dispose()
        self.database = PostgresDatabase(self.url, self.schemas)
        async with self.database.engine.begin() as connection:
            await self.schemas.empty(connection)
        return self.database.engine

    async def start_test_with_tables(self, metadata: MetaData = LibraryBase.metadata) -> AsyncEngine:
        engine = await self.start_test()
        assert self.database is not None
        assert await column(engine, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == []
        await self.database.create_tables(metadata)
        return engine


async def column(engine: AsyncEngine, *statements: str) -> list[object]:
    """Run *statements*; return the first column of the last."""
    async with engine.begin() as connection:
        for statement in statements[:-1]:
            await connection.execute(text(statement))
        return list((await connection.execute(text(statements[-1]))).scalars())


async def test_tables_are_empty_and_numbered_from_one(databases: Databases) -> None:
    """Rows are gone, and the sequences start again, whether the tables are new or kept."""
    for _ in range(4):
        engine = await databases.start_test_with_tables()

        assert await column(engine, "INSERT INTO tags (name) VALUES ('a'), ('b')", "SELECT id FROM tags ORDER BY id") == [1, 2]

    assert databases.schemas.start.longer[LibraryBase.metadata].kept is not None


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE tags ADD COLUMN more int",
        "ALTER TABLE tags ALTER COLUMN weight SET NOT NULL",
        "CREATE INDEX tags_weight ON tags (weight)",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TRIGGER t BEFORE UPDATE ON tags FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE TABLE another (id int)",
        "DROP TABLE tags",
    ],
)
async def test_altered_tables_are_created_again(databases: Databases, change: str) -> None:
    """Whatever a test alters in the schema, the next one gets new tables."""
    for _ in range(3):
        engine = await databases.start_test_with_tables()
    before = await column(engine, "SELECT 'tags'::regclass::oid")

    await column(engine, change, "SELECT 1")
    engine = await databases.start_test_with_tables()

    assert await column(engine, "SELECT 'tags'::regclass::oid") != before


async def test_another_schema_is_dropped(databases: Databases) -> None:
    """A schema that a test creates does not outlive it."""
    await column(await databases.start_test(), "CREATE SCHEMA other", "SELECT 1")

    assert await column(await databases.start_test(), "SELECT nspname FROM pg_namespace WHERE nspname = 'other'") == []


@pytest.fixture
def shelves_and_boxes() -> tuple[MetaData, MetaData]:
    """Two metadata of a test's own, with one table each."""
    found = MetaData(), MetaData()
    for metadata, name in zip(found, ("shelves", "boxes"), strict=True):
        Table(name, metadata, Column("id", Integer, primary_key=True))
    return found


def creations_of(*several: MetaData) -> list[str]:
    """Return a list to which each CREATE TABLE of these metadata adds the name of the table."""
    created: list[str] = []
    for metadata in several:
        for table in metadata.tables.values():
            event.listen(table, "after_create", lambda table, *_, **__: created.append(table.name))
    return created


async def test_tables_of_several_metadata_are_kept(databases: Databases, shelves_and_boxes: tuple[MetaData, MetaData]) -> None:
    """The tables of a second metadata come back, too, with or without it: nothing is created any more, and all are empty."""
    shelves, boxes = shelves_and_boxes
    created = creations_of(shelves, boxes)
    for number in range(8):
        engine = await databases.start_test_with_tables(shelves)
        assert databases.database is not None
        if number % 4 != 3:
            await databases.database.create_tables(boxes)
            assert await column(engine, "INSERT INTO boxes DEFAULT VALUES", "SELECT id FROM boxes") == [1]
        assert await column(engine, "INSERT INTO shelves DEFAULT VALUES", "SELECT id FROM shelves") == [1]
        if number == 3:
            created.clear()

    assert created == []


@pytest.mark.only_full
async def test_rows_between_two_metadata_stay(databases: Databases, shelves_and_boxes: tuple[MetaData, MetaData]) -> None:
    """What is written before the tables of a second metadata are created is there afterwards, also where both are kept."""
    shelves, boxes = shelves_and_boxes
    for number in range(8):
        engine = await databases.start_test_with_tables(shelves)
        assert databases.database is not None
        if number >= 4:
            await column(engine, "INSERT INTO shelves DEFAULT VALUES", "SELECT 1")
        await databases.database.create_tables(boxes)
        assert len(await column(engine, "SELECT id FROM shelves")) == (number >= 4)
        assert await column(engine, "SELECT id FROM boxes") == []


@pytest.mark.parametrize("is_written", [False, True])
async def test_a_file_is_copied(tmp_path: Path, shelves_and_boxes: tuple[MetaData, MetaData], is_written: bool) -> None:
    """On SQLite the second test creates no table, unless the first metadata's tables have rows already: they stay."""
    shelves, boxes = shelves_and_boxes
    created = creations_of(shelves, boxes)
    for number in range(4):
        database = SQLiteDatabase(tmp_path / f"{number}.db")
        await database.create_tables(shelves)
        if is_written:
            await column(database.engine, "INSERT INTO shelves DEFAULT VALUES", "SELECT 1")
        if number != 1:
            await database.dispose()  # what is written is in the log until then
        await database.create_tables(boxes)
        assert len(await column(database.engine, "SELECT id FROM shelves")) == is_written
        assert await column(database.engine, "SELECT id FROM boxes") == []
        await database.dispose()

    assert created == (["shelves", *["boxes"] * 4] if is_written else ["shelves", "boxes"])


class Run:
    """Tests one after the other, each with an engine of its own."""

    def __init__(self, url: URL) -> None:
        self.url, self.kept = url, KeptConnections()

    @asynccontextmanager
    async def start(self, **options: Any) -> AsyncGenerator[AsyncEngine]:
        database = Database(self.url, options=DatabaseOptions(**options))
        self.kept.give_to(database.engine)
        yield database.engine
        await self.kept.keep_those_of(database.engine)
        await database.dispose()


@pytest.fixture
async def run(postgres_url: URL) -> AsyncIterator[Run]:
    found = Run(postgres_url)
    yield found
    await found.kept.close()


PROCESS = "SELECT pg_backend_pid()"


async def test_a_kept_connection_is_as_new(run: Run) -> None:
    """The next test gets the same process of the server, without settings, temporary tables, locks and prepared statements."""
    async with run.start() as engine:
        left = ["SET search_path = pg_temp", "CREATE TEMP TABLE t (id int)", "LISTEN news", "SELECT pg_advisory_lock(7)"]
        first = await column(engine, *left, "PREPARE p AS SELECT 1", PROCESS)

    async with run.start() as engine:
        assert await column(engine, PROCESS) == first
        assert await column(engine, "SHOW search_path") == ['"$user", public']
        assert await column(engine, "SELECT to_regclass('t')") == [None]
        assert await column(engine, "SELECT pg_listening_channels()") == []
        assert await column(engine, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()") == []
        assert "p" not in await column(engine, "SELECT name FROM pg_prepared_statements")


async def test_a_connection_that_the_server_closed_is_not_kept(run: Run) -> None:
    """The next test connects anew."""
    async with run.start() as engine:
        (first,) = await column(engine, PROCESS)
    await administer(f"SELECT pg_terminate_backend({first})")
    other = create_async_engine(run.url)
    while await column(other, f"SELECT pid FROM pg_stat_activity WHERE pid = {first}"):
        pass
    await other.dispose()

    async with run.start() as engine:
        assert await column(engine, PROCESS) != [first]


async def test_another_way_to_connect(run: Run) -> None:
    """A test that connects with other arguments gets no kept connection, and its own are no other test's."""
    async with run.start() as engine:
        first = await column(engine, PROCESS)
    async with run.start(statement_timeout=5) as engine:
        assert await column(engine, PROCESS) != first
        assert await column(engine, "SHOW statement_timeout") == ["5s"]

    async with run.start() as engine:
        assert await column(engine, "SHOW statement_timeout") == ["0"]


async def test_few_connections_are_kept(run: Run) -> None:
    """A test that opens many leaves the server few of them."""
    async with run.start() as engine:
        opened = [await engine.connect() for _ in range(run.kept.most + 2)]
        for connection in opened:
            await connection.close()

    assert len(run.kept.idle) == run.kept.most
