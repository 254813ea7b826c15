"""Checks of values against the type of a column, before SQL is sent."""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum as PythonEnum
from math import isfinite
from sys import float_info
from typing import Any, TypeAlias, cast
from uuid import UUID
from weakref import WeakKeyDictionary

from sqlalchemy import (
    ARRAY,
    JSON,
    REAL,
    BigInteger,
    Column,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    TypeDecorator,
)
from sqlalchemy.types import TypeEngine

from fastapi_kit._text import MAX_DEPTH, children, is_storable
from fastapi_kit.db.types import UTCDateTime

__all__ = ["Check", "converts", "key_is_possible", "value_check"]

Check: TypeAlias = Callable[[object], str | None]
"""Returns the reason why a value is rejected, or None."""

# Built-in value types. A column type may accept other classes, so those pass.
_PLAIN = (bool, int, float, Decimal, str, bytes, bytearray, list, tuple, dict, set, date, time, timedelta, UUID)
_LARGEST_DOUBLE = Decimal(float_info.max)
_LARGEST_REAL = Decimal("3.4028234663852886e38")
_MOST_DECIMAL_PLACES = 16_383
"""PostgreSQL's limit."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Without a database type for it, SQLAlchemy stores an interval as a datetime counted from 1970.
_SHORTEST_SPAN = datetime.min.replace(tzinfo=UTC) - _EPOCH
_LONGEST_SPAN = datetime.max.replace(tzinfo=UTC) - _EPOCH


def value_check(type_: TypeEngine[Any], *, bound: bool = False) -> Check | None:
    """Return the check for values of a column of *type_*, or None if every value passes.

    *bound* values have been converted by the type already, as the ``params`` of an error have.
    """
    if isinstance(type_, UTCDateTime):
        return None if bound else aware_check
    if isinstance(type_, Interval):
        return span_check
    if isinstance(type_, TypeDecorator):
        decorator: TypeDecorator[Any] = type_
        return value_check(decorator.impl_instance, bound=bound) if bound or not converts(decorator) else None
    variants: Mapping[str, TypeEngine[Any]] = getattr(type_, "_variant_mapping", {})
    checks = [type_check(type_), *(value_check(variant, bound=bound) for variant in variants.values())]
    return checks[0] if len(checks) == 1 else every(checks)


_key_checks: "WeakKeyDictionary[TypeEngine[Any], Check | None]" = WeakKeyDictionary()


def key_is_possible(column: Column[Any], value: object, *, dialect: str = "") -> bool:
    """Return False if no row can have *value* in the key *column*, so that a read by key needs no SQL.

    With *dialect* ``"sqlite"`` an integer may have 64 bits in a column of any type, because SQLite stores it.
    """
    if dialect == "sqlite" and isinstance(value, int):
        return -(2**63) <= value < 2**63
    if column.type not in _key_checks:
        _key_checks[column.type] = value_check(column.type)
    check = _key_checks[column.type]
    return check is None or check(value) is None


def converts(type_: TypeDecorator[Any]) -> bool:
    """Return whether *type_* has a bind conversion of its own."""
    mine, base = type(type_), TypeDecorator[Any]
    return mine.process_bind_param is not base.process_bind_param or mine.bind_processor is not base.bind_processor


def every(checks: list[Check | None]) -> Check | None:
    # The type of the column depends on the database. A value is rejected if all of the types reject it.
    known = [check for check in checks if check is not None]

    def check(value: object) -> str | None:
        reasons = [check(value) for check in known]
        return None if None in reasons else reasons[0]

    return check if len(known) == len(checks) else None


def type_check(type_: TypeEngine[Any]) -> Check | None:
    match type_:
        case Enum():
            return enum_check(frozenset(type_.enums))
        case String():
            return text_check(type_.length)
        case LargeBinary():
            return None if type_.length is None else bytes_check(type_.length)
        case Integer():
            return integer_check(16 if isinstance(type_, SmallInteger) else 64 if isinstance(type_, BigInteger) else 32)
        case Float():  # Before Numeric, whose subclass it is in SQLAlchemy 2.0.
            return float_check(_LARGEST_REAL if isinstance(type_, REAL) or (type_.precision or 53) <= 24 else _LARGEST_DOUBLE)
        case Numeric():
            return numeric_check(type_.precision, type_.scale or 0)
        case DateTime():
            return aware_check if type_.timezone else naive_check
        case JSON():
            return nested_check(json_leaf)
        case ARRAY():
            items: TypeEngine[Any] = type_.item_type
            leaf = value_check(items)
            return None if leaf is None else nested_check(leaf)
        case _:
            return None


def text_check(length: int | None) -> Check:
    def check(value: object) -> str | None:
        if not isinstance(value, str):
            return "wrong_type" if isinstance(value, _PLAIN) else None
        if length is not None and len(value) > length:
            return "too_long"
        return None if is_storable(value) else "invalid_text"

    return check


def enum_check(members: frozenset[str | None]) -> Check:
    def check(value: object) -> str | None:
        wrong = isinstance(value, str) and not isinstance(value, PythonEnum) and value not in members
        return "check" if wrong else None

    return check


def bytes_check(length: int) -> Check:
    def check(value: object) -> str | None:
        return "too_long" if isinstance(value, bytes | bytearray) and len(value) > length else None

    return check


def aware_check(value: object) -> str | None:
    if not isinstance(value, datetime):
        return None
    if value.utcoffset() is None:
        return "naive_datetime"
    try:
        value.astimezone(UTC)
    except OverflowError:
        return "out_of_range"
    return None


def naive_check(value: object) -> str | None:
    # SQLite would drop the time zone.
    return "wrong_type" if isinstance(value, datetime) and value.utcoffset() is not None else None


def span_check(value: object) -> str | None:
    return "out_of_range" if isinstance(value, timedelta) and not _SHORTEST_SPAN <= value <= _LONGEST_SPAN else None


def integer_check(bits: int) -> Check:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def check(value: object) -> str | None:
        if not isinstance(value, int):
            return "wrong_type" if isinstance(value, _PLAIN) else None
        return None if low <= value <= high else "out_of_range"

    return check


def numeric_check(precision: int | None, scale: int) -> Check:
    # PostgreSQL rounds to the scale first: 9.995 does not fit NUMERIC(3, 2). Without a precision SQLite's doubles are the limit.
    limit = _LARGEST_DOUBLE if precision is None else Decimal(10) ** (precision - scale) - Decimal(5).scaleb(-scale - 1)

    def check(value: object) -> str | None:
        if not isinstance(value, int | float | Decimal):
            return None
        number = Decimal(value)
        if number.is_nan() or number.copy_abs() >= limit:
            return "out_of_range"
        return "out_of_range" if cast(int, number.as_tuple().exponent) < -_MOST_DECIMAL_PLACES else None

    return check


def float_check(limit: Decimal) -> Check:
    def check(value: object) -> str | None:
        if not isinstance(value, int | float | Decimal):
            return None
        number = Decimal(value)
        # SQLite would store NaN as NULL. Every float column can store infinity.
        too_large = number.is_finite() and number.copy_abs() > limit
        return "out_of_range" if number.is_nan() or too_large else None

    return check


def nested_check(leaf: Check) -> Check:
    def check(value: object) -> str | None:
        level: list[object] = [value]
        seen = set[int]()
        for _ in range(MAX_DEPTH):
            below: list[object] = []
            for item in level:
                inner = children(item)
                if inner is None:
                    if (reason := leaf(item)) is not None:
                        return reason
                elif id(item) not in seen:
                    seen.add(id(item))
                    below.extend(inner)
            if not below:
                return None
            level = below
        return "too_deep"

    return check


def json_leaf(value: object) -> str | None:
    if isinstance(value, str):
        return None if is_storable(value) else "invalid_text"
    return "out_of_range" if isinstance(value, float) and not isfinite(value) else None
