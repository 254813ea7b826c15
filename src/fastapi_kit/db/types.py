"""The column type for moments and the generator of keys, which behave alike on every database."""

import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, Dialect, Interval, TypeDecorator
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from fastapi_kit.errors import InvalidDataError

__all__ = ["InvalidDatetimeError", "ServerNow", "UTCDateTime", "UUID7Maker", "in_utc", "utc_now", "uuid7"]

_TEXT_LENGTH = len("2000-12-31 23:59:59.999999")


class InvalidDatetimeError(InvalidDataError, DontWrapMixin):
    """A value that UTCDateTime cannot store. SQLAlchemy does not wrap it in a StatementError.

    Args:
        reason: ``naive_datetime``, ``wrong_type`` or ``out_of_range``.
        advice: The sentence that the error's text ends with.
    """

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason=reason)
        self.args = (f"{reason.replace('_', ' ')}: {advice}",)


class UTCDateTime(TypeDecorator[datetime]):
    """A column of aware datetimes. Values may have any offset, and are always read in UTC. Microseconds are kept.

    PostgreSQL stores ``TIMESTAMP WITH TIME ZONE``. SQLite stores text in UTC, which sorts in the order of time. Alembic writes the type
    as ``sa.DateTime(timezone=True)``, which creates the same column, so a migration needs no import of this library.

    Raises:
        InvalidDataError: When a statement binds a naive datetime, with the reason ``naive_datetime``; another type of value
            (``wrong_type``); or a moment outside the years 1 to 9999 in UTC (``out_of_range``).
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def __init__(self) -> None:
        super().__init__()
        # Alembic writes the type of a column as "<module of the instance>.<repr>" and adds no import; every migration imports ``sa``.
        self.__module__ = "sa"

    def __repr__(self) -> str:
        return "DateTime(timezone=True)"

    @property
    def python_type(self) -> type[datetime]:
        """``datetime``."""
        return datetime

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type of the column on *dialect*."""
        return dialect.type_descriptor(DateTime(timezone=dialect.name != "sqlite"))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return *value* in UTC, on SQLite without its time zone.

        Raises:
            InvalidDatetimeError: *value* is naive, not a datetime, or outside the years 1 to 9999 in UTC.
        """
        if value is None:
            return None
        moment = in_utc(value)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the stored *value* as an aware datetime in UTC."""
        if value is None or value.tzinfo is UTC:
            return value
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        """Return the function that converts the driver's values to aware datetimes in UTC. asyncpg needs none."""
        if dialect.driver == "asyncpg":
            return None
        read: Any = super().result_processor(dialect, coltype)
        return text_in_utc(read) if dialect.name == "sqlite" else read

    def coerce_compared_value(self, op: object, value: Any) -> TypeEngine[Any]:
        """Return the type of *value* in an expression: an interval for a timedelta, as in ``created_at + timedelta(days=1)``."""
        return Interval() if isinstance(value, timedelta) else self


def text_in_utc(read: Callable[[Any], datetime | None]) -> Callable[[Any], datetime | None]:
    """Return a function that parses the text of UTCDateTime directly and passes all other values to *read*."""

    def process(stored: Any) -> datetime | None:
        if not isinstance(stored, str) or len(stored) != _TEXT_LENGTH:
            return read(stored)
        try:
            return datetime.fromisoformat(stored + "+00:00")
        except ValueError:
            return read(stored)

    return process


def in_utc(value: object) -> datetime:
    """Return *value*, an aware datetime, in UTC.

    Raises:
        InvalidDatetimeError: *value* is naive, not a datetime, or outside the years 1 to 9999 in UTC.
    """
    if not isinstance(value, datetime):
        raise InvalidDatetimeError("wrong_type", f"a datetime is needed, not {type(value).__name__}")
    if value.utcoffset() is None:
        raise InvalidDatetimeError("naive_datetime", "give it a time zone, as datetime.now(UTC) does")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise InvalidDatetimeError("out_of_range", "in UTC it lies before the year 1 or after the year 9999") from None


def utc_now() -> datetime:
    """Return the current time as an aware datetime in UTC."""
    return datetime.now(UTC)


class ServerNow(FunctionElement[datetime]):
    """The current time of the database, in the form that UTCDateTime stores. For ``server_default``."""

    type = UTCDateTime()
    inherit_cache = True


@compiles(ServerNow)
def render_now(element: ServerNow, compiler: SQLCompiler, **kw: Any) -> str:
    return "CURRENT_TIMESTAMP"


@compiles(ServerNow, "sqlite")
def render_now_sqlite(element: ServerNow, compiler: SQLCompiler, **kw: Any) -> str:
    return "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))"


class UUID7Maker:
    """Makes time-ordered UUIDs (RFC 9562, section 5.7). Each is greater than the one before. Safe for threads.

    A UUID holds 48 bits of milliseconds, a 42-bit counter and 32 random bits. Each millisecond starts the counter at a random value of
    its lower half. When the clock stands still or goes back, the last millisecond stays and the counter goes on.

    Args:
        clock: Returns nanoseconds since 1970.
        random_bits: Returns a random number of the given number of bits.
    """

    def __init__(self, *, clock: Callable[[], int] = time.time_ns, random_bits: Callable[[int], int] = secrets.randbits) -> None:
        self._clock = clock
        self._random_bits = random_bits
        self._lock = threading.Lock()
        self._milliseconds = -1
        self._counter = 0

    def __call__(self) -> UUID:
        """Return the next UUID."""
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
    """Return a time-ordered UUID (version 7, RFC 9562). Each is greater than the one before in this process."""
    return _make_uuid7()
