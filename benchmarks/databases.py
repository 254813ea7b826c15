"""Databases of our own, made and removed."""

import os
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

__all__ = ["DATABASES"]

_POSTGRES_URL = os.environ.get("TEST_POSTGRES_URL", "postgresql+asyncpg://postgres@127.0.0.1:5432/test")


@asynccontextmanager
async def _sqlite() -> AsyncGenerator[URL]:
    """Make a SQLite file of our own."""
    with tempfile.TemporaryDirectory(prefix="fastapi_kit-bench-") as folder:
        yield make_url(f"sqlite+aiosqlite:///{Path(folder) / 'bench.db'}")


@asynccontextmanager
async def _postgresql() -> AsyncGenerator[URL | None]:
    """Make a database of our own on the server of TEST_POSTGRES_URL, and drop it; None where the server does not answer."""
    name = f"fastapi_kit_bench_{os.getpid()}"
    try:
        await _administer(f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
    except OSError:
        yield None
        return
    try:
        yield make_url(_POSTGRES_URL).set(database=name)
    finally:
        await _administer(f"DROP DATABASE {name} WITH (FORCE)")


async def _administer(*statements: str) -> None:
    engine = create_async_engine(_POSTGRES_URL, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            for statement in statements:
                await connection.execute(text(statement))
    finally:
        await engine.dispose()


DATABASES: Mapping[str, Callable[[], AbstractAsyncContextManager[URL | None]]] = {"PostgreSQL": _postgresql, "SQLite": _sqlite}
"""Makes an empty database and removes it; None where it cannot."""
