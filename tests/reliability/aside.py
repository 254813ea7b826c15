"""The database as the tests see it, past the app under test."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import text

from fastapi_kit.db import Database

__all__ = ["PASSWORD", "Aside", "eventually", "execute", "telling_words"]

PASSWORD = "Hush-4711"
"""In every URL that an app under test gets. The PostgreSQL server of the tests does not ask for it."""
_TELLING = (
    PASSWORD,
    "127.0.0.1",
    "5432",
    "postgres",
    "shopkeeper",
    "asyncpg",
    "sqlite",
    "Traceback",
    "INSERT",
    "SELECT",
    "UPDATE",
    "COMMIT",
)
_RANDOM_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

FoundT = TypeVar("FoundT")


def telling_words(text: str) -> list[str]:
    """Return what *text* has of errors of the database, which belongs into no answer and no log. A random id may have a port's digits."""
    text = _RANDOM_ID.sub("", text)
    return [word for word in _TELLING if word in text]


def execute(connection: Any, statement: str) -> None:
    """Run *statement* on *connection*, which an event of the pool shows."""
    cursor = connection.cursor()
    cursor.execute(statement)
    cursor.close()


async def eventually(look: Callable[[], Awaitable[FoundT]]) -> FoundT:
    """Look again and again until something is found; give up after five seconds."""
    async with asyncio.timeout(5):
        while not (found := await look()):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return found


class Aside:
    """Looks at and changes the database past the app under test."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def run(self, *statements: str) -> None:
        """Run *statements* in one transaction."""
        async with self.database.engine.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement))

    async def column(self, statement: str) -> list[Any]:
        """Return the first column of *statement*."""
        async with self.database.engine.begin() as connection:
            return list((await connection.execute(text(statement))).scalars())

    async def names(self) -> list[str]:
        """Return what the tags are called, "other" left out."""
        return await self.column("SELECT name FROM tags WHERE id >= 0 ORDER BY id")

    async def start_over(self) -> None:
        """Leave two tags, "old" and "other", with the keys 0 and -1."""
        await self.run("DELETE FROM tags", "INSERT INTO tags (id, name, weight) VALUES (0, 'old', 1), (-1, 'other', 1)")

    async def until(self, condition: str) -> list[Any]:
        """Wait until *condition*, a query, finds something; return that."""
        return await eventually(lambda: self.column(condition))

    async def kill(self, *processes: int) -> None:
        """Kill the backends *processes*, or all of the app, and see them gone."""
        found = processes or await self.backends()
        await self.run(*(f"SELECT pg_terminate_backend({process})" for process in found))
        await self.until(f"SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = ANY(ARRAY{list(found)}::int[]))")

    async def until_waiting(self) -> int:
        """Wait until a backend waits for a lock; return its process."""
        return int(
            (await self.until("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"))[0]
        )

    @property
    def is_sqlite(self) -> bool:
        """Whether it is SQLite."""
        return self.database.engine.dialect.name == "sqlite"

    async def backends(self) -> Sequence[int]:
        """Return the server's processes for other connections than these."""
        condition = "datname = current_database() AND application_name <> 'aside' AND backend_type = 'client backend'"
        return await self.column(f"SELECT pid FROM pg_stat_activity WHERE {condition}")
