"""Making and changing objects of a model, whatever kind of class it is."""

import inspect
from collections.abc import Hashable, Mapping, Set
from functools import lru_cache
from typing import Any, TypeVar, cast

from sqlalchemy.orm import class_mapper
from sqlalchemy.orm.attributes import instance_dict, set_attribute
from sqlalchemy.sql import ClauseElement

__all__ = ["assign", "build", "change"]

ModelT = TypeVar("ModelT")


def build(model: type[ModelT], values: Mapping[str, Any]) -> ModelT:
    """Return a new object of *model* with *values*: given to its constructor, or set on it where the constructor does not take them.

    A dataclass refuses keywords for its ``init=False`` fields, and SQLModel passes over columns that a mixin adds.
    """
    accepted = _accepted(cast("Hashable", model))
    row = model(**{name: value for name, value in values.items() if accepted is None or name in accepted})
    loaded, instrumented = instance_dict(row), _instrumented(model)
    missed = {name for name in values if (name in instrumented and name not in loaded) or (accepted is not None and name not in accepted)}
    assign(row, {name: value for name, value in values.items() if name in missed})
    return row


def change(row: object, values: Mapping[str, Any]) -> None:
    """Set those *values* that differ from what is loaded on *row*: an equal one would make SQLAlchemy look at the row again."""
    loaded = instance_dict(row)
    assign(row, {name: value for name, value in values.items() if name not in loaded or not _equal(loaded[name], value)})


def _equal(loaded: object, value: object) -> bool:
    return not isinstance(value, ClauseElement) and not hasattr(value, "__clause_element__") and bool(loaded == value)


def assign(row: object, values: Mapping[str, Any]) -> None:
    """Set *values* on *row*. Columns and relationships are set as SQLAlchemy does it: SQLModel refuses what is no field of its own."""
    instrumented = _instrumented(type(row))
    for name, value in values.items():
        if name in instrumented:
            set_attribute(row, name, value)
        else:
            setattr(row, name, value)


def _instrumented(model: type[object]) -> Set[str]:
    mapper = class_mapper(model)
    return {attribute.key for attribute in (*mapper.column_attrs, *mapper.relationships)}


@lru_cache(maxsize=512)
def _accepted(model: Hashable) -> frozenset[str] | None:
    parameters = inspect.signature(cast("type[object]", model)).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)
