"""Making an engine: which driver, which pool, which limits."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any

from sqlalchemy import URL, Engine, ExceptionContext, event, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError, InvalidatePoolError, InvalidRequestError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection, QueuePool
from sqlalchemy.util import await_only

from fastapi_kit.db.errors import watch
from fastapi_kit.db.sqlite import is_memory, make_honest, private_file
from fastapi_kit.errors import ConfigurationError, MissingExtraError

__all__ = ["DatabaseOptions", "adopt_engine", "async_url", "make_engine", "masked"]


@dataclass(frozen=True, kw_only=True)
class DatabaseOptions:
    """How to connect. Pool sizes apply only where the pool has a size; times are seconds.

    *pool_timeout* bounds the wait for a connection, and on SQLite the wait for another writer. A connection that was idle longer than
    *ping_after_idle* is tried before it is used. *command_timeout* is the client's bound on one statement and finds a frozen server
    (asyncpg); *statement_timeout* is the server's (PostgreSQL).
    """

    pool_size: int = 10
    max_overflow: int = 20
    pool_timeout: float = 5.0
    ping_after_idle: float = 30.0
    command_timeout: float = 10.0
    statement_timeout: float | None = None


_DRIVERS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "postgresql": (("asyncpg", "postgresql+asyncpg"), ("psycopg", "postgresql+psycopg")),
    "sqlite": (("aiosqlite", "sqlite+aiosqlite"),),
    "mysql": (("asyncmy", "mysql+asyncmy"), ("aiomysql", "mysql+aiomysql")),
    "mariadb": (("asyncmy", "mariadb+asyncmy"), ("aiomysql", "mariadb+aiomysql")),
}
_EXTRAS = {"postgresql": "postgres"}
_GOODBYE = 0.5
"""Seconds."""


def async_url(url: str | URL) -> URL:
    """Return *url* with an installed async driver: ``postgres://`` and ``postgresql://`` get asyncpg or psycopg, ``sqlite://`` aiosqlite.

    Raises ConfigurationError for text that is no URL, without showing it, and MissingExtraError where no driver is installed.
    """
    parsed = _parse(url)
    if "+" in parsed.drivername:
        return parsed
    dialect = "postgresql" if parsed.drivername == "postgres" else parsed.drivername
    for module, drivername in _DRIVERS.get(dialect, ()):
        if find_spec(module) is not None:
            return parsed.set(drivername=drivername)
    if dialect in _EXTRAS:
        raise MissingExtraError(_EXTRAS[dialect])
    raise ConfigurationError(f"no async driver for {dialect!r} is installed; install one and name it: {dialect}+DRIVER://...")


def make_engine(url: str | URL, options: DatabaseOptions) -> tuple[AsyncEngine, Path | None]:
    """Build the engine for *url*; nothing connects yet. Returns as well the folder of a private file, or None."""
    target, folder = async_url(url), None
    if target.get_backend_name() == "sqlite" and is_memory(target):
        target, folder = private_file(target)
    try:
        arguments = _pool_arguments(target, options)
        engine = create_async_engine(target, hide_parameters=True, connect_args=_connect_args(target, options), **arguments)
    except (ImportError, InvalidRequestError, NoSuchModuleError) as error:
        raise ConfigurationError(f"{target.drivername} is no installed async driver: {error}") from None
    adopt_engine(engine, options)
    return engine, folder


def adopt_engine(engine: AsyncEngine, options: DatabaseOptions) -> None:
    """Give *engine*, before its first connection, what the library relies on.

    That is: errors that remember what was written, a ping after idleness, and transactions on SQLite.
    """
    watch(engine)
    if engine.dialect.name == "sqlite":
        make_honest(engine.sync_engine, busy_timeout=options.pool_timeout)
    else:
        _ping_after_idle(engine.sync_engine, options.ping_after_idle)
        event.listen(engine.sync_engine, "handle_error", _drop_late)


def masked(url: URL) -> str:
    """Return *url* without its password and without its query, which can hold one too."""
    return url.set(query={}).render_as_string(hide_password=True)


def _parse(url: str | URL) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigurationError("the database URL cannot be read; it looks like dialect+driver://user:password@host:port/name") from None


def _pool_arguments(url: URL, options: DatabaseOptions) -> dict[str, Any]:
    dialect: Any = url.get_dialect(_is_async=True)
    if not issubclass(dialect.get_pool_class(url), QueuePool):
        return {}
    return {"pool_size": options.pool_size, "max_overflow": options.max_overflow, "pool_timeout": options.pool_timeout}


def _connect_args(url: URL, options: DatabaseOptions) -> dict[str, Any]:
    if url.drivername == "postgresql+asyncpg":
        arguments: dict[str, Any] = {"command_timeout": options.command_timeout, "timeout": options.pool_timeout}
        if options.statement_timeout is not None:
            arguments["server_settings"] = {"statement_timeout": _milliseconds(options.statement_timeout)}
        return arguments
    if url.drivername == "postgresql+psycopg" and options.statement_timeout is not None:
        return {"options": f"-c statement_timeout={_milliseconds(options.statement_timeout)}"}
    return {}


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


def _ping_after_idle(engine: Engine, seconds: float) -> None:
    # pool_pre_ping would ask at every checkout, which turns one round trip into several.
    def note_use(_connection: object, record: ConnectionPoolEntry) -> None:
        record.info["idle_since"] = monotonic()

    def ping(connection: Any, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
        if _is_closed(connection.driver_connection):
            raise DisconnectionError
        if monotonic() - record.info.get("idle_since", monotonic()) > seconds and not _answers(engine, connection):
            raise InvalidatePoolError

    event.listen(engine, "checkin", note_use)
    event.listen(engine, "checkout", ping)


def _is_closed(connection: Any) -> bool:
    """Return whether the driver has seen the server close *connection*, which costs no round trip (asyncpg, psycopg)."""
    closed = getattr(connection, "is_closed", None) or getattr(connection, "closed", False)
    return bool(closed() if callable(closed) else closed)


def _answers(engine: Engine, connection: Any) -> bool:
    try:
        return engine.dialect.do_ping(connection)
    except (engine.dialect.loaded_dbapi.Error, OSError):
        return False


def _drop_late(context: ExceptionContext) -> None:
    """Give up a connection whose statement was not answered in time: a frozen server would not answer the ROLLBACK either.

    The server is still asked to cancel the statement, for so long as _GOODBYE.
    """
    if isinstance(context.original_exception, TimeoutError) and context.connection is not None and context.dialect.driver == "asyncpg":
        await_only(_hang_up(context.connection.connection.driver_connection))
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False


async def _hang_up(connection: Any) -> None:
    with suppress(Exception):
        # Asks for the cancellation, waits for it, and says goodbye; cuts the line when the time is over.
        await connection.close(timeout=_GOODBYE)
