"""Logins in a table of your application."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import fields
from datetime import datetime
from typing import Any, TypeAlias, cast

from sqlalchemy import CursorResult, Executable, LargeBinary, String, Text, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, Mapper, Session, class_mapper, mapped_column

from fastapi_kit.auth.logins.store import LoginRecord
from fastapi_kit.db.errors.translate import typed
from fastapi_kit.db.mixins import unannotated
from fastapi_kit.db.reads import read
from fastapi_kit.db.transactions import unit_of_work
from fastapi_kit.db.types import UTCDateTime

__all__ = ["LoginMixin", "SQLLoginStore", "Sessions"]

Sessions: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncSession]]
"""Opens a new session: ``db.sessions``, or your own ``async_sessionmaker``."""

NAMES = [each.name for each in fields(LoginRecord)]


class LoginMixin:
    """Columns of a login, for a table of your own: ``class Login(LoginMixin, Base)``. The primary key is ``sid``.

    ``subject`` is the id of the user as text. It has an index and no foreign key, because tokens know no table. ``scopes`` are separated
    by spaces. The table contains no token.
    """

    sid = unannotated(lambda _: key_column())
    subject = unannotated(lambda _: subject_column())
    scopes = unannotated(lambda _: text_column())
    token_hash = unannotated(lambda _: hash_column())
    previous_hash = unannotated(lambda _: optional_hash_column())
    salt = unannotated(lambda _: optional_hash_column())
    created_at = unannotated(lambda _: moment_column())
    last_used_at = unannotated(lambda _: moment_column())
    ends_at = unannotated(lambda _: moment_column())
    expires_at = unannotated(lambda _: moment_column())
    address = unannotated(lambda _: client_column(64))
    user_agent = unannotated(lambda _: client_column(255))


def key_column() -> Mapped[str]:
    """Return the column of ids."""
    return mapped_column(String(64), primary_key=True)


def subject_column() -> Mapped[str]:
    """Return the column of users."""
    return mapped_column(String(255), index=True, nullable=False)


def text_column() -> Mapped[str]:
    """Return a column of text."""
    return mapped_column(Text(), nullable=False)


def hash_column() -> Mapped[bytes]:
    """Return a column of SHA-256 hashes."""
    return mapped_column(LargeBinary(32), nullable=False)


def optional_hash_column() -> Mapped[bytes | None]:
    """Return a column of hashes that a new login has not."""
    return mapped_column(LargeBinary(32), nullable=True)


def moment_column() -> Mapped[datetime]:
    """Return a column of moments."""
    return mapped_column(UTCDateTime(), nullable=False)


def client_column(length: int) -> Mapped[str | None]:
    """Return a column of what a client says of itself."""
    return mapped_column(String(length), nullable=True)


class SQLLoginStore:
    """A ``LoginStore`` in a table of your application, on any database that SQLAlchemy knows.

    Each method opens a session of its own and commits it, so it never takes part in the transaction of a request. A refresh is one read
    and one UPDATE, whose WHERE decides which of several requests wins.

    Args:
        sessions: ``db.sessions``, or your own ``async_sessionmaker``.
        model: Your class with ``LoginMixin``.
    """

    def __init__(self, sessions: Sessions, model: type[LoginMixin]) -> None:
        self._sessions = sessions
        self._model = model

    async def add(self, login: LoginRecord, /) -> None:
        """Store a new login."""
        await self._write(insert(self._model).values(values_of(login)))

    async def find(self, sid: str, /) -> LoginRecord | None:
        """Return the login, or None if it was ended."""
        found = await self._read(self._model.sid == sid)
        return found[0] if found else None

    async def replace(self, login: LoginRecord, /, *, token_hash: bytes) -> bool:
        """Store *login* if the stored one still has *token_hash*, and return whether it had. It is one UPDATE."""
        stored = self._model.sid == login.sid, self._model.token_hash == token_hash
        return await self._write(update(self._model).where(*stored).values(values_of(login))) > 0

    async def list(self, subject: str, /) -> Sequence[LoginRecord]:
        """Return the logins of *subject*."""
        return await self._read(self._model.subject == subject)

    async def end(self, subject: str, sid: str, /) -> bool:
        """Delete the login *sid* of *subject*, and return whether there was one."""
        return await self._write(delete(self._model).where(self._model.sid == sid, self._model.subject == subject)) > 0

    async def end_all(self, subject: str, /, *, keep: str | None) -> None:
        """Delete all logins of *subject*, except *keep*."""
        statement = delete(self._model).where(self._model.subject == subject)
        await self._write(statement if keep is None else statement.where(self._model.sid != keep))

    async def purge(self, before: datetime, /) -> int:
        """Delete the logins that ended before then, and return how many."""
        return await self._write(delete(self._model).where(self._model.ends_at <= before))

    @property
    def _mapper(self) -> Mapper[Any]:
        return class_mapper(self._model)

    async def _read(self, condition: Any) -> Sequence[LoginRecord]:
        statement = select(*(getattr(self._model, name) for name in NAMES)).where(condition)

        def work(session: Session) -> Sequence[LoginRecord]:
            return [record_of(dict(zip(NAMES, row, strict=True))) for row in session.execute(statement)]

        async with self._sessions() as session:
            return await read(session, work, mapper=self._mapper)

    async def _write(self, statement: Executable) -> int:
        with typed(self._mapper):
            async with self._sessions() as session, unit_of_work(session):
                result = await session.execute(statement.execution_options(synchronize_session=False))
        return cast("CursorResult[Any]", result).rowcount


def values_of(login: LoginRecord) -> dict[str, Any]:
    """Return the values of a row."""
    values = {name: getattr(login, name) for name in NAMES}
    return {**values, "scopes": " ".join(sorted(login.scopes))}


def record_of(values: dict[str, Any]) -> LoginRecord:
    """Return the login with the values of a row."""
    values["scopes"] = frozenset(values["scopes"].split())
    return LoginRecord(**values)
