"""Which values count as a change, so that a row is written and its version and updated_at advance."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel
from sqlalchemy import (
    ARRAY,
    CHAR,
    DDL,
    JSON,
    Boolean,
    Date,
    DateTime,
    Dialect,
    Float,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    PickleType,
    String,
    Text,
    TypeDecorator,
    Uuid,
    event,
    text,
)
from sqlalchemy import Enum as EnumType
from sqlalchemy.dialects.postgresql import CITEXT, INET, JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import UserDefinedType

from fastapi_kit.crud import CRUDService
from fastapi_kit.db import Database


class Size(Enum):
    S = "s"
    L = "l"


class Array:
    """Compares item by item, as numpy arrays do, and has no truth value."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, *items: float) -> None:
        self.items = items

    def __eq__(self, other: object) -> Any:
        return (
            Array(*(mine == its for mine, its in zip(self.items, other.items, strict=False)))
            if isinstance(other, Array)
            else NotImplemented
        )

    def __bool__(self) -> bool:
        raise ValueError("which item?")


class Vector(UserDefinedType[Array]):
    cache_ok = True

    def get_col_spec(self) -> str:
        return "TEXT"

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        return lambda array: None if array is None else " ".join(map(str, array.items))

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        return lambda stored: None if stored is None else Array(*map(float, stored.split()))


class Careless(TypeDecorator[str]):
    """Ignores case."""

    impl = String
    cache_ok = True

    def compare_values(self, x: Any, y: Any) -> bool:
        return (x or "").lower() == (y or "").lower()


class Base(DeclarativeBase):
    metadata = MetaData()


class Sample(Base):
    __tablename__ = "samples"
    id: Mapped[int] = mapped_column(primary_key=True)
    json: Mapped[Any] = mapped_column(JSON, nullable=True)
    binary: Mapped[Any] = mapped_column(JSON().with_variant(JSONB, "postgresql"), nullable=True)
    mutable: Mapped[Any] = mapped_column(MutableDict.as_mutable(JSON()), nullable=True)
    vector: Mapped[Any] = mapped_column(Vector, nullable=True)
    pickled: Mapped[Any] = mapped_column(PickleType, nullable=True)
    careless: Mapped[Any] = mapped_column(Careless(20), nullable=True)
    float: Mapped[Any] = mapped_column(Float, nullable=True)
    numeric: Mapped[Any] = mapped_column(Numeric(10, 2), nullable=True)
    moment: Mapped[Any] = mapped_column(DateTime(timezone=True), nullable=True)
    span: Mapped[Any] = mapped_column(Interval, nullable=True)
    blob: Mapped[Any] = mapped_column(LargeBinary, nullable=True)
    size: Mapped[Any] = mapped_column(EnumType(Size), nullable=True)
    string: Mapped[Any] = mapped_column(String(20), nullable=True)
    padded: Mapped[Any] = mapped_column(CHAR(5), nullable=True)
    folded: Mapped[Any] = mapped_column(String(20, collation="NOCASE").with_variant(CITEXT, "postgresql"), nullable=True)
    flag: Mapped[Any] = mapped_column(Boolean, nullable=True)
    number: Mapped[Any] = mapped_column(Integer, nullable=True)
    uid: Mapped[Any] = mapped_column(Uuid, nullable=True)
    day: Mapped[Any] = mapped_column(Date, nullable=True)
    writes: Mapped[int] = mapped_column(default=0, onupdate=text("writes + 1"))


class Native(Base):
    __tablename__ = "natives"
    id: Mapped[int] = mapped_column(primary_key=True)
    binary: Mapped[Any] = mapped_column(JSONB, nullable=True)
    insensitive: Mapped[Any] = mapped_column(Text(collation="insensitive"), nullable=True)
    citext: Mapped[Any] = mapped_column(CITEXT, nullable=True)
    array: Mapped[Any] = mapped_column(ARRAY(Integer), nullable=True)
    words: Mapped[Any] = mapped_column(ARRAY(CITEXT), nullable=True)
    address: Mapped[Any] = mapped_column(INET, nullable=True)
    writes: Mapped[int] = mapped_column(default=0, onupdate=text("writes + 1"))


class SampleService(CRUDService[Sample, BaseModel, BaseModel]): ...


class NativeService(CRUDService[Native, BaseModel, BaseModel]): ...


NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)
DIFFERENT: list[tuple[str, Any, Any]] = [
    *(("json", True, 1), ("json", 0, False), ("json", "1", 1), ("json", [1], [True]), ("json", {"a": 1}, {"a": True})),
    *(("json", {"a": None}, {}), ("json", [], None), ("json", None, [])),
    *(("binary", True, 1), ("binary", {"a": None}, {}), ("binary", [1, 2], [2, 1]), ("binary", {"a": {"b": [1]}}, {"a": {"b": [True]}})),
    *(("mutable", {"a": 1}, {"a": True}), ("vector", Array(1, 2), Array(1, 3)), ("vector", None, Array(1)), ("vector", Array(1), None)),
    *(("pickled", {"a": 1}, {"a": 2}), ("careless", "Ab", "c"), ("numeric", Decimal("1.00"), Decimal("1.01"))),
    *(("moment", NOON, NOON + timedelta(microseconds=1)), ("span", timedelta(1), timedelta(2)), ("blob", b"a", b"a\0")),
    *(("size", Size.S, Size.L), ("size", None, Size.L), ("string", "a", "A"), ("string", "a", "a "), ("string", None, "")),
    *(("string", "\u00e9", "e\u0301"), ("padded", "ab", "AB"), ("folded", "ab", "AB"), ("flag", True, False), ("flag", None, False)),
    *(("number", 1, 2), ("number", 2, True), ("uid", UUID(int=1), UUID(int=2)), ("day", date(2020, 1, 1), None)),
]
EQUAL: list[tuple[str, Any, Any]] = [
    *(("json", [1, [2, {"x": None}]], [1, [2, {"x": None}]]), ("json", {"a": 1, "b": 2}, {"b": 2, "a": 1}), ("json", None, None)),
    *(("binary", {"a": [1]}, {"a": [1]}), ("binary", None, None), ("mutable", {"a": 1}, {"a": 1}), ("vector", None, None)),
    *(("pickled", {"a": 1}, {"a": 1}), ("careless", "Ab", "aB"), ("float", 0.1, 0.1), ("float", float("inf"), float("inf"))),
    *(("float", 0.0, -0.0), ("numeric", Decimal("1.0"), Decimal("1.00")), ("moment", NOON, NOON.astimezone(timezone(timedelta(hours=5))))),
    *(("span", timedelta(days=1), timedelta(hours=24)), ("blob", b"a\0", b"a\0"), ("size", Size.S, Size.S), ("string", "a", "a")),
    *(("padded", "ab", "ab"), ("folded", "ab", "ab"), ("flag", True, True), ("number", 1, 1), ("uid", UUID(int=1), UUID(int=1))),
    *(("day", date(2020, 1, 1), date(2020, 1, 1)), ("day", None, None)),
]
NATIVE_DIFFERENT: list[tuple[str, Any, Any]] = [
    *(("binary", None, {}), ("binary", {}, None), ("binary", {"a": 1}, {"a": True}), ("insensitive", "ab", "AB"), ("citext", "ab", "AB")),
    *(("array", [1, 2], [2, 1]), ("array", [], None), ("words", ["a"], ["A"]), ("address", "1.2.3.4", "1.2.3.5")),
]
NATIVE_EQUAL: list[tuple[str, Any, Any]] = [
    *(("binary", None, None), ("binary", {"a": 1, "b": 2}, {"b": 2, "a": 1}), ("insensitive", "ab", "ab"), ("citext", "ab", "ab")),
    ("array", [1, 2], [1, 2]),
]


COLLATION = "CREATE COLLATION IF NOT EXISTS insensitive (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
for statement in ("CREATE EXTENSION IF NOT EXISTS citext", COLLATION):
    event.listen(Base.metadata, "before_create", DDL(statement))
ON_SQLITE = MetaData()
Base.metadata.tables["samples"].to_metadata(ON_SQLITE)


@pytest.fixture
async def samples(database: Database) -> AsyncIterator[AsyncSession]:
    await database.create_tables(Base.metadata if database.engine.dialect.name == "postgresql" else ON_SQLITE)
    async with database.sessions() as session:
        yield session


@pytest.fixture
async def natives(postgres_database: Database) -> AsyncIterator[AsyncSession]:
    await postgres_database.create_tables(Base.metadata)
    async with postgres_database.sessions() as session:
        yield session


async def _writes(service: CRUDService[Any, Any, Any], name: str, old: object, new: object, *, way: str) -> tuple[int, Any]:
    """Store *old*, then *new*; return how often the row was written by that, and what a new session finds."""
    session = service.session
    row = await service.create({name: old})
    if way != "held":
        session.expunge_all()
    if way == "flushed":
        event.listen(session.sync_session, "before_flush", lambda *_: None)
    updated = await service.update(row.id, {name: new})
    writes, answer = updated.writes, getattr(updated, name)
    session.expunge_all()
    stored = getattr(await service.get_one(row.id), name)
    if not isinstance(stored, Array):
        assert (type(answer), answer) == (type(stored), stored)
    return writes, stored


@pytest.mark.thorough
@pytest.mark.parametrize("way", ["held", "not held", "flushed"])
@pytest.mark.parametrize(("name", "old", "new"), DIFFERENT)
async def test_what_differs_is_stored(samples: AsyncSession, name: str, old: Any, new: Any, way: str) -> None:
    writes, stored = await _writes(SampleService(samples), name, old, new, way=way)
    assert writes == 1
    if isinstance(new, Array):
        assert stored.items == new.items
    else:
        assert (stored.rstrip() if name == "padded" else stored) == new


@pytest.mark.thorough
@pytest.mark.parametrize("way", ["held", "not held", "flushed"])
@pytest.mark.parametrize(("name", "old", "new"), EQUAL)
async def test_what_is_equal_is_not_written(samples: AsyncSession, name: str, old: Any, new: Any, way: str) -> None:
    writes, stored = await _writes(SampleService(samples), name, old, new, way=way)
    assert writes == 0
    assert (stored.rstrip() if name == "padded" else stored) == old


@pytest.mark.parametrize("way", ["held", "not held", "flushed"])
@pytest.mark.parametrize(("name", "old", "new"), NATIVE_DIFFERENT)
async def test_what_differs_in_types_of_postgresql(natives: AsyncSession, name: str, old: Any, new: Any, way: str) -> None:
    writes, stored = await _writes(NativeService(natives), name, old, new, way=way)
    assert writes == 1
    assert str(stored).removesuffix("/32") == str(new)


@pytest.mark.parametrize("way", ["held", "not held", "flushed"])
@pytest.mark.parametrize(("name", "old", "new"), NATIVE_EQUAL)
async def test_what_is_equal_in_types_of_postgresql(natives: AsyncSession, name: str, old: Any, new: Any, way: str) -> None:
    assert (await _writes(NativeService(natives), name, old, new, way=way))[0] == 0


@pytest.mark.parametrize("way", ["held", "not held"])
@pytest.mark.parametrize("type_", ["citext", "text COLLATE insensitive"])
async def test_a_collation_that_the_mapping_does_not_know(natives: AsyncSession, type_: str, way: str) -> None:
    await natives.execute(text(f"ALTER TABLE samples ALTER string TYPE {type_}"))
    await natives.commit()
    assert await _writes(SampleService(natives), "string", "ab", "AB", way=way) == (1, "AB")
    assert await _writes(SampleService(natives), "string", "ab", "ab", way=way) == (0, "ab")


async def test_a_null_of_sql_is_the_null_of_json(samples: AsyncSession, natives: AsyncSession) -> None:
    for service, name in ((SampleService(samples), "binary"), (NativeService(natives), "binary")):
        row = await service.create({})
        assert (await service.update(row.id, {name: None})).writes == 0
