"""Servers on databases of their own."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import create_async_engine
from tests.databases import new_database
from tests.served.servers import Command, Server, serving

__all__ = ["Site", "ask", "site"]

_numbers = count()


@dataclass(frozen=True)
class Site:
    """A command and the database that its app is on: a server of PostgreSQL, or a SQLite file."""

    command: Command
    postgres: URL | None = None

    @asynccontextmanager
    async def open(self, folder: Path, **environment: str) -> AsyncGenerator[tuple[Server, URL]]:
        """Serve from *folder*, on a new database."""
        async with self._new_database(folder) as url:
            address = url.render_as_string(hide_password=False)
            async with serving(self.command, folder, DATABASE_URL=address, **environment) as server:
                yield server, url

    async def connections(self, url: URL) -> int:
        """Return how many connections PostgreSQL has to the database at *url*."""
        if self.postgres is None:
            return 0
        return len(await ask(self.postgres, f"SELECT pid FROM pg_stat_activity WHERE datname = '{url.database}'"))

    @asynccontextmanager
    async def _new_database(self, folder: Path) -> AsyncGenerator[URL]:
        if self.postgres is None:
            yield URL.create("sqlite+aiosqlite", database=str(folder / "app.db"))
            return
        async with new_database(f"{self.postgres.database}_served_{next(_numbers)}") as url:
            yield url


async def ask(url: URL, statement: str) -> Sequence[Any]:
    """Return the first column of what the database at *url* says."""
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            result = await connection.execute(text(statement))
            return result.scalars().all() if result.returns_rows else []
    finally:
        await engine.dispose()


def site(request: pytest.FixtureRequest, command: Command, database: str) -> Site:
    """Return the *command* on ``sqlite`` or ``postgresql``."""
    return Site(command, request.getfixturevalue("postgres_url") if database == "postgresql" else None)
