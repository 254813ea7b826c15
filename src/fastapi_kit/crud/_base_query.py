"""The select of the application that a service starts from. Each of its rows counts once, whatever it joins, groups or limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, ColumnExpressionArgument, Select, and_, func, select, tuple_
from sqlalchemy.orm import Mapper

from fastapi_kit._compat import criteria_options, froms_of, limits_rows, loads_from_joins, options_of, order_of, plain_criteria
from fastapi_kit.crud.identity import Identity, identity_of
from fastapi_kit.crud.ordering import OrderBy, items_of, ordered_as, total_order, without_direction

__all__ = ["BaseQuery", "window"]

Conditions: TypeAlias = Sequence[ColumnExpressionArgument[bool]]


@dataclass(frozen=True)
class BaseQuery:
    """The rows of *mapper* that *statement* returns: a select of the model, which may have joins, groups, limits and loader options."""

    statement: Select[Any]
    mapper: Mapper[Any]

    @cached_property
    def loads_from_joins(self) -> bool:
        """Whether its joins determine which related rows are loaded (``contains_eager``)."""
        return loads_from_joins(options_of(self.statement))

    @property
    def is_plain(self) -> bool:
        """Whether it is only a select of the model with a WHERE."""
        return self.criteria is not None

    def row(self, key: Sequence[ColumnElement[bool]]) -> list[ColumnExpressionArgument[bool]]:
        """Return the SQL conditions for the row that *key* finds, if it is one of these rows."""
        return self.has(*key) if self.is_plain else [*key, *self.has(*key)]

    def has(self, *conditions: ColumnExpressionArgument[bool]) -> list[ColumnExpressionArgument[bool]]:
        """Return the SQL conditions for those of these rows that meet *conditions*, which may refer to joined tables."""
        if self.criteria is not None:
            return [*self.criteria, *conditions]
        keys = self.keys()
        if limits_rows(self.statement):
            # The limit applies before the conditions.
            return [self.key.in_(keys), *conditions]
        return [self.key.in_(keys.order_by(None).where(*conditions))]

    def rows(
        self, conditions: Conditions, order_by: OrderBy | None = None, *, dialect: str = "", skip: int = 0, limit: int | None = None
    ) -> Select[Any]:
        """Return the select of those of these rows, each once, that meet *conditions*. In a total order unless *order_by* is None."""
        if self.loads_from_joins:
            return self.with_joins(conditions, order_by, dialect=dialect, skip=skip, limit=limit)
        return window(self.plain_rows(conditions, order_by, dialect=dialect), skip=skip, limit=limit)

    def of_model(self, *columns: Any) -> Select[Any]:
        """Return a select of the model, or of *columns*, with the options of the statement, but without its joins and conditions."""
        if columns:
            selected: Any = select(*columns)
            return self.around(selected.select_from(self.mapper))
        chosen = select(self.mapper).options(*options_of(self.statement))
        return chosen.execution_options(**self.statement.get_execution_options())

    def around(self, statement: Select[Any]) -> Select[Any]:
        """Return *statement*, which selects no objects, with the criteria and execution options of this one."""
        confined = statement.options(*criteria_options(self.statement))
        return confined.execution_options(**self.statement.get_execution_options())

    def plain_rows(self, conditions: Conditions, order_by: OrderBy | None, *, dialect: str) -> Select[Any]:
        if self.criteria is not None:
            rows = self.statement.where(*conditions)
            return rows if order_by is None else rows.order_by(*self.total(order_by, dialect))
        order = [*order_of(self.statement), *(() if order_by is None else items_of(order_by))]
        if any(table not in self.mapper.tables for each in order for table in froms_of(each)):
            return self.ranked(conditions, order, dialect=dialect)
        rows = self.of_model().where(*self.has(*conditions))
        return rows.order_by(*order) if order_by is None else rows.order_by(*self.total(order, dialect))

    def ranked(self, conditions: Conditions, order: Sequence[Any], *, dialect: str) -> Select[Any]:
        """Return the rows in an *order* that refers to joined tables. A row that is joined to several comes at its first place."""
        attributes = self.identity.attributes
        number = func.row_number().over(partition_by=attributes, order_by=self.total(order, dialect))
        columns = {f"key_{at}": attribute for at, attribute in enumerate(attributes)}
        columns |= {f"order_{at}": without_direction(each) for at, each in enumerate(order)}
        inner = self.statement.with_only_columns(*(column.label(name) for name, column in columns.items()), number.label("place"))
        outside = limits_rows(self.statement)
        places = (inner if outside else inner.order_by(None).where(*conditions)).correlate(None).subquery()
        key = and_(*(attribute == places.c[f"key_{at}"] for at, attribute in enumerate(attributes)))
        rows = self.of_model().join(places, key).where(places.c.place == 1, *(conditions if outside else ()))
        return rows.order_by(*self.total([ordered_as(each, places.c[f"order_{at}"]) for at, each in enumerate(order)], dialect))

    def with_joins(self, conditions: Conditions, order_by: OrderBy | None, *, dialect: str, skip: int, limit: int | None) -> Select[Any]:
        rows = self.statement.where(*conditions)
        if skip or limit is not None:
            plain = self.plain_rows(conditions, () if order_by is None else order_by, dialect=dialect)
            keys: Any = plain.with_only_columns(*self.identity.attributes)
            some = window(keys, skip=skip, limit=limit).subquery()
            rows = rows.where(self.key.in_(select(*some.c)))
        return rows if order_by is None else rows.order_by(*self.total(order_by, dialect))

    def keys(self) -> Any:
        return self.statement.with_only_columns(*self.identity.attributes).correlate(None)

    def total(self, order_by: OrderBy, dialect: str) -> list[Any]:
        return list(total_order(order_by, self.identity.attributes, dialect=dialect))

    @property
    def key(self) -> ColumnElement[Any]:
        attributes = self.identity.attributes
        return tuple_(*attributes)

    @cached_property
    def criteria(self) -> Sequence[ColumnElement[bool]] | None:
        return plain_criteria(self.statement, self.mapper)

    @property
    def identity(self) -> Identity:
        return identity_of(self.mapper)


def window(statement: Select[Any], *, skip: int = 0, limit: int | None = None) -> Select[Any]:
    """Return *statement* without its first *skip* rows and with at most *limit* rows."""
    if skip:
        statement = statement.offset(skip)
    return statement if limit is None else statement.limit(limit)
