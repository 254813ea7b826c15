"""API keys in a table of your application."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, or_, update

from fastapi_kit.auth._rows import (
    Rows,
    Sessions,
    hash_column,
    key_column,
    moment_column,
    optional_moment_column,
    string_column,
    subject_column,
    text_column,
)
from fastapi_kit.auth.api_keys.store import APIKeyRecord
from fastapi_kit.db.mixins import unannotated

__all__ = ["APIKeyMixin", "SQLAPIKeyStore"]


class APIKeyMixin:
    """Columns of an API key, for a table of your own: ``class APIKey(APIKeyMixin, Base)``. The primary key is ``id``.

    ``subject`` is the id of the user as text. It has an index and no foreign key, because tokens know no table. ``scopes`` are separated
    by spaces. The table contains no key.
    """

    id = unannotated(lambda _: key_column())
    subject = unannotated(lambda _: subject_column())
    name = unannotated(lambda _: string_column(100))
    hint = unannotated(lambda _: string_column(64))
    secret_hash = unannotated(lambda _: hash_column())
    scopes = unannotated(lambda _: text_column())
    created_at = unannotated(lambda _: moment_column())
    expires_at = unannotated(lambda _: optional_moment_column())
    last_used_at = unannotated(lambda _: optional_moment_column())


class SQLAPIKeyStore:
    """An ``APIKeyStore`` in a table of your application, on any database that SQLAlchemy knows.

    Each method opens a session of its own and commits it, so it never takes part in the transaction of a request.

    Args:
        sessions: ``db.sessions``, or your own ``async_sessionmaker``.
        model: Your class with ``APIKeyMixin``.
    """

    def __init__(self, sessions: Sessions, model: type[APIKeyMixin]) -> None:
        self._model = model
        self._rows = Rows(sessions, model, APIKeyRecord)

    async def add(self, key: APIKeyRecord, /) -> None:
        """Store a new key."""
        await self._rows.add(key)

    async def find(self, id: str, /) -> APIKeyRecord | None:
        """Return the key, or None if it was revoked."""
        found = await self._rows.find(self._model.id == id)
        return found[0] if found else None

    async def list(self, subject: str, /) -> Sequence[APIKeyRecord]:
        """Return the keys of *subject*."""
        return await self._rows.find(self._model.subject == subject)

    async def touch(self, id: str, /, *, at: datetime) -> None:
        """Store when the key was used, unless a later time is stored."""
        used = self._model.last_used_at
        statement = update(self._model).where(self._model.id == id, or_(used.is_(None), used < at))
        await self._rows.write(statement.values(last_used_at=at))

    async def remove(self, subject: str, id: str, /) -> bool:
        """Delete the key *id* of *subject*, and return whether there was one."""
        return await self._rows.write(delete(self._model).where(self._model.id == id, self._model.subject == subject)) > 0

    async def remove_all(self, subject: str, /) -> None:
        """Delete all keys of *subject*."""
        await self._rows.write(delete(self._model).where(self._model.subject == subject))
