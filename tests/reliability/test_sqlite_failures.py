"""SQLite: the writer's lock is taken, the disk is full, the file is read-only, missing, or not a database."""

import asyncio
import sqlite3
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from httpx import Response
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine
from tests.reliability.aside import Aside, execute
from tests.reliability.sites import KINDS, Site, assert_unavailable, open_site

from fastapi_kit.db.engines.sqlite import ClosingConnection

WRITES = ["create", "update", "delete", "pair"]
SOON: dict[str, Any] = {"pool_timeout": 0.05}


@pytest.fixture
def file(sqlite_aside: Aside) -> Path:
    """The file of a database with two tags."""
    return Path(sqlite_aside.database.engine.url.database or "")


def url_of(file: Path) -> str:
    return f"sqlite+aiosqlite:///{file}"


@contextmanager
def holding(file: Path, *statements: str) -> Generator[sqlite3.Connection]:
    """Run *statements* on a connection past the app, and roll back at the end."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement).fetchone()
        yield connection


def assert_all_unavailable(answers: list[Response], *, retry_after: int = 1) -> None:
    for answer in answers:
        assert_unavailable(answer, retry_after=retry_after)


# --- Busy. ---


@pytest.mark.parametrize("kind", KINDS)
async def test_another_writer(sqlite_aside: Aside, file: Path, kind: str) -> None:
    """While another connection writes, writes are 503 after the timeout and reads are served; then writes work at once."""
    async with open_site(kind, url_of(file), **SOON) as site:
        with holding(file, "BEGIN IMMEDIATE"):
            rejected = [await site.act(action) for action in WRITES]
            read = await site.act("list")
        out = site.checked_out
        again = await site.act("create")

    assert_all_unavailable(rejected)
    assert (read.status_code, out, again.status_code) == (200, 0, 201)
    assert await sqlite_aside.names() == ["old", "new"]


async def test_another_process(sqlite_aside: Aside, file: Path) -> None:
    """A lock of another process is a 503 too."""
    program = f"import sqlite3; c = sqlite3.connect({str(file)!r}); c.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); input()"
    pipe = asyncio.subprocess.PIPE
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdin=pipe, stdout=pipe, stderr=pipe)
    assert other.stdout is not None
    async with open_site("kit", url_of(file), **SOON) as site:
        assert await other.stdout.readline() == b"locked\n"
        rejected = await site.act("create")
        await other.communicate(b"\n")
        again = await site.act("create")

    assert_unavailable(rejected)
    assert again.status_code == 201


async def test_a_reader_in_the_way_of_the_commit(sqlite_aside: Aside, file: Path) -> None:
    """On an engine without WAL a reader makes the COMMIT of a service fail: 503, nothing is stored, the connection is whole."""
    await sqlite_aside.database.engine.dispose()
    with holding(file, "PRAGMA journal_mode = DELETE"):
        pass
    async with open_site("mixed", url_of(file), pool_size=1, max_overflow=0, **SOON) as site:
        with holding(file, "BEGIN", "SELECT * FROM tags") as reader:
            assert reader.in_transaction
            rejected = [await site.act(action) for action in WRITES]
            read = await site.act("list")
        again = await site.act("create")
        out = site.checked_out

    assert_all_unavailable(rejected)
    assert (read.status_code, again.status_code, out) == (200, 201, 0)
    assert await sqlite_aside.names() == ["old", "new"]


async def test_a_snapshot_that_is_too_old(sqlite_aside: Aside, file: Path) -> None:
    """A hand-written transaction that reads, and writes after another connection has written, is a 503 (BUSY_SNAPSHOT)."""
    engine, router = create_async_engine(url_of(file)), APIRouter()

    @router.post("/late")
    async def write_late() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("BEGIN"))
            await connection.execute(text("SELECT * FROM tags"))
            await sqlite_aside.run("UPDATE tags SET weight = 5")
            await connection.execute(text("UPDATE tags SET weight = 6"))

    async with open_site("by hand", url_of(file), extra=[router]) as site:
        answer = await site.client.post("/late")
    await engine.dispose()

    assert_unavailable(answer)
    assert await sqlite_aside.column("SELECT weight FROM tags") == [5, 5]


@pytest.mark.only_full
@pytest.mark.parametrize("kind", KINDS)
async def test_many_writers_at_once(sqlite_aside: Aside, file: Path, kind: str) -> None:
    """Requests that write at once are all stored: they wait for each other."""
    async with open_site(kind, url_of(file)) as site:
        answers = await asyncio.gather(*(site.act("create", name=f"tag {number}") for number in range(15)))

    assert {answer.status_code for answer in answers} == {201}
    assert len(await sqlite_aside.names()) == 16


# --- Full. ---


def limit_pages(site: Site, pages: int) -> None:
    """Let the app's next connections not grow the file beyond *pages*."""

    def limit(connection: sqlite3.Connection, _record: object) -> None:
        execute(connection, f"PRAGMA max_page_count = {pages}")

    event.listen(site.engine.sync_engine, "connect", limit)


@pytest.mark.only_full
@pytest.mark.parametrize("kind", KINDS)
async def test_a_full_disk(sqlite_aside: Aside, file: Path, kind: str) -> None:
    """A file that cannot grow is a 503 that asks for patience; reads and deletes are served, and writes once there is room."""
    (pages,) = await sqlite_aside.column("PRAGMA page_count")
    async with open_site(kind, url_of(file), pool_size=1, max_overflow=0) as site:
        await site.engine.dispose()
        limit_pages(site, pages)
        number, answer = 0, await site.act("create", name="0" * 50)
        while answer.is_success and number < 200:
            number += 1
            answer = await site.act("create", name=f"{number:050}")
        rejected = [answer, await site.act("pair", name="x" * 40)]
        served = [await site.act(action) for action in ("list", "delete")]
        limit_pages(site, pages + 1000)
        await site.engine.dispose()
        roomy = await site.act("pair", name="y" * 40)
        out = site.checked_out

    assert_all_unavailable(rejected, retry_after=30)
    assert [answer.status_code for answer in served] == [200, 204]
    assert (roomy.status_code, out) == (201, 0)
    assert len(await sqlite_aside.names()) == number + 2


@pytest.mark.parametrize("path", ["/attempts", "/loose-attempts"])
@pytest.mark.parametrize("kind", ["kit", "mixed"])
async def test_a_transaction_that_the_full_disk_undid_writes_no_more(sqlite_aside: Aside, file: Path, kind: str, path: str) -> None:
    """SQLite undoes the whole transaction when the disk is full: a handler that goes on stores all or nothing."""
    (pages,) = await sqlite_aside.column("PRAGMA page_count")
    async with open_site(kind, url_of(file), pool_size=1, max_overflow=0) as site:
        await site.engine.dispose()
        limit_pages(site, pages)
        answer = await site.client.post(path, json={"first": "first", "attempted": "x" * 100_000, "last": "last"})
        out = site.checked_out

    stored = await sqlite_aside.names()
    assert stored == (["old", "first", "last"] if answer.is_success else ["old"])
    assert out == 0


# --- Not a file that can be written. ---


@pytest.mark.parametrize("kind", KINDS)
async def test_a_read_only_file(sqlite_aside: Aside, file: Path, kind: str) -> None:
    """Writes to a file that is opened, or mounted, read-only are 503; reads are served."""
    async with open_site(kind, f"sqlite+aiosqlite:///file:{file}?mode=ro&uri=true", **SOON) as site:
        read = await site.act("list")
        rejected = [await site.act(action) for action in WRITES]
        out = site.checked_out

    assert (read.status_code, out) == (200, 0)
    assert_all_unavailable(rejected)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_missing_directory(sqlite_aside: Aside, file: Path, kind: str) -> None:
    """A directory that is missing, or not mounted yet, is a 503; once it exists the next request works."""
    elsewhere = file.parent / "volume" / file.name
    async with open_site(kind, url_of(elsewhere)) as site:
        rejected = [await site.act(action) for action in ("list", "create")]
        await sqlite_aside.database.dispose()
        elsewhere.parent.mkdir()
        file.rename(elsewhere)
        again = await site.act("create")
        out = site.checked_out

    assert_all_unavailable(rejected)
    assert (again.status_code, out) == (201, 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_file_that_is_no_database(tmp_path: Path, kind: str) -> None:
    """A file that is not a SQLite database is a 503 (NOTADB)."""
    file = tmp_path / "letter.db"
    file.write_bytes(b"Dear Sir or Madam, " * 1000)
    async with open_site(kind, url_of(file)) as site:
        rejected = [await site.act(action) for action in ("list", "create")]
        if kind == "kit":
            ready, alive = await site.client.get("/readyz"), await site.client.get("/livez")
            assert (ready.status_code, alive.status_code) == (503, 200)
        out = site.checked_out

    assert_all_unavailable(rejected)
    assert out == 0
    assert file.read_bytes() == b"Dear Sir or Madam, " * 1000


@pytest.mark.parametrize("kind", KINDS)
async def test_a_damaged_file(sqlite_aside: Aside, file: Path, kind: str) -> None:
    """A file whose pages are damaged is a 503 (CORRUPT)."""
    await sqlite_aside.database.dispose()
    whole = file.read_bytes()
    file.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    async with open_site(kind, url_of(file)) as site:
        rejected = [await site.act(action) for action in ("list", "create")]
        out = site.checked_out

    assert_all_unavailable(rejected)
    assert out == 0


def test_a_statement_that_fails_is_released_at_once() -> None:
    """Otherwise the garbage collector does it, in the event loop, while the driver's thread uses the connection."""
    with closing(sqlite3.connect(":memory:", factory=ClosingConnection)) as connection:
        for method in ("execute", "executemany"):
            cursor = connection.cursor()
            with pytest.raises(sqlite3.OperationalError):
                getattr(cursor, method)("INSERT INTO nowhere VALUES (1)", ())
            with pytest.raises(sqlite3.ProgrammingError, match="closed cursor"):
                cursor.fetchone()
