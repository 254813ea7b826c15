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
    """A client of notes with a batch of three at most."""
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
    """201 and the rows, one statement and committed."""
    with assert_max_queries(notes, 1):
        response = await batches.post("/notes/batch", json=[{"title": title} for title in "cab"])

    assert response.status_code == 201
    assert response.json() == [{"id": 1, "title": "c"}, {"id": 2, "title": "a"}, {"id": 3, "title": "b"}]
    assert (await batches.get("/notes")).json()["total"] == 3


@pytest.mark.parametrize(
    ("titles", "status", "loc"),
    [
        (["a", "a"], 409, ["title"]),
        (["a", "x" * 51], 422, ["title"]),
        (["a", 7], 422, ["body", 1, "title"]),
        ([], 422, ["body"]),
        (list("abcd"), 422, ["body"]),
    ],
)
async def test_a_batch_is_stored_whole_or_not_at_all(batches: AsyncClient, titles: list[object], status: int, loc: list[object]) -> None:
    """A conflict, a wrong row, none and too many: nothing is stored."""
    response = await batches.post("/notes/batch", json=[{"title": title} for title in titles])

    assert response.status_code == status
    assert [item["loc"] for item in response.json()["errors"]] == [loc]
    assert (await batches.get("/notes")).json()["total"] == 0


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE", "PUT", "OPTIONS"])
async def test_a_batch_is_no_row(batches: AsyncClient, method: str) -> None:
    """RFC 9110, 15.5.6: its path has POST alone, and no other method takes the word for a key."""
    response = await batches.request(method, "/notes/batch", json={})

    assert (response.status_code, response.headers["allow"]) == (405, "POST")


async def test_a_row_called_batch_is_found(notes: Database) -> None:
    """A key of text may be that word."""
    router = crud_router(WordService, read=WordIn, session=notes.session, endpoints=Endpoint.CRUD | Endpoint.CREATE_MANY)

    async with client_of(router, prefix="/words") as client:
        created = await client.post("/words/batch", json=[{"text": "batch"}])
        found = await client.get("/words/batch")

    assert (created.status_code, found.status_code, found.json()) == (201, 200, {"text": "batch"})


async def test_a_batch_gets_another_method(notes: Database) -> None:
    """What a host declares under its path is found, whatever comes first, and told."""
    router = crud_router(NoteService, read=NoteRead, session=notes.session, endpoints=Endpoint.CRUD | Endpoint.CREATE_MANY)

    @router.get("/batch")
    async def get_batch() -> str:
        return "mine"

    async with client_of(router, prefix="/notes") as client:
        found, refused = await client.get("/notes/batch"), await client.delete("/notes/batch")

    assert (found.status_code, found.json()) == (200, "mine")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, POST")


async def test_a_batch_shows_its_relationships(notes: Database) -> None:
    """In the order given, loaded for all rows at once."""
    router = crud_router(FolderService, read=FolderWithNotes, session=notes.session, endpoints=Endpoint.CREATE_MANY)
    async with client_of(router, prefix="/folders") as client:
        with assert_max_queries(notes, 9) as log:
            response = await client.post("/folders/batch", json=[{"id": id} for id in (3, 1, 2)])

    assert sum("FROM notes" in statement for statement in log.statements) == 1
    assert [folder["id"] for folder in response.json()] == [3, 1, 2]


def test_a_batch_without_rows_is_refused() -> None:
    """Found at start-up."""
    with pytest.raises(ConfigurationError, match="max_batch"):
        crud_router(NoteService, read=NoteRead, session=get_session, options=RouterOptions(max_batch=0))
