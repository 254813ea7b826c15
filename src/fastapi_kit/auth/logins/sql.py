"""Logins in a table of your application."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, update

from fastapi_kit.auth._rows import (
    Rows,
    Sessions,
    hash_column,
    key_column,
    moment_column,
    optional_hash_column,
    optional_string_column,
    subject_column,
    text_column,
)
from fastapi_kit.auth.logins.store import LoginRecord
from fastapi_kit.db.mixins import unannotated

__all__ = ["LoginMixin", "SQLLoginStore", "Sessions"]


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
    address = unannotated(lambda _: optional_string_column(64))
    user_agent = unannotated(lambda _: optional_string_column(255))


class SQLLoginStore:
    """A ``LoginStore`` in a table of your application, on any database that SQLAlchemy knows.

    Each method opens a session of its own and commits it, so it never takes part in the transaction of a request. A refresh is one read
    and one UPDATE, whose WHERE decides which of several requests wins.

    Args:
        sessions: ``db.sessions``, or your own ``async_sessionmaker``.
        model: Your class with ``LoginMixin``.
    """

    def __init__(self, sessions: Sessions, model: type[LoginMixin]) -> None:
        self._model = model
        self._rows = Rows(sessions, model, LoginRecord)

    async def add(self, login: LoginRecord, /) -> None:
        """Store a new login."""
        await self._rows.add(login)

    async def find(self, sid: str, /) -> LoginRecord | None:
        """Return the login, or None if it was ended."""
        found = await self._rows.find(self._model.sid == sid)
        return found[0] if found else None

    async def replace(self, login: LoginRecord, /, *, token_hash: bytes) -> bool:
        """Store *login* if the stored one still has *token_hash*, and return whether it had. It is one UPDATE."""
        stored = self._model.sid == login.sid, self._model.token_hash == token_hash
        return await self._rows.write(update(self._model).where(*stored).values(self._rows.values_of(login))) > 0

    async def list(self, subject: str, /) -> Sequence[LoginRecord]:
        """Return the logins of *subject*."""
        return await self._rows.find(self._model.subject == subject)

    async def end(self, subject: str, sid: str, /) -> bool:
        """Delete the login *sid* of *subject*, and return whether there was one."""
        return await self._rows.write(delete(self._model).where(self._model.sid == sid, self._model.subject == subject)) > 0

    async def end_all(self, subject: str, /, *, keep: str | None) -> None:
        """Delete all logins of *subject*, except *keep*."""
        statement = delete(self._model).where(self._model.subject == subject)
        await self._rows.write(statement if keep is None else statement.where(self._model.sid != keep))

    async def purge(self, before: datetime, /) -> int:
        """Delete the logins that ended before then, and return how many."""
        return await self._rows.write(delete(self._model).where(self._model.ends_at <= before))
