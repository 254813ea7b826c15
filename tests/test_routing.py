"""Routes for a service, over HTTP and on both databases."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header
from fastapi.routing import APIRoute
from httpx import AsyncClient
from pydantic import BaseModel, ConfigDict
from sqlalchemy import BigInteger, ForeignKey, Integer, MetaData, SmallInteger, String, TypeDecorator, Uuid
from sqlalchemy.dialects.postgresql import CITEXT, INET
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_kit.crud import CRUDService
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, PermissionDeniedError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.routing import Endpoint, RouterOptions, crud_router
from fastapi_kit.testing.client import app_client
from fastapi_kit.testing.queries import assert_max_queries


class HostBase(DeclarativeBase):
    metadata = MetaData()


class Note(HostBase):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(50), unique=True)
    folder_id: Mapped[int | None] = mapped_column(ForeignKey("folders.id"))


class Folder(HostBase):
    __tablename__ = "folders"
    id: Mapped[int] = mapped_column(primary_key=True)
    notes: Mapped[list[Note]] = relationship(lazy="selectin")


class SeatPlan(HostBase):
    __tablename__ = "seat_plans"
    hall: Mapped[str] = mapped_column("hall_name", String(20), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    seats: Mapped[int]


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


class NoteService(CRUDService[Note, NoteCreate, NoteUpdate]): ...


class FolderService(CRUDService[Folder, FolderCreate, FolderCreate]): ...


class SeatPlanService(CRUDService[SeatPlan, SeatPlanIn, SeatPlanUpdate]): ...


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
    """D40: 201, 200, 200, 204, each with the read schema, and 404 when it is gone."""
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
    """T1, D40: another session sees the row as soon as the answer is there."""
    await client.post("/notes", json={"title": "a"})

    async with notes.sessions() as session:
        assert await NoteService(session).count() == 1


async def test_a_list_is_a_page(client: AsyncClient) -> None:
    """D40: without query= a list takes skip and limit."""
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
    """D31, D40: out of bounds, no number, or unknown: 422, and never more than a thousand rows."""
    response = await client.get(f"/notes?{query}")

    assert response.status_code == 422
    assert [item["loc"] for item in response.json()["errors"]] == [["query", fault]]


async def test_a_page_has_a_hundred_rows_if_nothing_is_said(client: AsyncClient) -> None:
    """D40: the page's own default."""
    assert (await client.get("/notes")).json()["limit"] == 100
    assert (await client.get("/notes?limit=1000")).json()["limit"] == 1000


async def test_a_list_links_to_its_neighbours(client: AsyncClient) -> None:
    """D32: first, prev, next and last of RFC 8288; following them visits every row once; they name no host."""
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
    """D40: creating and changing, both."""
    for title in "ab":
        await client.post("/notes", json={"title": title})

    for response in (await client.post("/notes", json={"title": "a"}), await client.patch("/notes/2", json={"title": "a"})):
        assert response.status_code == 409
        assert [item["loc"] for item in response.json()["errors"]] == [["title"]]


async def test_changing_nothing_changes_nothing(client: AsyncClient) -> None:
    """D40: PATCH sets what was sent only."""
    await client.post("/notes", json={"title": "a"})

    assert (await client.patch("/notes/1", json={})).json() == {"id": 1, "title": "a"}


@pytest.mark.parametrize("method", ["get", "patch", "delete"])
@pytest.mark.parametrize(
    ("key", "status"), [("7", 404), ("x", 422), (str(2**31), 422), (str(-(2**31) - 1), 422), ("9" * 5000, 422), ("%00", 422)]
)
async def test_a_key_that_fits_no_row(client: AsyncClient, method: str, key: str, status: int) -> None:
    """D40: unknown keys are 404; what cannot be one is 422, never a 5xx."""
    body = {"json": {"title": "t"}} if method == "patch" else {}
    response = await client.request(method, f"/notes/{key}", **body)

    assert response.status_code == status


@pytest.mark.parametrize("title", [r'"\ud800"', r'"a\u0000"', '"' + "x" * 51 + '"', "null", "NaN", "[" * 900 + "]" * 900])
async def test_a_value_that_cannot_be_stored(client: AsyncClient, title: str) -> None:
    """W3: hostile text reaches the database as a refusal, not as a 5xx."""
    response = await client.post("/notes", content=f'{{"title": {title}}}', headers={"Content-Type": "application/json"})

    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"][-1] == "title"


async def test_an_endpoint_costs_few_statements(client: AsyncClient, notes: Database) -> None:
    """D42: a list is two statements, a row one, a new row one: nothing is read again."""
    with assert_max_queries(notes, 1):
        assert (await client.post("/notes", json={"title": "a"})).status_code == 201
    with assert_max_queries(notes, 2):
        await client.get("/notes")
    with assert_max_queries(notes, 1):
        await client.get("/notes/1")


# --- Location -----------------------------------------------------------------------------------------------------------


async def test_location_finds_the_row_under_any_prefix(notes: Database) -> None:
    """D40: nested prefixes and their parameters are part of it."""
    async with client_of(crud_router(NoteService, read=NoteRead, session=notes.session), prefix="/api/{tenant}/notes") as client:
        location = (await client.post("/api/ä b/notes", json={"title": "a"})).headers["location"]

        assert location == "/api/%C3%A4%20b/notes/1"
        assert (await client.get(location)).status_code == 200


async def test_location_names_no_host(client: AsyncClient) -> None:
    """D40: the Host header is the client's to choose."""
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
    """D40: what the client sees in front of the app is in front of the row."""
    inner, outer = FastAPI(), FastAPI()
    inner.include_router(crud_router(NoteService, read=NoteRead, session=notes.session), prefix="/notes")
    outer.mount(mount, inner)
    app = outer if mount else inner
    app.add_middleware(Proxy, root_path=root_path)

    async with app_client(app) as client:
        assert (await client.post(path, json={"title": "a"})).headers["location"] == location


# --- Keys ---------------------------------------------------------------------------------------------------------------


async def test_a_composite_key_is_several_segments(notes: Database) -> None:
    """D40: each attribute of the key with its own name and type, in the key's order."""
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
    """D40: the parameters are the attributes' names, not the columns'."""
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
    """D40: numbers are bounded to what the column holds; a type that does not say is text."""

    class Base(DeclarativeBase):
        metadata = MetaData()

    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[Any] = mapped_column(column_type, primary_key=True)

    class ThingService(CRUDService[Thing, NoteTitle, NoteTitle]): ...

    operation = operations_of(crud_router(ThingService, read=NoteTitle, session=get_session))["/{id}", "get"]

    assert operation["parameters"][0]["schema"] == {**schema, "title": "Id"}


async def test_a_uuid_key_works(database: Database) -> None:
    """D40: keys that the client makes."""

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
    """D40: list_item is the schema of the rows in a list."""
    options = RouterOptions(list_item=NoteTitle)
    async with client_of(crud_router(NoteService, read=NoteRead, session=notes.session, options=options), prefix="/notes") as client:
        await client.post("/notes", json={"title": "a"})

        assert (await client.get("/notes")).json()["items"] == [{"title": "a"}]
        assert (await client.get("/notes/1")).json() == {"id": 1, "title": "a"}


async def test_a_written_row_shows_its_relationships(notes: Database) -> None:
    """D40: a new row is read again where the schema has more than its columns."""
    router = crud_router(FolderService, read=FolderWithNotes, session=notes.session)
    async with client_of(router, prefix="/folders") as client:
        created = await client.post("/folders", json={"id": 1})

    assert (created.status_code, created.json()) == (201, {"id": 1, "notes": []})


# --- Where the service comes from ---------------------------------------------------------------------------------------


async def test_the_hosts_own_get_db_is_enough(notes: Database) -> None:
    """T5, D40: a bare generator that never commits loses no write."""

    async def get_db() -> AsyncIterator[AsyncSession]:
        async with notes.sessions() as session:
            yield session

    async with client_of(crud_router(NoteService, read=NoteRead, session=get_db), prefix="/notes") as client:
        await client.post("/notes", json={"title": "a"})

        assert (await client.get("/notes")).json()["total"] == 1


async def test_a_dependency_may_make_the_service(notes: Database) -> None:
    """D40: service= takes what ``Service(session)`` cannot know."""

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
    """D40: neither and both are mistakes, found at start-up."""
    with pytest.raises(TypeError, match="exactly one"):
        crud_router(NoteService, read=NoteRead)
    with pytest.raises(TypeError, match="exactly one"):
        crud_router(NoteService, read=NoteRead, session=get_session, service=get_service)


def test_a_service_without_its_types_is_refused() -> None:
    """D40: found at start-up, by name."""

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
    ],
)
def test_endpoints_are_chosen(endpoints: Endpoint, expected: set[tuple[str, str]]) -> None:
    """D40: any combination."""
    assert endpoints_of(crud_router(NoteService, read=NoteRead, session=get_session, endpoints=endpoints)) == expected


def test_groups_are_what_they_say() -> None:
    """D40: READ, WRITE and CRUD."""
    assert Endpoint.LIST | Endpoint.GET == Endpoint.READ
    assert Endpoint.CREATE | Endpoint.UPDATE | Endpoint.DELETE == Endpoint.WRITE
    assert Endpoint.READ | Endpoint.WRITE == Endpoint.CRUD


async def test_an_endpoint_is_replaced_by_ordinary_means(notes: Database) -> None:
    """D40: leave it out and declare your own."""
    router = crud_router(NoteService, read=NoteRead, session=notes.session, endpoints=Endpoint.CRUD & ~Endpoint.GET)

    @router.get("/{id}")
    async def read(id: int) -> str:
        return f"note {id}"

    async with client_of(router, prefix="/notes") as client:
        assert (await client.get("/notes/7")).json() == "note 7"


async def refuse() -> None:
    raise PermissionDeniedError


async def test_dependencies_guard_the_endpoints_of_their_key(notes: Database) -> None:
    """D40: a key may be several endpoints; nothing is written behind a guard that refuses."""
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
    """D40: bodies and answers are the schemas of the service and of the router."""
    operations = operations_of(crud_router(NoteService, read=NoteRead, session=get_session))

    def schema(message: dict[str, Any]) -> str:
        return str(message["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2])

    assert schema(operations["", "post"]["requestBody"]) == "NoteCreate"
    assert schema(operations["/{id}", "patch"]["requestBody"]) == "NoteUpdate"
    assert schema(operations["", "post"]["responses"]["201"]) == "NoteRead"
    assert schema(operations["", "get"]["responses"]["200"]) == "Page_NoteRead_"
    assert operations["", "post"]["requestBody"]["required"] is True


def test_the_document_shows_the_errors() -> None:
    """D40, W5: each endpoint its own, as problems; FastAPI's 422 is gone."""
    router = crud_router(NoteService, read=NoteRead, session=get_session)
    errors = {
        key: {status for status, response in operation["responses"].items() if "application/problem+json" in response.get("content", {})}
        for key, operation in operations_of(router).items()
    }

    assert errors == {
        ("", "get"): {"422", "503"},
        ("", "post"): {"409", "422", "503"},
        ("/{id}", "get"): {"404", "422", "503"},
        ("/{id}", "patch"): {"404", "409", "422", "503"},
        ("/{id}", "delete"): {"404", "409", "422", "503"},
    }
    assert "HTTPValidationError" not in json.dumps(document_of(("/x", router)))


def test_routes_are_named_after_table_and_model() -> None:
    """D40: names are stable and readable, also of models of several words."""
    router = crud_router(SeatPlanService, read=SeatPlanIn, session=get_session)

    assert {route.name for route in router.routes if isinstance(route, APIRoute)} == {
        "list_seat_plans",
        "get_seat_plan",
        "create_seat_plan",
        "update_seat_plan",
        "delete_seat_plan",
    }


def test_operation_ids_are_unique_even_twice() -> None:
    """D40: one router under two prefixes has ten operation ids."""
    router = crud_router(NoteService, read=NoteRead, session=get_session)
    paths = document_of(("/a", router), ("/b", router))["paths"]

    assert len({operation["operationId"] for methods in paths.values() for operation in methods.values()}) == 10
