"""Empty databases, quickly: tables that a second test asks for are kept, empty, instead of being dropped and created again.

PostgreSQL waits for the disk when a table is dropped. Renaming a schema and deleting rows need no such wait.
"""

import os
from collections.abc import AsyncGenerator, MutableMapping, MutableSet
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import URL, MetaData, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from fastapi_kit.db import Base, Database

__all__ = ["POSTGRES_URL", "KeptSchemas", "PostgresDatabase", "SQLiteDatabase", "administer", "new_database"]

POSTGRES_URL = os.environ.get("TEST_POSTGRES_URL", "postgresql+asyncpg://postgres@127.0.0.1:5432/test")


async def administer(*statements: str) -> None:
    """Run *statements* on the server of TEST_POSTGRES_URL, each in a transaction of its own."""
    engine = create_async_engine(POSTGRES_URL, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            for statement in statements:
                await connection.execute(text(statement))
    finally:
        await engine.dispose()


@asynccontextmanager
async def new_database(name: str) -> AsyncGenerator[URL]:
    """Create the PostgreSQL database *name*, whose COMMITs do not wait for the disk, and drop it at the end."""
    await administer(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name}")
    await administer(f"ALTER DATABASE {name} SET synchronous_commit = off")
    yield make_url(POSTGRES_URL).set(database=name)
    await administer(f"DROP DATABASE {name} WITH (FORCE)")


@dataclass(frozen=True)
class Kept:
    """Tables that are kept, and the schema in which they wait. *fingerprint* changes when anything in it is altered."""

    tables: tuple[str, ...]
    schema: str
    fingerprint: tuple[int, ...]


@dataclass
class KeptSchemas:
    """The tables that are kept in one PostgreSQL database."""

    kept: MutableMapping[MetaData, Kept] = field(default_factory=WeakKeyDictionary[MetaData, Kept])
    seen: MutableSet[MetaData] = field(default_factory=WeakSet[MetaData])
    in_public: Kept | None = None
    count: int = 0

    async def empty(self, connection: AsyncConnection) -> None:
        """Leave an empty schema ``public``: put kept tables aside, drop everything else."""
        if others := (await connection.scalars(text(OTHER_SCHEMAS))).all():
            await run_at_once(connection, *(f'DROP SCHEMA "{name}" CASCADE' for name in others))
        kept, self.in_public = self.in_public, None
        fingerprint = await fingerprint_of_public(connection)
        if kept is not None and kept.fingerprint == fingerprint:
            await run_at_once(
                connection,
                "SET LOCAL session_replication_role = replica",  # foreign keys do not order the deletions
                *(f'DELETE FROM "{table}"' for table in kept.tables),
                f"SELECT setval(seqrelid, seqstart, false) FROM pg_sequence JOIN pg_class ON pg_class.oid = seqrelid WHERE {IN_PUBLIC}",
                f"ALTER SCHEMA public RENAME TO {kept.schema}",
                "CREATE SCHEMA public",
            )
        elif any(fingerprint):
            for metadata in [metadata for metadata, found in self.kept.items() if found is kept]:
                del self.kept[metadata]
            await run_at_once(connection, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")

    async def bring_back(self, connection: AsyncConnection, metadata: MetaData) -> bool:
        """Make the kept tables of *metadata* the schema ``public``, which is empty. Return whether there are any."""
        kept = self.kept.get(metadata)
        if kept is None or kept.tables != tuple(metadata.tables):
            return False
        await run_at_once(connection, "DROP SCHEMA public", f"ALTER SCHEMA {kept.schema} RENAME TO public")
        self.in_public = kept
        return True

    async def keep(self, connection: AsyncConnection, metadata: MetaData) -> None:
        """Keep the tables of *metadata*, just created in ``public``, from the second time on: most metadata is one test's own."""
        if metadata in self.seen:
            self.count += 1
            self.in_public = Kept(tuple(metadata.tables), f"kept_{self.count}", await fingerprint_of_public(connection))
            self.kept[metadata] = self.in_public
        self.seen.add(metadata)


IN_PUBLIC = "relnamespace = 'public'::regnamespace"
OTHER_SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname NOT IN ('public', 'information_schema') AND nspname !~ '^(pg|kept)_'"
CATALOGS = {"pg_class": "relnamespace", "pg_type": "typnamespace", "pg_constraint": "connamespace", "pg_proc": "pronamespace"}
FINGERPRINT = "SELECT " + ", ".join(
    [
        *(
            f"(SELECT coalesce(sum(oid::bigint + 7 * xmin::text::bigint), 0) FROM {catalog} WHERE {column} = 'public'::regnamespace)"
            for catalog, column in CATALOGS.items()
        ),
        "(SELECT coalesce(sum(pg_attribute.xmin::text::bigint), 0) FROM pg_attribute"
        f" JOIN pg_class ON pg_class.oid = attrelid WHERE {IN_PUBLIC})",
    ]
)


async def fingerprint_of_public(connection: AsyncConnection) -> tuple[int, ...]:
    """Return a number for each catalog: zero if the schema has nothing in it, another one if an object is added or altered."""
    return tuple((await connection.execute(text(FINGERPRINT))).one())


async def run_at_once(connection: AsyncConnection, *statements: str) -> None:
    """Run all *statements* in one round trip."""
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    await driver.execute("; ".join(statements))


class PostgresDatabase(Database):
    """A database whose ``create_tables`` brings back tables that are kept."""

    def __init__(self, url: URL, schemas: KeptSchemas) -> None:
        super().__init__(url)
        self.schemas = schemas

    async def create_tables(self, metadata: MetaData | None = None) -> None:
        """Create the tables of *metadata*, or bring them back."""
        metadata = metadata if metadata is not None else Base.metadata
        async with self.engine.connect() as connection:
            is_empty = not self.is_isolated and not any(await fingerprint_of_public(connection))
            if is_empty and await self.schemas.bring_back(connection, metadata):
                await connection.commit()
                return
        await super().create_tables(metadata)
        if is_empty:
            async with self.engine.connect() as connection:
                await self.schemas.keep(connection, metadata)

    @property
    def is_isolated(self) -> bool:
        """Whether a test has bound the sessions to one connection."""
        return self.sessions.kw["bind"] is not self.engine


class SQLiteDatabase(Database):
    """A database in *file* whose ``create_tables`` copies a file that has the tables."""

    files: ClassVar[MutableMapping[MetaData, tuple[tuple[str, ...], bytes]]] = WeakKeyDictionary()

    def __init__(self, file: Path) -> None:
        super().__init__(f"sqlite+aiosqlite:///{file}")
        self.file = file

    async def create_tables(self, metadata: MetaData | None = None) -> None:
        """Create the tables of *metadata*, or copy the file of an earlier test that created them."""
        metadata = metadata if metadata is not None else Base.metadata
        if self.file.exists() or self.sessions.kw["bind"] is not self.engine:
            await super().create_tables(metadata)
            return
        tables, content = self.files.get(metadata, ((), b""))
        if tables == tuple(metadata.tables):
            self.file.write_bytes(content)
            return
        await super().create_tables(metadata)
        await self.engine.dispose()
        self.files[metadata] = tuple(metadata.tables), self.file.read_bytes()
