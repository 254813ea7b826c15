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
from sqlalchemy import Column, ForeignKey, Select, Table, delete, inspect, select
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    DynamicMapped,
    Mapped,
    WriteOnlyMapped,
    aliased,
    attribute_keyed_dict,
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
    synonym,
    with_loader_criteria,
)
from typing_extensions import TypeAliasType

from fastapi_kit.crud.read_plan.plan import ReadPlan, read_plan
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, NotLoadedError
from fastapi_kit.testing import assert_max_queries

ItemT = TypeVar("ItemT")


class Base(DeclarativeBase): ...


book_tags = Table(
    "book_tags",
    Base.metadata,
    Column("book_id", ForeignKey("books.id"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id"), primary_key=True),
)


class Publisher(Base):
    __tablename__ = "publishers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    notes: Mapped[str] = mapped_column(default="private", deferred=True)
    authors: Mapped[list["Author"]] = relationship(back_populates="publisher")

    @property
    def motto(self) -> str:
        return self.notes.upper()


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    biography: Mapped[str] = mapped_column(default="long", deferred=True)
    publisher_id: Mapped[int | None] = mapped_column(ForeignKey("publishers.id"))
    publisher: Mapped[Publisher | None] = relationship(back_populates="authors")
    books: Mapped[list["Book"]] = relationship(back_populates="author", order_by="Book.id")
    books_by_title: Mapped[dict[str, "Book"]] = relationship(collection_class=attribute_keyed_dict("title"), viewonly=True)
    book_set: Mapped[set["Book"]] = relationship(viewonly=True)
    later_books: WriteOnlyMapped["Book"] = relationship(viewonly=True)
    dynamic_books: DynamicMapped["Book"] = relationship(viewonly=True)
    profile: Mapped["Profile | None"] = relationship(back_populates="author")
    titles: AssociationProxy[list[str]] = association_proxy("books", "title")
    covers: AssociationProxy[list["Cover"]] = association_proxy("books", "cover")
    cover_colours: AssociationProxy[list[str]] = association_proxy("books", "cover_colour")
    full_name = synonym("name")

    @property
    def house(self) -> str:
        return self.publisher.name if self.publisher else "self"

    @property
    def house_motto(self) -> str:
        return self._motto()

    def _motto(self) -> str:
        return shout(self)

    @property
    def first_book(self) -> "Book":
        return self.books[0]

    @hybrid_property
    def number_of_books(self) -> int:
        return len(self.books)

    def __getitem__(self, name: str) -> object:
        return getattr(self, name)

    @property
    def hidden(self) -> str:
        return str(self["publisher"].name)


def shout(author: Author) -> str:
    return author.publisher.motto + "!" if author.publisher else ""


class Profile(Base):
    __tablename__ = "profiles"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    text: Mapped[str]
    author: Mapped[Author] = relationship(back_populates="profile")


class Cover(Base):
    __tablename__ = "covers"
    id: Mapped[int] = mapped_column(primary_key=True)
    colour: Mapped[str]


class Tag(Base):
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    cover_id: Mapped[int] = mapped_column(ForeignKey("covers.id"))
    author: Mapped[Author] = relationship(back_populates="books")
    cover: Mapped[Cover] = relationship()
    tags: Mapped[list[Tag]] = relationship(secondary=book_tags, order_by=Tag.id)
    cover_colour: AssociationProxy[str] = association_proxy("cover", "colour")

    @property
    def byline(self) -> str:
        return f"by {self.author.name}"


class TagRead(BaseModel):
    name: str


class PublisherRead(BaseModel):
    name: str


class AuthorRead(BaseModel):
    name: str
    publisher: PublisherRead | None


class BookRead(BaseModel):
    title: str
    author: AuthorRead
    tags: list[TagRead]


class CoverRead(BaseModel):
    colour: str


class ShortBook(BaseModel):
    title: str


ADA = {"name": "Ada", "publisher": {"name": "Aldus"}}
BOOKS = [{"title": title, "author": ADA, "tags": [{"name": "new"}, {"name": "old"}]} for title in ("A", "B")]


@pytest.fixture
async def session(database: Database) -> AsyncIterator[AsyncSession]:
    """A session with one author of two books."""
    await database.create_tables(Base.metadata)
    async with database.begin() as session:
        tags = [Tag(name="new"), Tag(name="old")]
        author = Author(name="Ada", publisher=Publisher(name="Aldus"), profile=Profile(text="p"))
        session.add_all(Book(title=title, author=author, tags=tags, cover=Cover(colour=title.lower())) for title in "AB")
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
        assert await read(session, BookRead, select(Book).order_by(Book.id)) == BOOKS


async def test_no_join_where_the_statement_must_stay_as_it_is(session: AsyncSession, database: Database) -> None:
    """With join=False only selects are added, so a grouped or distinct statement stays valid."""
    plan = plan_of(BookRead, Book)
    statement = select(Book).join(Book.tags).group_by(Book.id).order_by(Book.id)
    rows = (await session.scalars(statement.options(*plan.options(join=False)))).all()

    assert [each.model_dump() for each in plan.from_objects(rows)] == BOOKS


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (list[ShortBook], [{"title": "A"}, {"title": "B"}]),
        (Sequence[ShortBook], [{"title": "A"}, {"title": "B"}]),
        (tuple[ShortBook, ...], ({"title": "A"}, {"title": "B"})),
        (list[ShortBook] | None, [{"title": "A"}, {"title": "B"}]),
        (Annotated[list[ShortBook], Field(max_length=9)], [{"title": "A"}, {"title": "B"}]),
        (RootModel[list[ShortBook]], [{"title": "A"}, {"title": "B"}]),
        (TypeAliasType("Books", list[ShortBook]), [{"title": "A"}, {"title": "B"}]),
    ],
)
async def test_every_form_of_a_collection(session: AsyncSession, schema: Any, expected: Any) -> None:
    """Lists, tuples, RootModels and named types of nested schemas are loaded."""

    class Read(BaseModel):
        books: schema

    assert await read(session, Read, select(Author)) == [{"books": expected}]


async def test_collections_of_other_classes(session: AsyncSession) -> None:
    """A keyed collection fills a dict, and a set fills a list."""

    class Read(BaseModel):
        books_by_title: dict[str, BookRead]
        book_set: list[BookRead]

    (author,) = await read(session, Read, select(Author))

    assert author["books_by_title"] == {"A": BOOKS[0], "B": BOOKS[1]}
    assert sorted(author["book_set"], key=lambda book: book["title"]) == BOOKS


class Wrapper(BaseModel, Generic[ItemT]):
    author: ItemT


async def test_a_generic_schema(session: AsyncSession) -> None:
    """A field whose type is a type parameter is loaded."""
    assert await read(session, Wrapper[AuthorRead], select(Book).limit(1)) == [{"author": ADA}]


class CamelBook(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    cover_colour: str
    author: AuthorRead


class AliasedAuthor(BaseModel):
    works: list[ShortBook] = Field(validation_alias="books")
    house: PublisherRead | None = Field(validation_alias=AliasChoices("imprint", "publisher"))
    house_name: str = Field(validation_alias=AliasPath("publisher", "name"))
    first: ShortBook = Field(validation_alias=AliasPath("books", 0))
    first_tag: str = Field(validation_alias=AliasPath("books", 0, "tags", 1, "name"))
    label: str = Field(validation_alias="full_name")


async def test_names_are_read_as_pydantic_reads_them(session: AsyncSession) -> None:
    """Generated aliases, alias choices, alias paths through relationships, and synonyms are loaded."""
    assert await read(session, CamelBook, select(Book).limit(1)) == [{"cover_colour": "a", "author": ADA}]
    assert await read(session, AliasedAuthor, select(Author)) == [
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

    assert await read(session, Read, select(Author)) == [{"biography": "long", "publisher": {"notes": "private"}}]


async def test_association_proxies(session: AsyncSession) -> None:
    """Proxies of columns, of objects and of other proxies are loaded."""

    class Read(BaseModel):
        titles: list[str]
        covers: list[CoverRead]
        cover_colours: list[str]

    assert await read(session, Read, select(Author)) == [
        {"titles": ["A", "B"], "covers": [{"colour": "a"}, {"colour": "b"}], "cover_colours": ["a", "b"]}
    ]


async def test_properties_and_hybrids(session: AsyncSession) -> None:
    """What the code of properties reads is loaded: through methods, functions of the module and related objects."""

    class Read(BaseModel):
        house: str
        house_motto: str
        number_of_books: int
        first_book: BookRead

    assert await read(session, Read, select(Author)) == [
        {"house": "Aldus", "house_motto": "PRIVATE!", "number_of_books": 2, "first_book": BOOKS[0]}
    ]


async def test_validators_that_get_the_object(session: AsyncSession) -> None:
    """What the code of validators reads is loaded, for the whole schema and for one field."""

    class Read(BaseModel):
        title: str
        publisher: str
        tags: list[str]

        @model_validator(mode="before")
        @classmethod
        def flatten(cls, book: Any) -> Any:
            return {"title": book.title, "publisher": book.author.publisher.name, "tags": book.tags}

        @field_validator("tags", mode="before")
        @classmethod
        def names(cls, tags: list[Any]) -> list[str]:
            return [tag.name for tag in tags]

    class Houses(BaseModel):
        books: list[str]

        @field_validator("books", mode="before")
        @classmethod
        def houses(cls, books: list[Any]) -> list[str]:
            return [f"{book.cover.colour} {book.author.house}" for book in books]

    assert (await read(session, Read, select(Book).limit(1))) == [{"title": "A", "publisher": "Aldus", "tags": ["new", "old"]}]
    assert await read(session, Houses, select(Author)) == [{"books": ["a Aldus", "b Aldus"]}]


async def test_missing_loads_are_named(session: AsyncSession) -> None:
    """A missing load raises NotLoadedError with model, attribute and remedy, never MissingGreenlet."""

    class Hidden(BaseModel):
        hidden: str

    class Shown(BaseModel):
        books: list[ShortBook]

    author = (await session.scalars(select(Author).options(*plan_of(Hidden, Author).options()))).one()
    for schema, attribute in ((Hidden, "publisher"), (Shown, "books")):
        plan = plan_of(schema, Author)
        assert not plan.satisfied_by(author)
        with pytest.raises(NotLoadedError, match=rf"Author\.{attribute} was not loaded: .*read_options") as caught:
            plan.from_objects([author])
        assert (caught.value.model, caught.value.attribute) == (Author, attribute)

    given = [selectinload(Author.publisher)]
    assert await read(session, Hidden, select(Author), given) == [{"hidden": "Aldus"}]


async def test_a_missing_load_inside_a_validator_is_named(session: AsyncSession) -> None:
    """A validator that computes a name gets NotLoadedError for what the plan could not see."""

    class Read(BaseModel):
        title: str

        @model_validator(mode="before")
        @classmethod
        def through_getattr(cls, book: Any) -> Any:
            return {"title": getattr(book, "au" + "thor").name}

    book = (await session.scalars(select(Book).limit(1))).one()
    with pytest.raises(NotLoadedError, match=r"Book\.author"):
        plan_of(Read, Book).from_objects([book])


async def test_an_error_of_a_property_stays_its_own(session: AsyncSession) -> None:
    """Other errors of a property are raised as pydantic reports them."""

    class Read(BaseModel):
        first_book: ShortBook

    async with session.begin_nested():
        session.add(author := Author(name="None yet", books=[]))
    with pytest.raises(ValidationError, match="IndexError"):
        plan_of(Read, Author).from_objects([author])


# --- Options that the statement has already ---


@pytest.mark.parametrize(
    "given",
    [
        [joinedload(Book.author)],
        [selectinload(Book.author), joinedload(Book.tags)],
        [joinedload(Book.author).joinedload(Author.publisher)],
        [joinedload(Book.author).load_only(Author.id)],
        [load_only(Book.id)],
        [raiseload("*")],
        [raiseload("*"), selectinload(Book.author).options(selectinload(Author.books))],
        [defer("*")],
        [with_loader_criteria(Tag, Tag.id > 0)],
    ],
)
async def test_given_options_stay(session: AsyncSession, given: list[Any]) -> None:
    """Given options are kept, and what is needed below their relationships is added."""
    assert await read(session, BookRead, select(Book).order_by(Book.id), given) == BOOKS


async def test_a_given_contains_eager_stays(session: AsyncSession) -> None:
    """The join of the statement fills the relationship, with its own condition."""
    statement = select(Book).join(Book.author).join(Book.tags).where(Tag.name == "old").order_by(Book.id)
    given = [contains_eager(Book.author), contains_eager(Book.tags)]

    assert await read(session, BookRead, statement, given) == [{**book, "tags": [{"name": "old"}]} for book in BOOKS]

    alias = aliased(Author)
    statement = select(Book).join(Book.author.of_type(alias)).order_by(Book.id).execution_options(populate_existing=True)
    assert await read(session, BookRead, statement, [contains_eager(Book.author.of_type(alias))]) == BOOKS


@pytest.mark.parametrize("given", [raiseload(Book.author), lazyload(Book.author), raiseload(Book.author, sql_only=True)])
async def test_a_given_option_that_does_not_load_is_obeyed(session: AsyncSession, given: Any) -> None:
    """A given raiseload() or noload() is kept, and the error names what is missing."""
    plan = plan_of(BookRead, Book)
    rows = (await session.scalars(select(Book).options(given, *plan.options([given])))).all()

    with pytest.raises(NotLoadedError, match=r"Book\.author"):
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
        ({"titel": str}, r"Read\.titel cannot be filled: Author has no attribute titel"),
        ({"title": (str, Field(alias="headline"))}, "Author has no attribute headline or title"),
        ({"imprint": (str, Field(alias=AliasPath("publisher", "nmae")))}, r"Author has no attribute publisher\.nmae or imprint"),
        ({"publisher": Misspelt}, r"Read\.publisher: Misspelt\.nmae cannot be filled: Publisher has no attribute nmae"),
        ({"books": list[Misspelt]}, r"Read\.books: Misspelt\.nmae"),
        ({"later_books": list[ShortBook]}, r"Read\.later_books refers to Author\.later_books, a write_only relationship"),
        ({"dynamic_books": list[ShortBook]}, r"a dynamic relationship"),
        ({"publisher": BaseModel}, r"Read\.publisher: BaseModel has no fields to read from Publisher"),
        ({"publisher": Bare | None}, r"Read\.publisher: Bare has no fields"),
        ({"publisher": str}, r"Read\.publisher cannot be filled from the relationship Author\.publisher"),
        ({"books": list[int]}, r"Read\.books cannot be filled from the relationship"),
        ({"books": ShortBook}, r"Read\.books .* its type must be a collection of schemas"),
        ({"publisher": list[PublisherRead]}, r"Read\.publisher .* its type must be one schema"),
        ({"name": PublisherRead}, r"Read\.name is a schema and Author\.name a column of type VARCHAR"),
        ({"metadata_": (dict[str, Any], Field(alias="metadata"))}, r"Author\.metadata, which is SQLAlchemy's MetaData"),
    ],
)
def test_what_cannot_be_filled_is_said_at_once(fields: dict[str, Any], said: str) -> None:
    """A schema that the model cannot fill raises ConfigurationError with field, model and remedy."""
    with pytest.raises(ConfigurationError, match=said):
        plan_of(schema_with(**fields), Author)


def test_a_forward_reference_to_nothing_is_said_at_once() -> None:
    class Read(BaseModel):
        books: "list[Nowhere]"  # noqa: F821

    with pytest.raises(ConfigurationError, match="Read refers to Nowhere, which is not defined"):
        plan_of(Read, Author)


async def test_what_a_model_can_fill_in_its_own_way_is_accepted(session: AsyncSession, database: Database) -> None:
    """Defaults, class attributes, reconstructors, __getattr__ and values of validators can fill a field."""

    class Own(DeclarativeBase): ...

    class Note(Own):
        __tablename__ = "own_notes"
        __allow_unmapped__ = True
        id: Mapped[int] = mapped_column(primary_key=True)
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

    await database.create_tables(Own.metadata)
    session.add(Note())
    await session.flush()
    session.expunge_all()

    assert await read(session, Read, select(Note)) == [
        {"id": 1, "kind": "note", "nothing": None, "votes": 3, "length": 7, "anything": "any", "optional": "default"}
    ]


# --- Schemas that contain each other ---


class Knot(Base):
    """A tree in two directions, with two kinds of children."""

    __tablename__ = "knots"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    text: Mapped[str] = mapped_column(default="t", deferred=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("knots.id"))
    left_id: Mapped[int | None] = mapped_column(ForeignKey("knots.id"))
    right_id: Mapped[int | None] = mapped_column(ForeignKey("knots.id"))
    author_id: Mapped[int | None] = mapped_column(ForeignKey("authors.id"))
    author: Mapped[Author | None] = relationship()
    children: Mapped[list["Knot"]] = relationship(back_populates="parent", order_by=id, foreign_keys=parent_id)
    parent: Mapped["Knot | None"] = relationship(back_populates="children", remote_side=id, foreign_keys=parent_id)
    left: Mapped["Knot | None"] = relationship(remote_side=id, foreign_keys=left_id, post_update=True)
    right: Mapped["Knot | None"] = relationship(remote_side=id, foreign_keys=right_id, post_update=True)

    @property
    def path(self) -> str:
        return f"{self.parent.path}/{self.name}" if self.parent else self.name


class KnotRead(BaseModel):
    name: str
    text: str
    author: AuthorRead | None
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
    author = (await session.scalars(select(Author))).one()
    above = None
    for number in range(7):
        knot = Knot(name=str(number), parent=above, author=author)
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
        (root,) = await read(chain, schema, select(Knot).where(Knot.parent_id.is_(None), Knot.author_id.is_not(None)))
        chain.expunge_all()
        assert depth(root, "children") == 8 - above
        node = root["children"][1]
        while node["children"]:
            assert (node["text"], node["author"]) == ("t", ADA)
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


class Circular(BaseModel):
    title: str
    author: "AuthorOfCircular"


class AuthorOfCircular(BaseModel):
    name: str
    books: list[Circular]


def test_schemas_that_contain_each_other_make_an_end() -> None:
    """Schemas that contain each other have finitely many options."""
    assert len(plan_of(AuthorOfCircular, Author).options()) == 1
    assert len(plan_of(Circular, Book).options()) == 1


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
    plan = plan_of(BookRead, Book)
    book = Book(title="C", author_id=1, cover=Cover(colour="c"))
    session.add(book)
    await session.flush()

    assert plan_of(ShortBook, Book).satisfied_by(book)
    assert not plan.satisfied_by(book)
    with assert_max_queries(database, 2):
        for statement in plan.loads([book]):
            (await session.scalars(statement)).all()
    assert plan.satisfied_by(book)
    assert plan.from_objects([book])[0].model_dump() == {"title": "C", "author": ADA, "tags": []}


async def test_a_row_that_is_gone_cannot_be_completed(session: AsyncSession) -> None:
    """For a deleted row loads() ends, and the error names what is missing."""
    plan = plan_of(BookRead, Book)
    book = (await session.scalars(select(Book).limit(1))).one()
    await session.execute(delete(book_tags))
    await session.execute(delete(Book).execution_options(synchronize_session=False))
    for statement in plan.loads([book]):
        (await session.scalars(statement)).all()

    with pytest.raises(NotLoadedError, match=r"Book\.(author|tags)"):
        plan.from_objects([book])
