"""Apps whose routes fail, and the bodies that they answer with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from httpx import AsyncClient
from httpx import Response as ClientResponse
from pydantic import BaseModel
from sqlalchemy import insert, text
from tests.tables.library import Author

from fastapi_kit.db import Database
from fastapi_kit.errors import KitError
from fastapi_kit.handlers import Problem, register_exception_handlers
from fastapi_kit.testing.client import app_client

__all__ = [
    "JSON",
    "SECRET",
    "AppError",
    "ErrorList",
    "Named",
    "OutOfStockError",
    "RealWorldError",
    "answer_to",
    "client_of",
    "failing_app",
    "reading_app",
    "realworld",
    "writing_app",
]


JSON = {"Content-Type": "application/json"}


def failing_app(error: Exception) -> FastAPI:
    """Return an app without handlers, whose only route raises *error*."""
    app = FastAPI()

    @app.get("/")
    async def fail() -> None:
        raise error

    return app


async def answer_to(error: Exception, *, headers: dict[str, str] | None = None, **options: Any) -> ClientResponse:
    """Return the response to *error* if all handlers are registered."""
    app = failing_app(error)
    register_exception_handlers(app, **options)
    async with app_client(app) as client:
        return await client.get("/", headers=headers)


@asynccontextmanager
async def client_of(app: FastAPI, **options: Any) -> AsyncIterator[AsyncClient]:
    register_exception_handlers(app, **options)
    async with app_client(app) as client:
        yield client


class OutOfStockError(KitError):
    code = "out_of_stock"
    detail = "We have only 12 of these."


class AppError(Exception):
    """An error of the application."""


class Named(BaseModel):
    name: str


SECRET = "hunter2-hunter2-hunter2"


class ErrorList(BaseModel):
    body: list[str]


class RealWorldError(BaseModel):
    errors: ErrorList
    hint: str | None = None


def realworld(problem: Problem) -> RealWorldError:
    lines = [f"{item.loc[-1]} {item.message}" for item in problem.errors or ()]
    return RealWorldError(errors=ErrorList(body=lines or [problem.detail]))


def writing_app(database: Database) -> FastAPI:
    app = FastAPI()

    @app.post("/{email}")
    async def create(email: str) -> None:
        async with database.engine.begin() as connection:
            await connection.execute(insert(Author).values(email=None if email == "null" else email.replace("NUL", "\0")))

    return app


def reading_app(database: Database) -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def read() -> None:
        async with database.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    return app
