"""Reading rows of one model as objects."""

import builtins
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Final, Generic, TypeVar

from sqlalchemy import ColumnExpressionArgument, Result, Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload
from sqlalchemy.orm.interfaces import ORMOption

from fastapi_kit.crud.facts import Key, ModelFacts, facts_of
from fastapi_kit.crud.inference import overrides, type_arguments
from fastapi_kit.crud.ordering import OrderBy, total_order
from fastapi_kit.db.reads import read, read_locked, stream
from fastapi_kit.db.snapshot import keeping_relations
from fastapi_kit.errors import ConfigurationError, InvalidQueryError, MultipleMatchesError, NotFoundError

__all__ = ["FOR_UPDATE", "RowLock", "RowReads"]

ModelT = TypeVar("ModelT")

_MAX_OFFSET = 2**63 - 1
_MAX_KEYS = 10_000
"""Parameters per statement when many keys are asked for; drivers stop at 32,766."""


@dataclass(frozen=True, kw_only=True)
class RowLock:
    """A row lock in the words of ``Select.with_for_update``. SQLite has none: there the whole database is locked for writing."""

    read: bool = False
    nowait: bool = False
    skip_locked: bool = False
    key_share: bool = False


FOR_UPDATE: Final[RowLock] = RowLock()


class RowReads(Generic[ModelT]):
    """The reads of every service that give rows as objects of the model."""

    model: type[ModelT]
    _parameters: ClassVar[tuple[str, ...]] = ("model",)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in cls.__mro__:
            arguments: tuple[object, ...] = type_arguments(cls, base) or ()
            for name, argument in zip(base.__dict__.get("_parameters", ()), arguments, strict=False):
                if isinstance(argument, type) and argument is not Any and not hasattr(cls, name):
                    setattr(cls, name, argument)

    def __init__(self, session: AsyncSession) -> None:
        """Read through *session*. Raises ConfigurationError where the class names no model."""
        if not hasattr(type(self), "model"):
            raise ConfigurationError(f"{type(self).__name__} names no model: subclass {type(self).__name__}[Model, ...] or set model = ...")
        self.session = session

    @cached_property
    def _facts(self) -> ModelFacts:
        return facts_of(self.model)

    @cached_property
    def _dialect(self) -> str:
        return self.session.sync_session.get_bind(self._facts.mapper).dialect.name

    def base_query(self) -> Select[ModelT]:
        """Return the select that every read, update and delete starts from. Override to confine the rows."""
        return select(self.model)

    async def get(self, ident: object, *, options: Sequence[ORMOption] = (), lock: RowLock | None = None) -> ModelT | None:
        """Return the row with this primary key, or None. Composite keys: a tuple, or a mapping by name."""
        key = self._facts.key_of(ident)
        if not self._facts.key_is_possible(key, dialect=lambda: self._dialect):
            return None
        rows = await self._rows(self._with_key(key), options=options, lock=lock)
        return rows[0] if rows else None

    async def get_one(self, ident: object, *, options: Sequence[ORMOption] = (), lock: RowLock | None = None) -> ModelT:
        """Return the row with this primary key, or raise NotFoundError."""
        row = await self.get(ident, options=options, lock=lock)
        if row is None:
            raise NotFoundError(self.model, ident)
        return row

    async def get_by(self, **columns: object) -> ModelT | None:
        """Return the one row with these column values (None is IS NULL), or None. Raises MultipleMatchesError."""
        if not columns:
            raise ConfigurationError("get_by() needs a column")
        self._facts.known(columns)
        if not self._facts.is_possible(columns, dialect=lambda: self._dialect):
            return None
        conditions = [getattr(self.model, name) == value for name, value in columns.items()]
        rows = await self._rows(self.base_query().where(*conditions).limit(2))
        if len(rows) > 1:
            raise MultipleMatchesError(self.model, tuple(columns))
        return rows[0] if rows else None

    async def get_many(self, idents: Iterable[object]) -> builtins.list[ModelT]:
        """Return the rows with these keys, in the order asked, each once; unknown keys are left out. No key, no SQL."""
        facts = self._facts
        keys = [key for key in dict.fromkeys(map(facts.key_of, idents)) if facts.key_is_possible(key, dialect=lambda: self._dialect)]
        found: dict[Key, ModelT] = {}
        for chunk in _chunks(keys, _MAX_KEYS // len(facts.key_names)):
            rows = await self._rows(self.base_query().where(facts.any_key(chunk)))
            found.update((facts.key_of_row(row), row) for row in rows)
        return [found[key] for key in keys if key in found]

    async def first(
        self,
        *conditions: ColumnExpressionArgument[bool],
        order_by: OrderBy = (),
        options: Sequence[ORMOption] = (),
        lock: RowLock | None = None,
    ) -> ModelT | None:
        """Return the first row that meets *conditions*, or None."""
        rows = await self.list(*conditions, limit=1, order_by=order_by, options=options, lock=lock)
        return rows[0] if rows else None

    async def list(
        self,
        *conditions: ColumnExpressionArgument[bool],
        skip: int = 0,
        limit: int | None = 100,
        order_by: OrderBy = (),
        options: Sequence[ORMOption] = (),
        lock: RowLock | None = None,
    ) -> builtins.list[ModelT]:
        """Return rows that meet *conditions*. ``limit=None`` means all of them, 0 none; negative numbers raise InvalidQueryError."""
        if skip < 0 or (limit is not None and limit < 0):
            raise InvalidQueryError("skip and limit must not be negative")
        if limit == 0 or skip > _MAX_OFFSET:
            return []
        statement = self._ordered(order_by).where(*conditions)
        if skip:
            statement = statement.offset(skip)
        if limit is not None:
            statement = statement.limit(min(limit, _MAX_OFFSET))
        return await self._rows(statement, options=options, lock=lock)

    async def stream(
        self, *conditions: ColumnExpressionArgument[bool], order_by: OrderBy = (), batch_size: int = 1000
    ) -> AsyncGenerator[ModelT]:
        """Yield every row that meets *conditions*, *batch_size* in memory at a time.

        The rows come from one open cursor: commit nothing on this session meanwhile, and wrap the call in ``contextlib.aclosing`` if you
        leave the loop early. Collections that the mapping joins are loaded batch by batch; a ``joinedload()`` of a collection in
        ``base_query`` raises ConfigurationError.
        """
        if batch_size < 1:
            raise ConfigurationError("batch_size must be at least 1")
        collections = [selectinload(getattr(self.model, name)) for name in self._facts.joined_collections]
        statement = self._ordered(order_by).where(*conditions).options(*collections).execution_options(yield_per=batch_size)
        async with aclosing(stream(self.session, statement, mapper=self._facts.mapper)) as rows:
            async for row in rows:
                yield row

    async def count(self, *conditions: ColumnExpressionArgument[bool]) -> int:
        """Return how many rows meet *conditions*."""
        return await self._count(self._count_statement(conditions))

    async def exists(self, *conditions: ColumnExpressionArgument[bool]) -> bool:
        """Return whether any row meets *conditions*."""
        statement = select(self.base_query().where(*conditions).order_by(None).exists())
        return bool((await self._read(statement)).scalar_one())

    def _with_key(self, key: Key) -> Select[ModelT]:
        return self.base_query().where(*self._facts.key_conditions(key))

    def _ordered(self, order_by: OrderBy) -> Select[ModelT]:
        return self.base_query().order_by(*total_order(order_by, self._facts.key_attributes, dialect=self._dialect))

    def _count_statement(self, conditions: Sequence[ColumnExpressionArgument[bool]], *, up_to: int | None = None) -> Select[int]:
        if up_to is None and not overrides(type(self), RowReads, "base_query"):
            return select(func.count()).select_from(self.model).where(*conditions)
        rows = self.base_query().where(*conditions).order_by(None).limit(up_to)
        return select(func.count()).select_from(rows.subquery())

    async def _count(self, statement: Select[int]) -> int:
        number: int = (await self._read(statement)).scalar_one()
        return number

    async def _rows(
        self, statement: Select[ModelT], *, options: Sequence[ORMOption] = (), lock: RowLock | None = None
    ) -> builtins.list[ModelT]:
        if options:
            statement = statement.options(*options)
        if lock is None:
            found = await self._read(statement)
        else:
            found = await self._read_locked(statement, lock)
        # Rows come more than once where a collection is joined, and SQLAlchemy then demands unique().
        repeats = getattr(found, "_unique_filter_state", None) is not None
        return list((found.scalars().unique() if repeats else found.scalars()).all())

    async def _read_locked(self, statement: Select[ModelT], lock: RowLock) -> Result[Any]:
        # Who locks a row is about to decide by what is in it now.
        statement = statement.with_for_update(of=self.model, **asdict(lock)).execution_options(populate_existing=True)
        with keeping_relations(self.session.sync_session, self._facts.mapper):
            return await read_locked(self.session, statement, mapper=self._facts.mapper)

    async def _read(self, statement: Select[Any]) -> Result[Any]:
        return await read(self.session, statement, mapper=self._facts.mapper)


def _chunks(keys: Sequence[Key], size: int) -> Iterator[Sequence[Key]]:
    return (keys[start : start + size] for start in range(0, len(keys), size))
