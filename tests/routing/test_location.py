"""Location of a new row: under prefixes, mounts and proxies."""

from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.routing.models import NoteRead, NoteService, client_of

from fastapi_kit.db import Database
from fastapi_kit.routing import crud_router
from fastapi_kit.testing.client import app_client


async def test_location_finds_the_row_under_any_prefix(notes: Database) -> None:
    """Location includes nested prefixes and their parameters."""
    async with client_of(crud_router(NoteService, read=NoteRead, session=notes.session), prefix="/api/{tenant}/notes") as client:
        location = (await client.post("/api/ä b/notes", json={"title": "a"})).headers["location"]

        assert location == "/api/%C3%A4%20b/notes/1"
        assert (await client.get(location)).status_code == 200


async def test_location_names_no_host(client: AsyncClient) -> None:
    """Location is a path, whatever the Host header says."""
    response = await client.post("/notes", json={"title": "a"}, headers={"Host": "evil.example"})

    assert response.headers["location"] == "/notes/1"


class Proxy:
    """Sets a root path, as a server does behind a proxy."""

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
    """Location includes the path of a mount and the prefix of a proxy."""
    inner, outer = FastAPI(), FastAPI()
    inner.include_router(crud_router(NoteService, read=NoteRead, session=notes.session), prefix="/notes")
    outer.mount(mount, inner)
    app = outer if mount else inner
    app.add_middleware(Proxy, root_path=root_path)

    async with app_client(app) as client:
        assert (await client.post(path, json={"title": "a"})).headers["location"] == location


async def test_a_path_with_lone_surrogates(notes: Database) -> None:
    """Links and locations can be made of a path that a server has decoded into lone surrogates."""

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
