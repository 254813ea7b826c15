"""What both sides work on: one table, and two engines with pools of the same size."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

from fastapi import FastAPI
from sqlalchemy import URL, BigInteger, String, cast, delete, insert, literal, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from benchmarks import by_hand, with_kit
from benchmarks.models import STAMPS, Base, Item, User, stored_users
from fastapi_kit import Database
from fastapi_kit.db import DatabaseOptions

__all__ = ["Place", "Stage", "open_stage"]

Place: TypeAlias = Literal["SQLite", "PostgreSQL", "PostgreSQL, 1 ms away"]

_POOL: Mapping[str, Any] = {"pool_size": 10, "max_overflow": 20}


@dataclass(frozen=True)
class Stage:
    """A table of *rows* users and one of *many_rows* items, the library's way to them (*database*) and the hand-written one (*engine*)."""

    place: Place
    database: Database
    engine: AsyncEngine
    rows: int
    bulk_rows: int
    many_rows: int

    @cached_property
    def sessions(self) -> async_sessionmaker[AsyncSession]:
        """Sessions as one makes them by hand."""
        return async_sessionmaker(self.engine, expire_on_commit=False)

    @asynccontextmanager
    async def kit_session(self) -> AsyncGenerator[AsyncSession]:
        """Open a session as the library gives it to a request."""
        async for session in self.database.get_session():
            yield session

    @cached_property
    def kit_app(self) -> FastAPI:
        """The library's routes."""
        return with_kit.make_app(self.database)

    @cached_property
    def app_by_hand(self) -> FastAPI:
        """The hand-written routes."""
        return by_hand.make_app(self.sessions)

    async def fill(self) -> None:
        """Make the table what it is at the beginning, keys included."""
        async with self.engine.begin() as connection:
            if self.place == "SQLite":
                await connection.execute(delete(User))
            else:
                await connection.execute(text("TRUNCATE users RESTART IDENTITY"))
            await connection.execute(insert(User), stored_users(self.rows))

    async def fill_items(self) -> None:
        """Fill the large table. It stays as it is."""
        numbers = select(literal(1).label("n")).cte("numbers", recursive=True)
        numbers = numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < self.many_rows))
        n = numbers.c.n
        rows = select(n, literal("item ") + cast(n, String), n % 10, cast(n, BigInteger) * 7919 % 9973)
        async with self.engine.begin() as connection:
            await connection.execute(insert(Item).from_select(["id", "name", "category", "cents"], rows))
        async with self.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await connection.execute(text("ANALYZE" if self.place == "SQLite" else "VACUUM ANALYZE items"))

    async def contents(self) -> list[tuple[Any, ...]]:
        """Return the whole table but for its stamps."""
        columns = [column for column in User.__table__.columns if column.name not in STAMPS]
        async with self.engine.connect() as connection:
            return [tuple(row) for row in await connection.execute(select(*columns).order_by(User.id))]


@asynccontextmanager
async def open_stage(
    url: str | URL, place: Place, *, rows: int = 1000, bulk_rows: int = 10_000, many_rows: int = 1_000_000
) -> AsyncGenerator[Stage]:
    """Fill an empty database at *url*."""
    database = Database(url, options=DatabaseOptions(**_POOL))
    engine = create_async_engine(url, **_POOL)
    try:
        await database.create_tables(Base.metadata)
        stage = Stage(place, database, engine, rows, bulk_rows, many_rows)
        await stage.fill()
        await stage.fill_items()
        yield stage
    finally:
        await database.dispose()
        await engine.dispose()
