"""From errors to statuses and one body. The only place where an error meets a status code."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, TypeAlias
from uuid import UUID

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, JsonValue, ValidationError, WithJsonSchema
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from fastapi_kit._answers import (
    STATUSES,
    Answer,
    DatabaseErrors,
    answer_http_error,
    answer_mapped_error,
    answer_unhandled_error,
    answer_validation_error,
    title_of,
)
from fastapi_kit._safe import safe_json, safe_text
from fastapi_kit._validation import MAX_ERRORS
from fastapi_kit.errors import ConfigurationError, ConflictError, FieldError, InvalidDataError, KitError, UnavailableError, UserInputError
from fastapi_kit.middleware.errors import UnhandledErrorMiddleware, read_request_id

__all__ = [
    "STATUSES",
    "ErrorBody",
    "Problem",
    "ProblemItem",
    "legacy_body",
    "problem_body",
    "problem_response",
    "problem_responses",
    "register_exception_handlers",
    "register_http_error_handler",
    "register_integrity_error_handler",
    "register_kit_error_handler",
    "register_unavailable_error_handler",
    "register_unhandled_error_handler",
    "register_validation_error_handler",
    "register_value_error_handler",
]


_PROBLEM_JSON = "application/problem+json"
_MAX_NAME = 100


class ProblemItem(BaseModel):
    """One field at fault. The value that was sent is never in it."""

    loc: list[str | int]
    code: str
    message: str


class Problem(BaseModel):
    """A problem document (RFC 9457), sent as ``application/problem+json``.

    *type* is always ``about:blank``: *code* tells problems apart and *title* is the phrase of the status. *detail* is
    text, as FastAPI's clients expect. *instance* is ``urn:uuid:`` and the request id. What is None is left out.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str | None = None
    code: str
    request_id: str | None = None
    errors: list[ProblemItem] | None = None
    """At most 100."""
    context: Annotated[JsonValue, WithJsonSchema({})] = None
    """The detail of an HTTPException whose detail is no text; what is allowed, for a refused query."""


ErrorBody: TypeAlias = Callable[[Problem], BaseModel]
"""Makes the host's own error body. A Problem is sent as problem+json without its empty members, all else as JSON as it is."""


def problem_body(problem: Problem) -> Problem:
    """Send the problem as it is: the default."""
    return problem


class _LegacyError(BaseModel):
    detail: JsonValue


def legacy_body(problem: Problem) -> BaseModel:
    """FastAPI's shapes: ``{"detail": text}``, or the list of a 422 without ``input`` and ``ctx``."""
    if problem.status == 422 and problem.errors:
        return _LegacyError(detail=[{"type": item.code, "loc": [*item.loc], "msg": item.message} for item in problem.errors])
    return _LegacyError(detail=problem.detail if problem.context is None else problem.context)


def register_exception_handlers(
    app: FastAPI, *, body: ErrorBody = problem_body, statuses: Mapping[type[Exception], int] | None = None
) -> None:
    """Answer every error, the framework's own included, in one shape. *statuses* adds the host's errors.

    Call it before the first request, before or after the routes; a second call replaces the first. Handlers that the
    host has for narrower classes, or for a status, go first. Raises ConfigurationError once the app has started.
    """
    for kind in [kind for kind, handler in app.exception_handlers.items() if isinstance(handler, _Handler)]:
        del app.exception_handlers[kind]
    _add(app, _all_handlers(body, {**STATUSES, **(statuses or {})}))
    _add_innermost(app, body)


def register_kit_error_handler(
    app: FastAPI, *, body: ErrorBody = problem_body, statuses: Mapping[type[Exception], int] | None = None
) -> None:
    """Answer the library's errors only, and those of *statuses*."""
    _add(app, _mapped_handlers(body, {**STATUSES, **(statuses or {})}))


def register_integrity_error_handler(app: FastAPI, *, body: ErrorBody = problem_body) -> None:
    """Answer SQLAlchemy's integrity and data errors of hand-written code: 409 and 422, fields named as far as the driver names them.

    Roll the session back before it is used again: nothing here does.
    """
    handler = _Handler(DatabaseErrors(STATUSES, (ConflictError, InvalidDataError)), body)
    _add(app, dict.fromkeys(_REFUSING, handler))


def register_unavailable_error_handler(app: FastAPI, *, body: ErrorBody = problem_body) -> None:
    """Answer a lost database, an exhausted pool and timeouts: 503 with ``Retry-After``.

    Python's own OSError counts only if it came out of SQLAlchemy; a missing file is still a 500.
    """
    _add(app, dict.fromkeys(_LOSING, _Handler(DatabaseErrors(STATUSES, (UnavailableError,)), body)))


def register_validation_error_handler(app: FastAPI, *, body: ErrorBody = problem_body) -> None:
    """Answer FastAPI's 422 without what the client sent.

    The text of a host's validator is shown unless it repeats a value that was sent; raise UserInputError in it for a
    text that is always shown. Names in ``loc`` may be the client's (keys of a dict, unknown fields): 100 characters of
    them are kept.
    """
    _add(app, {RequestValidationError: _Handler(answer_validation_error, body)})


def register_http_error_handler(app: FastAPI, *, body: ErrorBody = problem_body) -> None:
    """Answer HTTPException, the framework's 404, 405 and 413 included. Its headers are kept."""
    _add(app, {HTTPException: _Handler(answer_http_error, body)})


def register_value_error_handler(app: FastAPI, *, body: ErrorBody = problem_body, status: int = 400) -> None:
    """Answer every ValueError with its text: opt-in, because a bug is a ValueError too.

    ``int("x")`` deep inside the host would be shown to the client, input and all. UserInputError is the safe way. A
    pydantic ValidationError stays a 500.
    """

    def answer(request: Request, error: Exception) -> Answer | None:
        return None if isinstance(error, ValidationError) else Answer(status, UserInputError.code, str(error))

    _add(app, {ValueError: _Handler(answer, body)})


def register_unhandled_error_handler(app: FastAPI, *, body: ErrorBody = problem_body) -> None:
    """Answer everything else: 500, logged once, with CORS headers and request id, raised on to the server.

    Adds a middleware inside all others, and a handler for the errors of those others.
    """
    _add(app, {Exception: _Handler(answer_unhandled_error, body)})
    _add_innermost(app, body)


def problem_response(request: Request, error: Exception) -> Response:
    """Return the answer that the registered handlers of the app would give to *error*, for middleware.

    Where the app has none of ours, the defaults answer.
    """
    app = request.scope.get("app")
    registered = app.exception_handlers.items() if isinstance(app, FastAPI) else ()
    ours: _Handlers = {kind: handler for kind, handler in registered if isinstance(handler, _Handler)}
    handlers = _all_handlers(problem_body, STATUSES) | ours
    candidates = (handlers[kind] for kind in type(error).__mro__ if kind in handlers)
    return next(response for handler in candidates if (response := handler.respond(request, error)))


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what documents these *statuses* as problems: ``responses=problem_responses(404, 409)`` of a route."""
    schema = Problem.model_json_schema(mode="serialization")
    # Only models of a route's own media type become components, so this one is written out.
    schema["properties"]["errors"]["anyOf"][0]["items"] = schema.pop("$defs")[ProblemItem.__name__]
    return {status: {"description": title_of(status), "content": {_PROBLEM_JSON: {"schema": schema}}} for status in statuses}


@dataclass(frozen=True)
class _Handler:
    """What Starlette calls with an error. An error that has no answer is raised on."""

    answer: Callable[[Request, Exception], Answer | None]
    body: ErrorBody

    async def __call__(self, request: Request, error: Exception) -> Response:
        if (response := self.respond(request, error)) is None:
            raise error
        return response

    def respond(self, request: Request, error: Exception) -> Response | None:
        answer = self.answer(request, error)
        return None if answer is None else _respond(request, answer, self.body)


_Handlers: TypeAlias = dict[type[Exception], _Handler]

# Classes say little here: asyncpg's refusals and losses arrive as any of them, Python's own come through unwrapped.
_REFUSING: tuple[type[Exception], ...] = (SQLAlchemyError, OverflowError, UnicodeEncodeError)
_LOSING: tuple[type[Exception], ...] = (SQLAlchemyError, OSError)


def _all_handlers(body: ErrorBody, statuses: Mapping[type[Exception], int]) -> _Handlers:
    return {
        RequestValidationError: _Handler(answer_validation_error, body),
        HTTPException: _Handler(answer_http_error, body),
        Exception: _Handler(answer_unhandled_error, body),
        **dict.fromkeys(_REFUSING + _LOSING, _Handler(DatabaseErrors(statuses, (KitError,)), body)),
        **_mapped_handlers(body, statuses),
    }


def _mapped_handlers(body: ErrorBody, statuses: Mapping[type[Exception], int]) -> _Handlers:
    return dict.fromkeys(statuses, _Handler(partial(answer_mapped_error, statuses=statuses), body))


def _add(app: FastAPI, handlers: _Handlers) -> None:
    if app.middleware_stack is not None:
        raise ConfigurationError("register error handlers before the first request")
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, _joined(app.exception_handlers.get(kind), handler))


def _joined(before: object, handler: _Handler) -> _Handler:
    """Two registrars may want the same class of database errors."""
    if not (isinstance(before, _Handler) and isinstance(before.answer, DatabaseErrors) and isinstance(handler.answer, DatabaseErrors)):
        return handler
    return replace(handler, answer=replace(handler.answer, expected=handler.answer.expected + before.answer.expected))


def _add_innermost(app: FastAPI, body: ErrorBody) -> None:
    def respond(request: Request, error: Exception) -> Response:
        return _respond(request, answer_unhandled_error(request, error), body)

    others = [middleware for middleware in app.user_middleware if not _is_last_resort(middleware)]
    app.user_middleware[:] = [*others, Middleware(UnhandledErrorMiddleware, respond=respond)]


def _is_last_resort(middleware: Middleware) -> bool:
    factory: object = middleware.cls
    return factory is UnhandledErrorMiddleware


def _respond(request: Request, answer: Answer, body: ErrorBody) -> Response:
    if answer.status < 200 or answer.status in {204, 205, 304}:
        return Response(status_code=answer.status, headers=answer.headers)
    content = body(_problem(request.scope, answer))
    is_problem = isinstance(content, Problem)
    return Response(
        content.model_dump_json(by_alias=True, exclude_none=is_problem),
        status_code=answer.status,
        headers=answer.headers,
        media_type=_PROBLEM_JSON if is_problem else "application/json",
    )


def _problem(scope: Scope, answer: Answer) -> Problem:
    request_id = read_request_id(scope)
    return Problem(
        title=title_of(answer.status),
        status=answer.status,
        detail=safe_text(answer.detail),
        instance=_instance(request_id),
        code=answer.code,
        request_id=request_id,
        errors=[_item(error) for error in answer.errors[:MAX_ERRORS]] or None,
        context=safe_json(answer.context),
    )


def _instance(request_id: str | None) -> str | None:
    try:
        return request_id and UUID(request_id).urn
    except ValueError:
        return None


def _item(error: FieldError) -> ProblemItem:
    loc = [part if isinstance(part, int) else safe_text(part[:_MAX_NAME]) for part in error.loc]
    return ProblemItem(loc=loc, code=safe_text(error.code), message=safe_text(error.message))
