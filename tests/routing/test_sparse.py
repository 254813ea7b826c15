"""``fields`` and ``include`` of generated routes and of routes by hand."""

import random
from collections.abc import AsyncIterator, Mapping
from functools import cache
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Query
from httpx import AsyncClient
from sqlalchemy.ext.asyncio import AsyncSession
from tests.crud.sparse import (
    INCLUDED,
    PLAIN,
    Article,
    ArticleFeed,
    ArticleQuery,
    ArticleRead,
    ArticleService,
    CamelRead,
    DiscreetService,
    PageRead,
    PageService,
    PressBase,
    fill,
)
from tests.routing.models import ANY_DATABASE, client_on

from fastapi_kit.crud import QuerySpec, SparseModel, SparseSpec, Where
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.pagination import KeysetPage
from fastapi_kit.pagination import Page as PageOf
from fastapi_kit.routing import Endpoint, RouterOptions, crud_router
from fastapi_kit.testing.queries import assert_max_queries

ALLOWED = "takes each of id, title, body, email, price, written_at, data, note, heading once, separated by commas"
LISTS = ("/articles", "/plain", "/slices", "/feed", "/by-hand", "/by-hand/feed", "/writers/1/articles")

AnySession = Annotated[AsyncSession, ANY_DATABASE.session]


class PlainQuery(QuerySpec[Article]):
    """Says nothing of fields."""

    title: str | None = None


@cache
def app_of_articles() -> FastAPI:
    """Lists of every kind, and pages with a version."""
    app = FastAPI()
    register_exception_handlers(app)
    made: dict[str, Any] = {"session": ANY_DATABASE.session, "read": ArticleRead}
    export = RouterOptions(begin=ANY_DATABASE.begin)
    app.include_router(
        crud_router(ArticleService, query=ArticleQuery, endpoints=Endpoint.CRUD | Endpoint.EXPORT, options=export, **made),
        prefix="/articles",
    )
    app.include_router(crud_router(ArticleService, query=PlainQuery, endpoints=Endpoint.READ, **made), prefix="/plain")
    slices, owned = RouterOptions(max_total=0), RouterOptions(parent=Article.writer_id)
    app.include_router(crud_router(DiscreetService, options=slices, endpoints=Endpoint.READ, **made), prefix="/slices")
    app.include_router(crud_router(ArticleService, options=owned, endpoints=Endpoint.READ, **made), prefix="/writers/{writer_id}/articles")
    app.include_router(crud_router(ArticleService, query=ArticleFeed, endpoints=Endpoint.LIST, **made), prefix="/feed")
    app.include_router(crud_router(ArticleService, read=CamelRead, session=ANY_DATABASE.session, endpoints=Endpoint.READ), prefix="/camel")
    app.include_router(crud_router(PageService, read=PageRead, session=ANY_DATABASE.session), prefix="/pages")

    @app.get("/by-hand")
    async def by_hand(query: Annotated[ArticleQuery, Query()], session: AnySession) -> PageOf[ArticleRead]:
        return await ArticleService(session).page_as(ArticleRead, query)

    @app.get("/by-hand/feed")
    async def feed(query: Annotated[ArticleFeed, Query()], session: AnySession) -> KeysetPage[ArticleRead]:
        return await ArticleService(session).keyset_page_as(ArticleRead, query)

    @app.get("/by-hand/{id}")
    async def by_hand_one(id: int, query: Annotated[SparseSpec[ArticleRead], Query()], session: AnySession) -> ArticleRead:
        return await ArticleService(session).get_as(query, id)

    return app


@pytest.fixture
async def app(database: Database) -> FastAPI:
    """Six articles in lists of every kind, and a page with a version."""
    await database.create_tables(PressBase.metadata)
    async with database.sessions() as session:
        await fill(session)
    app = app_of_articles()
    app.state.database = database
    return app


@pytest.fixture
async def client(app: FastAPI, database: Database) -> AsyncIterator[AsyncClient]:
    async with client_on(database, app) as client:
        yield client


async def items(client: AsyncClient, url: str, **query: str) -> list[dict[str, Any]]:
    response = await client.get(url, params=query)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["items"]
    return found


def part(row: Mapping[str, Any], fields: list[str], include: list[str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name in {"id", *(fields or PLAIN), *include}}


@pytest.mark.parametrize("url", LISTS)
async def test_a_part_is_the_whole_without_the_other_fields(client: AsyncClient, url: str) -> None:
    """In every kind of list a client gets the fields that it asks for, as they are in the whole answer."""
    chance = random.Random(url)
    whole = await items(client, url, include="writer,labels")
    assert [list(row) for row in whole] == [[*PLAIN, *INCLUDED]] * len(whole)
    assert [list(row) for row in await items(client, url)] == [list(PLAIN)] * len(whole)
    for _ in range(5):
        fields, include = chance.sample(PLAIN, chance.randint(1, 9)), chance.sample(INCLUDED, chance.randint(0, 2))
        query = {"fields": ",".join(fields)} | ({"include": ",".join(include)} if include else {})
        assert await items(client, url, **query) == [part(row, fields, include) for row in whole]


@pytest.mark.parametrize("url", ["/articles/1", "/plain/1", "/by-hand/1", "/writers/2/articles/1"])
async def test_a_part_of_one_row(client: AsyncClient, url: str) -> None:
    """A single row has the fields that a client asks for."""
    whole = (await client.get(url, params={"include": "labels,writer"})).json()
    assert list(whole) == [*PLAIN, *INCLUDED]
    assert (await client.get(url)).json() == part(whole, [], [])
    assert (await client.get(url, params={"fields": "price,title"})).json() == {name: whole[name] for name in ("id", "title", "price")}
    assert (await client.get(url, params={"fields": "id", "include": "writer"})).json() == {"id": 1, "writer": {"id": 2, "name": "Bob"}}


@pytest.mark.parametrize("url", [*LISTS, "/articles/1", "/by-hand/1"])
@pytest.mark.parametrize(
    "fields",
    [
        "",
        "%20",
        ",",
        "id,",
        "id,id",
        "id,%20title",
        "ID",
        "password",
        "writer",
        "writer.name",
        "id%00",
        "%ED%A0%80",
        "*",
        "id;title",
        "id," * 3000,
    ],
)
async def test_other_names_are_rejected(client: AsyncClient, url: str, fields: str) -> None:
    """A name that is unknown, empty, there twice or secret is a 422 that says what is allowed and repeats nothing."""
    response = await client.get(f"{url}?fields={fields}")
    assert (response.status_code, response.json()["errors"][0]["loc"]) == (422, ["query", "fields"])
    assert response.json()["errors"][0]["message"] == ALLOWED
    response = await client.get(f"{url}?include={fields.replace('writer', 'body')}")
    assert (response.status_code, response.json()["errors"][0]["loc"]) == (422, ["query", "include"])
    assert response.json()["errors"][0]["message"] == "takes each of writer, labels once, separated by commas"


async def test_unknown_parameters_are_rejected(client: AsyncClient) -> None:
    """A misspelt parameter is a 422, in lists and in single rows; a schema without includes has no parameter for them."""
    for url, allowed in {
        "/plain?field=id": "fields, include, limit, q, skip, sort, title",
        "/articles/1?field=id": "fields, include",
        "/pages/1?include=body": "fields",
        "/slices?sort=id": "fields, include, limit, skip",
    }.items():
        response = await client.get(url)
        assert response.status_code == 422
        wanted = {name for name in allowed.split(", ") if name not in {"q", "sort"}}
        assert set(response.json()["errors"][0]["message"].partition("are ")[2].split(", ")) - {"q", "sort"} == wanted


async def test_links_and_cursors_keep_the_choice(client: AsyncClient) -> None:
    """Following a link gives the same fields; a cursor is valid for another choice, too."""
    response = await client.get("/articles?fields=title&include=writer&limit=2&sort=title")
    assert response.links["next"]["url"] == "/articles?fields=title&include=writer&sort=title&skip=2&limit=2"
    first = await client.get("/feed?fields=title&limit=2&sort=-price")
    second = await client.get(first.links["next"]["url"])
    assert [list(item) for item in second.json()["items"]] == [["id", "title"]] * 2
    other = await client.get(f"/feed?fields=body&limit=2&sort=-price&cursor={first.json()['next_cursor']}")
    assert [item["id"] for item in other.json()["items"]] == [item["id"] for item in second.json()["items"]]


async def test_filters_and_sort_need_not_be_shown(client: AsyncClient) -> None:
    """A list is filtered and sorted by columns that the answer leaves out."""
    assert await items(client, "/articles", fields="id", sort="-price,title", price__gte="1.5", limit="3") == [
        {"id": 2},
        {"id": 5},
        {"id": 1},
    ]


async def test_names_are_those_in_json(client: AsyncClient) -> None:
    """A client asks by the names that it sees."""
    assert (await client.get("/camel/1?fields=writtenAt")).json() == {"writtenAt": "2026-01-01T12:00:00Z"}
    assert (await client.get("/camel/1?fields=written_at")).status_code == 422
    assert [list(item) for item in await items(client, "/camel", fields="title", include="writer")] == [["title", "writer"]] * 6


async def test_related_query_hides_rows_in_includes(client: AsyncClient) -> None:
    """What related_query of a service hides is in no list and in no single row."""
    assert {label["name"] for item in await items(client, "/slices", include="labels") for label in item["labels"]} == {"news"}
    assert (await client.get("/slices/1?include=labels&fields=id")).json() == {"id": 1, "labels": [{"name": "news"}]}


@pytest.mark.parametrize(("query", "most"), [("fields=title", 2), ("fields=title&include=writer", 2), ("include=writer,labels", 3)])
async def test_a_page_takes_the_statements_of_the_plan(client: AsyncClient, database: Database, query: str, most: int) -> None:
    """The rows, their number, and one for each collection, whatever the size."""
    with assert_max_queries(database, most):
        assert len((await client.get(f"/articles?{query}")).json()["items"]) == 6


async def test_etags_of_parts(client: AsyncClient) -> None:
    """Each part has an ETag of its own, which changes with what is shown. A write asks for that of the whole row."""
    whole, title, body = [await client.get(f"/pages/1{query}") for query in ("", "?fields=title", "?fields=body")]
    tags = [response.headers["etag"] for response in (whole, title, body)]
    assert len(set(tags)) == 3
    assert (await client.get("/pages/1?fields=title", headers={"If-None-Match": tags[1]})).status_code == 304
    assert (await client.get("/pages/1?fields=title", headers={"If-None-Match": tags[0]})).status_code == 200
    assert (await client.get("/pages/1", headers={"If-None-Match": tags[1]})).status_code == 200
    assert (await client.patch("/pages/1", json={"title": "New"}, headers={"If-Match": tags[1]})).status_code == 412
    assert (await client.patch("/pages/1", json={"title": "New"}, headers={"If-Match": tags[0]})).status_code == 200
    assert (await client.get("/pages/1?fields=title", headers={"If-None-Match": tags[1]})).json() == {"title": "New"}
    assert (await client.get("/pages/1?fields=body", headers={"If-None-Match": tags[2]})).status_code == 304
    assert (await client.head("/pages/1?fields=title")).status_code == 200
    assert (await client.get("/pages/9?fields=title")).status_code == 404
    assert (await client.get("/articles/1?fields=title", headers={"If-Match": '"1"'})).status_code == 412


async def test_writes_answer_the_default(client: AsyncClient) -> None:
    """A POST and a PATCH answer what a GET without parameters answers."""
    article = {"title": "T", "body": "B", "email": "a@example.org", "price": "1.00"}
    changed = await client.patch("/articles/1", json=article)
    assert changed.json() == (await client.get("/articles/1")).json()
    assert list(changed.json()) == list(PLAIN)
    page = await client.post("/pages", json={"title": "T"})
    assert page.json() == (await client.get(page.headers["location"])).json() == {"id": page.json()["id"], "title": "T", "body": ""}


async def test_an_export_has_the_fields_that_are_asked_for(client: AsyncClient) -> None:
    """NDJSON has these fields in each line, and CSV these columns."""
    lines = (await client.get("/articles/export?fields=data&include=writer&sort=title")).text.splitlines()
    assert lines[0] == '{"id":1,"data":"x","writer":{"id":2,"name":"Bob"}}'
    csv = (await client.get("/articles/export?fields=data", headers={"Accept": "text/csv"})).text.splitlines()
    assert csv[:3] == ["id,data", "1,x", "2,"]
    assert (await client.get("/articles/export", headers={"Accept": "text/csv"})).text.splitlines()[0] == ",".join(PLAIN)
    assert (await client.get("/articles/export?fields=password")).status_code == 422


async def test_openapi(client: AsyncClient) -> None:
    """The document shows which names a client may send, and which fields every answer has."""
    document = (await client.get("/openapi.json")).json()
    for path in ("/articles", "/plain", "/feed", "/articles/{id}", "/by-hand", "/by-hand/{id}"):
        parameters = {each["name"]: each for each in document["paths"][path]["get"]["parameters"]}
        assert parameters["fields"]["description"] == f"{', '.join(PLAIN)}, separated by commas"
        assert parameters["include"]["schema"]["pattern"] == "^(writer|labels)(,(writer|labels))*$"
        assert not parameters["fields"]["required"]
    schema = document["components"]["schemas"]["ArticleRead"]
    assert (schema["required"], list(schema["properties"])) == (["id"], [*PLAIN, *INCLUDED])
    shown = document["paths"]["/articles"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    page = document["components"]["schemas"][shown["$ref"].rpartition("/")[2]]
    assert page["properties"]["items"]["items"] == {"$ref": "#/components/schemas/ArticleRead"}
    assert "fields" not in {each["name"] for each in document["paths"]["/articles"]["post"].get("parameters", [])}


async def test_mistakes_are_errors_at_start(database: Database) -> None:
    """A query of another schema, and an include that the model cannot fill, are a ConfigurationError."""

    class Other(SparseModel):
        include_fields = ("colour",)
        id: int
        colour: str

    with pytest.raises(ConfigurationError, match="ArticleQuery chooses fields of another schema than CamelRead"):
        crud_router(ArticleService, read=CamelRead, query=ArticleQuery, session=database.session)

    class Taken(QuerySpec[Article]):
        fields: Annotated[str | None, Where(lambda value: Article.title == value)] = None

    with pytest.raises(ConfigurationError, match="Taken has fields already"):
        crud_router(ArticleService, read=CamelRead, query=Taken, session=database.session)
    app = FastAPI()
    app.include_router(crud_router(ArticleService, read=Other, session=database.session, endpoints=Endpoint.READ), prefix="/x")
    with pytest.raises(ConfigurationError, match=r"Other\.colour cannot be filled"):
        async with app.router.lifespan_context(app):
            pass
