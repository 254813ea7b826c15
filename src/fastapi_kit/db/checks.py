"""What a table's metadata says of values before SQL is sent, so that every database refuses alike."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from enum import Enum as PythonEnum
from itertools import chain
from math import isfinite
from typing import Any, TypeAlias, cast
from weakref import WeakKeyDictionary

from sqlalchemy import ARRAY, JSON, BigInteger, Column, Enum, Integer, LargeBinary, Numeric, SmallInteger, String, TypeDecorator
from sqlalchemy.orm import Mapper
from sqlalchemy.types import TypeEngine

from fastapi_kit.db.types import UTCDateTime
from fastapi_kit.errors import InvalidDataError

__all__ = ["Check", "check_values", "key_is_possible", "value_check"]

Check: TypeAlias = Callable[[object], str | None]
"""Returns the reason why a value is refused, or None."""

_REASONS = ("null", "too_long", "out_of_range", "invalid_text", "check", "naive_datetime")
_checks_of: "WeakKeyDictionary[Mapper[Any], tuple[Mapping[str, Check], Mapping[str, Check]]]" = WeakKeyDictionary()


def check_values(mapper: Mapper[Any], values: Mapping[str, object], *, update: bool = False) -> None:
    """Refuse *values*, keyed by attribute of *mapper*, that some database would refuse by the table's metadata alone.

    Refused are None in a NOT NULL column, text and bytes beyond the column's length, numbers beyond its range, NUL bytes and lone
    surrogates in text and JSON, text that is no member of an Enum, and naive datetimes in a UTCDateTime. In a new row a default stands in
    for None; with *update* it does not. SQL expressions, unknown keys, attributes with a validator and types with a bind conversion of
    their own are left to the database.

    Raises:
        InvalidDataError: with every field at fault for the first reason found, in the order of the sentence above.
    """
    checks = _checks(mapper)[update]
    problems: dict[str, list[str]] = {}
    for name, value in values.items():
        check = checks.get(name)
        if check is not None and (reason := check(value)) is not None:
            problems.setdefault(reason, []).append(name)
    if problems:
        reason = min(problems, key=_REASONS.index)
        raise InvalidDataError(problems[reason], reason=reason, table=_table_name(mapper, problems[reason][0]))


def key_is_possible(column: Column[Any], value: object, *, dialect: str = "") -> bool:
    """Return False if no row of the table can have *value* in the key *column*, so that a read by key needs no SQL.

    With *dialect* ``"sqlite"`` an integer may have 64 bits whatever the column's type, because SQLite stores it.
    """
    if dialect == "sqlite" and isinstance(value, int):
        return -(2**63) <= value < 2**63
    check = value_check(column.type)
    return check is None or check(value) is None


def value_check(type_: TypeEngine[Any], *, bound: bool = False) -> Check | None:
    """Return the check for values of a column of *type_*, or None if every value may pass.

    *bound* values have been through the type's own conversion already, as they stand in an error's ``params``.
    """
    if isinstance(type_, UTCDateTime):
        return None if bound else _datetime_check
    if isinstance(type_, TypeDecorator):
        decorator: TypeDecorator[Any] = type_
        return value_check(decorator.impl_instance, bound=bound) if bound or not _converts(decorator) else None
    variants: Mapping[str, TypeEngine[Any]] = getattr(type_, "_variant_mapping", {})
    checks = [_type_check(type_), *(value_check(variant, bound=bound) for variant in variants.values())]
    return checks[0] if len(checks) == 1 else _every(checks)


def _converts(type_: TypeDecorator[Any]) -> bool:
    mine, base = type(type_), TypeDecorator[Any]
    return mine.process_bind_param is not base.process_bind_param or mine.bind_processor is not base.bind_processor


def _every(checks: list[Check | None]) -> Check | None:
    # The column's type differs from database to database: refused is what all of them refuse.
    known = [check for check in checks if check is not None]

    def check(value: object) -> str | None:
        reasons = [check(value) for check in known]
        return None if None in reasons else reasons[0]

    return check if len(known) == len(checks) else None


# --- One check for each kind of type. ---


def _type_check(type_: TypeEngine[Any]) -> Check | None:
    match type_:
        case Enum():
            return _enum_check(frozenset(type_.enums))
        case String():
            return _text_check(type_.length)
        case LargeBinary():
            return None if type_.length is None else _bytes_check(type_.length)
        case Integer():
            return None if getattr(type_, "unsigned", False) else _integer_check(_bits(type_))
        case Numeric():
            return _numeric_check(type_.precision, type_.scale or 0)
        case JSON():
            return _nested_check(_json_leaf)
        case ARRAY():
            items: TypeEngine[Any] = type_.item_type
            leaf = value_check(items)
            return None if leaf is None else _nested_check(leaf)
        case _:
            return None


def _bits(type_: Integer) -> int:
    return 16 if isinstance(type_, SmallInteger) else 64 if isinstance(type_, BigInteger) else 32


def _text_check(length: int | None) -> Check:
    def check(value: object) -> str | None:
        if not isinstance(value, str):
            return None
        if length is not None and len(value) > length:
            return "too_long"
        return None if _is_storable(value) else "invalid_text"

    return check


def _is_storable(text: str) -> bool:
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _enum_check(members: frozenset[str | None]) -> Check:
    def check(value: object) -> str | None:
        wrong = isinstance(value, str) and not isinstance(value, PythonEnum) and value not in members
        return "check" if wrong else None

    return check


def _bytes_check(length: int) -> Check:
    def check(value: object) -> str | None:
        return "too_long" if isinstance(value, bytes | bytearray) and len(value) > length else None

    return check


def _datetime_check(value: object) -> str | None:
    return "naive_datetime" if isinstance(value, datetime) and value.utcoffset() is None else None


def _integer_check(bits: int) -> Check:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def check(value: object) -> str | None:
        return "out_of_range" if isinstance(value, int) and not low <= value <= high else None

    return check


def _numeric_check(precision: int | None, scale: int) -> Check:
    # PostgreSQL rounds to the scale first: 9.995 does not fit NUMERIC(3, 2). SQLite would store NaN as NULL.
    limit = None if precision is None else Decimal(10) ** (precision - scale) - Decimal(5).scaleb(-scale - 1)

    def check(value: object) -> str | None:
        if not isinstance(value, int | float | Decimal):
            return None
        number = Decimal(value)
        too_large = limit is not None and not number.is_nan() and number.copy_abs() >= limit
        return "out_of_range" if number.is_nan() or too_large else None

    return check


def _nested_check(leaf: Check) -> Check:
    def check(value: object) -> str | None:
        pending: list[object] = [value]
        seen = set[int]()
        while pending:
            item = pending.pop()
            children = _children(item)
            if children is None:
                if (reason := leaf(item)) is not None:
                    return reason
            elif id(item) not in seen:
                seen.add(id(item))
                pending.extend(children)
        return None

    return check


def _children(value: object) -> Iterable[object] | None:
    if isinstance(value, dict):
        pairs = cast("dict[object, object]", value)
        return chain(pairs, pairs.values())
    return cast("Iterable[object]", value) if isinstance(value, list | tuple) else None


def _json_leaf(value: object) -> str | None:
    if isinstance(value, str):
        return None if _is_storable(value) else "invalid_text"
    return "out_of_range" if isinstance(value, float) and not isfinite(value) else None


# --- The checks of a mapped class. ---


def _checks(mapper: Mapper[Any]) -> tuple[Mapping[str, Check], Mapping[str, Check]]:
    found = _checks_of.get(mapper)
    if found is None:
        found = _checks_of[mapper] = (_attribute_checks(mapper, update=False), _attribute_checks(mapper, update=True))
    return found


def _attribute_checks(mapper: Mapper[Any], *, update: bool) -> Mapping[str, Check]:
    # A listener may still fill in what is None now.
    listens = bool(mapper.dispatch.before_update if update else mapper.dispatch.before_insert)
    checks: dict[str, Check] = {}
    for attribute in mapper.column_attrs:
        column = attribute.columns[0]
        if isinstance(column, Column) and attribute.key not in mapper.validators:
            required = not listens and _refuses_none(mapper, column, update=update)
            check = value_check(column.type)
            if required or check is not None:
                checks[attribute.key] = _with_null(check, refused=required)
    return checks


def _with_null(check: Check | None, *, refused: bool) -> Check:
    reason = "null" if refused else None

    def check_with_null(value: object) -> str | None:
        if value is None:
            return reason
        return check(value) if check is not None else None

    return check_with_null


def _refuses_none(mapper: Mapper[Any], column: Column[Any], *, update: bool) -> bool:
    type_ = column.type
    if column.nullable or type_.should_evaluate_none:
        return False
    if isinstance(type_, TypeDecorator) and _converts(type_) and not isinstance(type_, UTCDateTime):
        return False
    return update or not _is_filled_in(mapper, column)


def _is_filled_in(mapper: Mapper[Any], column: Column[Any]) -> bool:
    defaults = (column.default, column.server_default, column.identity)
    return (
        any(default is not None for default in defaults)
        or column is column.table.autoincrement_column
        or column is mapper.version_id_col
        or column is mapper.polymorphic_on
    )


def _table_name(mapper: Mapper[Any], attribute: str) -> str | None:
    column = mapper.column_attrs[attribute].columns[0]
    return column.table.fullname if isinstance(column, Column) else None
