"""Values of any kind as text and JSON that can always be sent."""

from collections.abc import Iterable, Mapping
from typing import TypeGuard

from pydantic import BaseModel, JsonValue

__all__ = ["is_items", "is_mapping", "safe_json", "safe_text"]

_MAX_DEPTH = 20


def safe_text(text: str) -> str:
    """Replace lone surrogates, which no UTF-8 can carry."""
    return text.encode("utf-8", "replace").decode()


def safe_json(value: object, *, depth: int = _MAX_DEPTH) -> JsonValue:
    """Keep what JSON has; what is deeper than *depth* becomes null, exceptions their kind, other objects their text.

    NaN stays: pydantic writes it as null.
    """
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return safe_text(value)
        case BaseModel():
            return safe_json(value.model_dump(), depth=depth)
        case BaseException():
            return type(value).__name__
        case _:
            return _safe_container(value, depth)


def _safe_container(value: object, depth: int) -> JsonValue:
    if is_mapping(value):
        return {_text_of(key): safe_json(item, depth=depth - 1) for key, item in value.items()} if depth else None
    if is_items(value):
        return [safe_json(item, depth=depth - 1) for item in value] if depth else None
    return _text_of(value)


def _text_of(value: object) -> str:
    try:
        return safe_text(str(value))
    except Exception:
        return type(value).__name__


def is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    """Whether *value* is a JSON object or the like."""
    return isinstance(value, Mapping)


def is_items(value: object) -> TypeGuard[Iterable[object]]:
    """Whether *value* is a JSON array or the like."""
    return isinstance(value, list | tuple | set | frozenset)
