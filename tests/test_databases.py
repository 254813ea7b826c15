"""What a test leaves behind in a database, the next test does not find."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import URL, MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.databases import KeptSchemas, PostgresDatabase, new_database
from tests.models import LibraryBase


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

    assert len(databases.schemas.start.longer) == 1


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
