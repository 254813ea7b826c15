"""Text and nested values of any origin: what encodings, databases and parsers can carry."""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import TypeGuard

from pydantic import BaseModel, JsonValue

__all__ = [
    "MAX_DEPTH",
    "children",
    "is_deeper",
    "is_encodable",
    "is_items",
    "is_mapping",
    "is_storable",
    "safe_json",
    "safe_text",
    "text_of",
]

MAX_DEPTH = 100
"""The levels of nesting that the library accepts, stores, logs and answers with. Pydantic writes about 250 of them."""


def is_encodable(text: str) -> bool:
    """Return whether UTF-8 can carry *text*: it has no lone surrogate."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_storable(text: str) -> bool:
    """Return whether every database can store *text*: it has no lone surrogate and no NUL character."""
    return "\0" not in text and is_encodable(text)


def safe_text(text: str) -> str:
    """Return *text* with an escape for each lone surrogate."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def text_of(value: object) -> str:
    """Return ``str(value)``, lone surrogates as escapes. Names the type and the error if ``str`` raises."""
    try:
        return safe_text(str(value))
    except Exception as error:
        return f"<{type(value).__name__} whose text is a {type(error).__name__}>"


def safe_json(value: object, *, depth: int = MAX_DEPTH) -> JsonValue:
    """Return *value* as JSON that can always be sent.

    An exception becomes the name of its type, another object its text, and a container below *depth* null. NaN stays: pydantic writes null.
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
        case _ if is_mapping(value):
            return {text_of(key): safe_json(item, depth=depth - 1) for key, item in value.items()} if depth else None
        case _ if is_items(value):
            return [safe_json(item, depth=depth - 1) for item in value] if depth else None
        case _:
            return text_of(value)


def is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    """Return whether *value* is a mapping, which JSON writes as an object."""
    return isinstance(value, Mapping)


def is_items(value: object) -> TypeGuard[Iterable[object]]:
    """Return whether *value* is a collection that JSON writes as an array."""
    return isinstance(value, list | tuple | set | frozenset)


def children(value: object) -> Iterable[object] | None:
    """Return the items of a collection, the keys and values of a mapping, and None for a value that is neither."""
    if is_mapping(value):
        return chain(value, value.values())
    return value if is_items(value) else None


def is_deeper(value: object, levels: int = MAX_DEPTH) -> bool:
    """Return whether collections in *value* are nested in more than *levels* levels. Does not recurse."""
    level = [value]
    for _ in range(levels + 1):
        level = [child for item in level for child in children(item) or ()]
        if not level:
            return False
    return True
