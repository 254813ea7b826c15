"""dependencies= of a router: which endpoints they guard, in which order."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Security
from fastapi.routing import APIRoute
from fastapi.security import SecurityScopes
from sqlalchemy.ext.asyncio import AsyncSession
from tests.routing.models import NoteRead, NoteService, client_of, forbid, get_session

from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.routing import Endpoint, crud_router
from fastapi_kit.testing.client import app_client


async def test_dependencies_guard_the_endpoints_of_their_key(notes: Database) -> None:
    """A key may be several endpoints, and a guard that raises keeps them from writing."""
    guards = {Endpoint.WRITE: [Depends(forbid)], Endpoint.LIST: [Depends(forbid)]}
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
    """Guards of the app run first, then those of include_router, then those of the endpoint, all before the session is opened."""
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
def test_a_guard_without_an_endpoint_raises(endpoints: Endpoint, key: Endpoint) -> None:
    """A key whose endpoints the router does not have raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match="guard nothing"):
        crud_router(NoteService, read=NoteRead, session=get_session, endpoints=endpoints, dependencies={key: [Depends(forbid)]})


def test_a_guard_of_several_may_guard_one() -> None:
    """A key of several endpoints guards those that the router has."""
    router = crud_router(
        NoteService,
        read=NoteRead,
        session=get_session,
        endpoints=Endpoint.READ | Endpoint.CREATE,
        dependencies={Endpoint.WRITE: [Depends(forbid)]},
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
    """A guard of CREATE guards CREATE_MANY too."""
    router = crud_router(
        NoteService,
        read=NoteRead,
        session=get_session,
        endpoints=Endpoint.CRUD | Endpoint.CREATE_MANY,
        dependencies={key: [Depends(forbid)] for key in keys},
    )

    assert {route.name for route in router.routes if isinstance(route, APIRoute) and route.dependencies} == guarded


async def test_a_batch_runs_the_guards_of_all_its_keys_in_order(notes: Database) -> None:
    """A batch runs its own guards and those of CREATE, each once."""
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
