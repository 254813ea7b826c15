"""FastAPI's validation errors without what the client sent."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, get_args

from fastapi.exceptions import RequestValidationError
from pydantic_core.core_schema import ErrorType

from fastapi_kit._safe import is_items, is_mapping
from fastapi_kit.errors import FieldError, UserInputError

__all__ = ["MAX_ERRORS", "field_errors"]

MAX_ERRORS = 100
_MAX_VALUES = 1000
_SHORTEST_ECHO, _PART = 3, 8
_LONGEST_VALUE, _LONGEST_TEXT = 200, 500
_UNKNOWN_TEXT = "is not valid"

# Pydantic's own texts that quote the input, or name no more than the exception of somebody's code.
_FIXED_TEXTS = {
    "bytes_invalid_encoding": "Data should be validly encoded",
    "get_attribute_error": _UNKNOWN_TEXT,
    "iteration_error": _UNKNOWN_TEXT,
    "mapping_type": "Input should be a valid mapping",
    "timezone_offset": "Input should have the expected timezone offset",
    "union_tag_invalid": "Input should have one of the expected tags",
    "uuid_parsing": "Input should be a valid UUID",
}
_OPEN_TYPES = {"value_error", "assertion_error"}
_CLOSED_TYPES = frozenset(get_args(ErrorType)) - _OPEN_TYPES


def field_errors(error: RequestValidationError) -> list[FieldError]:
    """Return what is wrong, field by field; at most MAX_ERRORS.

    Texts of pydantic are built from the schema alone. The text of a validator, or of a custom error type, is shown
    unless it repeats a value that was sent: all of it, if it has three characters or more, or eight characters of it.
    """
    found: Sequence[Mapping[str, Any]] = error.errors()[:MAX_ERRORS]
    sent = _Sent([error.body, *(item.get("input") for item in found if item["type"] not in _CLOSED_TYPES)])
    return [FieldError(tuple(item["loc"]), item["type"], _message(item, sent)) for item in found]


class _Sent:
    """The values that were sent, read when first asked for."""

    def __init__(self, sources: Iterable[object]) -> None:
        self._sources = sources

    @cached_property
    def values(self) -> list[str]:
        values = islice(_scalars(self._sources), _MAX_VALUES + 1)
        return [str(value).strip().casefold()[:_LONGEST_VALUE] for value in values]

    @cached_property
    def together(self) -> str:
        return "\0".join(self.values)

    def may_be_in(self, text: str) -> bool:
        """Whether a short value, or a part of a long one, is in *text*. Too many values to compare count as being there."""
        text = text.casefold()
        if len(self.values) > _MAX_VALUES or len(text) > _LONGEST_TEXT:
            return True
        whole = any(len(value) >= _SHORTEST_ECHO and value[:_PART] in text for value in self.values)
        return whole or any(text[start : start + _PART] in self.together for start in range(len(text) - _PART + 1))


def _message(item: Mapping[str, Any], sent: _Sent) -> str:
    kind, text = item["type"], str(item["msg"])
    if kind in _CLOSED_TYPES:
        return _FIXED_TEXTS.get(kind, text)
    declared = item.get("ctx", {}).get("error")
    if isinstance(declared, UserInputError):
        return declared.detail or _UNKNOWN_TEXT
    text = text.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return _UNKNOWN_TEXT if sent.may_be_in(text) else text


def _scalars(values: Iterable[object]) -> Iterator[object]:
    """Walk without recursion: the input may be nested deeper than Python's stack."""
    pending = list(values)
    while pending:
        value = pending.pop()
        if is_mapping(value):
            pending += value.values()
        elif is_items(value):
            pending += value
        elif value is not None and not isinstance(value, bool):
            yield value
