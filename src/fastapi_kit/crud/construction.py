"""Making an object of a model, whatever kind of class it is."""

import inspect
from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any, TypeVar, cast

__all__ = ["build"]

ModelT = TypeVar("ModelT")


def build(model: type[ModelT], values: Mapping[str, Any]) -> ModelT:
    """Return a new object of *model* with *values*: given to its constructor, or set on it where the constructor does not take them.

    A dataclass model refuses keywords for its ``init=False`` fields, which a service may well set.
    """
    accepted = _accepted(cast("Hashable", model))
    if accepted is None:
        return model(**values)
    row = model(**{name: value for name, value in values.items() if name in accepted})
    for name in values.keys() - accepted:
        setattr(row, name, values[name])
    return row


@lru_cache(maxsize=512)
def _accepted(model: Hashable) -> frozenset[str] | None:
    parameters = inspect.signature(cast("type[object]", model)).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)
