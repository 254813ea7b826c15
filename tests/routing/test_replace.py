"""REPLACE: PUT of a whole row, and routers of services that only read."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from httpx import AsyncClient
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from tests.routing.models import client_of, endpoints_of, forbid, get_session, operations_of
from tests.tables.blog import BlogBase, Folder, Item

from fastapi_kit.crud import CRUDService, ReadService
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.routing import Endpoint, RouterOptions, crud_router


class ItemIn(BaseModel):
    code: str = ""
    name: str
    note: str | None = None
    stock: int = 1
    folder_id: int | None = None


class ItemChange(BaseModel):
    note: str | None = None


class ItemRead(BaseModel):
    code: str
    name: str
    note: str | None
    stock: int
    maker: str
    folder_id: int | None


class ItemService(CRUDService[Item, ItemIn, ItemChange]):
    async def update_values(self, data: Any) -> dict[str, Any]:
        values = await super().update_values(data)
        return values | ({"name": values["name"].strip()} if "name" in values else {})


WITH_PUT = Endpoint.CRUD | Endpoint.REPLACE


@pytest.fixture
async def items(database: Database) -> Database:
    """Two items, one of them in a folder."""
    await database.create_tables(BlogBase.metadata)
    async with database.begin() as session:
        session.add_all([Folder(id=1), Folder(id=2)])
        await session.flush()
        await ItemService(session).create(ItemIn(code="a", name="A", note="note", stock=5), maker="me")
        await ItemService(session).create(ItemIn(code="b", name="B", folder_id=1))
    return database


@pytest.fixture
async def client(items: Database) -> AsyncIterator[AsyncClient]:
    """A client of items, also below their folder."""
    app = APIRouter()
    parent = RouterOptions(parent=Item.folder_id)
    for prefix, endpoints, options in (
        ("/items", WITH_PUT, RouterOptions()),
        ("/folders/{folder_id}/items", WITH_PUT, parent),
        ("/only", Endpoint.REPLACE, RouterOptions()),
    ):
        router = crud_router(ItemService, read=ItemRead, session=items.session, endpoints=endpoints, options=options)
        app.include_router(router, prefix=prefix)
    async with client_of(app) as client:
        yield client


async def test_put_changes_every_field(client: AsyncClient) -> None:
    """Fields that are not sent get the default of the schema; columns that it does not name stay."""
    answer = await client.put("/items/a", json={"name": " New "})

    assert (answer.status_code, answer.json()) == (
        200,
        {"code": "a", "name": "New", "note": None, "stock": 1, "maker": "me", "folder_id": None},
    )
    assert (await client.get("/items/a")).json() == answer.json()
    assert (await client.put("/items/a", json={"name": "New"})).json() == answer.json()


async def test_a_required_field_must_be_sent(client: AsyncClient) -> None:
    """A body that PATCH would take is a 422."""
    answer = await client.put("/items/a", json={"note": "x"})

    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["body", "name"])
    assert (await client.get("/items/a")).json()["note"] == "note"


async def test_the_key_of_the_body_is_that_of_the_path(client: AsyncClient) -> None:
    """The same key may be sent. Another one is a 422."""
    assert (await client.put("/items/a", json={"code": "a", "name": "A2"})).status_code == 200
    answer = await client.put("/items/a", json={"code": "z", "name": "A3"})

    assert (answer.status_code, answer.json()["errors"]) == (
        422,
        [{"loc": ["body", "code"], "code": "not_as_in_path", "message": "differs from the path"}],
    )
    assert (await client.get("/items/a")).json()["name"] == "A2"


async def test_put_creates_nothing(client: AsyncClient) -> None:
    """A missing row is a 404, a duplicate a 409."""
    assert (await client.put("/items/new", json={"name": "N"})).status_code == 404
    assert (await client.put("/items/a", json={"name": "B"})).status_code == 409
    assert (await client.get("/items")).json()["total"] == 2


async def test_put_below_a_parent(client: AsyncClient) -> None:
    """The row stays with its parent, whether the body names the parent or not. Rows of others are missing."""
    assert (await client.put("/folders/1/items/b", json={"name": "B2"})).json()["folder_id"] == 1
    assert (await client.put("/folders/1/items/b", json={"name": "B3", "folder_id": 1})).json()["folder_id"] == 1
    assert (await client.put("/folders/1/items/b", json={"name": "B4", "folder_id": 2})).status_code == 422
    assert (await client.put("/folders/2/items/b", json={"name": "B5"})).status_code == 404
    assert (await client.get("/items/b")).json()["name"] == "B3"


async def test_a_router_may_have_put_alone(client: AsyncClient) -> None:
    """Other methods are a 405."""
    assert (await client.put("/only/a", json={"name": "A"})).status_code == 200
    assert (await client.get("/only/a")).status_code == 405


def test_the_document_shows_put() -> None:
    """The body is the create schema."""
    operation = operations_of(crud_router(ItemService, read=ItemRead, session=get_session, endpoints=WITH_PUT))["/{code}", "put"]

    assert operation["summary"] == "Replace item"
    assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/ItemIn")
    assert {"200", "404", "409", "422"} <= operation["responses"].keys()


def test_put_is_opt_in() -> None:
    """CRUD does not have it."""
    assert Endpoint.REPLACE not in Endpoint.CRUD
    assert ("PUT", "/{code}") in endpoints_of(crud_router(ItemService, read=ItemRead, session=get_session, endpoints=WITH_PUT))
    assert ("PUT", "/{code}") not in endpoints_of(crud_router(ItemService, read=ItemRead, session=get_session))


@pytest.mark.parametrize(
    ("key", "guarded"),
    [
        (Endpoint.WRITE, {"create_item", "create_many_items", "update_item", "replace_item", "delete_item"}),
        (Endpoint.UPDATE, {"update_item", "replace_item"}),
        (Endpoint.REPLACE, {"replace_item"}),
        (Endpoint.DELETE, {"delete_item"}),
    ],
)
def test_what_guards_changes_guards_put(key: Endpoint, guarded: set[str]) -> None:
    """No key of WRITE leaves an endpoint open that writes."""
    endpoints = WITH_PUT | Endpoint.CREATE_MANY
    router = crud_router(ItemService, read=ItemRead, session=get_session, endpoints=endpoints, dependencies={key: [Depends(forbid)]})

    assert {route.name for route in router.routes if isinstance(route, APIRoute) and route.dependencies} == guarded


async def test_another_schema_for_put(items: Database) -> None:
    """A schema with a column that no update may change raises ConfigurationError; RouterOptions.replace is another one."""

    class Fixed(ItemService):
        read_only = ("stock",)

    class Stamped(BaseModel):
        name: str
        updated_at: datetime

    class Rename(BaseModel):
        name: str

    def router(**options: Any) -> Any:
        return crud_router(Fixed, read=ItemRead, session=items.session, endpoints=WITH_PUT, options=RouterOptions(**options))

    with pytest.raises(ConfigurationError, match="PUT cannot change stock"):
        router()
    with pytest.raises(ConfigurationError, match="PUT cannot change updated_at"):
        router(replace=Stamped)
    async with client_of(router(replace=Rename), prefix="/items") as client:
        answer = await client.put("/items/a", json={"name": "Z"})
    assert (answer.json()["name"], answer.json()["stock"], answer.json()["note"]) == ("Z", 5, "note")


# Services that only read


class ItemReports(ReadService[Item]): ...


async def test_a_read_service_has_a_router(items: Database) -> None:
    """Its rows can be listed and read, also from a dependency that makes the service."""

    async def get_reports(session: AsyncSession = Depends(items.get_session)) -> ItemReports:
        return ItemReports(session)

    for given in ({"session": items.session}, {"service": get_reports}):
        router = crud_router(ItemReports, read=ItemRead, endpoints=Endpoint.READ, **given)  # type: ignore[arg-type]
        async with client_of(router, prefix="/items") as client:
            assert (await client.get("/items")).json()["total"] == 2
            assert (await client.get("/items/a")).json()["name"] == "A"
            assert (await client.post("/items", json={})).status_code == 405


@pytest.mark.parametrize("endpoints", [Endpoint.CRUD, Endpoint.DELETE, Endpoint.READ | Endpoint.REPLACE])
def test_a_read_service_cannot_write(endpoints: Endpoint) -> None:
    """ConfigurationError names the cure."""
    with pytest.raises(ConfigurationError, match=r"ItemReports only reads: use endpoints=Endpoint\.READ"):
        crud_router(ItemReports, read=ItemRead, session=get_session, endpoints=endpoints)
