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


async def test_the_hosts_own_get_db_is_enough(notes: Database) -> None:
    """A bare generator that never commits loses no write."""

    async def get_db() -> AsyncIterator[AsyncSession]:
        async with notes.sessions() as session:
            yield session

    async with client_of(crud_router(NoteService, read=NoteRead, session=get_db), prefix="/notes") as client:
        await client.post("/notes", json={"title": "a"})

        assert (await client.get("/notes")).json()["total"] == 1


async def test_a_dependency_may_make_the_service(notes: Database) -> None:
    """Service= takes what ``Service(session)`` cannot know."""

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
    """Neither and both are mistakes, found at start-up."""
    with pytest.raises(TypeError, match="exactly one"):
        crud_router(NoteService, read=NoteRead)
    with pytest.raises(TypeError, match="exactly one"):
        crud_router(NoteService, read=NoteRead, session=get_session, service=get_service)


def test_a_service_without_its_types_is_refused() -> None:
    """Found at start-up, by name."""

    class Nameless(CRUDService): ...

    class Half(CRUDService):
        model = Note

    with pytest.raises(ConfigurationError, match="Nameless has no model"):
        crud_router(Nameless, read=NoteRead, session=get_session)
    with pytest.raises(ConfigurationError, match="Half has no create_schema"):
        crud_router(Half, read=NoteRead, session=get_session)


@pytest.mark.parametrize("name", ["value", "window", "data", "key", "rows", "source", "service", "before", "request", "response"])
async def test_a_prefix_may_have_any_parameter(notes: Database, name: str) -> None:
    """The names inside the library are none of a path's."""
    router = crud_router(NoteService, read=NoteRead, session=notes.session)

    async with client_of(router, prefix=f"/{{{name}}}/notes") as client:
        created = await client.post("/x/notes", json={"title": "a"})
        listed = await client.get("/x/notes")
        one = await client.get(created.headers["location"])

    assert (created.status_code, listed.status_code, one.status_code) == (201, 200, 200)
