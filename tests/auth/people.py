"""Users, tokens and an app for the tests of authentication."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi import FastAPI
from httpx import AsyncClient
from pydantic import BaseModel

from fastapi_kit.auth import JWTService, TokenClaims
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.testing import app_client

SECRET = "o3Q9vK1cXf7mZ2rT8yLwB5nH4dJ6sGaE"
tokens = JWTService(secret_key=SECRET)


@dataclass
class Person:
    """A user without a database."""

    id: int
    is_active: bool = True
    is_verified: bool = True
    is_superuser: bool = False
    roles: list[str] = field(default_factory=list[str])
    permissions: list[str] = field(default_factory=list[str])


class PersonRead(BaseModel):
    id: int


class People:
    """The existing users, and how often they were loaded."""

    def __init__(self, *people: Person) -> None:
        self.rows = {person.id: person for person in people}
        self.loads = 0

    async def load(self, session: object, claims: TokenClaims) -> Person | None:
        self.loads += 1
        return self.rows.get(claims.subject(int))


async def no_session() -> None:
    """The session of an application without a database."""


def app_with(build: Callable[[FastAPI], object]) -> FastAPI:
    app = FastAPI()
    register_exception_handlers(app)
    build(app)
    return app


@asynccontextmanager
async def client_of(build: Callable[[FastAPI], object]) -> AsyncGenerator[AsyncClient]:
    async with app_client(app_with(build)) as client:
        yield client
