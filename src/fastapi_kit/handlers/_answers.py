"""Which error is answered with which status, code, text and headers."""

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
    StaleVersionError,
    UnavailableError,
    UserInputError,
)
from fastapi_kit.handlers._unwritable import unwritable_part
from fastapi_kit.handlers._validation import field_errors, known_words, shown_name
from fastapi_kit.middleware._routes import app_path
from fastapi_kit.middleware.errors import closing_headers

__all__ = [
    "STATUSES",
    "Answer",
    "DatabaseErrors",
    "answer_http_error",
    "answer_mapped_error",
    "answer_unhandled_error",
    "answer_unwritable_error",
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
    AuthenticationError: 401,
    PermissionDeniedError: 403,
    UnavailableError: 503,
    ConfigurationError: 500,
}
"""Which error gets which status; a subclass without an entry gets its parent's.

StaleVersionError is 409, and 412 if the request sent ``If-Match`` (RFC 9110, 13.1.1). UserInputError is 422, as the
validation it stands beside. A 500 is a bug: it is raised on, and neither its code nor its text is sent.
"""

_TEXTS = {
    "not_found": "There is nothing here.",
    "multiple_matches": "More than one resource matches.",
    "conflict": "The change conflicts with what is stored.",
    "stale_version": "The resource has been changed by somebody else.",
    "still_referenced": "Other resources still refer to this one.",
    "invalid_data": "The values cannot be stored.",
    "unknown_reference": "A resource that is referred to does not exist.",
    "not_authenticated": "Not authenticated.",
    "invalid_credentials": "The credentials are not valid.",
    "invalid_token": "The token is not valid.",
    "permission_denied": "Not allowed.",
    "insufficient_scope": "The token does not allow this.",
    "rate_limited": "Too many requests. Try again later.",
    "unavailable": "The service cannot answer now. Try again later.",
}
_REFUSED = ("invalid_request", "The request is not valid.")
_CODES = {401: "not_authenticated", 403: "permission_denied", 429: "rate_limited", 500: "internal_error", 503: "unavailable"}
# Python renamed these between 3.11 and 3.13.
_TITLES = {413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}


@dataclass(frozen=True)
class Answer:
    """What is sent for an error, before it takes the shape of a body."""

    status: int
    code: str
    detail: str
    errors: Sequence[FieldError] = ()
    context: object = None
    headers: Mapping[str, str] | None = None


def title_of(status: int) -> str:
    """Return the phrase of *status*, the same on every Python."""
    if status in _TITLES:
        return _TITLES[status]
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"


def typical_answer(status: int) -> Answer:
    """Return what *status* says most often: the example in the document."""
    if status == 422:
        return Answer(422, *_REFUSED, [FieldError(("body", "name"), "missing", "Field required")])
    code = _code_of(status)
    return Answer(status, code, _TEXTS.get(code) or title_of(status))


def answer_mapped_error(connection: HTTPConnection, error: Exception, statuses: Mapping[type[Exception], int]) -> Answer | None:
    """Answer *error* with its status in *statuses*; None if that is 500. Text is shown only if the error declares it safe."""
    status = next((statuses[kind] for kind in type(error).__mro__ if kind in statuses), 500)
    if status == 500:
        return None
    if not isinstance(error, KitError):
        return Answer(status, _code_of(status), title_of(status))
    if status == 409 and isinstance(error, StaleVersionError) and "if-match" in connection.headers:
        status = 412
    detail = error.detail or _TEXTS.get(error.code) or title_of(status)
    context = {"allowed": error.allowed} if isinstance(error, InvalidQueryError) and error.allowed else None
    return Answer(status, error.code, detail, [_with_shown_names(each) for each in error.errors], context, _headers_of(error))


@dataclass(frozen=True)
class DatabaseErrors:
    """Answers what SQLAlchemy and the drivers raise, as far as it stands for one of *expected*."""

    statuses: Mapping[type[Exception], int]
    expected: tuple[type[KitError], ...]

    def __call__(self, connection: HTTPConnection, error: Exception) -> Answer | None:
        """Return None for all other errors; Python's own OSErrors count only if they came out of SQLAlchemy."""
        found = as_kit_error(error) if isinstance(error, SQLAlchemyError) or _came_from_sqlalchemy(error) else None
        return answer_mapped_error(connection, found, self.statuses) if isinstance(found, self.expected) else None


def answer_http_error(connection: HTTPConnection, error: Exception) -> Answer | None:
    """Answer an HTTPException; a *detail* that is no text becomes the context."""
    if not isinstance(error, HTTPException):
        return None
    status, detail = error.status_code, cast(object, error.detail)  # FastAPI's own takes any detail
    text = detail if isinstance(detail, str) and detail else title_of(status)
    # Starlette raises its own class, hosts FastAPI's: theirs keeps what they say.
    headers = _all_methods(connection.scope, error.headers or {}) if status == 405 and type(error) is HTTPException else error.headers
    return Answer(status, _code_of(status), text, context=None if isinstance(detail, str) else detail, headers=headers)


def answer_validation_error(connection: HTTPConnection, error: Exception) -> Answer | None:
    """Answer FastAPI's refusal of a request."""
    if not isinstance(error, RequestValidationError):
        return None
    return Answer(422, *_REFUSED, field_errors(error, known_words(connection.scope)))


def answer_unwritable_error(connection: HTTPConnection, error: Exception) -> Answer | None:
    """Answer a failure to write what the request itself carried; None if it is the host's own."""
    found = unwritable_part(connection, error)
    return None if found is None else Answer(422, *_REFUSED, [found])


def answer_unhandled_error(connection: HTTPConnection, error: Exception) -> Answer:
    """Answer a bug: nothing of it is told."""
    return Answer(500, _code_of(500), title_of(500), headers=closing_headers(connection.scope))


def kinds_of(error: BaseException) -> str:
    """Return the classes of *error* and of what caused it, for logs: texts of drivers hold addresses and values."""
    kind = type(error).__name__
    return kind if error.__cause__ is None else f"{kind} from {kinds_of(error.__cause__)}"


def _code_of(status: int) -> str:
    return _CODES.get(status) or re.sub(r"\W+", "_", title_of(status).lower().replace("'", ""))


def _all_methods(scope: Scope, headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return *headers* with every method of the path; the framework names those of one route (RFC 9110, 15.5.6 asks for all)."""
    routes = iter_route_contexts(scope["app"].routes) if isinstance(scope.get("app"), FastAPI) else ()
    path = app_path(scope)
    found = [route.methods for route in routes if route.methods and route.path_regex.match(path)]
    return {**headers, "Allow": ", ".join(sorted(set[str]().union(*found)))} if found else headers


def _with_shown_names(error: FieldError) -> FieldError:
    """Fields that nobody knows have names of the client's."""
    if error.code != "unknown_field":
        return error
    return replace(error, loc=tuple(shown_name(part) if isinstance(part, str) else part for part in error.loc))


_UNSTORED = {"Cache-Control": "no-store"}


def _headers_of(error: KitError) -> dict[str, str] | None:
    match error:
        case UnavailableError():
            seconds = error.retry_after
            return {"Retry-After": str(math.ceil(seconds) if math.isfinite(seconds) and seconds > 0 else 1)}
        case InvalidTokenError():
            return {"WWW-Authenticate": 'Bearer error="invalid_token"', **_UNSTORED}
        case AuthenticationError():
            return {"WWW-Authenticate": "Bearer", **_UNSTORED}
        case InsufficientScopeError():
            # Tokens of RFC 6749, 3.3: others could not stand in the quotes.
            scopes = " ".join(sorted(scope for scope in error.scopes if re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", scope)))
            return {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scopes}"', **_UNSTORED}
        case _:
            return None


def _came_from_sqlalchemy(error: Exception) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(str(frame.f_globals.get("__name__")).startswith("sqlalchemy.") for frame, _ in frames)
