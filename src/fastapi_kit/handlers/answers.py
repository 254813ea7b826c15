"""Status, code, text and headers for each error."""

import math
import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import Scope

from fastapi_kit.db.errors import as_kit_error
from fastapi_kit.errors import (
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    FieldError,
    InsufficientScopeError,
    InvalidDataError,
    InvalidQueryError,
    InvalidTokenError,
    KitError,
    MultipleMatchesError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionRequiredError,
    RateLimitedError,
    StaleVersionError,
    UnavailableError,
    UserInputError,
)
from fastapi_kit.handlers.validation import field_errors, known_words, shown_name
from fastapi_kit.middleware.errors import closing_headers
from fastapi_kit.middleware.routes import app_path

__all__ = [
    "STATUSES",
    "Answer",
    "answer_database_error",
    "answer_http_error",
    "answer_known_error",
    "answer_unhandled_error",
    "answer_validation_error",
    "kinds_of",
    "title_of",
    "typical_answer",
]

STATUSES: Mapping[type[Exception], int] = {
    KitError: 500,
    NotFoundError: 404,
    MultipleMatchesError: 409,
    ConflictError: 409,
    InvalidDataError: 422,
    UserInputError: 422,
    PreconditionRequiredError: 428,
    AuthenticationError: 401,
    PermissionDeniedError: 403,
    RateLimitedError: 429,
    UnavailableError: 503,
    ConfigurationError: 500,
}
"""The status of each error. A subclass without an entry gets the status of its parent.

StaleVersionError is 409, or 412 if the request sent ``If-Match`` (RFC 9110, 13.1.1). An error with 500 is a bug: it is raised on to the
server, and neither its code nor its text is sent.
"""

_TEXTS = {
    "not_found": "There is nothing here.",
    "multiple_matches": "More than one resource matches.",
    "conflict": "The change conflicts with what is stored.",
    "stale_version": "The resource has been changed by somebody else.",
    "still_referenced": "Other resources still refer to this one.",
    "invalid_data": "The values cannot be stored.",
    "unknown_reference": "A resource that is referred to does not exist.",
    "precondition_required": "The request must be conditional.",
    "not_authenticated": "Not authenticated.",
    "invalid_credentials": "The credentials are not valid.",
    "invalid_token": "The token is not valid.",
    "permission_denied": "Not allowed.",
    "insufficient_scope": "The token does not allow this.",
    "rate_limited": "Too many requests. Try again later.",
    "unavailable": "The service cannot answer now. Try again later.",
}
_INVALID_REQUEST = ("invalid_request", "The request is not valid.")
_CODES = {401: "not_authenticated", 403: "permission_denied", 429: "rate_limited", 500: "internal_error", 503: "unavailable"}
# Python renamed these between 3.11 and 3.13.
_TITLES = {413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}


@dataclass(frozen=True)
class Answer:
    """What is sent for an error, whatever the shape of the body."""

    status: int
    code: str
    detail: str
    errors: Sequence[FieldError] = ()
    context: object = None
    headers: Mapping[str, str] | None = None


def title_of(status: int) -> str:
    """Return the phrase of *status*. It is the same on every version of Python."""
    if status in _TITLES:
        return _TITLES[status]
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"


def typical_answer(status: int) -> Answer:
    """Return the most usual answer with *status*: the example in OpenAPI."""
    if status == 422:
        return Answer(422, *_INVALID_REQUEST, [FieldError(("body", "name"), "missing", "Field required")])
    code = code_of(status)
    return Answer(status, code, _TEXTS.get(code) or title_of(status))


def answer_known_error(connection: HTTPConnection, error: Exception, statuses: Mapping[type[Exception], int]) -> Answer | None:
    """Answer *error* with its status in *statuses*, or return None if that is 500.

    The text of a KitError is its ``detail``, which is safe to send. Other errors show the phrase of the status.
    """
    status = next((statuses[kind] for kind in type(error).__mro__ if kind in statuses), 500)
    if status == 500:
        return None
    if not isinstance(error, KitError):
        return Answer(status, code_of(status), title_of(status))
    if status == 409 and isinstance(error, StaleVersionError) and "if-match" in connection.headers:
        status = 412
    errors = error.errors
    if any(each.code == "unknown_field" for each in errors):
        # The client has chosen the names of unknown fields.
        errors = [replace(each, loc=tuple(part if isinstance(part, int) else shown_name(part) for part in each.loc)) for each in errors]
    detail = error.detail or _TEXTS.get(error.code) or title_of(status)
    context = {"allowed": error.allowed} if isinstance(error, InvalidQueryError) and error.allowed else None
    return Answer(status, error.code, detail, errors, context, headers_of(error))


def answer_database_error(
    connection: HTTPConnection, error: Exception, statuses: Mapping[type[Exception], int], expected: tuple[type[KitError], ...]
) -> Answer | None:
    """Answer what SQLAlchemy and the drivers raise if it stands for one of the *expected* errors, or return None.

    Python's own OSError and ValueError count only if SQLAlchemy raised them.
    """
    frames = traceback.walk_tb(error.__traceback__)
    modules = (str(frame.f_globals.get("__name__")) for frame, _ in frames)
    if not isinstance(error, SQLAlchemyError) and not any(module.startswith("sqlalchemy.") for module in modules):
        return None
    found = as_kit_error(error)
    return answer_known_error(connection, found, statuses) if isinstance(found, expected) else None


def answer_http_error(connection: HTTPConnection, error: HTTPException) -> Answer:
    """Answer an HTTPException. A *detail* that is not a string becomes the context."""
    status, detail = error.status_code, cast(object, error.detail)  # FastAPI's class takes any detail
    text = detail if isinstance(detail, str) and detail else title_of(status)
    headers = error.headers
    # Starlette raises its own class, applications raise FastAPI's: theirs keeps its headers.
    if status == 405 and type(error) is HTTPException and (allowed := methods_of(connection.scope)):
        headers = {**(headers or {}), "Allow": ", ".join(allowed)}
    return Answer(status, code_of(status), text, context=None if isinstance(detail, str) else detail, headers=headers)


def answer_validation_error(connection: HTTPConnection, error: RequestValidationError) -> Answer:
    """Answer a request that FastAPI rejects."""
    return Answer(422, *_INVALID_REQUEST, field_errors(error, known_words(connection.scope)))


def answer_unhandled_error(connection: HTTPConnection, error: Exception) -> Answer:
    """Answer a bug with nothing of *error*."""
    return Answer(500, code_of(500), title_of(500), headers=closing_headers(connection.scope))


def kinds_of(error: BaseException) -> str:
    """Return the classes of *error* and of its causes, for logs: the texts of drivers hold addresses and values."""
    kind = type(error).__name__
    return kind if error.__cause__ is None else f"{kind} from {kinds_of(error.__cause__)}"


def code_of(status: int) -> str:
    """Return the machine code for *status*: the phrase in snake case, except for the statuses of the library's errors."""
    return _CODES.get(status) or re.sub(r"\W+", "_", title_of(status).lower().replace("'", ""))


def methods_of(scope: Scope) -> list[str]:
    """Return all methods of the path. Starlette's ``Allow`` has only those of one route (RFC 9110, 15.5.6 asks for all)."""
    routes = iter_route_contexts(scope["app"].routes) if isinstance(scope.get("app"), FastAPI) else ()
    path = app_path(scope)
    return sorted({method for route in routes if route.methods and route.path_regex.match(path) for method in route.methods})


_NOT_STORED = {"Cache-Control": "no-store"}


def headers_of(error: KitError) -> dict[str, str] | None:
    """Return ``Retry-After`` or ``WWW-Authenticate`` for *error*, or None."""
    match error:
        case RateLimitedError() | UnavailableError():
            seconds = error.retry_after
            return {"Retry-After": str(math.ceil(seconds) if math.isfinite(seconds) and seconds > 0 else 1)}
        case InvalidTokenError():
            return {"WWW-Authenticate": 'Bearer error="invalid_token"', **_NOT_STORED}
        case AuthenticationError():
            return {"WWW-Authenticate": "Bearer", **_NOT_STORED}
        case InsufficientScopeError():
            # Only tokens may stand in the quotes (RFC 6749, 3.3).
            scopes = " ".join(sorted(scope for scope in error.scopes if re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", scope)))
            return {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scopes}"', **_NOT_STORED}
        case _:
            return None
