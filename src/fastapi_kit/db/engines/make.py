"""Making an engine: which pool, which limits, and connections that are tried before they are used."""

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
from fastapi_kit.db.engines.sqlite import PrivateFile, check_url, is_memory, make_honest
from fastapi_kit.db.engines.urls import async_url
from fastapi_kit.db.errors.written import watch
from fastapi_kit.errors import ConfigurationError

__all__ = ["adopt_engine", "make_engine"]

_GOODBYE = 0.5
"""Seconds."""


def make_engine(url: str | URL, options: DatabaseOptions) -> tuple[AsyncEngine, PrivateFile | None]:
    """Build the engine for *url*; nothing connects yet. Returns as well the private file behind ``:memory:``, or None.

    The file exists as long as the engine, in the process that made it. Raises ConfigurationError for a URL that cannot work.
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
    """Give *engine*, before its first connection, what the library relies on.

    That is: errors that remember what was written, a ping after idleness, and transactions on SQLite.

    Raises ConfigurationError for ``pgbouncer``, which an engine is made for.
    """
    if options.pgbouncer:
        raise ConfigurationError(
            "DatabaseOptions(pgbouncer=True) does not reach an engine of your own: give Database the URL, or make the engine with "
            "connect_args for it (asyncpg: statement_cache_size=0, prepared_statement_cache_size=0; psycopg: prepare_threshold=None)"
        )
    prepare(engine, options)


def create_engine(url: URL, options: DatabaseOptions) -> AsyncEngine:
    try:
        return create_async_engine(url, hide_parameters=True, **pool_arguments(url, options))
    except (ImportError, InvalidRequestError, NoSuchModuleError) as error:
        raise ConfigurationError(f"{url.drivername} is no installed async driver: {error}") from None
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            f"the database URL says something that {url.drivername} cannot take, such as hosts without ports"
        ) from None


def prepare(engine: AsyncEngine, options: DatabaseOptions) -> None:
    watch(engine)
    if engine.dialect.name == "sqlite":
        make_honest(engine.sync_engine, busy_timeout=options.pool_timeout)
    else:
        ping_after_idle(engine.sync_engine, options.ping_after_idle)
        event.listen(engine.sync_engine, "handle_error", drop_late)


def pool_arguments(url: URL, options: DatabaseOptions) -> dict[str, Any]:
    dialect: Any = url.get_dialect(_is_async=True)
    if not issubclass(dialect.get_pool_class(url), QueuePool):
        return {}
    return {"pool_size": options.pool_size, "max_overflow": options.max_overflow, "pool_timeout": options.pool_timeout}


def ping_after_idle(engine: Engine, seconds: float) -> None:
    # pool_pre_ping would ask at every checkout, which turns one round trip into several.
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
    """Return whether the driver has seen the server close *connection*, which costs no round trip (asyncpg, psycopg)."""
    closed = getattr(connection, "is_closed", None) or getattr(connection, "closed", False)
    return bool(closed() if callable(closed) else closed)


def answers(engine: Engine, connection: Any) -> bool:
    try:
        return engine.dialect.do_ping(connection)
    except (engine.dialect.loaded_dbapi.Error, OSError):
        return False


def drop_late(context: ExceptionContext) -> None:
    """Give up a connection whose statement was not answered in time: a frozen server would not answer the ROLLBACK either.

    The server is still asked to cancel the statement, for so long as _GOODBYE.
    """
    if isinstance(context.original_exception, TimeoutError) and context.connection is not None and context.dialect.driver == "asyncpg":
        await_only(hang_up(context.connection.connection.driver_connection))
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False


async def hang_up(connection: Any) -> None:
    with suppress(Exception):
        # Asks for the cancellation, waits for it, and says goodbye; cuts the line when the time is over. The first of these waits has no
        # bound of its own in asyncpg 0.30.
        async with asyncio.timeout(2 * _GOODBYE):
            await connection.close(timeout=_GOODBYE)
