"""EXPORT: GET /export."""

import asyncio
import csv
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from io import StringIO
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header
from fastapi.routing import APIRoute
from httpx import AsyncClient
from sqlalchemy import QueuePool, Select, insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import Message
from tests.routing.models import ANY_DATABASE, NoteRead, NoteService, WordIn, WordService, client_of, client_on, forbid, get_session
from tests.tables.shop import Item, ItemFeed, ItemQuery, ItemRead, ItemService, ItemWithTags, Owner, ShopBase, Tag

from fastapi_kit.crud import ReadService
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, UnavailableError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.routing import Endpoint, RouterOptions, crud_router
from fastapi_kit.routing.export import best_of
from fastapi_kit.testing import app_client

NDJSON, CSV = "application/x-ndjson", "text/csv"
EXPORTED = Endpoint.READ | Endpoint.EXPORT


@pytest.fixture
async def shop(database: Database) -> Database:
    """Four items of two owners."""
    await database.create_tables(ShopBase.metadata)
    async with database.begin() as session:
        await session.execute(insert(Owner), [{"id": 1, "email": "ann@x.org"}, {"id": 2, "email": "bob@x.org"}])
        names = ["Wool", "=1+1", 'Silk, "raw"\n', "\u00fcber"]
        await session.execute(insert(Item), [{"id": ident, "name": name, "owner_id": ident % 2 + 1} for ident, name in enumerate(names, 1)])
        await session.execute(insert(Tag), [{"item_id": 1, "name": "red"}])
    return database


def items_router(database: Database, **options: Any) -> Any:
    chosen = RouterOptions(begin=database.begin, **options.pop("options", {}))
    given: dict[str, Any] = {"read": ItemRead, "session": database.session, "endpoints": EXPORTED, "options": chosen, **options}
    if "service" in given:
        del given["session"]
    return crud_router(ItemService, **given)


class Owned(ItemService):
    """The items of one owner."""

    def __init__(self, session: AsyncSession, owner: int) -> None:
        super().__init__(session)
        self.owner = owner

    def base_query(self) -> Select[Any]:
        return select(Item).where(Item.owner_id == self.owner)


@cache
def app_of_items() -> FastAPI:
    async def get_service(session: Annotated[AsyncSession, ANY_DATABASE.session], owner: Annotated[int, Header()]) -> Owned:
        return Owned(session, owner)

    app = FastAPI()
    register_exception_handlers(app)
    app.include_router(items_router(ANY_DATABASE, query=ItemQuery), prefix="/items")
    app.include_router(items_router(ANY_DATABASE, query=ItemFeed, options={"list_item": ItemWithTags}), prefix="/feed")
    app.include_router(items_router(ANY_DATABASE, endpoints=Endpoint.EXPORT), prefix="/all")
    app.include_router(items_router(ANY_DATABASE, service=get_service), prefix="/owned")
    app.include_router(items_router(ANY_DATABASE, options={"parent": Item.owner_id}), prefix="/owners/{owner_id}/items")
    return app


@pytest.fixture
async def client(shop: Database) -> AsyncIterator[AsyncClient]:
    async with client_on(shop, app_of_items()) as client:
        yield client


async def ids(client: AsyncClient, url: str, **headers: str) -> list[int]:
    response = await client.get(url, headers=headers)
    assert response.status_code == 200, response.text
    return [json.loads(line)["id"] for line in response.text.split("\n")[:-1]]


async def test_ndjson_is_the_default(client: AsyncClient) -> None:
    """The lines are the items of the list, and the answer is a file."""
    response = await client.get("/feed/export")
    items = (await client.get("/feed")).json()["items"]

    assert [json.loads(line) for line in response.text.split("\n")[:-1]] == items
    assert items[0]["tags"] == [{"name": "red"}]
    assert response.headers["content-type"] == NDJSON
    assert response.headers["content-disposition"] == 'attachment; filename="items.ndjson"'
    assert response.headers["vary"] == "Accept"


async def test_csv(client: AsyncClient) -> None:
    """CSV has a header and cells that no spreadsheet runs."""
    response = await client.get("/items/export", headers={"Accept": CSV})

    assert list(csv.reader(StringIO(response.text, newline=""))) == [
        ["id", "name"],
        ["1", "Wool"],
        ["2", "'=1+1"],
        ["3", 'Silk, "raw"\n'],
        ["4", "\u00fcber"],
    ]
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"] == 'attachment; filename="items.csv"'


async def test_filters_and_parents(client: AsyncClient) -> None:
    """The filters, the search and the sort of the list apply, and so do the parent and the service of the request."""
    assert await ids(client, "/items/export?sort=-name&name__in=Wool&name__in=%3D1%2B1") == [1, 2]
    assert await ids(client, "/feed/export?q=SILK") == [3]
    assert await ids(client, "/all/export") == [1, 2, 3, 4]
    assert await ids(client, "/owners/2/items/export") == [1, 3]
    assert await ids(client, "/owners/9/items/export") == []
    assert await ids(client, "/owned/export", owner="1") == [2, 4]


@pytest.mark.parametrize(
    ("url", "name", "code"),
    [
        ("/items/export?limit=1", "limit", "unknown_parameter"),
        ("/items/export?skip=1", "skip", "unknown_parameter"),
        ("/feed/export?cursor=x", "cursor", "unknown_parameter"),
        ("/items/export?sort=secret", "sort", "invalid_sort"),
        ("/all/export?name=x", "name", "unknown_parameter"),
    ],
)
async def test_what_is_rejected(client: AsyncClient, url: str, name: str, code: str) -> None:
    """There is no window, and other parameters are those of the list."""
    response = await client.get(url)

    assert response.status_code == 422
    assert [(error["loc"], error["code"]) for error in response.json()["errors"]] == [(["query", name], code)]


async def test_no_acceptable_format(client: AsyncClient) -> None:
    """A client that accepts neither format gets a 406 that names them."""
    response = await client.get("/items/export", headers={"Accept": "text/html, image/*;q=0.8"})

    assert (response.status_code, response.json()["code"]) == (406, "not_acceptable")
    assert response.json()["detail"] == "The export is application/x-ndjson or text/csv."
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("accept", "best"),
    [
        ("", NDJSON),
        ("*/*", NDJSON),
        (CSV, CSV),
        ("Text/CSV; charset=utf-8", CSV),
        ("text/*", CSV),
        ("text/*, application/x-ndjson;q=0.5", CSV),
        ("text/csv;q=0.4, */*;q=0.5", NDJSON),
        ("*/*, application/x-ndjson;q=0", CSV),
        ("text/csv, application/x-ndjson", NDJSON),
        ("text/html,application/xhtml+xml,*/*;q=0.8", NDJSON),
        ("text/csv;q=0", None),
        ("text/csv;q=nonsense", None),
        ("text/csv;q=0.9;x=1,,;", CSV),
        ("application/json", None),
    ],
)
def test_accept(accept: str, best: str | None) -> None:
    """The header Accept chooses by weight, the more specific range first (RFC 9110, 12.5.1)."""
    assert best_of([NDJSON, CSV], accept=accept) == best


async def test_other_methods(client: AsyncClient) -> None:
    """HEAD has the headers of GET and no body. Other methods are a 405, and the path is not a key."""
    head = await client.head("/items/export", headers={"Accept": CSV})

    assert (head.status_code, head.content, head.headers["content-type"]) == (200, b"", "text/csv; charset=utf-8")
    assert "content-length" not in head.headers
    for method in ("POST", "PATCH", "DELETE", "PUT", "OPTIONS"):
        response = await client.request(method, "/items/export")
        assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")


async def test_a_row_called_export(notes: Database) -> None:
    """Where the key may be the text "export", GET is the export; other methods find the row."""
    options = RouterOptions(begin=notes.begin)
    router = crud_router(WordService, read=WordIn, session=notes.session, endpoints=Endpoint.CRUD | Endpoint.EXPORT, options=options)
    async with client_of(router, prefix="/words") as client:
        await client.post("/words", json={"text": "export"})
        assert (await client.get("/words/export")).text == '{"text":"export"}\n'
        assert (await client.delete("/words/export")).status_code == 204
        assert (await client.get("/words/export")).text == ""


@pytest.mark.parametrize(
    ("keys", "guarded"),
    [
        ([Endpoint.READ], {"list_notes", "get_note", "export_notes"}),
        ([Endpoint.LIST], {"list_notes", "export_notes"}),
        ([Endpoint.EXPORT], {"export_notes"}),
        ([Endpoint.GET], {"get_note"}),
    ],
)
def test_what_guards_the_list_guards_the_export(keys: list[Endpoint], guarded: set[str]) -> None:
    """A guard of LIST guards EXPORT too, also where the router has no list."""
    made: dict[str, Any] = {"read": NoteRead, "session": get_session, "options": RouterOptions(begin=Database("sqlite://").begin)}
    router = crud_router(NoteService, endpoints=EXPORTED, dependencies={key: [Depends(forbid)] for key in keys}, **made)
    alone = crud_router(NoteService, endpoints=Endpoint.EXPORT, dependencies={Endpoint.LIST: [Depends(forbid)]}, **made)

    assert {route.name for route in router.routes if isinstance(route, APIRoute) and route.dependencies} == guarded
    assert all(route.dependencies for route in alone.routes if isinstance(route, APIRoute))


async def test_a_guard_answers(notes: Database) -> None:
    """A guard that raises is the answer, before anything is read."""
    guards = {Endpoint.EXPORT: [Depends(forbid)]}
    options = RouterOptions(begin=notes.begin)
    router = crud_router(NoteService, read=NoteRead, session=notes.session, endpoints=EXPORTED, dependencies=guards, options=options)
    async with client_of(router, prefix="/notes") as client:
        assert (await client.get("/notes/export")).status_code == 403
        assert (await client.get("/notes")).status_code == 200


async def test_the_document(client: AsyncClient) -> None:
    """OpenAPI shows both formats, the parameters without a window, and the errors."""
    document = (await client.get("/openapi.json")).json()
    operation = document["paths"]["/feed/export"]["get"]
    answer = operation["responses"]["200"]

    assert {each["name"] for each in operation["parameters"]} == ItemFeed.model_fields.keys() - {"cursor", "limit"}
    assert answer["content"] == {
        NDJSON: {"schema": {"$ref": "#/components/schemas/ItemWithTags"}},
        CSV: {"schema": {"type": "string"}},
    }
    assert "Content-Disposition" in answer["headers"]
    assert set(operation["responses"]) == {"200", "406", "422", "503", "default"}
    assert [each["name"] for each in document["paths"]["/owners/{owner_id}/items/export"]["get"]["parameters"]] == ["owner_id"]
    assert "parameters" not in document["paths"]["/all/export"]["get"]


class Hiding(ItemService):
    """Hides rows in its list only."""

    async def list(self, *conditions: Any, **options: Any) -> list[Item]:
        return await super().list(Item.id > 1, *conditions, **options)


class HidingAll(Hiding):
    """Hides them in its stream too."""

    def stream_as(self, schema: Any, query: Any = None, *conditions: Any, **options: Any) -> AsyncGenerator[Any]:
        return super().stream_as(schema, query, Item.id > 1, *conditions, **options)


async def test_mistakes(shop: Database) -> None:
    """Without ``begin``, and for a service whose list hides rows in another way than the export, the router is not made."""
    made: dict[str, Any] = {"read": ItemRead, "session": shop.session, "endpoints": EXPORTED}
    with pytest.raises(ConfigurationError, match=r"EXPORT needs RouterOptions\(begin=db.begin\)"):
        crud_router(ItemService, **made)
    with pytest.raises(ConfigurationError, match=r"EXPORT does not call list\(\) of Hiding"):
        crud_router(Hiding, options=RouterOptions(begin=shop.begin), **made)
    async with client_of(crud_router(HidingAll, options=RouterOptions(begin=shop.begin), **made), prefix="/items") as client:
        assert await ids(client, "/items/export") == [2, 3, 4]


async def test_a_read_service(shop: Database) -> None:
    """A ReadService can have an export."""
    assert issubclass(ItemService, ReadService)
    async with client_of(items_router(shop, endpoints=Endpoint.EXPORT), prefix="/items") as client:
        assert len(await ids(client, "/items/export")) == 4


# --- Large exports, slow clients and errors ---

ROWS = 20_000


@pytest.fixture
async def large(database: Database) -> Database:
    """20,000 items, more than a megabyte of lines."""
    await database.create_tables(ShopBase.metadata)
    async with database.begin() as session:
        await session.execute(insert(Item), [{"id": ident, "name": "n" * 40} for ident in range(1, ROWS + 1)])
    return database


def app_of(router: Any) -> FastAPI:
    app = FastAPI()
    register_exception_handlers(app)
    app.include_router(router, prefix="/items")
    return app


def connections_of(database: Database) -> int:
    pool = database.engine.pool
    assert isinstance(pool, QueuePool)
    return pool.checkedout()


class SlowClient:
    """Reads *chunks* chunks of an export, then nothing more until it leaves."""

    def __init__(self, app: FastAPI, *, chunks: int, spec_version: str) -> None:
        self.app = app
        self.chunks = chunks
        self.spec_version = spec_version
        self.messages: list[Message] = []
        self.stopped, self.gone = asyncio.Event(), asyncio.Event()
        self.asked = False

    async def receive(self) -> Message:
        if not self.asked:
            self.asked = True
            return {"type": "http.request", "body": b""}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.messages.append(message)
        if len(self.messages) > self.chunks:
            self.stopped.set()
            await self.gone.wait()
            if self.spec_version == "2.4":
                raise OSError("the client has gone")

    async def get(self, path: str) -> None:
        scope: dict[str, Any] = {"type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "headers": []}
        scope["asgi"] = {"version": "3.0", "spec_version": self.spec_version}
        place = {"path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": None, "server": None}
        await self.app({**scope, **place}, self.receive, self.send)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def is_complete(self) -> bool:
        return self.messages[-1].get("more_body") is False


@pytest.mark.only_full
async def test_every_row_is_sent(large: Database) -> None:
    """20,000 rows come whole and in order, in many chunks, as NDJSON and as CSV."""
    client = SlowClient(app_of(items_router(large)), chunks=10**6, spec_version="2.3")
    await client.get("/items/export")

    assert [json.loads(line)["id"] for line in client.body.split(b"\n")[:-1]] == list(range(1, ROWS + 1))
    assert client.is_complete
    assert len(client.messages) > 15
    async with app_client(client.app) as other:
        text = (await other.get("/items/export", headers={"Accept": CSV})).text
    assert [row[0] for row in csv.reader(StringIO(text))] == ["id", *map(str, range(1, ROWS + 1))]


@pytest.mark.only_full
@pytest.mark.parametrize("chunks", [1, 5])
@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
async def test_a_client_that_stops_reading_and_leaves(large: Database, chunks: int, spec_version: str) -> None:
    """While the client does not read, no connection is held and no transaction is open; when it leaves, the request ends."""
    client = SlowClient(app_of(items_router(large)), chunks=chunks, spec_version=spec_version)
    request = asyncio.create_task(client.get("/items/export"))
    await client.stopped.wait()
    assert connections_of(large) == 0

    client.gone.set()
    await asyncio.wait([request], timeout=10)
    assert request.done()
    # Where the server reports it on sending, Starlette raises ClientDisconnect.
    assert type(request.exception()).__name__ == ("NoneType" if spec_version == "2.3" else "ClientDisconnect")
    assert connections_of(large) == 0
    assert 0 < client.body.count(b"\n") < ROWS
    async with large.begin() as session:
        await session.execute(insert(Item), [{"id": ROWS + 1, "name": "written at once"}])


async def test_a_client_that_leaves_during_a_read(large: Database) -> None:
    """A client that leaves while a batch is read leaves no connection behind."""
    opened = 0
    client: SlowClient

    @asynccontextmanager
    async def begin() -> AsyncGenerator[AsyncSession]:
        nonlocal opened
        opened += 1
        async with large.begin() as session:
            if opened == 5:
                await session.connection()
                client.gone.set()
                await asyncio.sleep(30)
            yield session

    router = crud_router(ItemService, read=ItemRead, session=large.session, endpoints=EXPORTED, options=RouterOptions(begin=begin))
    client = SlowClient(app_of(router), chunks=10**6, spec_version="2.3")
    await asyncio.wait_for(client.get("/items/export"), timeout=10)

    assert opened == 5
    assert connections_of(large) == 0
    assert not client.is_complete


def failing(database: Database, *, at: int) -> Any:
    """Return a ``begin`` whose call number *at* finds no database."""
    calls = 0

    @asynccontextmanager
    async def begin() -> AsyncGenerator[AsyncSession]:
        nonlocal calls
        calls += 1
        if calls == at:
            raise UnavailableError("secret address")
        async with database.begin() as session:
            yield session

    return begin


def failing_app(database: Database, *, at: int) -> FastAPI:
    options = RouterOptions(begin=failing(database, at=at))
    return app_of(crud_router(ItemService, read=ItemRead, session=database.session, endpoints=EXPORTED, options=options))


async def test_an_error_before_the_first_byte(large: Database) -> None:
    """A database that does not answer is a 503 problem, for either method."""
    for method in ("GET", "HEAD"):
        async with app_client(failing_app(large, at=1)) as client:
            response = await client.request(method, "/items/export")
        assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json")
        assert "content-disposition" not in response.headers


async def test_an_error_in_the_middle(large: Database, caplog: pytest.LogCaptureFixture) -> None:
    """An error after the first byte is logged and raised to the server, which breaks the answer off."""
    client = SlowClient(failing_app(large, at=9), chunks=10**6, spec_version="2.3")
    with caplog.at_level(logging.ERROR, "fastapi_kit.routing"), pytest.raises(RuntimeError, match="already started") as raised:
        await client.get("/items/export")

    assert isinstance(raised.value.__cause__, UnavailableError)
    assert [record.getMessage() for record in caplog.records if record.name == "fastapi_kit.routing"] == [
        "The export of items broke off: UnavailableError"
    ]
    assert not client.is_complete
    assert 0 < client.body.count(b"\n") < ROWS
    assert connections_of(large) == 0
