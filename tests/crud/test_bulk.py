"""Creating many rows: all or none, in few statements, returned in the order given."""

from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import String, event, func, inspect, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
)
from sqlalchemy.sql.functions import FunctionElement
from tests.crud.kinds import HeroService, KindsBase, Named, SignService, TicketService, opened
from tests.tables.library import (
    Author,
    AuthorCreate,
    AuthorService,
    Book,
    BookService,
    LeafletService,
    Shelf,
    ShelfService,
    Tag,
    TagCreate,
    TagService,
)
from tests.tables.names import Constructed, Initialised, ListenedInit, ListenedInsert, ListenedSet, NamesBase, Person, Validated
from tests.tables.store import Line, Opened, Product, StoreBase
from tests.tables.zoo import Cat, ZooBase
from tests.thorough import FULL

from fastapi_kit.crud import CRUDService
from fastapi_kit.db import Database, unit_of_work
from fastapi_kit.errors import ConflictError, InvalidDataError, UnknownReferenceError
from fastapi_kit.testing.queries import assert_max_queries


class RandomKey(FunctionElement[str]):
    """The database makes a random key."""

    type = String()
    inherit_cache = True


@compiles(RandomKey, "sqlite")
def _random_on_sqlite(*_: object, **__: object) -> str:
    return "(lower(hex(randomblob(8))))"


@compiles(RandomKey, "postgresql")
def _random_on_postgresql(*_: object, **__: object) -> str:
    return "md5(random()::text)"


class VoucherBase(DeclarativeBase): ...


class Voucher(VoucherBase):
    __tablename__ = "vouchers"
    id: Mapped[str] = mapped_column(String(40), primary_key=True, server_default=RandomKey())
    name: Mapped[str]


class ProductService(CRUDService[Product, Named, Named]): ...


class VoucherService(CRUDService[Voucher, Named, Named]): ...


class PersonService(CRUDService[Person, Named, Named]): ...


class ValidatedService(CRUDService[Validated, Named, Named]): ...


class ConstructedService(CRUDService[Constructed, Named, Named]): ...


class ListenedSetService(CRUDService[ListenedSet, Named, Named]): ...


class ListenedInitService(CRUDService[ListenedInit, Named, Named]): ...


class ListenedInsertService(CRUDService[ListenedInsert, Named, Named]): ...


class InitialisedService(CRUDService[Initialised, Named, Named]): ...


class OpenedService(CRUDService[Opened, Named, Named]): ...


class CatService(CRUDService[Cat, Named, Named]): ...


AnyService = CRUDService[Any, Any, Any]


@pytest.fixture
async def store(database: Database) -> AsyncIterator[AsyncSession]:
    """A request's session on the tables above."""
    for base in (StoreBase, VoucherBase, KindsBase, NamesBase, ZooBase):
        await database.create_tables(base.metadata)
    async with opened(database) as session:
        yield session


def names(number: int) -> list[dict[str, Any]]:
    return [{"name": f"Name {position}"} for position in range(number, 0, -1)]


# What goes in


async def test_rows_come_from_schemas_mappings_and_generators(session: AsyncSession) -> None:
    """Rows may be schemas and mappings, mixed, from any iterable."""

    def rows() -> Iterator[TagCreate | dict[str, Any]]:
        yield TagCreate(name="a", weight=1)
        yield {"name": "b"}

    tags = await TagService(session).create_many(rows())

    assert [(tag.name, tag.weight) for tag in tags] == [("a", 1), ("b", None)]


async def test_values_by_keyword_are_for_every_row(session: AsyncSession) -> None:
    """Keyword values override those of every row."""
    tags = await TagService(session).create_many([TagCreate(name="a", weight=1), TagCreate(name="b")], weight=7)

    assert [tag.weight for tag in tags] == [7, 7]


async def test_no_row_sends_nothing(library: Database, session: AsyncSession) -> None:
    """No rows send no SQL and begin no transaction."""
    with assert_max_queries(library, 0):
        assert await TagService(session).create_many([]) == []
        assert await TagService(session).create_many(iter(())) == []

    assert not session.in_transaction()


async def test_schemas_go_through_create_values(session: AsyncSession, library: Database) -> None:
    """create_values() runs for every schema, and the rows still take few statements."""

    class Shouting(TagService):
        async def create_values(self, data: TagCreate) -> dict[str, Any]:
            return {**await super().create_values(data), "name": data.name.upper()}

    with assert_max_queries(library, 3):
        tags = await Shouting(session).create_many([TagCreate(name=f"a{number}") for number in range(50)])

    assert [tag.name for tag in tags] == [f"A{number}" for number in range(50)]


async def test_rows_that_name_different_columns(store: AsyncSession) -> None:
    """Each row gets the values that it names, with None as NULL, and defaults for the rest."""
    rows = [
        {"title": "a", "discount": 1},
        {"title": "b", "rank": 2},
        {"title": "c", "state": "old", "code": None},
        {"title": "d", "discount": None},
    ]

    products = await ProductService(store).create_many(rows)

    assert [(product.title, product.discount, product.rank, product.state, product.code) for product in products] == [
        ("a", 1, None, "new", "made"),
        ("b", 5, 2, "new", "made"),
        ("c", 5, None, "old", None),
        ("d", None, None, "new", "made"),
    ]


async def test_expressions_are_values_too(session: AsyncSession) -> None:
    """SQL expressions may be values in some rows or in all."""
    tags = await TagService(session).create_many([{"name": func.upper("a"), "weight": 1}, {"name": "b", "weight": func.abs(-2)}])

    assert [(tag.name, tag.weight) for tag in tags] == [("A", 1), ("b", 2)]


async def test_relationships_are_values_too(session: AsyncSession) -> None:
    """Rows may have objects of relationships next to rows that have foreign keys."""
    author = await AuthorService(session).create({"email": "a@example.org"})

    books = await BookService(session).create_many([{"title": "a", "author": author}, {"title": "b", "author_id": author.id}])

    assert [(book.title, book.author_id) for book in books] == [("a", author.id), ("b", author.id)]


async def test_synonyms_are_values_too(store: AsyncSession) -> None:
    """A synonym can be set for its attribute."""
    signs = await SignService(store).create_many([{"alias": "a"}, {"name": "b"}])

    assert [sign.name for sign in signs] == ["a", "b"]


NULLS = [{}, {"details": None}, {"settings": None}, {"details": {"a": 1}, "settings": {"b": 2}}]


@pytest.mark.parametrize("values", NULLS, ids=str)
async def test_one_of_many_is_stored_as_one_alone(store: AsyncSession, values: dict[str, Any]) -> None:
    """A row in create_many() is stored as by create(), whatever columns the other rows name."""
    service = ProductService(store)
    await service.create({"title": "alone", **values})
    await service.create_many([{"title": "full", "details": {"c": 3}, "settings": {"d": 4}}, {"title": "many", **values}])

    stored = select(
        Product.details, Product.details.is_(None).label("sql_null"), Product.settings, Product.settings.is_(None).label("no_settings")
    )
    by_title = {title: (await store.execute(stored.where(Product.title == title))).one() for title in ("alone", "many")}
    assert by_title["many"] == by_title["alone"]


# What comes back


ROW = st.fixed_dictionaries(
    {},
    optional={
        "rank": st.none() | st.integers(-3, 3),
        "discount": st.none() | st.integers(-3, 3),
        "code": st.none() | st.sampled_from(["x", "y"]),
        "state": st.none() | st.sampled_from(["old", "new"]),
    },
)
_titles = count()


def expected_of(row: dict[str, Any]) -> tuple[Any, ...]:
    defaults = {"discount": 5, "code": "made", "state": "new"}
    filled = {**defaults, **row}
    return filled["title"], filled.get("rank"), filled["discount"], filled["code"], filled["state"]


def found_in(product: Product) -> tuple[Any, ...]:
    return product.title, product.rank, product.discount, product.code, product.state


@settings(max_examples=40 if FULL else 10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patterns=st.lists(ROW, max_size=30))
async def test_input_order_with_server_made_keys(store: AsyncSession, patterns: list[dict[str, Any]]) -> None:
    """Rows come back in the order given and as stored, with keys made by the database."""
    rows = [{"title": f"product {next(_titles)}", **pattern} for pattern in patterns]

    products = await ProductService(store).create_many(rows)

    assert [found_in(product) for product in products] == [expected_of(row) for row in rows]
    keys = [product.ident for product in products]
    assert len(set(keys)) == len(keys)
    store.expunge_all()
    assert [found_in(product) for product in await ProductService(store).get_many(keys)] == [expected_of(row) for row in rows]


@pytest.mark.only_full
async def test_10_000_rows(session: AsyncSession, library: Database) -> None:
    """10,000 rows, more than one statement can bind, come back in the order given."""
    rows = [{"name": f"{number:05}", "weight": number if number % 3 else None} for number in range(10_000, 0, -1)]

    with assert_max_queries(library, 25):
        tags = await TagService(session).create_many(rows)

    assert [(tag.name, tag.weight) for tag in tags] == [(row["name"], row["weight"]) for row in rows]
    stored = {row.id: row.name for row in await session.execute(select(Tag.id, Tag.name))}
    assert {tag.id: tag.name for tag in tags} == stored


FEW: list[tuple[type[AnyService], list[dict[str, Any]]]] = [
    (ProductService, [{"title": str(number), "rank": number, "discount": number % 2 or None} for number in range(1000)]),
    (TicketService, names(1000)),
]


@pytest.mark.parametrize(("service", "rows"), FEW, ids=lambda value: getattr(value, "__name__", ""))
async def test_1_000_rows_are_few_statements(
    database: Database, store: AsyncSession, service: type[AnyService], rows: list[dict[str, Any]]
) -> None:
    """1,000 rows take at most three statements on both databases, with keys and defaults made in Python or by the database."""
    with assert_max_queries(database, 3):
        created = await service(store).create_many(rows)
        found = [{name: getattr(row, name) for name in rows[0]} for row in created]

    assert found == rows


async def test_1_000_rows_with_composite_keys_are_few_statements(session: AsyncSession, library: Database) -> None:
    """1,000 rows with given composite keys take few statements."""
    rows = [{"room": number % 7, "number": number, "label": str(number)} for number in range(1000, 0, -1)]

    with assert_max_queries(library, 3):
        shelves = await ShelfService(session).create_many(rows)

    assert [(shelf.room, shelf.number, shelf.label) for shelf in shelves] == [tuple(row.values()) for row in rows]


async def test_keys_made_here_come_back_in_order(store: AsyncSession) -> None:
    """Keys made in Python increase in the order of the rows; given keys are kept."""
    given_key = UUID(int=7)

    tickets = await TicketService(store).create_many([{"name": "a"}, {"name": "b", "id": given_key}, {"name": "c"}])

    assert [ticket.name for ticket in tickets] == ["a", "b", "c"]
    assert tickets[1].id == given_key
    assert tickets[0].id < tickets[2].id


async def test_keys_without_an_order_come_back_in_order(store: AsyncSession) -> None:
    """Rows with random keys made by the database come back in the order given."""
    rows = names(50)

    vouchers = await VoucherService(store).create_many(rows)

    assert [voucher.name for voucher in vouchers] == [row["name"] for row in rows]
    stored = {row.id: row.name for row in await store.execute(select(Voucher.id, Voucher.name))}
    assert {voucher.id: voucher.name for voucher in vouchers} == stored


async def test_some_keys_given_and_some_made(session: AsyncSession) -> None:
    """Rows with and without a key come back in the order given."""
    tags = await TagService(session).create_many([{"name": "a"}, {"name": "b", "id": 1000}, {"name": "c"}, {"name": "d", "id": 500}])

    assert [tag.name for tag in tags] == ["a", "b", "c", "d"]
    assert (tags[1].id, tags[3].id) == (1000, 500)


async def test_rows_carry_timestamps_and_versions(session: AsyncSession, library: Database) -> None:
    """New rows have equal timestamps and version 1, without a second statement."""
    with assert_max_queries(library, 2):
        authors = await AuthorService(session).create_many([{"email": f"{number}@example.org"} for number in range(3)])
        leaflets = await LeafletService(session).create_many([{"text": "a"}, {"text": "b"}])
        assert all(author.created_at == author.updated_at for author in authors)
        assert [leaflet.version for leaflet in leaflets] == [1, 1]


async def test_rows_on_a_default_session(application_sessions: async_sessionmaker[AsyncSession]) -> None:
    """With SQLAlchemy's defaults and the stock driver, rows come back in order and are readable."""
    async with application_sessions() as session:
        tags = await TagService(session).create_many([{"name": f"tag {number}"} for number in range(30, 0, -1)])

        assert [tag.name for tag in tags] == [f"tag {number}" for number in range(30, 0, -1)]


@pytest.mark.parametrize("number", [1, 3])
async def test_deferred_columns_and_expressions_can_be_read(store: AsyncSession, number: int) -> None:
    """Deferred columns and expressions can be read on the returned rows, as after create()."""
    signs = await SignService(store).create_many([{"name": "a", "body": "b"}] * number)

    assert [inspect(sign).unloaded - {"alias"} for sign in signs] == [set()] * number
    assert [(sign.body, sign.shout) for sign in signs] == [("b", "A")] * number


async def test_new_rows_are_what_the_session_has(session: AsyncSession) -> None:
    """The next read returns the same objects, and they can be changed."""
    first, second = await TagService(session).create_many([{"name": "a"}, {"name": "b"}])

    assert await TagService(session).get_many([second.id, first.id]) == [second, first]
    first.weight = 3
    await session.commit()
    assert await TagService(session).count(Tag.weight == 3) == 1


async def test_a_key_that_is_used_again_gives_a_new_row(library: Database, session: AsyncSession) -> None:
    """The key of a row that another session has deleted can be used again."""
    old = await ShelfService(session).create({"room": 1, "number": 1, "label": "old"})
    async with library.begin() as other:
        await ShelfService(other).delete((1, 1))

    (new,) = await ShelfService(session).create_many([{"room": 1, "number": 1, "label": "new"}])

    assert new.label == "new"
    assert (await ShelfService(session).get_one((1, 1))).label == "new"
    assert old.room == 1


# All or nothing


async def test_a_rejected_row_rejects_all(session: AsyncSession) -> None:
    """One rejected row at any position stores none, and the session still works."""
    rows = [{"name": f"tag {number}", "weight": number % 2 or None} for number in range(3000)]

    for duplicate in (0, 1, 2999):
        with pytest.raises(ConflictError) as caught:
            await TagService(session).create_many([*rows, {"name": f"tag {duplicate}"}])
        assert caught.value.fields == ("name",)
    assert await TagService(session).count() == 0
    await TagService(session).create_many(rows)


async def test_a_rejected_group_of_rows_rejects_all(store: AsyncSession) -> None:
    """None is stored if the rows take several statements and one is rejected."""
    with pytest.raises(ConflictError):
        await ProductService(store).create_many([{"title": "a"}, {"title": "b", "discount": 1}, {"title": "a", "code": "x"}])

    assert await ProductService(store).count() == 0


async def test_a_rejected_object_rejects_all(session: AsyncSession) -> None:
    """None is stored if the rows are flushed as objects and one is rejected."""
    author = await AuthorService(session).create({"email": "a@example.org"})

    with pytest.raises(UnknownReferenceError):
        await BookService(session).create_many([{"title": "a", "author": author}, {"title": "b", "author_id": 99}])

    assert await BookService(session).count() == 0
    assert not session.new


async def test_rejected_rows_leave_the_rest_of_an_opened_transaction(session: AsyncSession) -> None:
    """Rejected rows in an open transaction undo only themselves."""
    async with unit_of_work(session):
        await TagService(session).create({"name": "a"})
        with pytest.raises(ConflictError):
            await TagService(session).create_many([{"name": "b"}, {"name": "a"}])
        await TagService(session).create_many([{"name": "c"}])

    assert [tag.name for tag in await TagService(session).list()] == ["a", "c"]


async def test_a_rejected_value_is_found_before_any_sql(library: Database, session: AsyncSession) -> None:
    """A value that cannot be stored raises before any SQL, in whichever row it is."""
    with assert_max_queries(library, 0), pytest.raises(InvalidDataError) as caught:
        await TagService(session).create_many([{"name": "a"}, {"name": "b" * 51}])

    assert (caught.value.fields, caught.value.reason) == (("name",), "too_long")


# Code of the application runs for each row


class Numbering(TagService):
    """Overrides create()."""

    async def create(self, data: Any, /, **values: object) -> Tag:
        tag = await super().create(data, **values)
        return await self.update(tag.id, {"weight": tag.id * 10})


async def test_an_overridden_create_is_called_for_each_row(session: AsyncSession) -> None:
    """An overridden create() is called for each row, in the order given."""
    tags = await Numbering(session).create_many([TagCreate(name="a"), {"name": "b"}], weight=3)

    assert [(tag.name, tag.weight) for tag in tags] == [("a", tags[0].id * 10), ("b", tags[1].id * 10)]


async def test_an_overridden_create_is_all_or_nothing_too(session: AsyncSession) -> None:
    """With an overridden create() the rows are one transaction."""
    with pytest.raises(ConflictError):
        await Numbering(session).create_many([{"name": "a"}, {"name": "b"}, {"name": "a"}])

    assert await TagService(session).count() == 0


class NumberingByMixin:
    """Overrides create() in a mixin."""

    async def create(self, data: Any, /, **values: object) -> Any:
        return await super().create(data, weight=7, **values)


async def test_a_create_that_a_mixin_overrides_is_called_too(session: AsyncSession) -> None:
    """A create() of a mixin is called, at any position among the base classes."""

    class Mixed(NumberingByMixin, TagService): ...

    assert [tag.weight for tag in await Mixed(session).create_many([{"name": "a"}, {"name": "b"}])] == [7, 7]


HONOURED = [ValidatedService, ConstructedService, ListenedSetService, ListenedInitService, ListenedInsertService, InitialisedService]


@pytest.mark.parametrize("service", HONOURED, ids=lambda service: service.__name__)
async def test_code_on_the_model_runs_for_each_row(store: AsyncSession, service: type[AnyService]) -> None:
    """Validators, constructors and listeners run for each of many rows as for one."""
    one = await service(store).create({"name": "NAME"})
    many = await service(store).create_many([{"name": "NAME A"}, {"name": "NAME B"}])

    assert [row.name for row in (one, *many)] == ["name", "name a", "name b"]


SESSION_EVENTS = ["before_flush", "after_flush", "after_flush_postexec"]


@pytest.mark.parametrize("name", SESSION_EVENTS)
async def test_flush_listeners_of_the_session_are_called(session: AsyncSession, name: str) -> None:
    """Flush listeners, such as an audit log, get each of many rows."""
    heard: list[str] = []

    def listen(flushed: Session, *_: object) -> None:
        heard.extend(row.name for row in flushed.new or flushed.identity_map.values() if isinstance(row, Tag))

    event.listen(session.sync_session, name, listen)
    await TagService(session).create({"name": "a"})
    heard_of_one = list(heard)
    await TagService(session).create_many([{"name": "b"}, {"name": "c"}])

    assert "a" in heard_of_one
    assert {"b", "c"} <= set(heard)


@pytest.mark.parametrize("name", ["pending_to_persistent", "after_attach"])
async def test_life_cycle_listeners_of_the_session_are_called(session: AsyncSession, name: str) -> None:
    """Listeners for new objects are called, as for objects that are added by session.add()."""
    heard: list[str] = []
    event.listen(session.sync_session, name, lambda _session, row: heard.append(row.name))

    await TagService(session).create_many([{"name": "b"}, {"name": "c"}])

    assert sorted(heard) == ["b", "c"]


async def test_a_property_that_makes_no_sql_is_no_hindrance(store: AsyncSession) -> None:
    """A hybrid that is plain Python does not prevent inserts."""
    people = await PersonService(store).create_many([{"name": "Ada"}, {"name": "Bob"}])

    assert [(person.initial, person.size) for person in people] == [("A", 3), ("B", 3)]


async def test_an_sqlmodel_model(store: AsyncSession) -> None:
    """Rows of an SQLModel come back in order, with its defaults and its mixins."""
    heroes = await HeroService(store).create_many([{"name": "b", "age": 3}, {"name": "a"}])

    assert [(hero.name, hero.age) for hero in heroes] == [("b", 3), ("a", None)]
    assert all(hero.created_at == hero.updated_at for hero in heroes)


async def test_an_inheriting_model(store: AsyncSession) -> None:
    """Rows of joined tables are stored in both."""
    cats = await CatService(store).create_many([{"name": "b", "lives": 7}, {"name": "a"}])

    assert [(cat.name, cat.kind, cat.lives) for cat in cats] == [("b", "cat", 7), ("a", "cat", 9)]


async def test_a_model_that_joins_a_collection(store: AsyncSession) -> None:
    """A model with a joined collection can be inserted."""
    bare = await OpenedService(store).create_many([{"name": "a"}, {"name": "b"}])
    full = await OpenedService(store).create_many([{"name": "c"}, {"name": "d", "lines": [Line()]}])

    assert [folder.name for folder in (*bare, *full)] == ["a", "b", "c", "d"]
    store.expunge_all()
    assert [len(folder.lines) for folder in await OpenedService(store).list()] == [0, 0, 0, 1]


async def test_rows_are_committed(library: Database, session: AsyncSession) -> None:
    """create_many() commits, unless a transaction was opened on purpose."""
    await TagService(session).create_many([{"name": "a"}, {"name": "b"}])

    assert not session.in_transaction()
    async with library.begin() as other:
        await other.execute(update(Tag).values(weight=1))
        assert await TagService(other).count(Tag.weight == 1) == 2


async def test_books_of_many_authors(session: AsyncSession) -> None:
    """Server defaults are loaded on the returned rows, and foreign keys are kept."""
    authors = await AuthorService(session).create_many([AuthorCreate(email=f"{number}@example.org") for number in range(3)])

    books = await BookService(session).create_many([{"title": author.email, "author_id": author.id} for author in authors])

    assert [(book.title, book.language, book.pages) for book in books] == [(author.email, "en", 1) for author in authors]
    assert await session.scalar(select(func.count()).select_from(Book).join(Author).where(Author.email == Book.title)) == 3


async def test_a_shelf_is_found_by_its_new_key(session: AsyncSession) -> None:
    """The returned objects have their composite keys."""
    (shelf,) = await ShelfService(session).create_many([{"room": 2, "number": 3}])

    assert await session.get(Shelf, (2, 3)) is shelf
