"""Reading and writing rows of one model."""

import builtins
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel
from sqlalchemy.orm import Session

from fastapi_kit.crud.bulk import insert_rows, load_missing
from fastapi_kit.crud.changing import Target, making_room
from fastapi_kit.crud.construction import build, change
from fastapi_kit.crud.inference import overrides
from fastapi_kit.crud.reading import ReadService
from fastapi_kit.crud.rows import RowReads
from fastapi_kit.crud.shortcuts import deletes_plainly
from fastapi_kit.crud.values import Values, checked_changes, checked_row
from fastapi_kit.db.snapshot import Snapshot
from fastapi_kit.db.transaction import unit_of_work, writing
from fastapi_kit.errors import InvalidDataError, StillReferencedError, UnknownReferenceError

__all__ = ["CRUDService"]

ModelT = TypeVar("ModelT")
CreateT = TypeVar("CreateT", bound=BaseModel)
UpdateT = TypeVar("UpdateT", bound=BaseModel)
ResultT = TypeVar("ResultT")


class CRUDService(ReadService[ModelT], Generic[ModelT, CreateT, UpdateT]):
    """Create, read, update and delete rows of one model: ``class NoteService(CRUDService[Note, NoteCreate, NoteUpdate])``.

    A write commits itself (and what the session held before it), unless a transaction was opened on purpose: then it flushes and the
    opener commits. A refused write raises a typed error, undoes itself and nothing else, and leaves what was loaded before readable; a row
    that was new or changed inside it is not. Override a method and call ``super()`` to do more; bulk writes then go row by row, which is
    slower.
    """

    create_schema: type[CreateT]
    update_schema: type[UpdateT]
    read_only: ClassVar[Sequence[str]] = ()
    """Columns that no schema may change, beside the primary key, the version and the timestamps."""
    _parameters = ("model", "create_schema", "update_schema")

    async def create(self, data: CreateT | Values, /, **values: object) -> ModelT:
        """Insert a row; *values* are columns the server sets, over those of *data*.

        A mapping as *data* is taken as it is, without ``create_values``. Raises ConflictError, InvalidDataError, and ConfigurationError for
        a name that is no attribute of the model.
        """
        columns = await self._new_row(data, values)
        async with self._writing("create"):
            row = await self._in_greenlet(lambda: build(self.model, columns))
            with making_room(self.session.sync_session, self._facts, [row]):
                self.session.add(row)
                await self._flush(row)
        return row

    async def create_many(self, rows: Iterable[CreateT | Values], /, **values: object) -> builtins.list[ModelT]:
        """Insert all rows or none, in few statements; return them in input order. No row, no SQL. Raises as ``create``."""
        rows = list(rows)
        if not rows:
            return []
        if overrides(type(self), CRUDService, "create"):
            async with unit_of_work(self.session):
                return [await self.create(row, **values) for row in rows]
        columns = [await self._new_row(row, values) for row in rows]
        async with self._writing("create_many"):
            return await insert_rows(self.session, self.model, self._facts, columns)

    async def update(self, ident: object, data: UpdateT | Values, /, *, expected_version: int | None = None) -> ModelT:
        """Change the fields that *data* sets; none set changes nothing. An explicit None stores NULL.

        A mapping as *data* is taken as it is and may hold SQL expressions. Raises NotFoundError, StaleVersionError, ConflictError,
        InvalidDataError, and ConfigurationError for a name that is no attribute of the model.
        """
        target = self._target(ident, expected_version)
        columns = await self._changes(data)
        async with self._writing("update") as changing:
            row = await target.read(self._with_key(target.key), changing=changing, changed=columns)
            await self._in_greenlet(lambda: change(row, columns))
            with target.flushing(row):
                await self._flush(row)
            target.forget_old_references(row, set(columns))
        return row

    async def delete(self, ident: object, /, *, expected_version: int | None = None) -> None:
        """Delete a row: by one statement where the mapping asks no more. Raises NotFoundError, StaleVersionError, StillReferencedError."""
        target = self._target(ident, expected_version)
        try:
            async with self._writing("delete") as changing:
                if self._deletes_plainly:
                    await target.delete()
                else:
                    await target.lock()
                    row = await target.read(self._with_key(target.key), changing=changing)
                    await self.session.delete(row)
                    with target.flushing(row):
                        await self.session.flush()
        except InvalidDataError as error:
            if isinstance(error, UnknownReferenceError) and error.precise:
                raise
            # A delete writes no values: rows that still point here cannot be set to null, or fail the COMMIT.
            raise StillReferencedError(error.fields, table=error.table) from error

    async def create_values(self, data: CreateT) -> dict[str, Any]:
        """Return the column values of a new row: what the schema holds, its defaults included. Override to hash, rename or derive.

        Runs before the write begins its transaction.
        """
        return data.model_dump(by_alias=False)

    async def update_values(self, data: UpdateT) -> dict[str, Any]:
        """Return the column values that a change sets: by default the fields the caller set. Override to hash, rename or derive.

        Runs before the write begins its transaction.
        """
        return data.model_dump(by_alias=False, exclude_unset=True)

    async def _new_row(self, data: CreateT | Values, values: Values) -> dict[str, Any]:
        given = await self.create_values(data) if isinstance(data, BaseModel) else data
        columns = {**given, **values}
        checked_row(self._facts, columns, data=data)
        return columns

    async def _changes(self, data: UpdateT | Values) -> dict[str, Any]:
        columns = await self.update_values(data) if isinstance(data, BaseModel) else data
        checked_changes(self._facts, columns, data=data, read_only=self.read_only)
        return {self._facts.behind_synonym(name): value for name, value in columns.items()}

    def _writing(self, verb: str) -> AbstractAsyncContextManager[Snapshot]:
        return writing(self.session, committer=f"{type(self).__name__}.{verb}", mapper=self._facts.mapper)

    def _target(self, ident: object, expected_version: int | None) -> Target[ModelT]:
        return Target(self.session, self.model, self._facts, ident, self._facts.key_of(ident), expected_version)

    async def _in_greenlet(self, work: Callable[[], ResultT]) -> ResultT:
        # A setter of the host's, or a collection, may load; what is half set must not be flushed for that.
        def run(session: Session) -> ResultT:
            with session.no_autoflush:
                return work()

        return await self.session.run_sync(run)

    async def _flush(self, row: ModelT) -> None:
        await self.session.flush()
        await load_missing(self.session, self._facts, [row])

    @property
    def _deletes_plainly(self) -> bool:
        return not overrides(type(self), RowReads, "base_query") and deletes_plainly(self._facts, self.session.sync_session)
