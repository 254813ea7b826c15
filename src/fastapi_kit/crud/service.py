"""Reading and writing rows of one model."""

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
from fastapi_kit.crud.reads import FOR_UPDATE, ReadService, RowLock
from fastapi_kit.crud.values import checked_changes, checked_row, field_values, new_values
from fastapi_kit.db.transactions import dropping_calls, unit_of_work, write
from fastapi_kit.errors import InvalidDataError, NotFoundError, StillReferencedError, UnknownReferenceError
from fastapi_kit.schemas import has_rules_across_fields, validate_merged

__all__ = ["CRUDService"]

ModelT = TypeVar("ModelT")
CreateT = TypeVar("CreateT", bound=BaseModel)
UpdateT = TypeVar("UpdateT", bound=BaseModel)
ResultT = TypeVar("ResultT")


class CRUDService(ReadService[ModelT], Generic[ModelT, CreateT, UpdateT]):
    """Create, read, update and delete rows of one model: ``class NoteService(CRUDService[Note, NoteCreate, NoteUpdate])``.

    A write commits itself (and what the session held before it), unless a transaction was opened on purpose: then it flushes and the
    opener commits. A refused write raises a typed error, undoes itself and nothing else, and leaves what was loaded before readable; a row
    that was new or changed inside it is not. What a write returns is what the database has stored.

    Override a method and call ``super()`` to do more; bulk writes then go row by row, which is slower. Override ``create_values``,
    ``update_values``, ``prepare_insert`` and ``prepare_update`` to decide what is written.
    """

    create_schema: type[CreateT]
    update_schema: type[UpdateT]
    read_only: ClassVar[Sequence[str]] = ()
    """Columns that no update may change unless it is *trusted*, beside the primary key, the version and the timestamps."""
    _parameters = ("model", "create_schema", "update_schema")

    async def create(self, data: CreateT | Values, /, **values: object) -> ModelT:
        """Insert a row; *values* are columns the server sets, over those of *data*.

        An explicit None stores NULL; what is left out gets the column's default. A mapping as *data* is taken as it is, without
        ``create_values``. Raises ConflictError, InvalidDataError, and ConfigurationError for a name that is no attribute of the model.
        """
        row = await self._new_row(data, values)
        inserted: builtins.list[ModelT] = await self._write("create", lambda session: insert_rows(session, self.mapper, [row]))
        return inserted[0]

    async def create_many(self, rows: Iterable[CreateT | Values], /, **values: object) -> builtins.list[ModelT]:
        """Insert all rows or none, in few statements; return them in input order. No row, no SQL. Raises as ``create``."""
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
        """Change the fields that *data* sets; none set, or all equal to what is stored, changes nothing. An explicit None stores NULL.

        A mapping as *data* is taken as it is and may hold SQL expressions. *trusted* data may change ``read_only`` columns and timestamps.
        Raises NotFoundError, StaleVersionError, ConflictError, InvalidDataError, and ConfigurationError for a name that is no attribute of
        the model.
        """
        self._identity.key_of(ident)
        if isinstance(data, BaseModel) and has_rules_across_fields(type(data)):
            # The rules are judged on the row as it will be, so it must not change meanwhile.
            async with unit_of_work(self.session):
                row = vars(await self._current(ident, lock=FOR_UPDATE))
                validate_merged(data, {name: row[name] for name in attributes_of(self.mapper).columns if name in row})
                return await self._update(ident, data, expected_version, trusted=trusted)
        return await self._update(ident, data, expected_version, trusted=trusted)

    async def delete(self, ident: object, /, *, expected_version: int | None = None) -> None:
        """Delete a row: by one statement where the mapping asks no more. Raises NotFoundError, StaleVersionError, StillReferencedError."""
        flushes = flushing_of(self.mapper).is_needed_to_delete(self.session.sync_session)
        try:
            await self._write(
                "delete", lambda session: self._target(session, ident, expected_version).delete(flushes=flushes), one_statement=not flushes
            )
        except InvalidDataError as error:
            if isinstance(error, UnknownReferenceError) and error.precise:
                raise
            # A delete writes no values: rows that still point here cannot be set to null, or fail the COMMIT.
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
        """Return the values of a new row by attribute: those of the schema's fields, as they are. Override to hash, rename or derive.

        A field that was left out and is None is not among them where the column has a default. Runs before the write begins its
        transaction. Values of types that the column does not know become what it takes afterwards: a nested model a document, a URL text.
        """
        return new_values(data, self.mapper)

    async def update_values(self, data: UpdateT) -> dict[str, Any]:
        """Return the values that a change sets: by default the fields the caller set. Override to hash, rename or derive.

        Runs before the write begins its transaction. An override with a second parameter, ``row: Note | None = None``, gets the row as it
        is now, at the price of a query.
        """
        return field_values(data)

    def prepare_insert(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the values that are stored for a new row, by whatever way they came: schema, mapping, bulk. Override to add to them."""
        return values

    def prepare_update(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the values that a change stores, whatever way they came. SQL expressions may refer to what is stored."""
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

    async def _write(self, verb: str, work: Callable[[Session], ResultT], *, one_statement: bool = False) -> ResultT:
        committer = f"{type(self).__name__}.{verb}"
        return await write(self.session, work, committer=committer, mapper=self.mapper, one_statement=one_statement)


@lru_cache(maxsize=512)
def takes_row(update_values: Callable[..., object]) -> bool:
    return len(inspect.signature(update_values).parameters) > 2
