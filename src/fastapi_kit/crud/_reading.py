"""What every read of a service shares: the select, the window, the loading of objects and of plain rows."""

import builtins
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import nullcontext
from copy import copy
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar, runtime_checkable

from pydantic import BaseModel
from sqlalchemy import ColumnElement, ColumnExpressionArgument, Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.orm.interfaces import LoaderOption, ORMOption

from fastapi_kit._compat import criteria_options, is_ungrouped, options_of
from fastapi_kit.crud._base_query import BaseQuery, window
from fastapi_kit.crud._estimate import expected_rows, explained
from fastapi_kit.crud._generics import overrides, type_arguments
from fastapi_kit.crud._keyset import Seek, keys_of, without_order
from fastapi_kit.crud._pages import Total
from fastapi_kit.crud._related import criteria_of
from fastapi_kit.crud._rows import Loading, loading_of
from fastapi_kit.crud.attributes import mapper_of
from fastapi_kit.crud.filters.cursors import Position
from fastapi_kit.crud.identity import Identity, identity_of
from fastapi_kit.crud.locks import RowLock
from fastapi_kit.crud.ordering import OrderBy, items_of, total_order
from fastapi_kit.crud.read_plan.plan import ReadPlan
from fastapi_kit.db.atomic import read_locked
from fastapi_kit.db.reads import read
from fastapi_kit.db.sessions import execute, is_idle, rows_of
from fastapi_kit.errors import ConfigurationError, InvalidQueryError
from fastapi_kit.pagination import PageParams

if TYPE_CHECKING:
    from fastapi_kit.crud.filters.specs import FilterSpec
    from fastapi_kit.db.transactions import SessionFactory

__all__ = ["MAX_OFFSET", "Asking", "Reading", "load_missing"]

ModelT = TypeVar("ModelT")
SchemaT = TypeVar("SchemaT", bound=BaseModel)
ResultT = TypeVar("ResultT")

MAX_OFFSET = 2**63 - 1


@runtime_checkable
class Asking(Protocol):
    """What a list asks for beside its window: a FilterSpec."""

    def confined(self, confine: Callable[[type[Any]], Select[Any] | None], /) -> tuple[ColumnElement[bool], ...]:
        """Return the SQL conditions."""
        ...

    def sort_items(self) -> Sequence[Any]:
        """Return what to sort by."""
        ...


class Reading(Generic[ModelT]):
    """The part of a service that builds its selects and runs them."""

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
        """Read through *session*."""
        if not hasattr(type(self), "model"):
            raise ConfigurationError(f"{type(self).__name__} names no model: subclass {type(self).__name__}[Model, ...] or set model = ...")
        self.session = session

    def base_query(self) -> Select[Any]:
        """Return the select that every read, update and delete starts from. Override it to restrict the rows.

        It may join: each row of the model counts once, however many rows are joined to it.
        """
        return select(self.model)

    def read_options(self) -> Sequence[ORMOption]:
        """Return the loader options for every read. Override it to load more than the mapping does."""
        return ()

    def related_query(self, model: type[Any]) -> Select[Any] | None:
        """Return the select of the rows of a related *model* that may be seen, or None for all. Override it to hide rows.

        A filter such as ``owner__email`` reads rows of another model, and so does a SparseModel with relationships. For rows of the
        service's own model it is ``base_query``. For others it is a plain select, to which criteria of the session and of ``base_query``
        apply (``with_loader_criteria``).
        """
        is_overridden = overrides(type(self), Reading, "base_query")
        if is_overridden and mapper_of(model).isa(self.mapper):
            return self.base_query()
        has_criteria = bool(self.session.sync_session.dispatch.do_orm_execute) or (is_overridden and criteria_options(self.base_query()))
        return select(model) if has_criteria else None

    def with_session(self, session: AsyncSession) -> Self:
        """Return a copy of the service that reads through *session*.

        Override it if the service has other parts that use its session, such as other services.
        """
        service = copy(self)
        service.session = session
        return service

    def _finding(self, plan: ReadPlan[SchemaT], statement: Select[Any]) -> Callable[[Session], Sequence[Any]]:
        """Return the function that runs *statement* for ``plan.from_found``: for plain rows if the plan is flat, else for objects."""
        given = self._loader_options(statement)
        if plan.columns is not None and not given:
            flat = statement.with_only_columns(*plan.columns)
            return lambda session: rows_of(session, flat, mapper=self.mapper)
        criteria = self._related_criteria(plan)
        loading = statement.options(*self._options_of(plan, statement, given), *criteria)
        fresh = is_idle(self.session.sync_session)

        def find(session: Session) -> Sequence[Any]:
            objects = self._loading.load(session, loading, fresh=fresh)
            load_missing(session, plan, objects, criteria)
            return objects

        return find

    def _finding_with(
        self, plan: ReadPlan[SchemaT], statement: Select[Any], expressions: Sequence[Any]
    ) -> Callable[[Session], tuple[Sequence[Any], Sequence[Sequence[Any]]]]:
        """Return the function that runs *statement* as ``_finding`` does, and also returns its rows, which end with *expressions*."""
        given = self._loader_options(statement)
        if plan.columns is not None and not given:
            flat = statement.with_only_columns(*plan.columns, *expressions)

            def find_rows(session: Session) -> tuple[Sequence[Any], Sequence[Sequence[Any]]]:
                rows = rows_of(session, flat, mapper=self.mapper)
                return rows, rows

            return find_rows
        criteria = self._related_criteria(plan)
        loading = statement.options(*self._options_of(plan, statement, given), *criteria).add_columns(*expressions)

        def find_objects(session: Session) -> tuple[Sequence[Any], Sequence[Sequence[Any]]]:
            rows = self._loading.load_fresh(session, loading)
            objects = [row[0] for row in rows]
            load_missing(session, plan, objects, criteria)
            return objects, rows

        return find_objects

    def _options_of(self, plan: ReadPlan[Any], statement: Select[Any], given: Sequence[ORMOption]) -> Sequence[ORMOption]:
        """Return the options with which *statement*, which has those *given*, loads what *plan* needs."""
        options = [*self.read_options(), *plan.options(given, join=is_ungrouped(statement))]
        return options if given else [*plan.narrowing, *options]

    def _related_criteria(self, plan: ReadPlan[Any]) -> Sequence[ORMOption]:
        """Return the options that keep related rows that ``related_query`` hides out of the part of a schema."""
        return list(criteria_of(plan.related, self.related_query)) if plan.is_part else ()

    async def _seek(
        self,
        plan: ReadPlan[SchemaT],
        seek: Seek,
        query: "FilterSpec[ModelT] | None",
        conditions: Sequence[ColumnExpressionArgument[bool]],
        *,
        limit: int,
    ) -> tuple[Sequence[Any], Sequence[Sequence[Any]]]:
        """Return the first *limit* rows of *seek* for ``plan.from_found``, and for ``seek.values_of``."""
        asked = () if query is None else query.confined(self.related_query)
        base = BaseQuery(without_order(self.base_query()), self.mapper)
        rows = base.rows([*asked, *conditions, *seek.conditions], seek.order, limit=limit)
        return await self._read(self._finding_with(plan, rows, seek.expressions))

    async def _batches(
        self,
        plan: ReadPlan[Any],
        show: Callable[[Sequence[Any]], builtins.list[ResultT]],
        query: "FilterSpec[ModelT] | None",
        conditions: Sequence[ColumnExpressionArgument[bool]],
        batch_size: int,
        begin: "SessionFactory | None",
    ) -> AsyncGenerator[builtins.list[ResultT]]:
        if batch_size < 1:
            raise ConfigurationError("batch_size must be at least 1")
        keys = keys_of(() if query is None else query.sort_items(), self.mapper)
        position: Position | None = None
        has_more = True
        while has_more:
            async with nullcontext(self.session) if begin is None else begin() as session:
                service = self if begin is None else self.with_session(session)
                seek = Seek(keys, position)
                found, rows = await service._seek(plan, seek, query, conditions, limit=batch_size)
                shown = show(found)
            has_more = len(rows) == batch_size
            last = seek.values_of(rows[-1]) if has_more else None
            if last is not None and position is not None and last == position.values:
                raise ConfigurationError(f"{self.model.__name__} is sorted by values that the database rounds: sort by other columns")
            position = None if last is None else Position(last)
            del found, rows, service, session
            yield shown

    def _loader_options(self, statement: Select[Any]) -> builtins.list[ORMOption]:
        """Return the loader options of *statement* and ``read_options``."""
        return [*(option for option in options_of(statement) if isinstance(option, LoaderOption)), *self.read_options()]

    def _select(
        self,
        conditions: Sequence[ColumnExpressionArgument[bool]],
        order_by: OrderBy | None = None,
        *,
        skip: int = 0,
        limit: int | None = None,
    ) -> Select[Any]:
        """Return the select of the rows of ``base_query`` that meet *conditions*, in a total order unless *order_by* is None."""
        dialect = "" if order_by is None else self.session.sync_session.get_bind(self.mapper).dialect.name
        if overrides(type(self), Reading, "base_query"):
            return self._base.rows(conditions, order_by, dialect=dialect, skip=skip, limit=limit)
        if order_by is None:
            rows = select(self.model)
        elif items := items_of(order_by):
            rows = select(self.model).order_by(*total_order(items, self._identity.attributes, dialect=dialect))
        else:
            rows = self._identity.in_order
        if conditions:
            rows = rows.where(*conditions)
        return window(rows, skip=skip, limit=limit)

    def _window(
        self, conditions: Sequence[ColumnExpressionArgument[bool]], *, skip: int, limit: int | None, order_by: OrderBy
    ) -> Select[Any] | None:
        if skip < 0 or (limit is not None and limit < 0):
            raise InvalidQueryError("skip and limit must not be negative")
        if limit == 0 or skip > MAX_OFFSET:
            return None
        return self._select(conditions, order_by, skip=skip, limit=None if limit is None else min(limit, MAX_OFFSET))

    def _count(self, session: Session, conditions: Sequence[ColumnExpressionArgument[bool]], *, up_to: int | None = None) -> int:
        base = self._base
        if up_to is None:
            statement = base.of_model(func.count()).where(*base.has(*conditions))
        else:
            statement = base.around(select(func.count()).select_from(self._keys(conditions).limit(up_to).subquery()))
        number: int = rows_of(session, statement, mapper=self.mapper)[0][0]
        return number

    def _total(
        self, session: Session, conditions: Sequence[ColumnExpressionArgument[bool]], *, up_to: int | None, query: PageParams
    ) -> Total:
        counted = self._count(session, conditions, up_to=up_to)
        if not query.estimate_total or counted != up_to or session.get_bind(self.mapper).dialect.name != "postgresql":
            return Total(counted)
        statement = self._base.around(explained(self._keys(conditions)))
        return Total(counted, expected_rows(execute(session, statement).scalar_one()))

    def _keys(self, conditions: Sequence[ColumnExpressionArgument[bool]]) -> Select[Any]:
        """Return the select of the keys of the rows that meet *conditions*."""
        return self._base.of_model(*self._identity.attributes).where(*self._base.has(*conditions))

    async def _load(
        self,
        statement: Select[Any],
        parameters: Mapping[str, Any] | None = None,
        *,
        options: Sequence[ORMOption] = (),
        lock: RowLock | None = None,
    ) -> builtins.list[ModelT]:
        if wanted := (*self.read_options(), *options):
            statement = statement.options(*wanted)
        if lock is None:
            fresh = is_idle(self.session.sync_session)
            return await self._read(lambda session: self._loading.load(session, statement, parameters, fresh=fresh))
        # A row is locked to decide by what it contains, so it is read again.
        locked = statement.with_for_update(of=self.model, **asdict(lock))
        return await read_locked(
            self.session, lambda session: self._loading.load(session, locked, parameters, fresh=True), mapper=self.mapper
        )

    async def _read(self, work: Callable[[Session], ResultT]) -> ResultT:
        return await read(self.session, work, mapper=self.mapper)

    @property
    def _base(self) -> BaseQuery:
        return BaseQuery(self.base_query(), self.mapper)

    @cached_property
    def mapper(self) -> Mapper[Any]:
        """The mapper of the model."""
        return mapper_of(self.model)

    @cached_property
    def _identity(self) -> Identity:
        return identity_of(self.mapper)

    @cached_property
    def _loading(self) -> Loading:
        return loading_of(self.mapper)


def load_missing(session: Session, plan: ReadPlan[Any], objects: Sequence[Any], criteria: Sequence[ORMOption] = ()) -> None:
    for statement in plan.loads(objects, criteria):
        execute(session, statement).unique().all()
