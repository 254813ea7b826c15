"""Programs as applications write them run as they stand."""

from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from tests.typing.applications import error_body

from fastapi_kit import Base
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.testing.client import app_client

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of the quickstart."""
    return tmp_path_factory.mktemp("quickstart")


@pytest.fixture(scope="module")
def quickstart_module(folder: Path) -> Iterator[ModuleType]:
    """The quickstart, imported where no database is set. Its table leaves the shared base when these tests end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("DATABASE_URL", raising=False)
        module = import_module("tests.typing.applications.quickstart")
    yield module
    Base.metadata.remove(module.Note.__table__)


@pytest.fixture
async def quickstart(quickstart_module: ModuleType) -> AsyncIterator[AsyncClient]:
    """A client of the started quickstart."""
    async with app_client(quickstart_module.app) as client:
        yield client


@pytest.fixture
async def shop() -> AsyncIterator[AsyncClient]:
    """A client of the shop whose errors have a body of its own."""
    async with app_client(error_body.app) as client:
        yield client


async def test_the_quickstart_keeps_notes(quickstart: AsyncClient, folder: Path) -> None:
    """Without a setting the tables are made at the start, and the notes are in a file of the working directory."""
    empty = await quickstart.get("/notes")
    created = await quickstart.post("/notes", json={"title": "Buy milk"})

    assert (empty.json()["items"], created.status_code) == ([], 201)
    assert (await quickstart.get(created.headers["Location"])).json() == created.json()
    assert (await quickstart.get("/notes")).json()["items"] == [created.json()]
    assert (folder / "app.db").exists()


def test_the_quickstart_is_the_same_everywhere() -> None:
    """The README shows the example, and the example is the program that is type-checked here."""
    example, program, readme = [
        (ROOT / path).read_text() for path in ("examples/quickstart/app.py", "tests/typing/applications/quickstart.py", "README.md")
    ]

    assert example == program
    assert f"```python\n{example}```" in readme


async def test_an_order(shop: AsyncClient) -> None:
    """An order that nothing is wrong with is answered as usual."""
    response = await shop.post("/orders", json={"sku": "egg", "pieces": 12})

    assert (response.status_code, response.json()) == (200, {"sku": "egg", "pieces": 12})


@pytest.mark.parametrize(
    ("method", "path", "order", "status", "lines"),
    [
        pytest.param(
            "POST",
            "/orders",
            {"sku": "egg", "pieces": 7},
            422,
            ["pieces must be a multiple of six"],
            id="its input error",
        ),
        pytest.param("POST", "/orders", {"sku": "egg", "pieces": 18}, 409, ["We have only 12 of these."], id="its own error"),
        pytest.param("POST", "/orders", {"sku": "egg"}, 422, ["pieces Field required"], id="validation"),
        pytest.param("GET", "/nowhere", None, 404, ["Not Found"], id="the framework's error"),
    ],
)
async def test_a_body_of_its_own(shop: AsyncClient, method: str, path: str, order: object, status: int, lines: list[str]) -> None:
    """Every error has the body of the application, sent as JSON; the error of the application has its status and its text."""
    response = await shop.request(method, path, json=order)

    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"errors": {"body": lines}}


@pytest.fixture
async def item_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[tuple[ModuleType, AsyncClient]]:
    """The program with filtered lists, in an empty folder, and a client of its routes."""
    monkeypatch.chdir(tmp_path)
    module = import_module("tests.typing.applications.item_list")
    app = FastAPI(lifespan=module.db.lifespan)
    app.include_router(module.router)
    register_exception_handlers(app)
    await module.db.create_tables(module.Item.metadata)
    async with app_client(app) as client:
        yield module, client
    for model in (module.Tag, module.Item):
        Base.metadata.remove(model.__table__)


async def test_lists_by_hand(item_list: tuple[ModuleType, AsyncClient]) -> None:
    """One declaration serves offset pages, keyset pages and statements of one's own."""
    module, client = item_list
    async with module.db.begin() as session:
        for name, price in {"Wool": 3, "Silk": 9, "Hemp": 0}.items():
            session.add(module.Item(name=name, sku=name[:1], price=Decimal(price), tags=[module.Tag(name=name.lower())]))

    page = (await client.get("/items", params={"sort": "name", "q": "s"})).json()
    feed = (await client.get("/items/feed", params={"sort": "-price", "limit": 1, "tag": "Silk"})).json()
    wrong = await client.get("/items", params={"colour": "red"})

    assert ([item["name"] for item in page["items"]], page["total"], page["limit"]) == (["Silk"], 1, 20)
    assert ([item["name"] for item in feed["items"]], feed["next_cursor"]) == (["Silk"], None)
    assert (wrong.status_code, wrong.json()["errors"][0]["loc"]) == (422, ["query", "colour"])
    async with module.db.begin() as session:
        assert await module.cheap_items(session) == ["Wool", "Silk"]
