"""The apps on every database, and what is watched while they answer."""

import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncConnection, async_sessionmaker, create_async_engine
from tests.hostile.apps import HostileBase, made_app, written_app
from tests.hostile.asgi import Answer, Sent, ask
from tests.hostile.promise import CANARY, broken, verdict
from tests.thorough import sample

from fastapi_kit.db import Database

__all__ = ["Site", "Sites", "open_site"]

_ROWS = {
    "notes": "INSERT INTO notes (id, title) VALUES (1, 'first')",
    "samples": "INSERT INTO samples (id, name, number, weight) VALUES (1, 'first', 1, 1)",
    "labels": "INSERT INTO labels (name) VALUES ('first')",
}
_LOOK = """
SELECT (SELECT count(*) FROM notes), (SELECT count(*) FROM samples), (SELECT count(*) FROM labels), (SELECT count(*) FROM tickets),
    n.*, s.*, l.*
FROM (SELECT 1 AS one) AS d LEFT JOIN notes n ON n.id = one LEFT JOIN samples s ON s.id = one LEFT JOIN labels l ON l.name = 'first'
"""
_MOST_UNREAD = 12


@dataclass
class Site:
    """The two apps on one database; *eye* is a connection of its own that sees what is committed."""

    name: str
    apps: dict[str, FastAPI]
    states: dict[str, Any]
    eye: AsyncConnection
    unread: list[Sent] = field(default_factory=list[Sent])

    async def ask(self, app: str, sent: Sent) -> Answer:
        return await ask(self.apps[app], sent, state=self.states[app])

    async def look(self) -> tuple[Any, ...]:
        """Return the number of rows, and the first of each table."""
        return tuple((await self.eye.exec_driver_sql(_LOOK)).one())

    async def clear(self) -> None:
        """Leave the first note, sample and label only."""
        for table in (*_ROWS, "tickets"):
            await self.eye.exec_driver_sql(f"DELETE FROM {table}")
        for statement in _ROWS.values():
            await self.eye.exec_driver_sql(statement)

    async def start_over(self) -> None:
        """Do so, and let the next note and the next sample be the second."""
        if self.name == "postgresql":
            await self.eye.exec_driver_sql("SELECT setval('notes_id_seq', 1), setval('samples_id_seq', 1)")
        await self.clear()
        self.unread.clear()

    async def check_that_it_works(self) -> None:
        """Check that both apps still answer after all that was sent."""
        for name in self.apps:
            created = await self.ask(name, Sent(path=b"/notes", body=b'{"title": "afterwards"}'))
            assert created.status == 201, f"{name} on {self.name} answers {created.status} afterwards"


@asynccontextmanager
async def open_site(database: Database) -> AsyncGenerator[Site]:
    """Start both apps on an empty database."""
    engine = create_async_engine(database.engine.url)
    await database.create_tables(HostileBase.metadata)
    apps = {"made": made_app(database), "written": written_app(async_sessionmaker(engine))}
    async with AsyncExitStack() as stack:
        stack.push_async_callback(engine.dispose)
        states: dict[str, Any] = {}
        for name, app in apps.items():
            lifespan: AbstractAsyncContextManager[Any] = app.router.lifespan_context(app)
            states[name] = await stack.enter_async_context(lifespan) or {}
        eye = await stack.enter_async_context(engine.execution_options(isolation_level="AUTOCOMMIT").connect())
        yield Site(engine.dialect.name, apps, states, eye)


@dataclass
class Sites:
    """Sends each request to an app on every database and collects what is wrong with the answers."""

    every: Sequence[Site]
    log: pytest.LogCaptureFixture

    @asynccontextmanager
    async def in_use(self) -> AsyncGenerator["Sites"]:
        """Start over everywhere, and check at the end that all apps still answer."""
        for site in self.every:
            await site.start_over()
        yield self
        for site in self.every:
            await site.check_that_it_works()

    async def keep_promise(self, app: str, requests: Iterable[Sent], *, alike: bool = True) -> None:
        """Fail with a line for each promise that an answer breaks; *alike* also where the databases' verdicts differ."""
        found: list[str] = []
        for sent in sample(requests):
            verdicts = dict[str, tuple[int, str]]()
            for site in self.every:
                before = await site.look() if sent.is_write else ()
                answer = await site.ask(app, sent)
                problems = [*broken(answer), *self._logged()]
                if sent.is_write:
                    problems += await _kept(site, app, sent, answer, before)
                found += [f"{app} on {site.name}: {sent} -> {answer.status}: {problem}" for problem in problems]
                verdicts[site.name] = verdict(answer)
            if alike and len(set(verdicts.values())) > 1:
                found.append(f"{app}: {sent} -> {verdicts}")
        found += [f"{app} on {site.name}: {problem}" for site in self.every for problem in await _read_back(site, app)]
        assert not found, f"{len(found)} faults\n" + "\n".join(found)

    def _logged(self) -> list[str]:
        records, text = list(self.log.records), self.log.text
        self.log.clear()
        errors = [f"logged: {record.getMessage()[:200]}" for record in records if record.levelno >= logging.ERROR]
        return errors + (["what was sent is in the log"] if CANARY in text.lower() else [])


async def _kept(site: Site, app: str, sent: Sent, answer: Answer, before: tuple[Any, ...]) -> list[str]:
    """A rejected write leaves nothing behind, an accepted one leaves rows that can be read."""
    if 400 <= answer.status < 500:
        return [] if await site.look() == before else ["a rejected write left something behind"]
    site.unread.append(sent)
    return await _read_back(site, app) if sent.method == "PATCH" or answer.status >= 500 or len(site.unread) >= _MOST_UNREAD else []


async def _read_back(site: Site, app: str) -> list[str]:
    """Return which lists cannot be read after the writes since the last time; they are emptied."""
    problems: list[str] = []
    for table in sorted({sent.table for sent in site.unread}):
        answer = await site.ask(app, Sent(method="GET", path=f"/{table}".encode(), headers=()))
        if answer.status != 200:
            problems.append(f"GET /{table} is {answer.status} after {'; '.join(map(str, site.unread))}: {str(answer.error)[:120]}")
    if problems or len(site.unread) > 1:
        await site.clear()
    site.unread.clear()
    return problems
