"""Read plans with relationships: what is loaded, by which options, and the errors for what is missing."""

from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from sqlalchemy import ForeignKey, Select, delete, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    aliased,
    contains_eager,
    defer,
    joinedload,
    lazyload,
    load_only,
    mapped_column,
    raiseload,
    reconstructor,
    relationship,
    selectin_polymorphic,
    selectinload,
    with_loader_criteria,
)
from tests.tables.names import Name, NamesBase
from tests.tables.press import KNOTS, Article, Knot, PressBase, Publisher, Tag, Writer, article_tags
from typing_extensions import TypeAliasType

from fastapi_kit.crud import ReadService
from fastapi_kit.crud.read_plan.plan import ReadPlan, read_plan
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, NotLoadedError
from fastapi_kit.testing import assert_max_queries

ItemT = TypeVar("ItemT")


class TagRead(BaseModel):
    name: str


class PublisherRead(BaseModel):
    name: str


class WriterRead(BaseModel):
    name: str
    publisher: PublisherRead | None


class ArticleRead(BaseModel):
    title: str
    writer: WriterRead
    tags: list[TagRead]


class ShortArticle(BaseModel):
    title: str


ADA = {"name": "Ada", "publisher": {"name": "Aldus"}}
ARTICLES = [{"title": title, "writer": ADA, "tags": [{"name": "new"}, {"name": "old"}]} for title in ("A", "B")]


@pytest.fixture
async def session(database: Database) -> AsyncIterator[AsyncSession]:
    """A session with one writer of two articles."""
    await database.create_tables(PressBase.metadata)
    async with database.begin() as session:
        tags = [Tag(name="new"), Tag(name="old")]
        writer = Writer(name="Ada", publisher=Publisher(name="Aldus"))
        session.add_all(Article(title=title, writer=writer, tags=tags, printer=Publisher(name=title.lower())) for title in "AB")
    async with database.sessions() as session:
        yield session


def plan_of(schema: type[BaseModel], model: type[object]) -> ReadPlan[Any]:
    return read_plan(schema, inspect(model))


async def read(session: AsyncSession, schema: type[BaseModel], statement: Select[Any], given: Sequence[Any] = ()) -> list[Any]:
    """Read the rows of *statement* as a service does."""
    plan = plan_of(schema, statement.column_descriptions[0]["entity"])
    loaded = await session.scalars(statement.options(*given, *plan.options(given)))
    rows = loaded.unique().all()
    assert all(map(plan.satisfied_by, rows))
    return [each.model_dump() for each in plan.from_objects(rows)]


async def test_nested_schemas_are_loaded(session: AsyncSession, database: Database) -> None:
    """A many-to-one relationship is joined; a collection takes one more select."""
    with assert_max_queries(database, 2):
        assert await read(session, ArticleRead, select(Article).order_by(Article.id)) == ARTICLES


async def test_no_join_where_the_statement_must_stay_as_it_is(session: AsyncSession, database: Database) -> None:
    """With join=False only selects are added, so a grouped or distinct statement stays valid."""
    plan = plan_of(ArticleRead, Article)
    statement = select(Article).join(Article.tags).group_by(Article.id).order_by(Article.id)
    rows = (await session.scalars(statement.options(*plan.options(join=False)))).all()

    assert [each.model_dump() for each in plan.from_objects(rows)] == ARTICLES


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (list[ShortArticle], [{"title": "A"}, {"title": "B"}]),
        (Sequence[ShortArticle], [{"title": "A"}, {"title": "B"}]),
        (tuple[ShortArticle, ...], ({"title": "A"}, {"title": "B"})),
        (list[ShortArticle] | None, [{"title": "A"}, {"title": "B"}]),
        (Annotated[list[ShortArticle], Field(max_length=9)], [{"title": "A"}, {"title": "B"}]),
        (RootModel[list[ShortArticle]], [{"title": "A"}, {"title": "B"}]),
        (TypeAliasType("Articles", list[ShortArticle]), [{"title": "A"}, {"title": "B"}]),
    ],
)
async def test_every_form_of_a_collection(session: AsyncSession, schema: Any, expected: Any) -> None:
    """Lists, tuples, RootModels and named types of nested schemas are loaded."""

    class Read(BaseModel):
        articles: schema

    assert await read(session, Read, select(Writer)) == [{"articles": expected}]


async def test_collections_of_other_classes(session: AsyncSession) -> None:
    """A keyed collection fills a dict, and a set fills a list."""

    class Read(BaseModel):
        articles_by_title: dict[str, ArticleRead]
        article_set: list[ArticleRead]

    (writer,) = await read(session, Read, select(Writer))

    assert writer["articles_by_title"] == {"A": ARTICLES[0], "B": ARTICLES[1]}
    assert sorted(writer["article_set"], key=lambda article: article["title"]) == ARTICLES


class Wrapper(BaseModel, Generic[ItemT]):
    writer: ItemT


async def test_a_generic_schema(session: AsyncSession) -> None:
    """A field whose type is a type parameter is loaded."""
    assert await read(session, Wrapper[WriterRead], select(Article).limit(1)) == [{"writer": ADA}]


class CamelArticle(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    printer_name: str
    writer: WriterRead


class AliasedWriter(BaseModel):
    works: list[ShortArticle] = Field(validation_alias="articles")
    house: PublisherRead | None = Field(validation_alias=AliasChoices("imprint", "publisher"))
    house_name: str = Field(validation_alias=AliasPath("publisher", "name"))
    first: ShortArticle = Field(validation_alias=AliasPath("articles", 0))
    first_tag: str = Field(validation_alias=AliasPath("articles", 0, "tags", 1, "name"))
    label: str = Field(validation_alias="full_name")


async def test_names_are_read_as_pydantic_reads_them(session: AsyncSession) -> None:
    """Generated aliases, alias choices, alias paths through relationships, and synonyms are loaded."""
    assert await read(session, CamelArticle, select(Article).limit(1)) == [{"printer_name": "a", "writer": ADA}]
    assert await read(session, AliasedWriter, select(Writer)) == [
        {
            "works": [{"title": "A"}, {"title": "B"}],
            "house": {"name": "Aldus"},
            "house_name": "Aldus",
            "first": {"title": "A"},
            "first_tag": "old",
            "label": "Ada",
        }
    ]


async def test_deferred_columns_that_are_named_are_loaded(session: AsyncSession) -> None:
    """Deferred columns of the schema are loaded, at the root and in nested schemas."""

    class Notes(BaseModel):
        notes: str

    class Read(BaseModel):
        biography: str
        publisher: Notes

    assert await read(session, Read, select(Writer)) == [{"biography": "long", "publisher": {"notes": "private"}}]


async def test_association_proxies(session: AsyncSession) -> None:
    """Proxies of columns, of objects and of other proxies are loaded."""

    class Read(BaseModel):
        titles: list[str]
        printers: list[PublisherRead]
        printer_names: list[str]

    assert await read(session, Read, select(Writer)) == [
        {"titles": ["A", "B"], "printers": [{"name": "a"}, {"name": "b"}], "printer_names": ["a", "b"]}
    ]


async def test_properties_and_hybrids(session: AsyncSession) -> None:
    """What the code of properties reads is loaded: through methods, functions of the module and related objects."""

    class Read(BaseModel):
        house: str
        house_motto: str
        number_of_articles: int
        first_article: ArticleRead

    assert await read(session, Read, select(Writer)) == [
        {"house": "Aldus", "house_motto": "PRIVATE!", "number_of_articles": 2, "first_article": ARTICLES[0]}
    ]


async def test_validators_that_get_the_object(session: AsyncSession) -> None:
    """What the code of validators reads is loaded, for the whole schema and for one field."""

    class Read(BaseModel):
        title: str
        publisher: str
        tags: list[str]

        @model_validator(mode="before")
        @classmethod
        def flatten(cls, article: Any) -> Any:
            return {"title": article.title, "publisher": article.writer.publisher.name, "tags": article.tags}

        @field_validator("tags", mode="before")
        @classmethod
        def names(cls, tags: list[Any]) -> list[str]:
            return [tag.name for tag in tags]

    class Houses(BaseModel):
        articles: list[str]

        @field_validator("articles", mode="before")
        @classmethod
        def houses(cls, articles: list[Any]) -> list[str]:
            return [f"{article.printer.name} {article.writer.house}" for article in articles]

    assert (await read(session, Read, select(Article).limit(1))) == [{"title": "A", "publisher": "Aldus", "tags": ["new", "old"]}]
    assert await read(session, Houses, select(Writer)) == [{"articles": ["a Aldus", "b Aldus"]}]


async def test_missing_loads_are_named(session: AsyncSession) -> None:
    """A missing load raises NotLoadedError with model, attribute and remedy, never MissingGreenlet."""

    class Hidden(BaseModel):
        hidden: str

    class Shown(BaseModel):
        articles: list[ShortArticle]

    writer = (await session.scalars(select(Writer).options(*plan_of(Hidden, Writer).options()))).one()
    for schema, attribute in ((Hidden, "publisher"), (Shown, "articles")):
        plan = plan_of(schema, Writer)
        assert not plan.satisfied_by(writer)
        with pytest.raises(NotLoadedError, match=rf"Writer\.{attribute} was not loaded: .*read_options") as caught:
            plan.from_objects([writer])
        assert (caught.value.model, caught.value.attribute) == (Writer, attribute)

    given = [selectinload(Writer.publisher)]
    assert await read(session, Hidden, select(Writer), given) == [{"hidden": "Aldus"}]


async def test_a_missing_load_inside_a_validator_is_named(session: AsyncSession) -> None:
    """A validator that computes a name gets NotLoadedError for what the plan could not see."""

    class Read(BaseModel):
        title: str

        @model_validator(mode="before")
        @classmethod
        def through_getattr(cls, article: Any) -> Any:
            return {"title": getattr(article, "wri" + "ter").name}

    article = (await session.scalars(select(Article).limit(1))).one()
    with pytest.raises(NotLoadedError, match=r"Article\.writer"):
        plan_of(Read, Article).from_objects([article])


async def test_an_error_of_a_property_stays_its_own(session: AsyncSession) -> None:
    """Other errors of a property are raised as pydantic reports them."""

    class Read(BaseModel):
        first_article: ShortArticle

    async with session.begin_nested():
        session.add(writer := Writer(name="None yet", articles=[]))
    with pytest.raises(ValidationError, match="IndexError"):
        plan_of(Read, Writer).from_objects([writer])


# --- Options that the statement has already ---


@pytest.mark.parametrize(
    "given",
    [
        [joinedload(Article.writer)],
        [selectinload(Article.writer), joinedload(Article.tags)],
        [joinedload(Article.writer).joinedload(Writer.publisher)],
        [joinedload(Article.writer).load_only(Writer.id)],
        [load_only(Article.id)],
        [raiseload("*")],
        [raiseload("*"), selectinload(Article.writer).options(selectinload(Writer.articles))],
        [defer("*")],
        [with_loader_criteria(Tag, Tag.name > "")],
    ],
)
async def test_given_options_stay(session: AsyncSession, given: list[Any]) -> None:
    """Given options are kept, and what is needed below their relationships is added."""
    assert await read(session, ArticleRead, select(Article).order_by(Article.id), given) == ARTICLES


async def test_a_given_contains_eager_stays(session: AsyncSession) -> None:
    """The join of the statement fills the relationship, with its own condition."""
    statement = select(Article).join(Article.writer).join(Article.tags).where(Tag.name == "old").order_by(Article.id)
    given = [contains_eager(Article.writer), contains_eager(Article.tags)]

    assert await read(session, ArticleRead, statement, given) == [{**article, "tags": [{"name": "old"}]} for article in ARTICLES]

    alias = aliased(Writer)
    statement = select(Article).join(Article.writer.of_type(alias)).order_by(Article.id).execution_options(populate_existing=True)
    assert await read(session, ArticleRead, statement, [contains_eager(Article.writer.of_type(alias))]) == ARTICLES


@pytest.mark.parametrize("given", [raiseload(Article.writer), lazyload(Article.writer), raiseload(Article.writer, sql_only=True)])
async def test_a_given_option_that_does_not_load_is_obeyed(session: AsyncSession, given: Any) -> None:
    """A given raiseload() or noload() is kept, and the error names what is missing."""
    plan = plan_of(ArticleRead, Article)
    rows = (await session.scalars(select(Article).options(given, *plan.options([given])))).all()

    with pytest.raises(NotLoadedError, match=r"Article\.writer"):
        plan.from_objects(rows)


# --- What cannot be read ---


def schema_with(**fields: Any) -> type[BaseModel]:
    return create_model("Read", **fields)


class Bare(BaseModel): ...


class Misspelt(BaseModel):
    nmae: str


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"titel": str}, r"Read\.titel cannot be filled: Writer has no attribute titel"),
        ({"title": (str, Field(alias="headline"))}, "Writer has no attribute headline or title"),
        ({"imprint": (str, Field(alias=AliasPath("publisher", "nmae")))}, r"Writer has no attribute publisher\.nmae or imprint"),
        ({"publisher": Misspelt}, r"Read\.publisher: Misspelt\.nmae cannot be filled: Publisher has no attribute nmae"),
        ({"articles": list[Misspelt]}, r"Read\.articles: Misspelt\.nmae"),
        ({"later_articles": list[ShortArticle]}, r"Read\.later_articles refers to Writer\.later_articles, a write_only relationship"),
        ({"dynamic_articles": list[ShortArticle]}, r"a dynamic relationship"),
        ({"publisher": BaseModel}, r"Read\.publisher: BaseModel has no fields to read from Publisher"),
        ({"publisher": Bare | None}, r"Read\.publisher: Bare has no fields"),
        ({"publisher": str}, r"Read\.publisher cannot be filled from the relationship Writer\.publisher"),
        ({"articles": list[int]}, r"Read\.articles cannot be filled from the relationship"),
        ({"articles": ShortArticle}, r"Read\.articles .* its type must be a collection of schemas"),
        ({"publisher": list[PublisherRead]}, r"Read\.publisher .* its type must be one schema"),
        ({"name": PublisherRead}, r"Read\.name is a schema and Writer\.name a column of type VARCHAR"),
        ({"metadata_": (dict[str, Any], Field(alias="metadata"))}, r"Writer\.metadata, which is SQLAlchemy's MetaData"),
    ],
)
def test_what_cannot_be_filled_is_said_at_once(fields: dict[str, Any], said: str) -> None:
    """A schema that the model cannot fill raises ConfigurationError with field, model and remedy."""
    with pytest.raises(ConfigurationError, match=said):
        plan_of(schema_with(**fields), Writer)


def test_a_forward_reference_to_nothing_is_said_at_once() -> None:
    class Read(BaseModel):
        articles: "list[Nowhere]"  # noqa: F821

    with pytest.raises(ConfigurationError, match="Read refers to Nowhere, which is not defined"):
        plan_of(Read, Writer)


async def test_what_a_model_can_fill_in_its_own_way_is_accepted(session: AsyncSession, database: Database) -> None:
    """Defaults, class attributes, reconstructors, __getattr__ and values of validators can fill a field."""

    class Own(DeclarativeBase): ...

    class Note(Own):
        __table__ = Name.__table__
        __allow_unmapped__ = True
        name: Mapped[str]
        kind = "note"
        nothing = None
        votes: int

        @reconstructor
        def count(self) -> None:
            self.length = 7
            self.votes = 3

        def __getattr__(self, name: str) -> object:
            if name == "anything":
                return "any"
            raise AttributeError(name)

    class Read(BaseModel):
        id: int
        kind: str
        nothing: None
        votes: int
        length: int
        anything: str
        optional: str = "default"

    await database.create_tables(NamesBase.metadata)
    session.add(Note(name="a"))
    await session.flush()
    session.expunge_all()

    assert await read(session, Read, select(Note)) == [
        {"id": 1, "kind": "note", "nothing": None, "votes": 3, "length": 7, "anything": "any", "optional": "default"}
    ]


# --- Schemas that contain each other ---


class KnotRead(BaseModel):
    name: str
    text: str
    writer: WriterRead | None
    children: list["KnotRead"]


class KnotList(BaseModel):
    name: str
    children: list[KnotRead]


class KnotUp(BaseModel):
    name: str
    parent: "KnotUp | None"


class KnotPath(BaseModel):
    path: str


class Branches(BaseModel):
    name: str
    left: "Branches | None"
    right: "Branches | None"


@pytest.fixture
async def chain(session: AsyncSession) -> AsyncSession:
    """Knots 0 to 6, each below the one before it, left and right in turn, each with a leaf."""
    writer = (await session.scalars(select(Writer))).one()
    above = None
    for number in range(7):
        knot = Knot(name=str(number), parent=above, writer=writer)
        if above is not None:
            setattr(above, "right" if number % 2 else "left", knot)
        session.add_all([knot, Knot(name="leaf", parent=knot)])
        above = knot
    await session.commit()
    session.expunge_all()
    return session


def depth(node: dict[str, Any] | None, *names: str) -> int:
    below = [] if node is None else [each for name in names for each in (node[name] if isinstance(node[name], list) else [node[name]])]
    return 0 if node is None else 1 + max((depth(each, *names) for each in below), default=0)


async def test_a_tree_is_loaded_to_its_leaves(chain: AsyncSession, database: Database) -> None:
    """A tree is loaded to its full depth, with one select for each level."""
    for schema, above in ((KnotRead, 0), (KnotList, 0)):
        (root,) = await read(chain, schema, select(Knot).where(Knot.parent_id.is_(None), Knot.writer_id.is_not(None)))
        chain.expunge_all()
        assert depth(root, "children") == 8 - above
        node = root["children"][1]
        while node["children"]:
            assert (node["text"], node["writer"]) == ("t", ADA)
            node = node["children"][-1]


async def test_a_tree_is_followed_upwards(chain: AsyncSession) -> None:
    """Parents are loaded for a schema of the parent and for a property that calls itself."""
    (leaf,) = await read(chain, KnotUp, select(Knot).where(Knot.name == "6"))
    chain.expunge_all()

    assert depth(leaf, "parent") == 7
    assert await read(chain, KnotPath, select(Knot).where(Knot.name == "6")) == [{"path": "0/1/2/3/4/5/6"}]


async def test_a_tree_of_two_kinds_of_children_is_loaded_level_by_level(chain: AsyncSession) -> None:
    """loads() yields the selects for trees through two relationships."""
    plan = plan_of(Branches, Knot)
    rows = (await chain.scalars(select(Knot).where(Knot.name == "0").options(*plan.options()))).all()
    assert not plan.satisfied_by(rows[0])
    for statement in plan.loads(rows):
        (await chain.scalars(statement)).all()

    assert plan.satisfied_by(rows[0])
    assert depth(plan.from_objects(rows)[0].model_dump(), "left", "right") == 7
    assert list(plan.loads(rows)) == []


class EagerKnot(PressBase):
    """Every select joins its children."""

    __table__ = Knot.__table__
    name: Mapped[str]
    children: Mapped[list["EagerKnot"]] = relationship(lazy="joined", foreign_keys=[KNOTS.parent_id], viewonly=True)
    left: Mapped["EagerKnot | None"] = relationship(remote_side=[KNOTS.id], foreign_keys=[KNOTS.left_id], viewonly=True)
    right: Mapped["EagerKnot | None"] = relationship(remote_side=[KNOTS.id], foreign_keys=[KNOTS.right_id], viewonly=True)


class EagerKnotService(ReadService[EagerKnot]): ...


async def test_a_tree_whose_objects_come_in_several_rows(chain: AsyncSession) -> None:
    """Each level of a tree is loaded also if the model joins a collection to every select."""
    (root,) = await EagerKnotService(chain).list_as(Branches, EagerKnot.name == "0")

    assert depth(root.model_dump(), "left", "right") == 7


class Circular(BaseModel):
    title: str
    writer: "WriterOfCircular"


class WriterOfCircular(BaseModel):
    name: str
    articles: list[Circular]


def test_schemas_that_contain_each_other_make_an_end() -> None:
    """Schemas that contain each other have finitely many options."""
    assert len(plan_of(WriterOfCircular, Writer).options()) == 1
    assert len(plan_of(Circular, Article).options()) == 1


# --- Classes below the model ---


def hierarchy(*, joined: bool) -> Any:
    """Return a base class with two kinds of animals, in tables of their own if *joined*."""

    class Zoo(DeclarativeBase): ...

    class Owner(Zoo):
        __tablename__ = "owners"
        id: Mapped[int] = mapped_column(primary_key=True)
        pets: Mapped[list["Animal"]] = relationship(order_by="Animal.id")

    class Animal(Zoo):
        __tablename__ = "animals"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        owner_id: Mapped[int | None] = mapped_column(ForeignKey("owners.id"))
        friend_of_id: Mapped[int | None] = mapped_column(ForeignKey("animals.id"))
        friends: Mapped[list["Animal"]] = relationship()
        __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}

    class Dog(Animal):
        if joined:
            __tablename__ = "dogs"
            id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)
        breed: Mapped[str] = mapped_column(nullable=True)
        secret: Mapped[str] = mapped_column(nullable=True, deferred=True, default="s")
        toys: Mapped[list["Toy"]] = relationship(order_by="Toy.id")
        __mapper_args__: ClassVar = {"polymorphic_identity": "dog"}

    class Cat(Animal):
        if joined:
            __tablename__ = "cats"
            id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)
        lives: Mapped[int] = mapped_column(nullable=True)
        __mapper_args__: ClassVar = {"polymorphic_identity": "cat"}

    class Toy(Zoo):
        __tablename__ = "toys"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
        dog_id: Mapped[int] = mapped_column(ForeignKey(Dog.id))

    return SimpleNamespace(Zoo=Zoo, Owner=Owner, Animal=Animal, Dog=Dog, Cat=Cat, Toy=Toy)


class ToyRead(BaseModel):
    name: str


class DogRead(BaseModel):
    kind: Literal["dog"]
    breed: str
    secret: str
    toys: list[ToyRead]
    friends: list["DogRead | CatRead"] = []


class CatRead(BaseModel):
    kind: Literal["cat"]
    lives: int


class OwnerRead(BaseModel):
    pets: list[Annotated[DogRead | CatRead, Field(discriminator="kind")]]


class AnyAnimal(BaseModel):
    kind: str
    breed: str | None = None
    lives: int | None = None


class AnimalRead(RootModel[DogRead | CatRead]): ...


REX = {"kind": "dog", "breed": "pug", "secret": "s", "toys": [{"name": "ball"}]}
TOM = {"kind": "cat", "lives": 9}


@pytest.mark.parametrize("joined", [True, False], ids=["joined", "single"])
async def test_schemas_of_subclasses(database: Database, *, joined: bool) -> None:
    """Columns and relationships of subclasses are loaded: at the root, below a relationship, and in a tree."""
    zoo = hierarchy(joined=joined)
    await database.create_tables(zoo.Zoo.metadata)
    async with database.begin() as session:
        rex = zoo.Dog(breed="pug", toys=[zoo.Toy(name="ball")])
        rex.friends = [zoo.Dog(breed="lab", friends=[zoo.Dog(breed="poodle", friends=[zoo.Cat(lives=1)])])]
        session.add(zoo.Owner(pets=[rex, zoo.Cat(lives=9)]))
    async with database.sessions() as session:
        friend = {"kind": "dog", "secret": "s", "toys": []}
        friends = [{**friend, "breed": "lab", "friends": [{**friend, "breed": "poodle", "friends": [{"kind": "cat", "lives": 1}]}]}]
        assert await read(session, OwnerRead, select(zoo.Owner)) == [{"pets": [{**REX, "friends": friends}, TOM]}]
    async with database.sessions() as session:
        animals = select(zoo.Animal).where(zoo.Animal.owner_id.is_not(None)).order_by(zoo.Animal.id)
        assert await read(session, AnimalRead, animals) == [{**REX, "friends": friends}, TOM]
    async with database.sessions() as session:
        given = [selectin_polymorphic(zoo.Animal, [zoo.Dog, zoo.Cat])]
        assert await read(session, AnyAnimal, animals, given) == [
            {"kind": "dog", "breed": "pug", "lives": None},
            {"kind": "cat", "breed": None, "lives": 9},
        ]
    async with database.sessions() as session:
        plan = plan_of(OwnerRead, zoo.Owner)
        given = [selectinload(zoo.Owner.pets).options(selectin_polymorphic(zoo.Animal, [zoo.Cat]))]
        owners = (await session.scalars(select(zoo.Owner).options(*given, *plan.options(given)))).all()
        for statement in plan.loads(owners):
            (await session.scalars(statement)).all()
        assert plan.from_objects(owners)[0].model_dump() == {"pets": [{**REX, "friends": friends}, TOM]}
    async with database.sessions() as session:
        (dog,) = await read(session, DogRead, select(zoo.Dog).where(zoo.Dog.breed == "poodle"))
        assert dog["friends"] == [{"kind": "cat", "lives": 1}]


# --- Answers to writes ---


async def test_what_a_written_row_lacks_is_loaded_by_a_select(session: AsyncSession, database: Database) -> None:
    """satisfied_by() is true for a complete row; for another one loads() yields the select."""
    plan = plan_of(ArticleRead, Article)
    article = Article(title="C", writer_id=1, printer=Publisher(name="c"))
    session.add(article)
    await session.flush()

    assert plan_of(ShortArticle, Article).satisfied_by(article)
    assert not plan.satisfied_by(article)
    with assert_max_queries(database, 2):
        for statement in plan.loads([article]):
            (await session.scalars(statement)).all()
    assert plan.satisfied_by(article)
    assert plan.from_objects([article])[0].model_dump() == {"title": "C", "writer": ADA, "tags": []}


async def test_a_row_that_is_gone_cannot_be_completed(session: AsyncSession) -> None:
    """For a deleted row loads() ends, and the error names what is missing."""
    plan = plan_of(ArticleRead, Article)
    article = (await session.scalars(select(Article).limit(1))).one()
    await session.execute(delete(article_tags))
    await session.execute(delete(Article).execution_options(synchronize_session=False))
    for statement in plan.loads([article]):
        (await session.scalars(statement)).all()

    with pytest.raises(NotLoadedError, match=r"Article\.(writer|tags)"):
        plan.from_objects([article])
