"""FastAPI's validation errors without what the client sent."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, cast, get_args
from weakref import WeakKeyDictionary

from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core.core_schema import ErrorType
from starlette.types import Scope

from fastapi_kit._text import is_items, is_mapping
from fastapi_kit.errors import FieldError, UserInputError

__all__ = ["MAX_ERRORS", "field_errors", "known_words", "shown_name"]

MAX_ERRORS = 100
_UNKNOWN_TEXT = "is not valid"
_UNKNOWN_NAME = "*"

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

# The places of parameters, and words of pydantic's labels that are no types.
_OWN_WORDS = frozenset({"body", "query", "path", "header", "cookie", "key", "constrained", "any", "instance", "subclass"})
_NAME = re.compile(r"[@$]?\w[\w.:\[\]-]{0,63}")
_WORD = re.compile(r"\w+")
_LABEL = re.compile(r"[\w\[\](),|<>'\" .:@$/-]*")


def field_errors(error: RequestValidationError, words: frozenset[str] = frozenset()) -> list[FieldError]:
    """Return what is wrong, field by field; at most MAX_ERRORS. Of names in ``loc`` those stay whose *words* the schema has.

    A text is shown if it is pydantic's own, which is built from the schema, if it is a UserInputError's, or if it is that of a
    custom error type with nothing filled in but names of the schema.
    """
    found: Sequence[Mapping[str, Any]] = error.errors()[:MAX_ERRORS]
    return [FieldError(tuple(_place(item, words)), item["type"], _message(item, words)) for item in found]


def shown_name(name: str) -> str:
    """Return an unknown field's *name* if it looks like a name, which the client needs to find it, and ``*`` if not."""
    return name if _NAME.fullmatch(name) else _UNKNOWN_NAME


def _place(item: Mapping[str, Any], words: frozenset[str]) -> Iterator[str | int]:
    *parents, last = item["loc"] or [""]
    yield from (_shown_part(part, words) for part in parents)
    yield shown_name(last) if item["type"] == "extra_forbidden" and isinstance(last, str) else _shown_part(last, words)


def _shown_part(part: str | int, words: frozenset[str]) -> str | int:
    """Keys of a dict are the client's; fields, parameters and pydantic's labels are made of the schema's words."""
    if isinstance(part, int) or part in words:
        return part
    parts = set(_WORD.findall(part))
    return part if parts and _LABEL.fullmatch(part) and words | _OWN_WORDS >= parts else _UNKNOWN_NAME


def _message(item: Mapping[str, Any], words: frozenset[str]) -> str:
    kind, text, context = item["type"], str(item["msg"]), item.get("ctx", {})
    if kind in _CLOSED_TYPES:
        return _FIXED_TEXTS.get(kind, text)
    if kind in _OPEN_TYPES:
        declared = context.get("error")
        return (declared.detail if isinstance(declared, UserInputError) else None) or _UNKNOWN_TEXT
    return text if all(isinstance(value, str) and value in words for value in context.values()) else _UNKNOWN_TEXT


# --- What the schema says ---

_words_of_fields: WeakKeyDictionary[Any, frozenset[str]] = WeakKeyDictionary()


def known_words(scope: Scope) -> frozenset[str]:
    """Return the words in the schemas of the route that *scope* was sent to; none if there was no route of FastAPI."""
    route, context = scope.get("route"), scope.get("fastapi", {}).get("effective_route_context")
    if context is not None and context.original_route is route:
        route = context
    dependant = getattr(route, "dependant", None)
    return frozenset[str]().union(*_words_of(dependant)) if isinstance(dependant, Dependant) else frozenset()


def _words_of(dependant: Dependant) -> Iterator[frozenset[str]]:
    fields = (dependant.path_params, dependant.query_params, dependant.header_params, dependant.cookie_params, dependant.body_params)
    for field in (field for group in fields for field in group):
        if field not in _words_of_fields:
            _words_of_fields[field] = frozenset(_split([field.name, field.alias, field.validation_alias, _schema_of(field.field_info)]))
        yield _words_of_fields[field]
    for dependency in dependant.dependencies:
        yield from _words_of(dependency)


def _schema_of(info: FieldInfo) -> object:
    return TypeAdapter(cast("Any", Annotated)[(info.annotation, *info.metadata, None)]).core_schema


def _split(values: Iterable[object]) -> Iterator[str]:
    """Yield all texts in *values*, and the words of them; classes and functions have their names."""
    pending, seen = list(values), set[int]()
    while pending:
        value = pending.pop()
        text = value if isinstance(value, str) else getattr(value, "__name__", None)
        if isinstance(text, str):
            yield text
            # Numbers of the schema's texts are no words: a key may be one by chance.
            yield from (word for word in _WORD.findall(text) if not word.isdecimal())
        elif id(value) not in seen and (is_mapping(value) or is_items(value)):
            seen.add(id(value))
            pending += [*value, *value.values()] if is_mapping(value) else value
