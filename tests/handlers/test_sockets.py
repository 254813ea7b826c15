"""Errors of WebSocket routes: an HTTP answer to the handshake, a close code afterwards."""

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Literal

import pytest
from fastapi import Depends, FastAPI, HTTPException, Query, WebSocket, WebSocketException
from fastapi.exceptions import ResponseValidationError
from starlette.types import Message
from starlette.websockets import WebSocketDisconnect
from tests.middleware.asgi import Answer, ask, websocket_scope

from fastapi_kit.errors import (
    AuthenticationError,
    ConfigurationError,
    KitError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from fastapi_kit.handlers import legacy_body, register_exception_handlers, register_kit_error_handler
from fastapi_kit.middleware import UnhandledErrorMiddleware

CONNECT: Message = {"type": "websocket.connect"}
Route = Callable[[WebSocket], Awaitable[None]]


def app_with(route: Route, register: Callable[[FastAPI], None] = register_exception_handlers) -> FastAPI:
    app = FastAPI()
    register(app)
    app.add_api_websocket_route("/", route)
    return app


async def talk(app: Any, *messages: Message, denial: bool = True, query: bytes = b"") -> Answer:
    extensions = {"websocket.http.response": {}} if denial else None
    return await ask(app, {**websocket_scope(), "extensions": extensions, "query_string": query}, CONNECT, *messages)


def raising(error: Exception, *, accept: bool = True, close: bool = False) -> Route:
    async def route(socket: WebSocket) -> None:
        if accept:
            await socket.accept()
        if close:
            await socket.close(4000, "done")
        raise error

    return route


def closing(answer: Answer) -> list[tuple[int, str]]:
    """Return the codes and reasons of all messages after the first, which have to be closings."""
    assert [message["type"] for message in answer.messages[1:]] == ["websocket.close"] * (len(answer.messages) - 1)
    return [(message["code"], message["reason"]) for message in answer.messages[1:]]


class OutOfStockError(KitError):
    code = "out_of_stock"


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (PermissionDeniedError(), 1008, "permission_denied"),
        (AuthenticationError(), 1008, "not_authenticated"),
        (NotFoundError(dict, 7), 1008, "not_found"),
        (OutOfStockError(), 1008, "out_of_stock"),
        (HTTPException(404, "no such room"), 1008, "not_found"),
        (HTTPException(502), 1011, "bad_gateway"),
        (HTTPException(429), 1013, "rate_limited"),
        (UnavailableError("database"), 1013, "unavailable"),
    ],
)
async def test_an_error_closes_an_accepted_socket(error: Exception, code: int, reason: str) -> None:
    """The close code depends on the status, and the reason is the code of the error."""
    answer = await talk(app_with(raising(error), lambda app: register_exception_handlers(app, statuses={OutOfStockError: 409})))

    assert (closing(answer), answer.error) == ([(code, reason)], None)


@pytest.mark.parametrize("error", [ZeroDivisionError(), ConfigurationError("a secret"), ResponseValidationError([])])
async def test_a_bug_closes_an_accepted_socket_and_reaches_the_server(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """A bug closes the socket with 1011, is logged in one line and raised on to the server."""
    answer = await talk(app_with(raising(error)))

    assert (closing(answer), answer.error) == ([(1011, "internal_error")], error)
    assert [record.getMessage() for record in caplog.records] == [f"Unhandled {type(error).__name__} in request None"]


async def test_an_error_of_a_dependency_that_ends_closes_the_socket() -> None:
    """An error that a dependency raises after the route closes the socket too."""

    async def resource() -> AsyncIterator[None]:
        yield
        raise UnavailableError("database")

    async def route(socket: WebSocket, _: Annotated[None, Depends(resource)]) -> None:
        await socket.accept()

    assert closing(await talk(app_with(route))) == [(1013, "unavailable")]


@pytest.mark.parametrize("error", [PermissionDeniedError(), ZeroDivisionError()])
async def test_a_closed_socket_is_not_closed_again(error: Exception) -> None:
    """Nothing is sent on a socket that the route has closed."""
    assert closing(await talk(app_with(raising(error, close=True)))) == [(4000, "done")]


@pytest.mark.parametrize("error", [PermissionDeniedError(), ZeroDivisionError()])
async def test_a_client_that_has_left_is_sent_nothing(error: Exception) -> None:
    """Nothing is sent to a client that has left."""

    async def route(socket: WebSocket) -> None:
        await socket.accept()
        try:
            await socket.receive_text()
        except WebSocketDisconnect:
            raise error from None

    assert closing(await talk(app_with(route))) == []


@pytest.mark.parametrize("error", [PermissionDeniedError(), ZeroDivisionError()])
async def test_a_client_that_has_left_unnoticed(error: Exception) -> None:
    """If sending fails because the client has left, the first error is raised on."""

    async def gone(message: Message) -> None:
        if message["type"] == "websocket.close":
            raise OSError

    async def connect() -> Message:
        return CONNECT

    raised = None
    try:
        await app_with(raising(error))({**websocket_scope(), "extensions": {}}, connect, gone)
    except Exception as caught:
        raised = caught
    assert raised is (error if isinstance(error, ZeroDivisionError) else None)


async def test_a_disconnect_is_not_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """A WebSocketDisconnect is raised on and not logged."""

    async def route(socket: WebSocket) -> None:
        await socket.accept()
        await socket.receive_text()

    answer = await talk(app_with(route))

    assert (closing(answer), type(answer.error), caplog.records) == ([], WebSocketDisconnect, [])


@pytest.mark.parametrize(("error", "status"), [(PermissionDeniedError(), 403), (HTTPException(404), 404), (ZeroDivisionError(), 500)])
async def test_the_handshake_is_answered_as_a_request_is(error: Exception, status: int) -> None:
    """Before accept(), the response has the body and headers of the app if the server supports it."""
    answer = await talk(app_with(raising(error, accept=False), lambda app: register_exception_handlers(app, body=legacy_body)))

    assert [message["type"] for message in answer.messages] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert (answer.status, list(json.loads(answer.body))) == (status, ["detail"])
    assert answer.error is (error if status == 500 else None)


async def test_a_server_that_cannot_answer_the_handshake() -> None:
    """Without that support the socket is closed, and a bug is raised on to the server."""
    refused = await talk(app_with(raising(PermissionDeniedError(), accept=False)), denial=False)
    bug = await talk(app_with(raising(ZeroDivisionError(), accept=False)), denial=False)

    assert refused.messages == [{"type": "websocket.close", "code": 1008, "reason": "permission_denied"}]
    assert (bug.messages, type(bug.error)) == ([], ZeroDivisionError)


async def test_one_registrar_is_enough() -> None:
    """Each registrar alone closes sockets for its own errors."""
    denied = await talk(app_with(raising(PermissionDeniedError()), register_kit_error_handler))
    bug = await talk(app_with(raising(ZeroDivisionError()), register_kit_error_handler))

    assert closing(denied) == [(1008, "permission_denied")]
    assert (closing(bug), type(bug.error)) == ([], ZeroDivisionError)


async def test_the_apps_handler_of_bugs_is_for_requests() -> None:
    """The application's handler for Exception is not called for a WebSocket."""
    app = app_with(raising(ZeroDivisionError(), accept=False))

    @app.exception_handler(500)
    async def mine(request: Any, error: Exception) -> Any:
        raise AssertionError

    assert (await talk(app)).status == 500


async def test_what_fastapi_closes_stays_as_it_is() -> None:
    """WebSocketException keeps its code, and an invalid parameter is FastAPI's 1008."""

    async def typed(socket: WebSocket, room: Annotated[Literal["red"], Query()]) -> None:
        raise AssertionError

    said = await talk(app_with(raising(WebSocketException(4001, "mine"))))
    refused = await talk(app_with(typed), query=b"room=blue")

    assert closing(said) == [(4001, "mine")]
    assert [(message["type"], message["code"]) for message in refused.messages] == [("websocket.close", 1008)]


async def test_a_mounted_app_answers_its_own_sockets() -> None:
    """A mounted app uses its own body for its sockets."""
    outer = app_with(raising(ZeroDivisionError()))
    outer.mount("/inner", app_with(raising(PermissionDeniedError())))
    scope = {**websocket_scope("/inner/"), "extensions": {}}

    assert closing(await ask(outer, scope, CONNECT)) == [(1008, "permission_denied")]


async def test_the_middleware_alone(caplog: pytest.LogCaptureFixture) -> None:
    """UnhandledErrorMiddleware closes sockets without any handlers."""
    caplog.set_level(logging.ERROR)
    accepted = await talk(UnhandledErrorMiddleware(app_with(raising(ZeroDivisionError()), lambda _: None)))
    before = await talk(UnhandledErrorMiddleware(app_with(raising(ZeroDivisionError(), accept=False), lambda _: None)))

    assert closing(accepted) == [(1011, "internal_error")]
    assert (before.status, len(caplog.records)) == (500, 2)
