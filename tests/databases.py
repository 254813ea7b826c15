"""Empty databases, quickly: tables that a second test asks for are kept, empty, instead of being dropped and created again.

PostgreSQL waits for the disk when a table is dropped. Renaming a schema and deleting rows need no such wait.
"""

import os
from collections.abc import AsyncGenerator, MutableMapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar
from weakref import WeakKeyDictionary

import asyncpg
from sqlalchemy import URL, MetaData, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from fastapi_kit.db import Base, Database

__all__ = ["POSTGRES_URL", "KeptConnections", "KeptSchemas", "PostgresDatabase", "SQLiteDatabase", "administer", "new_database"]

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


KeptT = TypeVar("KeptT")


@dataclass(eq=False)
class Step(Generic[KeptT]):
    """The tables of one metadata after the other, made in an empty database. *kept* is what brings them back, empty."""

    tables: tuple[str, ...] = ()
    kept: KeptT | None = None
    times: int = 0
    longer: MutableMapping[MetaData, "Step[KeptT]"] = field(default_factory=WeakKeyDictionary[MetaData, "Step[KeptT]"])

    def then(self, metadata: MetaData) -> "Step[KeptT]":
        """Return the step that adds the tables of *metadata*: the same one as before, unless it has got others since."""
        tables = (*self.tables, *metadata.tables)
        step = self.longer.get(metadata)
        if step is None or step.tables != tables:
            step = self.longer[metadata] = Step(tables)
        return step


@dataclass(frozen=True)
class Kept:
    """The schema in which tables wait. *fingerprint* changes when anything in it is altered."""

    schema: str
    fingerprint: tuple[int, ...]


@dataclass
class KeptSchemas:
    """The tables that are kept in one PostgreSQL database. *now* are those in ``public``, as *fingerprint* has them."""

    start: Step[Kept] = field(default_factory=Step[Kept])
    now: Step[Kept] = field(init=False)
    fingerprint: tuple[int, ...] = ()
    count: int = 0

    def __post_init__(self) -> None:
        self.now = self.start

    async def empty(self, connection: AsyncConnection) -> None:
        """Leave an empty schema ``public``: put kept tables aside, drop everything else."""
        if others := (await connection.scalars(text(OTHER_SCHEMAS))).all():
            await run_at_once(connection, *(f'DROP SCHEMA "{name}" CASCADE' for name in others))
        step, self.now = self.now, self.start
        fingerprint = await fingerprint_of_public(connection)
        if step.kept is not None and step.kept.fingerprint == fingerprint:
            await run_at_once(
                connection,
                "SET LOCAL session_replication_role = replica",  # foreign keys do not order the deletions
                *(f'DELETE FROM "{table}"' for table in step.tables),
                f"SELECT setval(seqrelid, seqstart, false) FROM pg_sequence JOIN pg_class ON pg_class.oid = seqrelid WHERE {IN_PUBLIC}",
                f"ALTER SCHEMA public RENAME TO {step.kept.schema}",
                "CREATE SCHEMA public",
            )
            return
        step.kept = None
        if any(fingerprint):
            await run_at_once(connection, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")

    async def step_to(self, connection: AsyncConnection, metadata: MetaData) -> Step[Kept] | None:
        """Return the step to the tables of *metadata*, or nothing if ``public`` has rows, or what no step has made."""
        fingerprint = await fingerprint_of_public(connection)
        if any(fingerprint) and (fingerprint != self.fingerprint or await self.has_rows(connection)):
            return None
        return self.now.then(metadata)

    async def has_rows(self, connection: AsyncConnection) -> bool:
        tables = " UNION ALL ".join(f'(SELECT 1 FROM "{table}" LIMIT 1)' for table in self.now.tables)
        return bool(await connection.scalar(text(f"SELECT EXISTS ({tables})")))

    async def bring_back(self, connection: AsyncConnection, step: Step[Kept]) -> bool:
        """Make the kept tables of *step* the schema ``public``, which has no rows. Return whether there are any."""
        if step.kept is None:
            return False
        before = self.now.kept
        leave = "DROP SCHEMA public CASCADE" if before is None else f"ALTER SCHEMA public RENAME TO {before.schema}"
        await run_at_once(connection, leave, f"ALTER SCHEMA {step.kept.schema} RENAME TO public")
        self.now, self.fingerprint = step, step.kept.fingerprint
        return True

    async def keep(self, connection: AsyncConnection, step: Step[Kept]) -> None:
        """Keep the tables of *step*, just created in ``public``, from the second time on: most metadata is one test's own."""
        self.now.kept = None
        self.now, self.fingerprint = step, await fingerprint_of_public(connection)
        step.times += 1
        if step.times > 1:
            self.count += 1
            step.kept = Kept(f"kept_{self.count}", self.fingerprint)


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


@dataclass
class KeptConnections:
    """Connections to PostgreSQL that no test uses. To start the server's process for a new one takes longer than most tests.

    A test gets one as if it were new, and what it closes itself stays closed.
    """

    most: ClassVar[int] = 4
    idle: list[Any] = field(default_factory=list)
    opened_with: MutableMapping[Any, dict[str, Any]] = field(default_factory=WeakKeyDictionary[Any, dict[str, Any]])

    def give_to(self, engine: AsyncEngine) -> None:
        """Let *engine* use a kept connection before it opens a new one."""

        def connect_with(_dialect: object, _record: object, _positional: object, keywords: dict[str, Any]) -> None:
            keywords["async_creator_fn"] = self.connect

        event.listen(engine.sync_engine, "do_connect", connect_with)

    async def connect(self, **arguments: Any) -> Any:
        """Return a connection that was opened with *arguments*, and the server has forgotten what was done with it."""
        for connection in [kept for kept in self.idle if self.opened_with[kept] == arguments]:
            self.idle.remove(connection)
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
                await connection.execute("DISCARD ALL")
                await connection.reload_schema_state()
                connection._stmts_to_close.clear()  # the server has closed them
                return connection
        connection = await asyncpg.connect(**arguments)
        self.opened_with[connection] = arguments
        return connection

    async def keep_those_of(self, engine: AsyncEngine) -> None:
        """Keep the connections that are idle in the pool of *engine*, and close the oldest if there are too many."""
        pool: Any = engine.pool
        for raw in [await engine.raw_connection() for _ in range(pool.checkedin())]:
            self.idle.append(raw.driver_connection)
            raw.detach()
        await self.close(self.most)

    async def close(self, most: int = 0) -> None:
        """Close all but *most*."""
        while len(self.idle) > most:
            await self.idle.pop(0).close()


class PostgresDatabase(Database):
    """A database whose ``create_tables`` brings back tables that are kept."""

    def __init__(self, url: URL, schemas: KeptSchemas) -> None:
        super().__init__(url)
        self.schemas = schemas

    async def create_tables(self, metadata: MetaData | None = None) -> None:
        """Create the tables of *metadata*, or bring them back."""
        metadata = metadata if metadata is not None else Base.metadata
        if self.is_isolated:
            await super().create_tables(metadata)
            return
        async with self.engine.connect() as connection:
            step = await self.schemas.step_to(connection, metadata)
            if step is not None and await self.schemas.bring_back(connection, step):
                await connection.commit()
                return
        await super().create_tables(metadata)
        if step is not None:
            async with self.engine.connect() as connection:
                await self.schemas.keep(connection, step)

    @property
    def is_isolated(self) -> bool:
        """Whether a test has bound the sessions to one connection."""
        return self.sessions.kw["bind"] is not self.engine


class SQLiteDatabase(Database):
    """A database in *file* whose ``create_tables`` copies a file that has the tables."""

    start: ClassVar[Step[bytes]] = Step()

    def __init__(self, file: Path) -> None:
        super().__init__(f"sqlite+aiosqlite:///{file}")
        self.file = file
        self.log = file.with_name(f"{file.name}-wal")
        self.now = self.start

    async def create_tables(self, metadata: MetaData | None = None) -> None:
        """Create the tables of *metadata*, or copy the file of an earlier test that created them."""
        metadata = metadata if metadata is not None else Base.metadata
        if self.is_altered or self.sessions.kw["bind"] is not self.engine:
            await super().create_tables(metadata)
            return
        self.now = self.now.then(metadata)
        if self.now.kept is not None:
            self.file.write_bytes(self.now.kept)
            return
        await super().create_tables(metadata)
        await self.engine.dispose()
        self.now.kept = self.file.read_bytes()

    @property
    def is_altered(self) -> bool:
        """Whether the file is another one than ``create_tables`` left. While there is a log, somebody uses it."""
        if not self.file.exists():
            return self.now is not self.start
        return self.log.exists() or self.file.read_bytes() != self.now.kept
