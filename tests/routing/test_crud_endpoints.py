"""LIST, GET, CREATE, UPDATE and DELETE over HTTP, on both databases."""

from httpx import AsyncClient
from tests.routing.models import NoteCreate, NoteRead, NoteService, client_of

from fastapi_kit.db import Database
from fastapi_kit.routing import RouterOptions, crud_router
from fastapi_kit.testing.queries import assert_max_queries


async def test_a_row_is_created_read_changed_and_deleted(client: AsyncClient) -> None:
    """The endpoints return 201, 200, 200 and 204 with the read schema, and 404 for the deleted row."""
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
    """Another session sees the new row after the response."""
    await client.post("/notes", json={"title": "a"})

    async with notes.sessions() as session:
        assert await NoteService(session).count() == 1


async def test_a_list_is_a_page(client: AsyncClient) -> None:
    """A list takes skip and limit, and returns a page."""
    for title in "abc":
        await client.post("/notes", json={"title": title})

    page = (await client.get("/notes", params={"skip": 1, "limit": 1})).json()

    assert page["items"] == [{"id": 2, "title": "b"}]
    assert {name: page[name] for name in ("total", "has_more", "skip", "limit")} == {"total": 3, "has_more": True, "skip": 1, "limit": 1}


async def test_invalid_page_parameters_are_a_422(client: AsyncClient) -> None:
    """A page that is out of range, not a number or unknown is a 422 that names the parameter."""
    for query in ("skip=-1", f"skip={10**20}", "limit=0", "limit=1001", "limit=x", "titel=a"):
        response = await client.get(f"/notes?{query}")

        assert response.status_code == 422, query
        assert [item["loc"] for item in response.json()["errors"]] == [["query", query.partition("=")[0]]]


async def test_a_page_has_a_hundred_rows_by_default(client: AsyncClient) -> None:
    """The default of limit is 100, and 1000 is allowed."""
    assert (await client.get("/notes")).json()["limit"] == 100
    assert (await client.get("/notes?limit=1000")).json()["limit"] == 1000


async def test_a_list_links_to_its_neighbours(client: AsyncClient) -> None:
    """Following the Link header (RFC 8288) visits every row once; the links are paths."""
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
    """A create and an update that violate a unique constraint are a 409."""
    for title in "ab":
        await client.post("/notes", json={"title": title})

    for response in (await client.post("/notes", json={"title": "a"}), await client.patch("/notes/2", json={"title": "a"})):
        assert response.status_code == 409
        assert [item["loc"] for item in response.json()["errors"]] == [["title"]]


async def test_changing_nothing_changes_nothing(client: AsyncClient) -> None:
    """An empty PATCH returns the row as it is."""
    await client.post("/notes", json={"title": "a"})

    assert (await client.patch("/notes/1", json={})).json() == {"id": 1, "title": "a"}


async def test_a_key_that_fits_no_row(client: AsyncClient) -> None:
    """An unknown key is a 404, and an invalid key a 422."""
    for key, status in (("7", 404), ("x", 422), (str(2**31), 422), (str(-(2**31) - 1), 422), ("9" * 5000, 422), ("%00", 422)):
        for method in ("GET", "PATCH", "DELETE"):
            response = await client.request(method, f"/notes/{key}", json={"title": "t"} if method == "PATCH" else None)

            assert response.status_code == status, f"{method} {key[:10]}"


async def test_a_value_that_cannot_be_stored(client: AsyncClient) -> None:
    """A value that no database can store is a 422 that names the field."""
    for title in (r'"\ud800"', r'"a\u0000"', '"' + "x" * 51 + '"', "null", "NaN", "[" * 900 + "]" * 900):
        response = await client.post("/notes", content=f'{{"title": {title}}}', headers={"Content-Type": "application/json"})

        assert response.status_code == 422, title[:10]
        assert response.json()["errors"][0]["loc"][-1] == "title"


async def test_an_endpoint_costs_few_statements(client: AsyncClient, notes: Database) -> None:
    """A list takes two statements, a row one and a new row one."""
    with assert_max_queries(notes, 1):
        assert (await client.post("/notes", json={"title": "a"})).status_code == 201
    with assert_max_queries(notes, 2):
        await client.get("/notes")
    with assert_max_queries(notes, 1):
        await client.get("/notes/1")


async def test_lists_may_do_without_a_total(notes: Database) -> None:
    """With max_total a list counts no further; has_more is right in any case."""
    async with notes.begin() as session:
        await NoteService(session).create_many([NoteCreate(title=f"note {number}") for number in range(5)])
    pages = []
    for bound in (0, 3, None):
        router = crud_router(NoteService, read=NoteRead, session=notes.session, options=RouterOptions(max_total=bound))
        async with client_of(router, prefix="/notes") as client:
            with assert_max_queries(notes, 1 if bound == 0 else 2):
                pages.append((await client.get("/notes", params={"limit": 2})).json())

    assert set(pages[0]) == {"items", "has_more", "skip", "limit"}
    assert [(page.get("total"), page.get("total_capped"), page["has_more"]) for page in pages] == [
        (None, None, True),
        (3, True, True),
        (5, False, True),
    ]
