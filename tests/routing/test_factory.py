"""Routes for a service, over HTTP and on both databases."""

import enum
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Security
from fastapi.routing import APIRoute
from fastapi.security import SecurityScopes
from httpx import AsyncClient
from pydantic import BaseModel, ConfigDict, TypeAdapter, field_validator
from pydantic.alias_generators import to_camel
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    TypeDecorator,
    Uuid,
)
from sqlalchemy import Enum as SqlEnum
from sqlalchemy.dialects.postgresql import CITEXT, INET
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_kit.crud import CRUDService
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, PermissionDeniedError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.middleware import BodyLimitMiddleware
from fastapi_kit.routing import Endpoint, RouterOptions, check_operation_ids, crud_router, operation_id
from fastapi_kit.testing.client import app_client
from fastapi_kit.testing.queries import assert_max_queries


class HostBase(DeclarativeBase):
    metadata = MetaData()


class Note(HostBase):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(50), unique=True)
    folder_id: Mapped[int | None] = mapped_column(ForeignKey("folders.id"))


class Pin(HostBase):
    """Keeps its note from being deleted."""

    __tablename__ = "pins"
    id: Mapped[int] = mapped_column(primary_key=True)
    note_id: Mapped[int] = mapped_column(ForeignKey("notes.id"))


class Folder(HostBase):
    __tablename__ = "folders"
    id: Mapped[int] = mapped_column(primary_key=True)
    notes: Mapped[list[Note]] = relationship(lazy="selectin")


class SeatPlan(HostBase):
    __tablename__ = "seat_plans"
    hall: Mapped[str] = mapped_column("hall_name", String(20), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    seats: Mapped[int]


class Word(HostBase):
    __tablename__ = "words"
    text: Mapped[str] = mapped_column(String(20), primary_key=True)


class NoteCreate(BaseModel):
    title: str
    folder_id: int | None = None


class NoteUpdate(BaseModel):
    title: str | None = None


class NoteRead(BaseModel):
    """Says nothing of from_attributes."""

    id: int
    title: str


class NoteTitle(BaseModel):
    title: str


class FolderCreate(BaseModel):
    id: int


class FolderRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    notes: list[NoteTitle]


class NestedNote(NoteTitle):
    model_config = ConfigDict(from_attributes=True)


class FolderWithNotes(BaseModel):
    id: int
    notes: list[NestedNote]


class SeatPlanIn(BaseModel):
    hall: str
    day: date
    seats: int


class SeatPlanUpdate(BaseModel):
    seats: int


class WordIn(BaseModel):
    text: str


class NoteService(CRUDService[Note, NoteCreate, NoteUpdate]): ...


class FolderService(CRUDService[Folder, FolderCreate, FolderCreate]): ...


class SeatPlanService(CRUDService[SeatPlan, SeatPlanIn, SeatPlanUpdate]): ...


class WordService(CRUDService[Word, WordIn, WordIn]): ...


@asynccontextmanager
async def client_of(*routers: APIRouter, prefix: str = "") -> AsyncIterator[AsyncClient]:
    app = FastAPI()
    register_exception_handlers(app)
    for router in routers:
        app.include_router(router, prefix=prefix)
    async with app_client(app) as client:
        yield client


@pytest.fixture
async def notes(database: Database) -> Database:
    """A database with the tables of this module."""
    await database.create_tables(HostBase.metadata)
    return database


@pytest.fixture
async def client(notes: Database) -> AsyncIterator[AsyncClient]:
    """A client of an app with the five endpoints of notes."""
    async with client_of(crud_router(NoteService, read=NoteRead, session=notes.session), prefix="/notes") as client:
        yield client


# --- The five endpoints -------------------------------------------------------------------------------------------------


async def test_a_row_is_created_read_changed_and_deleted(client: AsyncClient) -> None:
    """201, 200, 200, 204, each with the read schema, and 404 when it is gone."""
    created = await client.post("/notes", json={"title": "a"})
    path = created.headers["location"]
    read, changed, deleted, gone = (
        await client.get(path),
        await client.patch(path, json={"title": "b"}),
        await client.delete(path),
        await client.get(path),
    )

    assert (created.status_code, created.json()) == (201, {"id": 1, "title": "a"})
    assert (read.status_code, read.json()) == (200, {"id": 1, "title": "a"})
    assert (changed.status_code, changed.json()) == (200, {"id": 1, "title": "b"})
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (gone.status_code, gone.json()["code"]) == (404, "not_found")


async def test_a_write_is_committed(client: AsyncClient, notes: Database) -> None:
    """Another session sees the row as soon as the answer is there."""
    await client.post("/notes", json={"title": "a"})

    async with notes.sessions() as session:
        assert await NoteService(session).count() == 1


async def test_a_list_is_a_page(client: AsyncClient) -> None:
    """Without query= a list takes skip and limit."""
    for title in "abc":
        await client.post("/notes", json={"title": title})

    page = (await client.get("/notes", params={"skip": 1, "limit": 1})).json()

    assert page["items"] == [{"id": 2, "title": "b"}]
    assert {name: page[name] for name in ("total", "has_more", "skip", "limit")} == {"total": 3, "has_more": True, "skip": 1, "limit": 1}


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("skip=-1", "skip"),
        (f"skip={10**20}", "skip"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("titel=a", "titel"),
    ],
)
async def test_a_wrong_page_is_refused(client: AsyncClient, query: str, fault: str) -> None:
    """Out of bounds, no number, or unknown: 422, and never more than a thousand rows."""
    response = await client.get(f"/notes?{query}")

    assert response.status_code == 422
    assert [item["loc"] for item in response.json()["errors"]] == [["query", fault]]


async def test_a_page_has_a_hundred_rows_if_nothing_is_said(client: AsyncClient) -> None:
    """The page's own default."""
    assert (await client.get("/notes")).json()["limit"] == 100
    assert (await client.get("/notes?limit=1000")).json()["limit"] == 1000


async def test_a_list_links_to_its_neighbours(client: AsyncClient) -> None:
    """First, prev, next and last of RFC 8288; following them visits every row once; they name no host."""
    for title in "abcde":
        await client.post("/notes", json={"title": title})
    titles: list[str] = []
    url = "/notes?limit=2"
    while url:
        response = await client.get(url)
        titles += [row["title"] for row in response.json()["items"]]
        assert all(link["url"].startswith("/notes?") for link in response.links.values())
        assert {"first", "last"} <= response.links.keys()
        url = response.links.get("next", {}).get("url", "")

    assert titles == list("abcde")


async def test_a_conflict_is_a_409_that_names_the_field(client: AsyncClient) -> None:
    """Creating and changing, both."""
    for title in "ab":
        await client.post("/notes", json={"title": title})

    for response in (await client.post("/notes", json={"title": "a"}), await client.patch("/notes/2", json={"title": "a"})):
        assert response.status_code == 409
        assert [item["loc"] for item in response.json()["errors"]] == [["title"]]


async def test_changing_nothing_changes_nothing(client: AsyncClient) -> None:
    """PATCH sets what was sent only."""
    await client.post("/notes", json={"title": "a"})

    assert (await client.patch("/notes/1", json={})).json() == {"id": 1, "title": "a"}


@pytest.mark.parametrize("method", ["get", "patch", "delete"])
@pytest.mark.parametrize(
    ("key", "status"), [("7", 404), ("x", 422), (str(2**31), 422), (str(-(2**31) - 1), 422), ("9" * 5000, 422), ("%00", 422)]
)
async def test_a_key_that_fits_no_row(client: AsyncClient, method: str, key: str, status: int) -> None:
    """Unknown keys are 404; what cannot be one is 422, never a 5xx."""
    body = {"json": {"title": "t"}} if method == "patch" else {}
    response = await client.request(method, f"/notes/{key}", **body)

    assert response.status_code == status


@pytest.mark.parametrize("title", [r'"\ud800"', r'"a\u0000"', '"' + "x" * 51 + '"', "null", "NaN", "[" * 900 + "]" * 900])
async def test_a_value_that_cannot_be_stored(client: AsyncClient, title: str) -> None:
    """Hostile text reaches the database as a refusal, not as a 5xx."""
    response = await client.post("/notes", content=f'{{"title": {title}}}', headers={"Content-Type": "application/json"})

    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"][-1] == "title"


async def test_an_endpoint_costs_few_statements(client: AsyncClient, notes: Database) -> None:
    """A list is two statements, a row one, a new row one: nothing is read again."""
    with assert_max_queries(notes, 1):
        assert (await client.post("/notes", json={"title": "a"})).status_code == 201
    with assert_max_queries(notes, 2):
        await client.get("/notes")
    with assert_max_queries(notes, 1):
        await client.get("/notes/1")


# --- Batches ------------------------------------------------------------------------------------------------------------


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


class NoteWithRating(NoteRead):
    rating: int


async def test_an_app_whose_rows_cannot_be_shown_does_not_start(notes: Database) -> None:
    """The error names the schema's field, before the first request; the schema of list items counts too."""
    for read, item in ((NoteWithRating, None), (NoteRead, NoteWithRating)):
        router = crud_router(NoteService, read=read, session=notes.session, options=RouterOptions(list_item=item))

        with pytest.raises(ConfigurationError, match="rating"):
            async with client_of(router, prefix="/notes"):
                pass


async def test_lists_may_do_without_a_total(notes: Database) -> None:
    """No count, or one up to a bound; whether there is more is told either way."""
    async with notes.begin() as session:
        await NoteService(session).create_many([NoteCreate(title=f"note {number}") for number in range(5)])
    pages = []
    for bound in (0, 3, None):
        router = crud_router(NoteService, read=NoteRead, session=notes.session, options=RouterOptions(max_total=bound))
        async with client_of(router, prefix="/notes") as client:
            with assert_max_queries(notes, 1 if bound == 0 else 2):
                pages.append((await client.get("/notes", params={"limit": 2})).json())

    assert [(page["total"], page["total_capped"], page["has_more"]) for page in pages] == [
        (None, False, True),
        (3, True, True),
        (5, False, True),
    ]


async def test_a_batch_shows_its_relationships(notes: Database) -> None:
    """In the order given, loaded for all rows at once."""
    router = crud_router(FolderService, read=FolderWithNotes, session=notes.session, endpoints=Endpoint.CREATE_MANY)
    async with client_of(router, prefix="/folders") as client:
        with assert_max_queries(notes, 9) as log:
            response = await client.post("/folders/batch", json=[{"id": id} for id in (3, 1, 2)])

    assert sum("FROM notes" in statement for statement in log.statements) == 1
    assert [folder["id"] for folder in response.json()] == [3, 1, 2]


async def test_what_was_written_is_shown(notes: Database) -> None:
    """The answer to a write is the row, also where the service would not show it to a reader."""

    class HidingService(FolderService):
        def base_query(self) -> Any:
            return super().base_query().where(Folder.id > 1)

    router = crud_router(HidingService, read=FolderWithNotes, session=notes.session)
    async with client_of(router, prefix="/folders") as client:
        created = await client.post("/folders", json={"id": 1})

    assert (created.status_code, created.json()) == (201, {"id": 1, "notes": []})


class QuietNote(NoteRead):
    """Refuses what is stored."""

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
    """The answer is made before the COMMIT."""
    async with notes.begin() as session:
        await NoteService(session).create(NoteCreate(title="kept"))
    router = crud_router(NoteService, read=QuietNote, session=notes.session, endpoints=Endpoint.CRUD | Endpoint.CREATE_MANY)
    async with client_of(router, prefix="/notes") as client:
        response = await client.request(method, path, json=body)

    assert (response.status_code, "location" in response.headers) == (500, False)
    async with notes.sessions() as session:
        assert [note.title for note in await NoteService(session).list()] == ["kept"]


def test_a_batch_without_rows_is_refused() -> None:
    """Found at start-up."""
    with pytest.raises(ConfigurationError, match="max_batch"):
        crud_router(NoteService, read=NoteRead, session=get_session, options=RouterOptions(max_batch=0))


# --- Location -----------------------------------------------------------------------------------------------------------


async def test_location_finds_the_row_under_any_prefix(notes: Database) -> None:
    """Nested prefixes and their parameters are part of it."""
    async with client_of(crud_router(NoteService, read=NoteRead, session=notes.session), prefix="/api/{tenant}/notes") as client:
        location = (await client.post("/api/ä b/notes", json={"title": "a"})).headers["location"]

        assert location == "/api/%C3%A4%20b/notes/1"
        assert (await client.get(location)).status_code == 200


async def test_location_names_no_host(client: AsyncClient) -> None:
    """The Host header is the client's to choose."""
    response = await client.post("/notes", json={"title": "a"}, headers={"Host": "evil.example"})

    assert response.headers["location"] == "/notes/1"


class Proxy:
    """What a server does that was told of a prefix."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app = app
        self.root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "root_path": self.root_path}, receive, send)


@pytest.mark.parametrize(
    ("mount", "path", "root_path", "location"),
    [
        ("/sub", "/sub/notes", "", "/sub/notes/1"),
        ("/sub", "/proxy/sub/notes", "/proxy", "/proxy/sub/notes/1"),
        ("", "/proxy/notes", "/proxy", "/proxy/notes/1"),
        ("", "/notes", "/proxy", "/proxy/notes/1"),  # the proxy has cut it off
    ],
)
async def test_location_knows_mounts_and_proxies(notes: Database, mount: str, path: str, root_path: str, location: str) -> None:
    """What the client sees in front of the app is in front of the row."""
    inner, outer = FastAPI(), FastAPI()
    inner.include_router(crud_router(NoteService, read=NoteRead, session=notes.session), prefix="/notes")
    outer.mount(mount, inner)
    app = outer if mount else inner
    app.add_middleware(Proxy, root_path=root_path)

    async with app_client(app) as client:
        assert (await client.post(path, json={"title": "a"})).headers["location"] == location


# --- Keys ---------------------------------------------------------------------------------------------------------------


async def test_a_composite_key_is_several_segments(notes: Database) -> None:
    """Each attribute of the key with its own name and type, in the key's order."""
    router = crud_router(SeatPlanService, read=SeatPlanIn, session=notes.session)
    async with client_of(router, prefix="/plans") as client:
        created = await client.post("/plans", json={"hall": "a b?", "day": "2026-07-01", "seats": 3})
        path = created.headers["location"]
        read, changed, deleted, gone = (
            await client.get(path),
            await client.patch(path, json={"seats": 4}),
            await client.delete(path),
            await client.get(path),
        )
        refused = await client.get("/plans/a/yesterday")

    assert path == "/plans/a%20b%3F/2026-07-01"
    assert (read.json()["seats"], changed.json()["seats"], deleted.status_code, gone.status_code) == (3, 4, 204, 404)
    assert [item["loc"] for item in refused.json()["errors"]] == [["path", "day"]]


def test_a_composite_key_is_documented() -> None:
    """The parameters are the attributes' names, not the columns'."""
    operation = operations_of(crud_router(SeatPlanService, read=SeatPlanIn, session=get_session))["/{hall}/{day}", "get"]

    assert [(parameter["name"], parameter["in"]) for parameter in operation["parameters"]] == [("hall", "path"), ("day", "path")]
    assert operation["parameters"][1]["schema"]["format"] == "date"


class Wrapped(TypeDecorator[int]):
    impl = SmallInteger
    cache_ok = True


def whole(bits: int) -> dict[str, object]:
    return {"type": "integer", "minimum": -(2 ** (bits - 1)), "maximum": 2 ** (bits - 1) - 1}


@pytest.mark.parametrize(
    ("column_type", "schema"),
    [
        (SmallInteger(), whole(16)),
        (Integer(), whole(32)),
        (BigInteger(), whole(64)),
        (Wrapped(), whole(16)),
        (BigInteger().with_variant(Integer(), "sqlite"), whole(64)),
        (Integer().with_variant(BigInteger(), "postgresql"), whole(64)),
        (String(5), {"type": "string"}),
        (CITEXT(), {"type": "string"}),
        (INET(), {"type": "string"}),
        (Uuid(), {"type": "string", "format": "uuid"}),
    ],
    ids=repr,
)
def test_a_key_has_its_columns_type_and_range(column_type: Any, schema: dict[str, object]) -> None:
    """Numbers are bounded to what the column holds; a type that does not say is text."""

    class Base(DeclarativeBase):
        metadata = MetaData()

    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[Any] = mapped_column(column_type, primary_key=True)

    class ThingService(CRUDService[Thing, NoteTitle, NoteTitle]): ...

    operation = operations_of(crud_router(ThingService, read=NoteTitle, session=get_session))["/{id}", "get"]

    assert operation["parameters"][0]["schema"] == {**schema, "title": "Id", "description": "Id of the thing"}


@pytest.mark.parametrize("key", ["+1", " 1", "1 ", "1.0", "1_0", "01", "-0", "1e0", "0x1", "%D9%A1", "true", "1%0A", "1,", "%EF%BC%91"])
async def test_a_row_has_one_address(client: AsyncClient, key: str) -> None:
    """A number that python would read as 1, or as another number, is not the key 1."""
    await client.post("/notes", json={"title": "a"})

    assert (await client.get("/notes/1")).status_code == 200
    assert (await client.get(f"/notes/{key}")).status_code == 422


class Colour(enum.Enum):
    RED = "red"
    DARK_RED = "dark red"


@pytest.mark.parametrize(
    ("column_type", "right", "wrong"),
    [
        (Boolean(), ["true"], ["True", "1", "on", "yes"]),
        (Date(), ["2026-07-01"], ["2026-7-1", "1782864000", "2026-07-01T00:00:00", "20260701"]),
        (Uuid(), [str(UUID(int=255)), str(UUID(int=255)).upper()], [UUID(int=255).hex, f"{{{UUID(int=255)}}}", UUID(int=255).urn]),
        (Numeric(5, 2), ["1.50"], [" 1.50", "+1.50", "1_0", "NaN", "Infinity", "1e1"]),
        (Float(), ["1.5"], ["1.50", "+1.5", "15e-1", "nan"]),
        (DateTime(), ["2026-07-01T12:00:00"], ["2026-07-01", "2026-07-01 12:00:00", "1782864000"]),
        (SqlEnum(Colour), ["dark red"], ["DARK_RED", "Dark red"]),
        (String(20), ["a", " a", "+", "é", "0"], ["%00", "a%00b"]),
    ],
    ids=repr,
)
async def test_a_key_has_one_form(database: Database, column_type: Any, right: list[str], wrong: list[str]) -> None:
    """The one that Location has, of whatever type the key is; a UUID may be in upper case."""

    class Base(DeclarativeBase):
        metadata = MetaData()

    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[Any] = mapped_column(column_type, primary_key=True, autoincrement=False)

    class ThingIn(BaseModel):
        id: Any

        @field_validator("id")
        @classmethod
        def read(cls, value: str) -> object:
            kind = column_type.python_type
            return TypeAdapter(kind).validate_python(value)

    class ThingService(CRUDService[Thing, ThingIn, ThingIn]): ...

    await database.create_tables(Base.metadata)
    async with client_of(crud_router(ThingService, read=ThingIn, session=database.session), prefix="/things") as client:
        location = (await client.post("/things", json={"id": right[0]})).headers["location"]
        found = [(await client.get(f"/things/{quote(key, safe='%')}")).status_code for key in right]
        refused = [(await client.get(f"/things/{quote(key, safe='%')}")).status_code for key in wrong]

    assert location == f"/things/{quote(right[0])}"
    assert found == ([200, 200] if isinstance(column_type, Uuid) else [200] + [404] * (len(right) - 1))
    assert refused == [422] * len(wrong)


@pytest.mark.parametrize("key", ["", "a/b", "x" * 10_000, "%ED%A0%80", "%FF", "..%2F..", "%2e%2e", "batch"])
async def test_a_text_key_that_fits_no_row(notes: Database, key: str) -> None:
    """Hostile text is no row, never a 5xx; one with a slash in it cannot be reached."""
    async with client_of(crud_router(SeatPlanService, read=SeatPlanIn, session=notes.session), prefix="/plans") as client:
        assert (await client.get(f"/plans/{key}/2026-07-01")).status_code == 404


async def test_a_path_that_is_no_text(notes: Database) -> None:
    """A server may decode a path into surrogates; links and locations are made of it all the same."""

    async def call(method: str, body: bytes) -> dict[str, Any]:
        scope = {"type": "http", "method": method, "path": "/api/\ud800/notes", "query_string": b"", "root_path": "", "http_version": "1.1"}
        scope |= {"headers": [(b"content-type", b"application/json")], "scheme": "http", "server": ("test", 80)}
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)
        found: dict[str, Any] = sent[0]
        return found

    app = FastAPI()
    app.include_router(crud_router(NoteService, read=NoteRead, session=notes.session), prefix="/api/{tenant}/notes")
    created, listed = await call("POST", b'{"title": "a"}'), await call("GET", b"")

    assert (created["status"], listed["status"]) == (201, 200)
    assert dict(created["headers"])[b"location"] == b"/api/%3F/notes/1"


@pytest.mark.parametrize("column_type", [LargeBinary(), ARRAY(Integer)], ids=repr)
def test_a_key_that_cannot_stand_in_a_path_is_refused(column_type: Any) -> None:
    """Found at start-up; a list alone needs no key."""

    class Base(DeclarativeBase):
        metadata = MetaData()

    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[Any] = mapped_column(column_type, primary_key=True)

    class ThingService(CRUDService[Thing, NoteTitle, NoteTitle]): ...

    crud_router(ThingService, read=NoteTitle, session=get_session, endpoints=Endpoint.LIST)
    for endpoint in (Endpoint.GET, Endpoint.CREATE):
        with pytest.raises(ConfigurationError, match="cannot stand in a path"):
            crud_router(ThingService, read=NoteTitle, session=get_session, endpoints=endpoint)


async def test_a_uuid_key_works(database: Database) -> None:
    """Keys that the client makes."""

    class Base(DeclarativeBase):
        metadata = MetaData()

    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[UUID] = mapped_column(primary_key=True)

    class ThingIn(BaseModel):
        id: UUID

    class ThingService(CRUDService[Thing, ThingIn, ThingIn]): ...

    await database.create_tables(Base.metadata)
    key = str(uuid4())
    async with client_of(crud_router(ThingService, read=ThingIn, session=database.session), prefix="/things") as client:
        assert (await client.post("/things", json={"id": key})).headers["location"] == f"/things/{key}"
        assert (await client.get(f"/things/{key}")).json() == {"id": key}
        assert (await client.get("/things/1")).status_code == 422


# --- What is read -------------------------------------------------------------------------------------------------------


async def test_a_list_may_show_less(notes: Database) -> None:
    """List_item is the schema of the rows in a list."""
    options = RouterOptions(list_item=NoteTitle)
    async with client_of(crud_router(NoteService, read=NoteRead, session=notes.session, options=options), prefix="/notes") as client:
        await client.post("/notes", json={"title": "a"})

        assert (await client.get("/notes")).json()["items"] == [{"title": "a"}]
        assert (await client.get("/notes/1")).json() == {"id": 1, "title": "a"}


async def test_a_written_row_shows_its_relationships(notes: Database) -> None:
    """A new row is read again where the schema has more than its columns."""
    router = crud_router(FolderService, read=FolderWithNotes, session=notes.session)
    async with client_of(router, prefix="/folders") as client:
        created = await client.post("/folders", json={"id": 1})

    assert (created.status_code, created.json()) == (201, {"id": 1, "notes": []})


# --- Where the service comes from ---------------------------------------------------------------------------------------


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


async def get_session() -> AsyncSession:
    return AsyncSession()


async def get_service() -> NoteService:
    return NoteService(AsyncSession())


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


# --- Which endpoints ----------------------------------------------------------------------------------------------------


def endpoints_of(router: APIRouter) -> set[tuple[str, str]]:
    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    return {(method, route.path) for route in routes for method in route.methods or ()}


ALL = {("GET", ""), ("POST", ""), ("GET", "/{id}"), ("PATCH", "/{id}"), ("DELETE", "/{id}")}


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        (Endpoint.CRUD, ALL),
        (Endpoint.READ, {("GET", ""), ("GET", "/{id}")}),
        (Endpoint.CRUD & ~Endpoint.DELETE, ALL - {("DELETE", "/{id}")}),
        (Endpoint.LIST | Endpoint.CREATE, {("GET", ""), ("POST", "")}),
        (Endpoint.READ | Endpoint.CREATE_MANY, {("GET", ""), ("GET", "/{id}"), ("POST", "/batch")}),
    ],
)
def test_endpoints_are_chosen(endpoints: Endpoint, expected: set[tuple[str, str]]) -> None:
    """Any combination."""
    assert endpoints_of(crud_router(NoteService, read=NoteRead, session=get_session, endpoints=endpoints)) == expected


def test_groups_are_what_they_say() -> None:
    """READ, WRITE and CRUD; what is asked for rarely is in none of them."""
    assert Endpoint.CREATE_MANY not in Endpoint.CRUD
    assert Endpoint.LIST | Endpoint.GET == Endpoint.READ
    assert Endpoint.CREATE | Endpoint.UPDATE | Endpoint.DELETE == Endpoint.WRITE
    assert Endpoint.READ | Endpoint.WRITE == Endpoint.CRUD


async def test_an_endpoint_is_replaced_by_ordinary_means(notes: Database) -> None:
    """Leave it out and declare your own; the others stay."""
    router = crud_router(NoteService, read=NoteRead, session=notes.session, endpoints=Endpoint.CRUD & ~Endpoint.GET)

    @router.get("/{id}")
    async def read(id: int) -> str:
        return f"note {id}"

    async with client_of(router, prefix="/notes") as client:
        assert (await client.get("/notes/7")).json() == "note 7"
        assert (await client.delete("/notes/7")).status_code == 404


async def test_own_routes_are_found_before_keys(notes: Database) -> None:
    """A path that the host declares on the router, or includes in it, is no key, whenever it is declared."""
    router = crud_router(SeatPlanService, read=SeatPlanIn, session=notes.session)
    inner = APIRouter()
    app = FastAPI()
    app.include_router(router, prefix="/plans")

    @router.get("/{hall}/latest")
    async def latest(hall: str) -> str:
        return f"latest of {hall}"

    @inner.get("/totals")
    async def totals() -> str:
        return "totals"

    router.include_router(inner, prefix="/all")
    async with app_client(app) as client:
        assert (await client.get("/plans/a/latest")).json() == "latest of a"
        assert (await client.get("/plans/all/totals")).json() == "totals"
        assert (await client.get("/plans/a/2026-07-01")).status_code == 500  # no handlers here: the row is not there


async def test_own_routes_keep_their_own_order(notes: Database) -> None:
    """Two paths of the host's that both match are found as declared, as FastAPI does it."""
    router = crud_router(NoteService, read=NoteRead, session=notes.session)

    @router.get("/first")
    async def first() -> str:
        return "first"

    @router.get("/{name:path}")
    async def any_name(name: str) -> str:
        return name

    async with client_of(router, prefix="/notes") as client:
        assert (await client.get("/notes/first")).json() == "first"
        assert (await client.get("/notes/1")).json() == "1"
        assert (await client.get("/notes")).json()["total"] == 0


async def refuse() -> None:
    raise PermissionDeniedError


async def test_dependencies_guard_the_endpoints_of_their_key(notes: Database) -> None:
    """A key may be several endpoints; nothing is written behind a guard that refuses."""
    guards = {Endpoint.WRITE: [Depends(refuse)], Endpoint.LIST: [Depends(refuse)]}
    async with client_of(crud_router(NoteService, read=NoteRead, session=notes.session, dependencies=guards), prefix="/notes") as client:
        answers = [
            await client.get("/notes"),
            await client.get("/notes/1"),
            await client.post("/notes", json={"title": "a"}),
            await client.patch("/notes/1", json={}),
            await client.delete("/notes/1"),
        ]
    async with notes.sessions() as session:
        assert await NoteService(session).count() == 0

    assert [answer.status_code for answer in answers] == [403, 404, 403, 403, 403]


async def test_dependencies_run_in_order(notes: Database) -> None:
    """Those of the app, of the inclusion, then of the endpoint as given; before the session is opened; of every kind."""
    order: list[str] = []

    def noting(name: str) -> Any:
        async def note(scopes: SecurityScopes) -> None:
            order.append(f"{name}{''.join(scopes.scopes)}")

        return note

    async def get_db() -> AsyncIterator[AsyncSession]:
        order.append("session")
        async with notes.sessions() as session:
            yield session

    def sync_guard() -> None:
        order.append("sync")

    guards = {
        Endpoint.READ: [Depends(noting("read")), Security(noting("secure"), scopes=["notes"])],
        Endpoint.GET | Endpoint.CREATE: [Depends(sync_guard)],
        Endpoint.LIST: [Depends(noting("list"))],
    }
    router = crud_router(NoteService, read=NoteRead, session=get_db, dependencies=guards)
    app = FastAPI(dependencies=[Depends(noting("app"))])
    app.include_router(router, prefix="/notes", dependencies=[Depends(noting("included"))])
    async with app_client(app) as client:
        await client.get("/notes/1")
        single, order[:] = list(order), []
        await client.get("/notes")

    assert single == ["app", "included", "read", "securenotes", "sync", "session"]
    assert order == ["app", "included", "read", "securenotes", "list", "session"]


@pytest.mark.parametrize(
    ("endpoints", "key"),
    [(Endpoint.READ, Endpoint.WRITE), (Endpoint.CRUD, Endpoint.CREATE_MANY), (Endpoint.CRUD, Endpoint(0))],
)
def test_a_guard_that_guards_nothing_is_refused(endpoints: Endpoint, key: Endpoint) -> None:
    """Somebody believes that an endpoint is guarded which is not there, or which another key was meant for."""
    with pytest.raises(ConfigurationError, match="guard nothing"):
        crud_router(NoteService, read=NoteRead, session=get_session, endpoints=endpoints, dependencies={key: [Depends(refuse)]})


def test_a_guard_of_several_may_guard_one() -> None:
    """WRITE guards what there is of it."""
    router = crud_router(
        NoteService,
        read=NoteRead,
        session=get_session,
        endpoints=Endpoint.READ | Endpoint.CREATE,
        dependencies={Endpoint.WRITE: [Depends(refuse)]},
    )
    guarded = {route.name for route in router.routes if isinstance(route, APIRoute) and route.dependencies}

    assert guarded == {"create_note"}


@pytest.mark.parametrize(
    ("keys", "guarded"),
    [
        ([Endpoint.WRITE], {"create_note", "create_many_notes", "update_note", "delete_note"}),
        ([Endpoint.CRUD], {"list_notes", "get_note", "create_note", "create_many_notes", "update_note", "delete_note"}),
        ([Endpoint.CREATE], {"create_note", "create_many_notes"}),
        ([Endpoint.CREATE | Endpoint.LIST], {"create_note", "create_many_notes", "list_notes"}),
        ([Endpoint.CREATE_MANY], {"create_many_notes"}),
        ([Endpoint.READ], {"list_notes", "get_note"}),
        ([Endpoint.UPDATE | Endpoint.DELETE], {"update_note", "delete_note"}),
    ],
)
def test_what_guards_new_rows_guards_the_batch(keys: list[Endpoint], guarded: set[str]) -> None:
    """A batch is not open where one new row is not."""
    router = crud_router(
        NoteService,
        read=NoteRead,
        session=get_session,
        endpoints=Endpoint.CRUD | Endpoint.CREATE_MANY,
        dependencies={key: [Depends(refuse)] for key in keys},
    )

    assert {route.name for route in router.routes if isinstance(route, APIRoute) and route.dependencies} == guarded


async def test_a_batch_runs_the_guards_of_all_its_keys_in_order(notes: Database) -> None:
    """Its own beside those of new rows, each once; also where it is the only one that writes."""
    order: list[str] = []

    def noting(name: str) -> Any:
        async def note() -> None:
            order.append(name)

        return note

    write = Depends(noting("write"))
    guards = {Endpoint.WRITE: [write], Endpoint.CREATE_MANY: [Depends(noting("batch"))], Endpoint.WRITE | Endpoint.CREATE_MANY: [write]}
    router = crud_router(
        NoteService, read=NoteRead, session=notes.session, endpoints=Endpoint.READ | Endpoint.CREATE_MANY, dependencies=guards
    )
    async with client_of(router, prefix="/notes") as client:
        await client.post("/notes/batch", json=[{"title": "a"}])

    assert order == ["write", "batch"]


async def test_routers_do_not_disturb_each_other(notes: Database) -> None:
    """Three of one service, one of them included twice, another in two apps, each with its own guards and additions."""
    router = crud_router(NoteService, read=NoteRead, session=notes.session)
    guarded = crud_router(NoteService, read=NoteTitle, session=notes.session, dependencies={Endpoint.READ: [Depends(refuse)]})
    extended = crud_router(NoteService, read=NoteRead, session=notes.session)
    first, second = FastAPI(), FastAPI()
    for app in (first, second):
        register_exception_handlers(app)
    for prefix, each in {"/a": router, "/b": router, "/c": guarded, "/d": extended}.items():
        first.include_router(each, prefix=prefix)
    second.include_router(guarded, prefix="/a")

    @extended.get("/mine")
    async def mine() -> str:
        return "mine"

    async with app_client(first) as one, app_client(second) as two:
        assert (await one.post("/a", json={"title": "a"})).headers["location"] == "/a/1"
        assert [(await one.get(f"/{prefix}/1")).status_code for prefix in "abcd"] == [200, 200, 403, 200]
        assert [(await one.get(f"/{prefix}/mine")).status_code for prefix in "abcd"] == [422, 422, 403, 200]
        assert (await two.get("/a/1")).status_code == 403


# --- The document -------------------------------------------------------------------------------------------------------


def document_of(*routers: tuple[str, APIRouter]) -> dict[str, Any]:
    app = FastAPI()
    for prefix, router in routers:
        app.include_router(router, prefix=prefix)
    return app.openapi()


def operations_of(router: APIRouter) -> dict[tuple[str, str], dict[str, Any]]:
    paths = document_of(("/x", router))["paths"]
    return {(path.removeprefix("/x"), method): operation for path, methods in paths.items() for method, operation in methods.items()}


def test_the_document_shows_real_models() -> None:
    """Bodies and answers are the schemas of the service and of the router."""
    operations = operations_of(crud_router(NoteService, read=NoteRead, session=get_session))

    def schema(message: dict[str, Any]) -> str:
        return str(message["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2])

    assert schema(operations["", "post"]["requestBody"]) == "NoteCreate"
    assert schema(operations["/{id}", "patch"]["requestBody"]) == "NoteUpdate"
    assert schema(operations["", "post"]["responses"]["201"]) == "NoteRead"
    assert schema(operations["", "get"]["responses"]["200"]) == "Page_NoteRead_"
    assert operations["", "post"]["requestBody"]["required"] is True


def test_the_document_shows_the_errors() -> None:
    """Each endpoint its own, as problems; FastAPI's 422 is gone."""
    router = crud_router(NoteService, read=NoteRead, session=get_session, endpoints=Endpoint.CRUD | Endpoint.CREATE_MANY)
    errors = {
        key: {status for status, response in operation["responses"].items() if "application/problem+json" in response.get("content", {})}
        for key, operation in operations_of(router).items()
    }

    assert errors == {
        ("", "get"): {"422", "503"},
        ("", "post"): {"400", "409", "413", "422", "503"},
        ("/batch", "post"): {"400", "409", "413", "422", "503"},
        ("/{id}", "get"): {"404", "422", "503"},
        ("/{id}", "patch"): {"400", "404", "409", "413", "422", "503"},
        ("/{id}", "delete"): {"404", "409", "422", "503"},
    }
    assert "HTTPValidationError" not in json.dumps(document_of(("/x", router)))


async def error_statuses(client: AsyncClient, *requests: tuple[str, str, Any]) -> set[int]:
    answers = [await client.request(method, f"/notes{path}", json=body) for method, path, body in requests]
    return {answer.status_code for answer in answers if answer.status_code >= 400}


async def test_the_documented_errors_happen(notes: Database) -> None:
    """Every status that the document names can be caused, and those that are caused are in it."""
    router = crud_router(NoteService, read=NoteRead, session=notes.session, endpoints=Endpoint.CRUD | Endpoint.CREATE_MANY)
    lost = Database("postgresql+asyncpg://postgres@127.0.0.1:1/test")
    away = crud_router(NoteService, read=NoteRead, session=lost.session, endpoints=Endpoint.CRUD | Endpoint.CREATE_MANY)
    row, small = {"title": "b"}, {"title": "x" * 100}
    async with notes.begin() as session:
        session.add_all([Note(id=1, title="a"), Note(id=2, title="b")])
        await session.flush()
        session.add(Pin(note_id=1))

    caused: dict[tuple[str, str], set[int]] = {}
    async with client_of(router, prefix="/notes") as client:
        caused["", "get"] = await error_statuses(client, ("GET", "?limit=0", None))
        caused["", "post"] = await error_statuses(client, ("POST", "", row), ("POST", "", {}))
        caused["/batch", "post"] = await error_statuses(client, ("POST", "/batch", [row]), ("POST", "/batch", []))
        caused["/{id}", "get"] = await error_statuses(client, ("GET", "/9", None), ("GET", "/x", None))
        caused["/{id}", "patch"] = await error_statuses(
            client, ("PATCH", "/9", row), ("PATCH", "/1", row), ("PATCH", "/1", {"title": None})
        )
        caused["/{id}", "delete"] = await error_statuses(client, *(("DELETE", path, None) for path in ("/9", "/x", "/1")))
        for path, method in (("", "post"), ("/batch", "post"), ("/{id}", "patch")):
            no_text = {"content": b"\xff", "headers": {"content-type": "application/json"}}
            caused[path, method].add((await client.request(method, f"/notes{path.format(id=1)}", **no_text)).status_code)
    app = FastAPI()
    register_exception_handlers(app)
    app.add_middleware(BodyLimitMiddleware, max_bytes=50)
    app.include_router(router, prefix="/notes")
    async with app_client(app) as client:
        for path, method, body in (("", "post", small), ("/batch", "post", [small]), ("/{id}", "patch", small)):
            caused[path, method] |= await error_statuses(client, (method, path.format(id=1), body))
    async with client_of(away, prefix="/notes") as client:
        for path, method in caused:
            body = {"post": row, "patch": row}.get(method)
            caused[path, method] |= await error_statuses(client, (method, path.format(id=1), [body] if path == "/batch" else body))

    documented = {
        key: {int(status) for status in operation["responses"] if status.isdigit() and int(status) >= 400}
        for key, operation in operations_of(router).items()
    }
    assert caused == documented


def test_the_document_reads_as_if_written_by_hand() -> None:
    """Words of the table and the model, no names from inside the library."""
    router = crud_router(SeatPlanService, read=SeatPlanIn, session=get_session, endpoints=Endpoint.CRUD | Endpoint.CREATE_MANY)
    operations = operations_of(router)
    listing, creating, batch = operations["", "get"], operations["", "post"], operations["/batch", "post"]

    assert {operation["summary"] for operation in operations.values()} == {
        "List seat plans",
        "Get seat plan",
        "Create seat plan",
        "Create many seat plans",
        "Update seat plan",
        "Delete seat plan",
    }
    assert set(listing["responses"]["200"]["headers"]) == {"Link"}
    assert creating["responses"]["201"]["headers"]["Location"]["description"] == "Path of the new seat plan"
    assert {parameter["name"]: parameter["description"] for parameter in operations["/{hall}/{day}", "patch"]["parameters"]} == {
        "hall": "Hall of the seat plan",
        "day": "Day of the seat plan",
    }
    assert [parameter["name"] for parameter in listing["parameters"] if parameter["description"]] == ["skip", "limit"]
    assert batch["requestBody"]["content"]["application/json"]["schema"] == {
        "type": "array",
        "items": {"$ref": "#/components/schemas/SeatPlanIn"},
        "minItems": 1,
        "maxItems": 1000,
        "title": "Seat plans",
    }
    described = [response["description"] for operation in operations.values() for response in operation["responses"].values()]
    assert "Successful Response" not in described
    found = json.dumps(document_of(("/x", router))["paths"]).lower().replace("keys", "")
    assert [name for name in ("_row", "window", "key", '"title": "value"', "serve") if name in found] == []


def test_functions_have_the_names_of_their_routes() -> None:
    """Logs and traces show what is called."""
    router = crud_router(NoteService, read=NoteRead, session=get_session)

    for route in router.routes:
        assert isinstance(route, APIRoute)
        assert route.endpoint.__name__ == route.endpoint.__qualname__ == route.name


def test_routes_are_named_after_table_and_model() -> None:
    """Names are stable and readable, also of models of several words."""
    router = crud_router(SeatPlanService, read=SeatPlanIn, session=get_session, endpoints=Endpoint.CRUD | Endpoint.CREATE_MANY)

    assert {route.name for route in router.routes if isinstance(route, APIRoute)} == {
        "list_seat_plans",
        "create_many_seat_plans",
        "get_seat_plan",
        "create_seat_plan",
        "update_seat_plan",
        "delete_seat_plan",
    }


def test_operation_ids_are_unique_even_twice() -> None:
    """One router under two prefixes has ten operation ids."""
    router = crud_router(NoteService, read=NoteRead, session=get_session)
    paths = document_of(("/a", router), ("/b", router))["paths"]

    assert len({operation["operationId"] for methods in paths.values() for operation in methods.values()}) == 10


# --- Operation ids ------------------------------------------------------------------------------------------------------


def app_with_ids(*included: tuple[APIRouter, list[str | enum.Enum]]) -> FastAPI:
    app = FastAPI(generate_unique_id_function=operation_id)
    for number, (router, tags) in enumerate(included):
        app.include_router(router, prefix=f"/{number}", tags=tags)
    return app


def ids_of(app: FastAPI) -> list[str]:
    return [operation["operationId"] for methods in app.openapi()["paths"].values() for operation in methods.values()]


def test_operation_ids_are_tag_and_name() -> None:
    """What a generated client calls."""
    app = app_with_ids((crud_router(NoteService, read=NoteRead, session=get_session, endpoints=Endpoint.READ), ["notes"]))

    assert ids_of(app) == ["notes_list_notes", "notes_get_note"]


class Tag(enum.Enum):
    ACCOUNTS = "user accounts"


@pytest.mark.parametrize(
    ("included", "own", "name", "expected"),
    [
        ([], [], "read", "read"),
        ([], ["notes"], "read", "notes_read"),
        (["first", "second"], ["own"], "read", "first_read"),
        ([Tag.ACCOUNTS], [], "read", "user_accounts_read"),
        (["a / b!"], [], "read-one", "a_b_read_one"),
        (["2fa"], [], "read", "_2fa_read"),
        (["Größe"], [], "read", "Größe_read"),
        (["!"], [], "read", "read"),
    ],
)
def test_operation_ids_are_identifiers(included: list[str | enum.Enum], own: list[str | enum.Enum], name: str, expected: str) -> None:
    """Of the first tag, whatever it is."""
    router = APIRouter()

    @router.get("/x", tags=own, name=name)
    async def read() -> None: ...

    (found,) = ids_of(app_with_ids((router, included)))

    assert found == expected
    assert found.isidentifier()


def test_a_router_may_be_there_twice_under_two_tags() -> None:
    """The tag is part of the id."""
    router = crud_router(NoteService, read=NoteRead, session=get_session)
    app = app_with_ids((router, ["a"]), (router, ["b"]))

    check_operation_ids(app)
    assert len(set(ids_of(app))) == 10


def test_a_router_twice_under_one_tag_is_refused() -> None:
    """Both operations are named."""
    router = crud_router(NoteService, read=NoteRead, session=get_session)

    with pytest.raises(ConfigurationError, match=r"GET /0 and GET /1 have the operation id notes_list_notes"):
        check_operation_ids(app_with_ids((router, ["notes"]), (router, ["notes"])))


def test_ids_of_the_hosts_own_are_looked_at_too() -> None:
    """Two equal ``operation_id=``, one that a router was included with, and a webhook."""
    app, inner = FastAPI(), APIRouter()

    @app.get("/a", operation_id="same")
    async def first() -> None: ...

    @inner.post("/b", operation_id="same")
    async def second() -> None: ...

    check_operation_ids(app)
    app.include_router(inner, prefix="/inner")
    with pytest.raises(ConfigurationError, match="GET /a and POST /inner/b have the operation id same"):
        check_operation_ids(app)


def test_ids_of_webhooks_are_looked_at_too() -> None:
    """They are in the same document."""
    app = FastAPI()

    @app.get("/a", operation_id="same")
    async def first() -> None: ...

    @app.webhooks.post("told", operation_id="same")
    async def told() -> None: ...

    with pytest.raises(ConfigurationError, match="GET /a and POST told"):
        check_operation_ids(app)


def test_a_route_of_several_methods_has_one_id_too_many() -> None:
    """The document would show one id twice."""
    app = FastAPI()

    @app.api_route("/a", methods=["GET", "HEAD"])
    async def read() -> None: ...

    with pytest.raises(ConfigurationError, match="GET /a and HEAD /a"):
        check_operation_ids(app)


def test_what_is_not_in_the_document_has_no_id() -> None:
    """Hidden routes, hidden inclusions, mounts, and plain Starlette routes."""
    app, hidden = FastAPI(), APIRouter()

    @app.get("/a", operation_id="same")
    async def first() -> None: ...

    @app.api_route("/b", methods=["GET", "HEAD"], operation_id="same", include_in_schema=False)
    async def second() -> None: ...

    @hidden.get("/c", operation_id="same")
    async def third() -> None: ...

    app.include_router(hidden, prefix="/hidden", include_in_schema=False)
    app.mount("/sub", app_with_ids((hidden, [])))

    check_operation_ids(app)


@pytest.mark.parametrize("name", ["value", "window", "data", "key", "rows", "source", "service", "before", "request", "response"])
async def test_a_prefix_may_have_any_parameter(notes: Database, name: str) -> None:
    """The names inside the library are none of a path's."""
    router = crud_router(NoteService, read=NoteRead, session=notes.session)

    async with client_of(router, prefix=f"/{{{name}}}/notes") as client:
        created = await client.post("/x/notes", json={"title": "a"})
        listed = await client.get("/x/notes")
        one = await client.get(created.headers["location"])

    assert (created.status_code, listed.status_code, one.status_code) == (201, 200, 200)


class CamelNote(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)

    id: int
    folder_id: int | None


async def test_a_read_schema_may_have_aliases(notes: Database) -> None:
    """Attributes are found by the names of the fields, too; the answer has the aliases."""
    async with client_of(crud_router(NoteService, read=CamelNote, session=notes.session), prefix="/notes") as client:
        created = await client.post("/notes", json={"title": "a"})
        listed = await client.get("/notes")

    assert created.status_code == 201
    assert created.json().keys() == {"id", "folderId"} == listed.json()["items"][0].keys()


async def test_a_replaced_row_route_takes_no_other_path(notes: Database) -> None:
    """One's own ``GET /{id}`` stays behind what is declared later, as the generated one does."""
    router = crud_router(NoteService, read=NoteRead, session=notes.session, endpoints=Endpoint.CRUD & ~Endpoint.GET)

    @router.get("/{id}")
    async def own(id: int) -> str:
        return f"own {id}"

    @router.get("/longest")
    async def longest() -> str:
        return "longest"

    async with client_of(router, prefix="/notes") as client:
        assert (await client.get("/notes/longest")).json() == "longest"
        assert (await client.get("/notes/7")).json() == "own 7"
