"""Reading rows of one model, as objects or as a read schema."""

import builtins
from collections.abc import Sequence
from typing import Generic, TypeVar, cast

from pydantic import BaseModel
from sqlalchemy import ColumnExpressionArgument

from fastapi_kit.crud.loading import as_schema, options_for
from fastapi_kit.crud.ordering import OrderBy
from fastapi_kit.crud.rows import RowReads
from fastapi_kit.pagination import Page, PageParams

__all__ = ["ReadService"]

ModelT = TypeVar("ModelT")
SchemaT = TypeVar("SchemaT", bound=BaseModel)


class ReadService(RowReads[ModelT], Generic[ModelT]):
    """Read rows of one model: ``class ReportService(ReadService[Report])``. The order always ends with the primary key.

    The model comes from the type argument, or from ``model = ...`` in the class. Reads on an idle session of a ``Database`` leave no
    transaction open behind them; on the host's own session they join what is there, as ``session.execute`` does.
    """

    async def get_as(self, schema: type[SchemaT], ident: object) -> SchemaT:
        """Return the row with this key as *schema*, or raise NotFoundError. Relationships that *schema* names are loaded."""
        return as_schema(schema, await self.get_one(ident, options=options_for(schema, self._facts.mapper)))

    async def list_as(
        self,
        schema: type[SchemaT],
        *conditions: ColumnExpressionArgument[bool],
        skip: int = 0,
        limit: int | None = 100,
        order_by: OrderBy = (),
    ) -> builtins.list[SchemaT]:
        """Return rows that meet *conditions* as *schema*. Relationships that *schema* names take one more query each."""
        options = options_for(schema, self._facts.mapper)
        rows = await self.list(*conditions, skip=skip, limit=limit, order_by=order_by, options=options)
        return [as_schema(schema, row) for row in rows]

    async def page_as(
        self, schema: type[SchemaT], query: PageParams, *conditions: ColumnExpressionArgument[bool], order_by: OrderBy = ()
    ) -> Page[SchemaT]:
        """Return the offset page that *query* asks for, among the rows that meet *conditions*.

        Two statements: the rows and their number. ``max_total = 0`` in *query*'s class leaves the number out, another bound stops counting
        there; ``has_more`` then comes from one row more than *limit*.
        """
        counts_all = query.max_total is None
        rows = await self.list_as(schema, *conditions, skip=query.skip, limit=query.limit + (not counts_all), order_by=order_by)
        total, capped = await self._total(conditions, query.max_total)
        page = cast("type[Page[SchemaT]]", Page.__class_getitem__(schema))
        return page.of(
            rows[: query.limit],
            skip=query.skip,
            limit=query.limit,
            total=total,
            total_capped=capped,
            has_more=None if counts_all else len(rows) > query.limit,
        )

    async def _total(self, conditions: Sequence[ColumnExpressionArgument[bool]], cap: int | None) -> tuple[int | None, bool]:
        if cap == 0:
            return None, False
        counted = await self._count(self._count_statement(conditions, up_to=None if cap is None else cap + 1))
        return (counted, False) if cap is None else (min(counted, cap), counted > cap)
