"""Selects of the rows with given values of columns, built once for each model and its columns."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import Column, Select, bindparam, select
from sqlalchemy.orm import ColumnProperty, Mapper
from sqlalchemy.sql import operators

from fastapi_kit.crud._conversions import is_sql
from fastapi_kit.crud.attributes import attributes_of

__all__ = ["lookup", "parameters_of"]

_KNOWN = {"sqlalchemy", "typing", "builtins"}


@lru_cache(maxsize=512)
def lookup(mapper: Mapper[Any], names: tuple[str, ...]) -> Select[Any] | None:
    """Return the select of at most two rows by the values of the columns *names*, which are in ``parameters_of``.

    None if a column has a comparison of the application's own, which may need the value itself.
    """
    columns, attributes = attributes_of(mapper).columns, {name: getattr(mapper.class_, name) for name in names}
    if not all(compares_plainly(attribute, columns[name]) for name, attribute in attributes.items()):
        return None
    conditions = (attribute == bindparam(f"by_{name}", type_=columns[name].type) for name, attribute in attributes.items())
    return select(mapper.class_).where(*conditions).limit(2)


def compares_plainly(attribute: Any, column: Column[Any]) -> bool:
    modules = {base.__module__.partition(".")[0] for base in type(column.comparator).__mro__}
    return type(attribute.comparator) is ColumnProperty.Comparator and modules <= _KNOWN


def parameters_of(columns: Mapping[str, Column[Any]], values: Mapping[str, object]) -> dict[str, object] | None:
    """Return *values* as the parameters of ``lookup``. None if SQLAlchemy would not compare each as a parameter of its column's type."""
    if all(is_parameter(columns[name], value) for name, value in values.items()):
        return {f"by_{name}": value for name, value in values.items()}
    return None


def is_parameter(column: Column[Any], value: object) -> bool:
    # None becomes IS NULL. A value of another type brings its own type.
    if value is None or is_sql(value):
        return False
    return column.type.coerce_compared_value(operators.eq, value) is column.type
