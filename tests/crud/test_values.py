"""Conversion of the values of a schema's fields to what the columns take."""

import dataclasses
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from pydantic import (
    BaseModel,
    Field,
    HttpUrl,
    IPvAnyAddress,
    NameEmail,
    PostgresDsn,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    create_model,
)
from sqlalchemy import ARRAY, JSON, DateTime, Dialect, ForeignKey, Integer, LargeBinary, MetaData, String, TypeDecorator, Uuid
from sqlalchemy import Enum as EnumType
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, composite, mapped_column, relationship, synonym
from sqlalchemy.types import UserDefinedType

from fastapi_kit.crud import CRUDService
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, InvalidDataError


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Address(BaseModel):
    street: str = "High St"
    since: datetime = datetime(2020, 1, 1, tzinfo=UTC)
    note: str = Field("n", exclude=True)

    @cached_property
    def label(self) -> str:
        return self.street.upper()


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Pair(NamedTuple):
    first: int
    second: date


class _OfModels(TypeDecorator[Address]):
    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Address | None, dialect: Dialect) -> Any:
        return None if value is None else {"street": value.street}

    def process_result_value(self, value: Any, dialect: Dialect) -> Address | None:
        return None if value is None else Address(**value)


class _Shouted(UserDefinedType[Any]):
    """A column type of the application, which stores members of Colour as text."""

    cache_ok = True

    def get_col_spec(self) -> str:
        return "TEXT"

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        return lambda member: None if member is None else member.name


class Base(DeclarativeBase):
    metadata = MetaData()


class Thing(Base):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[Any] = mapped_column(String(100), nullable=True)
    number: Mapped[Any] = mapped_column(Integer, nullable=True)
    blob: Mapped[Any] = mapped_column(LargeBinary, nullable=True)
    document: Mapped[Any] = mapped_column(JSON, nullable=True)
    binary: Mapped[Any] = mapped_column(JSON().with_variant(JSONB, "postgresql"), nullable=True)
    mutable: Mapped[Any] = mapped_column(MutableDict.as_mutable(JSON()), nullable=True)
    address: Mapped[Any] = mapped_column(_OfModels, nullable=True)
    shouted: Mapped[Any] = mapped_column(_Shouted, nullable=True)
    word: Mapped[Any] = mapped_column(EnumType("red", "blue", name="words"), nullable=True)
    colour: Mapped[Any] = mapped_column(EnumType(Colour), nullable=True)
    uid: Mapped[Any] = mapped_column(Uuid, nullable=True)
    x: Mapped[int] = mapped_column(default=0)
    y: Mapped[int] = mapped_column(default=0)
    point: Mapped[Point] = composite(Point, "x", "y")
    alias = synonym("text")
    second_alias = synonym("alias")
    updated_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), default=lambda: datetime.now(UTC), onupdate=lambda: datetime.now(UTC)
    )
    stamp = synonym("updated_at")
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("things.id"))
    owner: Mapped["Thing | None"] = relationship(remote_side=[id])
    _hash: Mapped[str | None] = mapped_column("hash")

    def _get_password(self) -> str | None:
        return self._hash

    def _set_password(self, password: str) -> None:
        self._hash = f"hash of {password}"

    password = synonym("_hash", descriptor=property(_get_password, _set_password))


class Listed(Base):
    __tablename__ = "listed"
    id: Mapped[int] = mapped_column(primary_key=True)
    texts: Mapped[Any] = mapped_column(ARRAY(String), nullable=True)
    grid: Mapped[Any] = mapped_column(ARRAY(String, dimensions=2), nullable=True)
    numbers: Mapped[Any] = mapped_column(ARRAY(Integer), nullable=True)
    documents: Mapped[Any] = mapped_column(ARRAY(JSONB), nullable=True)


class ThingService(CRUDService[Thing, BaseModel, BaseModel]):
    read_only: ClassVar = ("text", "x", "owner_id")


class FreeThings(CRUDService[Thing, BaseModel, BaseModel]): ...


class ListedService(CRUDService[Listed, BaseModel, BaseModel]): ...


ON_BOTH = MetaData()
"""The table that SQLite can have, too."""
Base.metadata.tables["things"].to_metadata(ON_BOTH)


@pytest.fixture
async def things(database: Database) -> AsyncIterator[AsyncSession]:
    await database.create_tables(ON_BOTH)
    async with asynccontextmanager(database.get_session)() as session:
        yield session


@pytest.fixture
async def lists(postgres_database: Database) -> AsyncIterator[AsyncSession]:
    await postgres_database.create_tables(Base.metadata)
    async with asynccontextmanager(postgres_database.get_session)() as session:
        yield session


def _schema(name: str, kind: Any, value: object) -> BaseModel:
    fields: dict[str, Any] = {name: (kind, ...)}
    return create_model("Data", **fields).model_validate({name: value})


_ADDRESS = {"street": "High St", "since": "2020-01-01T00:00:00Z", "note": "n"}
_UID = uuid.UUID(int=7)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("kind", "value", "stored"),
    [
        (Address, Address(), _ADDRESS),
        (dict[str, Address], {"home": Address()}, {"home": _ADDRESS}),
        (dict[str, dict[str, list[Address]]], {"a": {"b": [Address()]}}, {"a": {"b": [_ADDRESS]}}),
        (dict[date, int], {date(2020, 1, 2): 1}, {"2020-01-02": 1}),
        (dict[Colour, set[int]], {Colour.RED: {1}}, {"red": [1]}),
        (dict[str, Pair], {"p": Pair(1, date(2020, 1, 1))}, {"p": [1, "2020-01-01"]}),
        (dict[str, Point], {"p": Point(1, 2)}, {"p": {"x": 1, "y": 2}}),
        (RootModel[dict[str, Address]], {"home": Address()}, {"home": _ADDRESS}),
        (dict[str, Decimal | uuid.UUID], {"d": Decimal("1.50"), "u": _UID}, {"d": "1.50", "u": str(_UID)}),
        (dict[str, NameEmail], {"n": "Ann <ann@example.com>"}, {"n": "Ann <ann@example.com>"}),
        (dict[str, PostgresDsn], {"n": "postgresql://a@b/c"}, {"n": "postgresql://a@b/c"}),
        (dict[str, deque[Address]], {"q": [Address()]}, {"q": [_ADDRESS]}),
        (dict[str, Iterable[int]], {"q": [1, 2]}, {"q": [1, 2]}),
    ],
)
@pytest.mark.parametrize("column", ["document", "binary", "mutable"])
async def test_documents_hold_models_whole(things: AsyncSession, column: str, kind: Any, value: object, stored: object) -> None:
    row = await FreeThings(things).create(_schema(column, kind, value))
    assert getattr(row, column) == stored
    changed = await FreeThings(things).update(row.id, _schema(column, kind, value))
    assert getattr(changed, column) == stored


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("column", "kind", "value", "stored"),
    [
        ("text", HttpUrl, "http://a.b/", "http://a.b/"),
        ("text", NameEmail, "Ann <ann@example.com>", "Ann <ann@example.com>"),
        ("text", IPvAnyAddress, "1.2.3.4", "1.2.3.4"),
        ("text", Path, "/tmp/x", "/tmp/x"),
        ("text", uuid.UUID, _UID, str(_UID)),
        ("text", Colour, "red", "red"),
        ("text", RootModel[HttpUrl], "http://a.b/", "http://a.b/"),
        ("alias", HttpUrl, "http://a.b/", "http://a.b/"),
        ("second_alias", uuid.UUID, _UID, str(_UID)),
        ("number", Level, 1, 1),
        ("number", RootModel[int], 4, 4),
        ("word", Colour, "red", "red"),
        ("colour", Colour, "red", Colour.RED),
        ("uid", uuid.UUID, _UID, _UID),
        ("address", Address, Address(street="Low St"), Address(street="Low St")),
        ("shouted", Colour, "red", "RED"),
        ("point", Point, {"x": 1, "y": 2}, Point(1, 2)),
    ],
)
async def test_rich_types_fit_their_columns(things: AsyncSession, column: str, kind: Any, value: object, stored: object) -> None:
    row = await FreeThings(things).create(_schema(column, kind, value))
    things.expunge_all()
    assert getattr(await FreeThings(things).get_one(row.id), column) == stored
    assert getattr(await FreeThings(things).update(row.id, _schema(column, kind, value)), column) == stored


@pytest.mark.parametrize(
    ("column", "kind", "value", "stored"),
    [
        ("texts", set[str], {"a"}, ["a"]),
        ("texts", list[HttpUrl], ["http://a.b/"], ["http://a.b/"]),
        ("texts", tuple[Colour, ...], ["red"], ["red"]),
        ("texts", list[uuid.UUID | None], [_UID, None], [str(_UID), None]),
        ("texts", RootModel[list[str]], ["a"], ["a"]),
        ("grid", list[list[HttpUrl]], [["http://a.b/"]], [["http://a.b/"]]),
        ("numbers", frozenset[Level], [1], [1]),
        ("documents", list[Address], [Address()], [_ADDRESS]),
    ],
)
async def test_items_of_arrays_are_converted(lists: AsyncSession, column: str, kind: Any, value: object, stored: object) -> None:
    row = await ListedService(lists).create(_schema(column, kind, value))
    assert getattr(row, column) == stored
    assert getattr(await ListedService(lists).update(row.id, _schema(column, kind, value)), column) == stored


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("column", "kind", "value"),
    [
        ("text", SecretStr, "hunter2"),
        ("alias", SecretStr, "hunter2"),
        ("text", Secret[str], "hunter2"),
        ("blob", SecretBytes, b"hunter2"),
        ("number", Secret[int], 2),
        ("word", SecretStr, "red"),
        ("colour", SecretStr, "red"),
        ("document", SecretStr, "hunter2"),
        ("document", dict[str, list[SecretStr]], {"a": ["hunter2"]}),
        ("document", deque[SecretStr], ["hunter2"]),
        ("document", Iterable[SecretStr], ["hunter2"]),
        ("document", dict[SecretStr, int], {SecretStr("hunter2"): 1}),
        ("mutable", dict[str, SecretBytes], {"a": b"hunter2"}),
        ("text", Address, Address()),
        ("text", Point, {"x": 1, "y": 2}),
        ("number", Address, Address()),
        ("uid", Address, Address()),
        ("point", Address, Address()),
    ],
)
async def test_what_can_never_fit_is_a_mistake_in_the_code(things: AsyncSession, column: str, kind: Any, value: object) -> None:
    row = await FreeThings(things).create({})
    names = rf"Thing\.{'text' if column == 'alias' else column}"
    with pytest.raises(ConfigurationError, match=names) as created:
        await FreeThings(things).create(_schema(column, kind, value))
    with pytest.raises(ConfigurationError, match=names):
        await FreeThings(things).update(row.id, _schema(column, kind, value))
    assert "hunter2" not in str(created.value)
    assert await FreeThings(things).count() == 1


@pytest.mark.parametrize(("kind", "value"), [(list[SecretStr], ["hunter2"]), (list[Address], [Address()])])
async def test_what_can_never_fit_an_array(lists: AsyncSession, kind: Any, value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"Listed\.texts"):
        await ListedService(lists).create(_schema("texts", kind, value))


async def test_a_cached_property_is_no_value(things: AsyncSession) -> None:
    class Data(BaseModel):
        text: str
        document: Address

        @cached_property
        def slug(self) -> str:
            return self.text.lower()

    data = Data(text="A", document=Address())
    assert (data.slug, data.document.label) == ("a", "HIGH ST")
    row = await FreeThings(things).create(data)
    assert row.document == _ADDRESS


async def test_a_synonym_with_code_of_its_own_is_set_by_that_code(things: AsyncSession) -> None:
    row = await FreeThings(things).create(_schema("password", str, "a"))
    assert row._hash == "hash of a"
    assert (await FreeThings(things).update(row.id, _schema("password", str, "b")))._hash == "hash of b"
    assert (await FreeThings(things).update(row.id, {"password": "c"}))._hash == "hash of c"


@pytest.mark.parametrize("name", ["text", "alias", "second_alias", "x", "point", "owner", "owner_id", "updated_at", "stamp"])
async def test_read_only_holds_by_whatever_name(things: AsyncSession, name: str) -> None:
    owner = Thing()
    things.add(owner)
    await things.commit()
    row = await ThingService(things).create({})
    value = {
        "x": 3,
        "point": Point(4, 5),
        "owner": owner,
        "owner_id": owner.id,
        "updated_at": datetime.now(UTC),
        "stamp": datetime.now(UTC),
    }
    with pytest.raises(InvalidDataError) as rejected:
        await ThingService(things).update(row.id, {name: value.get(name, "new")})
    assert (rejected.value.reason, list(rejected.value.fields)) == ("read_only", [name])
    await ThingService(things).update(row.id, {name: value.get(name, "new")}, trusted=True)


async def test_the_key_behind_a_synonym_stays(things: AsyncSession) -> None:
    row = await ThingService(things).create({})
    with pytest.raises(ConfigurationError, match="cannot be changed"):
        await ThingService(things).update(row.id, {"id": 9}, trusted=True)
