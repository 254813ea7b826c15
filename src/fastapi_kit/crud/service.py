"""Reading and writing rows of one model."""

import builtins
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel
from sqlalchemy import CursorResult, Select, delete, select
from sqlalchemy.orm import Session, undefer
from sqlalchemy.orm.attributes import instance_dict
from sqlalchemy.orm.exc import StaleDataError

from fastapi_kit.crud.bulk import insert_rows, load_missing
from fastapi_kit.crud.construction import build, change
from fastapi_kit.crud.facts import Key
from fastapi_kit.crud.inference import overrides
from fastapi_kit.crud.reading import ReadService
from fastapi_kit.crud.rows import RowReads
from fastapi_kit.crud.values import Values, checked_changes, checked_row
from fastapi_kit.db.snapshot import Snapshot, keeping_relations
from fastapi_kit.db.transaction import unit_of_work, writing
from fastapi_kit.errors import ConfigurationError, InvalidDataError, NotFoundError, StaleVersionError, StillReferencedError

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
        self._refuse_unversioned(expected_version)
        key = self._facts.key_of(ident)
        columns = await self._changes(data)
        async with self._writing("update") as changing:
            row = await self._row_to_change(self._to_update(key, columns), key, ident, changing, expected_version)
            await self._in_greenlet(lambda: change(row, columns))
            with self._stale(row, ident):
                await self._flush(row)
            self._forget_old_references(row, columns)
        return row

    async def delete(self, ident: object, /, *, expected_version: int | None = None) -> None:
        """Delete a row: by one statement where the mapping asks no more. Raises NotFoundError, StaleVersionError, StillReferencedError."""
        self._refuse_unversioned(expected_version)
        key = self._facts.key_of(ident)
        try:
            async with self._writing("delete") as changing:
                if self._deletes_plainly:
                    await self._delete_plainly(key, ident)
                else:
                    await self._lock(key)
                    row = await self._row_to_change(self._with_key(key), key, ident, changing, expected_version)
                    await self.session.delete(row)
                    with self._stale(row, ident):
                        await self.session.flush()
        except InvalidDataError as error:
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

    async def _lock(self, key: Key) -> None:
        # SQLAlchemy only warns if the row has gone by the time it is deleted.
        if self._facts.key_is_possible(key, dialect=self._dialect):
            await self.session.execute(select(*self._facts.key_attributes).where(*self._facts.key_conditions(key)).with_for_update())

    def _to_update(self, key: Key, changed: Values) -> Select[ModelT]:
        known = self.session.sync_session.identity_map.get(self._facts.mapper.identity_key_from_primary_key(key))
        wanted = self._facts.deferred & {*changed, *(() if known is None else instance_dict(known))}
        return self._with_key(key).options(*(undefer(getattr(self.model, name)) for name in sorted(wanted)))

    async def _row_to_change(
        self, statement: Select[ModelT], key: Key, ident: object, changing: Snapshot, expected_version: int | None
    ) -> ModelT:
        if not self._facts.key_is_possible(key, dialect=self._dialect):
            raise NotFoundError(self.model, ident)
        with keeping_relations(self.session.sync_session, self._facts.mapper, key):
            # As the database has it: a change is what differs from there, not from what was read some time ago.
            fresh = statement.execution_options(populate_existing=True)
            row = (await self.session.scalars(fresh)).unique().one_or_none()
        if row is None:
            raise NotFoundError(self.model, ident)
        changing.keep(row)
        self._refuse_stale(row, expected_version)
        return row

    async def _in_greenlet(self, work: Callable[[], ResultT]) -> ResultT:
        # A setter of the host's, or a collection, may load; what is half set must not be flushed for that.
        def run(session: Session) -> ResultT:
            with session.no_autoflush:
                return work()

        return await self.session.run_sync(run)

    async def _flush(self, row: ModelT) -> None:
        await self.session.flush()
        await load_missing(self.session, self._facts, [row])

    @contextmanager
    def _stale(self, row: ModelT, ident: object) -> Generator[None]:
        """Say what it means that the row which was just read is no longer there to be changed."""
        version: int | None = getattr(row, self._facts.version_name) if self._facts.version_name else None
        try:
            yield
        except StaleDataError as error:
            if version is None:
                raise NotFoundError(self.model, ident) from error
            raise StaleVersionError(expected=version) from error

    def _forget_old_references(self, row: ModelT, changed: Values) -> None:
        # A loaded relationship whose foreign key has changed shows the old row; unloaded, it is loaded anew or refused.
        if outdated := self._facts.references_through(changed.keys()) - changed.keys():
            self.session.expire(row, sorted(outdated))

    @property
    def _deletes_plainly(self) -> bool:
        return not overrides(type(self), RowReads, "base_query") and self._facts.deletes_plainly(self.session.sync_session)

    async def _delete_plainly(self, key: Key, ident: object) -> None:
        if not self._facts.key_is_possible(key, dialect=self._dialect):
            raise NotFoundError(self.model, ident)
        deleted = await self.session.execute(delete(self.model).where(*self._facts.key_conditions(key)))
        if not (isinstance(deleted, CursorResult) and deleted.rowcount):
            raise NotFoundError(self.model, ident)

    def _refuse_unversioned(self, expected_version: int | None) -> None:
        if expected_version is not None and self._facts.version_name is None:
            raise ConfigurationError(f"{self._facts.name} counts no versions: set version_id_col in its __mapper_args__")

    def _refuse_stale(self, row: ModelT, expected_version: int | None) -> None:
        found: int | None = None if expected_version is None else getattr(row, self._facts.version_name or "")
        if expected_version is not None and found != expected_version:
            raise StaleVersionError(expected=expected_version, found=found)
