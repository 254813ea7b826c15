"""Register the library's error handlers in an app."""

import logging
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, overload

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.status import WS_1008_POLICY_VIOLATION, WS_1011_INTERNAL_ERROR, WS_1013_TRY_AGAIN_LATER
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from fastapi_kit._compat import connect_errors
from fastapi_kit.errors import ConfigurationError, ConflictError, InvalidDataError, KitError, UnavailableError, UserInputError
from fastapi_kit.handlers.answers import (
    STATUSES,
    answer_database_error,
    answer_http_error,
    answer_known_error,
    answer_unhandled_error,
    answer_validation_error,
    kinds_of,
)
from fastapi_kit.handlers.openapi import DocumentedBodies, extend_document
from fastapi_kit.handlers.problems import Answer, ErrorBody, problem_body, respond
from fastapi_kit.middleware.errors import UnhandledErrorMiddleware
from fastapi_kit.middleware.request_id import read_request_id

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

# The class says little: asyncpg raises rejected values and lost connections as any of these, some of them unwrapped.
_INTEGRITY_ERRORS: tuple[type[Exception], ...] = (SQLAlchemyError, OverflowError, UnicodeEncodeError)
_CONNECTION_ERRORS: tuple[type[Exception], ...] = (SQLAlchemyError, OSError, *connect_errors())
_ALL_KINDS = (RequestValidationError, HTTPException, Exception, *_INTEGRITY_ERRORS, *_CONNECTION_ERRORS)


def register_exception_handlers(
    app: FastAPI, *, body: ErrorBody = problem_body, statuses: Mapping[type[Exception], int] | None = None
) -> None:
    """Answer every error in one shape, errors of FastAPI included, and show that shape in OpenAPI.

    Call it before the first request, before or after you add the routes. A second call replaces the first. Handlers of your application
    for a narrower class, or for a status, go first.

    Args:
        app: The application.
        body: Makes the error body from a ``Problem``. The default sends the problem itself.
        statuses: Statuses for errors of your application, and for errors of the library that should get another status.

    Raises:
        ConfigurationError: The app has already started.

    Example:
        ```python
        from fastapi import FastAPI

        from fastapi_kit import NotFoundError, register_exception_handlers

        app = FastAPI()
        register_exception_handlers(app, statuses={NotImplementedError: 501})


        @app.get("/notes/{note_id}")
        async def read_note(note_id: int) -> None:
            raise NotFoundError(dict, note_id)  # 404, as application/problem+json
        ```
    """
    handlers = handlers_of(app)
    handlers.clear(app)
    handlers.statuses |= statuses or {}
    handlers.database_errors = {KitError}
    handlers.add(app, body, [*_ALL_KINDS, *handlers.statuses])
    handlers.add_last_resort(app)


def register_kit_error_handler(
    app: FastAPI, *, body: ErrorBody = problem_body, statuses: Mapping[type[Exception], int] | None = None
) -> None:
    """Answer the errors of the library and those in *statuses*. All others stay as they are.

    Raises:
        ConfigurationError: The app has already started.
    """
    handlers = handlers_of(app)
    handlers.statuses |= statuses or {}
    handlers.add(app, body, handlers.statuses)


def register_integrity_error_handler(app: FastAPI, *, body: ErrorBody = problem_body) -> None:
    """Answer SQLAlchemy's integrity errors with 409 and its data errors with 422. Fields are named as far as the driver names them.

    It is for SQL that your application runs itself. The handler does not roll back: your session has to.

    Raises:
        ConfigurationError: The app has already started.
    """
    handlers = handlers_of(app)
    handlers.database_errors |= {ConflictError, InvalidDataError}
    handlers.add(app, body, _INTEGRITY_ERRORS)


def register_unavailable_error_handler(app: FastAPI, *, body: ErrorBody = problem_body) -> None:
    """Answer a lost database, an exhausted pool and a timeout of the database with 503 and ``Retry-After``.

    It logs one line with the classes of the error, without their texts. Python's own OSError is answered only if SQLAlchemy raised it: a
    missing file is still a 500.

    Raises:
        ConfigurationError: The app has already started.
    """
    handlers = handlers_of(app)
    handlers.database_errors.add(UnavailableError)
    handlers.add(app, body, _CONNECTION_ERRORS)


def register_validation_error_handler(app: FastAPI, *, body: ErrorBody = problem_body) -> None:
    """Answer FastAPI's 422 without what the client sent.

    The text of your validator is shown if it raises UserInputError, or a PydanticCustomError whose context is empty. For a bare ValueError
    or AssertionError the text is "is not valid". Keys of a dict are ``*`` in ``loc``. The name of a forbidden extra field is shown if it
    looks like a name: at most 64 letters, digits and ``_.:-[]``.

    Raises:
        ConfigurationError: The app has already started.
    """
    handlers_of(app).add(app, body, [RequestValidationError])


def register_http_error_handler(app: FastAPI, *, body: ErrorBody = problem_body) -> None:
    """Answer HTTPException, also FastAPI's own 404, 405 and 413. Its headers are kept.

    Raises:
        ConfigurationError: The app has already started.
    """
    handlers_of(app).add(app, body, [HTTPException])


def register_value_error_handler(app: FastAPI, *, body: ErrorBody = problem_body, status: int = 400) -> None:
    """Answer every ValueError with *status* and its text. ``register_exception_handlers`` does not include it.

    Use it with care: a bug can be a ValueError too. The text of ``int("x")`` deep inside your application would show the client's
    input. UserInputError is the safe way. Pydantic's ValidationError is still a 500.

    Raises:
        ConfigurationError: The app has already started.
    """
    handlers = handlers_of(app)
    handlers.value_error_status = status
    handlers.add(app, body, [ValueError])


def register_unhandled_error_handler(app: FastAPI, *, body: ErrorBody = problem_body) -> None:
    """Answer every other error with 500. It is logged once and raised on to the server.

    The answer has its CORS headers and request id, because a middleware inside all others sends it. A handler answers errors of those
    other middlewares.

    Raises:
        ConfigurationError: The app has already started.
    """
    handlers = handlers_of(app)
    handlers.add(app, body, [Exception])
    handlers.add_last_resort(app)


def problem_response(request: Request, error: Exception) -> Response:
    """Return the answer of the app to *error*, with the body and the statuses that were registered.

    Call it in a middleware, or in a handler of your own. An error that no registrar covers gets the default answer.
    """
    registered: ErrorHandlers = getattr(getattr(request.scope.get("app"), "state", None), _STATE, _DEFAULT)
    for kind in type(error).__mro__:
        handlers = registered if kind in registered.bodies else _DEFAULT
        if kind in handlers.bodies and (answer := handlers.answer(request, error, kind)):
            return respond(request.scope, answer, handlers.bodies[kind])
    raise error


_STATE = "fastapi_kit_error_handlers"


def handlers_of(app: FastAPI) -> "ErrorHandlers":
    """Return what is registered in *app*. Raises ConfigurationError if the app has started: a handler would have no effect."""
    if app.middleware_stack is not None:
        raise ConfigurationError("register error handlers before the first request")
    if not hasattr(app.state, _STATE):
        handlers = ErrorHandlers()
        setattr(app.state, _STATE, handlers)
        extend_document(app, lambda: handlers.documented(app))
    found: ErrorHandlers = getattr(app.state, _STATE)
    return found


@dataclass(eq=False)
class ErrorHandlers:
    """What the registrars have registered in one app. ``app.state`` keeps it, so that ``problem_response`` answers alike."""

    bodies: dict[type[Exception], ErrorBody] = field(default_factory=dict[type[Exception], ErrorBody])
    """The error body for each registered class."""
    statuses: dict[type[Exception], int] = field(default_factory=lambda: dict(STATUSES))
    database_errors: set[type[KitError]] = field(default_factory=set[type[KitError]])
    """What an error of SQLAlchemy or of a driver may stand for. Any other one is a bug."""
    value_error_status: int | None = None
    """None until ``register_value_error_handler`` is called."""

    def add(self, app: FastAPI, body: ErrorBody, kinds: Iterable[type[Exception]]) -> None:
        """Answer errors of these *kinds* with *body*."""
        for kind in kinds:
            self.bodies[kind] = body
            app.add_exception_handler(kind, self.handle)
        app.openapi_schema = None

    def add_last_resort(self, app: FastAPI) -> None:
        """Add the middleware that answers bugs, inside all others. It replaces an earlier one."""

        def answer(connection: HTTPConnection, error: Exception) -> Response | Awaitable[Response]:
            own: Any = app.exception_handlers.get(500) or app.exception_handlers.get(Exception)
            # Starlette never calls a handler for 500 with a WebSocket.
            if isinstance(connection, Request) and own is not None and own != self.handle:
                response: Response | Awaitable[Response] = own(connection, error)
                return response
            return respond(connection.scope, answer_unhandled_error(connection, error), self.bodies[Exception])

        present: list[object] = [middleware.cls for middleware in app.user_middleware]
        if UnhandledErrorMiddleware in present:
            del app.user_middleware[present.index(UnhandledErrorMiddleware)]
        app.user_middleware.append(Middleware(UnhandledErrorMiddleware, respond=answer))

    def clear(self, app: FastAPI) -> None:
        """Remove everything but what ``register_value_error_handler`` has registered."""
        for kind in self.bodies.keys() - ({ValueError} if self.value_error_status else set[type[Exception]]()):
            del self.bodies[kind]
            if app.exception_handlers.get(kind) == self.handle:
                del app.exception_handlers[kind]
        self.statuses = dict(STATUSES)

    @overload
    async def handle(self, connection: Request, error: Exception) -> Response: ...
    @overload
    async def handle(self, connection: WebSocket, error: Exception) -> None: ...

    async def handle(self, connection: Request | WebSocket, error: Exception) -> Response | None:
        """Answer *error*: Starlette calls it for the registered classes. An error without an answer is raised on."""
        kind = next(kind for kind in type(error).__mro__ if kind in self.bodies)
        answer = self.answer(connection, error, kind)
        if answer is None:
            raise error
        response = respond(connection.scope, answer, self.bodies[kind])
        if isinstance(connection, Request):
            return response
        await end_socket(connection, response, reason=answer.code)
        return None

    def answer(self, connection: HTTPConnection, error: Exception, kind: type[Exception]) -> Answer | None:
        """Return the answer to *error* as one of *kind*, or None if it has none."""
        answer: Answer | None
        if kind in self.statuses:
            answer = answer_known_error(connection, error, self.statuses)
        elif isinstance(error, RequestValidationError):
            answer = answer_validation_error(connection, error)
        elif isinstance(error, HTTPException):
            answer = answer_http_error(connection, error)
        elif kind is ValueError and self.value_error_status:
            answer = None if isinstance(error, ValidationError) else Answer(self.value_error_status, UserInputError.code, str(error))
        elif kind is Exception:
            answer = answer_unhandled_error(connection, error)
        else:
            answer = answer_database_error(connection, error, self.statuses, tuple(self.database_errors))
        if answer and answer.status == 503:
            _logger.warning("Request %s is answered 503: %s", read_request_id(connection.scope), kinds_of(error))
        return answer

    def documented(self, app: FastAPI) -> DocumentedBodies:
        """Return the bodies that OpenAPI shows: those of the handlers that *app* still has."""
        validation, http, kit, other = (
            self.bodies.get(kind) if app.exception_handlers.get(kind) == self.handle else None
            for kind in (RequestValidationError, HTTPException, KitError, Exception)
        )
        return DocumentedBodies(validation=validation, declared=kit or http, other=other)


_DEFAULT = ErrorHandlers(bodies=dict.fromkeys([*_ALL_KINDS, *STATUSES], problem_body), database_errors={KitError})


async def end_socket(socket: WebSocket, response: Response, *, reason: str) -> None:
    """Reject the handshake of *socket* with *response*. Close the socket if it was accepted.

    Where the server has no extension for the response, the socket is closed, which servers turn into a 403. Nothing is sent after either
    side has closed.
    """
    state = socket.application_state
    if socket.client_state is WebSocketState.DISCONNECTED or state not in {WebSocketState.CONNECTING, WebSocketState.CONNECTED}:
        return
    code = WS_1011_INTERNAL_ERROR if response.status_code >= 500 else WS_1008_POLICY_VIOLATION
    if response.status_code in {429, 503}:
        code = WS_1013_TRY_AGAIN_LATER
    # The client may have left, and the route may not have received that message.
    with suppress(WebSocketDisconnect, OSError):
        if state is WebSocketState.CONNECTING and "websocket.http.response" in (socket.scope.get("extensions") or {}):
            await socket.send_denial_response(response)
        else:
            await socket.close(code, reason)
