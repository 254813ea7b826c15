"""Column types and key makers that behave alike on every database."""

import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, Dialect, Interval, TypeDecorator
from sqlalchemy.dialects.mysql import DATETIME as MYSQL_DATETIME
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from fastapi_kit.errors import InvalidDataError

__all__ = ["InvalidDatetimeError", "ServerNow", "UTCDateTime", "UUID7Maker", "in_utc", "utc_now", "uuid7"]

_ZONELESS_DIALECTS = {"mariadb", "mysql", "sqlite"}
_TEXT_LENGTH = len("2000-12-31 23:59:59.999999")


class InvalidDatetimeError(InvalidDataError, DontWrapMixin):
    """A value that UTCDateTime cannot store; *reason* is ``naive_datetime``, ``wrong_type`` or ``out_of_range``.

    It reaches the caller as it is: SQLAlchemy does not wrap it in a StatementError.
    """

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason=reason)
        self.args = (f"{reason.replace('_', ' ')}: {advice}",)


class UTCDateTime(TypeDecorator[datetime]):
    """An aware datetime: any offset goes in, UTC comes out, microseconds kept.

    PostgreSQL stores ``TIMESTAMP WITH TIME ZONE``; MySQL ``DATETIME(6)`` and SQLite text, both in UTC, which sort as time does.
    Naive input raises InvalidDataError with the reason ``naive_datetime``. In a migration that Alembic writes it is
    ``sa.DateTime(timezone=True)``, the same column, so that no import is missing there.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def __init__(self) -> None:
        super().__init__()
        # Alembic writes the type of a column as "<module of the instance>.<repr>" and adds no import; ``sa`` is always there.
        self.__module__ = "sa"

    def __repr__(self) -> str:
        return "DateTime(timezone=True)"

    @property
    def python_type(self) -> type[datetime]:
        """The class of the values."""
        return datetime

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type that keeps microseconds on *dialect*."""
        if dialect.name in {"mariadb", "mysql"}:
            return dialect.type_descriptor(MYSQL_DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime(timezone=dialect.name not in _ZONELESS_DIALECTS))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return *value* in UTC, without its zone where *dialect* stores none. Raises InvalidDatetimeError."""
        if value is None:
            return None
        moment = in_utc(value)
        return moment.replace(tzinfo=None) if dialect.name in _ZONELESS_DIALECTS else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return *value* as aware UTC."""
        if value is None or value.tzinfo is UTC:
            return value
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        """Return what makes aware UTC of the values of *dialect*'s driver: nothing where they are."""
        if dialect.driver == "asyncpg":
            return None
        read: Any = super().result_processor(dialect, coltype)
        return text_in_utc(read) if dialect.name == "sqlite" else read

    def coerce_compared_value(self, op: object, value: Any) -> TypeEngine[Any]:
        """Take a timedelta for an interval, so that ``created_at + timedelta(days=1)`` works, and all else for a moment."""
        return Interval() if isinstance(value, timedelta) else self


def text_in_utc(read: Callable[[Any], datetime | None]) -> Callable[[Any], datetime | None]:
    """Return what reads the text that this type writes in one step, and all other values by *read*."""

    def process(stored: Any) -> datetime | None:
        if not isinstance(stored, str) or len(stored) != _TEXT_LENGTH:
            return read(stored)
        try:
            return datetime.fromisoformat(stored + "+00:00")
        except ValueError:
            return read(stored)

    return process


def in_utc(value: object) -> datetime:
    """Return an aware datetime in UTC. Raises InvalidDatetimeError."""
    if not isinstance(value, datetime):
        raise InvalidDatetimeError("wrong_type", f"a datetime is needed, not {type(value).__name__}")
    if value.utcoffset() is None:
        raise InvalidDatetimeError("naive_datetime", "give it a time zone, as datetime.now(UTC) does")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise InvalidDatetimeError("out_of_range", "in UTC it lies before the year 1 or after the year 9999") from None


def utc_now() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)


class ServerNow(FunctionElement[datetime]):
    """The database's own clock, stored exactly as UTCDateTime stores a value. For ``server_default``."""

    type = UTCDateTime()
    inherit_cache = True


@compiles(ServerNow)
def render_now(element: ServerNow, compiler: SQLCompiler, **kw: Any) -> str:
    return "CURRENT_TIMESTAMP"


@compiles(ServerNow, "sqlite")
def render_now_sqlite(element: ServerNow, compiler: SQLCompiler, **kw: Any) -> str:
    return "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))"


@compiles(ServerNow, "mysql", "mariadb")
def render_now_mysql(element: ServerNow, compiler: SQLCompiler, **kw: Any) -> str:
    return "(utc_timestamp(6))"


class UUID7Maker:
    """Makes time-ordered UUIDs (RFC 9562, section 5.7), each greater than the one before, from any thread.

    48 bits of milliseconds, a 42-bit counter that starts anew each millisecond at a random value of its lower half, 32 random bits.
    When *clock* (nanoseconds since 1970) stands still or goes back, the last millisecond stays and the counter goes on.
    *random_bits* returns a number of as many bits.
    """

    def __init__(self, *, clock: Callable[[], int] = time.time_ns, random_bits: Callable[[int], int] = secrets.randbits) -> None:
        self._clock = clock
        self._random_bits = random_bits
        self._lock = threading.Lock()
        self._milliseconds = -1
        self._counter = 0

    def __call__(self) -> UUID:
        """Return the next one."""
        milliseconds, counter = self._tick()
        high, low = divmod(counter, 1 << 30)
        return UUID(int=milliseconds << 80 | 7 << 76 | high << 64 | 0b10 << 62 | low << 32 | self._random_bits(32))

    def _tick(self) -> tuple[int, int]:
        with self._lock:
            now = self._clock() // 1_000_000
            self._counter += 1
            if now > self._milliseconds:
                self._start(now)
            elif self._counter >> 42:
                self._start(self._milliseconds + 1)
            return self._milliseconds, self._counter

    def _start(self, milliseconds: int) -> None:
        self._milliseconds = milliseconds
        self._counter = self._random_bits(41)


_make_uuid7 = UUID7Maker()


def uuid7() -> UUID:
    """Return a time-ordered UUID (RFC 9562), increasing within this process."""
    return _make_uuid7()
