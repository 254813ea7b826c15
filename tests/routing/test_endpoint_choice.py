"""Which endpoints a router has, and routes of the application beside them."""

import pytest
from fastapi import APIRouter, Depends, FastAPI
from tests.routing.models import (
    ALL,
    NoteRead,
    NoteService,
    NoteTitle,
    SeatPlanIn,
    SeatPlanService,
    client_of,
    endpoints_of,
    forbid,
    get_session,
)

from fastapi_kit.db import Database
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.routing import Endpoint, crud_router
from fastapi_kit.testing.client import app_client


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
    """endpoints= takes any combination."""
    assert endpoints_of(crud_router(NoteService, read=NoteRead, session=get_session, endpoints=endpoints)) == expected


def test_groups_are_what_they_say() -> None:
    """READ, WRITE and CRUD have the endpoints that they name."""
    assert Endpoint.CREATE_MANY not in Endpoint.CRUD
    assert Endpoint.LIST | Endpoint.GET == Endpoint.READ
    assert Endpoint.CREATE | Endpoint.UPDATE | Endpoint.DELETE == Endpoint.WRITE
    assert Endpoint.READ | Endpoint.WRITE == Endpoint.CRUD


async def test_an_endpoint_is_replaced_by_ordinary_means(notes: Database) -> None:
    """An endpoint that is left out can be declared by the application."""
    router = crud_router(NoteService, read=NoteRead, session=notes.session, endpoints=Endpoint.CRUD & ~Endpoint.GET)

    @router.get("/{id}")
    async def read(id: int) -> str:
        return f"note {id}"

    async with client_of(router, prefix="/notes") as client:
        assert (await client.get("/notes/7")).json() == "note 7"
        assert (await client.delete("/notes/7")).status_code == 404


async def test_own_routes_are_found_before_keys(notes: Database) -> None:
    """A route that is declared on the router or included in it is found before the paths of single rows."""
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
    """Of two own routes that match, the first declared is found."""
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


async def test_routers_do_not_disturb_each_other(notes: Database) -> None:
    """Several routers of one service, included twice and in two apps, keep their own guards and routes."""
    router = crud_router(NoteService, read=NoteRead, session=notes.session)
    guarded = crud_router(NoteService, read=NoteTitle, session=notes.session, dependencies={Endpoint.READ: [Depends(forbid)]})
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


async def test_a_replaced_row_route_takes_no_other_path(notes: Database) -> None:
    """An own GET /{id} is found after routes that are declared later."""
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
