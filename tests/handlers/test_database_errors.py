"""Errors of SQL that the application runs itself: 409, 422 and 503."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from tests.handlers.apps import answer_to, client_of, reading_app, writing_app
from tests.tables.library import LibraryBase

from fastapi_kit.db import Database, DatabaseOptions
from fastapi_kit.errors import UnavailableError
from fastapi_kit.handlers import register_exception_handlers, register_integrity_error_handler, register_unavailable_error_handler
from fastapi_kit.testing.client import app_client


@pytest.mark.parametrize("register", [register_exception_handlers, register_integrity_error_handler])
async def test_a_rejected_write_of_the_application_is_a_4xx(database: Database, register: Callable[[FastAPI], None]) -> None:
    """A violated unique constraint is a 409 and a null a 422; the field is named and the SQL is not shown."""
    await database.create_tables(LibraryBase.metadata)
    app = writing_app(database)
    register(app)

    async with app_client(app) as client:
        answers = [await client.post(f"/{email}") for email in ("a@example", "a@example", "null")]

    assert [answer.status_code for answer in answers] == [200, 409, 422]
    assert [answer.json()["code"] for answer in answers[1:]] == ["conflict", "invalid_data"]
    assert all("email" in answer.json()["errors"][0]["loc"] for answer in answers[1:])
    assert not [answer for answer in answers[1:] if "INSERT" in answer.text or "a@example" in answer.text]


async def test_values_that_postgresql_rejects_are_a_422(postgres_database: Database) -> None:
    """Too long text and NUL are a 422, although PostgreSQL raises no IntegrityError for them."""
    await postgres_database.create_tables(LibraryBase.metadata)

    async with client_of(writing_app(postgres_database)) as client:
        answers = [await client.post(f"/{email}") for email in ("x" * 51, "NUL")]

    assert [answer.status_code for answer in answers] == [422, 422]


@pytest.mark.parametrize("register", [register_exception_handlers, register_unavailable_error_handler])
async def test_a_lost_database_is_a_503(register: Callable[[FastAPI], None]) -> None:
    """asyncpg's ConnectionRefusedError becomes a 503 with Retry-After, without the address."""
    database = Database("postgresql+asyncpg://someone:secret@127.0.0.1:1/db")
    app = reading_app(database)
    register(app)

    async with app_client(app) as client:
        response = await client.get("/")
    await database.dispose()

    assert (response.status_code, response.json()["code"], response.headers["retry-after"]) == (503, "unavailable", "1")
    assert not [part for part in ("someone", "secret", "127.0.0.1") if part in response.text]


async def test_a_503_is_logged_by_its_kinds(caplog: pytest.LogCaptureFixture) -> None:
    """The log names the classes of the errors, without addresses and texts of the driver."""
    database = Database("postgresql+asyncpg://someone:secret@127.0.0.1:1/db")
    app = reading_app(database)

    async with client_of(app) as client:
        await client.get("/")
    with_cause = UnavailableError("cache")
    with_cause.__cause__ = ConnectionResetError("10.0.0.1")
    await answer_to(with_cause)
    await database.dispose()

    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "Request None is answered 503: ConnectionRefusedError"),
        ("WARNING", "Request None is answered 503: UnavailableError from ConnectionResetError"),
    ]


async def test_an_exhausted_pool_is_a_503(tmp_path: Path) -> None:
    """A timeout of the pool is a 503."""
    options = DatabaseOptions(pool_size=1, max_overflow=0, pool_timeout=0.01)
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'small.db'}", options=options)

    async with client_of(reading_app(database)) as client, database.engine.connect():
        response = await client.get("/")
    await database.dispose()

    assert (response.status_code, response.json()["code"]) == (503, "unavailable")


NO_TEXT = UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")


@pytest.mark.parametrize("error", [FileNotFoundError("a"), ConnectionRefusedError("mail"), TimeoutError(), OverflowError(), NO_TEXT])
async def test_errors_that_are_not_the_databases_are_bugs(error: Exception) -> None:
    """Errors of the application's own files, sockets and numbers are a 500."""
    assert (await answer_to(error)).status_code == 500


async def test_a_mistake_in_sql_is_a_bug(database: Database) -> None:
    """Wrong SQL is a 500 that does not show the SQL."""
    app = FastAPI()

    @app.get("/")
    async def read() -> None:
        async with database.engine.connect() as connection:
            await connection.execute(text("SELECT nonsense"))

    async with client_of(app) as client:
        response = await client.get("/")
    assert response.status_code == 500
    assert "nonsense" not in response.text
