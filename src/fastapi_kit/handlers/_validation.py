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
_SHORTEST_ECHO, _LONGEST_ECHO = 3, 16
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
    unless it repeats a value that was sent (three characters or more of it).
    """
    found: Sequence[Mapping[str, Any]] = error.errors()[:MAX_ERRORS]
    sent = _Sent([error.body, *(item.get("input") for item in found if item["type"] not in _CLOSED_TYPES)])
    return [FieldError(tuple(item["loc"]), item["type"], _message(item, sent)) for item in found]


class _Sent:
    """The beginnings of the values that were sent, read when first asked for."""

    def __init__(self, sources: Iterable[object]) -> None:
        self._sources = sources

    @cached_property
    def starts(self) -> list[str]:
        values = islice(_scalars(self._sources), _MAX_VALUES + 1)
        return [str(value).strip().casefold()[:_LONGEST_ECHO] for value in values]

    def may_be_in(self, text: str) -> bool:
        """Too many values to compare count as being there."""
        text = text.casefold()
        return len(self.starts) > _MAX_VALUES or any(len(start) >= _SHORTEST_ECHO and start in text for start in self.starts)


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
