"""problem_response() answers as the app does: in a middleware, and in a handler of the application."""

import sqlite3
from collections.abc import Awaitable, Callable

import pytest
from fastapi import FastAPI, HTTPException, Request, Response
from sqlalchemy.exc import IntegrityError
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.handlers.apps import AppError, client_of, failing_app, realworld

from fastapi_kit.errors import NotFoundError, PermissionDeniedError, UnavailableError
from fastapi_kit.handlers import (
    legacy_body,
    problem_response,
    register_exception_handlers,
    register_validation_error_handler,
    register_value_error_handler,
)
from fastapi_kit.testing.client import app_client


def answering_app(answer: Callable[[Request], Awaitable[Response]]) -> FastAPI:
    app = FastAPI()
    app.add_api_route("/", answer, response_model=None)
    return app


@pytest.mark.parametrize(("error", "status"), [(UnavailableError("x"), 503), (HTTPException(413), 413), (ZeroDivisionError(), 500)])
async def test_a_middleware_can_answer_like_the_app(error: Exception, status: int) -> None:
    """The response has the body of the app if handlers are registered, and the default body if not."""

    async def answer(request: Request) -> Response:
        return problem_response(request, error)

    async with app_client(answering_app(answer)) as client:
        plain = await client.get("/")
    async with client_of(answering_app(answer), body=realworld) as client:
        own = await client.get("/")

    assert (plain.status_code, plain.json()["status"]) == (status, status)
    assert (own.status_code, list(own.json())) == (status, ["errors", "hint"])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFoundError(dict, 7), 404),
        (HTTPException(404), 404),
        (AppError(), 418),
        (UnavailableError("database"), 503),
        (ValueError("x"), 400),
    ],
)
async def test_an_own_handler_can_answer_like_the_app(error: Exception, status: int) -> None:
    """In a handler of the application, the response has the registered body and statuses."""
    app = failing_app(error)

    @app.exception_handler(type(error))
    async def own(request: Request, error: Exception) -> Response:
        return problem_response(request, error)

    register_value_error_handler(app, body=realworld)
    async with client_of(app, body=realworld, statuses={AppError: 418}) as client:
        app.add_exception_handler(type(error), own)
        answer = await client.get("/")

    assert (answer.status_code, list(answer.json())) == (status, ["errors", "hint"])


async def test_the_last_registration_counts() -> None:
    """A second registration replaces the body and the statuses of the first."""

    async def answer(request: Request) -> Response:
        return problem_response(request, AppError())

    app = answering_app(answer)
    register_exception_handlers(app, body=realworld, statuses={AppError: 418})
    async with client_of(app) as client:
        answered = await client.get("/")

    assert (answered.status_code, answered.json()["code"]) == (500, "internal_error")


async def test_a_mounted_app_answers_in_its_own_body() -> None:
    """A mounted app uses its own body, in its middleware too; the outer app keeps its own."""

    class Refusing:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and scope["path"].endswith("/refused"):
                await problem_response(Request(scope), PermissionDeniedError())(scope, receive, send)
            else:
                await self.app(scope, receive, send)

    async def fails(request: Request) -> Response:
        return problem_response(request, NotFoundError(dict, 7))

    outer, inner, bare = answering_app(fails), answering_app(fails), answering_app(fails)
    inner.add_middleware(Refusing)
    register_exception_handlers(inner, body=realworld)
    outer.mount("/inner", inner)
    outer.mount("/bare", bare)
    async with client_of(outer, body=legacy_body) as client:
        answers = [await client.get(path) for path in ("/", "/inner/", "/inner/refused", "/bare/")]

    assert [answer.status_code for answer in answers] == [404, 404, 403, 404]
    assert [next(iter(answer.json())) for answer in answers] == ["detail", "errors", "errors", "type"]


async def test_an_error_that_no_registrar_covers_has_the_default_body() -> None:
    """With only the validation registrar, an error of the database gets the default status and body."""

    async def answer(request: Request) -> Response:
        return problem_response(request, IntegrityError("INSERT", None, sqlite3.IntegrityError("UNIQUE constraint failed: persons.email")))

    app = answering_app(answer)
    register_validation_error_handler(app, body=realworld)
    async with app_client(app) as client:
        answered = await client.get("/")

    assert (answered.status_code, answered.json()["code"]) == (409, "conflict")
