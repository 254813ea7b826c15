"""Bugs: a 500 that shows nothing, and the exception for the server."""

import json
import logging
import sys
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from pydantic import BaseModel, FiniteFloat
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.handlers.apps import JSON, OutOfStockError, answer_to, client_of, failing_app

from fastapi_kit.errors import ConfigurationError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.middleware import UnhandledErrorMiddleware
from fastapi_kit.testing.client import app_client


@pytest.mark.parametrize("error", [ZeroDivisionError("secret"), ConfigurationError("secret"), OutOfStockError("secret"), OSError("secret")])
async def test_a_bug_is_a_500_that_shows_nothing(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """A bug is a 500 without its text, logged in one line, and the connection is closed."""
    with caplog.at_level(logging.INFO, logger="fastapi_kit"):
        response = await answer_to(error)

    assert response.status_code == 500
    assert response.headers["connection"] == "close"
    assert response.json()["code"] == "internal_error"
    assert "secret" not in response.text + caplog.text
    assert [record.exc_info for record in caplog.records] == [None]


@pytest.mark.parametrize("error", [ZeroDivisionError(), ConfigurationError()])
async def test_a_bug_reaches_the_server(error: Exception) -> None:
    """The exception itself is raised on, so that the server and OpenTelemetry see it."""
    app = failing_app(error)
    register_exception_handlers(app)

    async with app_client(app, raise_errors=True) as client:
        with pytest.raises(type(error)) as caught:
            await client.get("/")
    assert caught.value is error


@pytest.mark.parametrize("cors_first", [True, False])
async def test_a_500_passes_through_cors(cors_first: bool) -> None:
    """A 500 has its CORS headers, whichever was added first."""
    app = failing_app(ZeroDivisionError())
    if not cors_first:
        register_exception_handlers(app)
    app.add_middleware(CORSMiddleware, allow_origins=["https://a.example"])
    if cors_first:
        register_exception_handlers(app)

    async with app_client(app) as client:
        response = await client.get("/", headers={"Origin": "https://a.example"})
    assert response.status_code == 500
    assert response.headers["access-control-allow-origin"] == "https://a.example"


async def test_an_error_in_a_middleware_has_the_same_body() -> None:
    """An exception in a middleware of the application has the same error body."""

    class Failing:
        def __init__(self, app: ASGIApp) -> None:
            pass

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            raise ZeroDivisionError

    app = FastAPI()
    app.add_middleware(Failing)
    async with client_of(app) as client:
        response = await client.get("/")

    assert (response.status_code, response.json()["code"]) == (500, "internal_error")


async def sent_by(app: ASGIApp, *, http_version: str = "1.1") -> list[Any]:
    """Return what UnhandledErrorMiddleware sends for an *app* that divides by zero."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "http_version": http_version, "headers": [], "method": "GET", "path": "/"}
    with pytest.raises(ZeroDivisionError):
        await UnhandledErrorMiddleware(app)(scope, receive, send)
    return sent


async def test_a_started_response_is_left_alone() -> None:
    """After the response has started, an exception is only raised on."""

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    assert [message.get("status") for message in await sent_by(stream)] == [200]


@pytest.mark.parametrize(("version", "headers"), [("1.1", [b"close"]), ("2", [])])
async def test_http2_has_no_connection_header(version: str, headers: list[bytes]) -> None:
    """HTTP/2 forbids the Connection header (RFC 9113, 8.2.2)."""

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    start, body = await sent_by(fail, http_version=version)

    assert start["status"] == json.loads(body["body"])["status"] == 500
    assert [value for name, value in start["headers"] if name == b"connection"] == headers


async def test_a_response_that_json_cannot_carry_is_a_bug() -> None:
    """Lone surrogates, NaN and deep nesting in a response are a 500, also if the client has sent them."""
    deep: Any = []
    for _ in range(5000):
        deep = [deep]

    async def text() -> Any:
        return "\ud800"

    async def number() -> Response:
        return JSONResponse(float("nan"))

    async def nested() -> Any:
        return deep

    async def unfit() -> Ratio:
        return {"ratio": float("nan")}  # type: ignore[return-value]

    async def echo(request: Request) -> Any:
        return await request.json()

    app = FastAPI()
    for route in (text, number, nested, unfit, echo):
        app.post(f"/{route.__name__}")(route)

    async with client_of(app) as client:
        for route in (text, number, nested, unfit, echo):
            answer = await client.post(f"/{route.__name__}", content=rb'{"a": "\ud800"}', headers=JSON)

            assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")


class Ratio(BaseModel):
    ratio: FiniteFloat


async def test_under_gunicorn_the_line_has_the_traceback(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """gunicorn's worker logs no exception after a complete response, so the library's line has the traceback."""

    async def breaks_off(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    async def drop(message: Any) -> None: ...

    monkeypatch.setitem(sys.modules, "gunicorn.workers.gasgi", sys)
    for app, version in ((fails, "1.1"), (breaks_off, "1.1"), (fails, "2")):
        with pytest.raises(ZeroDivisionError):
            await UnhandledErrorMiddleware(app)({"type": "http", "http_version": version}, never, drop)

    assert [bool(record.exc_info) for record in caplog.records] == [True, False, False]


async def never() -> Any:
    raise AssertionError
