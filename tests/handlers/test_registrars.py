"""Which registrar answers which errors, in which order, beside handlers of the application."""

from collections.abc import Callable

import pytest
from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from tests.handlers.apps import (
    SECRET,
    Named,
    OutOfStockError,
    answer_to,
    client_of,
    failing_app,
    reading_app,
    realworld,
    writing_app,
)
from tests.tables.library import LibraryBase

from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, KitError, NotFoundError, UserInputError
from fastapi_kit.handlers import (
    legacy_body,
    register_exception_handlers,
    register_http_error_handler,
    register_integrity_error_handler,
    register_kit_error_handler,
    register_unavailable_error_handler,
    register_unhandled_error_handler,
    register_validation_error_handler,
    register_value_error_handler,
)
from fastapi_kit.testing.client import app_client


@pytest.mark.parametrize("own_first", [True, False])
async def test_an_own_handler_of_value_errors_stays(own_first: bool) -> None:
    """register_exception_handlers keeps the application's own handler for ValueError, in either order."""
    app = failing_app(ValueError("odd"))

    async def answer(request: Request, error: Exception) -> Response:
        return JSONResponse({"mine": True}, 410)

    if not own_first:
        register_exception_handlers(app)
    app.add_exception_handler(ValueError, answer)
    if own_first:
        register_exception_handlers(app)

    async with app_client(app) as client:
        assert (await client.get("/")).status_code == 410


async def test_each_registrar_takes_its_family_only() -> None:
    """One registrar answers its own errors, and FastAPI answers the others."""
    register: Callable[[FastAPI], None]
    for register, error, status in [
        (register_kit_error_handler, NotFoundError(dict, 1), 404),
        (register_http_error_handler, HTTPException(409), 409),
        (register_value_error_handler, ValueError("odd"), 400),
        (register_unhandled_error_handler, ZeroDivisionError(), 500),
    ]:
        app = failing_app(error)
        register(app)
        async with app_client(app) as client:
            own, foreign = await client.get("/"), await client.get("/nope")

        assert (own.status_code, own.headers["content-type"]) == (status, "application/problem+json")
        assert (foreign.json() == {"detail": "Not Found"}) is (register is not register_http_error_handler)


async def test_the_validation_registrar_takes_the_422() -> None:
    """The validation registrar answers only FastAPI's 422."""
    app = FastAPI()
    register_validation_error_handler(app)

    @app.get("/{number}")
    async def read(number: int) -> None:
        raise HTTPException(404)

    async with app_client(app) as client:
        assert (await client.get("/x")).json()["code"] == "invalid_request"
        assert (await client.get("/1")).json() == {"detail": "Not Found"}


async def test_two_database_registrars_work_together(database: Database) -> None:
    """The registrars for integrity errors and lost databases work in either order, although both handle SQLAlchemyError."""
    await database.create_tables(LibraryBase.metadata)
    lost = Database("postgresql+asyncpg://127.0.0.1:1/db")
    for registrars in (
        [register_integrity_error_handler, register_unavailable_error_handler],
        [register_unavailable_error_handler, register_integrity_error_handler],
    ):
        writing, reading = writing_app(database), reading_app(lost)
        for register in registrars:
            register(writing)
            register(reading)
        async with app_client(writing) as writer, app_client(reading) as reader:
            assert (await writer.post("/null")).status_code == 422
            assert (await reader.get("/")).status_code == 503
    await lost.dispose()


async def test_value_errors_are_bugs_by_default() -> None:
    """A ValueError is a 500 and a UserInputError a 422; register_value_error_handler shows every ValueError."""
    assert (await answer_to(ValueError("secret"))).status_code == 500
    assert (await answer_to(UserInputError("shown"))).json()["detail"] == "shown"

    app = failing_app(ValueError("odd"))
    register_exception_handlers(app)
    register_value_error_handler(app, status=422)
    async with app_client(app) as client:
        response = await client.get("/")
    assert (response.status_code, response.json()["detail"], response.json()["code"]) == (422, "odd", "invalid_input")


async def test_a_validation_error_of_pydantic_is_always_a_bug() -> None:
    """Pydantic's ValidationError is a 500 even with register_value_error_handler, because its text shows values."""
    app = FastAPI()
    register_value_error_handler(app)
    register_unhandled_error_handler(app)

    @app.get("/")
    async def read() -> None:
        Named.model_validate({"name": [SECRET]})

    async with app_client(app) as client:
        response = await client.get("/")
    assert response.status_code == 500
    assert SECRET not in response.text


async def test_a_second_call_replaces_the_first() -> None:
    """After two calls there is one middleware, and the last body counts."""
    app = failing_app(ZeroDivisionError())
    register_exception_handlers(app, body=realworld)
    register_exception_handlers(app)

    async with app_client(app) as client:
        assert (await client.get("/")).json()["code"] == "internal_error"
    assert len([middleware for middleware in app.user_middleware if str(middleware).startswith("Middleware(UnhandledError")]) == 1


async def test_routes_may_come_before_or_after() -> None:
    """Routes, routers and middleware may be added after the registration."""
    app = FastAPI()
    register_exception_handlers(app)
    router = APIRouter()

    @router.get("/")
    async def fail() -> None:
        raise NotFoundError(dict, 1)

    app.include_router(router, prefix="/a")
    async with app_client(app) as client:
        assert (await client.get("/a/")).json()["code"] == "not_found"


async def test_registering_after_the_start_raises() -> None:
    """A registration after the first request raises ConfigurationError, because it would have no effect."""
    app = FastAPI()
    async with app_client(app) as client:
        await client.get("/")

    with pytest.raises(ConfigurationError):
        register_exception_handlers(app)


async def test_an_own_narrower_handler_goes_first() -> None:
    """A handler of the application for a narrower class goes first."""
    app = failing_app(OutOfStockError())

    @app.exception_handler(OutOfStockError)
    async def answer(request: Request, error: Exception) -> Response:
        return JSONResponse({"mine": True}, 410)

    async with client_of(app) as client:
        response = await client.get("/")
    assert (response.status_code, response.json()) == (410, {"mine": True})


async def test_a_second_registration_replaces_the_first_and_its_statuses() -> None:
    """After a second call the statuses of the first are gone."""

    class OwnError(Exception):
        pass

    app = FastAPI()
    register_exception_handlers(app, statuses={OwnError: 409})
    register_exception_handlers(app, body=legacy_body)

    assert OwnError not in app.exception_handlers


async def test_a_late_registration_changes_nothing() -> None:
    """A registration that raises leaves the handlers as they are."""
    app = failing_app(NotFoundError(dict, 1))
    register_exception_handlers(app)
    async with app_client(app) as client:
        await client.get("/")
        with pytest.raises(ConfigurationError):
            register_exception_handlers(app)

        assert KitError in app.exception_handlers


async def test_the_value_error_registrar_works_in_either_order() -> None:
    """register_exception_handlers keeps what register_value_error_handler has registered before."""
    app = failing_app(ValueError("must be even"))
    register_value_error_handler(app)
    register_exception_handlers(app)

    async with app_client(app) as client:
        assert (await client.get("/")).status_code == 400
