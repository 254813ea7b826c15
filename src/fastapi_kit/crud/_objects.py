"""Building and changing objects of a model: of a plain class, a dataclass or a SQLModel."""

import inspect
import json
from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any, TypeVar, cast

from sqlalchemy import CHAR, JSON
from sqlalchemy.orm import Mapper, class_mapper
from sqlalchemy.orm.attributes import flag_modified, instance_dict, set_attribute
from sqlalchemy.types import TypeEngine

from fastapi_kit.crud._conversions import is_sql
from fastapi_kit.crud.attributes import attributes_of

__all__ = ["assign", "build", "change"]

ModelT = TypeVar("ModelT")


def build(model: type[ModelT], values: Mapping[str, Any]) -> ModelT:
    """Return a new object of *model* with *values*. Values that the constructor does not take are set afterwards.

    A dataclass rejects keywords for its ``init=False`` fields, and SQLModel ignores columns that a mixin adds.
    """
    accepted = accepted_keywords(cast("Hashable", model))
    row = model(**{name: value for name, value in values.items() if accepted is None or name in accepted})
    loaded, mapper = instance_dict(row), class_mapper(model)
    missed = {name for name in values if (name in mapper.attrs and name not in loaded) or (accepted is not None and name not in accepted)}
    assign(row, {name: value for name, value in values.items() if name in missed})
    return row


def change(row: object, values: Mapping[str, Any]) -> None:
    """Set those *values* on *row* that differ from what is loaded, so that an unchanged row is not flushed."""
    loaded, columns = instance_dict(row), attributes_of(class_mapper(type(row))).columns
    types = {name: columns[name].type if name in columns else None for name in values}
    changed = {name: value for name, value in values.items() if name not in loaded or not equal(types[name], loaded[name], value)}
    assign(row, changed)
    for name in changed:
        if isinstance(types[name], JSON):
            # SQLAlchemy compares as Python does, where True equals 1, and would not write the change.
            flag_modified(row, name)


def assign(row: object, values: Mapping[str, Any]) -> None:
    """Set *values* on *row*. Columns and relationships are set through SQLAlchemy, because SQLModel rejects what is not its field."""
    mapper: Mapper[Any] = class_mapper(type(row))
    for name, value in values.items():
        if name in mapper.column_attrs or name in mapper.relationships:
            set_attribute(row, name, value)
        else:
            setattr(row, name, value)


def equal(type_: TypeEngine[Any] | None, loaded: Any, value: Any) -> bool:
    """Return whether *value* equals what is *loaded*, by the column's type. False if the type has no single answer."""
    if is_sql(value):
        return False
    if isinstance(type_, JSON):
        return is_same_document(loaded, value)
    if isinstance(type_, CHAR) and isinstance(loaded, str) and isinstance(value, str):
        # The database pads CHAR with blanks.
        return loaded.rstrip(" ") == value.rstrip(" ")
    try:
        return bool(loaded == value if type_ is None else type_.compare_values(loaded, value))
    except ValueError:
        # Comparing numpy arrays gives an array.
        return False


def is_same_document(one: object, other: object) -> bool:
    try:
        return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    except (TypeError, ValueError):
        # The json_serializer of the engine may support types that Python's does not.
        return False


@lru_cache(maxsize=512)
def accepted_keywords(model: Hashable) -> frozenset[str] | None:
    parameters = inspect.signature(cast("type[object]", model)).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)
