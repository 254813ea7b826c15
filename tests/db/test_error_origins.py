"""Errors of the application below SQLAlchemy stay as they are; those of drivers, sockets and column types are translated."""

import asyncio
import http.client
import json
import socket
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Column, Enum, Executable, Integer, MetaData, String, Table, TypeDecorator, Uuid, event, insert, select, text
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.types import UserDefinedType
from sqlalchemy.util import await_only
from tests.tables.names import Name, NamesBase

from fastapi_kit.db import Database
from fastapi_kit.db.errors import as_kit_error
from fastapi_kit.errors import InvalidDataError, UnavailableError


@pytest.fixture
async def names(database: Database) -> Database:
    await database.create_tables(NamesBase.metadata)
    return database


@pytest.fixture
async def dead_port() -> int:
    """A port on which no server listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@pytest.fixture
async def silent_port() -> AsyncIterator[int]:
    """A port whose server sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def failure_of(work: Awaitable[object]) -> Exception:
    try:
        await work
    except Exception as error:
        return error
    pytest.fail("nothing failed")


@contextmanager
def listening(target: Any, name: str, listener: Callable[..., object]) -> Iterator[None]:
    event.listen(target, name, listener)
    try:
        yield
    finally:
        event.remove(target, name, listener)


async def flush(database: Database) -> None:
    async with database.sessions() as session, session.begin():
        session.add(Name(name="a"))


def raising(error: BaseException) -> Callable[..., None]:
    def listener(*_: object) -> None:
        raise error

    return listener


ERRORS = [
    ConnectionRefusedError("the mail server"),
    ConnectionResetError(),
    BrokenPipeError(),
    TimeoutError(),
    FileNotFoundError("/no/such/template"),
    PermissionError(),
    socket.gaierror("no such host"),
    KeyError("missing"),
    TypeError(),
    ValueError(),
    AttributeError(),
    OverflowError("Python int too large to convert to SQLite INTEGER"),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
]


@pytest.mark.thorough
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("name", ["before_insert", "after_insert", "before_flush", "after_begin", "do_orm_execute"])
async def test_listener_of_the_orm(names: Database, name: str, error: Exception) -> None:
    """An error in a listener of a mapper or session is raised unchanged."""
    target = Name if "insert" in name else names.sessions.kw["sync_session_class"]

    async def work() -> None:
        await flush(names)
        async with names.sessions() as session:
            await session.execute(select(Name))

    with listening(target, name, raising(error)):
        failure = await failure_of(work())

    assert failure is error
    assert as_kit_error(failure) is None


@pytest.mark.thorough
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("name", ["before_execute", "before_cursor_execute", "after_cursor_execute", "begin", "commit"])
async def test_listener_of_the_engine(names: Database, name: str, error: Exception) -> None:
    """An error in a listener of the engine is raised unchanged."""
    with listening(names.engine.sync_engine, name, raising(error)):
        failure = await failure_of(flush(names))

    assert as_kit_error(failure) is None


async def test_requests_of_a_listener(names: Database, dead_port: int, silent_port: int) -> None:
    """Errors of the standard library, other packages and awaited calls in a listener are raised unchanged."""

    def by_standard_library(*_: object) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", dead_port)) as connection:
            connection.request("GET", "/")

    def by_timeout(*_: object) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", silent_port, timeout=0.01)) as connection:
            connection.request("GET", "/")
            connection.getresponse()

    def by_package(*_: object) -> None:
        httpx.get(f"http://127.0.0.1:{dead_port}", trust_env=False)

    def by_awaiting(*_: object) -> None:
        await_only(asyncio.open_connection("127.0.0.1", dead_port))

    for listener in (by_standard_library, by_timeout, by_package, by_awaiting):
        with listening(Name, "before_insert", listener):
            assert as_kit_error(await failure_of(flush(names))) is None


async def test_functions_inside_run_sync(names: Database, dead_port: int) -> None:
    """A missing file or a failed request inside run_sync() is raised unchanged."""

    def read(_: object) -> str:
        return Path("/no/such/template").read_text()

    def connect(_: object) -> object:
        return socket.create_connection(("127.0.0.1", dead_port))

    async with names.sessions() as session:
        for work in (read, connect, lambda _: json.loads("{")):
            assert as_kit_error(await failure_of(session.run_sync(work))) is None


async def test_timeouts_of_the_application(postgres_database: Database) -> None:
    """A timeout that the application sets around a statement is raised unchanged."""
    sleep = text("SELECT pg_sleep(5)")

    async def by_context() -> None:
        async with asyncio.timeout(0.05), postgres_database.engine.connect() as connection:
            await connection.execute(sleep)

    async def by_call() -> None:
        async with postgres_database.engine.connect() as connection:
            await asyncio.wait_for(connection.execute(sleep), 0.05)

    for work in (by_context(), by_call()):
        assert as_kit_error(await failure_of(work)) is None


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_connections_of_the_driver(driver: str, dead_port: int) -> None:
    """A driver that cannot connect is unavailable, also with a function of the application that connects."""
    engine = create_async_engine(f"postgresql+{driver}://postgres@127.0.0.1:{dead_port}/test")

    async def use() -> None:
        async with engine.connect():
            pass

    assert isinstance(as_kit_error(await failure_of(use())), UnavailableError)
    with listening(engine.sync_engine, "do_connect", raising(ConnectionRefusedError("the vault"))):
        assert as_kit_error(await failure_of(use())) is None
    await engine.dispose()


def test_database_of_another_kind() -> None:
    """Similar errors of other packages are raised unchanged."""
    for error in (httpx.ConnectError("refused"), httpx.ReadTimeout("late")):
        assert as_kit_error(error) is None


# --- Column types and defaults. ---


class Typed(TypeDecorator[Any]):
    """A column type of the application that raises the value that it is given."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: object) -> Any:
        if isinstance(value, Exception):
            raise value
        return value if value is None or isinstance(value, str) else value()


class Processed(UserDefinedType[Any]):
    """The same as a bind processor."""

    cache_ok = True

    def get_col_spec(self) -> str:
        return "VARCHAR"

    def bind_processor(self, dialect: object) -> Callable[[Any], Any]:
        return lambda value: Typed().process_bind_param(value, dialect)


TYPES = MetaData()
TYPED = Table(
    "typed",
    TYPES,
    Column("id", Integer, primary_key=True),
    Column("decorated", Typed),
    Column("processed", Processed),
    Column("key", Uuid),
    Column("kind", Enum("a", "b", name="typed_kind", validate_strings=True)),
)


async def execute(database: Database, statement: Executable) -> None:
    async with database.engine.begin() as connection:
        await connection.execute(statement)


@pytest.mark.parametrize("column", ["decorated", "processed"])
@pytest.mark.parametrize(
    ("raised", "rejected"),
    [
        (ValueError(), True),
        (TypeError(), True),
        (lambda: Decimal("a lot"), True),
        (lambda: json.dumps(object()), True),
        (lambda: UUID("no uuid"), True),
        (KeyError("missing"), False),
        (AttributeError("typo"), False),
        (NameError("typo"), False),
        (PermissionError(), False),
        (ConnectionRefusedError("the key service"), False),
        (TimeoutError(), False),
    ],
)
async def test_column_type_of_the_application(database: Database, column: str, raised: Any, rejected: bool) -> None:
    """ValueError, TypeError and ArithmeticError of a column type are invalid data; other errors are raised unchanged."""
    await database.create_tables(TYPES)

    failure = await failure_of(execute(database, insert(TYPED).values({column: raised})))
    error = as_kit_error(failure)

    assert isinstance(failure, StatementError | OSError | NameError)
    assert isinstance(error, InvalidDataError) if rejected else error is None


@pytest.mark.parametrize("values", [{"key": "no uuid"}, {"kind": "c"}, {"key": 5}])
async def test_column_type_of_sqlalchemy(database: Database, values: dict[str, Any]) -> None:
    """AttributeError and LookupError of SQLAlchemy's types are invalid data."""
    await database.create_tables(TYPES)

    error = as_kit_error(await failure_of(execute(database, insert(TYPED).values(values))))

    assert isinstance(error, InvalidDataError)
    assert error.reason == "wrong_type"


@pytest.mark.parametrize("parameter", ["default", "onupdate"])
@pytest.mark.parametrize("takes_context", [True, False])
async def test_default_of_a_column(database: Database, parameter: str, takes_context: bool) -> None:
    """An error in the default of a column is raised unchanged."""

    def fail() -> str:
        raise ValueError

    def fail_in_context(_: object) -> str:
        raise TypeError

    metadata = MetaData()
    made: Any = {parameter: fail_in_context if takes_context else fail}
    table = Table("made", metadata, Column("id", Integer, primary_key=True), Column("name", String, **made))
    await database.create_tables(metadata)
    statement = insert(table).values(id=1) if parameter == "default" else table.update().values(id=1)

    assert as_kit_error(await failure_of(execute(database, statement))) is None


def test_own_driver_error() -> None:
    """An error of a driver without SQLAlchemy is translated by its class and code."""
    assert as_kit_error(sqlite3.OperationalError("user-defined function raised exception")) is None
