"""CREATE_MANY: POST /batch."""

from collections.abc import AsyncIterator

import pytest
from httpx import AsyncClient
from tests.routing.models import FolderService, FolderWithNotes, NoteRead, NoteService, WordIn, WordService, client_of, get_session

from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.routing import Endpoint, RouterOptions, crud_router
from fastapi_kit.testing.queries import assert_max_queries


@pytest.fixture
async def batches(notes: Database) -> AsyncIterator[AsyncClient]:
    """A client of notes whose batches have at most three rows."""
    router = crud_router(
        NoteService,
        read=NoteRead,
        session=notes.session,
        endpoints=Endpoint.CRUD | Endpoint.CREATE_MANY,
        options=RouterOptions(max_batch=3),
    )
    async with client_of(router, prefix="/notes") as client:
        yield client


async def test_a_batch_is_created_in_its_order(batches: AsyncClient, notes: Database) -> None:
    """A batch returns 201 and its rows in order, stored by one statement."""
    with assert_max_queries(notes, 1):
        response = await batches.post("/notes/batch", json=[{"title": title} for title in "cab"])

    assert response.status_code == 201
    assert response.json() == [{"id": 1, "title": "c"}, {"id": 2, "title": "a"}, {"id": 3, "title": "b"}]
    assert (await batches.get("/notes")).json()["total"] == 3


async def test_a_batch_is_stored_whole_or_not_at_all(batches: AsyncClient) -> None:
    """A conflict, an invalid row, an empty batch and too many rows store nothing."""
    cases: list[tuple[list[object], int, list[object]]] = [
        (["a", "a"], 409, ["title"]),
        (["a", "x" * 51], 422, ["title"]),
        (["a", 7], 422, ["body", 1, "title"]),
        ([], 422, ["body"]),
        (list("abcd"), 422, ["body"]),
    ]
    for titles, status, loc in cases:
        response = await batches.post("/notes/batch", json=[{"title": title} for title in titles])

        assert response.status_code == status
        assert [item["loc"] for item in response.json()["errors"]] == [loc]
        assert (await batches.get("/notes")).json()["total"] == 0


async def test_other_methods_on_the_batch_are_a_405(batches: AsyncClient) -> None:
    """Allow names only POST, and no other method reads the word batch as a key (RFC 9110, 15.5.6)."""
    for method in ("GET", "PATCH", "DELETE", "PUT", "OPTIONS"):
        response = await batches.request(method, "/notes/batch", json={} if method == "PATCH" else None)

        assert (response.status_code, response.headers["allow"]) == (405, "POST"), method


async def test_a_row_called_batch_is_found(notes: Database) -> None:
    """A row whose string key is "batch" can be reached."""
    router = crud_router(WordService, read=WordIn, session=notes.session, endpoints=Endpoint.CRUD | Endpoint.CREATE_MANY)

    async with client_of(router, prefix="/words") as client:
        created = await client.post("/words/batch", json=[{"text": "batch"}])
        found = await client.get("/words/batch")

    assert (created.status_code, found.status_code, found.json()) == (201, 200, {"text": "batch"})


async def test_a_batch_gets_another_method(notes: Database) -> None:
    """A route of the application for the path of the batch is found, and Allow names its method."""
    router = crud_router(NoteService, read=NoteRead, session=notes.session, endpoints=Endpoint.CRUD | Endpoint.CREATE_MANY)

    @router.get("/batch")
    async def get_batch() -> str:
        return "mine"

    async with client_of(router, prefix="/notes") as client:
        found, rejected = await client.get("/notes/batch"), await client.delete("/notes/batch")

    assert (found.status_code, found.json()) == (200, "mine")
    assert (rejected.status_code, rejected.headers["allow"]) == (405, "GET, POST")


async def test_a_batch_shows_its_relationships(notes: Database) -> None:
    """The response has the relationships of all rows, loaded at once."""
    router = crud_router(FolderService, read=FolderWithNotes, session=notes.session, endpoints=Endpoint.CREATE_MANY)
    async with client_of(router, prefix="/folders") as client:
        with assert_max_queries(notes, 9) as log:
            response = await client.post("/folders/batch", json=[{"id": id} for id in (3, 1, 2)])

    assert sum("FROM notes" in statement for statement in log.statements) == 1
    assert [folder["id"] for folder in response.json()] == [3, 1, 2]


def test_max_batch_of_zero_raises() -> None:
    """max_batch=0 raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match="max_batch"):
        crud_router(NoteService, read=NoteRead, session=get_session, options=RouterOptions(max_batch=0))
