"""A task group wraps what its tasks raise: a group of one error is answered as that error."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import PlainTextResponse
from sqlalchemy.exc import IntegrityError
from tests.handlers.apps import AppError, OutOfStockError, client_of, realworld

from fastapi_kit.errors import ConfigurationError, ConflictError, NotFoundError
from fastapi_kit.handlers import problem_response, register_exception_handlers, register_kit_error_handler
from fastapi_kit.testing import app_client


async def fail(error: Exception, *, in_groups: int = 1) -> None:
    """Raise *error* in a task of a task group."""
    if in_groups == 0:
        raise error
    async with asyncio.TaskGroup() as group:
        group.create_task(fail(error, in_groups=in_groups - 1))


def grouping_app(*errors: Exception, in_groups: int = 1) -> FastAPI:
    """Return an app whose only route raises *errors* from task groups."""
    app = FastAPI()

    @app.get("/")
    async def read() -> None:
        async with asyncio.TaskGroup() as group:
            for error in errors:
                group.create_task(fail(error, in_groups=in_groups - 1))

    return app


UNIQUE = IntegrityError("INSERT", None, sqlite3.IntegrityError("UNIQUE constraint failed: persons.email"))


@pytest.mark.parametrize("in_groups", [1, 3])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFoundError(dict, 7), 404),
        (ConflictError(["email"]), 409),
        (HTTPException(410, "gone", headers={"X-Why": "old"}), 410),
        (AppError(), 418),
        (UNIQUE, 409),
    ],
)
async def test_a_known_error_in_a_group_is_answered_as_itself(error: Exception, status: int, in_groups: int) -> None:
    """Status, body and headers are those of the error, however many groups are around it."""
    async with client_of(grouping_app(error, in_groups=in_groups), body=realworld, statuses={AppError: 418}) as client:
        answer = await client.get("/")

    assert (answer.status_code, list(answer.json())) == (status, ["errors", "hint"])
    assert answer.headers.get("x-why") == ("old" if isinstance(error, HTTPException) else None)


@pytest.mark.parametrize(
    "errors",
    [
        [NotFoundError(dict, 7), NotFoundError(dict, 8)],
        [ZeroDivisionError()],
        [OutOfStockError()],
        [ConfigurationError()],
        [ExceptionGroup("own", [NotFoundError(dict, 7), NotFoundError(dict, 8)])],
    ],
)
async def test_all_other_groups_are_bugs(errors: list[Exception], caplog: pytest.LogCaptureFixture) -> None:
    """Two errors, or an unknown one, are a 500. The group reaches the log and the server."""
    app = grouping_app(*errors)
    async with client_of(app) as client:
        assert (await client.get("/")).status_code == 500
    async with app_client(app, raise_errors=True) as client:
        with pytest.raises(ExceptionGroup, match="TaskGroup"):
            await client.get("/")

    assert caplog.text.count("Unhandled ExceptionGroup") == 2


async def test_own_handlers_answer_groups_too() -> None:
    """The handlers that an application has for a class or a status answer the error in the group."""
    app = grouping_app(AppError())

    @app.exception_handler(AppError)
    def own(request: Request, error: Exception) -> Response:
        return PlainTextResponse(type(error).__name__, 418)

    other = grouping_app(HTTPException(404))

    @other.exception_handler(404)
    async def missing(request: Request, error: Exception) -> Response:
        return PlainTextResponse("missing", 404)

    whole = grouping_app(AppError())

    @whole.exception_handler(ExceptionGroup)
    async def group(request: Request, error: Exception) -> Response:
        return PlainTextResponse("group", 400)

    answers = []
    for each in (app, other, whole):
        async with client_of(each) as client:
            answer = await client.get("/")
            answers.append((answer.status_code, answer.text))
    assert answers == [(418, "AppError"), (404, "missing"), (400, "group")]


async def test_an_error_of_an_own_handler_is_raised() -> None:
    """If the application's handler fails, its own error is raised."""
    app = grouping_app(AppError())

    @app.exception_handler(AppError)
    async def own(request: Request, error: Exception) -> Response:
        raise ZeroDivisionError from error

    register_exception_handlers(app)
    async with app_client(app, raise_errors=True) as client:
        with pytest.raises(ZeroDivisionError):
            await client.get("/")


async def test_one_registrar_is_enough() -> None:
    """With one registrar, groups of its errors and of FastAPI's own are answered."""
    for error, status in ((NotFoundError(dict, 7), 404), (HTTPException(410), 410), (ZeroDivisionError(), 500)):
        app = grouping_app(error)
        register_kit_error_handler(app)
        async with app_client(app) as client:
            assert (await client.get("/")).status_code == status


async def test_a_task_group_of_a_dependency() -> None:
    """A dependency that gives a task group wraps what the route raises."""

    async def get_tasks() -> AsyncIterator[asyncio.TaskGroup]:
        async with asyncio.TaskGroup() as group:
            yield group

    app = FastAPI()

    @app.get("/")
    async def read(tasks: Annotated[asyncio.TaskGroup, Depends(get_tasks)]) -> None:
        raise NotFoundError(dict, 7)

    async with client_of(app) as client:
        assert (await client.get("/")).json()["code"] == "not_found"


async def test_problem_response_answers_groups() -> None:
    """In a handler or middleware of the application, the response is that to the error in the group."""
    app = FastAPI()

    @app.get("/")
    async def read(request: Request) -> Response:
        return problem_response(request, ExceptionGroup("tasks", [ExceptionGroup("tasks", [AppError()])]))

    async with client_of(app, body=realworld, statuses={AppError: 418}) as client:
        answer = await client.get("/")
    assert (answer.status_code, list(answer.json())) == (418, ["errors", "hint"])
