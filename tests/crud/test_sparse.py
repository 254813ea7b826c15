"""Answers with some fields of a read schema, in plain Python: what is read, what is shown, and which schemas may be answered in part."""

import random
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    computed_field,
    create_model,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from sqlalchemy import event, exists, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import ORMExecuteState, aliased, with_loader_criteria
from tests.crud.sparse import (
    INCLUDED,
    PLAIN,
    ArticleFeed,
    ArticleQuery,
    ArticleRead,
    ArticleService,
    CamelRead,
    DiscreetService,
    PageRead,
    WriterRead,
    fill,
)
from tests.tables.press import Article, Label, Leaf, Node, PressBase

from fastapi_kit.cache import Cache
from fastapi_kit.crud import ReadService, SparseModel, SparseSpec
from fastapi_kit.crud.attributes import mapper_of
from fastapi_kit.crud.cached import CachedReadsMixin
from fastapi_kit.crud.read_plan.plan import MOST_PARTS, plan_of_part, read_plan
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, NotFoundError
from fastapi_kit.pagination import PageParams
from fastapi_kit.testing.queries import assert_max_queries

ArticleParts = SparseSpec[ArticleRead]


@pytest.fixture
async def press(database: Database) -> AsyncIterator[AsyncSession]:
    """Six articles."""
    await database.create_tables(PressBase.metadata)
    async with database.sessions() as session:
        await fill(session)
    async with database.sessions() as session:
        yield session


def shown(rows: Sequence[BaseModel]) -> list[dict[str, Any]]:
    return [row.model_dump(mode="json", by_alias=True) for row in rows]


def choose(chance: random.Random) -> tuple[str | None, str | None]:
    """Return a random choice of fields, in a random order."""
    fields = chance.sample(PLAIN, chance.randint(0, len(PLAIN)))
    include = chance.sample(INCLUDED, chance.randint(0, len(INCLUDED)))
    return ",".join(fields) or None, ",".join(include) or None


# --- What is shown ---


@pytest.mark.parametrize("seed", range(8))
async def test_a_part_is_the_whole_without_the_other_fields(press: AsyncSession, seed: int) -> None:
    """Whatever a client asks for, it gets these fields of the whole answer, in one row, in lists, pages, slices and keyset pages."""
    chance, service = random.Random(seed), ArticleService(press)
    whole = shown(await service.list_as(ArticleParts(include="writer,labels")))
    for _ in range(6):
        fields, include = choose(chance)
        part = ArticleParts(fields=fields, include=include)
        names = {"id", *(PLAIN if fields is None else fields.split(",")), *(include.split(",") if include else ())}
        wanted = [{name: value for name, value in row.items() if name in names} for row in whole]

        assert shown(await service.list_as(part)) == wanted
        assert shown([await service.get_as(part, 2)]) == wanted[1:2]
        assert shown([await service.get_as(part, Article.title == "Title 3")]) == wanted[2:3]
        query = ArticleQuery(fields=fields, include=include, skip=1, limit=3)
        assert shown((await service.page_as(ArticleRead, query)).items) == wanted[1:4]
        assert shown((await service.slice_as(ArticleRead, query)).items) == wanted[1:4]
        assert shown((await service.keyset_page_as(ArticleRead, ArticleFeed(fields=fields, include=include))).items) == wanted
        assert shown([row async for row in service.stream_as(ArticleRead, query, batch_size=4)]) == wanted
        assert shown(await service.rows_as(part, await service.list())) == wanted


async def test_the_default_has_all_fields_and_no_includes(press: AsyncSession) -> None:
    """Without a choice a schema has all its fields but those that must be asked for."""
    (row,) = shown(await ArticleService(press).list_as(ArticleRead, limit=1))
    assert list(row) == PLAIN
    assert shown([await ArticleService(press).get_as(ArticleRead, 1)]) == [row]
    assert shown(await ArticleService(press).list_as(ArticleParts(), limit=1)) == [row]
    assert shown((await ArticleService(press).page_as(ArticleRead, PageParams(limit=1))).items) == [row]


async def test_a_field_that_was_not_asked_for_has_no_value(press: AsyncSession) -> None:
    """Reading it raises AttributeError, so a missing value is not taken for None."""
    row = await ArticleService(press).get_as(ArticleParts(fields="data"), 2)
    assert (row.id, row.data, row.model_fields_set) == (2, None, {"id", "data"})
    with pytest.raises(AttributeError, match="title"):
        _ = row.title
    assert "title" not in repr(row)


async def test_names_are_those_in_json(press: AsyncSession) -> None:
    """A client asks by the names that it sees, with aliases and with a generator of aliases."""
    service, parts = ArticleService(press), SparseSpec[CamelRead]
    assert shown([await service.get_as(parts(fields="title,writtenAt"), 1)]) == [{"writtenAt": "2026-01-01T12:00:00Z", "title": "Title 1"}]
    assert shown([await service.get_as(parts(fields="title", include="writer"), 1)]) == [
        {"title": "Title 1", "writer": {"id": 2, "name": "Bob"}}
    ]
    for name in ("head", "written_at", "title,head"):
        with pytest.raises(ValidationError, match="takes each of id, writtenAt, title once, separated by commas"):
            parts(fields=name)


@pytest.mark.parametrize(
    "fields", ["", " ", ",", "id,", "id,id", "id, title", "ID", "password", "writer", "writer.name", "id\0", "\ud800", "*"]
)
async def test_other_names_are_rejected(fields: str) -> None:
    """A name that is unknown, empty, there twice, secret or an include is an error that says what is allowed."""
    with pytest.raises(ValidationError, match="takes each of id, title, body, email, price, written_at, data, note, heading once"):
        ArticleParts(fields=fields)
    with pytest.raises(ValidationError, match="takes each of writer, labels once, separated by commas"):
        ArticleParts(include=fields.replace("writer", "title"))


def test_what_is_not_declared_is_rejected() -> None:
    """Without includes there is no parameter for them, and no other parameter is taken."""
    with pytest.raises(ValidationError, match="is not a parameter; the parameters are fields"):
        SparseSpec[PageRead].model_validate({"include": "id"})
    with pytest.raises(ValidationError, match="is not a parameter; the parameters are fields, include"):
        ArticleParts.model_validate({"field": "id"})
    with pytest.raises(ConfigurationError, match="SparseSpec needs a schema"):
        SparseSpec().asked()


def test_a_spec_may_have_a_default() -> None:
    """A list shows other fields until the client asks, and a wrong default is an error when the class is made."""

    class Short(SparseSpec[ArticleRead]):
        fields: str | None = "title"
        include: str | None = "labels"

    assert Short().asked() == {"id", "title", "labels"}
    assert Short(fields="body").asked() == {"id", "body", "labels"}
    with pytest.raises(ConfigurationError, match="the default of fields takes each of id, title"):
        type("Wrong", (SparseSpec[ArticleRead],), {"__annotations__": {"fields": str}, "fields": "colour", "__module__": __name__})


async def test_a_query_of_another_schema_is_an_error(press: AsyncSession) -> None:
    """A choice is never ignored: the schema of the answer must be the one that the query chooses of."""
    with pytest.raises(ConfigurationError, match="ArticleQuery chooses fields of another schema than CamelRead"):
        await ArticleService(press).page_as(CamelRead, ArticleQuery(fields="id"))


async def test_a_missing_row_is_missing_in_part(press: AsyncSession) -> None:
    """A part of a row that does not exist is not found."""
    with pytest.raises(NotFoundError):
        await ArticleService(press).get_as(ArticleParts(fields="id"), 99)


# --- What is read ---


async def test_only_what_is_asked_for_is_read(press: AsyncSession, database: Database) -> None:
    """One statement selects the asked columns; the others, and secrets, do not leave the database."""
    service = ArticleService(press)
    with assert_max_queries(database, 1) as log:
        await service.list_as(ArticleParts(fields="title"))
    (statement,) = log.statements
    assert statement.partition("FROM")[0].split() == ["SELECT", "articles.id,", "articles.title"]
    with assert_max_queries(database, 1) as log:
        await service.get_as(ArticleParts(fields="data"), 1)
    assert "articles.title" not in log.statements[0]
    with assert_max_queries(database, 1) as log:
        await service.keyset_page_as(ArticleRead, ArticleFeed(fields="title", sort="-price"))
    assert "articles.title" in log.statements[0]
    assert "articles.body" not in log.statements[0]


@pytest.mark.parametrize(("include", "most"), [("writer", 1), ("labels", 2), ("labels,writer", 2)])
async def test_an_include_takes_the_statements_of_the_plan(press: AsyncSession, database: Database, include: str, most: int) -> None:
    """A to-one relationship is joined, a collection takes one more statement, and columns that are not asked for are not loaded."""
    with assert_max_queries(database, most) as log:
        rows = await ArticleService(press).list_as(ArticleParts(fields="title", include=include))
    assert len(rows) == 6
    read = " ".join(log.statements)
    assert "articles.title" in read
    for column in ("articles.body", "articles.email", "articles.password", "articles.data"):
        assert column not in read
    assert ("labels" in read, "writers" in read) == ("labels" in include, "writer" in include)


async def test_a_property_reads_what_it_needs(press: AsyncSession) -> None:
    """A field that the model computes is shown alone, whatever columns its code reads."""
    (row,) = await ArticleService(press).list_as(ArticleParts(fields="heading"), limit=1)
    assert row.heading == "Title 1: 1.50"


async def test_a_part_leaves_objects_of_the_session_as_they_are(press: AsyncSession) -> None:
    """Rows that the session holds keep all their columns."""
    article = await ArticleService(press).get_one(1)
    await ArticleService(press).list_as(ArticleParts(fields="title", include="labels"))
    assert (article.body[:6], article.password) == ("Body 1", "hidden")


async def test_a_part_does_not_spoil_the_session(press: AsyncSession) -> None:
    """After a list in part, whole rows can be read in the same transaction."""
    async with press.begin():
        rows = await ArticleService(press).list_as(ArticleParts(fields="title", include="writer,labels"))
        article = await ArticleService(press).get_one(1)
        assert (article.body[:6], article.email, len(rows)) == ("Body 1", "a1@example.org", 6)


async def test_parts_are_not_cached(press: AsyncSession, database: Database) -> None:
    """A service with a cache reads them from the database."""

    class Cached(CachedReadsMixin[Article], ArticleService):
        cache = Cache()
        cache_lifetime = timedelta(minutes=1)

    for part in (ArticleParts(fields="title"), ArticleParts(fields="data"), ArticleRead):
        for _ in range(2):
            with assert_max_queries(database, 2) as log:
                assert shown([await Cached(press).get_as(part, 1)]) == shown(await Cached(press).list_as(part, limit=1))
            assert log.count == 2
            await press.rollback()


# --- Which related rows ---


async def test_includes_show_what_may_be_seen(press: AsyncSession) -> None:
    """related_query hides related rows in includes, in lists, in single rows and in a service that overrides list()."""

    class Listing(DiscreetService):
        async def list(self, *conditions: Any, **options: Any) -> Any:
            return await super().list(*conditions, **options)

        async def get_one(self, ident: object, **options: Any) -> Any:
            return await super().get_one(ident, **options)

    for service in (DiscreetService(press), Listing(press)):
        press.expunge_all()
        for row in [*await service.list_as(ArticleParts(include="labels")), await service.get_as(ArticleParts(include="labels"), 1)]:
            assert [label.name for label in row.labels] == ["news"]
    press.expunge_all()
    page = await DiscreetService(press).keyset_page_as(ArticleRead, ArticleFeed(include="labels"))
    assert {label.name for row in page.items for label in row.labels} == {"news"}
    press.expunge_all()
    row = await ArticleService(press).get_as(ArticleParts(include="labels"), 1)
    assert [label.name for label in row.labels] == ["news", "inside"]


async def test_a_related_query_may_ask_other_tables(press: AsyncSession) -> None:
    """One with exists() hides rows as well."""

    class Asking(ArticleService):
        def related_query(self, model: type[Any]) -> Any:
            if model is not Label:
                return super().related_query(model)
            return select(Label).where(exists().where(Article.id == Label.article_id, Article.title == "Title 2"), Label.public)

    rows = await Asking(press).list_as(ArticleParts(include="labels"), limit=3)
    assert [[label.name for label in row.labels] for row in rows] == [[], ["news"], []]


async def test_criteria_of_the_session_hold(press: AsyncSession) -> None:
    """Rows that the application hides from a session are in no include."""

    def hide(state: ORMExecuteState) -> None:
        if state.is_select:
            state.statement = state.statement.options(with_loader_criteria(Label, Label.public))

    event.listen(press.sync_session, "do_orm_execute", hide)
    rows = await ArticleService(press).list_as(ArticleParts(fields="id", include="labels"))
    assert {label.name for row in rows for label in row.labels} == {"news"}


# --- Plans ---


@pytest.mark.only_full
def test_the_plans_of_parts_are_bounded() -> None:
    """A client that asks for all combinations does not fill the memory, and order does not make another combination."""
    wide = create_model("Wide", __base__=PageRead, **{f"extra_{at}": (str, "") for at in range(10)})
    mapper = mapper_of(Article)
    for number in range(1, 600):
        names = ",".join(f"extra_{at}" for at in range(10) if number >> at & 1)
        read_plan(SparseSpec[wide](fields=f"id,{names}".rstrip(",")), mapper)
    assert plan_of_part.cache_info().currsize <= MOST_PARTS
    one, other = ArticleParts(fields="title,body"), ArticleParts(fields="body,title")
    assert read_plan(one, mapper) is read_plan(other, mapper)


# --- Schemas ---


def rejected(name: str, **members: Any) -> type[Any]:
    return type(name, (SparseModel,), {"__annotations__": {"id": int, "title": str}, "__module__": __name__, **members})


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"total": computed_field(property(lambda self: 1), return_type=int)}, "its computed field total may read any field"),
        ({"check": model_validator(mode="after")(lambda self: self)}, "its model validator needs all fields"),
        ({"check": model_validator(mode="before")(classmethod(lambda cls, data: data))}, "its model validator needs all fields"),
        ({"dump": model_serializer(lambda self: {})}, "its model serializer needs all fields"),
        ({"dump": model_serializer(lambda self, handler: handler(self), mode="wrap")}, "its model serializer needs all fields"),
        ({"dump": field_serializer("title")(lambda self, value: value)}, "the field title has a field_serializer"),
        (
            {"check": field_validator("title")(classmethod(lambda cls, value, info: value))},
            "the field title has a validator that takes info",
        ),
        ({"model_post_init": lambda self, context: None}, "model_post_init"),
        ({"__init__": lambda self, **data: None}, "its __init__"),
        ({"_cache": PrivateAttr(default=None)}, "private attributes"),
        ({"model_config": ConfigDict(extra="allow")}, 'it has extra="allow"'),
        ({"title": Field(default_factory=lambda data: str(data["id"]))}, "the field title has a default that depends on other fields"),
        ({"always_fields": ("colour",)}, "always_fields must name fields of the schema that are shown: id, title"),
        ({"always_fields": "id"}, "always_fields must name fields of the schema"),
        ({"include_fields": ("colour",)}, "include_fields must name fields"),
        ({"include_fields": ("id", "title")}, "needs a field that is not in include_fields"),
        ({"include_fields": ("id",), "always_fields": ("id",)}, "id cannot be in always_fields and in include_fields"),
        ({"title": Field(serialization_alias="a,b")}, "needs a name of its own in JSON, without commas"),
        ({"title": Field(serialization_alias="id")}, "needs a name of its own in JSON, without commas"),
    ],
)
def test_a_schema_whose_fields_depend_on_each_other_is_rejected(members: dict[str, Any], reason: str) -> None:
    """It is an error at start, from the spec and from a service, that names the reason."""
    schema = rejected("Dependent", **members)
    for use in (lambda: SparseSpec[schema], lambda: read_plan(schema, mapper_of(Article))):
        with pytest.raises(ConfigurationError, match="Dependent") as caught:
            use()
        assert reason in str(caught.value)


def test_other_schemas_are_rejected() -> None:
    """A schema that is no SparseModel, and one inside another, are errors."""
    with pytest.raises(ConfigurationError, match="WriterRead is answered as a whole: derive it from SparseModel"):
        _ = SparseSpec[WriterRead]

    class Nested(SparseModel):
        id: int
        page: PageRead

    with pytest.raises(ConfigurationError, match="the field page contains PageRead, which is answered in part itself"):
        _ = SparseSpec[Nested]


def test_fields_that_are_not_shown_cannot_be_asked_for() -> None:
    """A field with exclude=True is in no answer."""

    class Hidden(SparseModel):
        id: int
        secret: str = Field(exclude=True)

    with pytest.raises(ValidationError, match="takes each of id once"):
        SparseSpec[Hidden](fields="secret")


def test_the_schema_of_the_answer_is_documented() -> None:
    """Only the fields that every answer has are required."""
    document = ArticleRead.model_json_schema(mode="serialization")
    assert document["required"] == ["id"]
    assert list(document["properties"]) == [*PLAIN, *INCLUDED]
    assert "required" not in PageRead.model_json_schema(mode="serialization")
    assert PageRead.model_json_schema()["required"] == ["id", "title", "body"]


# --- Trees and hierarchies ---


class Branch(BaseModel):
    name: str
    children: list["Branch"]


class NodeRead(SparseModel):
    include_fields = ("parent", "children")
    id: int
    name: str
    colour: str | None = None
    parent: Branch | None
    children: list[Branch]


async def test_trees_and_hierarchies(database: Database) -> None:
    """A tree is shown to its full depth, and rows of subclasses show their columns."""
    await database.create_tables(PressBase.metadata)

    class NodeService(ReadService[Node]): ...

    async with database.begin() as session:
        session.add_all([Node(id=1, name="a"), Node(id=2, name="b", parent_id=1), Leaf(id=3, name="c", parent_id=2, colour="red")])
    async with database.sessions() as session:
        rows = await NodeService(session).list_as(SparseSpec[NodeRead](fields="name,colour", include="children"))
    assert [row.model_dump(exclude_none=True) for row in rows] == [
        {"name": "a", "children": [{"name": "b", "children": [{"name": "c", "children": []}]}]},
        {"name": "b", "children": [{"name": "c", "children": []}]},
        {"name": "c", "colour": "red", "children": []},
    ]


async def test_base_query_hides_rows_of_the_same_model(database: Database) -> None:
    """What base_query hides is in no include that leads back to the model: no child, and no parent."""
    await database.create_tables(PressBase.metadata)

    class Simple(ReadService[Node]):
        def base_query(self) -> Any:
            return super().base_query().where(Node.name != "b")

    class Complex(ReadService[Node]):
        def base_query(self) -> Any:
            return super().base_query().outerjoin(Node.children.of_type(aliased(Node))).where(Node.name != "b").distinct()

    async with database.begin() as session:
        parents = {"a": None, "b": 1, "c": 2, "d": 1}
        session.add_all([Node(id=ident, name=name, parent_id=parents[name]) for ident, name in enumerate("abcd", 1)])
    async with database.sessions() as session:
        rows = await Simple(session).list_as(SparseSpec[NodeRead](fields="name", include="parent,children"))
        assert [(row.name, row.parent and row.parent.name, [child.name for child in row.children]) for row in rows] == [
            ("a", None, ["d"]),
            ("c", None, []),
            ("d", "a", []),
        ]
        assert [row.name for row in await Complex(session).list_as(SparseSpec[NodeRead](fields="name"))] == ["a", "c", "d"]
        with pytest.raises(ConfigurationError, match="the rows of Node in an answer of some fields cannot be restricted by a select"):
            await Complex(session).list_as(SparseSpec[NodeRead](include="children"))
