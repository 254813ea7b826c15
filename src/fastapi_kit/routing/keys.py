"""Keys in paths: how a segment is read, how a key is written, and the path of a row."""

import json
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import Path
from fastapi.params import Depends
from pydantic import Field, TypeAdapter, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError, to_jsonable_python
from sqlalchemy import BigInteger, Column, Integer, SmallInteger
from sqlalchemy.types import TypeDecorator, TypeEngine
from starlette.types import Scope

from fastapi_kit._compat import python_type
from fastapi_kit._text import is_storable
from fastapi_kit.dependencies import declare
from fastapi_kit.errors import ConfigurationError

__all__ = ["collection_path", "column_in_path", "is_same_key", "key_in_path", "may_be_key", "row_path"]

_NOT_IN_PATHS = (bytes, bytearray, list, tuple, dict, set, frozenset)


def key_in_path(columns: Mapping[str, Column[Any]], *, of: str) -> Any:
    """Return the type of a primary key in the path: a scalar, or a tuple with one segment for each of *columns*, by attribute."""
    parts = [column_in_path(column, name, of=of) for name, column in columns.items()]
    if len(parts) == 1:
        return parts[0]

    async def end() -> tuple[()]:
        return ()

    def prepended(others: Depends, first: Any) -> Depends:
        async def read(__value__: Any, rest: Annotated[tuple[object, ...], others]) -> tuple[object, ...]:
            return (__value__, *rest)

        return Depends(declare(read, __value__=first))

    return Annotated[Any, reduce(prepended, reversed(parts), Depends(end))]


def column_in_path(column: Column[Any], name: str, *, of: str) -> Any:
    """Return the type of the path parameter *name*, a value of *column*. Raises ConfigurationError for bytes and collections."""
    description = f"{name.replace('_', ' ').capitalize()} of the {of}"
    return Annotated[type_in_path(column), Path(alias=name, description=description)]


def may_be_key(column: Column[Any], segment: str) -> bool:
    """Return whether *segment* of a path can be read as a value of *column*."""
    try:
        TypeAdapter(type_in_path(column)).validate_python(segment)
    except (ConfigurationError, ValidationError):
        return False
    return True


def is_same_key(stored: object, given: object) -> bool:
    """Return whether two values of one column are equal or written alike. None is equal to nothing."""
    if stored is None or given is None:
        return False
    return bool(stored == given) or segment_of(stored) == segment_of(given)


def collection_path(scope: Scope) -> str:
    """Return the path that the client asked for, without the host, which a client can choose."""
    root, path = scope.get("root_path", "").rstrip("/"), scope["path"]
    if not path.startswith(f"{root}/"):
        # A proxy has removed it.
        path = root + path
    return quote(path, errors="replace")


def row_path(scope: Scope, key: Sequence[object]) -> str:
    """Return the path of the row with *key* in the collection that *scope* asked for (RFC 9110, 10.2.2)."""
    return "/".join([collection_path(scope).rstrip("/"), *(quote(segment_of(part), safe="") for part in key)])


def segment_of(value: object) -> str:
    """Return *value* as JSON writes it, strings without quotes."""
    if type(value) is int or type(value) is str:
        return str(value)
    plain = to_jsonable_python(value, fallback=str)
    return plain if isinstance(plain, str) else json.dumps(plain)


def check_segment(value: object, read: ValidatorFunctionWrapHandler) -> object:
    """Read a key. Reject one that this API would write in another way: ``+1``, ``1.0`` and ``1_000`` would be more addresses of one row."""
    key = read(value)
    if isinstance(value, str):
        # Upper-case UUIDs are valid input (RFC 9562, 4).
        if segment_of(key) != (value.lower() if isinstance(key, UUID) else value):
            raise PydanticCustomError("not_canonical", "Input should be in its canonical form")
        if isinstance(key, str) and not is_storable(key):
            raise PydanticCustomError("invalid_text", "Input has characters that cannot be stored")
    return key


def type_in_path(column: Column[Any]) -> Any:
    """Return the Python type of *column* for a segment: an integer within its range, or a string if the column names no type."""
    kind = column.type.impl_instance if isinstance(column.type, TypeDecorator) else column.type
    if isinstance(kind, Integer):
        # The types that the column has on other databases (``with_variant``).
        variants: Mapping[str, TypeEngine[Any]] = getattr(kind, "_variant_mapping", {})
        limit = 2 ** (max(map(bits_of, [kind, *variants.values()])) - 1)
        return Annotated[int, Field(ge=-limit, le=limit - 1), WrapValidator(check_segment)]
    known = python_type(column.type) or python_type(kind) or str
    if issubclass(known, _NOT_IN_PATHS):
        raise ConfigurationError(f"{column} is {known.__name__}, which cannot be part of a path: give the model another key")
    return Annotated[known, WrapValidator(check_segment)]


def bits_of(kind: TypeEngine[Any]) -> int:
    """Return the size of an integer type."""
    match kind:
        case SmallInteger():
            return 16
        case Integer() if not isinstance(kind, BigInteger):
            return 32
        case _:
            return 64
