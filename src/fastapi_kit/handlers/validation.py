"""FastAPI's validation errors, without what the client sent."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, cast, get_args
from weakref import WeakKeyDictionary

from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter
from pydantic_core.core_schema import ErrorType
from starlette.types import Scope

from fastapi_kit._text import is_items, is_mapping
from fastapi_kit.errors import FieldError, UserInputError
from fastapi_kit.middleware.routes import effective_route
from fastapi_kit.schemas import pattern_message

__all__ = ["MAX_ERRORS", "field_errors", "known_words", "shown_names"]

MAX_ERRORS = 100
_UNKNOWN_TEXT = "is not valid"
_UNKNOWN_NAME = "*"
_UNKNOWN_TYPES = {"extra_forbidden", "unknown_parameter"}

# Pydantic's own texts that quote the input, or name an exception of the application.
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

# The places of parameters, and the words in pydantic's labels that are not types.
_OWN_WORDS = frozenset({"body", "query", "path", "header", "cookie", "key", "constrained", "any", "instance", "subclass"})
_NAME = re.compile(r"[@$]?\w[\w.:\[\]-]{0,63}")
_WORD = re.compile(r"\w+")
_LABEL = re.compile(r"[\w\[\](),|<>'\" .:@$/-]*")


def field_errors(error: RequestValidationError, words: frozenset[str] = frozenset()) -> list[FieldError]:
    """Return what is wrong with each field, at most MAX_ERRORS.

    *words* are those of the schema: a name in ``loc`` is shown if it has no others. A text is shown if it is pydantic's own, which is built
    from the schema, if UserInputError declares it, or if a custom error type fills in nothing but *words*.
    """
    found: Sequence[Mapping[str, Any]] = error.errors()[:MAX_ERRORS]
    return [FieldError(shown_place(item, words), item["type"], shown_message(item, words)) for item in found]


def shown_name(name: str) -> str:
    """Return the *name* of an unknown field if it looks like a name, and ``*`` if not. Clients need it to find a typing error."""
    return name if _NAME.fullmatch(name) else _UNKNOWN_NAME


def shown_names(place: Sequence[str | int]) -> tuple[str | int, ...]:
    """Return *place* with each part as ``shown_name`` shows it."""
    return tuple(part if isinstance(part, int) else shown_name(part) for part in place)


def shown_place(item: Mapping[str, Any], words: frozenset[str]) -> tuple[str | int, ...]:
    """Return the ``loc`` of *item*. Keys of a dict are the client's; fields, parameters and pydantic's labels consist of *words*."""
    place: list[str | int] = [*(item["loc"] or [""])]
    for index, part in enumerate(place):
        if isinstance(part, int) or part in words:
            continue
        if item["type"] in _UNKNOWN_TYPES and index == len(place) - 1:
            place[index] = shown_name(part)
        else:
            parts = set(_WORD.findall(part))
            is_known = parts and _LABEL.fullmatch(part) and words | _OWN_WORDS >= parts
            place[index] = part if is_known else _UNKNOWN_NAME
    return tuple(place)


def shown_message(item: Mapping[str, Any], words: frozenset[str]) -> str:
    """Return the text of *item*, or "is not valid" if it may hold something of the client's."""
    kind, text, context = item["type"], str(item["msg"]), item.get("ctx", {})
    if kind == "string_pattern_mismatch":
        return pattern_message(str(context.get("pattern"))) or text
    if kind in _CLOSED_TYPES:
        return _FIXED_TEXTS.get(kind, text)
    if kind in _OPEN_TYPES:
        declared = context.get("error")
        return (declared.detail if isinstance(declared, UserInputError) else None) or _UNKNOWN_TEXT
    return text if all(isinstance(value, str) and value in words for value in context.values()) else _UNKNOWN_TEXT


_words_of_fields: WeakKeyDictionary[Any, frozenset[str]] = WeakKeyDictionary()


def known_words(scope: Scope) -> frozenset[str]:
    """Return the words in the schemas of the route of *scope*, or nothing if it is not a route of FastAPI."""
    dependant = getattr(effective_route(scope), "dependant", None)
    return frozenset[str]().union(*words_of(dependant)) if isinstance(dependant, Dependant) else frozenset()


def words_of(dependant: Dependant) -> Iterator[frozenset[str]]:
    """Yield the words of each parameter and body of a route, those of its dependencies included."""
    fields = (dependant.path_params, dependant.query_params, dependant.header_params, dependant.cookie_params, dependant.body_params)
    for field in (field for group in fields for field in group):
        if field not in _words_of_fields:
            info = field.field_info
            schema = TypeAdapter(cast("Any", Annotated)[(info.annotation, *info.metadata, None)]).core_schema
            _words_of_fields[field] = frozenset(words_in([field.name, field.alias, field.validation_alias, schema]))
        yield _words_of_fields[field]
    for dependency in dependant.dependencies:
        yield from words_of(dependency)


def words_in(values: Iterable[object]) -> Iterator[str]:
    """Yield every string in *values* and its words. Classes and functions count by their names."""
    pending, seen = list(values), set[int]()
    while pending:
        value = pending.pop()
        text = value if isinstance(value, str) else getattr(value, "__name__", None)
        if isinstance(text, str):
            yield text
            # A number is not a word: a key may be the same number by chance.
            yield from (word for word in _WORD.findall(text) if not word.isdecimal())
        elif id(value) not in seen and (is_mapping(value) or is_items(value)):
            seen.add(id(value))
            pending += [*value, *value.values()] if is_mapping(value) else value
