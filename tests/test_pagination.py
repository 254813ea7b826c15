"""Offset pages: bounds, arithmetic and links, without a database."""

import re
from typing import Annotated, Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from fastapi import FastAPI, Query, Request, Response
from httpx2 import ASGITransport, AsyncClient
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fastapi_kit.errors import ConfigurationError
from fastapi_kit.pagination import Page, PageParams, Slice
from fastapi_kit.routing import set_link_header

URL = "https://api.example.com/notes?q=a&skip=5"


class NoteRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int


class NoteRow:
    """A row as the ORM returns it."""

    def __init__(self, ident: int) -> None:
        self.id = ident


def page(rows: int, *, skip: int, limit: int) -> Page[int]:
    """Return a page of a list of *rows* numbers."""
    return Page[int].of(range(rows)[skip : skip + limit], skip=skip, limit=limit, total=rows)


def links(page: Slice[int], url: str = URL) -> dict[str, str]:
    header = page.link_header(url)
    return {relation: target for target, relation in re.findall(r'<([^>]*)>; rel="(\w+)"', header)}


def skip_of(url: str) -> int:
    return int(parse_qs(urlsplit(url).query)["skip"][0])


# --- Parameters ---


def test_parameters_have_defaults() -> None:
    """Without parameters, the first hundred rows are returned."""
    assert PageParams() == PageParams(skip=0, limit=100)


@pytest.mark.parametrize("given", [{"skip": -1}, {"skip": 2**31}, {"limit": -1}, {"limit": 1001}, {"limit": "all"}, {"offset": 3}])
def test_parameters_out_of_bounds_are_rejected(given: dict[str, object]) -> None:
    """Values out of bounds and unknown parameters are rejected."""
    with pytest.raises(ValidationError):
        PageParams.model_validate(given)


@pytest.mark.parametrize("given", [{"skip": 2**31 - 1}, {"limit": 1000}, {"limit": 0}])
def test_the_bounds_themselves_are_allowed(given: dict[str, int]) -> None:
    """The greatest and the smallest values are accepted."""
    assert PageParams.model_validate(given).model_dump(include=set(given)) == given


def test_a_subclass_sets_its_own_bounds() -> None:
    """A subclass narrows the limit and caps the total. Neither becomes a parameter."""

    class Narrow(PageParams):
        max_total = 10_000
        limit: Annotated[int, Field(ge=1, le=20)] = 10

    assert Narrow().limit == 10
    assert Narrow.max_total == 10_000
    assert PageParams.max_total is None
    with pytest.raises(ValidationError):
        Narrow.model_validate({"limit": 21})
    with pytest.raises(ValidationError):
        Narrow.model_validate({"max_total": 1})


# --- Arithmetic ---


@pytest.mark.parametrize(
    ("rows", "skip", "limit", "has_more"),
    [(0, 0, 10, False), (10, 0, 10, False), (11, 0, 10, True), (11, 10, 10, False), (11, 50, 10, False), (3, 0, 0, True), (0, 0, 0, False)],
)
def test_an_exact_total_tells_whether_there_is_more(rows: int, skip: int, limit: int, has_more: bool) -> None:
    """has_more follows from skip, the rows and the total, also past the last page."""
    assert page(rows, skip=skip, limit=limit).has_more is has_more


def test_without_an_exact_total_the_caller_says_whether_there_is_more() -> None:
    """Without an exact total, has_more must be given."""
    with pytest.raises(ConfigurationError, match="has_more"):
        Page[int].of([1], skip=0, limit=1, total=10_000, total_capped=True)

    assert Page[int].of([1], skip=0, limit=1, total=10_000, total_capped=True, has_more=True).has_more is True


def test_a_page_has_a_total_and_a_slice_has_none() -> None:
    """The JSON schema of a page has an integer, without null. A slice has no such field."""
    assert Page[int].model_json_schema()["properties"]["total"] == {"minimum": 0, "title": "Total", "type": "integer"}
    assert set(Slice[int].model_fields) == {"items", "has_more", "skip", "limit"}
    with pytest.raises(ValidationError):
        Page[int].model_validate({"items": [], "total": None, "has_more": False, "skip": 0, "limit": 1})


def test_a_given_has_more_is_kept() -> None:
    """A given has_more wins over the total."""
    assert Page[int].of([1], skip=0, limit=1, total=1, has_more=True).has_more is True


# --- Links ---


def test_a_page_in_the_middle_has_all_four_links() -> None:
    """First, prev, next and last (RFC 8288). Other parameters of the URL stay."""
    assert page(45, skip=20, limit=10).link_header(URL) == (
        '<https://api.example.com/notes?q=a&skip=0&limit=10>; rel="first", '
        '<https://api.example.com/notes?q=a&skip=10&limit=10>; rel="prev", '
        '<https://api.example.com/notes?q=a&skip=30&limit=10>; rel="next", '
        '<https://api.example.com/notes?q=a&skip=40&limit=10>; rel="last"'
    )


@pytest.mark.parametrize(
    ("rows", "skip", "relations"),
    [
        (0, 0, {"first", "last"}),
        (10, 0, {"first", "last"}),
        (11, 0, {"first", "next", "last"}),
        (11, 10, {"first", "prev", "last"}),
    ],
)
def test_a_page_at_the_edge_has_no_link_beyond_it(rows: int, skip: int, relations: set[str]) -> None:
    """There is no prev before the first row, and no next after the last."""
    assert links(page(rows, skip=skip, limit=10)).keys() == relations


def test_prev_past_the_end_leads_back_to_rows() -> None:
    """Far past the last page, prev is the last page."""
    assert skip_of(links(page(25, skip=1_000, limit=10))["prev"]) == 20


def test_prev_never_goes_below_zero() -> None:
    """In the middle of the first page, prev is its beginning."""
    assert skip_of(links(page(25, skip=3, limit=10))["prev"]) == 0


@pytest.mark.parametrize(
    "rows",
    [
        Page[int].of([1], skip=10, limit=1, total=100, total_capped=True, has_more=True),
        Slice(items=[1], skip=10, limit=1, has_more=True),
    ],
    ids=["capped", "uncounted"],
)
def test_there_is_no_last_page_without_an_exact_total(rows: Slice[int]) -> None:
    """There is no last link if the total is unknown or capped."""
    assert links(rows).keys() == {"first", "prev", "next"}


@pytest.mark.parametrize("rows", [0, 5])
def test_an_empty_page_by_request_has_no_links(rows: int) -> None:
    """With limit 0 the header is empty."""
    assert page(rows, skip=0, limit=0).link_header(URL) == ""


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/notes", "/notes?skip=0&limit=10"),
        ("/notes?", "/notes?skip=0&limit=10"),
        ("/notes#top", "/notes?skip=0&limit=10"),
        ("/notes?limit=3&skip=9&skip=8&s%6Bip=1", "/notes?skip=0&limit=10"),
        ("/notes?tag=a&tag=b&empty=&flag", "/notes?tag=a&tag=b&empty=&flag&skip=0&limit=10"),
        ("/notes?q=a%20b+c%2Bd%26e&raw=%ff", "/notes?q=a%20b+c%2Bd%26e&raw=%ff&skip=0&limit=10"),
        ("/notes?skipped=1&unlimited=2", "/notes?skipped=1&unlimited=2&skip=0&limit=10"),
        ("/größe?q=ü", "/gr%C3%B6%C3%9Fe?q=%C3%BC&skip=0&limit=10"),
        ("http://[not-an-address/notes", "http://[not-an-address/notes?skip=0&limit=10"),
    ],
)
def test_the_rest_of_the_url_is_kept(url: str, expected: str) -> None:
    """Only skip and limit are replaced. Nothing else is decoded, reordered or lost."""
    assert links(page(5, skip=0, limit=10), url)["first"] == expected


@pytest.mark.parametrize("evil", ["\r\nSet-Cookie: a=b", '>; rel="next", <https://evil.example', "\x00\x7f", "\ud800", " a\tb", '"'])
def test_a_url_cannot_leave_its_brackets(evil: str) -> None:
    """Line breaks, brackets, quotes and characters that cannot be encoded are escaped. The header has two links."""
    header = page(5, skip=0, limit=10).link_header(f"https://api.example.com/{evil}?q={evil}")

    assert re.fullmatch(r'<[!#-;=?-~]+>; rel="first", <[!#-;=?-~]+>; rel="last"', header)


@given(rows=st.integers(0, 60), skip=st.integers(0, 70), limit=st.integers(1, 20))
def test_walking_next_shows_every_row_once(rows: int, skip: int, limit: int) -> None:
    """From any page, next leads through all following rows, each once, and ends."""
    seen: list[int] = []
    here = page(rows, skip=skip, limit=limit)
    for _ in range(rows + 1):
        seen += here.items
        if "next" not in links(here):
            break
        here = page(rows, skip=skip_of(links(here)["next"]), limit=limit)

    assert "next" not in links(here)
    assert seen == list(range(skip, rows))


@given(rows=st.integers(1, 60), skip=st.integers(0, 60), limit=st.integers(1, 20))
def test_prev_undoes_next(rows: int, skip: int, limit: int) -> None:
    """The prev link of the next page is this page."""
    here = page(rows, skip=skip, limit=limit)
    if here.has_more:
        following = page(rows, skip=skip_of(links(here)["next"]), limit=limit)
        assert skip_of(links(following)["prev"]) == skip


@given(rows=st.integers(0, 60), limit=st.integers(1, 20))
def test_last_is_the_end_of_the_walk(rows: int, limit: int) -> None:
    """The last page has the last row and no next link."""
    last = page(rows, skip=skip_of(links(page(rows, skip=0, limit=limit))["last"]), limit=limit)

    assert not last.has_more
    assert last.items[-1:] == list(range(rows))[-1:]


@given(url=st.text(max_size=30))
def test_any_url_gives_a_header(url: str) -> None:
    """For any URL the header is printable ASCII, and the parameters are right."""
    target = links(page(5, skip=0, limit=10), url)["first"]

    assert target.isascii()
    assert target.isprintable()
    assert parse_qsl(target.partition("?")[2])[-2:] == [("skip", "0"), ("limit", "10")]


# --- As a response ---

app = FastAPI()


@app.get("/rows")
async def list_rows(params: Annotated[PageParams, Query()]) -> Page[NoteRead]:
    rows: list[Any] = [NoteRow(params.skip + 1)]
    return Page[NoteRead].of(rows, skip=params.skip, limit=params.limit, total=3)


@app.get("/orm", response_model=Page[NoteRead])
async def list_orm_rows() -> object:
    return Page.of([NoteRow(1)], skip=0, limit=1, total=3)


@app.get("/bare", response_model=Page[NoteRead])
async def list_bare() -> object:
    return Page.of([{"id": 1, "secret": 2}], skip=0, limit=1, total=4, total_capped=True, has_more=True)


@app.get("/slice")
async def list_slice(request: Request, response: Response, params: Annotated[PageParams, Query()]) -> Slice[NoteRead]:
    rows = Slice(items=[NoteRead(id=1)], skip=params.skip, limit=params.limit, has_more=True)
    set_link_header(request, response, rows)
    return rows


async def get(path: str) -> tuple[int, dict[str, object]]:
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        response = await client.get(path)
        return response.status_code, response.json()


async def test_a_page_is_a_response_model() -> None:
    """A route declares PageParams and returns a typed page."""
    assert await get("/rows?skip=1&limit=1") == (
        200,
        {"items": [{"id": 2}], "total": 3, "total_capped": False, "total_is_estimate": False, "has_more": True, "skip": 1, "limit": 1},
    )


async def test_a_hand_written_list_sets_its_links_in_one_call() -> None:
    """The links are relative to the host, keep other parameters, and are missing if the limit is 0."""

    async def links_of(path: str, *, root_path: str = "") -> str | None:
        async with AsyncClient(transport=ASGITransport(app, root_path=root_path), base_url="http://evil.example") as client:
            answer = await client.get(path)
            assert set(answer.json()) == {"items", "has_more", "skip", "limit"}
            return answer.headers.get("link")

    assert await links_of("/slice?skip=2&limit=2") == (
        '</slice?skip=0&limit=2>; rel="first", </slice?skip=0&limit=2>; rel="prev", </slice?skip=4&limit=2>; rel="next"'
    )
    assert (
        await links_of("/slice?limit=1", root_path="/api")
        == '</api/slice?skip=0&limit=1>; rel="first", </api/slice?skip=1&limit=1>; rel="next"'
    )
    assert await links_of("/slice?limit=0") is None


@pytest.mark.parametrize("query", ["limit=1001", "skip=-1", "offset=3"])
async def test_a_route_rejects_wrong_parameters(query: str) -> None:
    """Wrong and unknown parameters are a 422."""
    assert (await get(f"/rows?{query}"))[0] == 422


@pytest.mark.parametrize(("path", "total"), [("/orm", 3), ("/bare", 4)])
async def test_the_response_model_filters_what_a_bare_page_holds(path: str, total: int) -> None:
    """A page without a type argument is validated by the response model."""
    status, body = await get(path)

    assert (status, body["items"], body["total"]) == (200, [{"id": 1}], total)


async def test_the_document_names_parameters_and_page() -> None:
    """OpenAPI shows both parameters with their bounds, and all fields of the page as required."""
    _, document = await get("/openapi.json")
    paths, components = document["paths"], document["components"]
    assert isinstance(paths, dict)
    assert isinstance(components, dict)

    parameters = {item["name"]: item["schema"] for item in paths["/rows"]["get"]["parameters"]}
    assert {name: (schema["minimum"], schema["maximum"]) for name, schema in parameters.items()} == {
        "skip": (0, 2**31 - 1),
        "limit": (0, 1000),
    }
    assert set(components["schemas"]["Page_NoteRead_"]["required"]) == set(Page.model_fields)
