"""Rows and parents that are found by another unique column than the primary key: ``/articles/{slug}/footnotes/{number}``."""

from collections.abc import AsyncIterator
from functools import cache
from typing import Any, ClassVar

import pytest
from fastapi import APIRouter, FastAPI
from httpx import AsyncClient
from pydantic import BaseModel
from sqlalchemy import ForeignKey, MetaData, Select, inspect
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, with_loader_criteria
from tests.routing.models import ANY_DATABASE, NoteService, NoteTitle, app_of, client_of, client_on, get_session, operations_of
from tests.tables.blog import Article, BlogBase, Document, Draft, Footnote, Line, Note

from fastapi_kit.crud import CRUDService
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.routing import Endpoint, RouterOptions, crud_router
from fastapi_kit.routing.resource import Parent
from fastapi_kit.schemas import slugify
from fastapi_kit.testing.queries import assert_max_queries


class ArticleIn(BaseModel):
    title: str


class ArticleChange(BaseModel):
    title: str | None = None
    slug: str | None = None


class ArticleRead(BaseModel):
    slug: str
    title: str


class NumberedIn(BaseModel):
    number: int
    text: str = ""


class NumberedChange(BaseModel):
    text: str | None = None
    article_id: int | None = None


class ArticleService(CRUDService[Article, ArticleIn, ArticleChange]):
    def base_query(self) -> Select[Article]:
        return super().base_query().where(~Article.hidden)

    async def create_values(self, data: ArticleIn) -> dict[str, Any]:
        return {**await super().create_values(data), "slug": slugify(data.title)}


class FootnoteService(CRUDService[Footnote, NumberedIn, NumberedChange]): ...


class LineService(CRUDService[Line, NumberedIn, NumberedChange]): ...


ALL = Endpoint.CRUD | Endpoint.CREATE_MANY | Endpoint.REPLACE


def routers(session: Any) -> list[APIRouter]:
    articles = crud_router(
        ArticleService, read=ArticleRead, session=session, endpoints=ALL & ~Endpoint.REPLACE, options=RouterOptions(key=Article.slug)
    )
    for service, column, number in ((FootnoteService, Footnote.article_id, Footnote.number), (LineService, Line.article_id, Line.number)):
        options = RouterOptions(key=number, parent=column, parent_key=Article.slug)
        name = service.__name__.removesuffix("Service").lower()
        children: APIRouter = crud_router(service, read=NumberedIn, session=session, endpoints=ALL, options=options)
        articles.include_router(children, prefix=f"/{{slug}}/{name}s")
    return [articles]


@cache
def app_of_articles() -> FastAPI:
    return app_of(*routers(ANY_DATABASE.session), prefix="/articles")


@pytest.fixture
async def press(database: Database) -> Database:
    """Two articles, and a hidden one."""
    await database.create_tables(BlogBase.metadata)
    async with database.begin() as session:
        await ArticleService(session).create_many([ArticleIn(title="One Two"), ArticleIn(title="Three")])
        await ArticleService(session).create(ArticleIn(title="Secret"), hidden=True)
    return database


@pytest.fixture
async def client(press: Database) -> AsyncIterator[AsyncClient]:
    """A client of the articles."""
    async with client_on(press, app_of_articles()) as client:
        yield client


async def test_a_row_is_found_by_its_slug(client: AsyncClient) -> None:
    """Every endpoint takes the slug, and Location has it."""
    created = await client.post("/articles", json={"title": "Don't panic"})

    assert (created.status_code, created.headers["location"]) == (201, "/articles/dont-panic")
    assert (await client.get("/articles/dont-panic")).json() == {"slug": "dont-panic", "title": "Don't panic"}
    assert (await client.patch("/articles/dont-panic", json={"title": "Panic"})).json() == {"slug": "dont-panic", "title": "Panic"}
    assert (await client.delete("/articles/dont-panic")).status_code == 204
    assert (await client.get("/articles/dont-panic")).status_code == 404


async def test_a_slug_may_change(client: AsyncClient) -> None:
    """The row then has another path; a slug that is taken is a conflict."""
    assert (await client.patch("/articles/one-two", json={"slug": "new"})).json()["slug"] == "new"
    assert [(await client.get(f"/articles/{slug}")).status_code for slug in ("one-two", "new")] == [404, 200]
    assert (await client.patch("/articles/new", json={"slug": "three"})).status_code == 409


@pytest.mark.parametrize("slug", ["nothing", "secret", "x" * 200, "1"])
async def test_an_unknown_or_hidden_slug_is_missing(client: AsyncClient, slug: str) -> None:
    """Also one that is the primary key of a row."""
    answers = [
        await client.get(f"/articles/{slug}"),
        await client.patch(f"/articles/{slug}", json={"title": "x"}),
        await client.delete(f"/articles/{slug}"),
    ]
    assert [answer.status_code for answer in answers] == [404, 404, 404]


async def test_what_a_slug_costs(client: AsyncClient, press: Database) -> None:
    """A read takes one statement. A change finds and locks the row first."""
    with assert_max_queries(press, 1):
        await client.get("/articles/three")
    with assert_max_queries(press, 2):
        assert (await client.patch("/articles/three", json={"title": "Four"})).status_code == 200


@pytest.mark.parametrize("kind", ["footnotes", "lines"])
async def test_children_are_found_below_a_slug(client: AsyncClient, kind: str) -> None:
    """The parent is found by its slug, the child by a number that is unique in its parent."""
    for slug in ("one-two", "three"):
        created = await client.post(f"/articles/{slug}/{kind}", json={"number": 1, "text": slug})
        assert (created.status_code, created.headers["location"]) == (201, f"/articles/{slug}/{kind}/1")
    many = await client.post(f"/articles/three/{kind}/batch", json=[{"number": 2}, {"number": 3}])

    assert many.status_code == 201
    assert (await client.get(f"/articles/one-two/{kind}")).json()["total"] == 1
    assert (await client.get(f"/articles/three/{kind}/1")).json() == {"number": 1, "text": "three"}
    assert (await client.patch(f"/articles/three/{kind}/1", json={"text": "new"})).json()["text"] == "new"
    assert (await client.patch(f"/articles/three/{kind}/1", json={"article_id": 1})).status_code == 422
    assert (await client.get(f"/articles/one-two/{kind}/1")).json()["text"] == "one-two"
    assert (await client.delete(f"/articles/three/{kind}/1")).status_code == 204
    assert (await client.get(f"/articles/one-two/{kind}/1")).status_code == 200
    assert (await client.get(f"/articles/three/{kind}/1")).status_code == 404


async def test_nothing_is_below_an_unknown_slug(client: AsyncClient) -> None:
    """Each endpoint answers 404, the list too."""
    path = "/articles/nothing/footnotes"
    answers = [
        await client.get(path),
        await client.post(path, json={"number": 1}),
        await client.post(f"{path}/batch", json=[{"number": 1}]),
        await client.get(f"{path}/1"),
        await client.patch(f"{path}/1", json={}),
        await client.put(f"{path}/1", json={"number": 1}),
        await client.delete(f"{path}/1"),
    ]
    assert [answer.status_code for answer in answers] == [404] * 7


async def test_a_criteria_of_the_session_hides_a_parent(press: Database) -> None:
    """What a listener hides from every select is hidden here too."""
    from sqlalchemy import event

    sessions = press.sessions

    def hide(state: Any) -> None:
        state.statement = state.statement.options(with_loader_criteria(Article, Article.slug != "three"))

    class Hiding(Session): ...

    event.listen(Hiding, "do_orm_execute", hide)

    async def get_db() -> AsyncIterator[Any]:
        async with sessions() as session:
            session.sync_session.__class__ = Hiding
            yield session

    async with client_of(*routers(get_db), prefix="/articles") as client:
        assert (await client.get("/articles/one-two/footnotes")).status_code == 200
        assert (await client.get("/articles/three/footnotes")).status_code == 404


def test_the_document_shows_the_names_and_the_errors() -> None:
    """The parameters are the slug and the number; a list below a slug may be a 404."""
    operations = operations_of(routers(get_session)[0])

    assert {parameter["name"] for parameter in operations["/{slug}/footnotes/{number}", "get"]["parameters"]} == {"slug", "number"}
    assert operations["/{slug}", "get"]["parameters"][0]["description"] == "Slug of the article"
    assert operations["/{slug}/footnotes", "get"]["parameters"][0]["description"] == "Slug of the article"
    assert "404" in operations["/{slug}/footnotes", "get"]["responses"]
    assert "404" not in operations["", "get"]["responses"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (RouterOptions(key=Footnote.number), "number is not unique"),
        (RouterOptions(key=Footnote.text), "text is not unique"),
        (RouterOptions(key=Article.slug), "key= is not a column of Footnote"),
        (RouterOptions(parent=Footnote.article_id, parent_key=Article.title), "title is not unique"),
        (RouterOptions(parent=Footnote.article_id, parent_key=Footnote.text), "parent_key= is not a column of Article"),
        (RouterOptions(parent=Footnote.number, parent_key=Article.slug), "needs a foreign key"),
        (RouterOptions(parent_key=Article.slug), "parent_key= needs parent="),
        (RouterOptions(parent=Footnote.article_id, parent_key=Article.id), "id would be two parameters"),
    ],
)
def test_columns_that_find_no_single_row_are_rejected(options: RouterOptions, match: str) -> None:
    """ConfigurationError names the column."""
    with pytest.raises(ConfigurationError, match=match):
        crud_router(FootnoteService, read=NumberedIn, session=get_session, options=options)


def test_a_key_must_not_be_null_or_partly_unique() -> None:
    """A row without the key would have no path, and a partial index does not make a column unique."""

    for column, match in ((Article.draft_of, "not unique"), (Article.alias, "may be null")):
        with pytest.raises(ConfigurationError, match=match):
            crud_router(ArticleService, read=ArticleRead, session=get_session, endpoints=Endpoint.READ, options=RouterOptions(key=column))


def test_a_parent_in_the_key_needs_another_key() -> None:
    """The primary key would need the parent's id, which is not in the path."""
    with pytest.raises(ConfigurationError, match="needs key="):
        crud_router(
            LineService, read=NumberedIn, session=get_session, options=RouterOptions(parent=Line.article_id, parent_key=Article.slug)
        )


def test_the_primary_key_may_be_named() -> None:
    """It is the path as without the option."""
    router = crud_router(ArticleService, read=ArticleRead, session=get_session, options=RouterOptions(key=Article.id))
    assert {path for path, _ in operations_of(router)} == {"", "/{id}"}


def hierarchy() -> tuple[type[Any], type[Any], type[Any]]:
    """Return a class, a class of other columns of its table, and one whose rows refer to it. Three classes have the table of the first."""

    class Base(DeclarativeBase):
        metadata = MetaData()

    class Animal(Base):
        __tablename__ = "animals"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        __mapper_args__: ClassVar[Any] = {"polymorphic_on": "kind"}

    for name in ("Aardvark", "Cat", "Dog"):
        type(name, (Animal,), {"__mapper_args__": {"polymorphic_identity": name}})

    class Zebra(Base):
        __table__ = Animal.__table__

    class Toy(Base):
        __tablename__ = "toys"
        id: Mapped[int] = mapped_column(primary_key=True)
        animal_id: Mapped[int] = mapped_column(ForeignKey("animals.id"))
        stripes_id: Mapped[int] = mapped_column(ForeignKey("animals.id"))
        zebra: Mapped[Zebra] = relationship(foreign_keys=stripes_id)

    return Animal, Zebra, Toy


def test_the_parent_is_one_class_of_its_table() -> None:
    """It is the class of a relationship over the column, or else the base of a hierarchy, and not by chance another class."""
    for animal, zebra, toy in [hierarchy() for _ in range(8)]:
        mapper = inspect(toy)
        assert Parent.of(mapper, toy.animal_id).model is animal
        assert Parent.of(mapper, toy.stripes_id).model is zebra


@pytest.mark.parametrize("model", [Document, Draft])
async def test_the_class_of_the_parent_key_is_the_parent(press: Database, model: Any) -> None:
    """If several classes have the table of the parent, the key says which one is meant."""
    options = RouterOptions(parent=Note.document_id, parent_key=model.name)
    router = crud_router(NoteService, read=NoteTitle, session=press.session, options=options)
    async with press.begin() as session:
        session.add(Document(id=7, name="seven", text=""))
    async with client_of(router, prefix="/documents/{name}/notes") as client:
        created = await client.post("/documents/seven/notes", json={"title": "a"})
        missing = await client.get("/documents/eight/notes")

    assert operations_of(router)["", "get"]["parameters"][0]["description"] == f"Name of the {model.__name__.lower()}"
    assert (created.status_code, missing.status_code) == (201, 404)
