"""Rows by the values of columns: get_by() compares as SQLAlchemy does, also where a column or its type compares in its own way."""

import enum
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import JSON, Numeric, String, TypeDecorator, func, literal
from sqlalchemy.orm import ColumnProperty, DeclarativeBase, Mapped, column_property, mapped_column
from sqlalchemy.types import TypeEngine

from fastapi_kit.crud import CRUDService
from fastapi_kit.db import Database
from fastapi_kit.testing.queries import assert_max_queries


class Base(DeclarativeBase): ...


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


class InAnyCase(ColumnProperty.Comparator[str]):
    def __eq__(self, other: Any) -> Any:  # type: ignore[override]
        return func.lower(self.__clause_element__()) == other.lower()


class Code(String):
    """A type that compares without blanks."""

    class Comparator(String.Comparator[str]):
        def __eq__(self, other: Any) -> Any:  # type: ignore[override]
            return super().__eq__(other.strip() if isinstance(other, str) else other)

    comparator_factory = Comparator


class Cents(TypeDecorator[Decimal]):
    """Amounts as whole cents, which numbers of another type are compared with as they are stored."""

    impl = Numeric
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value * 100

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:
        return self if isinstance(value, Decimal) else Numeric()


class Thing(Base):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = column_property(mapped_column(String(20)), comparator_factory=InAnyCase)
    code: Mapped[str] = mapped_column(Code(20))
    price: Mapped[Decimal] = mapped_column(Cents)
    colour: Mapped[Colour]
    is_new: Mapped[bool]
    data: Mapped[Any] = mapped_column(JSON)


class ThingService(CRUDService[Thing, Any, Any]): ...


@pytest.fixture
async def things(database: Database) -> AsyncIterator[ThingService]:
    await database.create_tables(Base.metadata)
    async with database.sessions() as session, session.begin():
        for number, colour in enumerate(Colour, 1):
            values = {"title": f"Title {number}", "code": f"c{number}", "price": Decimal(number), "is_new": number == 1, "data": {}}
            session.add(Thing(colour=colour, **values))
    async with database.sessions() as session:
        yield ThingService(session)


@pytest.mark.parametrize(
    "columns",
    [
        {"title": "TITLE 2"},
        {"code": "  c2 "},
        {"price": Decimal(2)},
        {"price": 200},
        {"colour": Colour.BLUE},
        {"is_new": False},
        {"id": 2},
        {"id": 2, "title": "title 2"},
        {"code": literal("c2")},
        {"id": literal(1) + 1},
    ],
    ids=lambda columns: " ".join(columns),
)
async def test_columns_compare_as_in_a_select(things: ThingService, columns: dict[str, Any]) -> None:
    """get_by() finds what ``Thing.column == value`` finds: with comparators, types and SQL expressions of the application."""
    for _ in range(2):
        found = await things.get_by(**columns)
        assert found is not None
        assert found.id == 2


@pytest.mark.parametrize(
    "columns", [{"title": "title 3"}, {"price": Decimal(200)}, {"price": 2}, {"colour": None}, {"is_new": None}], ids=str
)
async def test_columns_that_differ(things: ThingService, columns: dict[str, Any]) -> None:
    """What no row has is not found."""
    assert await things.get_by(**columns) is None


async def test_one_statement_for_all_values(database: Database, things: ThingService) -> None:
    """Calls with other values send the same statement, and two rows at most are read."""
    with assert_max_queries(database, 3) as log:
        for number in (1, 2, 3):
            await things.get_by(id=number, colour=Colour.RED)
    (statement,) = set(log.statements)
    assert "LIMIT" in statement


async def test_a_service_with_a_base_query(things: ThingService) -> None:
    """A base_query still hides rows, whatever was looked up by another service of the same model."""

    class NewThings(ThingService):
        def base_query(self) -> Any:
            return super().base_query().where(Thing.is_new)

    assert await things.get_by(id=2) is not None
    assert await NewThings(things.session).get_by(id=2) is None
    assert await NewThings(things.session).get_by(id=1) is not None
