"""Answers that cannot be written because of what the request carried: the client's fault, and no 500.

JSON carries lone surrogates, NaN and deep nesting as far as a host's untyped route, which may send them back or work on them.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from fastapi.exceptions import ResponseValidationError
from pydantic_core import PydanticSerializationError
from starlette.datastructures import FormData
from starlette.requests import HTTPConnection

from fastapi_kit._text import MAX_DEPTH, children, is_encodable
from fastapi_kit.errors import FieldError

__all__ = ["UNWRITABLE", "unwritable_part"]

UNWRITABLE: tuple[type[Exception], ...] = (ValueError, RecursionError, ResponseValidationError)
"""As what such errors arrive, whoever writes the answer: pydantic, or the standard library for a JSONResponse."""


class _Fault(NamedTuple):
    """What is wrong with a value at a depth, and how it is called."""

    is_in: Callable[[object, int], bool]
    code: str
    message: str


def _is_surrogate(value: object, depth: int) -> bool:
    return isinstance(value, str) and not is_encodable(value)


def _is_not_finite(value: object, depth: int) -> bool:
    """Texts count, too: a parameter of the type float is one."""
    try:
        return isinstance(value, float | str) and not math.isfinite(float(value))
    except ValueError:
        return False


def _is_deep(value: object, depth: int) -> bool:
    return depth > MAX_DEPTH


_SURROGATE = _Fault(_is_surrogate, "invalid_text", "has characters that cannot be sent")
_NOT_FINITE = _Fault(_is_not_finite, "out_of_range", "has a number that is not finite")
_TOO_DEEP = _Fault(_is_deep, "too_deep", "is nested too deeply")
_TYPES = {"string_unicode": _SURROGATE, "finite_number": _NOT_FINITE}


def unwritable_part(connection: HTTPConnection, error: Exception) -> FieldError | None:
    """Return which part of the request has what *error* stumbled over; None if it is an error of another kind, or the host's own fault."""
    faults = list(_faults_of(error))
    carried = ((place, fault) for fault in faults for place, parts in _parts(connection) if _holds(parts, fault))
    return next((FieldError((place,), fault.code, fault.message) for place, fault in carried), None)


def _faults_of(error: Exception) -> Iterator[_Fault]:
    match error:
        case ResponseValidationError():
            yield from (_TYPES[item["type"]] for item in error.errors() if item["type"] in _TYPES)
        case UnicodeEncodeError() if _is_surrogate(error.object[error.start : error.end], 0):
            yield _SURROGATE
        case RecursionError():
            yield _TOO_DEEP
        case PydanticSerializationError():
            text = str(error)
            if "surrogates not allowed" in text:
                yield _SURROGATE
            elif "depth exceeded" in text:
                yield _TOO_DEEP
        case ValueError() if str(error).startswith("Out of range float values"):
            yield _NOT_FINITE
        case _:
            pass


def _parts(connection: HTTPConnection) -> Iterator[tuple[str, object]]:
    yield "body", _body_of(connection)
    yield "query", connection.query_params.multi_items()
    yield "path", dict(connection.path_params)
    yield "header", connection.headers.values()
    yield "cookie", connection.cookies


def _body_of(connection: HTTPConnection) -> object:
    """Return the body as far as it has been read, which Starlette keeps: the rest of it is not asked for."""
    kept: Mapping[str, Any] = vars(connection)
    form = kept.get("_form")
    if isinstance(form, FormData):
        return form.multi_items()
    if "_json" in kept:
        return kept["_json"]
    try:
        return json.loads(kept.get("_body", b"null"))
    except (ValueError, RecursionError):
        return None


def _holds(value: object, fault: _Fault) -> bool:
    """Walk without recursion: the input may be nested deeper than Python's stack."""
    pending = [(value, 0)]
    while pending:
        value, depth = pending.pop()
        if fault.is_in(value, depth):
            return True
        pending += [(item, depth + 1) for item in children(value) or ()]
    return False
