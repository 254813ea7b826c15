"""Creating an engine: its pool, its time limits, and pings of idle connections."""

import asyncio
from contextlib import suppress
from time import monotonic
from typing import Any

from sqlalchemy import URL, Engine, ExceptionContext, event
from sqlalchemy.exc import ArgumentError, DisconnectionError, InvalidatePoolError, InvalidRequestError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection, QueuePool
from sqlalchemy.util import await_only

from fastapi_kit.db.engines.options import DatabaseOptions
from fastapi_kit.db.engines.postgres import connect_as
from fastapi_kit.db.engines.sqlite import PrivateFile, check_url, configure_engine, is_memory
from fastapi_kit.db.engines.urls import async_url
from fastapi_kit.db.errors.written import watch
from fastapi_kit.errors import ConfigurationError

__all__ = ["adopt_engine", "make_engine"]

_CLOSE_SECONDS = 0.5


def make_engine(url: str | URL, options: DatabaseOptions) -> tuple[AsyncEngine, PrivateFile | None]:
    """Create the engine for *url*, without connecting. Return it with the private file behind ``:memory:``, or None.

    The process that made the file removes it with the engine.

    Raises:
        ConfigurationError: The URL cannot work.
        MissingExtraError: No driver for PostgreSQL is installed.
    """
    target, file = async_url(url), None
    if target.get_backend_name() == "sqlite":
        if is_memory(target):
            file = PrivateFile()
            target = target.set(database=str(file.path), query={})
        check_url(target)
    engine = create_engine(target, options)
    if file is not None:
        file.keep_with(engine.sync_engine)
    if engine.dialect.name == "postgresql" and engine.dialect.driver in {"asyncpg", "psycopg"}:
        connect_as(engine.sync_engine, options)
    prepare(engine, options)
    return engine, file


def adopt_engine(engine: AsyncEngine, options: DatabaseOptions) -> None:
    """Install on *engine*, before its first connection, what the library relies on.

    That is: errors that keep what was written, a ping after idleness, and transactions on SQLite.

    Raises:
        ConfigurationError: *options* have ``pgbouncer=True``, which must be known when the engine is created.
    """
    if options.pgbouncer:
        raise ConfigurationError(
            "DatabaseOptions(pgbouncer=True) has no effect on an engine of your own: give Database the URL, or create the engine with "
            "connect_args for it (asyncpg: statement_cache_size=0, prepared_statement_cache_size=0; psycopg: prepare_threshold=None)"
        )
    prepare(engine, options)


def create_engine(url: URL, options: DatabaseOptions) -> AsyncEngine:
    try:
        return create_async_engine(url, hide_parameters=True, **pool_arguments(url, options))
    except (ImportError, InvalidRequestError, NoSuchModuleError) as error:
        raise ConfigurationError(f"{url.drivername} is not an installed async driver: {error}") from None
    except (ArgumentError, ValueError):
        raise ConfigurationError(f"the database URL has something that {url.drivername} rejects, such as hosts without ports") from None


def prepare(engine: AsyncEngine, options: DatabaseOptions) -> None:
    watch(engine)
    if engine.dialect.name == "sqlite":
        configure_engine(engine.sync_engine, busy_timeout=options.pool_timeout)
    else:
        ping_after_idle(engine.sync_engine, options.ping_after_idle)
        event.listen(engine.sync_engine, "handle_error", drop_late)


def pool_arguments(url: URL, options: DatabaseOptions) -> dict[str, Any]:
    dialect: Any = url.get_dialect(_is_async=True)
    if not issubclass(dialect.get_pool_class(url), QueuePool):
        return {}
    return {"pool_size": options.pool_size, "max_overflow": options.max_overflow, "pool_timeout": options.pool_timeout}


def ping_after_idle(engine: Engine, seconds: float) -> None:
    # pool_pre_ping would ping at every checkout, which costs a round trip each time.
    def note_use(_connection: object, record: ConnectionPoolEntry) -> None:
        record.info["idle_since"] = monotonic()

    def ping(connection: Any, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
        if is_closed(connection.driver_connection):
            raise DisconnectionError
        if monotonic() - record.info.get("idle_since", monotonic()) > seconds and not answers(engine, connection):
            raise InvalidatePoolError

    event.listen(engine, "checkin", note_use)
    event.listen(engine, "checkout", ping)


def is_closed(connection: Any) -> bool:
    """Return whether the driver knows that the server has closed *connection*. Costs no round trip (asyncpg, psycopg)."""
    closed = getattr(connection, "is_closed", None) or getattr(connection, "closed", False)
    return bool(closed() if callable(closed) else closed)


def answers(engine: Engine, connection: Any) -> bool:
    try:
        return engine.dialect.do_ping(connection)
    except (engine.dialect.loaded_dbapi.Error, OSError):
        return False


def drop_late(context: ExceptionContext) -> None:
    """Close a connection whose statement timed out: a frozen server would not answer the ROLLBACK either.

    Closing asks the server to cancel the statement, and waits at most _CLOSE_SECONDS for its answer.
    """
    if isinstance(context.original_exception, TimeoutError) and context.connection is not None and context.dialect.driver == "asyncpg":
        await_only(hang_up(context.connection.connection.driver_connection))
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False


async def hang_up(connection: Any) -> None:
    with suppress(Exception):
        # asyncpg cancels the statement, waits for that, and closes; it aborts when the time is over. The first wait has no limit of its
        # own in asyncpg 0.30.
        async with asyncio.timeout(2 * _CLOSE_SECONDS):
            await connection.close(timeout=_CLOSE_SECONDS)
