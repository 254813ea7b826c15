"""A client of an app with one route for each kind of error of FastAPI."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPBearer
from httpx import AsyncClient
from pydantic import BaseModel, ConfigDict, EmailStr, Field, Json, field_validator
from pydantic_core import PydanticCustomError
from tests.handlers.apps import client_of

from fastapi_kit.errors import UserInputError


class Cat(BaseModel):
    tag: Literal["cat"]


class Dog(BaseModel):
    tag: Literal["dog"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    password: Annotated[str, Field(min_length=8)] = "12345678"
    price: float = 0
    kind: Literal["cat", "dog"] = "cat"
    scores: dict[str, int] = {}
    email: EmailStr | None = None
    nested: list[Any] = []
    id: UUID | None = None
    pet: Annotated[Cat | Dog, Field(discriminator="tag")] | None = None
    code: str = "ok"
    inner: dict[str, dict[str, int]] = {}
    text: Json[dict[str, int]] = {}
    choice: int | list[int] = 1
    street: Annotated[str, Field(alias="Straße 1")] = ""

    @field_validator("code")
    @classmethod
    def check_code(cls, code: str) -> str:
        match code.split():
            case ["echo", *_]:
                raise ValueError(f"what is {code}?")
            case ["shout", *_]:
                raise ValueError(f"what is {code[:20].upper()}...?")
            case ["bad"]:
                raise ValueError("must be a known code")
            case ["assert"]:
                raise AssertionError("must hold")
            case ["input"]:
                raise UserInputError("the code input is not taken")
            case ["custom"]:
                raise PydanticCustomError("no_code", "has no such code")
            case ["names", name]:
                raise PydanticCustomError("alone", "goes with {field} only", {"field": name})
        return code


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    app = FastAPI()

    @app.post("/items")
    async def create(item: Strict) -> None:
        pass

    @app.get("/items/{number}")
    async def read(number: int, page: float = 1) -> None:
        pass

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, "short and stout", headers={"X-Pot": "tea"})

    @app.get("/locked", dependencies=[Depends(HTTPBearer())])
    async def locked() -> None:
        pass

    async with client_of(app) as client:
        yield client
