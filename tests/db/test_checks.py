"""Values that a database would reject are rejected before SQL is sent."""

import enum
import gc
import weakref
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    ARRAY,
    JSON,
    REAL,
    BigInteger,
    Column,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    Identity,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    event,
    func,
    insert,
    null,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, validates
from sqlmodel.sql.sqltypes import AutoString

from fastapi_kit.db import Database, UTCDateTime
from fastapi_kit.db.checks import check_values, key_is_possible
from fastapi_kit.db.errors import as_kit_error
from fastapi_kit.errors import InvalidDataError, KitError


class Colour(enum.Enum):
    RED = "red"


class Reversed(TypeDecorator[str]):
    """A type that stores another value than it is given."""

    impl = String(3)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str:
        return (value or "abc")[::-1][:3]


class Wrapped(TypeDecorator[str]):
    """A type that stores the value that it is given."""

    impl = String(3)
    cache_ok = True


class Base(DeclarativeBase):
    pass


class Word(str):
    """A string class of the application."""


class Shout:
    """A value that only the driver of the application can store."""


def nested(levels: int) -> object:
    data: object = "a"
    for _ in range(levels):
        data = [data]
    return data


class Thing(Base):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column("full_name", String(5))
    note: Mapped[str | None] = mapped_column(Text)
    small: Mapped[int | None] = mapped_column(SmallInteger)
    number: Mapped[int | None]
    big: Mapped[int | None] = mapped_column(BigInteger)
    either: Mapped[int | None] = mapped_column(BigInteger().with_variant(Integer, "sqlite"))
    price: Mapped[Decimal | None] = mapped_column(Numeric(5, 2))
    amount: Mapped[Decimal | None] = mapped_column(Numeric)
    ratio: Mapped[float | None]
    real: Mapped[float | None] = mapped_column(REAL)
    single: Mapped[float | None] = mapped_column(Float(24))
    local: Mapped[datetime | None] = mapped_column(DateTime)
    moment: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    span: Mapped[timedelta | None] = mapped_column(Interval)
    raw: Mapped[bytes | None] = mapped_column(LargeBinary(3))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    tags: Mapped[list[str] | None] = mapped_column(ARRAY(String(3)))
    colour: Mapped[Colour] = mapped_column(Enum(Colour), default=Colour.RED)
    reversed: Mapped[str] = mapped_column(Reversed)
    wrapped: Mapped[str | None] = mapped_column(Wrapped)
    auto: Mapped[str | None] = mapped_column(AutoString(3))
    at: Mapped[datetime] = mapped_column(UTCDateTime)
    status: Mapped[str] = mapped_column(server_default="new")
    version: Mapped[int]
    kind: Mapped[str]
    clean: Mapped[str] = mapped_column(String(3))

    @validates("clean")
    def _clean(self, _: str, value: str | None) -> str:
        return (value or "")[:3]


class Versioned:
    """Mapped below, with a version and a discriminator."""


VERSIONED = Table(
    "versioned",
    Base.metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("kind", String, nullable=False),
)
Base.registry.map_imperatively(Versioned, VERSIONED, version_id_col=VERSIONED.c.version, polymorphic_on=VERSIONED.c.kind)


class Stamped(Base):
    __tablename__ = "stamped"
    id: Mapped[int] = mapped_column(primary_key=True)
    by: Mapped[str]


@event.listens_for(Stamped, "before_insert")
def _stamp(_: object, __: object, row: Stamped) -> None:
    row.by = row.by or "nobody"


def rejected(values: Mapping[str, object], *, model: type[Any] = Thing, update: bool = False) -> InvalidDataError | None:
    try:
        check_values(model.__mapper__, values, update=update)
    except InvalidDataError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"name": None}, "null"),
        ({"at": None}, "null"),
        ({"name": "abcdef"}, "too_long"),
        ({"wrapped": "abcd"}, "too_long"),
        ({"auto": "abcd"}, "too_long"),
        ({"raw": b"abcd"}, "too_long"),
        ({"tags": ["abc", "abcd"]}, "too_long"),
        ({"small": 2**15}, "out_of_range"),
        ({"number": 2**31}, "out_of_range"),
        ({"number": -(2**31) - 1}, "out_of_range"),
        ({"big": 2**63}, "out_of_range"),
        ({"either": 2**63}, "out_of_range"),
        ({"price": Decimal(1000)}, "out_of_range"),
        ({"price": Decimal("999.995")}, "out_of_range"),
        ({"price": float("inf")}, "out_of_range"),
        ({"amount": Decimal("NaN")}, "out_of_range"),
        ({"amount": Decimal("sNaN")}, "out_of_range"),
        ({"data": {"a": [1.0, float("nan")]}}, "out_of_range"),
        ({"note": "a\0b"}, "invalid_text"),
        ({"note": "é\ud800"}, "invalid_text"),
        ({"data": {"a": [{"b": "\0"}]}}, "invalid_text"),
        ({"data": {"\udfff": 1}}, "invalid_text"),
        ({"colour": "purple"}, "check"),
        ({"at": datetime.fromisoformat("2024-02-29T12:00:00")}, "naive_datetime"),
        ({"at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))}, "out_of_range"),
        ({"moment": datetime.fromisoformat("2024-02-29T12:00:00")}, "naive_datetime"),
        ({"local": datetime(2024, 2, 29, tzinfo=UTC)}, "wrong_type"),
        ({"span": timedelta.max}, "out_of_range"),
        ({"span": timedelta.min}, "out_of_range"),
        ({"name": 5}, "wrong_type"),
        ({"name": ["a"]}, "wrong_type"),
        ({"name": b"a"}, "wrong_type"),
        ({"number": 1.5}, "wrong_type"),
        ({"number": "1"}, "wrong_type"),
        ({"amount": Decimal("Infinity")}, "out_of_range"),
        ({"amount": Decimal("1e309")}, "out_of_range"),
        ({"amount": Decimal("1e-16384")}, "out_of_range"),
        ({"price": Decimal("1e-16384")}, "out_of_range"),
        ({"ratio": float("nan")}, "out_of_range"),
        ({"ratio": Decimal("sNaN")}, "out_of_range"),
        ({"ratio": 10**400}, "out_of_range"),
        ({"real": 3.5e38}, "out_of_range"),
        ({"single": -3.5e38}, "out_of_range"),
        ({"data": nested(100)}, "too_deep"),
    ],
)
def test_rejected(values: dict[str, object], reason: str) -> None:
    """A value beyond the limits of its column raises InvalidDataError with attribute, table and reason, before any SQL."""
    error = rejected(values)

    assert error is not None
    assert (error.fields, error.reason, error.table) == (tuple(values), reason, "things")


@pytest.mark.parametrize(
    "values",
    [
        {"id": None, "note": None, "data": None},
        {"name": "éèêëē", "note": "any 😀 length" * 999},
        {"small": 2**15 - 1, "number": -(2**31), "big": 2**63 - 1, "either": 2**40},
        {"price": Decimal("999.99"), "amount": Decimal("1e308"), "ratio": float("inf"), "real": 3.4e38, "single": float("-inf")},
        {"local": datetime.fromisoformat("2024-02-29T12:00:00"), "moment": datetime(2024, 2, 29, tzinfo=UTC), "span": timedelta(days=9)},
        {"name": Word("abc"), "data": nested(99)},
        {"price": 999, "number": True},
        {"raw": b"abc", "tags": ["abc", "de"], "data": [{"a": "ü", "b": [None, 1.5]}], "wrapped": "abc"},
        {"colour": "RED", "at": datetime(2024, 2, 29, tzinfo=UTC)},
        {"colour": Colour.RED, "reversed": None},
        {"reversed": "far too long", "clean": "cut to its length"},
        {"name": func.lower("ABCDEF"), "number": Thing.number + 1, "kind": null()},
        {"unknown": None, "name": Shout()},
    ],
)
def test_passed(values: dict[str, object]) -> None:
    """Values that the databases accept, and values that only they can check, pass."""
    assert rejected(values) is None


def test_every_field_with_the_first_reason() -> None:
    """All fields with the first reason are named."""
    error = rejected({"small": 10**9, "name": None, "note": "\0", "version": None})

    assert error is not None
    assert (error.fields, error.reason) == (("name", "version"), "null")


def test_defaults_do_not_help_an_update() -> None:
    """None for a NOT NULL column is rejected in an update, even if the column has a default."""
    error = rejected({"colour": None, "status": None, "note": None, "data": None}, update=True)

    assert error is not None
    assert error.fields == ("colour", "status")


def test_columns_that_sqlalchemy_fills_in() -> None:
    """None is accepted for an identity, a version or a discriminator of a new row."""
    assert rejected({"id": None, "version": None, "kind": None}, model=Versioned) is None


def test_listeners_may_fill_in() -> None:
    """With a before_insert listener None is left to the database."""
    assert rejected({"by": None}, model=Stamped) is None
    assert rejected({"by": "\0"}, model=Stamped) is not None


def test_nested_data_that_contains_itself() -> None:
    """Deep, shared and circular JSON data are checked without an endless loop."""
    circular: list[object] = []
    circular.append(circular)
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]

    shared: object = "a"
    for _ in range(99):
        shared = [shared, shared]

    assert rejected({"data": circular}) is None
    assert rejected({"data": shared}) is None
    error = rejected({"data": deep})
    assert error is not None
    assert error.reason == "too_deep"


@pytest.mark.parametrize(
    ("type_", "value", "possible"),
    [
        (Integer(), 2**31, False),
        (Integer(), -5, True),
        (BigInteger(), 2**31, True),
        (BigInteger(), 10**20, False),
        (String(3), "abcd", False),
        (Text(), "a\0", False),
        (Text(), "\ud800", False),
        (Text(), "abc", True),
        (Reversed(), "abcd", True),
    ],
)
def test_possible_keys(type_: Any, value: object, possible: bool) -> None:
    """A key that no row can have is found without SQL."""
    assert key_is_possible(Column("key", type_), value) is possible


def test_sqlite_keys_have_64_bits() -> None:
    """On SQLite a key may have 64 bits, whatever the type of its column is."""
    assert key_is_possible(Column("key", Integer), 2**40, dialect="sqlite")
    assert not key_is_possible(Column("key", Integer), 2**63, dialect="sqlite")


LIMITS = MetaData()
COLUMNS: dict[str, Any] = {
    "name": String(5),
    "small": SmallInteger,
    "number": Integer,
    "big": BigInteger,
    "price": Numeric(5, 2),
    "colour": Enum(Colour),
}


class Limited(Base):
    __table__ = Table(
        "limited",
        LIMITS,
        Column("id", Integer, primary_key=True),
        Column("of", ForeignKey("limited.id")),
        *(Column(name, type_) for name, type_ in COLUMNS.items()),
    )


VALUES = [
    *({"name": name} for name in ("abcde", "abcdef", "é" * 5, "a\0", "\ud800", "😀")),
    *({"small": number} for number in (2**15 - 1, 2**15, -(2**15), -(2**15) - 1)),
    *({"number": number} for number in (2**31 - 1, 2**31)),
    *({"big": number} for number in (2**63 - 1, 2**63)),
    *({"price": Decimal(price)} for price in ("999.99", "999.994", "999.995", "-999.995", "1000", "Infinity")),
    *({"colour": colour} for colour in ("RED", "PURPLE")),
]


@pytest.mark.parametrize("values", VALUES)
async def test_as_postgresql_would(postgres_database: Database, values: dict[str, object]) -> None:
    """The checks reject exactly what PostgreSQL rejects, with the same fields and reason."""
    await postgres_database.create_tables(LIMITS)
    error: KitError | None = None
    try:
        async with postgres_database.engine.begin() as connection:
            await connection.execute(insert(Limited.__table__).values(values))
    except Exception as failure:
        error = as_kit_error(failure, mapper=Limited.__mapper__)

    assert said(rejected(values, model=Limited)) == said(error)


def said(error: KitError | None) -> object:
    return (error.fields, error.reason, error.table) if isinstance(error, InvalidDataError) else error


async def test_sqlite_would_store_it(sqlite_database: Database) -> None:
    """SQLite would store text that is too long; the check rejects it on both databases."""
    async with sqlite_database.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE limited (id INTEGER PRIMARY KEY, name VARCHAR(5))"))
        await connection.execute(text("INSERT INTO limited (name) VALUES ('far too long')"))

    assert rejected({"name": "far too long"}, model=Limited) is not None


def test_mappers_are_not_kept_alive() -> None:
    """The cached checks of a mapper do not keep it alive."""

    def use_a_mapper() -> Any:
        class Local(DeclarativeBase):
            pass

        class Row(Local):
            __tablename__ = "rows"
            id: Mapped[int] = mapped_column(primary_key=True)

        assert rejected({"id": 2**31}, model=Row) is not None
        return weakref.ref(Row.__mapper__)

    mapper = use_a_mapper()
    gc.collect()

    assert mapper() is None
