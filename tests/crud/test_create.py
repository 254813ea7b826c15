"""Creating one row: which values are written, which are rejected, and what is returned."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from sqlalchemy import func, inspect, literal, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from tests.crud.kinds import HeroService, KindsBase, Named, PointService, SignService, TicketService, opened
from tests.missing import MISSING
from tests.tables.library import (
    Author,
    AuthorCreate,
    AuthorService,
    AuthorUpdate,
    Book,
    BookCreate,
    BookService,
    LeafletService,
    ShelfService,
    TagService,
)
from tests.tables.names import Constructed, NamesBase, Validated
from tests.tables.store import Place, Placed, Product, StoreBase

from fastapi_kit.crud import CRUDService
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, ConflictError, InvalidDataError, KitError, UnknownReferenceError
from fastapi_kit.testing.queries import assert_max_queries


class ProductCreate(BaseModel):
    title: str


class ProductService(CRUDService[Product, ProductCreate, ProductCreate]): ...


class PlacedService(CRUDService[Placed, Named, Named]): ...


class ConstructedService(CRUDService[Constructed, Named, Named]): ...


class ValidatedService(CRUDService[Validated, Named, Named]): ...


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[AsyncSession]:
    """A request's session on these tables."""
    for metadata in (StoreBase.metadata, KindsBase.metadata, NamesBase.metadata):
        await database.create_tables(metadata)
    async with opened(database) as session:
        yield session


def kit_session(database: Database) -> AsyncSession:
    return database.sessions()


def application_session(database: Database) -> AsyncSession:
    """A session with SQLAlchemy's defaults, expire_on_commit=True included."""
    return async_sessionmaker(database.engine)()


on_any_session = pytest.mark.parametrize("make_session", [kit_session, application_session])
MakeSession = Callable[[Database], AsyncSession]


# Where values come from


async def test_a_schema_gives_its_defaults_too(session: AsyncSession) -> None:
    """The defaults of the schema are written with the values that were set."""
    author = await AuthorService(session).create(AuthorCreate(email="ada@example.org"))

    book = await BookService(session).create(BookCreate(title="a", author_id=author.id))

    assert (author.email, author.name, book.pages) == ("ada@example.org", None, 1)


async def test_a_mapping_is_taken_as_it_is(session: AsyncSession) -> None:
    """A mapping is written without create_values(), which is for schemas."""

    class Shouting(AuthorService):
        async def create_values(self, data: AuthorCreate) -> dict[str, Any]:
            return {**await super().create_values(data), "name": "ADA"}

    from_schema = await Shouting(session).create(AuthorCreate(email="a@example.org"))
    from_mapping = await Shouting(session).create({"email": "b@example.org", "name": "Bob"})

    assert (from_schema.name, from_mapping.name) == ("ADA", "Bob")


async def test_values_by_keyword_override_data(session: AsyncSession) -> None:
    """Keyword values, which the application sets, override those of a schema or a mapping."""
    ada, bob = await AuthorService(session).create_many([{"email": "a@example.org"}, {"email": "b@example.org"}])

    first = await BookService(session).create(BookCreate(title="a", author_id=ada.id), author_id=bob.id)
    second = await BookService(session).create({"title": "b", "author_id": ada.id, "pages": 3}, author_id=bob.id, pages=4)

    assert (first.author_id, second.author_id, second.pages) == (bob.id, bob.id, 4)


async def test_the_callers_mapping_is_not_changed(session: AsyncSession) -> None:
    """The mapping that was passed in stays as it was."""
    data = {"email": "a@example.org"}

    await AuthorService(session).create(data, name="Ada")

    assert data == {"email": "a@example.org"}


async def test_a_field_that_is_missing_is_not_written(shop: AsyncSession) -> None:
    """A field with pydantic's MISSING gets the default of the column."""

    class Maybe(BaseModel):
        title: str
        price: int | MISSING = MISSING

    assert (await ProductService(shop).create(Maybe(title="a"))).price == 5
    assert (await ProductService(shop).create(Maybe(title="b", price=6))).price == 6


async def test_aliases_are_of_the_wire(shop: AsyncSession) -> None:
    """A schema with serialization aliases is written by the names of its fields."""

    class Camel(BaseModel):
        model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True)
        title: str
        made_at: datetime

    made_at = datetime.fromisoformat("2020-01-01")

    assert (await ProductService(shop).create(Camel(title="a", made_at=made_at))).made_at == made_at


async def test_relationships_are_values_too(session: AsyncSession) -> None:
    """A relationship can be set to an object instead of its foreign key, also to a new object."""
    author = await AuthorService(session).create({"email": "a@example.org"})

    book = await BookService(session).create({"title": "a", "author": author})
    other = await AuthorService(session).create({"email": "b@example.org", "books": [Book(title="b"), Book(title="c")]})

    assert (book.author_id, await BookService(session).count(Book.author_id == other.id)) == (author.id, 2)


@pytest.mark.parametrize(
    ("values", "attribute", "expected"),
    [
        ({"title": "a", "cents": 300}, "price", 3),
        ({"label": "a"}, "title", "a"),
        ({"title": "a", "part_names": ["x", "y"]}, "part_names", ["x", "y"]),
    ],
    ids=["hybrid", "synonym", "association proxy"],
)
async def test_other_attributes_are_values_too(shop: AsyncSession, values: dict[str, Any], attribute: str, expected: object) -> None:
    """Hybrids, synonyms and proxies can be set, as on an object of the model."""
    product = await ProductService(shop).create(values)

    assert getattr(product, attribute) == expected


async def test_a_composite_is_a_value_too(shop: AsyncSession) -> None:
    """A composite can be set for its columns, for one row and for many."""
    product = await PlacedService(shop).create({"title": "a", "place": Place(1, 2)})
    (other,) = await PlacedService(shop).create_many([{"title": "b", "place": Place(3, 4)}])

    assert (product.place, other.place) == (Place(1, 2), Place(3, 4))
    shop.expunge_all()
    assert [found.place for found in await PlacedService(shop).list()] == [Place(1, 2), Place(3, 4)]


async def test_expressions_are_values_too(session: AsyncSession) -> None:
    """A SQL expression from the application is stored, and its result is on the returned row."""
    await TagService(session).create({"name": "a", "weight": 3})
    heaviest = select(func.max(TagService.model.weight)).scalar_subquery()

    tag = await TagService(session).create({"name": func.upper("b"), "weight": heaviest + 1})

    assert (tag.name, tag.weight) == ("B", 4)


async def test_an_explicit_none_is_null(shop: AsyncSession) -> None:
    """None stores NULL even if the column has a default; a value that is left out gets the default."""
    product = await ProductService(shop).create({"title": "a", "grade": None})

    assert (product.price, product.code, product.state, product.grade) == (5, "made", "new", None)
    with pytest.raises(InvalidDataError) as caught:
        await ProductService(shop).create({"title": "a", "price": None})
    assert (caught.value.fields, caught.value.reason) == (("price",), "null")


async def test_a_dataclass_model(shop: AsyncSession) -> None:
    """Columns that the constructor of a dataclass does not take are set too."""
    point = await PointService(shop).create({"x": 1}, owner_id=3)

    assert (point.id, point.x, point.y, point.owner_id) == (1, 1, 7, 3)


async def test_an_sqlmodel_model(shop: AsyncSession) -> None:
    """An SQLModel gets its fields, its defaults and the columns of a mixin."""
    hero = await HeroService(shop).create(Named(name="Deadpond"), age=30)

    assert (hero.id, hero.name, hero.age) == (1, "Deadpond", 30)
    assert hero.created_at == hero.updated_at
    with pytest.raises(ConflictError) as caught:
        await HeroService(shop).create(Named(name="Deadpond"))
    assert caught.value.fields == ("name",)


@pytest.mark.parametrize("service", [ConstructedService, ValidatedService])
async def test_constructors_and_validators_are_honoured(shop: AsyncSession, service: type[CRUDService[Any, Any, Any]]) -> None:
    """The constructor and the validators of the model run."""
    assert (await service(shop).create({"name": "ADA"})).name == "ada"


async def test_super_create_is_the_hook(session: AsyncSession) -> None:
    """An overridden create() can do more before and after super().create()."""

    class Publishing(AuthorService):
        async def create(self, data: Any, /, **values: object) -> Author:
            author = await super().create(data, **values)
            await BookService(self.session).create({"title": "Memoirs", "author_id": author.id})
            return author

    author = await Publishing(session).create(AuthorCreate(email="a@example.org"))

    assert await BookService(session).exists(Book.author_id == author.id)


# What is rejected


UNKNOWN: list[tuple[Any, dict[str, object]]] = [
    (AuthorCreate(email="a@example.org"), {"nr": 1}),
    ({"email": "a@example.org", "nr": 1}, {}),
    ({"email": "a@example.org"}, {"nr": 1}),
    ({"email": "a@example.org"}, {"metadata": 1}),
    ({"email": "a@example.org"}, {"__tablename__": "a"}),
]


@pytest.mark.parametrize(("data", "values"), UNKNOWN, ids=str)
async def test_unknown_names_are_mistakes_in_the_code(
    library: Database, session: AsyncSession, data: Any, values: dict[str, object]
) -> None:
    """An unknown name raises ConfigurationError that names it, before any SQL."""
    for create in (lambda: AuthorService(session).create(data, **values), lambda: AuthorService(session).create_many([data], **values)):
        with assert_max_queries(library, 0), pytest.raises(ConfigurationError, match="Author has no attribute"):
            await create()

    assert not session.in_transaction()


async def test_a_field_of_the_schema_without_a_column_is_a_mistake_in_the_code(session: AsyncSession) -> None:
    """A field without a column raises ConfigurationError that points to create_values()."""

    class WithPassword(AuthorCreate):
        password: str

    with pytest.raises(ConfigurationError, match=r"password.*create_values"):
        await AuthorService(session).create(WithPassword(email="a@example.org", password="x"))


async def test_a_nested_schema_is_a_mistake_in_the_code(session: AsyncSession) -> None:
    """Nested data for a relationship raises ConfigurationError that points to create_values()."""

    class WithBooks(AuthorCreate):
        books: list[BookCreate]

    with pytest.raises(ConfigurationError, match="books"):
        await AuthorService(session).create(WithBooks(email="a@example.org", books=[BookCreate(title="a", author_id=1)]))


class Open(BaseModel):
    """A schema that accepts extra fields."""

    model_config = ConfigDict(extra="allow")
    title: str = "a"


@pytest.mark.parametrize(
    "extra",
    [{"nr": 1}, {"metadata": 1}, {"expensive": True}, {"parts": [1]}, {"parts": "x"}, {"part_names": 1}, {"doubled": 3}],
    ids=str,
)
async def test_what_a_client_adds_is_rejected_as_its_mistake(shop: AsyncSession, extra: dict[str, Any]) -> None:
    """Extra fields of a client that are not columns raise InvalidDataError."""
    with pytest.raises(InvalidDataError) as caught:
        await ProductService(shop).create(Open(**extra))

    assert caught.value.fields == tuple(extra)
    assert await ProductService(shop).count() == 0


async def test_columns_that_a_client_adds_are_written(shop: AsyncSession) -> None:
    """Extra fields of a client that are columns are written."""
    assert (await ProductService(shop).create(Open(price=9))).price == 9


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"title": "a" * 51}, "title", "too_long"),
    ({"title": None}, "title", "null"),
    ({}, "title", "null"),
    ({"title": "a\0"}, "title", "invalid_text"),
    ({"title": "\ud800"}, "title", "invalid_text"),
    ({"title": "a", "secret": "\0"}, "secret", "invalid_text"),
    ({"title": "a", "price": 2**31}, "price", "out_of_range"),
    ({"title": "a", "price": -(10**30)}, "price", "out_of_range"),
    ({"title": "a", "details": {"a": "\0"}}, "details", "invalid_text"),
    ({"title": "a", "details": {"a": float("nan")}}, "details", "out_of_range"),
    ({"title": "a", "ident": 2**31}, "ident", "out_of_range"),
]


@pytest.mark.parametrize(("values", "field", "reason"), REFUSED, ids=ascii)
async def test_values_that_no_database_takes(shop: AsyncSession, values: dict[str, Any], field: str, reason: str) -> None:
    """Values that a column cannot hold raise the same InvalidDataError on both databases, for one row and for many."""
    for create in (lambda: ProductService(shop).create(values), lambda: ProductService(shop).create_many([{"title": "b"}, values])):
        with pytest.raises(InvalidDataError) as caught:
            await create()
        assert (caught.value.fields, caught.value.reason) == ((field,), reason)

    assert await ProductService(shop).count() == 0


async def test_a_duplicate_names_the_attribute(shop: AsyncSession) -> None:
    """The conflict names the attribute, not the column."""
    await ProductService(shop).create({"title": "a"})

    for create in (lambda: ProductService(shop).create({"title": "a"}), lambda: ProductService(shop).create_many([{"title": "a"}])):
        with pytest.raises(ConflictError) as caught:
            await create()
        assert caught.value.fields == ("title",)


@pytest.mark.parametrize("row", [{"room": 1, "number": 1}, {"room": 1, "number": 1, "label": "new"}], ids=str)
async def test_a_duplicate_of_a_loaded_row_is_a_conflict_too(session: AsyncSession, row: dict[str, Any]) -> None:
    """A key that this session has loaded raises ConflictError without a warning, and the loaded row stays as it is."""
    service = ShelfService(session)
    loaded = await service.create({"room": 1, "number": 1, "label": "old"})

    for create in (lambda: service.create(row), lambda: service.create_many([row])):
        with pytest.raises(ConflictError) as caught:
            await create()
        assert caught.value.fields == ("room", "number")

    assert loaded in session
    assert (loaded.label, await service.count()) == ("old", 1)


async def test_a_key_that_is_used_again_gives_a_new_row(library: Database, session: AsyncSession) -> None:
    """The key of a row that another session has deleted can be used again."""
    await ShelfService(session).create({"room": 2, "number": 1})
    old = await ShelfService(session).create({"room": 1, "number": 1, "label": "old"})
    async with library.begin() as other:
        await ShelfService(other).delete((1, 1))

    new = await ShelfService(session).create({"room": 1, "number": 1, "label": "new"})

    assert await ShelfService(session).get_one((1, 1)) is new
    assert (new.label, old.label) == ("new", "old")


async def test_an_unknown_reference_names_the_field(session: AsyncSession) -> None:
    """A foreign key without a row names the field, and nothing is stored."""
    with pytest.raises(UnknownReferenceError) as caught:
        await BookService(session).create({"title": "a", "author_id": 99})

    assert caught.value.fields == ("author_id",)
    assert await BookService(session).count() == 0


async def test_an_expression_that_is_rejected_is_typed(session: AsyncSession) -> None:
    """A SQL expression whose result the database rejects raises the library's error."""
    author = await AuthorService(session).create({"email": "a@example.org"})

    with pytest.raises(InvalidDataError) as caught:
        await BookService(session).create({"title": "a", "author_id": author.id, "pages": literal(1) - 1})

    assert (caught.value.fields, caught.value.reason) == (("pages",), "check")


# What comes back


@on_any_session
async def test_a_new_row_carries_everything_without_a_second_statement(
    database: Database, shop: AsyncSession, make_session: MakeSession
) -> None:
    """Key, defaults and computed columns are on the returned row without a second statement."""
    async with make_session(database) as session:
        with assert_max_queries(database, 1) as log:
            product = await ProductService(session).create({"title": "a", "details": {"a": 1}, "secret": "b"})
            assert (product.ident, product.title, product.price, product.code) == (1, "a", 5, "made")
            assert (product.state, product.doubled, product.details, product.secret) == ("new", 10, {"a": 1}, "b")
            assert isinstance(product.made_at, datetime)

    assert log.count == 1


@on_any_session
async def test_a_new_row_carries_mapped_expressions(database: Database, shop: AsyncSession, make_session: MakeSession) -> None:
    """A column_property can be read on the returned row."""
    async with make_session(database) as session:
        sign = await SignService(session).create({"name": "a"})

        assert "shout" not in inspect(sign).unloaded
        assert sign.shout == "A"


@on_any_session
async def test_columns_that_are_left_out_cost_nothing(database: Database, library: Database, make_session: MakeSession) -> None:
    """Columns without a value and without a default are None, without a second statement."""
    async with make_session(database) as session:
        with assert_max_queries(database, 2):
            tag = await TagService(session).create({"name": "a"})
            author = await AuthorService(session).create({"email": "a@example.org"})
            assert (tag.weight, author.name) == (None, None)


async def test_timestamps_come_back_equal(session: AsyncSession, library: Database) -> None:
    """created_at and updated_at are aware and equal, without a second statement."""
    with assert_max_queries(library, 1):
        author = await AuthorService(session).create(AuthorCreate(email="a@example.org"))

    assert author.created_at == author.updated_at
    assert author.created_at.utcoffset() is not None


async def test_a_key_made_here_comes_back(shop: AsyncSession, database: Database) -> None:
    """A UUID that Python makes is the key of the returned row."""
    with assert_max_queries(database, 1):
        ticket = await TicketService(shop).create({"name": "a"})

    assert (await TicketService(shop).get_one(ticket.id)).name == "a"


async def test_the_first_version_is_one(session: AsyncSession) -> None:
    """A new row has version 1."""
    assert (await LeafletService(session).create({"text": "a"})).version == 1


async def test_the_new_row_is_what_the_session_has(session: AsyncSession) -> None:
    """The next read of the session returns the same object."""
    author = await AuthorService(session).create(AuthorCreate(email="a@example.org"))

    assert await AuthorService(session).get(author.id) is author


# Values are made before the transaction


@pytest.mark.parametrize("before", ["idle", "after a read"])
async def test_values_are_made_before_the_transaction(library: Database, session: AsyncSession, before: str) -> None:
    """create_values() and update_values() run without an open transaction and without a connection."""
    seen: list[tuple[bool, int]] = []

    class Hashing(AuthorService):
        def note(self) -> None:
            engine: AsyncEngine = library.engine
            seen.append((self.session.in_transaction(), engine.pool.checkedout()))

        async def create_values(self, data: AuthorCreate) -> dict[str, Any]:
            self.note()
            return await super().create_values(data)

        async def update_values(self, data: AuthorUpdate) -> dict[str, Any]:
            self.note()
            return await super().update_values(data)

    service = Hashing(session)
    writes: list[Callable[[], Awaitable[object]]] = [
        lambda: service.create(AuthorCreate(email="a@example.org")),
        lambda: service.create_many([AuthorCreate(email="b@example.org"), AuthorCreate(email="c@example.org")]),
        lambda: service.update(1, AuthorUpdate(name="Ada")),
    ]
    for write in writes:
        if before == "after a read":
            await service.list()
        await write()

    assert seen == [(False, 0)] * 4


async def test_a_failing_create_values_leaves_the_session_idle(session: AsyncSession) -> None:
    """If create_values() raises, no transaction was begun."""

    class Failing(AuthorService):
        async def create_values(self, data: AuthorCreate) -> dict[str, Any]:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Failing(session).create(AuthorCreate(email="a@example.org"))

    assert not session.in_transaction()


async def test_an_error_of_the_constructor_undoes_the_write(shop: AsyncSession) -> None:
    """If the constructor of the model raises, the write is undone and the session still works."""
    with pytest.raises(TypeError):
        await ConstructedService(shop).create({})

    assert not shop.in_transaction()
    assert (await ConstructedService(shop).create({"name": "a"})).id == 1


async def test_errors_are_of_the_library(session: AsyncSession) -> None:
    """All errors of a write have one base class to catch."""
    with pytest.raises(KitError):
        await BookService(session).create({"title": "a", "author_id": 1})
