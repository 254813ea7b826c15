"""ETags and preconditions of generated routes, and by hand, on both databases."""

import asyncio
from collections.abc import AsyncIterator
from functools import cache
from typing import Annotated

import pytest
from fastapi import FastAPI, Request, Response
from httpx import AsyncClient
from pydantic import BaseModel, ConfigDict
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession
from tests.routing.models import (
    ANY_DATABASE,
    NestedNote,
    NoteCreate,
    NoteRead,
    NoteService,
    client_of,
    client_on,
    get_session,
    operations_of,
)
from tests.tables.blog import BlogBase, Document, Draft, Note
from tests.thorough import FULL

from fastapi_kit.crud import CRUDService
from fastapi_kit.db import Database, unit_of_work
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.etags import IfMatch, RequiredIfMatch, answer_with_etag
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.routing import Endpoint, RouterOptions, crud_router

WRITERS = 20 if FULL else 8


class TextIn(BaseModel):
    text: str


class TextRead(TextIn):
    model_config = ConfigDict(from_attributes=True)
    id: int


class DocumentWithNotes(TextRead):
    notes: list[NestedNote]


class DocumentService(CRUDService[Document, TextIn, TextIn]): ...


class DraftService(CRUDService[Draft, TextIn, TextIn]): ...


@pytest.fixture
async def documents(database: Database) -> Database:
    """A database with one document of a note. It is a draft, too."""
    await database.create_tables(BlogBase.metadata)
    async with database.begin() as session:
        await DocumentService(session).create(TextIn(text="one"))
        await NoteService(session).create(NoteCreate(title="first"), document_id=1)
    return database


@cache
def app_of(db: Database) -> FastAPI:
    """Return an app with generated routes of every kind, and the routes of a document by hand."""
    app = FastAPI()
    register_exception_handlers(app)
    required = RouterOptions(require_if_match=True)
    app.include_router(crud_router(DocumentService, read=TextRead, session=db.session), prefix="/documents")
    app.include_router(crud_router(DocumentService, read=DocumentWithNotes, session=db.session), prefix="/nested")
    app.include_router(crud_router(DocumentService, read=TextRead, session=db.session, options=required), prefix="/required")
    parent = RouterOptions(parent=Document.shelf)
    app.include_router(crud_router(DocumentService, read=TextRead, session=db.session, options=parent), prefix="/shelves/{shelf}/documents")
    app.include_router(crud_router(DraftService, read=TextRead, session=db.session), prefix="/drafts")
    app.include_router(crud_router(NoteService, read=NoteRead, session=db.session), prefix="/notes")

    @app.get("/by-hand/{key}", response_model=TextRead)
    async def read(key: int, session: Annotated[AsyncSession, db.session], request: Request, response: Response) -> Document:
        document = await DocumentService(session).get_one(key)
        response.headers["Vary"] = "Accept"
        answer_with_etag(document, request=request, response=response)
        return document

    @app.patch("/by-hand/{key}", response_model=TextRead)
    async def change(
        key: int,
        data: TextIn,
        session: Annotated[AsyncSession, db.session],
        version: RequiredIfMatch,
        request: Request,
        response: Response,
    ) -> Document:
        document = await DocumentService(session).update(key, data, expected_version=version)
        answer_with_etag(document, request=request, response=response)
        return document

    @app.delete("/by-hand/{key}", status_code=204)
    async def delete(key: int, session: Annotated[AsyncSession, db.session], version: IfMatch) -> None:
        async with unit_of_work(session):
            for note in await NoteService(session).list(Note.document_id == key):
                await NoteService(session).delete(note.id)
            await DocumentService(session).delete(key, expected_version=version)

    return app


@pytest.fixture
async def client(documents: Database) -> AsyncIterator[AsyncClient]:
    """A client of the app."""
    async with client_on(documents, app_of(ANY_DATABASE)) as client:
        yield client


ROUTES = pytest.mark.parametrize("path", ["/documents/1", "/nested/1", "/shelves/1/documents/1", "/drafts/1", "/by-hand/1"])


@ROUTES
async def test_a_client_that_has_the_row_gets_a_304(client: AsyncClient, path: str) -> None:
    """If-None-Match with the ETag of the row, weak or among others, gets 304 without a body and with the ETag."""
    read = await client.get(path)
    tag = read.headers["etag"]

    for sent in (tag, f"W/{tag}", f'"a,b", {tag}', "*"):
        again = await client.get(path, headers={"If-None-Match": sent})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag), sent
        assert again.headers.get("vary") == read.headers.get("vary")
    for sent in ('"other"', tag.strip('"'), f"x{tag}"):
        assert (await client.get(path, headers={"If-None-Match": sent})).json() == read.json()


@ROUTES
async def test_a_write_with_the_current_etag_is_done(client: AsyncClient, path: str) -> None:
    """If-Match with the ETag of a GET, or of the write before, lets a write through; the answer has the new ETag."""
    tag = (await client.get(path)).headers["etag"]
    changed = await client.patch(path, json={"text": "two"}, headers={"If-Match": tag})
    again = await client.patch(path, json={"text": "three"}, headers={"If-Match": changed.headers["etag"]})

    assert (changed.status_code, changed.json()["text"]) == (200, "two")
    assert (again.status_code, again.json()["text"]) == (200, "three")
    assert (await client.get(path, headers={"If-None-Match": again.headers["etag"]})).status_code == 304


@ROUTES
async def test_a_precondition_that_does_not_hold_is_a_412(client: AsyncClient, path: str) -> None:
    """An old, weak, foreign or malformed tag in If-Match is a 412, and nothing is written."""
    old = (await client.get(path)).headers["etag"]
    current = (await client.patch(path, json={"text": "two"}, headers={"If-Match": old})).headers["etag"]

    for sent in (old, f"W/{current}", '"1"', '"99-0123456789abcdef"', "", "1", f"*, {old}", f'"{"9" * 500}"'):
        headers = {"If-Match": sent}
        assert (await client.patch(path, json={"text": "lost"}, headers=headers)).status_code == 412, sent
        assert (await client.delete(path, headers=headers)).status_code == 412, sent
    assert (await client.get(path)).json()["text"] == "two"


async def test_several_lines_of_a_header_are_one_list(client: AsyncClient) -> None:
    """The tags of every line of If-Match count."""
    tag = (await client.get("/documents/1")).headers["etag"]
    lines = [("If-Match", '"other"'), ("If-Match", tag)]

    assert (await client.patch("/documents/1", json={"text": "two"}, headers=lines)).status_code == 200
    assert (await client.patch("/documents/1", json={"text": "lost"}, headers=lines)).status_code == 412


async def test_any_version_is_a_star(client: AsyncClient) -> None:
    """If-Match: * holds for a row that exists; a missing row stays a 404."""
    star = {"If-Match": "*"}

    assert (await client.patch("/documents/1", json={"text": "two"}, headers=star)).status_code == 200
    assert (await client.patch("/documents/9", json={"text": "two"}, headers=star)).status_code == 404
    assert (await client.patch("/documents/9", json={"text": "two"}, headers={"If-Match": '"1"'})).status_code == 404
    assert (await client.delete("/shelves/2/documents/1", headers=star)).status_code == 404


async def test_if_none_match_forbids_a_write(client: AsyncClient) -> None:
    """A write to a row that If-None-Match names is a 412 (RFC 9110, 13.1.2)."""
    tag = (await client.get("/documents/1")).headers["etag"]

    for sent in (tag, "*"):
        assert (await client.patch("/documents/1", json={"text": "two"}, headers={"If-None-Match": sent})).status_code == 412
    assert (await client.patch("/documents/1", json={"text": "two"}, headers={"If-None-Match": '"other"'})).status_code == 200


async def test_if_match_holds_for_reads_and_creates(client: AsyncClient) -> None:
    """A GET whose If-Match does not hold is a 412; so is a POST, because a list has no ETag."""
    tag = (await client.get("/documents/1")).headers["etag"]

    assert (await client.get("/documents/1", headers={"If-Match": tag})).status_code == 200
    assert (await client.get("/documents/1", headers={"If-Match": '"other"'})).status_code == 412
    assert (await client.post("/documents", json={"text": "new"}, headers={"If-Match": tag})).status_code == 412
    assert (await client.get("/documents")).json()["total"] == 1


async def test_a_row_without_a_version_matches_no_etag(client: AsyncClient) -> None:
    """Rows of a model without a version have no ETag; If-Match with one is a 412, never ignored, and * holds."""
    assert "etag" not in (await client.get("/notes/1")).headers

    for method in ("PATCH", "DELETE", "GET"):
        body = {"title": "lost"} if method == "PATCH" else None
        assert (await client.request(method, "/notes/1", json=body, headers={"If-Match": '"1"'})).status_code == 412
    assert (await client.patch("/notes/1", json={"title": "two"}, headers={"If-Match": "*"})).status_code == 200


async def test_a_nested_answer_changes_with_its_parts(client: AsyncClient) -> None:
    """A row whose shown note has changed has another ETag for a read that shows notes, and the same for one that does not."""
    flat, nested = [(await client.get(path)).headers["etag"] for path in ("/documents/1", "/nested/1")]
    await client.patch("/notes/1", json={"title": "changed"})

    assert (await client.get("/nested/1", headers={"If-None-Match": nested})).json()["notes"] == [{"title": "changed"}]
    assert (await client.patch("/nested/1", json={"text": "lost"}, headers={"If-Match": nested})).status_code == 412
    assert (await client.get("/documents/1", headers={"If-None-Match": flat})).status_code == 304


async def test_tags_of_generated_and_handwritten_routes_agree(client: AsyncClient) -> None:
    """The ETag of a handwritten GET serves a generated PATCH, and the other way round."""
    by_hand = (await client.get("/by-hand/1")).headers["etag"]
    changed = await client.patch("/documents/1", json={"text": "two"}, headers={"If-Match": by_hand})
    again = await client.patch("/by-hand/1", json={"text": "three"}, headers={"If-Match": changed.headers["etag"]})

    assert (changed.status_code, again.status_code) == (200, 200)


@pytest.mark.parametrize("path", ["/required/1", "/by-hand/1"])
async def test_a_write_without_a_required_precondition_is_a_428(client: AsyncClient, path: str) -> None:
    """Without If-Match, or with *, a write that needs one is a 428; with the ETag it is done."""
    for headers in ({}, {"If-Match": "*"}):
        rejected = await client.patch(path, json={"text": "lost"}, headers=headers)
        assert (rejected.status_code, rejected.json()["code"]) == (428, "precondition_required")
    tag = (await client.get(path)).headers["etag"]

    assert (await client.patch(path, json={"text": "two"}, headers={"If-Match": tag})).status_code == 200


async def test_a_delete_of_the_current_version_is_done(client: AsyncClient) -> None:
    """DELETE honours If-Match in a router that requires it, and by hand."""
    tag = (await client.post("/required", json={"text": "new"})).headers["etag"]

    assert (await client.delete("/required/2")).status_code == 428
    assert (await client.delete("/required/2", headers={"If-Match": tag})).status_code == 204
    current = (await client.get("/by-hand/1")).headers["etag"]
    assert (await client.delete("/by-hand/1", headers={"If-Match": current})).status_code == 204


@pytest.mark.only_full
@pytest.mark.parametrize("path", ["/documents/1", "/nested/1", "/by-hand/1"])
async def test_parallel_writers_lose_nothing_unnoticed(client: AsyncClient, path: str) -> None:
    """Of several writers with the same ETag one is let through; writers that try again on a 412 all leave their mark."""
    tag = (await client.get(path)).headers["etag"]
    bodies = [{"text": str(number)} for number in range(WRITERS)]
    answers = await asyncio.gather(*(client.patch(path, json=body, headers={"If-Match": tag}) for body in bodies))

    assert sorted(answer.status_code for answer in answers) == [200] + [412] * (WRITERS - 1)

    async def append(number: int) -> None:
        while True:
            read = await client.get(path)
            body = {"text": f"{read.json()['text']},w{number}"}
            written = await client.patch(path, json=body, headers={"If-Match": read.headers["etag"]})
            if written.status_code == 200:
                return
            assert written.status_code == 412, written.text

    await asyncio.gather(*map(append, range(WRITERS)))
    marks = (await client.get(path)).json()["text"].split(",")[1:]
    assert sorted(marks) == sorted(f"w{number}" for number in range(WRITERS))


async def test_a_bulk_update_changes_the_etag(client: AsyncClient, documents: Database) -> None:
    """A row that an UPDATE of the application has changed has another ETag."""
    tag = (await client.get("/by-hand/1")).headers["etag"]
    async with documents.begin() as session:
        await session.execute(update(Document).values(text="bulk"))

    assert (await client.patch("/by-hand/1", json={"text": "lost"}, headers={"If-Match": tag})).status_code == 412


@pytest.mark.parametrize("path", ["/documents", "/documents/1", "/notes/1", "/shelves/1/documents/1"])
async def test_head_answers_as_get(client: AsyncClient, path: str) -> None:
    """HEAD has the status and the headers of GET, preconditions included; 405 names it."""
    read, head = await client.get(path), await client.head(path)

    assert head.status_code == 200
    assert dict(head.headers) == dict(read.headers)
    assert (await client.head("/documents/9")).status_code == 404
    assert "HEAD" in (await client.put(path)).headers["allow"]
    if "etag" in head.headers:
        assert (await client.head(path, headers={"If-None-Match": head.headers["etag"]})).status_code == 304


def test_the_document_shows_preconditions() -> None:
    """OpenAPI shows the headers and the statuses of routes with a version, and no HEAD; it shows none without a version."""
    operations = operations_of(
        crud_router(DocumentService, read=TextRead, session=get_session, options=RouterOptions(require_if_match=True))
    )
    headers = {
        key: {each["name"]: each["required"] for each in operation.get("parameters", ()) if each["in"] == "header"}
        for key, operation in operations.items()
    }

    assert headers == {
        ("", "get"): {},
        ("", "post"): {},
        ("/{id}", "get"): {"If-None-Match": False},
        ("/{id}", "patch"): {"If-Match": True},
        ("/{id}", "delete"): {"If-Match": True},
    }
    assert {"304", "412"} <= operations["/{id}", "get"]["responses"].keys()
    assert {"412", "428"} <= operations["/{id}", "patch"]["responses"].keys() & operations["/{id}", "delete"]["responses"].keys()
    for key, status in ((("/{id}", "get"), "200"), (("/{id}", "patch"), "200"), (("", "post"), "201")):
        assert "ETag" in operations[key]["responses"][status]["headers"]
    plain = operations_of(crud_router(NoteService, read=NoteRead, session=get_session))
    assert not any("412" in operation["responses"] for operation in plain.values())


def test_required_preconditions_need_a_version() -> None:
    """A router that requires If-Match for a model without a version is rejected."""
    with pytest.raises(ConfigurationError, match="VersionMixin"):
        crud_router(NoteService, read=NoteRead, session=get_session, options=RouterOptions(require_if_match=True))


async def test_a_batch_has_no_etag(documents: Database) -> None:
    """A batch whose If-Match names an ETag is a 412, and stores nothing."""
    router = crud_router(DocumentService, read=TextRead, session=documents.session, endpoints=Endpoint.CREATE_MANY | Endpoint.LIST)
    async with client_of(router, prefix="/documents") as client:
        rejected = await client.post("/documents/batch", json=[{"text": "new"}], headers={"If-Match": '"1"'})

        assert rejected.status_code == 412
        assert (await client.get("/documents")).json()["total"] == 1


async def test_put_and_other_keys_have_preconditions(database: Database) -> None:
    """PUT checks If-Match as PATCH does, also where the row is found by another column."""

    class NamedText(TextIn):
        name: str = "a"

    class Texts(CRUDService[Document, NamedText, NamedText]): ...

    await database.create_tables(BlogBase.metadata)
    every, options = Endpoint.CRUD | Endpoint.REPLACE, RouterOptions(key=Document.name, require_if_match=True)
    async with client_of(
        crud_router(Texts, read=NamedText, session=database.session, endpoints=every, options=options), prefix="/t"
    ) as client:
        etag = (await client.post("/t", json={"text": "one"})).headers["etag"]
        assert (await client.get("/t/a", headers={"if-none-match": etag})).status_code == 304
        assert (await client.put("/t/a", json={"text": "two"})).status_code == 428
        changed = await client.put("/t/a", json={"text": "two"}, headers={"if-match": etag})
        stale = [
            await client.request(method, "/t/a", json={"text": "x"}, headers={"if-match": etag}) for method in ("PUT", "PATCH", "DELETE")
        ]

        assert (changed.status_code, changed.json()["text"]) == (200, "two")
        assert changed.headers["etag"] != etag
        assert [answer.status_code for answer in stale] == [412, 412, 412]
        assert (await client.delete("/t/a", headers={"if-match": changed.headers["etag"]})).status_code == 204
