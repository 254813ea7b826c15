"""Relationships written in the hooks, as the guide shows it: many-to-many by ids, nested rows, and what the answers contain."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Column, ForeignKey, MetaData, String, Table, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from fastapi_kit.crud import CRUDService
from fastapi_kit.db import NAMING_CONVENTION, Database
from fastapi_kit.errors import InvalidDataError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.routing import crud_router
from fastapi_kit.testing import app_client


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


article_tags = Table(
    "article_tags",
    Base.metadata,
    Column("article_id", ForeignKey("articles.id", ondelete="CASCADE"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id"), primary_key=True),
)


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Tag(Base):
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), unique=True)


class Article(Base):
    __tablename__ = "articles"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(20), unique=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    author: Mapped[Author] = relationship()
    tags: Mapped[list[Tag]] = relationship(secondary=article_tags, order_by=Tag.name)
    comments: Mapped[list["Comment"]] = relationship(cascade="all, delete-orphan", passive_deletes=True, order_by="Comment.id")


class Comment(Base):
    __tablename__ = "comments"
    id: Mapped[int] = mapped_column(primary_key=True)
    article_id: Mapped[int] = mapped_column(ForeignKey("articles.id", ondelete="CASCADE"))
    text: Mapped[str] = mapped_column(String(20), unique=True)


class Named(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    name: str


class CommentRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    text: str


class ArticleRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    title: str
    author: Named
    tags: list[Named]
    comments: list[CommentRead]


class CommentCreate(BaseModel):
    text: str = Field(max_length=20)


class ArticleUpdate(BaseModel):
    title: str = ""
    author_id: int = 0
    tag_ids: set[int] = set()
    comments: list[CommentCreate] = []


class ArticleCreate(ArticleUpdate):
    title: str
    author_id: int


class AuthorService(CRUDService[Author, Named, Named]): ...


class TagService(CRUDService[Tag, Named, Named]): ...


class ArticleService(CRUDService[Article, ArticleCreate, ArticleUpdate]):
    async def create_values(self, data: ArticleCreate) -> dict[str, Any]:
        return await self.with_rows(await super().create_values(data))

    async def update_values(self, data: ArticleUpdate) -> dict[str, Any]:
        return await self.with_rows(await super().update_values(data))

    async def with_rows(self, values: dict[str, Any]) -> dict[str, Any]:
        if "tag_ids" in values:
            values["tags"] = await self.tags(values.pop("tag_ids"))
        if "comments" in values:
            values["comments"] = [Comment(text=comment.text) for comment in values["comments"]]
        return values

    async def tags(self, ids: set[int]) -> list[Tag]:
        tags = await TagService(self.session).list(Tag.id.in_(ids), order_by=Tag.name, limit=None)
        if len(tags) < len(ids):
            raise InvalidDataError(["tag_ids"], reason="unknown_reference")
        return tags


@pytest.fixture(params=["session", "transaction"])
async def client(request: pytest.FixtureRequest, database: Database) -> AsyncIterator[AsyncClient]:
    """The routes over both markers: a request's write commits itself, or the request is one transaction."""
    await database.create_tables(Base.metadata)
    async with database.begin() as session:
        session.add_all([Author(id=1, name="Ada"), Author(id=2, name="Bo")])
        session.add_all([Tag(id=number, name=name) for number, name in enumerate("dcba", start=1)])
    app = FastAPI()
    register_exception_handlers(app)
    session = getattr(database, request.param)
    app.include_router(crud_router(ArticleService, read=ArticleRead, session=session), prefix="/articles")
    app.include_router(crud_router(AuthorService, read=Named, session=session), prefix="/authors")
    async with app_client(app) as client:
        yield client


async def create(client: AsyncClient, **more: Any) -> dict[str, Any]:
    article = {"title": "Rows", "author_id": 1, "tag_ids": [1, 3, 2], "comments": [{"text": "z"}, {"text": "y"}]} | more
    answer = await client.post("/articles", json=article)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


async def count(database: Database, table: Table) -> int:
    async with database.engine.connect() as connection:
        return (await connection.execute(select(func.count()).select_from(table))).scalar_one()


async def test_a_created_row_is_answered_with_its_relationships(client: AsyncClient) -> None:
    """The answer contains what the read schema names, in the order of the relationships, and equals the next read."""
    created = await create(client)

    assert created["author"] == {"id": 1, "name": "Ada"}
    assert [tag["name"] for tag in created["tags"]] == ["b", "c", "d"]
    assert [comment["text"] for comment in created["comments"]] == ["z", "y"]
    assert (await client.get("/articles/1")).json() == created
    assert (await client.get("/articles")).json()["items"] == [created]


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"tag_ids": [4, 1]}, {"tags": [{"id": 4, "name": "a"}, {"id": 1, "name": "d"}]}),
        ({"tag_ids": []}, {"tags": []}),
        ({"comments": [{"text": "new"}]}, {"comments": [{"id": 3, "text": "new"}]}),
        ({"comments": []}, {"comments": []}),
        ({"author_id": 2}, {"author": {"id": 2, "name": "Bo"}}),
        ({"title": "Other", "tag_ids": [2]}, {"title": "Other", "tags": [{"id": 2, "name": "c"}]}),
        ({"tag_ids": [3, 2, 1]}, {}),
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
        ({"tag_ids": [1, 99]}, ["tag_ids"]),
        ({"author_id": 99}, ["author_id"]),
        ({"comments": [{"text": "more than twenty characters"}]}, ["body", "comments", 0, "text"]),
    ],
)
async def test_a_rejected_write_leaves_everything(client: AsyncClient, database: Database, wrong: dict[str, Any], loc: list[Any]) -> None:
    """An unknown id, or a child that cannot be stored, is a 422 that names it, and nothing is written, new or changed."""
    created = await create(client)

    new = await client.post("/articles", json={"title": "New", "author_id": 1, "comments": [{"text": "n"}]} | wrong)
    change = await client.patch("/articles/1", json={"title": "Lost", "comments": [{"text": "lost"}]} | wrong)

    assert [(answer.status_code, answer.json()["errors"][0]["loc"]) for answer in (new, change)] == [(422, loc)] * 2
    assert (await client.get("/articles")).json()["items"] == [created]
    assert await count(database, Comment.__table__) == 2  # type: ignore[arg-type]


async def test_a_child_that_the_database_rejects_undoes_its_parent(client: AsyncClient, database: Database) -> None:
    """A duplicate among the children is a 409, and neither parent nor link is stored."""
    await create(client)

    answer = await client.post("/articles", json={"title": "New", "author_id": 1, "tag_ids": [1], "comments": [{"text": "z"}]})

    assert answer.status_code == 409
    assert [await count(database, table) for table in Base.metadata.sorted_tables] == [2, 4, 1, 3, 2]


async def test_a_delete_takes_children_and_links_along(client: AsyncClient, database: Database) -> None:
    """The children and the links are deleted, the tags stay; an author with articles cannot be deleted."""
    await create(client)
    assert (await client.delete("/authors/1")).status_code == 409

    assert (await client.delete("/articles/1")).status_code == 204

    assert {table.name: await count(database, table) for table in Base.metadata.sorted_tables} == {
        "authors": 2,
        "tags": 4,
        "articles": 0,
        "article_tags": 0,
        "comments": 0,
    }
    assert (await client.delete("/authors/1")).status_code == 204
