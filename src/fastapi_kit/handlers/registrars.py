"""What an app is given so that errors become answers."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, overload

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from fastapi_kit._compat import connect_errors
from fastapi_kit.errors import ConfigurationError, ConflictError, InvalidDataError, KitError, UnavailableError, UserInputError
from fastapi_kit.handlers._answers import (
    STATUSES,
    Answer,
    DatabaseErrors,
    answer_http_error,
    answer_mapped_error,
    answer_unhandled_error,
    answer_unwritable_error,
    answer_validation_error,
    kinds_of,
)
from fastapi_kit.handlers._openapi import DocumentedBodies, document_errors, document_refusals
from fastapi_kit.handlers._problems import ErrorBody, problem_body, respond
from fastapi_kit.handlers._sockets import end_socket
from fastapi_kit.handlers._unwritable import UNWRITABLE
from fastapi_kit.middleware.errors import UnhandledErrorMiddleware, read_request_id

__all__ = [
    "problem_response",
    "register_exception_handlers",
    "register_http_error_handler",
    "register_integrity_error_handler",
    "register_kit_error_handler",
    "register_unavailable_error_handler",
    "register_unhandled_error_handler",
    "register_validation_error_handler",
    "register_value_error_handler",
]

_logger = logging.getLogger("fastapi_kit.handlers")


def register_exception_handlers(
    app: FastAPI, *, body: ErrorBody = problem_body, statuses: Mapping[type[Exception], int] | None = None
) -> None:
    """Answer every error, the framework's own included, in one shape, and show it in OpenAPI. *statuses* adds the host's errors.

    Call it before the first request, before or after the routes; a second call replaces the first. Handlers that the
    host has for narrower classes, or for a status, go first. Raises ConfigurationError once the app has started.
    """
    _refuse_started(app)
    registered = _registered(app)
    for kind in [kind for kind, handler in registered.items() if not handler.is_asked_for]:
        del registered[kind]
    for kind in [kind for kind, handler in app.exception_handlers.items() if isinstance(handler, _Handler) and not handler.is_asked_for]:
        del app.exception_handlers[kind]
    # What a host does with its ValueErrors goes first.
    unwritable = dict.fromkeys(set(UNWRITABLE) - app.exception_handlers.keys(), _Handler(answer_unwritable_error, body))
    _add(app, {**unwritable, **_all_handlers(body, {**STATUSES, **(statuses or {})})})
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

    One line is logged, which names the kinds of the error and not their texts. Python's own OSError counts only if it came
    out of SQLAlchemy; a missing file is still a 500.
    """
    _add(app, dict.fromkeys(_LOSING, _Handler(DatabaseErrors(STATUSES, (UnavailableError,)), body)))


def register_validation_error_handler(app: FastAPI, *, body: ErrorBody = problem_body) -> None:
    """Answer FastAPI's 422 without what the client sent.

    The text of a host's validator is shown if it raises UserInputError, or a PydanticCustomError with nothing filled in; a
    bare ValueError or AssertionError "is not valid". Keys of a dict are ``*`` in ``loc``. The name of a field that is
    forbidden stays, if it looks like a name: 64 letters, digits and ``_.:-[]`` at most.
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

    def answer(connection: HTTPConnection, error: Exception) -> Answer | None:
        return None if isinstance(error, ValidationError) else Answer(status, UserInputError.code, str(error))

    _add(app, {ValueError: _Handler(answer, body, is_asked_for=True)})


def register_unhandled_error_handler(app: FastAPI, *, body: ErrorBody = problem_body) -> None:
    """Answer everything else: 500, logged once, with CORS headers and request id, raised on to the server.

    Adds a middleware inside all others, and a handler for the errors of those others.
    """
    _add(app, {Exception: _Handler(answer_unhandled_error, body)})
    _add_innermost(app, body)


def problem_response(request: Request, error: Exception) -> Response:
    """Return the answer that the registrars gave the app for *error*: for middleware, and for a handler that takes their place.

    An app that called no registrar, and a kind of error that no registrar was called for, get the default answer.
    """
    app = request.scope.get("app")
    handlers = _all_handlers(problem_body, STATUSES) | (_registered(app) if isinstance(app, FastAPI) else {})
    candidates = (handlers[kind] for kind in type(error).__mro__ if kind in handlers)
    answers = ((handler, handler.answer_to(request, error)) for handler in candidates)
    return next(respond(request.scope, answer, handler.body) for handler, answer in answers if answer)


@dataclass(frozen=True)
class _Handler:
    """What Starlette calls with an error. An error that has no answer is raised on."""

    answer: Callable[[HTTPConnection, Exception], Answer | None]
    body: ErrorBody
    otherwise: Callable[[HTTPConnection, Exception], Answer | None] | None = None
    is_asked_for: bool = False
    """Whether registering all others leaves it as it is."""

    @overload
    async def __call__(self, connection: Request, error: Exception) -> Response: ...
    @overload
    async def __call__(self, connection: WebSocket, error: Exception) -> None: ...

    async def __call__(self, connection: Request | WebSocket, error: Exception) -> Response | None:
        if (answer := self.answer_to(connection, error)) is None:
            raise error
        response = respond(connection.scope, answer, self.body)
        if isinstance(connection, Request):
            return response
        await end_socket(connection, response, code=answer.code)
        return None

    def answer_to(self, connection: HTTPConnection, error: Exception) -> Answer | None:
        answer = self.answer(connection, error) or (self.otherwise and self.otherwise(connection, error))
        if answer and answer.status == 503:
            _logger.warning("Request %s is answered 503: %s", read_request_id(connection.scope), kinds_of(error))
        return answer


_Handlers: TypeAlias = dict[type[Exception], _Handler]
_REGISTERED = "fastapi_kit_handlers"
"""Key in ``app.state``: an application's own handlers may stand in the place of these, and answer by problem_response()."""

# Classes say little here: asyncpg's refusals and losses arrive as any of them, Python's own come through unwrapped.
_REFUSING: tuple[type[Exception], ...] = (SQLAlchemyError, OverflowError, UnicodeEncodeError)
_LOSING: tuple[type[Exception], ...] = (SQLAlchemyError, OSError, *connect_errors())


def _all_handlers(body: ErrorBody, statuses: Mapping[type[Exception], int]) -> _Handlers:
    return {
        RequestValidationError: _Handler(answer_validation_error, body),
        HTTPException: _Handler(answer_http_error, body),
        Exception: _Handler(answer_unhandled_error, body),
        **dict.fromkeys(_REFUSING + _LOSING, _Handler(DatabaseErrors(statuses, (KitError,)), body, answer_unwritable_error)),
        **_mapped_handlers(body, statuses),
    }


def _mapped_handlers(body: ErrorBody, statuses: Mapping[type[Exception], int]) -> _Handlers:
    return dict.fromkeys(statuses, _Handler(partial(answer_mapped_error, statuses=statuses), body))


def _refuse_started(app: FastAPI) -> None:
    if app.middleware_stack is not None:
        raise ConfigurationError("register error handlers before the first request")


def _add(app: FastAPI, handlers: _Handlers) -> None:
    _refuse_started(app)
    registered = _registered(app)
    for kind, handler in handlers.items():
        registered[kind] = _joined(app.exception_handlers.get(kind), handler)
        app.add_exception_handler(kind, registered[kind])
    app.openapi_schema = None
    if not isinstance(app.openapi, _Document):
        # FastAPI's own way to extend the document is to replace this method.
        vars(app)["openapi"] = _Document(app, app.openapi)


def _registered(app: FastAPI) -> _Handlers:
    if not hasattr(app.state, _REGISTERED):
        setattr(app.state, _REGISTERED, {})
    registered: _Handlers = getattr(app.state, _REGISTERED)
    return registered


def _joined(before: object, handler: _Handler) -> _Handler:
    """Two registrars may want the same class of database errors."""
    if not (isinstance(before, _Handler) and isinstance(before.answer, DatabaseErrors) and isinstance(handler.answer, DatabaseErrors)):
        return handler
    return replace(
        handler, answer=replace(handler.answer, expected=handler.answer.expected + before.answer.expected), otherwise=before.otherwise
    )


@dataclass
class _Document:
    """The app's OpenAPI document, with the error bodies of the handlers that it has when it is asked for."""

    app: FastAPI
    generate: Callable[[], dict[str, Any]]
    shown: dict[str, Any] | None = None

    def __call__(self) -> dict[str, Any]:
        document = self.generate()
        if document is not self.shown:
            document_refusals(document, self.app.routes)
            document_errors(document, self.bodies())
            self.shown = document
        return document

    def bodies(self) -> DocumentedBodies:
        refused, http, mapped, other = map(self.body_for, (RequestValidationError, HTTPException, KitError, Exception))
        return DocumentedBodies(refused=refused, raised=mapped or http, other=other)

    def body_for(self, kind: type[Exception]) -> ErrorBody | None:
        handler = self.app.exception_handlers.get(kind)
        return handler.body if isinstance(handler, _Handler) else None


def _add_innermost(app: FastAPI, body: ErrorBody) -> None:
    def answer(connection: HTTPConnection, error: Exception) -> Response | Awaitable[Response]:
        own: Any = app.exception_handlers.get(500) or app.exception_handlers.get(Exception)
        # Starlette never calls that one for a WebSocket.
        if isinstance(connection, Request) and own is not None and not isinstance(own, _Handler):
            response: Response | Awaitable[Response] = own(connection, error)
            return response
        return respond(connection.scope, answer_unhandled_error(connection, error), body)

    others = [middleware for middleware in app.user_middleware if not _is_last_resort(middleware)]
    app.user_middleware[:] = [*others, Middleware(UnhandledErrorMiddleware, respond=answer)]


def _is_last_resort(middleware: Middleware) -> bool:
    factory: object = middleware.cls
    return factory is UnhandledErrorMiddleware
