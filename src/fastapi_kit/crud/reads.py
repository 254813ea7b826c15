"""The service that reads rows of one model, as objects or as instances of a read schema."""

import builtins
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from pydantic import BaseModel
from sqlalchemy import ColumnExpressionArgument, select
from sqlalchemy.orm import Session, selectinload
from sqlalchemy.orm.interfaces import ORMOption

from fastapi_kit.crud._conversions import is_sql
from fastapi_kit.crud._generics import overrides
from fastapi_kit.crud._keyset import KeysetWindow
from fastapi_kit.crud._lookups import lookup, parameters_of
from fastapi_kit.crud._pages import Total, page_of, rows_to_count, rows_to_read, slice_of
from fastapi_kit.crud._reading import Asking, Reading, load_missing
from fastapi_kit.crud._rows import MOST_KEYS, chunks
from fastapi_kit.crud.attributes import attributes_of
from fastapi_kit.crud.export import ndjson_lines, ndjson_of
from fastapi_kit.crud.identity import Key, may_hold
from fastapi_kit.crud.locks import RowLock
from fastapi_kit.crud.ordering import OrderBy, items_of
from fastapi_kit.crud.read_plan.plan import ReadPlan, read_plan
from fastapi_kit.crud.sparse import ReadAs, chosen_by, schema_of
from fastapi_kit.db.reads import stream
from fastapi_kit.db.sessions import execute, rows_of
from fastapi_kit.db.transactions import SessionFactory
from fastapi_kit.errors import ConfigurationError, MultipleMatchesError, NotFoundError
from fastapi_kit.pagination import KeysetPage, Page, PageParams, Slice

if TYPE_CHECKING:
    from fastapi_kit.crud.filters.specs import FilterSpec, KeysetSpec

__all__ = ["ReadService"]

ModelT = TypeVar("ModelT")
SchemaT = TypeVar("SchemaT", bound=BaseModel)
ResultT = TypeVar("ResultT")


class ReadService(Reading[ModelT], Generic[ModelT]):
    """Read rows of one model: ``class ReportService(ReadService[Report])``.

    The model comes from the type argument, or from ``model = ...`` in the class. Every order ends with the primary key, so it is total.

    On a session of a ``Database`` without an open transaction a read shows what the database has now, also in objects that the session
    holds, and leaves no transaction open. In an open transaction, and on a session of your own, it reads as ``session.execute`` does.

    Several methods take the same arguments. *ident* is a primary key; for a composite key it is a tuple, or a mapping by name. All
    *conditions* must be true for a row. *order_by* is a column or expression, or several; nulls come last, and first with ``desc()``.
    *options* are loader options for this read. *lock* locks the rows until the end of the transaction and reads what is stored now.
    The methods with a *schema* raise ConfigurationError if the model cannot fill a field of it. A SparseSpec in its place names some of
    its fields, and so does a *query* that is a SparseSpec, too.

    Args:
        session: The session to read through.

    Raises:
        ConfigurationError: The class names no model.
    """

    async def get(self, ident: object, *, options: Sequence[ORMOption] = (), lock: RowLock | None = None) -> ModelT | None:
        """Return the row with this primary key, or None.

        Raises:
            ConfigurationError: The key has another shape or type.
            UnavailableError: The database does not answer, or the row is locked (``nowait``).
        """
        key = self._identity.key_of(ident)
        if not self._identity.is_possible(key, self.session.sync_session):
            return None
        if overrides(type(self), ReadService, "base_query"):
            rows = await self._load(self._select(self._identity.has(key)), options=options, lock=lock)
        else:
            rows = await self._load(self._identity.select, self._identity.parameters(key), options=options, lock=lock)
        return rows[0] if rows else None

    async def get_one(self, ident: object, *, options: Sequence[ORMOption] = (), lock: RowLock | None = None) -> ModelT:
        """Return the row with this primary key, as ``get`` does.

        Raises:
            NotFoundError: No row has the key.
        """
        row = await self.get(ident, options=options, lock=lock)
        if row is None:
            raise NotFoundError(self.model, ident)
        return row

    async def get_by(self, *, options: Sequence[ORMOption] = (), lock: RowLock | None = None, **columns: object) -> ModelT | None:
        """Return the one row with these values of columns, or None. A value of None means IS NULL.

        Raises:
            MultipleMatchesError: Several rows have the values.
            ConfigurationError: A name is not a column of the model, or none is given.
        """
        if not columns:
            raise ConfigurationError("get_by() needs a column")
        known = attributes_of(self.mapper).columns
        if unknown := sorted(columns.keys() - known.keys()):
            raise ConfigurationError(f"{self.model.__name__} has no column {', '.join(unknown)}")
        if not all(may_hold(known[name], value, self.session.sync_session, self.mapper) for name, value in columns.items()):
            return None
        parameters = None if overrides(type(self), ReadService, "base_query") else parameters_of(known, columns)
        statement = None if parameters is None else lookup(self.mapper, tuple(columns))
        if statement is None:
            conditions = [getattr(self.model, name) == value for name, value in columns.items()]
            statement, parameters = self._select(conditions, limit=2), None
        rows = await self._load(statement, parameters, options=options, lock=lock)
        if len(rows) > 1:
            raise MultipleMatchesError(self.model, tuple(columns))
        return rows[0] if rows else None

    async def get_one_by(self, *, options: Sequence[ORMOption] = (), lock: RowLock | None = None, **columns: object) -> ModelT:
        """Return the one row with these values of columns, as ``get_by`` does.

        Raises:
            NotFoundError: No row has the values.
            MultipleMatchesError: Several rows have the values.
        """
        row = await self.get_by(options=options, lock=lock, **columns)
        if row is None:
            raise NotFoundError(self.model, columns)
        return row

    async def get_many(self, idents: Iterable[object]) -> builtins.list[ModelT]:
        """Return the rows with these keys, each once, in the order given. Unknown keys are left out. No keys need no SQL."""
        identity, sync = self._identity, self.session.sync_session
        keys = [key for key in dict.fromkeys(map(identity.key_of, idents)) if identity.is_possible(key, sync)]
        found: dict[Key, ModelT] = {}
        for chunk in chunks(keys, MOST_KEYS // len(identity.names)):
            rows = await self._load(self._select([identity.among(chunk)]))
            found.update((identity.key_of_row(row), row) for row in rows)
        if len(found) > sum(key in found for key in keys):
            # To the database keys can be equal that differ in Python, in blanks at the end or in case. So ask it for each of them.
            for key in keys:
                if key not in found and (row := await self.get(key)) is not None:
                    found[key] = row
        return list({id(found[key]): found[key] for key in keys if key in found}.values())

    async def first(
        self,
        *conditions: ColumnExpressionArgument[bool],
        order_by: OrderBy = (),
        options: Sequence[ORMOption] = (),
        lock: RowLock | None = None,
    ) -> ModelT | None:
        """Return the first row in *order_by* that meets *conditions*, or None."""
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
        """Return at most *limit* of the rows that meet *conditions*, without the first *skip*. ``limit=None`` means all.

        Raises:
            InvalidQueryError: *skip* or *limit* is negative.
            UnavailableError: The database does not answer, or a row is locked (``nowait``).
        """
        statement = self._window(conditions, skip=skip, limit=limit, order_by=order_by)
        return [] if statement is None else await self._load(statement, options=options, lock=lock)

    async def stream(
        self, *conditions: ColumnExpressionArgument[bool], order_by: OrderBy = (), batch_size: int = 1000
    ) -> AsyncGenerator[ModelT]:
        """Yield every row that meets *conditions*, with *batch_size* rows in memory at a time.

        The rows come from one open cursor. Do not commit on this session inside the loop, and wrap the call in ``contextlib.aclosing`` if
        you leave the loop early. Collections that the mapping joins are loaded batch by batch.

        Raises:
            ConfigurationError: *batch_size* is less than 1, or ``base_query`` has a ``joinedload()`` of a collection.
        """
        if batch_size < 1:
            raise ConfigurationError("batch_size must be at least 1")
        collections = [selectinload(getattr(self.model, name)) for name in self._loading.joined_collections]
        statement = self._select(conditions, order_by).options(*self.read_options(), *collections).execution_options(yield_per=batch_size)
        async with aclosing(stream(self.session, statement, mapper=self.mapper)) as rows:
            async for row in rows:
                yield row

    async def count(self, *conditions: ColumnExpressionArgument[bool]) -> int:
        """Return how many rows meet *conditions*."""
        return await self._read(lambda session: self._count(session, conditions))

    async def exists(self, *conditions: ColumnExpressionArgument[bool]) -> bool:
        """Return whether at least one row meets *conditions*."""
        base = self._base
        rows = base.of_model(*self._identity.attributes).where(*base.has(*conditions))
        statement = base.around(select(rows.exists()))
        return await self._read(lambda session: bool(execute(session, statement).scalar_one()))

    async def get_as(self, schema: ReadAs[SchemaT], ident: object, *conditions: ColumnExpressionArgument[bool]) -> SchemaT:
        """Return the row with this primary key as an instance of *schema*.

        Conditions alone, such as ``Article.slug == slug``, find the one row that meets them.

        Only what *schema* names is read. A schema of columns only is read from plain rows, without objects. Each collection takes one
        more query.

        Raises:
            NotFoundError: No row has the key and meets *conditions*.
            MultipleMatchesError: Without a key, several rows meet *conditions*.
            ConfigurationError: The model cannot fill a field of *schema*, or the key has another shape or type.
        """
        identity, plan = self._identity, read_plan(schema, self.mapper)
        if is_sql(ident):
            return await self._matching_as(schema, plan, [cast("ColumnExpressionArgument[bool]", ident), *conditions])
        key = identity.key_of(ident)
        if not identity.is_possible(key, self.session.sync_session):
            raise NotFoundError(self.model, ident)
        if self._is_overridden("get", "get_one"):
            row = await self.get_one(ident, options=[*plan.options(), *self._related_criteria(plan)])
            if conditions and not await self.exists(*identity.has(identity.key_of_row(row)), *conditions):
                raise NotFoundError(self.model, ident)
            return (await self.rows_as(schema, [row]))[0]
        if not conditions and plan.columns is not None and not self._is_overridden("base_query", "read_options"):
            parameters = identity.parameters(key)
            found = plan.from_rows(await self._read(lambda session: rows_of(session, plan.select_by_key, parameters, mapper=self.mapper)))
        else:
            found = plan.from_found(await self._read(self._finding(plan, self._select([*identity.has(key), *conditions]))))
        if not found:
            raise NotFoundError(self.model, ident)
        return found[0]

    async def list_as(
        self,
        schema: ReadAs[SchemaT],
        *conditions: ColumnExpressionArgument[bool],
        skip: int = 0,
        limit: int | None = 100,
        order_by: OrderBy = (),
    ) -> builtins.list[SchemaT]:
        """Return the rows of ``list`` as instances of *schema*. Only what *schema* names is read, as in ``get_as``.

        Raises:
            InvalidQueryError: *skip* or *limit* is negative.
            ConfigurationError: The model cannot fill a field of *schema*.
        """
        plan = read_plan(schema, self.mapper)
        if self._is_overridden("list"):
            options = [*plan.options(), *self._related_criteria(plan)]
            rows = await self.list(*conditions, skip=skip, limit=limit, order_by=order_by, options=options)
            return await self.rows_as(schema, rows)
        statement = self._window(conditions, skip=skip, limit=limit, order_by=order_by)
        return [] if statement is None else plan.from_found(await self._read(self._finding(plan, statement)))

    async def page_as(
        self, schema: ReadAs[SchemaT], query: PageParams, *conditions: ColumnExpressionArgument[bool], order_by: OrderBy = ()
    ) -> Page[SchemaT]:
        """Return the page that *query* asks for, of the rows that meet *conditions*, with items of *schema*.

        It takes two statements: the rows and their number. With ``max_total`` in the class of *query* counting stops there, and
        ``has_more`` is known from one additional row. With ``estimate_total`` a third statement asks PostgreSQL how many rows it expects.
        The filters and the sort of a QuerySpec apply; *order_by* replaces its sort.

        Raises:
            ConfigurationError: ``max_total`` is less than 1, or the model cannot fill a field of *schema*.
        """
        schema, (conditions, order_by) = chosen_by(query, schema), self._asked(query, conditions, order_by)
        skip, limit, up_to = query.skip, rows_to_read(query), rows_to_count(query)
        if self._is_overridden("list", "list_as", "count"):
            rows = await self.list_as(schema, *conditions, skip=skip, limit=limit, order_by=order_by)
            total = await self._read(lambda session: self._total(session, conditions, up_to=up_to, query=query))
        else:
            plan, statement = read_plan(schema, self.mapper), self._window(conditions, skip=skip, limit=limit, order_by=order_by)
            find = self._finding(plan, statement) if statement is not None else None

            def find_page(session: Session) -> tuple[Sequence[Any], Total]:
                found: Sequence[Any] = find(session) if find is not None else ()
                return found, self._total(session, conditions, up_to=up_to, query=query)

            found, total = await self._read(find_page)
            rows = plan.from_found(found)
        return page_of(schema_of(schema), rows, query, total)

    async def slice_as(
        self, schema: ReadAs[SchemaT], query: PageParams, *conditions: ColumnExpressionArgument[bool], order_by: OrderBy = ()
    ) -> Slice[SchemaT]:
        """Return the rows of ``page_as`` without counting. It takes one statement, which reads one row more to know ``has_more``."""
        schema, (conditions, order_by) = chosen_by(query, schema), self._asked(query, conditions, order_by)
        rows = await self.list_as(schema, *conditions, skip=query.skip, limit=query.limit + 1, order_by=order_by)
        return slice_of(schema_of(schema), rows, query)

    async def keyset_page_as(
        self, schema: ReadAs[SchemaT], query: "KeysetSpec[ModelT]", *conditions: ColumnExpressionArgument[bool]
    ) -> KeysetPage[SchemaT]:
        """Return the page at the cursor of *query*, of the rows that meet its filters and *conditions*, with items of *schema*.

        It takes one statement, which starts at the row of the cursor. The order is that of *query*; an order of ``base_query`` is ignored.

        Raises:
            InvalidQueryError: The cursor is malformed, or was made with other filters or another sort.
            ConfigurationError: The sort has a column of another table, or ``base_query`` a LIMIT, or the model cannot fill a field of
                *schema*.
        """
        plan, window = read_plan(chosen_by(query, schema), self.mapper), KeysetWindow.of(query, self.mapper)
        found, rows = await self._seek(plan, window, query, conditions, limit=query.limit + 1)
        return window.page(plan.schema, plan.from_found(window.shown(found)), rows)

    async def stream_as(
        self,
        schema: ReadAs[SchemaT],
        query: "FilterSpec[ModelT] | None" = None,
        *conditions: ColumnExpressionArgument[bool],
        batch_size: int = 2000,
        begin: SessionFactory | None = None,
    ) -> AsyncGenerator[SchemaT]:
        """Yield every row that meets the filters of *query* and *conditions* as *schema*, with *batch_size* rows in memory at a time.

        Each batch is one statement, which starts after the last row of the batch before, so there is no open cursor. Between two batches an
        idle session has no transaction and holds no connection. No row that stays is left out or comes twice, but each batch shows what the
        database has when it is read. The order is the sort of *query*, then the primary key; an order of ``base_query`` is ignored, and so
        is the window of a QuerySpec or KeysetSpec.

        Args:
            schema: The schema of the rows.
            query: What is filtered, searched and sorted by, if anything.
            conditions: All must be true for a row.
            batch_size: How many rows one statement reads.
            begin: Opens a session for each batch, such as ``db.begin``, where the rows outlive the session of the request. Otherwise the
                session of the service is used.

        Raises:
            ConfigurationError: *batch_size* is less than 1, the sort has a column of another table, ``base_query`` has a LIMIT, the
                sort has values that the database rounds, or the model cannot fill a field of *schema*.
        """
        plan = read_plan(chosen_by(query, schema), self.mapper)
        async with aclosing(self._batches(plan, plan.from_found, query, conditions, batch_size, begin)) as batches:
            async for rows in batches:
                for row in rows:
                    yield row
                rows.clear()

    async def stream_json_as(
        self,
        schema: ReadAs[SchemaT],
        query: "FilterSpec[ModelT] | None" = None,
        *conditions: ColumnExpressionArgument[bool],
        batch_size: int = 2000,
        begin: SessionFactory | None = None,
    ) -> AsyncGenerator[bytes]:
        """Yield the rows of ``stream_as`` as lines of JSON (NDJSON), some 64 KiB at a time, faster than ``ndjson_lines``.

        The lines are the same. Rows of columns are validated and written without an instance of *schema* for each.
        """
        if self._is_overridden("stream_as"):
            rows = self.stream_as(schema, query, *conditions, batch_size=batch_size, begin=begin)
            chunks = ndjson_lines(rows)
        else:
            plan = read_plan(chosen_by(query, schema), self.mapper)
            chunks = ndjson_of(self._batches(plan, plan.lines, query, conditions, batch_size, begin))
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    async def rows_as(self, schema: ReadAs[SchemaT], rows: Sequence[ModelT]) -> builtins.list[SchemaT]:
        """Return *rows*, which were read or written before, as instances of *schema*. What is not loaded yet is read now."""
        plan, base = read_plan(schema, self.mapper), self._base
        given = self._loader_options(base.statement)
        if not given and all(map(plan.satisfied_by, rows)):
            return plan.from_objects(rows)
        identity, criteria = self._identity, self._related_criteria(plan)
        keys = chunks([identity.key_of_row(row) for row in rows], MOST_KEYS // len(identity.names))

        def complete(session: Session) -> None:
            for some in keys:
                rows_again = base.rows([]) if base.loads_from_joins else select(self.model).options(*given)
                statement = rows_again.where(identity.among(some)).options(*plan.options(given), *criteria)
                self._loading.load(session, statement, fresh=False)
            load_missing(session, plan, rows, criteria)

        await self._read(complete)
        return plan.from_objects(rows)

    def _asked(
        self, query: PageParams, conditions: tuple[ColumnExpressionArgument[bool], ...], order_by: OrderBy
    ) -> tuple[tuple[ColumnExpressionArgument[bool], ...], OrderBy]:
        """Return *conditions* with the filters of *query*, and its sort unless *order_by* is another."""
        if not isinstance(query, Asking):
            return conditions, order_by
        return (*query.confined(self.related_query), *conditions), items_of(order_by) or query.sort_items()

    async def _matching_as(
        self, schema: ReadAs[SchemaT], plan: ReadPlan[SchemaT], conditions: Sequence[ColumnExpressionArgument[bool]]
    ) -> SchemaT:
        """Return the one row that meets *conditions* as *schema*."""
        statement, is_overridden = self._select(conditions, limit=2), self._is_overridden("get", "get_one")
        find = self._finding(plan, statement)
        found: Sequence[Any] = await self._load(statement) if is_overridden else plan.from_found(await self._read(find))
        if len(found) != 1:
            described = " and ".join(map(str, conditions))
            raise MultipleMatchesError(self.model, (described,)) if found else NotFoundError(self.model, described)
        row: object = found[0]
        return await self.get_as(schema, self._identity.key_of_row(row)) if is_overridden else cast("SchemaT", row)

    def _is_overridden(self, *names: str) -> bool:
        return any(overrides(type(self), ReadService, name) for name in names)
