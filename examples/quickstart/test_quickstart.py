"""Tests of the quickstart, as an application writes them: in the same event loop, each rolled back at its end."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from httpx import AsyncClient, Response
from sqlalchemy import text

from fastapi_kit import Base
from fastapi_kit.testing.client import app_client
from fastapi_kit.testing.database import isolated

APP = Path(__file__).with_name("app.py")
REPOSITORY = APP.parents[2]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def quickstart(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The application on one database. It reads its settings at import, so each database needs its own import."""
    folder = tmp_path_factory.mktemp("quickstart")
    url = f"sqlite+aiosqlite:///{folder / 'test.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DATABASE_URL", url)
        module = imported(APP, name=f"{folder.name}_on_{request.param}")
    yield module
    Base.metadata.remove(module.Note.__table__)


def imported(path: Path, *, name: str) -> ModuleType:
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # Pydantic looks there.
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def client(quickstart: ModuleType) -> AsyncIterator[AsyncClient]:
    """A client of the started application. What a test writes is rolled back."""
    async with app_client(quickstart.app, raise_errors=True) as client, isolated(quickstart.db):
        yield client


async def create(client: AsyncClient, title: str) -> dict[str, Any]:
    response = await client.post("/notes", json={"title": title})
    assert response.status_code == 201
    note: dict[str, Any] = response.json()
    return note


def assert_problem(response: Response, status: int, code: str, *locations: list[str]) -> None:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["code"], problem["type"]) == (status, code, "about:blank")
    assert isinstance(problem["title"], str)
    assert isinstance(problem["detail"], str)
    assert [error["loc"] for error in problem.get("errors", [])] == list(locations)


async def test_create(client: AsyncClient) -> None:
    """A new note is returned as it is stored, and Location leads to it."""
    response = await client.post("/notes", json={"title": "Buy milk"})

    note = response.json()
    assert response.status_code == 201
    assert note.keys() == {"title", "id", "created_at"}
    assert note["title"] == "Buy milk"
    assert response.headers["Location"] == f"/notes/{note['id']}"
    assert (await client.get(response.headers["Location"])).json() == note


async def test_times_are_aware(client: AsyncClient) -> None:
    """Timestamps have the time zone UTC on both databases."""
    note = await create(client, "Buy milk")

    assert datetime.fromisoformat(note["created_at"]).utcoffset() == timedelta(0)


async def test_list(client: AsyncClient) -> None:
    """A list is a page of the notes in the order of their keys."""
    notes = [await create(client, title) for title in ("one", "two", "three")]

    response = await client.get("/notes")

    assert response.status_code == 200
    total = {"total": 3, "total_capped": False, "total_is_estimate": False}
    assert response.json() == {"items": notes, **total, "has_more": False, "skip": 0, "limit": 100}


async def test_empty_list(client: AsyncClient) -> None:
    """Without notes the page is empty."""
    page = (await client.get("/notes")).json()

    assert (page["items"], page["total"], page["has_more"]) == ([], 0, False)


async def test_list_in_pages(client: AsyncClient) -> None:
    """A page says whether another one follows. The total is right even past the last page."""
    for title in ("one", "two", "three"):
        await create(client, title)

    pages = [(await client.get("/notes", params={"skip": skip, "limit": 2})).json() for skip in (0, 2, 4)]

    assert [[note["title"] for note in page["items"]] for page in pages] == [["one", "two"], ["three"], []]
    assert [page["has_more"] for page in pages] == [True, False, False]
    assert [page["total"] for page in pages] == [3, 3, 3]


async def test_list_searched_and_sorted(client: AsyncClient) -> None:
    """Titles are searched in any case. An unknown parameter or sort key is a 422."""
    for title in ("buy milk", "buy eggs", "Sleep"):
        await create(client, title)

    page = (await client.get("/notes", params={"q": "BUY", "sort": "-title"})).json()

    assert [note["title"] for note in page["items"]] == ["buy milk", "buy eggs"]
    assert_problem(await client.get("/notes?sort=id"), 422, "invalid_request", ["query", "sort"])
    assert_problem(await client.get("/notes?title=x"), 422, "invalid_request", ["query", "title"])


async def test_update(client: AsyncClient) -> None:
    """A change is returned and stored."""
    note = await create(client, "Buy milk")

    response = await client.patch(f"/notes/{note['id']}", json={"title": "Buy oat milk"})

    assert response.status_code == 200
    assert response.json() == {**note, "title": "Buy oat milk"}
    assert (await client.get(f"/notes/{note['id']}")).json() == response.json()


async def test_update_of_nothing(client: AsyncClient) -> None:
    """An empty PATCH changes nothing."""
    note = await create(client, "Buy milk")

    response = await client.patch(f"/notes/{note['id']}", json={})

    assert (response.status_code, response.json()) == (200, note)


async def test_update_to_null(client: AsyncClient) -> None:
    """A null for a NOT NULL column is a 422, and the note does not change."""
    note = await create(client, "Buy milk")

    response = await client.patch(f"/notes/{note['id']}", json={"title": None})

    assert_problem(response, 422, "invalid_data", ["title"])
    assert (await client.get(f"/notes/{note['id']}")).json() == note


async def test_delete(client: AsyncClient) -> None:
    """A delete is a 204 without a body, and the note no longer exists."""
    note = await create(client, "Buy milk")

    response = await client.delete(f"/notes/{note['id']}")

    assert (response.status_code, response.content) == (204, b"")
    assert (await client.get(f"/notes/{note['id']}")).status_code == 404
    assert (await client.get("/notes")).json()["total"] == 0


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("ident", [1, 0, -1, 2**31 - 1])
async def test_unknown_note(client: AsyncClient, method: str, ident: int) -> None:
    """An unknown note is a 404."""
    response = await client.request(method, f"/notes/{ident}", json={} if method == "PATCH" else None)

    assert_problem(response, 404, "not_found")


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("ident", [2**31, 2**63, 10**30, -(2**31) - 1, -(2**63) - 1])
async def test_impossible_key(client: AsyncClient, method: str, ident: int) -> None:
    """A key that is too large for the column is a 422."""
    response = await client.request(method, f"/notes/{ident}", json={} if method == "PATCH" else None)

    assert_problem(response, 422, "invalid_request", ["path", "id"])


@pytest.mark.parametrize(("name", "value"), [("skip", "-1"), ("skip", str(2**31)), ("limit", "0"), ("limit", "1001"), ("limit", "many")])
async def test_page_out_of_bounds(client: AsyncClient, name: str, value: str) -> None:
    """Values of skip and limit out of range are a 422."""
    response = await client.get("/notes", params={name: value})

    assert_problem(response, 422, "invalid_request", ["query", name])


async def test_widest_page(client: AsyncClient) -> None:
    """The limits themselves are allowed."""
    response = await client.get("/notes", params={"skip": 2**31 - 1, "limit": 1000})

    assert (response.status_code, response.json()["items"]) == (200, [])


async def test_unknown_query_parameter(client: AsyncClient) -> None:
    """An unknown query parameter is a 422."""
    response = await client.get("/notes", params={"colour": "red"})

    assert_problem(response, 422, "invalid_request", ["query", "colour"])


async def test_invalid_body(client: AsyncClient) -> None:
    """An invalid body is a 422 that names the field and repeats no value."""
    response = await client.post("/notes", json={"name": "Buy milk"})

    assert_problem(response, 422, "invalid_request", ["body", "title"])
    assert "Buy milk" not in response.text


async def test_invalid_json(client: AsyncClient) -> None:
    """A body that is not JSON is a 422 with the same body."""
    response = await client.post("/notes", content=b"{title", headers={"Content-Type": "application/json"})

    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"


async def test_conflict(client: AsyncClient, quickstart: ModuleType) -> None:
    """A duplicate of a unique value is a 409, and the first note stays."""
    async with quickstart.db.begin() as session:
        await session.execute(text("CREATE UNIQUE INDEX uq_notes_title ON notes (title)"))
    note = await create(client, "Buy milk")

    response = await client.post("/notes", json={"title": "Buy milk"})

    assert_problem(response, 409, "conflict", ["title"])
    assert (await client.get("/notes")).json()["items"] == [note]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("PUT", "/notes", 405)])
async def test_error_of_the_framework(client: AsyncClient, method: str, path: str, status: int) -> None:
    """The framework's own errors have the same body."""
    response = await client.request(method, path)

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


async def test_each_test_starts_without_notes(client: AsyncClient) -> None:
    """Each test starts with an empty table, also if it runs again."""
    assert (await client.get("/notes")).json()["total"] == 0

    await create(client, "Buy milk")


async def test_health(client: AsyncClient) -> None:
    """The health check includes the database."""
    response = await client.get("/health")

    assert response.status_code == 200
    assert response.json() == {"status": "healthy", "version": "0.1.0", "checks": {"database": "ok"}}


async def test_schema(client: AsyncClient) -> None:
    """The OpenAPI document has every operation with its errors."""
    response = await client.get("/api/v1/openapi.json")

    paths = response.json()["paths"]
    assert {path: sorted(operations) for path, operations in paths.items()} == {
        "/notes": ["get", "post"],
        "/notes/{id}": ["delete", "get", "patch"],
    }
    assert "application/problem+json" in paths["/notes/{id}"]["get"]["responses"]["404"]["content"]
    assert (await client.get("/openapi.json")).status_code == 404


async def test_docs(client: AsyncClient) -> None:
    """The interactive documentation loads the OpenAPI document."""
    response = await client.get("/docs")

    assert response.status_code == 200
    assert "/api/v1/openapi.json" in response.text


@asynccontextmanager
async def served(folder: Path) -> AsyncGenerator[AsyncClient]:
    """Serve the quickstart with uvicorn from *folder*, without settings."""
    command = [sys.executable, "-m", "uvicorn", "examples.quickstart.app:app", "--app-dir", str(REPOSITORY), "--port", "0"]
    environment = {name: os.environ[name] for name in ("HOME", "PATH", "PYTHONPATH") if name in os.environ}
    server = await asyncio.create_subprocess_exec(*command, cwd=folder, env=environment, stderr=asyncio.subprocess.PIPE)
    assert server.stderr is not None
    try:
        async with AsyncClient(base_url=await read_address(server.stderr), trust_env=False) as client:
            yield client
    finally:
        server.terminate()
        rest = await server.stderr.read()
        await server.wait()
    assert "Application shutdown complete" in rest.decode()


async def read_address(log: asyncio.StreamReader) -> str:
    seen = b""
    while line := await log.readline():
        if found := re.search(r"running on (http://\S+)", line.decode()):
            return found[1]
        seen += line
    raise AssertionError(seen.decode())


@pytest.mark.only_full
async def test_serve(tmp_path: Path) -> None:
    """It runs in an empty folder without settings, and the notes survive a restart."""
    async with served(tmp_path) as client:
        note = await create(client, "Buy milk")
    async with served(tmp_path) as client:
        page = (await client.get("/notes")).json()

    assert page["items"] == [note]
    assert (tmp_path / "app.db").exists()
