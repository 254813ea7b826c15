"""What a table's metadata says of values before SQL is sent, so that every database refuses alike."""

from collections.abc import Mapping
from datetime import datetime, time
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Column, DateTime, Dialect, Time, TypeDecorator
from sqlalchemy.orm import Mapper
from sqlalchemy.types import TypeEngine

from fastapi_kit.db.checks.column_types import Check, converts, value_check
from fastapi_kit.db.engines.sqlite import drops_offsets
from fastapi_kit.db.types import UTCDateTime
from fastapi_kit.errors import ConfigurationError, InvalidDataError

__all__ = ["check_offsets", "check_values"]

_REASONS = ("null", "wrong_type", "too_long", "out_of_range", "invalid_text", "too_deep", "check", "naive_datetime")
_checks_of: "WeakKeyDictionary[Mapper[Any], tuple[Mapping[str, Check], Mapping[str, Check]]]" = WeakKeyDictionary()


def check_values(mapper: Mapper[Any], values: Mapping[str, object], *, update: bool = False) -> None:
    """Refuse *values*, keyed by attribute of *mapper*, that some database would refuse by the table's metadata alone.

    Refused are None in a NOT NULL column, plain values of another kind than a column of text, whole numbers or naive datetimes has, text
    and bytes beyond the column's length, numbers beyond its range and NaN, NUL bytes and lone surrogates in text and JSON, nested values
    beyond 100 levels, text that is no member of an Enum, and naive datetimes where a time zone is kept. In a new row, unless *update*, the
    version and the like may be None. SQL expressions, unknown keys, attributes with a validator and types with a bind conversion of
    their own are left to the database.

    Raises:
        InvalidDataError: with every field at fault for the first reason found, in the order of the sentence above.
    """
    checks = checks_of(mapper)[update]
    problems: dict[str, list[str]] = {}
    for name, value in values.items():
        check = checks.get(name)
        if check is not None and (reason := check(value)) is not None:
            problems.setdefault(reason, []).append(name)
    if problems:
        reason = min(problems, key=_REASONS.index)
        raise InvalidDataError(problems[reason], reason=reason, table=table_name(mapper, problems[reason][0]))


def check_offsets(mapper: Mapper[Any], values: Mapping[str, object], dialect: Dialect) -> None:
    """Refuse to store a moment as another one: an SQLite engine that no ``Database`` has taken drops offsets.

    *values* are keyed by attribute. Moments in UTC lose nothing and pass, and so does what a type of the application's converts.
    Raises ConfigurationError, which names the attributes.
    """
    moments = [name for name, value in values.items() if isinstance(value, datetime | time) and value.utcoffset()]
    if not moments or not drops_offsets(dialect):
        return
    if lost := [name for name in moments if name in mapper.column_attrs and is_plain_moment(mapper.column_attrs[name].columns[0].type)]:
        raise ConfigurationError(
            f"SQLite would drop the offset of {mapper.class_.__name__}.{', '.join(lost)}: make the column a UTCDateTime, "
            "or give the engine to Database(engine)"
        )


def is_plain_moment(type_: TypeEngine[Any]) -> bool:
    if isinstance(type_, TypeDecorator):
        decorator: TypeDecorator[Any] = type_
        return not converts(decorator) and is_plain_moment(decorator.impl_instance)
    return isinstance(type_, DateTime) or (isinstance(type_, Time) and type_.timezone)


def checks_of(mapper: Mapper[Any]) -> tuple[Mapping[str, Check], Mapping[str, Check]]:
    found = _checks_of.get(mapper)
    if found is None:
        found = _checks_of[mapper] = (attribute_checks(mapper, update=False), attribute_checks(mapper, update=True))
    return found


def attribute_checks(mapper: Mapper[Any], *, update: bool) -> Mapping[str, Check]:
    # A listener may still fill in what is None now.
    listens = bool(mapper.dispatch.before_update if update else mapper.dispatch.before_insert)
    checks: dict[str, Check] = {}
    for attribute in mapper.column_attrs:
        column = attribute.columns[0]
        if isinstance(column, Column) and attribute.key not in mapper.validators:
            required = not listens and refuses_none(mapper, column, update=update)
            check = value_check(column.type)
            if required or check is not None:
                checks[attribute.key] = with_null(check, refused=required)
    return checks


def with_null(check: Check | None, *, refused: bool) -> Check:
    reason = "null" if refused else None

    def check_with_null(value: object) -> str | None:
        if value is None:
            return reason
        return check(value) if check is not None else None

    return check_with_null


def refuses_none(mapper: Mapper[Any], column: Column[Any], *, update: bool) -> bool:
    type_ = column.type
    if column.nullable or type_.should_evaluate_none:
        return False
    if isinstance(type_, TypeDecorator) and converts(type_) and not isinstance(type_, UTCDateTime):
        return False
    return update or not is_filled_in(mapper, column)


def is_filled_in(mapper: Mapper[Any], column: Column[Any]) -> bool:
    return column is column.table.autoincrement_column or column is mapper.version_id_col or column is mapper.polymorphic_on


def table_name(mapper: Mapper[Any], attribute: str) -> str | None:
    column = mapper.column_attrs[attribute].columns[0]
    return column.table.fullname if isinstance(column, Column) else None
