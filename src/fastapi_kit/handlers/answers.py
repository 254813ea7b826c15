"""Status, code, text and headers for each error."""

import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import Scope

from fastapi_kit.db.errors.translate import as_kit_error
from fastapi_kit.dependencies import CHALLENGES
from fastapi_kit.errors import (
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    InsufficientScopeError,
    InvalidDataError,
    InvalidQueryError,
    InvalidTokenError,
    KitError,
    MultipleMatchesError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    PreconditionRequiredError,
    RateLimitedError,
    SecondFactorRequiredError,
    StaleVersionError,
    UnavailableError,
    UserInputError,
)
from fastapi_kit.handlers.problems import INVALID_REQUEST, Answer, code_of, title_of
from fastapi_kit.handlers.validation import field_errors, known_words, shown_names
from fastapi_kit.middleware.errors import closing_headers
from fastapi_kit.middleware.routes import app_path
from fastapi_kit.ratelimit.fields import rate_limit_headers, whole_seconds

__all__ = [
    "STATUSES",
    "answer_database_error",
    "answer_http_error",
    "answer_known_error",
    "answer_unhandled_error",
    "answer_validation_error",
    "kinds_of",
    "only_error",
]

STATUSES: Mapping[type[Exception], int] = {
    KitError: 500,
    NotFoundError: 404,
    MultipleMatchesError: 409,
    ConflictError: 409,
    InvalidDataError: 422,
    UserInputError: 422,
    PreconditionFailedError: 412,
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
    # The client has chosen the names of unknown fields.
    errors = [
        replace(each, loc=shown_names(each.loc)) if each.code in {"unknown_field", "unknown_parameter"} else each for each in error.errors
    ]
    detail = error.detail or title_of(status)
    return Answer(status, error.code, detail, errors, context_of(error), headers_of(error, connection.scope.get(CHALLENGES, ("Bearer",))))


def context_of(error: KitError) -> object:
    """Return what a client needs beside the text, or None."""
    match error:
        case InvalidQueryError() if error.allowed:
            return {"allowed": error.allowed}
        case SecondFactorRequiredError():
            return {"challenge_token": error.challenge_token, "expires_in": error.expires_in}
        case _:
            return None


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
    return Answer(422, *INVALID_REQUEST, field_errors(error, known_words(connection.scope)))


def answer_unhandled_error(connection: HTTPConnection, error: Exception) -> Answer:
    """Answer a bug with nothing of *error*."""
    return Answer(500, code_of(500), title_of(500), headers=closing_headers(connection.scope))


def only_error(error: Exception) -> Exception:
    """Return the error in a group of one, at any depth, and every other error as it is: a task group wraps what its tasks raise."""
    match cast("object", error):
        case ExceptionGroup(exceptions=(Exception() as only,)):
            return only_error(only)
        case _:
            return error


def kinds_of(error: BaseException) -> str:
    """Return the classes of *error* and of its causes, for logs: the texts of drivers hold addresses and values."""
    kind = type(error).__name__
    return kind if error.__cause__ is None else f"{kind} from {kinds_of(error.__cause__)}"


def methods_of(scope: Scope) -> list[str]:
    """Return all methods of the path. Starlette's ``Allow`` has only those of one route (RFC 9110, 15.5.6 asks for all)."""
    routes = iter_route_contexts(scope["app"].routes) if isinstance(scope.get("app"), FastAPI) else ()
    path = app_path(scope)
    return sorted({method for route in routes if route.methods and route.path_regex.match(path) for method in route.methods})


_NOT_STORED = {"Cache-Control": "no-store"}


def headers_of(error: KitError, challenges: Sequence[str]) -> dict[str, str] | None:
    """Return ``Retry-After`` or ``WWW-Authenticate`` for *error*, or None. The last of *challenges* is that of the token."""
    match error:
        case UnavailableError():
            return {"Retry-After": whole_seconds(error.retry_after)}
        case RateLimitedError(limit=int(limit), window=float() | int() as window):
            return {"Retry-After": whole_seconds(error.retry_after), **rate_limit_headers(limit, window, 0, error.retry_after)}
        case RateLimitedError():
            return {"Retry-After": whole_seconds(error.retry_after)}
        case InvalidTokenError():
            return {"WWW-Authenticate": f'{", ".join(challenges)} error="invalid_token"', **_NOT_STORED}
        case AuthenticationError():
            return {"WWW-Authenticate": ", ".join(challenges), **_NOT_STORED}
        case InsufficientScopeError():
            # Only tokens may stand in the quotes (RFC 6749, 3.3).
            scopes = " ".join(sorted(scope for scope in error.scopes if re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", scope)))
            return {"WWW-Authenticate": f'{challenges[-1]} error="insufficient_scope", scope="{scopes}"', **_NOT_STORED}
        case _:
            return None
