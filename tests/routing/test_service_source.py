"""Where a router gets its service: from session=, from service=, and from the service's class."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Header
from sqlalchemy.ext.asyncio import AsyncSession
from tests.routing.models import Note, NoteCreate, NoteRead, NoteService, client_of, get_service, get_session

from fastapi_kit.crud import CRUDService
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.routing import crud_router


async def test_an_own_get_db_is_enough(notes: Database) -> None:
    """With a get_db that never commits, no write is lost."""

    async def get_db() -> AsyncIterator[AsyncSession]:
        async with notes.sessions() as session:
            yield session

    async with client_of(crud_router(NoteService, read=NoteRead, session=get_db), prefix="/notes") as client:
        await client.post("/notes", json={"title": "a"})

        assert (await client.get("/notes")).json()["total"] == 1


async def test_a_dependency_may_make_the_service(notes: Database) -> None:
    """service= takes a dependency that makes the service."""

    class SignedService(NoteService):
        def __init__(self, session: AsyncSession, author: str) -> None:
            super().__init__(session)
            self.author = author

        async def create_values(self, data: NoteCreate) -> dict[str, Any]:
            return {**await super().create_values(data), "title": f"{data.title} by {self.author}"}

    async def get_service(session: Annotated[AsyncSession, notes.session], author: Annotated[str, Header()]) -> SignedService:
        return SignedService(session, author)

    async with client_of(crud_router(NoteService, read=NoteRead, service=get_service), prefix="/notes") as client:
        response = await client.post("/notes", json={"title": "a"}, headers={"Author": "Ada"})

    assert response.json()["title"] == "a by Ada"


def test_exactly_one_source_of_the_service() -> None:
    """Both or neither of session= and service= raise TypeError."""
    with pytest.raises(TypeError, match="exactly one"):
        crud_router(NoteService, read=NoteRead)
    with pytest.raises(TypeError, match="exactly one"):
        crud_router(NoteService, read=NoteRead, session=get_session, service=get_service)


def test_a_service_without_its_types_raises() -> None:
    """A service without model or schemas raises ConfigurationError that names it."""

    class Nameless(CRUDService): ...

    class Half(CRUDService):
        model = Note

    with pytest.raises(ConfigurationError, match="Nameless has no model"):
        crud_router(Nameless, read=NoteRead, session=get_session)
    with pytest.raises(ConfigurationError, match="Half has no create_schema"):
        crud_router(Half, read=NoteRead, session=get_session)


async def test_a_prefix_may_have_any_parameter(notes: Database) -> None:
    """Parameters of the prefix may have any name that the library uses inside."""
    router = crud_router(NoteService, read=NoteRead, session=notes.session)
    names = ("value", "window", "data", "key", "rows", "source", "service", "before", "request", "response")

    async with client_of(router, prefix="".join(f"/{{{name}}}" for name in names) + "/notes") as client:
        created = await client.post("/x" * len(names) + "/notes", json={"title": "a"})
        listed = await client.get("/x" * len(names) + "/notes")
        one = await client.get(created.headers["location"])

    assert (created.status_code, listed.status_code, one.status_code) == (201, 200, 200)
