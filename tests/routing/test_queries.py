"""Lists of generated routers, and of routes by hand, with filters, search and sort."""

import re
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Annotated, Any, ClassVar

import pytest
from fastapi import Depends, FastAPI, Query
from httpx import AsyncClient
from pydantic import ConfigDict
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession
from tests.tables.shop import Colour, Item, ItemFeed, ItemQuery, ItemRead, ItemService, Owner, ShopBase, Tag

from fastapi_kit.crud import KeysetSpec, QuerySpec
from fastapi_kit.db import Database
from fastapi_kit.dependencies import reject_unknown_query
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.pagination import KeysetPage, Page
from fastapi_kit.routing import Endpoint, RouterOptions, crud_router
from fastapi_kit.testing import app_client


class OwnedQuery(QuerySpec[Item]):
    name: str | None = None


class Uncounted(OwnedQuery):
    max_total: ClassVar[int | None] = 0


@pytest.fixture
async def app(database: Database) -> FastAPI:
    """Five items, in offset pages, keyset pages, slices, below their owner, and by hand."""
    await database.create_tables(ShopBase.metadata)
    async with database.begin() as session:
        await session.execute(insert(Owner), [{"id": 1, "email": "ann@x.org"}, {"id": 2, "email": "bob@x.org"}])
        rows = [("Wool", "1.50", 1, Colour.RED), ("wool mix", "2.50", 2, None), ("Silk", "9", 1, Colour.BLUE), ("Hemp", "3", 2, None)]
        items = [{"name": name, "price": Decimal(price), "owner_id": owner, "colour": colour} for name, price, owner, colour in rows]
        await session.execute(insert(Item), [{"id": ident, **item} for ident, item in enumerate(items, 1)])
        await session.execute(insert(Tag), [{"item_id": 1, "name": "red"}, {"item_id": 3, "name": "blue"}])
    app = FastAPI()
    register_exception_handlers(app)
    made: dict[str, Any] = {"read": ItemRead, "session": database.session, "endpoints": Endpoint.READ}
    app.include_router(crud_router(ItemService, query=ItemQuery, **made), prefix="/items")
    app.include_router(crud_router(ItemService, query=ItemFeed, **made), prefix="/feed")
    app.include_router(crud_router(ItemService, query=Uncounted, **made), prefix="/slices")
    owned = RouterOptions(parent=Item.owner_id)
    app.include_router(crud_router(ItemService, query=OwnedQuery, options=owned, **made), prefix="/owners/{owner_id}/items")

    @app.get("/by-hand")
    async def by_hand(query: Annotated[ItemQuery, Query()], session: Annotated[AsyncSession, database.session]) -> Page[ItemRead]:
        return await ItemService(session).page_as(ItemRead, query, Item.price > 2)

    @app.get("/by-hand/feed")
    async def feed(query: Annotated[ItemFeed, Query()], session: Annotated[AsyncSession, database.session]) -> KeysetPage[ItemRead]:
        return await ItemService(session).keyset_page_as(ItemRead, query)

    return app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    async with app_client(app) as client:
        yield client


async def ids(client: AsyncClient, url: str) -> list[int]:
    response = await client.get(url)
    assert response.status_code == 200, response.text
    return [item["id"] for item in response.json()["items"]]


async def test_lists(client: AsyncClient) -> None:
    """Filters, search and sort work in every kind of list."""
    assert await ids(client, "/items?q=WOOL&sort=-price") == [2, 1]
    assert await ids(client, "/items?name__in=Silk&name__in=Hemp&sort=name") == [4, 3]
    assert await ids(client, "/items?colour=r") == [1]
    assert await ids(client, "/items?owner__email=bob@x.org&tags__isnull=true") == [2, 4]
    assert await ids(client, "/by-hand?sort=price&limit=2") == [2, 4]
    assert await ids(client, "/by-hand/feed?sort=-price&limit=3") == [3, 4, 2]
    assert await ids(client, "/slices?name=Silk") == [3]
    assert await ids(client, "/owners/1/items") == [1, 3]
    assert await ids(client, "/owners/2/items?name=Silk") == []


async def test_offset_pages(client: AsyncClient) -> None:
    """The total counts what the filters leave, past the end too, and links keep the filters."""
    page = (await client.get("/items?price__gte=2&sort=price&limit=2&skip=2")).json()
    past = (await client.get("/items?price__gte=2&skip=50")).json()
    links = (await client.get("/items?price__gte=2&limit=2")).headers["link"]

    assert (page["total"], [item["id"] for item in page["items"]]) == (3, [3])
    assert (past["total"], past["items"]) == (3, [])
    assert '</items?price__gte=2&skip=2&limit=2>; rel="next"' in links
    assert "total" not in (await client.get("/slices")).json()


@pytest.mark.parametrize("path", ["/feed", "/by-hand/feed"])
async def test_keyset_pages(client: AsyncClient, path: str) -> None:
    """Cursors lead through the list and back, and the links do too."""
    first = await client.get(path, params={"sort": "-price", "limit": 3})
    cursor = first.json()["next_cursor"]
    second = (await client.get(path, params={"sort": "-price", "limit": 3, "cursor": cursor})).json()

    assert [item["id"] for item in first.json()["items"] + second["items"]] == [3, 4, 2, 1]
    assert second["next_cursor"] is None
    assert await ids(client, f"{path}?sort=-price&limit=3&cursor={second['previous_cursor']}") == [3, 4, 2]
    if path == "/feed":
        assert first.headers["link"] == f'</feed?sort=-price&limit=3&cursor={cursor}>; rel="next"'
        assert "link" not in (await client.get(path)).headers


@pytest.mark.parametrize(
    ("url", "loc", "code"),
    [
        ("/items?nme=1", ["query", "nme"], "unknown_parameter"),
        ("/items?sort=secret", ["query", "sort"], "invalid_sort"),
        ("/items?stock=99999", ["query", "stock"], "out_of_range"),
        ("/items?stock=x", ["query", "stock"], "int_parsing"),
        ("/items?name=a%00", ["query", "name"], "invalid_text"),
        ("/items?rating__lte=nan", ["query", "rating__lte"], "out_of_range"),
        ("/items?limit=101", ["query", "limit"], "less_than_equal"),
        ("/feed?skip=1", ["query", "skip"], "unknown_parameter"),
        ("/feed?cursor=x", ["query", "cursor"], "invalid_cursor"),
        ("/by-hand/feed?cursor=%00", ["query", "cursor"], "invalid_cursor"),
        ("/slices?q=a", ["query", "q"], "unknown_parameter"),
        ("/owners/1/items?owner_id=2", ["query", "owner_id"], "unknown_parameter"),
    ],
)
async def test_what_is_rejected(client: AsyncClient, url: str, loc: list[str], code: str) -> None:
    """Bad parameters are a 422 that names them and repeats nothing that was sent."""
    response = await client.get(url)

    assert response.status_code == 422
    assert [(error["loc"], error["code"]) for error in response.json()["errors"]] == [(loc, code)]


async def test_errors_list_what_is_allowed(client: AsyncClient) -> None:
    """The text of an error has the parameters, or the sort keys, that there are."""
    unknown, unsorted = await client.get("/slices?q=1"), await client.get("/feed?sort=x")

    assert unknown.json()["errors"][0]["message"] == "is not a parameter; the parameters are limit, name, skip"
    assert "name, price, note, sold_at, rating, colour, size" in unsorted.json()["errors"][0]["message"]


async def test_parameters_of_dependencies(app: FastAPI, client: AsyncClient, database: Database) -> None:
    """A spec that ignores others' parameters, with ``reject_unknown_query``, takes those of the route's dependencies and no others."""

    class Lenient(OwnedQuery):
        model_config = ConfigDict(extra="ignore")

    def get_language(lang: Annotated[str, Query(alias="lang-code")] = "en") -> str:
        return lang

    @app.get("/lenient", dependencies=[reject_unknown_query])
    async def lenient(
        query: Annotated[Lenient, Query()],
        lang: Annotated[str, Depends(get_language)],
        session: Annotated[AsyncSession, database.session],
    ) -> list[str]:
        return [lang, *(item.name for item in (await ItemService(session).page_as(ItemRead, query)).items)]

    assert (await client.get("/lenient?name=Silk&lang-code=de")).json() == ["de", "Silk"]
    rejected = await client.get("/lenient?nme=Silk&lang=de")
    assert rejected.status_code == 422
    assert [(error["loc"], error["code"]) for error in rejected.json()["errors"]] == [
        (["query", "lang"], "unknown_parameter"),
        (["query", "nme"], "unknown_parameter"),
    ]
    assert "the parameters are lang-code, limit, name, skip" in rejected.json()["errors"][0]["message"]
    assert "%3Cb%3E" not in (await client.get("/lenient?%3Cb%3E=1")).text


async def test_the_document(client: AsyncClient) -> None:
    """OpenAPI shows each parameter with a description, its bounds and its values."""
    document = (await client.get("/openapi.json")).json()
    operation = document["paths"]["/items"]["get"]
    parameters = {each["name"]: each for each in operation["parameters"]}

    assert set(parameters) == set(ItemQuery.model_fields)
    assert parameters["price__gte"]["description"] == "price is at least this"
    assert parameters["owner__boss__email"]["description"] == "owner.boss.email is this"
    assert parameters["q"]["description"] == "Words that all occur in name, note, in any case"
    assert parameters["sort"]["schema"]["pattern"].startswith("^(-?(name|price|")
    assert parameters["stock"]["schema"]["anyOf"][0] == {"type": "integer", "minimum": -(2**15), "maximum": 2**15 - 1}
    decimals = parameters["price__gte"]["schema"]["anyOf"][1]["pattern"]
    assert [bool(re.match(decimals, text)) for text in ("2.50", "-1", "cheap", "")] == [True, True, False, False]
    assert parameters["name__in"]["schema"]["anyOf"][0]["type"] == "array"
    assert document["components"]["schemas"]["Colour"]["enum"] == ["r", "b"]
    assert "/components/schemas/KeysetPage_ItemRead_" in str(document["paths"]["/feed"]["get"])
    assert "/components/schemas/Slice_ItemRead_" in str(document["paths"]["/slices"]["get"])


class OwnerQuery(QuerySpec[Owner]): ...


class OwnerFeed(KeysetSpec[Owner]): ...


def test_mistakes(database: Database) -> None:
    """A spec of another model, without a list, or with two limits of the total, is a ConfigurationError."""
    made: dict[str, Any] = {"read": ItemRead, "session": database.session}
    for query in (OwnerQuery, OwnerFeed):
        with pytest.raises(ConfigurationError, match="query= is for"):
            crud_router(ItemService, query=query, endpoints=Endpoint.READ, **made)  # type: ignore[type-var]
    with pytest.raises(ConfigurationError, match="needs the endpoint LIST"):
        crud_router(ItemService, query=ItemQuery, endpoints=Endpoint.GET, **made)
    with pytest.raises(ConfigurationError, match="max_total of its own"):
        crud_router(ItemService, query=ItemQuery, endpoints=Endpoint.READ, options=RouterOptions(max_total=5), **made)
