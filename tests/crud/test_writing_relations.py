"""Relationships written in the hooks, as the guide shows it: many-to-many by ids, nested rows, and what the answers contain."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Table, func, select
from tests.tables.store import Article, Label, Owner, Paper, StoreBase

from fastapi_kit.crud import CRUDService
from fastapi_kit.db import Database
from fastapi_kit.errors import InvalidDataError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.routing import crud_router
from fastapi_kit.testing import app_client


class Named(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    name: str


class PaperRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    text: str


class ArticleRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    name: str
    owner: Named
    labels: list[Named]
    papers: list[PaperRead]


class PaperCreate(BaseModel):
    text: str = Field(max_length=20)


class ArticleUpdate(BaseModel):
    name: str = ""
    owner_id: int = 0
    label_ids: set[int] = set()
    papers: list[PaperCreate] = []


class ArticleCreate(ArticleUpdate):
    name: str
    owner_id: int


class OwnerService(CRUDService[Owner, Named, Named]): ...


class LabelService(CRUDService[Label, Named, Named]): ...


class ArticleService(CRUDService[Article, ArticleCreate, ArticleUpdate]):
    async def create_values(self, data: ArticleCreate) -> dict[str, Any]:
        return await self.with_rows(await super().create_values(data))

    async def update_values(self, data: ArticleUpdate) -> dict[str, Any]:
        return await self.with_rows(await super().update_values(data))

    async def with_rows(self, values: dict[str, Any]) -> dict[str, Any]:
        if "label_ids" in values:
            values["labels"] = await self.labels(values.pop("label_ids"))
        if "papers" in values:
            values["papers"] = [Paper(text=paper.text) for paper in values["papers"]]
        return values

    async def labels(self, ids: set[int]) -> list[Label]:
        labels = await LabelService(self.session).list(Label.id.in_(ids), order_by=Label.name, limit=None)
        if len(labels) < len(ids):
            raise InvalidDataError(["label_ids"], reason="unknown_reference")
        return labels


@pytest.fixture(params=["session", "transaction"])
async def client(request: pytest.FixtureRequest, database: Database) -> AsyncIterator[AsyncClient]:
    """The routes over both markers: a request's write commits itself, or the request is one transaction."""
    await database.create_tables(StoreBase.metadata)
    async with database.begin() as session:
        session.add_all([Owner(id=1, name="Ada"), Owner(id=2, name="Bo")])
        session.add_all([Label(id=number, name=name) for number, name in enumerate("dcba", start=1)])
    app = FastAPI()
    register_exception_handlers(app)
    session = getattr(database, request.param)
    app.include_router(crud_router(ArticleService, read=ArticleRead, session=session), prefix="/articles")
    app.include_router(crud_router(OwnerService, read=Named, session=session), prefix="/owners")
    async with app_client(app) as client:
        yield client


async def create(client: AsyncClient, **more: Any) -> dict[str, Any]:
    article = {"name": "Rows", "owner_id": 1, "label_ids": [1, 3, 2], "papers": [{"text": "z"}, {"text": "y"}]} | more
    answer = await client.post("/articles", json=article)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


async def count(database: Database, table: Table) -> int:
    async with database.engine.connect() as connection:
        return (await connection.execute(select(func.count()).select_from(table))).scalar_one()


async def counts(database: Database) -> dict[str, int]:
    """Return how many rows there are of each kind that an article is written with."""
    names = ("owners", "labels", "folders", "folder_labels", "papers")
    return {name: await count(database, StoreBase.metadata.tables[name]) for name in names}


async def test_a_created_row_is_answered_with_its_relationships(client: AsyncClient) -> None:
    """The answer contains what the read schema names, in the order of the relationships, and equals the next read."""
    created = await create(client)

    assert created["owner"] == {"id": 1, "name": "Ada"}
    assert [label["name"] for label in created["labels"]] == ["b", "c", "d"]
    assert [paper["text"] for paper in created["papers"]] == ["z", "y"]
    assert (await client.get("/articles/1")).json() == created
    assert (await client.get("/articles")).json()["items"] == [created]


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"label_ids": [4, 1]}, {"labels": [{"id": 4, "name": "a"}, {"id": 1, "name": "d"}]}),
        ({"label_ids": []}, {"labels": []}),
        ({"papers": [{"text": "new"}]}, {"papers": [{"id": 3, "text": "new"}]}),
        ({"papers": []}, {"papers": []}),
        ({"owner_id": 2}, {"owner": {"id": 2, "name": "Bo"}}),
        ({"name": "Other", "label_ids": [2]}, {"name": "Other", "labels": [{"id": 2, "name": "c"}]}),
        ({"label_ids": [3, 2, 1]}, {}),
        ({}, {}),
    ],
)
async def test_an_update_changes_what_was_sent(client: AsyncClient, change: dict[str, Any], changed: dict[str, Any]) -> None:
    """What was sent replaces what was there; what was left out stays."""
    created = await create(client)

    answer = await client.patch("/articles/1", json=change)

    assert (answer.status_code, answer.json()) == (200, created | changed)
    assert (await client.get("/articles/1")).json() == answer.json()


@pytest.mark.parametrize(
    ("wrong", "loc"),
    [
        ({"label_ids": [1, 99]}, ["label_ids"]),
        ({"owner_id": 99}, ["owner_id"]),
        ({"papers": [{"text": "more than twenty characters"}]}, ["body", "papers", 0, "text"]),
    ],
)
async def test_a_rejected_write_leaves_everything(client: AsyncClient, database: Database, wrong: dict[str, Any], loc: list[Any]) -> None:
    """An unknown id, or a child that cannot be stored, is a 422 that names it, and nothing is written, new or changed."""
    created = await create(client)

    new = await client.post("/articles", json={"name": "New", "owner_id": 1, "papers": [{"text": "n"}]} | wrong)
    change = await client.patch("/articles/1", json={"name": "Lost", "papers": [{"text": "lost"}]} | wrong)

    assert [(answer.status_code, answer.json()["errors"][0]["loc"]) for answer in (new, change)] == [(422, loc)] * 2
    assert (await client.get("/articles")).json()["items"] == [created]
    assert await count(database, Paper.__table__) == 2  # type: ignore[arg-type]


async def test_a_child_that_the_database_rejects_undoes_its_parent(client: AsyncClient, database: Database) -> None:
    """A duplicate among the children is a 409, and neither parent nor link is stored."""
    await create(client)

    answer = await client.post("/articles", json={"name": "New", "owner_id": 1, "label_ids": [1], "papers": [{"text": "z"}]})

    assert answer.status_code == 409
    assert await counts(database) == {"owners": 2, "labels": 4, "folders": 1, "folder_labels": 3, "papers": 2}


async def test_a_delete_takes_children_and_links_along(client: AsyncClient, database: Database) -> None:
    """The children and the links are deleted, the labels stay; an owner with articles cannot be deleted."""
    await create(client)
    assert (await client.delete("/owners/1")).status_code == 409

    assert (await client.delete("/articles/1")).status_code == 204

    assert await counts(database) == {"owners": 2, "labels": 4, "folders": 0, "folder_labels": 0, "papers": 0}
    assert (await client.delete("/owners/1")).status_code == 204
