"""Making and changing objects of a model, whatever kind of class it is."""

import inspect
from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any, TypeVar, cast

from sqlalchemy.orm.attributes import instance_dict, manager_of_class, set_attribute

__all__ = ["assign", "build"]

ModelT = TypeVar("ModelT")


def build(model: type[ModelT], values: Mapping[str, Any]) -> ModelT:
    """Return a new object of *model* with *values*: given to its constructor, or set on it where the constructor does not take them.

    A dataclass refuses keywords for its ``init=False`` fields, and SQLModel passes over columns that a mixin adds.
    """
    accepted = _accepted(cast("Hashable", model))
    row = model(**{name: value for name, value in values.items() if accepted is None or name in accepted})
    loaded = instance_dict(row)
    mapped = manager_of_class(model)
    assign(row, {name: value for name, value in values.items() if name in mapped and name not in loaded})
    if accepted is not None:
        assign(row, {name: value for name, value in values.items() if name not in mapped and name not in accepted})
    return row


def assign(row: object, values: Mapping[str, Any]) -> None:
    """Set *values* on *row*. Columns and relationships are set as SQLAlchemy does it: SQLModel refuses what is no field of its own."""
    mapped = manager_of_class(type(row))
    for name, value in values.items():
        if name in mapped:
            set_attribute(row, name, value)
        else:
            setattr(row, name, value)


@lru_cache(maxsize=512)
def _accepted(model: Hashable) -> frozenset[str] | None:
    parameters = inspect.signature(cast("type[object]", model)).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)
