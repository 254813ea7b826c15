"""SQLite: BEGIN IMMEDIATE before the first write; foreign keys, busy timeout, WAL; moments in UTC.

The driver's own transaction control neither protects a SAVEPOINT nor a DDL statement, and a transaction that begins
by reading cannot be promoted to a writer when another one wrote in between. So the driver is told to leave
transactions alone: a read sends no BEGIN, and the first write or savepoint of a transaction sends BEGIN IMMEDIATE.

SQLite has no time zones, and SQLAlchemy stores the wall clock of an aware datetime without its offset. Here it is stored,
and compared, in UTC.
"""

import re
import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any, cast

from sqlalchemy import TIMESTAMP, URL, Connection, DateTime, Dialect, Engine, Select, Time, event
from sqlalchemy.dialects.sqlite import DATETIME, TIME
from sqlalchemy.engine.interfaces import ExecutionContext
from sqlalchemy.exc import OperationalError

from fastapi_kit.db.types import InvalidDatetimeError, in_utc

__all__ = ["begin_immediate", "drops_offsets", "is_memory", "make_honest", "private_file", "remove_files"]

_READ = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(?:(SELECT|VALUES|EXPLAIN|PRAGMA)|(WITH))\b", re.IGNORECASE | re.DOTALL)
_WRITE_IN_WITH = re.compile(r"\b(INSERT|UPDATE|DELETE|REPLACE)\b", re.IGNORECASE)


def make_honest(engine: Engine, *, busy_timeout: float) -> None:
    """Install the rules above on *engine*, before its first connection. *busy_timeout* is in seconds."""

    def configure(connection: Any, _record: object) -> None:
        _configure(connection, busy_timeout)

    event.listen(engine, "connect", configure)
    event.listen(engine, "before_cursor_execute", _begin_before_write)
    dialect: Any = engine.dialect
    dialect.colspecs = {**dialect.colspecs, DateTime: _Moment, TIMESTAMP: _Moment, Time: _TimeOfDay}


def drops_offsets(dialect: Dialect) -> bool:
    """Return whether *dialect* stores an aware datetime or time without its offset: SQLite's does where it has not the rules above."""
    specs: Any = dialect
    return dialect.name == "sqlite" and specs.colspecs.get(DateTime) is not _Moment


def begin_immediate(connection: Connection) -> None:
    """Begin a write transaction on the SQLite *connection*, unless it is in one. Waits for another writer."""
    if not _in_transaction(connection.connection):
        cursor = connection.connection.cursor()
        try:
            connection.dialect.do_execute(cursor, "BEGIN IMMEDIATE", ())
        except connection.dialect.loaded_dbapi.Error as error:
            raise OperationalError("BEGIN IMMEDIATE", None, error) from error
        finally:
            cursor.close()


def private_file(url: URL) -> tuple[URL, Path]:
    """Return *url* with a file in place of ``:memory:``, and the file's new temporary folder, which is the caller's to remove.

    A shared in-memory database loses or locks under concurrent sessions.
    """
    folder = Path(tempfile.mkdtemp(prefix="fastapi_kit-"))
    return url.set(database=str(folder / "memory.db"), query={}), folder


def remove_files(folder: Path) -> None:
    """Empty the *folder* of a private file; the folder stays for the next connection."""
    for file in folder.iterdir():
        file.unlink(missing_ok=True)


def is_memory(url: URL) -> bool:
    """Return whether *url* names an in-memory database."""
    return url.database in {None, "", ":memory:"} or url.query.get("mode") == "memory" or ":memory:" in (url.database or "")


def _begin_before_write(
    connection: Connection, _cursor: object, statement: str, _parameters: object, context: ExecutionContext | None, _many: bool
) -> None:
    if _writes(statement, context):
        begin_immediate(connection)


def _configure(connection: Any, busy_timeout: float) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("foreign_keys=ON", f"busy_timeout={int(busy_timeout * 1000)}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
    _use_wal(connection)


def _use_wal(connection: Any) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA journal_mode=WAL")
    except Exception as error:
        # Two processes that switch a new file at once: the other one does it, and the mode is kept in the file.
        if "locked" not in str(error):
            raise
    finally:
        cursor.close()


def _in_transaction(connection: Any) -> bool:
    return bool(connection.driver_connection.in_transaction)


def _writes(statement: str, context: ExecutionContext | None) -> bool:
    invoked: object = getattr(context, "invoked_statement", None)
    if isinstance(invoked, Select):
        return getattr(cast("Any", invoked), "_for_update_arg", None) is not None
    read = _READ.match(statement)
    if read is None:
        return True
    return read[2] is not None and _WRITE_IN_WITH.search(statement) is not None


class _Moment(DATETIME):
    """A datetime, stored in UTC if it is aware. A column with ``timezone=True`` gives aware UTC back, as PostgreSQL does."""

    def bind_processor(self, dialect: Dialect) -> Any:
        plain: Any = super()
        write: Callable[[object], str | None] = plain.bind_processor(dialect)

        def process(value: object) -> str | None:
            return write(in_utc(value) if isinstance(value, datetime) and value.utcoffset() is not None else value)

        return process

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        plain: Any = super()
        return _in_zone(plain.result_processor(dialect, coltype), aware=self.timezone)


class _TimeOfDay(TIME):
    """A time, stored in UTC if it is aware, whatever day that is there. A column with ``timezone=True`` gives aware UTC back."""

    def bind_processor(self, dialect: Dialect) -> Any:
        plain: Any = super()
        write: Callable[[object], str | None] = plain.bind_processor(dialect)

        def process(value: object) -> str | None:
            return write(_time_in_utc(value) if isinstance(value, time) and value.tzinfo is not None else value)

        return process

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        plain: Any = super()
        return _in_zone(plain.result_processor(dialect, coltype), aware=self.timezone)


def _time_in_utc(value: time) -> time:
    if value.utcoffset() is None:
        raise InvalidDatetimeError("naive_datetime", "the offset of its time zone depends on the date: give it one that does not")
    return datetime.combine(date(2000, 1, 1), value).astimezone(UTC).time()


def _in_zone(read: Callable[[Any], Any], *, aware: bool) -> Callable[[Any], Any]:
    def read_aware(stored: object) -> Any:
        value = read(stored)
        return None if value is None else value.replace(tzinfo=UTC)

    return read_aware if aware else read
