"""Keyset pages: seek in a sorted list to the rows after, or before, the values of one row."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import BaseModel
from sqlalchemy import Column, ColumnElement, Enum, Select, TypeDecorator, and_, asc, desc, false, literal, or_, true, tuple_
from sqlalchemy.orm import Mapper
from sqlalchemy.sql import operators

from fastapi_kit._compat import froms_of, limits_rows, python_type
from fastapi_kit.crud.filters.cursors import CursorCodec, Position, invalid_cursor
from fastapi_kit.crud.identity import identity_of
from fastapi_kit.crud.ordering import column_of, expression_of, total_order, without_direction
from fastapi_kit.db.checks.column_types import value_check
from fastapi_kit.db.types import UTCDateTime
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.pagination import KeysetPage

if TYPE_CHECKING:
    from fastapi_kit.crud.filters.specs import KeysetSpec

__all__ = ["KeysetWindow", "Seek", "SortKey", "keys_of", "next_to", "sort_keys", "without_order"]

ItemT = TypeVar("ItemT")
SchemaT = TypeVar("SchemaT", bound=BaseModel)


@dataclass(frozen=True)
class SortKey:
    """One of the expressions that a list is sorted by."""

    expression: Any
    descending: bool
    nulls_last: bool
    nullable: bool

    def reversed(self) -> "SortKey":
        """Return the key of the reversed order."""
        return SortKey(self.expression, not self.descending, not self.nulls_last, self.nullable)

    @property
    def ordered(self) -> Any:
        """The expression for ORDER BY. The database's own place of nulls is named only where databases differ."""
        direction = desc(self.expression) if self.descending else asc(self.expression)
        if not self.nullable:
            return direction
        return direction.nulls_last() if self.nulls_last else direction.nulls_first()

    def literal(self, value: Any) -> Any:
        """Return *value* as a parameter of the type of the expression."""
        type_ = self.expression.type
        # A cursor has the name of a member. A member may be a string itself.
        if isinstance(type_, Enum) and type_.enum_class is not None and type(value) is str:
            value = type_.enum_class[value]
        return literal(value, type_=type_)

    def may_have(self, value: Any) -> bool:
        """Return whether the expression can have *value*, which came with a cursor."""
        if value is None:
            return self.nullable
        type_: Any = self.expression.type
        if isinstance(type_, Enum) and type_.enum_class is not None:
            return value in type_.enum_class.__members__
        is_converted = isinstance(type_, TypeDecorator) and not isinstance(type_, UTCDateTime)
        check, kind = value_check(self.expression.type), None if is_converted else python_type(self.expression.type)
        is_kind = kind is None or isinstance(value, (kind, int) if kind is float else kind)
        return is_kind and (check is None or check(value) is None)

    def equals(self, value: Any) -> ColumnElement[bool]:
        """Return the condition that the expression has *value*."""
        condition: ColumnElement[bool] = self.expression.is_(None) if value is None else self.expression == self.literal(value)
        return condition

    def follows(self, value: Any) -> ColumnElement[bool]:
        """Return the condition that the expression comes after *value*."""
        if value is None:
            return false() if self.nulls_last else self.expression.is_not(None)
        beyond: ColumnElement[bool] = self.expression < self.literal(value) if self.descending else self.expression > self.literal(value)
        return or_(beyond, self.expression.is_(None)) if self.nullable and self.nulls_last else beyond

    def starts(self, value: Any) -> ColumnElement[bool]:
        """Return the condition that the expression has *value* or comes after it. An index of the expression can serve it."""
        if value is None:
            return self.expression.is_(None) if self.nulls_last else true()
        start: ColumnElement[bool] = self.expression <= self.literal(value) if self.descending else self.expression >= self.literal(value)
        return or_(start, self.expression.is_(None)) if self.nullable and self.nulls_last else start


def keys_of(order: Sequence[Any], mapper: Mapper[Any]) -> list[SortKey]:
    """Return the keys of the total order of rows of *mapper* that begins with *order*.

    Raises:
        ConfigurationError: The order has a column of another table.
    """
    keys = sort_keys(list(total_order(order, identity_of(mapper).attributes, dialect="")))
    if any(table not in mapper.tables for key in keys for table in froms_of(key.expression)):
        raise ConfigurationError(f"keyset pages of {mapper.class_.__name__} cannot be sorted by a column of another table")
    return keys


def sort_keys(order: Sequence[Any]) -> list[SortKey]:
    """Return the keys of *order*, what ``order_by()`` takes. Nulls come last, and first with ``desc()``, unless it says otherwise."""
    return [sort_key(item) for item in order]


def sort_key(item: Any) -> SortKey:
    expression = expression_of(item)
    modifiers = set[Any]()
    while (modifier := getattr(expression, "modifier", None)) is not None:
        modifiers.add(modifier)
        expression = expression.element
    descending = operators.desc_op in modifiers
    placed = operators.nulls_last_op in modifiers or operators.nulls_first_op in modifiers
    column = column_of(expression)
    nullable = not isinstance(column, Column) or bool(column.nullable)
    nulls_last = operators.nulls_last_op in modifiers if placed else not descending
    return SortKey(without_direction(item), descending, nulls_last, nullable)


@dataclass(frozen=True)
class Seek:
    """Where a part of a list sorted by *keys* starts. One that ends at its position is read backwards."""

    keys: Sequence[SortKey]
    position: Position | None

    @property
    def is_backward(self) -> bool:
        """Whether the rows are read in the reversed order."""
        return self.position is not None and self.position.backward

    @property
    def read_keys(self) -> Sequence[SortKey]:
        """The keys in the order in which the rows are read."""
        return [key.reversed() for key in self.keys] if self.is_backward else self.keys

    @property
    def conditions(self) -> Sequence[ColumnElement[bool]]:
        """The SQL conditions for the rows from the position on."""
        return [] if self.position is None else [next_to(self.read_keys, self.position)]

    @property
    def order(self) -> Sequence[Any]:
        """What to sort by."""
        return [key.ordered for key in self.read_keys]

    @property
    def expressions(self) -> Sequence[Any]:
        """What to select at the end of each row for ``values_of``."""
        return [key.expression for key in self.keys]

    def values_of(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """Return the values that *row*, which ends with ``expressions``, is sorted by."""
        return tuple(row[-len(self.keys) :])


@dataclass(frozen=True)
class KeysetWindow(Seek):
    """A page of a sorted list, with cursors for the pages beside it."""

    codec: CursorCodec
    limit: int

    @classmethod
    def of(cls, query: "KeysetSpec[Any]", mapper: Mapper[Any]) -> "KeysetWindow":
        """Return the window that *query* asks for.

        Raises:
            InvalidQueryError: The cursor is not one of this list.
            ConfigurationError: The sort has a column of another table.
        """
        keys = keys_of(query.sort_items(), mapper)
        codec = CursorCodec(query.cursor_context(), query.cursor_key)
        position = None if query.cursor is None else codec.decode(query.cursor, length=len(keys))
        if position is not None and not all(map(SortKey.may_have, keys, position.values)):
            raise invalid_cursor()
        return cls(keys, position, codec, query.limit)

    def shown(self, found: Sequence[ItemT]) -> Sequence[ItemT]:
        """Return those of *found* that the page shows, in the order of the list. One row more was read, if there is one."""
        rows = found[: self.limit]
        return rows[::-1] if self.is_backward else rows

    def page(self, schema: type[SchemaT], items: list[SchemaT], rows: Sequence[Sequence[Any]]) -> KeysetPage[SchemaT]:
        """Return the page of *items*. *rows* are all rows that were read."""
        before, after = self.neighbours(rows)
        return paged(schema)(
            items=items,
            next_cursor=None if after is None else self.codec.encode(after),
            previous_cursor=None if before is None else self.codec.encode(before),
            limit=self.limit,
        )

    def neighbours(self, rows: Sequence[Sequence[Any]]) -> tuple[Position | None, Position | None]:
        """Return where the previous and the next page are. None if no row follows there."""
        shown, start, has_more = self.shown(rows), self.position, len(rows) > self.limit
        if start is None:
            return None, Position(self.values_of(shown[-1])) if shown and has_more else None
        if not shown:
            # All rows of the page have been deleted: turn round, from the row of the cursor.
            back = start._replace(backward=not start.backward, inclusive=not start.inclusive)
            return (None, back) if self.is_backward else (back, None)
        before, after = Position(self.values_of(shown[0]), backward=True), Position(self.values_of(shown[-1]))
        if self.is_backward:
            return before if has_more else None, after
        return before, after if has_more else None


@lru_cache(maxsize=512)
def paged(schema: type[SchemaT]) -> type[KeysetPage[SchemaT]]:
    return cast("type[KeysetPage[SchemaT]]", KeysetPage.__class_getitem__(schema))


def without_order(statement: Select[Any]) -> Select[Any]:
    """Return *statement* without its ORDER BY.

    Raises:
        ConfigurationError: It has a LIMIT or an OFFSET, so that its rows depend on its order.
    """
    if limits_rows(statement):
        raise ConfigurationError("keyset pages need a base_query without LIMIT and OFFSET")
    return statement.order_by(None)


def next_to(keys: Sequence[SortKey], position: Position) -> ColumnElement[bool]:
    """Return the condition for the rows that come after *position* in the order of *keys*.

    If an index can serve it, it compares row values: ``(name, id) > ('b', 2)``.
    """
    values = position.values
    if not any(key.nullable for key in keys) and len({key.descending for key in keys}) == 1:
        row, given = tuple_(*(key.expression for key in keys)), tuple_(*map(SortKey.literal, keys, values))
        if keys[0].descending:
            return row <= given if position.inclusive else row < given
        return row >= given if position.inclusive else row > given
    branches = [
        and_(*(key.equals(value) for key, value in zip(keys[:place], values, strict=False)), key.follows(values[place]))
        for place, key in enumerate(keys)
    ]
    if position.inclusive:
        branches.append(and_(*map(SortKey.equals, keys, values)))
    return and_(keys[0].starts(values[0]), or_(*branches))
