"""Records in a table of your application, for the stores in SQL: columns, reads and writes."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import fields
from datetime import datetime
from typing import Any, Generic, TypeAlias, TypeVar, cast

from sqlalchemy import CursorResult, Executable, LargeBinary, String, Text, insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, Session, class_mapper, mapped_column

from fastapi_kit.db.errors.translate import typed
from fastapi_kit.db.reads import read
from fastapi_kit.db.transactions import unit_of_work
from fastapi_kit.db.types import UTCDateTime

__all__ = [
    "Rows",
    "Sessions",
    "hash_column",
    "key_column",
    "moment_column",
    "optional_hash_column",
    "optional_moment_column",
    "optional_string_column",
    "string_column",
    "subject_column",
    "text_column",
]

Sessions: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncSession]]
"""Opens a new session: ``db.sessions``, or your own ``async_sessionmaker``."""

RecordT = TypeVar("RecordT")


def key_column() -> Mapped[str]:
    """Return the column of ids."""
    return mapped_column(String(64), primary_key=True)


def subject_column() -> Mapped[str]:
    """Return the column of users."""
    return mapped_column(String(255), index=True, nullable=False)


def text_column() -> Mapped[str]:
    """Return a column of text."""
    return mapped_column(Text(), nullable=False)


def string_column(length: int) -> Mapped[str]:
    """Return a column of short text."""
    return mapped_column(String(length), nullable=False)


def optional_string_column(length: int) -> Mapped[str | None]:
    """Return a column of short text that may be missing."""
    return mapped_column(String(length), nullable=True)


def hash_column() -> Mapped[bytes]:
    """Return a column of SHA-256 hashes."""
    return mapped_column(LargeBinary(32), nullable=False)


def optional_hash_column() -> Mapped[bytes | None]:
    """Return a column of hashes that may be missing."""
    return mapped_column(LargeBinary(32), nullable=True)


def moment_column() -> Mapped[datetime]:
    """Return a column of moments."""
    return mapped_column(UTCDateTime(), nullable=False)


def optional_moment_column() -> Mapped[datetime | None]:
    """Return a column of moments that may be missing."""
    return mapped_column(UTCDateTime(), nullable=True)


class Rows(Generic[RecordT]):
    """The rows of *model*, each as a *record*, a dataclass with ``scopes`` whose fields are columns.

    Each method opens a session of its own and commits it.
    """

    def __init__(self, sessions: Sessions, model: type[Any], record: type[RecordT]) -> None:
        self._sessions = sessions
        self._model = model
        self._record = record
        self._names = [each.name for each in fields(cast("Any", record))]

    async def add(self, record: RecordT) -> None:
        """Insert a row."""
        await self.write(insert(self._model).values(self.values_of(record)))

    async def find(self, condition: Any) -> Sequence[RecordT]:
        """Return the records that fulfil *condition*."""
        statement = select(*(getattr(self._model, name) for name in self._names)).where(condition)

        def work(session: Session) -> Sequence[RecordT]:
            return [self._record_of(dict(zip(self._names, row, strict=True))) for row in session.execute(statement)]

        async with self._sessions() as session:
            return await read(session, work, mapper=class_mapper(self._model))

    async def write(self, statement: Executable) -> int:
        """Execute an INSERT, UPDATE or DELETE, and return the number of its rows."""
        with typed(class_mapper(self._model)):
            async with self._sessions() as session, unit_of_work(session):
                result = await session.execute(statement.execution_options(synchronize_session=False))
        return cast("CursorResult[Any]", result).rowcount

    def values_of(self, record: RecordT) -> dict[str, Any]:
        """Return the values of a row."""
        values = {name: getattr(record, name) for name in self._names}
        return {**values, "scopes": " ".join(sorted(values["scopes"]))}

    def _record_of(self, values: dict[str, Any]) -> RecordT:
        return self._record(**{**values, "scopes": frozenset(values["scopes"].split())})
