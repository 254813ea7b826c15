"""The COMMIT: it fails, it is slow, it freezes, or the server dies in it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import URL, event
from tests.reliability.aside import Aside, execute
from tests.reliability.sites import KINDS, assert_rejected, assert_unavailable, open_site

AtCommit = Callable[[str], Awaitable[None]]

WRITES = ["create", "update", "pair"]


@pytest.fixture
async def at_commit(aside: Aside) -> AsyncIterator[AtCommit]:
    """Let the server run a statement of PL/pgSQL at the COMMIT of whoever writes a tag."""

    async def let(statement: str) -> None:
        await aside.run(
            f"CREATE OR REPLACE FUNCTION at_commit() RETURNS trigger AS $$ BEGIN {statement}; RETURN NULL; END $$ LANGUAGE plpgsql",
            "DROP TRIGGER IF EXISTS at_commit ON tags",
            "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT OR UPDATE ON tags DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW WHEN (NEW.id >= 0) EXECUTE FUNCTION at_commit()",
        )

    yield let
    await aside.run("DROP FUNCTION IF EXISTS at_commit CASCADE")


UNABLE = {"53100": 30, "53200": 1, "53400": 1, "40001": 1, "40P01": 1, "58030": 1, "57014": 1, "57P05": 1, "08006": 1}
"""Disk full, out of memory, limit exceeded, lost race, deadlock, I/O error, cancelled, idle, lost: and the seconds to wait."""


@pytest.mark.parametrize("kind", KINDS)
async def test_a_commit_that_the_server_cannot_make(server: URL, aside: Aside, at_commit: AtCommit, kind: str) -> None:
    """Whatever the server lacks at the COMMIT is a 503, and nothing is stored; afterwards everything works on the same connection."""
    async with open_site(kind, server, pool_size=1, max_overflow=0) as site:
        for state, seconds in UNABLE.items():
            await at_commit(f"RAISE 'could not extend file \"base/1\"' USING ERRCODE = '{state}'")
            answers = [await site.act(action) for action in WRITES]

            for answer in answers:
                assert_unavailable(answer, retry_after=seconds)
            assert (site.checked_out, await aside.names()) == (0, ["old"])
        await at_commit_ends(aside)
        again = [await site.act(action, name=action) for action in WRITES]

    assert all(answer.is_success for answer in again)


async def at_commit_ends(aside: Aside) -> None:
    """Let a COMMIT be a COMMIT again."""
    await aside.run("DROP FUNCTION at_commit CASCADE")


REJECTING = {
    "23505": (409, "conflict"),
    "23P01": (409, "conflict"),
    "23503": (422, "unknown_reference"),
    "23514": (422, "invalid_data"),
    "23502": (422, "invalid_data"),
    "22001": (422, "invalid_data"),
}
"""Unique, exclusion, foreign key, check, null, too long."""


@pytest.mark.parametrize("kind", KINDS)
async def test_a_commit_that_a_constraint_rejects(server: URL, aside: Aside, at_commit: AtCommit, kind: str) -> None:
    """A deferred constraint answers by its kind, as an immediate one would, and nothing is stored."""
    async with open_site(kind, server, pool_size=1, max_overflow=0) as site:
        for state, (status, code) in REJECTING.items():
            await at_commit(f"RAISE 'rejected' USING ERRCODE = '{state}'")
            answers = [await site.act(action) for action in WRITES]

            for answer in answers:
                assert_rejected(answer, status, code)
            assert (site.checked_out, await aside.names()) == (0, ["old"])


def enforce_keys(connection: Any, _record: object) -> None:
    """Let a SQLite connection enforce foreign keys."""
    execute(connection, "PRAGMA foreign_keys = ON")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_deferred_foreign_key(any_aside: Aside, kind: str) -> None:
    """A real deferred key fails at COMMIT with 422 on both databases, and the connection is whole for the next request."""
    async with open_site(kind, any_aside.database.engine.url, pool_size=1, max_overflow=0) as site:
        if any_aside.is_sqlite and kind != "kit":
            # SQLite enforces no foreign keys by itself.
            event.listen(site.engine.sync_engine, "connect", enforce_keys)
        rejected = await site.client.post("/loans", json={"book_id": 99})
        if not (any_aside.is_sqlite and kind == "by hand"):
            # Closing a plain session leaves a stock SQLite connection inside the transaction whose COMMIT failed.
            assert (await site.act("create")).status_code == 201
            assert await any_aside.names() == ["old", "new"]
        out = site.checked_out

    assert_rejected(rejected, 422, "unknown_reference")
    assert out == 0
    assert await any_aside.column("SELECT id FROM loans") == []


@pytest.mark.parametrize("kind", KINDS)
async def test_the_answer_waits_for_the_commit(server: URL, aside: Aside, at_commit: AtCommit, kind: str) -> None:
    """The answer waits for a slow COMMIT: no 201 comes before the row is stored."""
    await at_commit("PERFORM pg_advisory_xact_lock(4711)")
    async with open_site(kind, server) as site:
        async with aside.database.engine.begin() as blocker:
            await blocker.exec_driver_sql("SELECT pg_advisory_xact_lock(4711)")
            requests = [asyncio.create_task(site.act(action, name=action)) for action in WRITES]
            await aside.until("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted HAVING count(*) = 3")
            early = [request for request in requests if request.done()]
            stored_early = await aside.names()
        answers = await asyncio.gather(*requests)

    assert early == []
    assert stored_early == ["old"]
    assert [answer.status_code for answer in answers] == [201, 200, 201]
    assert sorted(await aside.names()) == ["create", "pair 1", "pair 2", "update"]


@pytest.mark.only_full
@pytest.mark.parametrize("kind", KINDS)
async def test_a_commit_that_takes_too_long(server: URL, aside: Aside, at_commit: AtCommit, kind: str) -> None:
    """A COMMIT that outlasts the command timeout is a 503, and is not made after all."""
    await at_commit("PERFORM pg_advisory_xact_lock(4711)")
    async with open_site(kind, server, command_timeout=0.3) as site, aside.database.engine.begin() as blocker:
        await blocker.exec_driver_sql("SELECT pg_advisory_xact_lock(4711)")
        answers = await asyncio.gather(*(site.act(action) for action in WRITES))
        out = site.checked_out

    for answer in answers:
        assert_unavailable(answer)
    assert (out, await aside.names()) == (0, ["old"])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_backend_that_dies_in_the_commit(server: URL, aside: Aside, at_commit: AtCommit, kind: str) -> None:
    """Killed while it commits, it is a 503, and nothing is stored."""
    await at_commit("PERFORM pg_terminate_backend(pg_backend_pid())")
    async with open_site(kind, server) as site:
        answers = [await site.act(action) for action in WRITES]
        out = site.checked_out
        await at_commit_ends(aside)
        again = await site.act("create", name="again")

    for answer in answers:
        assert_unavailable(answer)
    assert (out, again.status_code) == (0, 201)
    assert await aside.names() == ["old", "again"]
