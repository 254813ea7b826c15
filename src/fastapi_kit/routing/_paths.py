"""Keys in paths: what a segment is read as, how a key is written, and where a row is found."""

import json
from collections.abc import Iterable, Mapping, Sequence
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
from fastapi_kit.crud.identity import Key
from fastapi_kit.dependencies import declare
from fastapi_kit.errors import ConfigurationError

__all__ = ["collection_path", "column_in_path", "is_same_key", "key_in_path", "may_be_key", "row_path"]

_NO_KEYS = (bytes, bytearray, list, tuple, dict, set, frozenset)


def key_in_path(columns: Mapping[str, Column[Any]], *, of: str) -> Any:
    """Return the type of the primary key in the path, one segment for each of its *columns* by attribute: a scalar, or a tuple."""
    parts = [column_in_path(column, name, of=of) for name, column in columns.items()]
    return parts[0] if len(parts) == 1 else Annotated[Any, reduce(_prepended, reversed(parts), Depends(_no_key))]


def column_in_path(column: Column[Any], name: str, *, of: str) -> Any:
    """Return the type of the path parameter *name*, a value of *column*. Raises ConfigurationError for bytes and the like."""
    description = f"{name.replace('_', ' ').capitalize()} of the {of}"
    return Annotated[_path_type(column), Path(alias=name, description=description)]


def may_be_key(column: Column[Any], segment: str) -> bool:
    """Return whether *segment* of a path can be read as a value of *column*."""
    try:
        TypeAdapter(_path_type(column)).validate_python(segment)
    except (ConfigurationError, ValidationError):
        return False
    return True


def is_same_key(stored: object, given: object) -> bool:
    """Return whether two values of one column are equal, or at least written alike; nothing is equal to None."""
    if stored is None or given is None:
        return False
    return bool(stored == given) or _segment(stored) == _segment(given)


def collection_path(scope: Scope) -> str:
    """Return the path that the client asked for. It names no host: the one in the request is the client's to choose."""
    root, path = scope.get("root_path", "").rstrip("/"), scope["path"]
    if not path.startswith(f"{root}/"):
        # A proxy has cut it off.
        path = root + path
    return quote(path, errors="replace")


def row_path(scope: Scope, key: Sequence[object]) -> str:
    """Return the path of the row with *key* under the collection that *scope* asked for (RFC 9110, 10.2.2)."""
    return "/".join([collection_path(scope).rstrip("/"), *(quote(_segment(part), safe="") for part in key)])


async def _no_key() -> tuple[()]:
    return ()


def _prepended(others: Depends, first: Any) -> Depends:
    async def read(__value__: Any, rest: Annotated[Key, others]) -> Key:
        return (__value__, *rest)

    return Depends(declare(read, __value__=first))


def _segment(value: object) -> str:
    """Return *value* as it stands in JSON, text without its quotes."""
    if type(value) is int or type(value) is str:
        return str(value)
    plain = to_jsonable_python(value, fallback=str)
    return plain if isinstance(plain, str) else json.dumps(plain)


def _as_written(value: object, read: ValidatorFunctionWrapHandler) -> object:
    """Refuse a key that is not written as this API writes it: ``+1``, ``1.0`` and ``1_000`` would be further addresses of one row."""
    key = read(value)
    if isinstance(value, str):
        # RFC 9562, 4: upper-case UUIDs are valid input.
        if _segment(key) != (value.lower() if isinstance(key, UUID) else value):
            raise PydanticCustomError("not_canonical", "Input should be in its canonical form")
        if isinstance(key, str) and not is_storable(key):
            raise PydanticCustomError("invalid_text", "Input has characters that cannot be stored")
    return key


def _path_type(column: Column[Any]) -> Any:
    """Return what a segment is read as: the Python type of *column*, whole numbers within its range; text where it does not say."""
    kind = column.type.impl_instance if isinstance(column.type, TypeDecorator) else column.type
    if isinstance(kind, Integer):
        limit = 2 ** (max(map(_bits, [kind, *_variants(kind)])) - 1)
        return Annotated[int, Field(ge=-limit, le=limit - 1), WrapValidator(_as_written)]
    known = python_type(column.type) or python_type(kind) or str
    if issubclass(known, _NO_KEYS):
        raise ConfigurationError(f"{column} is {known.__name__}, which cannot stand in a path: give the model another key")
    return Annotated[known, WrapValidator(_as_written)]


def _bits(kind: TypeEngine[Any]) -> int:
    match kind:
        case SmallInteger():
            return 16
        case Integer() if not isinstance(kind, BigInteger) and not getattr(kind, "unsigned", False):
            return 32
        case _:
            return 64


def _variants(kind: TypeEngine[Any]) -> Iterable[TypeEngine[Any]]:
    """The types that the column has on other databases (``with_variant``)."""
    variants: Mapping[str, TypeEngine[Any]] = getattr(kind, "_variant_mapping", {})
    return variants.values()
