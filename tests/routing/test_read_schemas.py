"""What the responses show: lists, relationships, aliases, and schemas that cannot be filled."""

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, field_validator
from pydantic.alias_generators import to_camel
from tests.routing.models import Folder, FolderService, FolderWithNotes, NoteCreate, NoteRead, NoteService, NoteTitle, client_of

from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.routing import Endpoint, RouterOptions, crud_router


class NoteWithRating(NoteRead):
    rating: int


async def test_an_app_whose_rows_cannot_be_shown_does_not_start(notes: Database) -> None:
    """A read or list schema with a field that the model does not have raises ConfigurationError at start-up."""
    for read, item in ((NoteWithRating, None), (NoteRead, NoteWithRating)):
        router = crud_router(NoteService, read=read, session=notes.session, options=RouterOptions(list_item=item))

        with pytest.raises(ConfigurationError, match="rating"):
            async with client_of(router, prefix="/notes"):
                pass


async def test_what_was_written_is_shown(notes: Database) -> None:
    """The response to a write shows the row even if base_query hides it."""

    class HidingService(FolderService):
        def base_query(self) -> Any:
            return super().base_query().where(Folder.id > 1)

    router = crud_router(HidingService, read=FolderWithNotes, session=notes.session)
    async with client_of(router, prefix="/folders") as client:
        created = await client.post("/folders", json={"id": 1})

    assert (created.status_code, created.json()) == (201, {"id": 1, "notes": []})


class QuietNote(NoteRead):
    """Its validator rejects what is stored."""

    @field_validator("title")
    @classmethod
    def _quiet(cls, title: str) -> str:
        if title == "LOUD":
            raise ValueError("loud")
        return title


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/notes", {"title": "LOUD"}),
        ("POST", "/notes/batch", [{"title": "x"}, {"title": "LOUD"}]),
        ("PATCH", "/notes/1", {"title": "LOUD"}),
    ],
)
async def test_a_write_whose_answer_cannot_be_made_stores_nothing(notes: Database, method: str, path: str, body: Any) -> None:
    """If the response cannot be built, the write is rolled back."""
    async with notes.begin() as session:
        await NoteService(session).create(NoteCreate(title="kept"))
    router = crud_router(NoteService, read=QuietNote, session=notes.session, endpoints=Endpoint.CRUD | Endpoint.CREATE_MANY)
    async with client_of(router, prefix="/notes") as client:
        response = await client.request(method, path, json=body)

    assert (response.status_code, "location" in response.headers) == (500, False)
    async with notes.sessions() as session:
        assert [note.title for note in await NoteService(session).list()] == ["kept"]


async def test_a_list_may_show_less(notes: Database) -> None:
    """list_item is the schema of the rows in a list."""
    options = RouterOptions(list_item=NoteTitle)
    async with client_of(crud_router(NoteService, read=NoteRead, session=notes.session, options=options), prefix="/notes") as client:
        await client.post("/notes", json={"title": "a"})

        assert (await client.get("/notes")).json()["items"] == [{"title": "a"}]
        assert (await client.get("/notes/1")).json() == {"id": 1, "title": "a"}


async def test_a_written_row_shows_its_relationships(notes: Database) -> None:
    """The response to a write has the relationships of the schema."""
    router = crud_router(FolderService, read=FolderWithNotes, session=notes.session)
    async with client_of(router, prefix="/folders") as client:
        created = await client.post("/folders", json={"id": 1})

    assert (created.status_code, created.json()) == (201, {"id": 1, "notes": []})


class CamelNote(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)

    id: int
    folder_id: int | None


async def test_a_read_schema_may_have_aliases(notes: Database) -> None:
    """Attributes are found by the names of the fields, and the response has the aliases."""
    async with client_of(crud_router(NoteService, read=CamelNote, session=notes.session), prefix="/notes") as client:
        created = await client.post("/notes", json={"title": "a"})
        listed = await client.get("/notes")

    assert created.status_code == 201
    assert created.json().keys() == {"id", "folderId"} == listed.json()["items"][0].keys()
