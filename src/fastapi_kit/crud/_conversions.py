"""Conversion of Python values to what the type of a column takes: URLs to text, models to documents, sets to lists."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AnySet
from enum import Enum
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import PurePath
from typing import Any, TypeAlias, cast
from uuid import UUID

from pydantic import AnyUrl, BaseModel, NameEmail, RootModel, Secret, SecretBytes, SecretStr
from pydantic_core import MISSING, MultiHostUrl, PydanticSerializationError, Url, to_jsonable_python
from sqlalchemy import ARRAY, JSON, String, TypeDecorator
from sqlalchemy import Enum as EnumType
from sqlalchemy.sql import ClauseElement
from sqlalchemy.types import TypeEngine, UserDefinedType

from fastapi_kit._text import MAX_DEPTH

__all__ = ["Converter", "MisfitError", "converter_of", "is_sql", "loaded_fields"]

Converter: TypeAlias = Callable[[Any], Any]

_PLAIN = (str, int, float, bool)
_SEQUENCES = (list, tuple, AnySet, deque, Iterator)
_TEXTS = (
    *(AnyUrl, Url, MultiHostUrl, NameEmail, PurePath, UUID),
    *(IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network),
)


class MisfitError(Exception):
    """A value that no column of the type can hold. The text is the type of the value."""


def converter_of(type_: TypeEngine[Any]) -> Converter | None:
    """Return the function that converts values for a column of *type_*. None for a type with a conversion of its own.

    The function raises MisfitError for a value that can never fit, such as a secret.
    """
    if isinstance(type_, TypeDecorator | UserDefinedType):
        return None
    if isinstance(type_, EnumType):
        return as_scalar if type_.enum_class is None else as_member
    if isinstance(type_, JSON):
        return as_json
    if isinstance(type_, ARRAY):
        items: TypeEngine[Any] = cast("Any", type_).item_type
        return partial(as_list, convert=converter_of(items))
    return as_text if isinstance(type_, String) else as_scalar


def is_sql(value: object) -> bool:
    """Return whether *value* is an SQL expression."""
    return isinstance(value, ClauseElement) or hasattr(value, "__clause_element__")


def loaded_fields(data: BaseModel) -> dict[str, Any]:
    """Return the values of the fields of *data*, and the extra values of a schema with ``extra="allow"``."""
    # The __dict__ of a model also has the values of cached properties.
    loaded, fields = vars(data), type(data).model_fields
    own = {name: loaded[name] for name in fields if name in loaded and loaded[name] is not MISSING}
    return {**own, **(data.model_extra or {})}


def as_member(value: Any) -> Any:
    value = unwrapped(value)
    if isinstance(value, BaseModel) or is_secret(value):
        raise MisfitError(type(cast("object", value)).__name__)
    return value


def is_secret(value: object) -> bool:
    return isinstance(value, SecretStr | SecretBytes | Secret)


def as_scalar(value: Any) -> Any:
    value = as_member(value)
    return value.value if isinstance(value, Enum) else value


def as_text(value: Any) -> Any:
    if type(value) is str:
        return value
    scalar = as_scalar(value)
    if dataclasses.is_dataclass(scalar) and not isinstance(scalar, type):
        raise MisfitError(type(scalar).__name__)
    return str(scalar) if is_text(scalar) else scalar


def is_text(value: object) -> bool:
    # Pydantic's URL classes wrap those of pydantic_core.
    return isinstance(value, _TEXTS) or type(value).__module__ == "pydantic.networks"


def as_list(value: Any, *, convert: Converter | None) -> Any:
    value = unwrapped(value)
    if isinstance(value, _SEQUENCES):
        return [as_list(each, convert=convert) for each in cast("list[object]", value)]
    return value if convert is None else convert(value)


def as_json(value: Any, depth: int = 0) -> Any:
    """Return *value* as JSON. Models are stored whole, also what they exclude or mask in a response."""
    value = unwrapped(value)
    if value is None or type(value) in _PLAIN or is_sql(value) or depth > MAX_DEPTH:
        return value
    if isinstance(value, BaseModel):
        value = loaded_fields(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value).items()
        return {as_key(key): as_json(each, depth + 1) for key, each in pairs}
    if isinstance(value, _SEQUENCES):
        return [as_json(each, depth + 1) for each in cast("list[object]", value)]
    return as_leaf(value, value)


def as_key(key: object) -> Any:
    return key if type(key) is str else as_leaf(key, {key: None}, lambda document: next(iter(document)))


def as_leaf(value: Any, document: Any, read: Converter = lambda document: document) -> Any:
    if is_secret(value):
        raise MisfitError(type(value).__name__)
    if is_text(value):
        return str(value)
    try:
        return read(to_jsonable_python(document))
    except (PydanticSerializationError, UnicodeDecodeError):
        # The json_serializer of the engine may support it.
        return value


def unwrapped(value: Any) -> Any:
    while isinstance(value, RootModel):
        value = vars(cast("object", value))["root"]
    return value
