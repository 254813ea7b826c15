"""Checks of a row's values against the metadata of its table, so that every database rejects the same values."""

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
    """Check *values*, by attribute of *mapper*, for what PostgreSQL or SQLite would reject because of the column types.

    The reasons, in order: ``null`` (None in a NOT NULL column), ``wrong_type``, ``too_long`` (text and bytes), ``out_of_range`` (also
    NaN), ``invalid_text`` (NUL bytes and lone surrogates, also inside JSON), ``too_deep`` (nested in more than 100 levels), ``check``
    (text that is not a member of an Enum) and ``naive_datetime``. SQL expressions, unknown names, attributes with a validator, and types
    with a bind conversion of their own are left to the database.

    Args:
        mapper: The mapper of the model.
        values: The values that will be written.
        update: They change a row. In a new row, columns that the database or SQLAlchemy fills, such as the version, may be None.

    Raises:
        InvalidDataError: With the first reason found, and all fields with that reason.
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
    """Check that no offset of an aware datetime or time is lost, as on an SQLite engine without a ``Database``.

    Values in UTC lose nothing and pass. So do columns whose type has a bind conversion of its own.

    Args:
        mapper: The mapper of the model.
        values: The values that will be written, by attribute.
        dialect: The dialect of the engine.

    Raises:
        ConfigurationError: An offset would be lost. The text names the attributes.
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
    # A listener may fill in what is None now.
    listens = bool(mapper.dispatch.before_update if update else mapper.dispatch.before_insert)
    checks: dict[str, Check] = {}
    for attribute in mapper.column_attrs:
        column = attribute.columns[0]
        if isinstance(column, Column) and attribute.key not in mapper.validators:
            required = not listens and is_required(mapper, column, update=update)
            check = value_check(column.type)
            if required or check is not None:
                checks[attribute.key] = with_null(check, required=required)
    return checks


def with_null(check: Check | None, *, required: bool) -> Check:
    reason = "null" if required else None

    def check_with_null(value: object) -> str | None:
        if value is None:
            return reason
        return check(value) if check is not None else None

    return check_with_null


def is_required(mapper: Mapper[Any], column: Column[Any], *, update: bool) -> bool:
    type_ = column.type
    if column.nullable or type_.should_evaluate_none:
        return False
    if isinstance(type_, TypeDecorator) and converts(type_) and not isinstance(type_, UTCDateTime):
        return False
    is_filled_in = column is column.table.autoincrement_column or column is mapper.version_id_col or column is mapper.polymorphic_on
    return update or not is_filled_in


def table_name(mapper: Mapper[Any], attribute: str) -> str | None:
    column = mapper.column_attrs[attribute].columns[0]
    return column.table.fullname if isinstance(column, Column) else None
