"""SQLite: BEGIN IMMEDIATE before the first write; foreign keys, busy timeout, WAL; moments in UTC.

The driver's own transaction control covers neither savepoints nor DDL, and a transaction that begins by reading fails when it writes
after another one has written. So the driver's control is switched off: a read sends no BEGIN, and the first write or savepoint of a
transaction sends BEGIN IMMEDIATE.

SQLite has no time zones, and SQLAlchemy stores an aware datetime without its offset. Here it is stored and compared in UTC.
"""

import os
import re
import shutil
import sqlite3
import tempfile
import weakref
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, time
from pathlib import Path
from threading import Event
from typing import Any, cast

from sqlalchemy import TIMESTAMP, URL, Connection, DateTime, Dialect, Engine, ExceptionContext, Select, Time, event
from sqlalchemy.dialects.sqlite import DATETIME, TIME
from sqlalchemy.engine.interfaces import ExecutionContext
from sqlalchemy.exc import OperationalError
from sqlalchemy.util import await_only

from fastapi_kit.db.types import InvalidDatetimeError, in_utc
from fastapi_kit.errors import ConfigurationError

__all__ = [
    "UNICODE_LOWER",
    "PrivateFile",
    "add_functions",
    "begin_immediate",
    "check_url",
    "configure_engine",
    "drops_offsets",
    "is_memory",
    "unicode_lower",
]

UNICODE_LOWER = "unicode_lower"
"""The SQL function that searches call on SQLite, whose own ``lower`` knows ASCII only."""

CANCELLED = "fastapi_kit.cancelled"
"""In the info of a connection: whether its task was cancelled. SQLAlchemy closes it then, and its thread ends the statement."""
STEPS_BETWEEN_CHECKS = 100_000
"""Steps of SQLite's virtual machine, about a millisecond."""

_READ = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(?:(SELECT|VALUES|EXPLAIN|PRAGMA)|(WITH))\b", re.IGNORECASE | re.DOTALL)
_DRIVER_OPTIONS = {"uri", "timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements"}
_WRITE_IN_WITH = re.compile(r"\b(INSERT|UPDATE|DELETE|REPLACE)\b", re.IGNORECASE)


def configure_engine(engine: Engine, *, busy_timeout: float) -> None:
    """Install on *engine* what the module's docstring says. Call it before the first connection. *busy_timeout* is in seconds."""

    def configure(connection: Any, record: Any) -> None:
        set_pragmas(connection, busy_timeout)
        record.info[CANCELLED] = cancelled = Event()
        await_only(record.driver_connection.set_progress_handler(cancelled.is_set, STEPS_BETWEEN_CHECKS))

    event.listen(engine, "do_connect", use_own_connection)
    event.listen(engine, "connect", configure)
    event.listen(engine, "connect", add_functions)
    event.listen(engine, "before_cursor_execute", begin_before_write)
    event.listen(engine, "handle_error", interrupt_cancelled)
    dialect: Any = engine.dialect
    dialect.colspecs = {**dialect.colspecs, DateTime: Moment, TIMESTAMP: Moment, Time: TimeOfDay}
    # A read has begun no transaction. Each call to the driver costs a switch of threads.
    dialect.do_rollback = if_in_transaction(dialect.do_rollback)
    dialect.do_commit = if_in_transaction(dialect.do_commit)


def add_functions(connection: Any, _record: object) -> None:
    """Add the SQL functions of the library to a new connection: ``event.listen(engine.sync_engine, "connect", add_functions)``."""
    connection.create_function(UNICODE_LOWER, 1, unicode_lower, deterministic=True)


def unicode_lower(text: Any) -> Any:
    """Return *text* in lower case, each character by itself as in PostgreSQL. What is not text is returned as it is."""
    if not isinstance(text, str):
        return text
    return text.lower() if text.isascii() else "".join(character.lower() for character in text)


def if_in_transaction(end: Callable[[Any], None]) -> Callable[[Any], None]:
    def end_transaction(connection: Any) -> None:
        if in_transaction(connection):
            end(connection)

    return end_transaction


def drops_offsets(dialect: Dialect) -> bool:
    """Return whether *dialect* stores an aware datetime or time without its offset: SQLite's does without ``configure_engine``."""
    specs: Any = dialect
    return dialect.name == "sqlite" and specs.colspecs.get(DateTime) is not Moment


def begin_immediate(connection: Connection) -> None:
    """Begin a write transaction on the SQLite *connection*, unless it is in a transaction. Waits for another writer."""
    if not in_transaction(connection.connection):
        driver_connection: Any = connection.connection.driver_connection
        try:
            # Without SQLAlchemy's cursor: opening and closing one are calls to the driver as well.
            await_only(driver_connection.execute("BEGIN IMMEDIATE"))
        except sqlite3.Error as error:
            raise OperationalError("BEGIN IMMEDIATE", None, error) from error
        except BaseException as error:
            # The task was cancelled. The driver's thread goes on and may still get the lock.
            connection.invalidate(error)
            raise


class PrivateFile:
    """A temporary file instead of ``:memory:``. A shared in-memory database loses data or locks under concurrent sessions.

    Only the process that made it removes it. A forked child uses the file of its parent.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fastapi_kit-"))
        self.path = self.folder / "memory.db"
        self._owner = os.getpid()

    def keep_with(self, engine: Engine) -> None:
        """Remove the file when *engine* is garbage-collected, or at the end of the process."""
        weakref.finalize(engine, self._remove)

    def empty(self) -> None:
        """Delete the database. The next connection starts a new one."""
        if os.getpid() == self._owner:
            for file in self.folder.iterdir():
                file.unlink(missing_ok=True)

    def _remove(self) -> None:
        if os.getpid() == self._owner:
            shutil.rmtree(self.folder, ignore_errors=True)


class ReleasingCursor(sqlite3.Cursor):
    """Releases its statement if it fails.

    SQLAlchemy 2.0 leaves such a cursor to the garbage collector. That runs in the event loop, and would wait there for a statement that
    the driver's thread runs on the same connection, which itself may wait for the lock of another task.
    """

    def execute(self, *args: Any) -> Any:
        try:
            return super().execute(*args)
        except BaseException:
            self.close()
            raise

    def executemany(self, *args: Any) -> Any:
        try:
            return super().executemany(*args)
        except BaseException:
            self.close()
            raise


class ClosingConnection(sqlite3.Connection):
    """A connection that releases the file when it is closed. sqlite3's keeps its locks while a cursor exists, as in a traceback."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cursors = weakref.WeakSet[sqlite3.Cursor]()

    def cursor(self, factory: Any = ReleasingCursor) -> Any:
        cursor = super().cursor(factory)
        self._cursors.add(cursor)
        return cursor

    def close(self) -> None:
        for cursor in list(self._cursors):
            cursor.close()
        self._cursors.clear()
        super().close()

    def __del__(self) -> None:
        # The driver drops a connection whose task is cancelled while it is made. Python 3.13 warns of one that is not closed.
        with suppress(AttributeError, sqlite3.Error):
            self.close()


def check_url(url: URL) -> None:
    """Raise ConfigurationError if SQLite would ignore something in the query of *url*."""
    options = url.query.keys() - _DRIVER_OPTIONS
    if options and not (str(url.query.get("uri", "")).lower() in {"true", "1", "yes", "on"} and (url.database or "").startswith("file:")):
        raise ConfigurationError(
            f"{min(options)!r} in the database URL needs SQLite's form of a file name: sqlite:///file:NAME?{min(options)}=...&uri=true"
        )


def is_memory(url: URL) -> bool:
    """Return whether *url* names an in-memory database."""
    return url.database in {None, "", ":memory:"} or url.query.get("mode") == "memory" or ":memory:" in (url.database or "")


def begin_before_write(
    connection: Connection, _cursor: object, statement: str, _parameters: object, context: ExecutionContext | None, _many: bool
) -> None:
    if writes(statement, context):
        begin_immediate(connection)


def use_own_connection(_dialect: object, _record: object, _positional: object, keywords: dict[str, Any]) -> None:
    keywords.setdefault("factory", ClosingConnection)


def set_pragmas(connection: Any, busy_timeout: float) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("foreign_keys=ON", f"busy_timeout={int(busy_timeout * 1000)}"):
        cursor.execute(f"PRAGMA {pragma}")
    # This fails for a read-only file or directory, and while another process sets the mode of a new file.
    with suppress(sqlite3.OperationalError):
        cursor.execute("PRAGMA journal_mode=WAL")
    cursor.close()


def interrupt_cancelled(context: ExceptionContext) -> None:
    """Interrupt a statement whose task was cancelled. The driver's thread would continue it and keep the lock."""
    connection = context.connection
    if connection is not None and not isinstance(context.original_exception, Exception) and not connection.invalidated:
        # interrupt() ends a wait for a lock, but does nothing to a statement that the thread has yet to begin.
        connection.info[CANCELLED].set()
        driver_connection: Any = connection.connection.driver_connection
        with suppress(ValueError):  # It was closed meanwhile.
            await_only(driver_connection.interrupt())


def in_transaction(connection: Any) -> bool:
    return bool(connection.driver_connection.in_transaction)


def writes(statement: str, context: ExecutionContext | None) -> bool:
    invoked: object = getattr(context, "invoked_statement", None)
    if isinstance(invoked, Select):
        return getattr(cast("Any", invoked), "_for_update_arg", None) is not None
    read = _READ.match(statement)
    if read is None:
        return True
    return read[2] is not None and _WRITE_IN_WITH.search(statement) is not None


class Moment(DATETIME):
    """A datetime, stored in UTC if it is aware. A column with ``timezone=True`` returns aware datetimes in UTC, as PostgreSQL's does."""

    def bind_processor(self, dialect: Dialect) -> Any:
        plain: Any = super()
        write: Callable[[object], str | None] = plain.bind_processor(dialect)

        def process(value: object) -> str | None:
            return write(in_utc(value) if isinstance(value, datetime) and value.utcoffset() is not None else value)

        return process

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        plain: Any = super()
        return in_zone(plain.result_processor(dialect, coltype), aware=self.timezone)


class TimeOfDay(TIME):
    """A time, stored in UTC if it is aware. A change of the day is dropped. A column with ``timezone=True`` returns aware times in UTC."""

    def bind_processor(self, dialect: Dialect) -> Any:
        plain: Any = super()
        write: Callable[[object], str | None] = plain.bind_processor(dialect)

        def process(value: object) -> str | None:
            return write(time_in_utc(value) if isinstance(value, time) and value.tzinfo is not None else value)

        return process

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        plain: Any = super()
        return in_zone(plain.result_processor(dialect, coltype), aware=self.timezone)


def time_in_utc(value: time) -> time:
    if value.utcoffset() is None:
        raise InvalidDatetimeError("naive_datetime", "the offset of its time zone depends on the date: use a fixed offset")
    return datetime.combine(date(2000, 1, 1), value).astimezone(UTC).time()


def in_zone(read: Callable[[Any], Any], *, aware: bool) -> Callable[[Any], Any]:
    def read_aware(stored: object) -> Any:
        value = read(stored)
        return None if value is None else value.replace(tzinfo=UTC)

    return read_aware if aware else read
