"""Databases of our own, made and removed."""

import os
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.proxy import delayed
from benchmarks.stage import Place

__all__ = ["DATABASES"]

_POSTGRES_URL = os.environ.get("TEST_POSTGRES_URL", "postgresql+asyncpg://postgres@127.0.0.1:5432/test")
_EACH_WAY = 0.0005
"""Seconds: a round trip takes a millisecond longer."""


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
        yield _server().set(database=name)
    finally:
        await _administer(f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def _distant_postgresql() -> AsyncGenerator[URL | None]:
    """Make the same where a round trip takes a millisecond longer: on one machine round trips cost next to nothing."""
    async with _postgresql() as url:
        if url is None:
            yield None
            return
        async with delayed(url.host or "127.0.0.1", url.port or 5432, _EACH_WAY) as port:
            yield url.set(host="127.0.0.1", port=port)


def _server() -> URL:
    """Return TEST_POSTGRES_URL with the driver that both sides use."""
    return make_url(_POSTGRES_URL).set(drivername="postgresql+asyncpg")


async def _administer(*statements: str) -> None:
    engine = create_async_engine(_server(), isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            for statement in statements:
                await connection.execute(text(statement))
    finally:
        await engine.dispose()


DATABASES: Mapping[Place, Callable[[], AbstractAsyncContextManager[URL | None]]] = {
    "SQLite": _sqlite,
    "PostgreSQL": _postgresql,
    "PostgreSQL, 1 ms away": _distant_postgresql,
}
"""Makes an empty database and removes it; None where it cannot."""
