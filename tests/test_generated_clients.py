"""Clients that generators make from the OpenAPI document call lists with filters, sort and cursors."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import insert
from tests.conformance.drive import serving
from tests.tables.shop import Colour, Item, ItemFeed, ItemQuery, ItemRead, ItemService, ShopBase

from fastapi_kit import Database
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.routing import Endpoint, crud_router, operation_id

NAMES = ["Wool", "Silk", "Hemp", "Felt", "Jute"]


def shop() -> FastAPI:
    """Five items in offset pages and in keyset pages. A server makes it."""
    database = Database(os.environ["DATABASE_URL"])

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        await database.create_tables(ShopBase.metadata)
        async with database.begin() as session:
            for number, name in enumerate(NAMES, 1):
                colour = Colour.RED if number % 2 else Colour.BLUE
                await session.execute(insert(Item).values(id=number, name=name, price=Decimal(number), colour=colour))
        yield
        await database.dispose()

    return with_lists(database, FastAPI(title="Shop", lifespan=lifespan, generate_unique_id_function=operation_id))


def with_lists(database: Database, app: FastAPI) -> FastAPI:
    register_exception_handlers(app)
    for name, query in (("items", ItemQuery), ("feed", ItemFeed)):
        router = crud_router(ItemService, query=query, read=ItemRead, session=database.session, endpoints=Endpoint.READ)  # type: ignore[type-var]
        app.include_router(router, prefix=f"/{name}", tags=[name])
    return app


@dataclass(frozen=True)
class Shop:
    """A served shop, and its document in a file."""

    url: str
    document: Path
    folder: Path

    def run(self, *command: str | Path, fails: bool = False, **environment: str) -> str:
        done = subprocess.run(command, cwd=self.folder, env=os.environ | environment, capture_output=True, text=True, check=False)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Shop]:
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(with_lists(Database("sqlite://"), FastAPI(generate_unique_id_function=operation_id)).openapi()))
    with serving("tests.test_generated_clients:shop()", tmp_path, database=f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}") as server:
        yield Shop(server.url, document, tmp_path)


WANTED = {
    "filtered": ["Silk", "Felt", "Jute"],
    "listed": ["Hemp", "Wool"],
    "coloured": ["Silk", "Felt"],
    "walked": [["Jute", "Felt"], ["Hemp", "Silk"], ["Wool"]],
    "back": ["Hemp", "Silk"],
    "rejected": [422, "invalid_request"],
}

PYTHON = """
import json, sys
from client import Client
from client.api.feed import feed_list_items
from client.api.items import items_list_items
from client.models import Colour

with Client(base_url=sys.argv[1]) as client:
    def names(page): return [item.name for item in page.items]

    filtered = items_list_items.sync(client=client, price_gte=2, name_not_in=["Hemp", "Nothing"], sort="price")
    listed = items_list_items.sync(client=client, name_in=["Wool", "Hemp"], q=None, sort="name")
    coloured = items_list_items.sync(client=client, colour=Colour.B, sort="price")
    rejected = items_list_items.sync(client=client, sort="secret")
    walked, cursor = [], None
    while True:
        page = feed_list_items.sync(client=client, sort="-price", limit=2, cursor=cursor)
        walked.append(names(page))
        if (cursor := page.next_cursor) is None:
            break
    back = feed_list_items.sync(client=client, sort="-price", limit=2, cursor=page.previous_cursor)
    assert filtered.total == 3 and isinstance(filtered.has_more, bool)
    print(json.dumps({
        "filtered": names(filtered), "listed": names(listed), "coloured": names(coloured), "walked": walked, "back": names(back),
        "rejected": [rejected.status, rejected.code],
    }))
"""


@pytest.mark.only_full
@pytest.mark.network
def test_a_generated_python_client(served: Shop) -> None:
    """openapi-python-client makes a client that filters, sorts, and follows cursors both ways."""
    env = served.folder / "env"
    uv = [sys.executable, "-m", "uv"]
    served.run(*uv, "venv", "--quiet", "--python", sys.executable, env)
    served.run(*uv, "pip", "install", "--quiet", "--python", env / "bin" / "python", "openapi-python-client==0.29.*")
    generate = [env / "bin" / "openapi-python-client", "generate", "--path", served.document, "--meta", "none", "--output-path", "client"]
    served.run(*generate, PATH=f"{env / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (served.folder / "main.py").write_text(PYTHON)

    found = served.run(env / "bin" / "python", "main.py", served.url)

    assert json.loads(found) == WANTED


TYPESCRIPT = """
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Item = components["schemas"]["ItemRead"];
const client = createClient<paths>({ baseUrl: process.argv[2] });
const names = (page: { items: Item[] } | undefined): string[] => (page?.items ?? []).map((item) => item.name);

const filtered = await client.GET("/items", { params: { query: { price__gte: 2, name__not_in: ["Hemp", "Nothing"], sort: "price" } } });
const listed = await client.GET("/items", { params: { query: { name__in: ["Wool", "Hemp"], q: null, sort: "name" } } });
const coloured = await client.GET("/items", { params: { query: { colour: "b", sort: "price" } } });
const rejected = await client.GET("/items", { params: { query: { sort: "secret" } } });
const walked: string[][] = [];
const feed = async (cursor: string | null) =>
  (await client.GET("/feed", { params: { query: { sort: "-price", limit: 2, cursor } } })).data!;
let page = await feed(null);
walked.push(names(page));
while (page.next_cursor !== null) {
  page = await feed(page.next_cursor);
  walked.push(names(page));
}
const back = await feed(page.previous_cursor);
const total: number = filtered.data!.total;
if (total !== 3) throw new Error(`total ${total}`);
console.log(JSON.stringify({
  filtered: names(filtered.data), listed: names(listed.data), coloured: names(coloured.data), walked, back: names(back),
  rejected: [rejected.error!.status, rejected.error!.code],
}));
"""
NODE_TYPES = "declare const process: { argv: string[] };\n"
WRONG = """
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

createClient<paths>().GET("/items", { params: { query: { WRONG } } });
"""


@pytest.fixture
def npm() -> str:
    """The command; without node there is nothing to test."""
    found = shutil.which("npm")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("npm is missing")
        pytest.skip("npm is missing: install node 20 or newer")
    return found


@pytest.mark.only_full
@pytest.mark.network
def test_generated_typescript(served: Shop, npm: str) -> None:
    """openapi-typescript makes types with which tsc accepts these calls and no others, and openapi-fetch sends them."""
    (served.folder / "package.json").write_text('{"private": true, "type": "module"}')
    served.run(npm, "install", "--no-audit", "--no-fund", "openapi-typescript@7", "openapi-fetch@0", "typescript@5")
    binaries = served.folder / "node_modules" / ".bin"
    served.run(binaries / "openapi-typescript", served.document, "--output", "schema.d.ts")
    (served.folder / "main.ts").write_text(TYPESCRIPT)
    (served.folder / "node.d.ts").write_text(NODE_TYPES)
    tsc = [binaries / "tsc", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom", "schema.d.ts"]
    served.run(*tsc, "node.d.ts", "main.ts")

    assert json.loads(served.run("node", "main.js", served.url)) == WANTED

    for wrong in ('colour: "green"', 'price__gte: ["2"]', "nme: 1", 'name__in: "Wool"', 'limit: "2"'):
        (served.folder / "wrong.ts").write_text(WRONG.replace("WRONG", wrong))
        assert "error TS2" in served.run(*tsc, "--noEmit", "wrong.ts", fails=True), wrong
