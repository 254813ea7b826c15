"""All of the middleware, in the order in which an app has it."""

import logging
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from tests.middleware.asgi import Answer, ask, http_scope

from fastapi_kit.errors import ConfigurationError
from fastapi_kit.handlers import Problem, register_exception_handlers
from fastapi_kit.middleware import (
    AccessLogMiddleware,
    BodyLimitMiddleware,
    RequestIdMiddleware,
    SecurityHeadersMiddleware,
    ServerTimingMiddleware,
    UnhandledErrorMiddleware,
)

ORIGIN = "https://a.example"


class Item(BaseModel):
    count: int


def make_app() -> FastAPI:
    """Return an app with all middleware; the innermost is added first."""
    app = FastAPI()
    app.add_middleware(BodyLimitMiddleware, max_bytes=100)
    app.add_middleware(CORSMiddleware, allow_origins=[ORIGIN])
    app.add_middleware(SecurityHeadersMiddleware)
    app.add_middleware(ServerTimingMiddleware)
    app.add_middleware(AccessLogMiddleware)
    app.add_middleware(RequestIdMiddleware)
    register_exception_handlers(app)

    @app.post("/items")
    async def take(item: Item) -> int:
        return item.count

    @app.post("/bug")
    async def fail() -> None:
        raise RuntimeError("a bug")

    return app


async def post(app: FastAPI, path: str, body: bytes = b'{"count": 1}', **scope: Any) -> Answer:
    headers = [(b"origin", ORIGIN.encode()), (b"content-type", b"application/json")]
    message = {"type": "http.request", "body": body, "more_body": False}
    return await ask(app, http_scope(path, method="POST", headers=headers, **scope), message)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/items", b'{"count": 1}', 200),
        ("/nowhere", b"", 404),
        ("/items", b"x" * 101, 413),
        ("/items", b"{}", 422),
        ("/bug", b"", 500),
    ],
)
async def test_every_answer_has_every_header(path: str, body: bytes, status: int, caplog: pytest.LogCaptureFixture) -> None:
    """Every response has each header once, and one access record."""
    caplog.set_level(logging.INFO)

    answer = await post(make_app(), path, body)

    assert answer.status == status
    assert answer.values("access-control-allow-origin") == [ORIGIN]
    assert answer.values("x-content-type-options") == ["nosniff"]
    assert [value.partition(";")[0] for value in answer.values("server-timing")] == ["total"]
    (made,) = answer.values("x-request-id")
    assert UUID(made)
    (record,) = [record for record in caplog.records if record.name == "fastapi_kit.access"]
    assert (record.__dict__["status"], record.__dict__["request_id"]) == (status, made)
    names = [name for name, _ in answer.start["headers"]]
    assert len(set(names)) == len(names)


async def test_a_bug_is_answered_logged_and_raised(caplog: pytest.LogCaptureFixture) -> None:
    """A bug is a 500 with Connection: close, one line with the request id, and the exception for the server."""
    answer = await post(make_app(), "/bug")

    assert isinstance(answer.error, RuntimeError)
    assert answer.values("connection") == ["close"]
    problem = Problem.model_validate_json(answer.body)
    assert answer.values("x-request-id") == [problem.request_id]
    (line,) = [record.getMessage() for record in caplog.records if record.name == "fastapi_kit.middleware.errors"]
    assert line == f"Unhandled RuntimeError in request {problem.request_id}"


async def test_over_http_2_there_is_no_connection_header() -> None:
    """HTTP/2 forbids the Connection header (RFC 9113, 8.2.2)."""
    answer = await post(make_app(), "/bug", http_version="2")

    assert (answer.status, answer.values("connection")) == (500, [])


async def test_a_preflight_is_an_answer_like_others(caplog: pytest.LogCaptureFixture) -> None:
    """A preflight has a request id and an access record."""
    caplog.set_level(logging.INFO)
    headers = [(b"origin", ORIGIN.encode()), (b"access-control-request-method", b"GET")]

    answer = await ask(make_app(), http_scope("/items", method="OPTIONS", headers=headers))

    (record,) = [record for record in caplog.records if record.name == "fastapi_kit.access"]
    assert (record.__dict__["method"], record.__dict__["route"], record.__dict__["status"]) == ("OPTIONS", "-", 200)
    assert len(answer.values("x-request-id")) == 1


async def test_a_client_that_has_left_is_not_answered(caplog: pytest.LogCaptureFixture) -> None:
    """A client that leaves during its body gets no response and is not logged as a bug."""
    sent: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()

    def respond(request: Request, error: Exception) -> Response:
        sent.append(error)
        return Response()

    answer = await ask(UnhandledErrorMiddleware(app, respond), http_scope(), {"type": "http.disconnect"})

    assert (sent, answer.messages, caplog.records) == ([], [], [])
    assert type(answer.error).__name__ == "ClientDisconnect"


async def test_options_are_checked_when_the_app_starts() -> None:
    """A wrong option raises ConfigurationError and an unknown one TypeError, before the first response."""
    wrong, unknown = FastAPI(), FastAPI()
    wrong.add_middleware(BodyLimitMiddleware, max_bytes=-1)
    unknown.add_middleware(BodyLimitMiddleware, max_size=1)

    with pytest.raises(ConfigurationError):
        wrong.build_middleware_stack()
    with pytest.raises(TypeError):
        unknown.build_middleware_stack()
