"""The operators of filters. To add one, add it to ``OPERATORS``."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any, TypeAlias, cast

from sqlalchemy import ARRAY, JSON, ColumnElement, DateTime, Enum, String, TypeDecorator, and_, false, or_
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

from fastapi_kit.crud.filters import text
from fastapi_kit.crud.filters.text import OnPostgreSQL
from fastapi_kit.db.checks.column_types import converts
from fastapi_kit.db.types import UTCDateTime

__all__ = ["OPERATORS", "Operator", "any_of", "stores_moments", "stores_text"]

Condition: TypeAlias = Callable[[Any, Any], ColumnElement[bool]]


@dataclass(frozen=True)
class Operator:
    """A comparison of a column with the value of a parameter."""

    words: str
    """What the parameter does, for OpenAPI: ``{column}`` is the column."""
    condition: Condition
    """Returns the SQL condition for a column and a value."""
    fits: Callable[[TypeEngine[Any]], bool] = lambda _type: True
    """Whether it exists for columns of a type."""


def any_of(column: Any, values: Collection[Any]) -> ColumnElement[bool]:
    """Return the condition that *column* has one of *values*. None of them means no row."""
    return column.in_(list(values)) if values else false()


def none_of(column: Any, values: Collection[Any]) -> ColumnElement[bool]:
    return or_(column.not_in(list(values)), column.is_(None)) if values else ~false()


def is_null(column: Any, value: bool) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = column.is_(None) if value else column.is_not(None)
    return condition


def has_part(column: Any, value: Any) -> ColumnElement[bool]:
    """Return the condition that a text, an array or a JSON document contains *value*."""
    if stores_text(column.type):
        return text.contains(column, value)
    if isinstance(column.type, ARRAY):
        contained: ColumnElement[bool] = column.contains(value if isinstance(value, list) else [value])
    else:
        contained = sql_cast(column, JSONB).contains(value)
    return OnPostgreSQL(contained)


def stores_text(type_: TypeEngine[Any]) -> bool:
    """Return whether columns of *type_* hold text that SQL can search in."""
    if isinstance(type_, TypeDecorator):
        decorator: TypeDecorator[Any] = type_
        return not converts(decorator) and stores_text(decorator.impl_instance)
    return isinstance(type_, String) and not isinstance(type_, Enum)


def stores_moments(type_: TypeEngine[Any]) -> bool:
    """Return whether columns of *type_* hold points in time."""
    return isinstance(type_, DateTime | UTCDateTime)


def has_parts(type_: TypeEngine[Any]) -> bool:
    return stores_text(type_) or isinstance(type_, ARRAY | JSON)


@dataclass(frozen=True)
class Day:
    """One day in UTC. *end* is the first moment after it; None after the last day that there is."""

    start: datetime
    end: datetime | None

    @classmethod
    def of(cls, column: Any, day: date) -> "Day":
        """Return *day* for comparisons with *column*: naive for a column without time zones."""
        zone = UTC if isinstance(column.type, UTCDateTime) or column.type.timezone else None
        start = datetime(day.year, day.month, day.day, tzinfo=zone)
        return cls(start, None if day == date.max else start + timedelta(days=1))

    def before_end(self, column: Any) -> ColumnElement[bool]:
        """Return the condition that *column* is in the day or before it."""
        return cast("ColumnElement[bool]", column.is_not(None) if self.end is None else column < self.end)

    def after_end(self, column: Any) -> ColumnElement[bool]:
        """Return the condition that *column* is after the day."""
        return cast("ColumnElement[bool]", false() if self.end is None else column >= self.end)

    def contains(self, column: Any) -> ColumnElement[bool]:
        """Return the condition that *column* is in the day."""
        return and_(column >= self.start, self.before_end(column))


def days(condition: Condition, on_day: Callable[[Any, Day], ColumnElement[bool]]) -> Condition:
    """Return *condition*, but *on_day* where a column of moments is compared with a date, which means that day in UTC."""

    def compare(column: Any, value: Any) -> ColumnElement[bool]:
        if isinstance(value, date) and not isinstance(value, datetime) and stores_moments(column.type):
            return on_day(column, Day.of(column, value))
        return condition(column, value)

    return compare


def each_day(condition: Condition, join: Callable[[Any, Collection[Any]], ColumnElement[bool]]) -> Condition:
    """Return *condition* on a list, but *join* of the days where a column of moments is compared with dates."""

    def compare(column: Any, values: Collection[Any]) -> ColumnElement[bool]:
        if stores_moments(column.type) and any(not isinstance(value, datetime) for value in values):
            return join(column, [OPERATORS["eq"].condition(column, value) for value in values])
        return condition(column, values)

    return compare


OPERATORS: Mapping[str, Operator] = {
    "eq": Operator("{column} is this", days(lambda column, value: column == value, lambda column, day: day.contains(column))),
    "ne": Operator(
        "{column} is not this, or is null",
        days(
            lambda column, value: column.is_distinct_from(value),
            lambda column, day: or_(column < day.start, day.after_end(column), column.is_(None)),
        ),
    ),
    "lt": Operator("{column} is less than this", days(lambda column, value: column < value, lambda column, day: column < day.start)),
    "lte": Operator("{column} is at most this", days(lambda column, value: column <= value, lambda column, day: day.before_end(column))),
    "gt": Operator("{column} is greater than this", days(lambda column, value: column > value, lambda column, day: day.after_end(column))),
    "gte": Operator("{column} is at least this", days(lambda column, value: column >= value, lambda column, day: column >= day.start)),
    "in": Operator("{column} is one of these", each_day(any_of, lambda _, each: or_(false(), *each))),
    "not_in": Operator(
        "{column} is none of these, or is null",
        each_day(none_of, lambda column, each: or_(~or_(false(), *each), column.is_(None))),
    ),
    "contains": Operator("{column} contains this", has_part, has_parts),
    "icontains": Operator("{column} contains this, in any case", partial(text.contains, ignore_case=True), stores_text),
    "startswith": Operator("{column} starts with this", text.startswith, stores_text),
    "istartswith": Operator("{column} starts with this, in any case", partial(text.startswith, ignore_case=True), stores_text),
    "endswith": Operator("{column} ends with this", text.endswith, stores_text),
    "iendswith": Operator("{column} ends with this, in any case", partial(text.endswith, ignore_case=True), stores_text),
    "isnull": Operator("Whether {column} is null", is_null),
    "date": Operator("{column} is on this day (UTC)", lambda column, value: Day.of(column, value).contains(column), stores_moments),
}
