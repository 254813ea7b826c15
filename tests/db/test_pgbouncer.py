"""The library behind a real pgbouncer in transaction mode, with two server connections."""

import asyncio
import os
import pwd
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, func, insert, select, text
from sqlalchemy.exc import DBAPIError
from tests.databases import KeptConnections
from tests.db.test_urls import make_certificate
from tests.reliability.aside import eventually
from tests.reliability.servers import closed_port
from tests.tables.library import AuthorCreate, AuthorService, LibraryBase, Tag, TagCreate, TagService, TagUpdate

from fastapi_kit.db import Database, DatabaseOptions, typed_errors, unit_of_work
from fastapi_kit.errors import ConflictError, UnavailableError

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
DRIVERS = ["asyncpg", "psycopg"]
SERVERS = 2
SESSIONS = 50


@dataclass
class Bouncer:
    """The pooler in front of the server of *url*, at *port*."""

    url: URL
    folder: Path
    port: int
    settings: str = ""
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        server = self.url
        login = f"user={server.username}" + (f" password={server.password}" if server.password else "")
        ini = self.folder / "pgbouncer.ini"
        ini.write_text(
            f"""[databases]
{server.database} = host={server.host} port={server.port or 5432} dbname={server.database} {login}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {SERVERS}
max_client_conn = 200
{self.settings}
"""
        )
        # pgbouncer does not run as root.
        user: dict[str, Any] = {"user": _other_user()} if os.geteuid() == 0 else {}
        quiet = asyncio.subprocess.DEVNULL
        self.process = await asyncio.create_subprocess_exec(PROGRAM or "", str(ini), stdout=quiet, stderr=quiet, **user)
        await eventually(self.answers)

    async def stop(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    def through(self, driver: str = "asyncpg", query: str = "pgbouncer=true") -> str:
        """Return the URL of the pooler."""
        return f"postgresql+{driver}://{self.url.username}:hush@localhost:{self.port}/{self.url.database}?{query}"


def _other_user() -> str:
    return next(name for name in ("postgres", "nobody") if any(entry.pw_name == name for entry in pwd.getpwall()))


@asynccontextmanager
async def pooled(url: URL, settings: str = "", folder: Path | None = None) -> AsyncIterator[Bouncer]:
    if PROGRAM is None:
        if os.environ.get("CI") == "true":
            pytest.fail("pgbouncer is not installed")
        pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
    with tempfile.TemporaryDirectory() as name:
        bouncer = Bouncer(url, folder or Path(name), closed_port(), settings)
        bouncer.folder.chmod(0o755)
        await bouncer.start()
        try:
            yield bouncer
        finally:
            await bouncer.stop()


@pytest.fixture
async def bouncer(postgres_database: Database) -> AsyncIterator[Bouncer]:
    async with pooled(postgres_database.engine.url) as bouncer:
        yield bouncer


@pytest.fixture(params=DRIVERS)
async def pool(request: pytest.FixtureRequest, bouncer: Bouncer) -> AsyncIterator[Database]:
    """A database behind the pooler, with its tables, which were created through it."""
    database = Database(bouncer.through(request.param), options=DatabaseOptions(pool_size=50, max_overflow=0, pool_timeout=20))
    await database.create_tables(LibraryBase.metadata)
    await database.create_tables(LibraryBase.metadata)
    yield database
    await database.dispose()


@pytest.mark.only_full
async def test_many_sessions_share_two_servers(pool: Database, postgres_database: Database, kept_connections: KeptConnections) -> None:
    """Many sessions share two server connections without meeting each other's prepared statements."""
    barrier = asyncio.Barrier(SESSIONS)

    async def work(number: int) -> None:
        async with pool.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        await barrier.wait()
        for step in range(4):
            async with pool.sessions() as session:
                author = await AuthorService(session).create(AuthorCreate(email=f"{number}-{step}@example.org"))
                with pytest.raises(ConflictError):
                    await AuthorService(session).create(AuthorCreate(email=f"{number}-{step}@example.org"))
                assert (await AuthorService(session).get(author.id)).email == f"{number}-{step}@example.org"
            with pytest.raises(ZeroDivisionError):
                async with pool.begin() as session, session.begin_nested():
                    await TagService(session).create(TagCreate(name=f"undone {number}-{step}"))
                    await asyncio.sleep(0)
                    raise ZeroDivisionError

    async with asyncio.TaskGroup() as group:
        for number in range(SESSIONS):
            group.create_task(work(number))

    async with pool.sessions() as session:
        assert await AuthorService(session).count() == 4 * SESSIONS
        assert await TagService(session).count() == 0
    await kept_connections.close()
    async with postgres_database.sessions() as session:
        servers = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        assert (await session.scalars(text(servers))).one() <= SERVERS
    async with pool.begin() as session:
        assert (await session.scalars(text("SELECT count(*) FROM pg_prepared_statements"))).one() == 0


@pytest.mark.only_full
async def test_reads_in_autocommit_meet_their_own_statement(pool: Database) -> None:
    """A read without a transaction uses its own prepared statement, also while types are looked up."""
    async with pool.begin() as session:
        await session.execute(insert(Tag), [{"name": f"tag {number}", "weight": number} for number in range(50)])

    async def read(number: int) -> None:
        async with pool.engine.connect() as connection:
            connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
            for step in range(10):
                found = await connection.execute(select(Tag.weight).where(Tag.name == f"tag {number}").add_columns(text(f"{step}")))
                assert tuple(found.one()) == (number, step)
            array = await connection.execute(text("SELECT array_agg(weight), '[1,2]'::int4range FROM tags"))
            assert sorted(array.one()[0]) == list(range(50))
        async with pool.sessions() as session:
            assert [tag.weight for tag in await TagService(session).list(Tag.name == f"tag {number}")] == [number]

    async with asyncio.TaskGroup() as group:
        for number in range(SESSIONS):
            group.create_task(read(number))


async def test_streams_and_many_rows(pool: Database) -> None:
    """A stream keeps its server connection until the end of the transaction, and executemany works."""
    async with pool.begin() as session:
        await session.execute(insert(Tag), [{"name": f"tag {number}", "weight": 1} for number in range(300)])

    async def count() -> int:
        async with pool.sessions() as session:
            return len([tag async for tag in await session.stream_scalars(select(Tag))])

    assert await asyncio.gather(*(count() for _ in range(6))) == [300] * 6


async def test_a_unit_of_work(pool: Database) -> None:
    """Several writes of services are one transaction on one server connection."""
    async with pool.sessions() as session, unit_of_work(session):
        tag = await TagService(session).create(TagCreate(name="a"))
        await TagService(session).update(tag.id, TagUpdate(name="b"))

    async with pool.sessions() as session:
        assert (await session.scalars(select(Tag.name))).all() == ["b"]


async def test_a_restart_of_the_pooler(bouncer: Bouncer, pool: Database) -> None:
    """After a restart of the pooler connections are replaced; meanwhile requests get UnavailableError."""
    async with pool.sessions() as session:
        await TagService(session).create(TagCreate(name="before"))
    await bouncer.stop()
    with pytest.raises(UnavailableError):
        await pool.ping()
    await bouncer.start()

    async with pool.sessions() as session:
        await TagService(session).create(TagCreate(name="after"))
        assert (await session.scalars(select(func.count()).select_from(Tag))).one() == 2


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_statement_is_limited_without_a_setting_at_the_login(bouncer: Bouncer, driver: str) -> None:
    """statement_timeout works without a setting at the login, and leaves none on the server."""
    database = Database(bouncer.through(driver), options=DatabaseOptions(statement_timeout=0.2, pool_size=1, max_overflow=0))
    with pytest.raises(UnavailableError):
        async with database.begin() as session, typed_errors(session):
            await session.execute(text("SELECT pg_sleep(60)"))

    async with database.begin() as session:
        running = text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(60)' AND state = 'active'"
        )
        assert (await session.scalars(running)).one() == 0
    other = Database(bouncer.through(driver))
    async with other.begin() as session:
        assert (await session.scalars(text("SHOW statement_timeout"))).one() == "0"
    for each in (database, other):
        await each.dispose()


async def test_what_goes_wrong_without_the_option(bouncer: Bouncer) -> None:
    """Without pgbouncer=True settings at the login and prepared statements fail."""
    limited = Database(bouncer.through(query="application_name=shop"), options=DatabaseOptions(statement_timeout=1))
    with pytest.raises(Exception, match="unsupported startup parameter"):
        async with limited.engine.connect():
            pass
    database = Database(bouncer.through(query="application_name=shop"))
    statement = text("SELECT CAST(:number AS int)").bindparams(number=1)
    async with database.engine.connect() as first, database.engine.connect() as second:
        await first.execute(statement)
        await first.commit()
        await second.execute(text("SELECT 1"))  # takes the server connection that first had
        with pytest.raises(DBAPIError, match=r"prepared statement .* does not exist"):
            await first.execute(statement)
    for each in (limited, database):
        await each.dispose()


@pytest.mark.parametrize("driver", DRIVERS)
async def test_tls_as_the_url_asks_for_it(postgres_url: URL, driver: str, tmp_path: Path) -> None:
    """The server's certificate and name are verified; another certificate is rejected."""
    with tempfile.TemporaryDirectory() as name:
        certificate, key = make_certificate(Path(name))
        key.chmod(0o644)
        stranger, _ = make_certificate(tmp_path)
        settings = f"client_tls_sslmode = require\nclient_tls_key_file = {key}\nclient_tls_cert_file = {certificate}"
        async with pooled(postgres_url, settings, Path(name)) as bouncer:
            for mode, root, fits in [
                ("verify-full", certificate, True),
                ("verify-full", stranger, False),
                ("verify-ca", certificate, True),
                ("disable", certificate, False),
            ]:
                database = Database(bouncer.through(driver, f"pgbouncer=true&sslmode={mode}&sslrootcert={root}"))
                if fits:
                    await database.ping()
                else:
                    with pytest.raises(UnavailableError):
                        await database.ping()
                await database.dispose()
