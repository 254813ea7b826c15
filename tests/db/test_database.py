"""The engine: drivers, pools, the repr, creating tables, and transactions on SQLite."""

import asyncio
import gc
import logging
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool
from tests.tables.library import Author, AuthorCreate, AuthorService, BookService, LibraryBase, Tag, TagService
from tests.thorough import FULL

from fastapi_kit.db import Database, DatabaseOptions, typed_errors
from fastapi_kit.db.engines.urls import async_url
from fastapi_kit.errors import ConfigurationError, UnavailableError, UnknownReferenceError
from fastapi_kit.settings import KitSettings

PROCESSES = 4 if FULL else 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgres://u:p@host/name", "postgresql+asyncpg://u:p@host/name"),
        ("postgresql://u:p@host/name", "postgresql+asyncpg://u:p@host/name"),
        ("postgresql+psycopg://host/name", "postgresql+psycopg://host/name"),
        ("sqlite:///file.db", "sqlite+aiosqlite:///file.db"),
        ("sqlite+aiosqlite:///file.db", "sqlite+aiosqlite:///file.db"),
    ],
)
def test_urls_get_an_installed_async_driver(given: str, expected: str) -> None:
    """URLs of hosting providers work as they are."""
    assert async_url(given).render_as_string(hide_password=False) == expected


@pytest.mark.parametrize("url", ["", "no url: hunter2", "postgres"])
def test_a_url_that_cannot_be_read_is_a_clear_error(url: str) -> None:
    """A URL that cannot be parsed raises ConfigurationError that does not show it."""
    with pytest.raises(ConfigurationError, match="looks like") as caught:
        Database(url)

    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_driver_says_what_to_do() -> None:
    """A URL of another database without a driver raises ConfigurationError with the form of the URL."""
    with pytest.raises(ConfigurationError, match=r"no async driver for 'oracle'"):
        Database("oracle://host/name")


async def test_nothing_shows_the_password(caplog: pytest.LogCaptureFixture) -> None:
    """No repr, log line or error shows the password, at any place in the URL."""
    database = Database("postgresql://user:hunter2@127.0.0.1:1/name?ssl=prefer&password=hunter2")
    with caplog.at_level(logging.DEBUG, logger="fastapi_kit"):
        async with database.lifespan(None):
            with pytest.raises(UnavailableError) as caught:
                await database.ping()

    assert "does not answer yet" in caplog.text
    assert "hunter2" not in caplog.text + repr(database) + str(caught.value)


async def test_pool_arguments_reach_the_pools_that_take_them(tmp_path: Path) -> None:
    """Pools with a size get the options; a memory database ignores them."""
    options = DatabaseOptions(pool_size=3, max_overflow=1)
    for url in ("postgresql://127.0.0.1/name", f"sqlite:///{tmp_path / 'a.db'}", "sqlite://"):
        database = Database(url, options=options)
        pool: Any = database.engine.pool
        assert pool.size() == 3
        await database.dispose()


async def test_from_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """from_settings() uses the sizes and the statement timeout of the settings."""
    monkeypatch.chdir(tmp_path)
    settings = KitSettings(DATABASE_URL="postgres://127.0.0.1/name", DB_POOL_SIZE=2, DB_MAX_OVERFLOW=0)

    database = Database.from_settings(settings)

    pool: Any = database.engine.pool
    assert (pool.size(), pool._max_overflow) == (2, 0)
    assert repr(database) == "Database('postgresql+asyncpg://127.0.0.1/name')"


async def test_statement_timeout_is_the_servers(postgres_url: Any) -> None:
    """The statement timeout is set when connecting, without a round trip."""
    database = Database(postgres_url, options=DatabaseOptions(statement_timeout=0.25))
    async with database.begin() as session:
        assert (await session.scalars(text("SHOW statement_timeout"))).one() == "250ms"
    await database.dispose()


async def test_an_idle_connection_is_pinged_and_replaced(postgres_url: Any) -> None:
    """A connection that died while idle is replaced; a busy one is not pinged."""
    database = Database(postgres_url, options=DatabaseOptions(ping_after_idle=0.0, pool_size=1, max_overflow=0))
    async with database.begin() as session:
        pid = (await session.scalars(text("SELECT pg_backend_pid()"))).one()
    other = Database(postgres_url)
    async with other.begin() as session:
        await session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    await other.dispose()

    async with database.begin() as session:
        assert (await session.scalars(text("SELECT pg_backend_pid()"))).one() != pid
    await database.dispose()


async def test_echo_is_off_and_parameters_are_hidden() -> None:
    """No statement and no value is logged."""
    database = Database("sqlite://")

    assert not database.engine.echo
    assert database.engine.sync_engine.hide_parameters
    await database.dispose()


async def test_construction_connects_to_nothing(tmp_path: Path) -> None:
    """Creating a Database does not connect."""
    database = Database(f"sqlite:///{tmp_path / 'missing' / 'a.db'}")

    with pytest.raises(UnavailableError):
        await database.ping()


async def test_the_applications_own_engine_is_wrapped(tmp_path: Path) -> None:
    """An engine of the application is used, and configured on SQLite."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}", poolclass=NullPool)
    database = Database(engine)
    await database.create_tables(LibraryBase.metadata)

    async with database.begin() as session:
        with pytest.raises(UnknownReferenceError):
            await BookService(session).create({"title": "Orphan", "author_id": 1})

    assert database.engine is engine


async def test_create_tables_defaults_to_base_and_repeats_harmlessly(library: Database) -> None:
    """create_tables() creates the tables of Base, and a second call changes nothing."""
    await library.create_tables(LibraryBase.metadata)
    async with library.begin() as session:
        await TagService(session).create({"name": "kept"})
    await library.create_tables(LibraryBase.metadata)

    async with library.begin() as session:
        assert await TagService(session).count() == 1


@pytest.mark.only_full
async def test_processes_create_tables_at_once(database: Database) -> None:
    """Several processes can create the tables at the same time."""
    program = (
        "import asyncio, sys\n"
        "from fastapi_kit.db import Database\n"
        "from tests.tables.library import LibraryBase\n"
        "database = Database(sys.argv[1])\n"
        "asyncio.run(database.create_tables(LibraryBase.metadata))\n"
    )
    url = database.engine.url.render_as_string(hide_password=False)
    workers = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, url, stderr=asyncio.subprocess.PIPE) for _ in range(PROCESSES)
    ]
    outputs = [await worker.communicate() for worker in workers]

    assert [(worker.returncode, error) for worker, (_, error) in zip(workers, outputs, strict=True)] == [(0, b"")] * PROCESSES
    async with database.begin() as session:
        assert await TagService(session).count() == 0


async def test_tables_are_created_by_one_at_a_time(database: Database) -> None:
    """Eight tasks that create tables at the same time do not collide."""
    workers = [Database(database.engine.url) for _ in range(8)]

    await asyncio.gather(*(worker.create_tables(LibraryBase.metadata) for worker in workers))

    for worker in workers:
        await worker.dispose()
    async with database.begin() as session:
        assert await TagService(session).count() == 0


@pytest.mark.only_full
async def test_a_server_that_does_not_answer_is_given_up(postgres_url: Any) -> None:
    """The client's limit ends a statement on a frozen server, and the pool recovers."""
    database = Database(postgres_url, options=DatabaseOptions(command_timeout=1, pool_size=1, max_overflow=0))
    async with database.sessions() as session:
        with pytest.raises(UnavailableError):
            async with typed_errors(session):
                await session.execute(text("SELECT pg_sleep(30)"))

    async with database.begin() as session:
        assert (await session.scalars(text("SELECT 1"))).one() == 1
    await database.dispose()


async def test_lifespan_disposes(library: Database) -> None:
    """The pool is empty after the lifespan."""
    async with library.lifespan(None):
        pass

    pool: Any = library.engine.pool
    assert pool.checkedin() == 0


# SQLite


@pytest.fixture
async def sqlite(sqlite_database: Database) -> Database:
    await sqlite_database.create_tables(LibraryBase.metadata)
    return sqlite_database


@pytest.fixture
async def sent(sqlite: Database) -> list[str]:
    """Return a list of what the driver gets, transaction control included."""
    lines: list[str] = []
    async with sqlite.engine.connect() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        await raw.set_trace_callback(lines.append)
    return lines


async def test_reads_send_no_begin(sqlite: Database, sent: list[str]) -> None:
    """A read sends no BEGIN, so it takes no lock."""
    async with sqlite.begin() as session:
        await TagService(session).list()
        await session.execute(text("WITH x AS (SELECT 1) SELECT * FROM x"))

    assert [line for line in sent if line.startswith(("BEGIN", "COMMIT", "ROLLBACK"))] == []


@pytest.mark.parametrize("kind", ["orm", "core", "text", "savepoint", "with", "ddl", "lock"])
async def test_the_first_write_or_savepoint_begins_immediate(sqlite: Database, sent: list[str], kind: str) -> None:
    """The first write or savepoint of a transaction sends BEGIN IMMEDIATE once."""
    async with sqlite.begin() as session:
        await session.execute(select(Tag))
        await _write(session, kind)
        await session.execute(text("INSERT INTO tags (name) VALUES ('second')"))

    control = [line for line in sent if line.startswith(("BEGIN", "COMMIT", "ROLLBACK"))]
    assert control == ["BEGIN IMMEDIATE", "COMMIT"]


async def _write(session: AsyncSession, kind: str) -> None:
    if kind == "orm":
        session.add(Tag(name="first"))
        await session.flush()
    elif kind == "core":
        await session.execute(Tag.__table__.insert(), [{"name": "first"}, {"name": "other"}])
    elif kind == "savepoint":
        async with session.begin_nested():
            pass
    elif kind == "lock":
        await session.execute(select(Tag).with_for_update())
    else:
        statements = {
            "text": "/* note */ UPDATE tags SET weight = 1",
            "with": "WITH x AS (SELECT 1) INSERT INTO tags (name) SELECT 'first'",
            "ddl": "CREATE TABLE other (id INTEGER)",
        }
        await session.execute(text(statements[kind]))


async def test_savepoints_and_rollbacks_really_undo(sqlite: Database) -> None:
    """A rollback undoes a transaction that began with a savepoint."""
    async with sqlite.sessions() as session:
        async with session.begin_nested():
            session.add(Tag(name="a"))
        await session.rollback()

    async with sqlite.begin() as session:
        assert await TagService(session).count() == 0


async def test_ddl_is_part_of_the_transaction(sqlite: Database) -> None:
    """A table that was created in a failed transaction does not exist."""
    with pytest.raises(ZeroDivisionError):
        async with sqlite.engine.begin() as connection:
            await connection.execute(text("CREATE TABLE other (id INTEGER)"))
            raise ZeroDivisionError

    async with sqlite.engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM sqlite_master WHERE name = 'other'"))).scalar() == 0


async def test_twenty_requests_that_read_and_then_write_all_succeed(sqlite: Database) -> None:
    """Twenty requests read and then write, and none fails with "database is locked"."""

    async def work(number: int) -> None:
        async with sqlite.begin() as session:
            await AuthorService(session).count()
            await asyncio.sleep(0.001)
            await AuthorService(session).create(AuthorCreate(email=f"{number}@example.org"))

    await asyncio.gather(*(work(number) for number in range(20)))

    async with sqlite.begin() as session:
        assert await AuthorService(session).count() == 20


async def test_readers_do_not_wait_for_a_writer(sqlite: Database) -> None:
    """Reads during a write return what is committed."""
    async with sqlite.begin() as writer:
        await TagService(writer).create({"name": "a"})
        async with sqlite.begin() as reader:
            assert await TagService(reader).count() == 0


async def test_pragmas(sqlite: Database) -> None:
    """Every connection has foreign keys, the busy timeout and WAL."""
    async with sqlite.begin() as session:
        found = [(await session.execute(text(f"PRAGMA {name}"))).scalar() for name in ("foreign_keys", "busy_timeout", "journal_mode")]

    assert found == [1, 5000, "wal"]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite+aiosqlite:///:memory:", "sqlite+aiosqlite:///file::memory:?cache=shared&uri=true"])
async def test_memory_means_a_private_file_removed_at_dispose(url: str) -> None:
    """Sessions share a memory database, two Databases do not, and dispose() empties it."""
    database, other = Database(url), Database(url)
    await database.create_tables(LibraryBase.metadata)
    path = Path(database.engine.url.database or "")

    async def create(number: int) -> None:
        async with database.begin() as session:
            session.add(Author(email=f"{number}@example.org"))

    await asyncio.gather(*(create(number) for number in range(10)))
    async with database.begin() as session:
        assert await AuthorService(session).count() == 10
    async with other.begin() as session:
        assert (await session.execute(text("SELECT count(*) FROM sqlite_master"))).scalar() == 0

    assert path.exists()
    await database.dispose()
    await other.dispose()
    assert not path.exists()
    async with database.begin() as session:
        assert (await session.execute(text("SELECT count(*) FROM sqlite_master"))).scalar() == 0
    await database.dispose()


async def test_the_file_of_a_memory_database_goes_with_its_engine() -> None:
    """The file is removed with the engine, not with the Database."""
    sessions = Database("sqlite://").sessions
    gc.collect()
    async with sessions() as session:
        await session.execute(text("CREATE TABLE kept (id INTEGER)"))
        await session.commit()
        path = Path(session.get_bind().engine.url.database or "")
    assert path.exists()

    async with sessions() as session:
        await session.execute(text("SELECT * FROM kept"))
        engine = session.bind
    assert isinstance(engine, AsyncEngine)
    await engine.dispose()
    del session, sessions, engine
    gc.collect()

    assert not path.parent.exists()


@pytest.mark.only_full
async def test_a_forked_child_takes_no_memory_database_with_it() -> None:
    """However a forked child ends, it keeps the parent's data; the end of the parent removes them."""
    program = """
import asyncio, gc, os
from sqlalchemy import text
from fastapi_kit.db import Database

async def use(statement):
    async with database.begin() as session:
        await session.execute(text(statement))
    await database.engine.dispose()

database = Database("sqlite://")
asyncio.run(use("CREATE TABLE kept (id INTEGER)"))
for end in ("raise SystemExit", "asyncio.run(database.dispose())", "del database; gc.collect()"):
    if os.fork() == 0:
        exec(end)
        raise SystemExit
    assert os.wait()[1] == 0
asyncio.run(use("INSERT INTO kept VALUES (1)"))
print(database.engine.url.database)
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    path, _ = await process.communicate()

    assert process.returncode == 0
    assert not Path(path.decode().strip()).parent.exists()


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    """A file of another program: one table, one row, no WAL."""
    file = tmp_path / "old.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript("CREATE TABLE notes (id INTEGER); INSERT INTO notes VALUES (1)")
    return file


@pytest.mark.parametrize("query", ["mode=ro", "mode=ro&cache=private", "immutable=1"])
async def test_a_file_that_is_opened_for_reading_is_read(old_file: Path, query: str) -> None:
    """A file with mode=ro is read and keeps its journal; a write is rejected as unavailable."""
    database = Database(f"sqlite:///file:{old_file}?{query}&uri=true")
    await database.ping()

    async with database.sessions() as session:
        assert (await session.scalars(text("SELECT id FROM notes"))).all() == [1]
        assert (await session.scalars(text("PRAGMA journal_mode"))).one() == "delete"
        with pytest.raises(UnavailableError):
            async with typed_errors(session):
                await session.execute(text("INSERT INTO notes VALUES (2)"))
    await database.dispose()


@pytest.mark.only_full
async def test_a_file_in_a_directory_that_is_read_only_is_read(old_file: Path) -> None:
    """A file in a read-only directory can be read."""
    program = """
import asyncio, os, sys
from sqlalchemy import text
from fastapi_kit.db import Database

async def main():
    database = Database(f"sqlite:///{sys.argv[1]}")
    if os.geteuid() == 0:
        os.setuid(65534)  # root may write everywhere
    await database.ping()
    async with database.sessions() as session:
        assert (await session.scalars(text("SELECT id FROM notes"))).all() == [1]
    await database.dispose()

asyncio.run(main())
"""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = old_file.rename(folder / "old.db")
        file.chmod(0o444)
        folder.chmod(0o555)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(file), stderr=asyncio.subprocess.PIPE)
        _, error = await process.communicate()
        folder.chmod(0o755)

    assert (process.returncode, error) == (0, b"")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///old.db?mode=ro", "'mode'"),
        ("sqlite:///old.db?mode=ro&uri=true", "'mode'"),
        ("sqlite:///file:old.db?immutable=1", "'immutable'"),
        ("sqlite:///old.db?sslmode=require", "'sslmode'"),
        ("sqlite:///old.db?timeout=soon", "rejects"),
        ("sqlite:///old.db?uri=", "no value"),
    ],
)
def test_what_sqlite_would_not_see_is_rejected(url: str, said: str) -> None:
    """Words that SQLite would ignore, because the file name does not begin with file:, raise ConfigurationError."""
    with pytest.raises(ConfigurationError, match=said):
        Database(url)


async def test_a_lock_that_is_not_given_up_is_unavailable(tmp_path: Path) -> None:
    """A lock that is not released within the timeout raises UnavailableError."""
    patience = DatabaseOptions(pool_timeout=0.1)
    one, two = (Database(f"sqlite:///{tmp_path / 'a.db'}", options=patience) for _ in range(2))
    await one.create_tables(LibraryBase.metadata)

    async with one.begin() as writer:
        await TagService(writer).create({"name": "a"})
        with pytest.raises(UnavailableError):
            async with two.begin() as waiting:
                await TagService(waiting).create({"name": "b"})

    for database in (one, two):
        await database.dispose()


async def test_no_statement_listener_sees_begin(sqlite: Database) -> None:
    """Listeners of the application that count statements do not see BEGIN IMMEDIATE."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    event.listen(sqlite.engine.sync_engine, "before_cursor_execute", note)
    async with sqlite.begin() as session:
        await TagService(session).create({"name": "a"})

    assert not [statement for statement in seen if statement.startswith("BEGIN")]
