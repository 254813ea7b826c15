"""The service that reads and writes rows of one model."""

import builtins
import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Generic, TypeVar, cast

from pydantic import BaseModel
from sqlalchemy.orm import Session

from fastapi_kit.crud._bulk import insert_rows
from fastapi_kit.crud._flushing import flushing_of
from fastapi_kit.crud._generics import overrides
from fastapi_kit.crud._write import Target
from fastapi_kit.crud.attributes import Values, attributes_of
from fastapi_kit.crud.locks import FOR_UPDATE, RowLock
from fastapi_kit.crud.reads import ReadService
from fastapi_kit.crud.values import checked_changes, checked_row, field_values, new_values
from fastapi_kit.db.atomic import write
from fastapi_kit.db.hooks import dropping_calls
from fastapi_kit.db.transactions import unit_of_work
from fastapi_kit.errors import InvalidDataError, NotFoundError, StillReferencedError, UnknownReferenceError
from fastapi_kit.schemas import has_rules_across_fields, validate_merged

__all__ = ["CRUDService"]

ModelT = TypeVar("ModelT")
CreateT = TypeVar("CreateT", bound=BaseModel)
UpdateT = TypeVar("UpdateT", bound=BaseModel)
ResultT = TypeVar("ResultT")


class CRUDService(ReadService[ModelT], Generic[ModelT, CreateT, UpdateT]):
    """Create, read, update and delete rows of one model. The type arguments give the model and the schemas.

    A write commits itself, and commits what the session held before, too. If a transaction was opened on purpose, with ``unit_of_work``,
    ``db.begin()``, ``db.transaction`` or ``session.begin()``, a write flushes instead, and whoever opened the transaction commits it.

    A write that fails raises a typed error and undoes itself and nothing else. What was loaded before stays readable, except rows that
    were new or changed in the write. A write returns the row as the database has stored it.

    Override ``create_values``, ``update_values``, ``prepare_insert`` and ``prepare_update`` to decide what is written. Override another
    method and call ``super()`` to do more. If ``create`` is overridden, ``create_many`` calls it for each row, which is slower.

    Args:
        session: The session to read and write through. A service is cheap: make one per session.

    Raises:
        ConfigurationError: The class names no model.

    Example:
        ```python
        import asyncio

        from pydantic import BaseModel
        from sqlalchemy.orm import Mapped, mapped_column

        from fastapi_kit import Base, CRUDService, Database


        class Note(Base):
            __tablename__ = "notes"
            id: Mapped[int] = mapped_column(primary_key=True)
            title: Mapped[str]


        class NoteCreate(BaseModel):
            title: str


        class NoteUpdate(BaseModel):
            title: str | None = None


        class NoteService(CRUDService[Note, NoteCreate, NoteUpdate]): ...


        async def main() -> None:
            db = Database("sqlite:///:memory:")
            await db.create_tables()
            async with db.sessions() as session:
                notes = NoteService(session)
                note = await notes.create(NoteCreate(title="draft"))  # commits
                note = await notes.update(note.id, NoteUpdate(title="final"))
                assert [each.title for each in await notes.list(Note.title != "draft")] == ["final"]
                await notes.delete(note.id)
            await db.dispose()


        asyncio.run(main())
        ```
    """

    create_schema: type[CreateT]
    update_schema: type[UpdateT]
    read_only: ClassVar[Sequence[str]] = ()
    """Columns that only a *trusted* update may change, as is so for timestamps. No update changes the primary key or the version."""
    _parameters = ("model", "create_schema", "update_schema")

    async def create(self, data: CreateT | Values, /, **values: object) -> ModelT:
        """Insert a row and return it.

        Args:
            data: An instance of the create schema, which ``create_values`` turns into values; or a mapping of values by attribute. An
                explicit None stores NULL. What is left out gets the default of the column.
            values: Values that your application sets. They take precedence over *data*.

        Raises:
            ConflictError: A unique constraint, a foreign key or a trigger rejects the row.
            InvalidDataError: A value does not fit its column, or a CHECK rejects it.
            ConfigurationError: A name is not an attribute of the model.
            UnavailableError: The database does not answer.
        """
        row = await self._new_row(data, values)
        inserted: builtins.list[ModelT] = await self._write("create", lambda session: insert_rows(session, self.mapper, [row]))
        return inserted[0]

    async def create_many(self, rows: Iterable[CreateT | Values], /, **values: object) -> builtins.list[ModelT]:
        """Insert all rows, or none if one is rejected, in few statements. Return them in the order given. No rows need no SQL.

        Args:
            rows: As *data* of ``create``.
            values: Values that your application sets in every row.

        Raises:
            KitError: The errors of ``create``.
        """
        rows = list(rows)
        if not rows:
            return []
        if overrides(type(self), CRUDService, "create"):
            async with unit_of_work(self.session):
                return [await self.create(row, **values) for row in rows]
        new = [await self._new_row(row, values) for row in rows]
        return await self._write("create_many", lambda session: insert_rows(session, self.mapper, new))

    async def update(
        self, ident: object, data: UpdateT | Values, /, *, expected_version: int | None = None, trusted: bool = False
    ) -> ModelT:
        """Change the fields that *data* sets, and return the row. Nothing is written if all are stored already.

        Args:
            ident: The primary key. For a composite key a tuple, or a mapping by name.
            data: An instance of the update schema, of which the fields that were set count; or a mapping of values by attribute, which
                may contain SQL expressions. An explicit None stores NULL.
            expected_version: The version that the row must have (``version_id_col``). None: any.
            trusted: *data* may change ``read_only`` columns and timestamps.

        Raises:
            NotFoundError: No row has the key.
            StaleVersionError: The row has another version.
            ConflictError: A unique constraint, a foreign key or a trigger rejects the change.
            InvalidDataError: A value does not fit its column, a CHECK rejects it, or the column is read-only.
            ConfigurationError: A name is not an attribute of the model, or the key has another shape or type.
            UnavailableError: The database does not answer.
        """
        self._identity.key_of(ident)
        if isinstance(data, BaseModel) and has_rules_across_fields(type(data)):
            # The rules are checked on the merged row, so it is locked meanwhile.
            async with unit_of_work(self.session):
                row = vars(await self._current(ident, lock=FOR_UPDATE))
                validate_merged(data, {name: row[name] for name in attributes_of(self.mapper).columns if name in row})
                return await self._update(ident, data, expected_version, trusted=trusted)
        return await self._update(ident, data, expected_version, trusted=trusted)

    async def delete(self, ident: object, /, *, expected_version: int | None = None) -> None:
        """Delete a row, by one statement where the mapping needs no more.

        Args:
            ident: The primary key. For a composite key a tuple, or a mapping by name.
            expected_version: The version that the row must have (``version_id_col``). None: any.

        Raises:
            NotFoundError: No row has the key.
            StaleVersionError: The row has another version.
            StillReferencedError: Other rows refer to it.
            ConfigurationError: The key has another shape or type.
            UnavailableError: The database does not answer.
        """
        flushes = flushing_of(self.mapper).is_needed_to_delete(self.session.sync_session)
        try:
            await self._write(
                "delete",
                lambda session: self._target(session, ident, expected_version).delete(flushes=flushes),
                ident=ident,
                one_statement=not flushes,
            )
        except InvalidDataError as error:
            if isinstance(error, UnknownReferenceError) and error.precise:
                raise
            # A delete writes no values of its own. References to the row could not be set to null, or fail the COMMIT.
            raise StillReferencedError(error.fields, table=error.table) from error

    async def discard(self, ident: object, /) -> bool:
        """Delete a row if it exists, as ``delete`` does. Return whether it existed.

        Raises:
            StillReferencedError: Other rows refer to it.
            ConfigurationError: The key has another shape or type.
            UnavailableError: The database does not answer.
        """
        try:
            await self.delete(ident)
        except NotFoundError as error:
            # An override of delete() may miss another row.
            if error.model is not self.model or error.ident != ident:
                raise
            return False
        return True

    async def create_values(self, data: CreateT) -> dict[str, Any]:
        """Return the values of a new row by attribute. Override it to hash, rename or derive values.

        The default returns the fields of *data*, without those that were left out, are None and have a default in the column. Afterwards
        values are converted to what the columns take: nested models to documents, URLs to text. It runs before the write begins its
        transaction, and only for schemas.
        """
        return new_values(data, self.mapper)

    async def update_values(self, data: UpdateT) -> dict[str, Any]:
        """Return the values of a change by attribute. Override it to hash, rename or derive values.

        The default returns the fields of *data* that were set. It runs before the write begins its transaction, and only for schemas. An
        override with a second parameter, ``row: Note | None = None``, gets the current row, which takes one query.
        """
        return field_values(data)

    def prepare_insert(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the values that are stored for a new row. Override it to add to them. It runs for schemas, mappings and bulk writes."""
        return values

    def prepare_update(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the values that a change stores. Override it to add to them. It runs for schemas and mappings.

        SQL expressions may refer to what is stored.
        """
        return values

    async def _new_row(self, data: CreateT | Values, values: Values) -> dict[str, Any]:
        with dropping_calls(self.session):
            given = await self.create_values(data) if isinstance(data, BaseModel) else data
            return checked_row(self.mapper, self.prepare_insert({**given, **values}), data=data)

    async def _update(self, ident: object, data: UpdateT | Values, expected_version: int | None, *, trusted: bool) -> ModelT:
        changes = await self._changes(ident, data, trusted=trusted)
        flushes = bool(changes) and flushing_of(self.mapper).is_needed_to_update(self.session.sync_session, changes)
        return await self._write(
            "update",
            lambda session: self._target(session, ident, expected_version).update(changes, flushes=flushes),
            ident=ident,
            one_statement=not flushes,
        )

    async def _current(self, ident: object, *, lock: RowLock | None = None) -> ModelT:
        rows = await self._load(self._select(self._identity.has(self._identity.key_of(ident))), lock=lock)
        if not rows:
            raise NotFoundError(self.model, ident)
        return rows[0]

    async def _changes(self, ident: object, data: UpdateT | Values, *, trusted: bool) -> dict[str, Any]:
        with dropping_calls(self.session):
            if not isinstance(data, BaseModel):
                given = data
            elif takes_row(type(self).update_values):
                with_row = cast("Callable[[UpdateT, ModelT], Awaitable[Values]]", self.update_values)
                given = await with_row(data, await self._current(ident))
            else:
                given = await self.update_values(data)
            return checked_changes(self.mapper, self.prepare_update(dict(given)), data=data, read_only=self.read_only, trusted=trusted)

    def _target(self, session: Session, ident: object, expected_version: int | None) -> Target:
        return Target(session, self.mapper, self.base_query(), ident, expected_version)

    async def _write(self, verb: str, work: Callable[[Session], ResultT], *, ident: object = None, one_statement: bool = False) -> ResultT:
        def work_and_note(session: Session) -> ResultT:
            result = work(session)
            self._note_write(cast("builtins.list[ModelT]", result) if ident is None else ident)
            return result

        committer = f"{type(self).__name__}.{verb}"
        return await write(self.session, work_and_note, committer=committer, mapper=self.mapper, one_statement=one_statement)

    def _note_write(self, written: object) -> None:
        """Note, in the transaction of a write, what was written: a key, or a list of rows. ``CachedReadsMixin`` overrides it."""


@lru_cache(maxsize=512)
def takes_row(update_values: Callable[..., object]) -> bool:
    return len(inspect.signature(update_values).parameters) > 2
