"""The order of rows: total, and the same on both databases."""

from collections.abc import AsyncIterator, Sequence
from itertools import product
from typing import Any, ClassVar

import pytest
from sqlalchemy import asc, case, desc, func, nulls_first, nulls_last
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property
from tests.crud.kinds import opened
from tests.tables import zoo
from tests.tables.library import Shelf, ShelfService, Tag, TagService

from fastapi_kit.crud import ReadService
from fastapi_kit.db import Database
from fastapi_kit.testing.queries import assert_max_queries


@pytest.fixture
async def tags(session: AsyncSession) -> TagService:
    """Tags in a different order by key, name and weight; two have no weight, two have the same."""
    names = {5: ("b", 2), 3: ("a", None), 1: ("d", 1), 4: ("c", 2), 2: ("e", None)}
    service = TagService(session)
    for ident, (name, weight) in names.items():
        await service.create({"id": ident, "name": name, "weight": weight})
    return service


async def ids(service: TagService, order_by: Any = ()) -> list[int]:
    """The keys in this order, which every way to read agrees on."""
    listed = [tag.id for tag in await service.list(order_by=order_by)]
    assert [tag.id async for tag in service.stream(order_by=order_by)] == listed
    first = await service.first(order_by=order_by)
    assert first is not None
    assert first.id == listed[0]
    assert [tag.id for number in range(5) for tag in await service.list(order_by=order_by, skip=number, limit=1)] == listed
    return listed


async def test_the_default_order_is_the_key(tags: TagService) -> None:
    """Without order_by rows come in the order of their keys."""
    await tags.update(1, {"name": "changed"})

    assert await ids(tags) == [1, 2, 3, 4, 5]


async def test_the_default_order_of_a_composite_key_is_all_of_it(session: AsyncSession) -> None:
    """Without order_by rows come in the order of all columns of a composite key."""
    pairs = list(product((2, 1), (2, 1)))
    await ShelfService(session).create_many([{"room": room, "number": number} for room, number in pairs])

    assert [(shelf.room, shelf.number) for shelf in await ShelfService(session).list()] == sorted(pairs)


ORDERS: list[tuple[str, Any, list[int]]] = [
    ("one column", Tag.name, [3, 5, 4, 1, 2]),
    ("a list", [Tag.name], [3, 5, 4, 1, 2]),
    ("a tuple", (Tag.name,), [3, 5, 4, 1, 2]),
    ("descending", Tag.name.desc(), [2, 1, 4, 5, 3]),
    ("desc()", desc(Tag.name), [2, 1, 4, 5, 3]),
    ("nulls last ascending, ties by key", Tag.weight, [1, 4, 5, 2, 3]),
    ("asc() says the same", asc(Tag.weight), [1, 4, 5, 2, 3]),
    ("nulls first descending, ties by key", Tag.weight.desc(), [2, 3, 4, 5, 1]),
    ("nulls placed by hand", Tag.weight.nulls_first(), [2, 3, 1, 4, 5]),
    ("nulls placed by hand, descending", Tag.weight.desc().nulls_last(), [4, 5, 1, 2, 3]),
    ("nulls_first()", nulls_first(Tag.weight.asc()), [2, 3, 1, 4, 5]),
    ("nulls_last()", nulls_last(desc(Tag.weight)), [4, 5, 1, 2, 3]),
    ("mixed directions", [Tag.weight.desc(), Tag.name], [3, 2, 5, 4, 1]),
    ("mixed directions the other way", [Tag.weight, Tag.name.desc()], [1, 4, 5, 2, 3]),
    ("the key last, descending", [Tag.weight, Tag.id.desc()], [1, 5, 4, 3, 2]),
    ("the key first", [Tag.id.desc(), Tag.name], [5, 4, 3, 2, 1]),
    ("an expression", func.coalesce(Tag.weight, 0), [2, 3, 1, 4, 5]),
    ("an expression that can be null", (Tag.weight * -1), [4, 5, 1, 2, 3]),
    ("an expression that can be null, descending", (Tag.weight * -1).desc(), [2, 3, 1, 4, 5]),
    ("a negated column", -Tag.weight, [4, 5, 1, 2, 3]),
    ("a case", case((Tag.name == "c", 0), else_=1), [4, 1, 2, 3, 5]),
    ("a condition", Tag.weight.is_(None), [1, 4, 5, 2, 3]),
    ("a label", func.abs(Tag.weight).label("size"), [1, 4, 5, 2, 3]),
    ("the table's own column", Tag.__table__.c.weight.desc(), [2, 3, 4, 5, 1]),
    ("the table's own key", Tag.__table__.c.id.desc(), [5, 4, 3, 2, 1]),
]


@pytest.mark.parametrize(("order_by", "expected"), [order[1:] for order in ORDERS], ids=[order[0] for order in ORDERS])
async def test_orders_are_equal_on_both_databases(tags: TagService, order_by: Any, expected: list[int]) -> None:
    """Nulls come last ascending and first descending on both databases, and rows that tie are in the order of their keys."""
    assert await ids(tags, order_by) == expected


async def test_a_session_of_the_application_orders_alike(application_sessions: async_sessionmaker[AsyncSession]) -> None:
    """Nulls are placed alike on an engine of the application."""
    async with application_sessions() as session:
        session.add_all([Tag(id=1, name="a"), Tag(id=2, name="b", weight=1)])
        assert [tag.id for tag in await TagService(session).list(order_by=Tag.weight)] == [2, 1]


@pytest.mark.parametrize("key", [Tag.id, Tag.id.desc(), asc(Tag.id), Tag.__table__.c.id, Tag.id.desc().nulls_last()], ids=str)
async def test_a_key_that_is_named_is_not_repeated(library: Database, tags: TagService, key: Any) -> None:
    """A key in order_by is not added again, in whatever form it is written."""
    with assert_max_queries(library, 1) as log:
        await tags.list(order_by=[Tag.name, key])

    assert log.statements[0].partition("ORDER BY")[2].count("tags.id") == 1


async def test_what_of_a_composite_key_is_missing_is_appended(library: Database, session: AsyncSession) -> None:
    """If order_by names a part of a composite key, the other part is added."""
    with assert_max_queries(library, 1) as log:
        await ShelfService(session).list(order_by=Shelf.number.desc())

    order = " ".join(log.statements[0].partition("ORDER BY")[2].partition("LIMIT")[0].split())
    assert order == "shelves.number DESC, shelves.room"


async def test_pages_of_a_tied_order_neither_lose_nor_repeat(session: AsyncSession) -> None:
    """Pages with skip and limit show each row once, even if rows tie in order_by."""
    await TagService(session).create_many([{"name": str(number), "weight": number % 2 or None} for number in range(30)])

    walked = [tag.id for skip in range(0, 30, 7) for tag in await TagService(session).list(order_by=Tag.weight, skip=skip, limit=7)]

    assert len(walked) == 30
    assert len(set(walked)) == 30


class Base(DeclarativeBase): ...


class Animal(Base):
    """The base of joined tables, with expressions and a renamed key."""

    __table__ = zoo.Animal.__table__
    ident: Mapped[int] = __table__.c.id
    name: Mapped[str | None] = __table__.c.animal_name
    age: Mapped[int | None]
    initial: Mapped[str] = column_property(func.substr(__table__.c.animal_name, 1, 1))
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}

    @hybrid_property
    def seniority(self) -> int:
        return -(self.age or 0)

    @seniority.inplace.expression
    @classmethod
    def _seniority(cls) -> Any:
        return -func.coalesce(cls.age, 0)


class Cat(Animal):
    __table__ = zoo.Cat.__table__
    ident: Mapped[int] = __table__.c.id
    chip: Mapped[str | None] = __table__.c.chip_no
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "cat"}


class AnimalService(ReadService[Animal]): ...


class CatService(ReadService[Cat]): ...


@pytest.fixture
async def animals(database: Database) -> AsyncIterator[AsyncSession]:
    """Three cats and an animal."""
    await database.create_tables(zoo.ZooBase.metadata)
    async with database.begin() as session:
        session.add(Cat(ident=3, name="Tom", age=1, chip="9"))
        session.add(Cat(ident=1, name="Kit", age=5))
        session.add(Animal(ident=4, name="Rex"))
        session.add(Cat(ident=2, name="Mog", age=1, chip="7"))
    async with opened(database) as session:
        yield session


ANIMAL_ORDERS: list[tuple[type[ReadService[Any]], Any, Sequence[int]]] = [
    (AnimalService, (), [1, 2, 3, 4]),
    (AnimalService, Animal.ident.desc(), [4, 3, 2, 1]),
    (AnimalService, Animal.name, [1, 2, 4, 3]),
    (AnimalService, Animal.age.desc(), [4, 1, 2, 3]),
    (AnimalService, Animal.seniority, [1, 2, 3, 4]),
    (AnimalService, Animal.initial.desc(), [3, 4, 2, 1]),
    (CatService, (), [1, 2, 3]),
    (CatService, Cat.chip, [2, 3, 1]),
    (CatService, Cat.chip.desc(), [1, 3, 2]),
    (CatService, [Cat.age, Cat.ident.desc()], [3, 2, 1]),
    (CatService, [Animal.age, Animal.ident.desc()], [3, 2, 1]),
]


@pytest.mark.parametrize(("service", "order_by", "expected"), ANIMAL_ORDERS, ids=[str(number) for number in range(len(ANIMAL_ORDERS))])
async def test_mapped_expressions_and_inherited_columns_order_too(
    animals: AsyncSession, service: type[ReadService[Any]], order_by: Any, expected: Sequence[int]
) -> None:
    """Hybrids, column properties, renamed keys and columns of both tables can be ordered by."""
    assert [animal.ident for animal in await service(animals).list(order_by=order_by)] == expected


async def test_an_inherited_key_that_is_named_is_not_repeated(animals: AsyncSession, database: Database) -> None:
    """The keys of the two joined tables count as one key."""
    with assert_max_queries(database, 1) as log:
        await CatService(animals).list(order_by=Cat.ident)

    assert log.statements[0].partition("ORDER BY")[2].count(".id") == 1


async def test_an_order_without_any_column_is_the_key(tags: TagService) -> None:
    """An empty order_by means the order of the keys."""
    assert await ids(tags, []) == [1, 2, 3, 4, 5]
