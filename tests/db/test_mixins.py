"""The mixins on five kinds of base and two databases."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum as PythonEnum
from typing import Any, ClassVar
from uuid import UUID

import pytest
from sqlalchemy import (
    CheckConstraint,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    Numeric,
    UniqueConstraint,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, declarative_base, mapped_column, registry
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.types import Boolean
from sqlmodel import Field, SQLModel

from fastapi_kit.db import NAMING_CONVENTION, Base, Database, TimestampMixin, UTCDateTime, UUIDv7Mixin, VersionMixin
from fastapi_kit.db.types import ServerNow, utc_now

LONG_AGO = datetime(2001, 9, 9, 1, 46, 40, 123456, tzinfo=UTC)


class Note(TimestampMixin, UUIDv7Mixin):
    """The columns of a note, for each base."""

    __tablename__ = "notes"
    title: Mapped[str]


class Page(VersionMixin):
    """The columns of a page, for each base."""

    __tablename__ = "pages"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


class OfTheKit(Base):
    __abstract__ = True
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class KitNote(Note, OfTheKit): ...


class KitPage(Page, OfTheKit): ...


class DeclarativeOwn(DeclarativeBase): ...


class DeclarativeNote(Note, DeclarativeOwn): ...


class DeclarativePage(Page, DeclarativeOwn): ...


made_base: Any = declarative_base()


class MadeNote(Note, made_base): ...


class MadePage(Page, made_base): ...


own_registry = registry()


@own_registry.mapped
class DecoratedNote(Note): ...


@own_registry.mapped
class DecoratedPage(Page): ...


class DataclassOwn(MappedAsDataclass, DeclarativeBase): ...


class DataclassNote(TimestampMixin, UUIDv7Mixin, DataclassOwn):
    __tablename__ = "notes"
    title: Mapped[str]


class DataclassPage(VersionMixin, DataclassOwn):
    __tablename__ = "pages"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    title: Mapped[str]


class SQLModelOwn(SQLModel, registry=registry()):
    metadata = MetaData()


class SQLModelNote(TimestampMixin, UUIDv7Mixin, SQLModelOwn, table=True):
    __tablename__ = "notes"
    title: str = Field(index=True)


class SQLModelPage(VersionMixin, SQLModelOwn, table=True):
    __tablename__ = "pages"
    id: int | None = Field(default=None, primary_key=True)
    title: str


EVERY_VERSIONED = pytest.mark.parametrize(
    "page_class", [KitPage, DeclarativePage, MadePage, DataclassPage, SQLModelPage, DecoratedPage], indirect=True
)
EVERY_BASE = pytest.mark.parametrize(
    "note_class", [KitNote, DeclarativeNote, MadeNote, DataclassNote, SQLModelNote, DecoratedNote], indirect=True
)


@pytest.fixture
async def note_class(request: pytest.FixtureRequest, database: Database) -> type[Any]:
    """A model over one kind of base, its table created."""
    note_class: type[Any] = request.param
    await create_tables(database, note_class.__table__.metadata)
    return note_class


@pytest.fixture
async def page_class(request: pytest.FixtureRequest, database: Database) -> type[Any]:
    """A model with a version over one kind of base, its table created."""
    page_class: type[Any] = request.param
    await create_tables(database, page_class.__table__.metadata)
    return page_class


async def create_tables(database: Database, metadata: MetaData) -> None:
    async with database.engine.begin() as connection:
        await connection.run_sync(metadata.create_all)


async def create_old(database: Database, note_class: type[Any]) -> UUID:
    """Store an old note and return its key."""
    async with database.sessions.begin() as session:
        statement = insert(note_class).values(title="old", created_at=LONG_AGO).returning(note_class.id)
        return await session.scalar(statement)


@EVERY_BASE
async def test_an_insert_fills_key_and_stamps(database: Database, note_class: type[Any]) -> None:
    """A flush gives an object its key and two equal aware stamps, readable without IO on every kind of base."""
    async with database.sessions() as session:
        note = note_class(title="new")
        session.add(note)
        await session.commit()

        assert note.id.version == 7
        assert note.created_at == note.updated_at
        assert note.created_at.tzinfo is UTC
        assert abs(utc_now() - note.created_at) < timedelta(minutes=1)


@EVERY_BASE
async def test_the_stamps_read_back_as_written(database: Database, note_class: type[Any]) -> None:
    """Another session reads the stamps to the microsecond, in UTC."""
    async with database.sessions() as session:
        note = note_class(title="new")
        session.add(note)
        await session.commit()

    async with database.sessions() as session:
        stored = await session.get_one(note_class, note.id)
        assert (stored.created_at, stored.updated_at) == (note.created_at, note.updated_at)
        assert stored.updated_at.tzinfo is UTC


@EVERY_BASE
async def test_a_flushed_change_advances_updated_at(database: Database, note_class: type[Any]) -> None:
    """A changed object has its new stamp after the commit, without IO; created_at stays."""
    key = await create_old(database, note_class)

    async with database.sessions() as session:
        note = await session.get_one(note_class, key)
        note.title = "changed"
        await session.commit()

        assert note.updated_at > LONG_AGO
        assert note.created_at == LONG_AGO


@EVERY_BASE
async def test_an_equal_value_leaves_updated_at(database: Database, note_class: type[Any]) -> None:
    """Writing the value that is stored changes nothing."""
    key = await create_old(database, note_class)

    async with database.sessions() as session:
        note = await session.get_one(note_class, key)
        note.title = "old"
        await session.commit()
        await session.refresh(note)

        assert note.updated_at == LONG_AGO


@EVERY_BASE
async def test_a_bulk_update_advances_updated_at(database: Database, note_class: type[Any]) -> None:
    """An ORM update() statement moves the stamp of every row it touches."""
    key = await create_old(database, note_class)

    async with database.sessions.begin() as session:
        await session.execute(update(note_class).values(title="changed"))

    async with database.sessions() as session:
        note = await session.get_one(note_class, key)
        assert note.updated_at > LONG_AGO
        assert note.created_at == LONG_AGO


@EVERY_BASE
async def test_a_bulk_update_by_key_advances_updated_at(database: Database, note_class: type[Any]) -> None:
    """An update of many rows by primary key moves their stamps too."""
    key = await create_old(database, note_class)

    async with database.sessions.begin() as session:
        await session.execute(update(note_class), [{"id": key, "title": "changed"}])

    async with database.sessions() as session:
        assert (await session.get_one(note_class, key)).updated_at > LONG_AGO


@EVERY_BASE
async def test_a_core_update_advances_updated_at(database: Database, note_class: type[Any]) -> None:
    """A Core update of the table moves the stamp."""
    key = await create_old(database, note_class)
    table = note_class.__table__

    async with database.engine.begin() as connection:
        await connection.execute(update(table).where(table.c.id == key).values(title="changed"))
        stamp = await connection.scalar(select(table.c.updated_at))

    assert stamp > LONG_AGO


@EVERY_BASE
async def test_a_raw_insert_gets_stamps_from_the_server(database: Database, note_class: type[Any]) -> None:
    """A row that another program inserts has aware stamps that compare with those from Python."""
    await create_old(database, note_class)
    key = UUID(int=7)
    raw = key if database.engine.dialect.name == "postgresql" else key.hex
    async with database.engine.begin() as connection:
        await connection.execute(text("INSERT INTO notes (id, title) VALUES (:id, 'raw')"), {"id": raw})

    async with database.sessions() as session:
        note = await session.get_one(note_class, key)
        newest = await session.scalar(select(note_class.title).order_by(note_class.created_at.desc()).limit(1))

    assert note.created_at.tzinfo is UTC
    assert abs(utc_now() - note.created_at) < timedelta(minutes=1)
    assert newest == "raw"


@EVERY_BASE
@pytest.mark.parametrize("first", [{"title": "a"}, {"title": "a", "created_at": LONG_AGO}], ids=["made", "given"])
async def test_each_row_of_a_values_list_has_equal_stamps(database: Database, note_class: type[Any], first: dict[str, Any]) -> None:
    """created_at and updated_at are equal in each row of an INSERT with many rows, given or not."""
    second = {"title": "b", "created_at": LONG_AGO + timedelta(days=1)} if "created_at" in first else {"title": "b"}

    async with database.sessions.begin() as session:
        await session.execute(insert(note_class).values([first, second]))

    async with database.sessions() as session:
        rows = (await session.execute(select(note_class.created_at, note_class.updated_at, note_class.id))).all()
    assert [created == updated for created, updated, _ in rows] == [True, True]
    assert len({key for *_, key in rows}) == 2


@EVERY_BASE
async def test_a_bulk_insert_has_equal_stamps_and_growing_keys(database: Database, note_class: type[Any]) -> None:
    """Rows inserted by executemany get stamps and keys of their own, the keys in the order given."""
    async with database.sessions.begin() as session:
        await session.execute(insert(note_class), [{"title": f"{number:03}"} for number in range(300)])

    async with database.sessions() as session:
        by_key = list(await session.scalars(select(note_class.title).order_by(note_class.id)))
        unequal = await session.scalar(select(func.count()).where(note_class.created_at != note_class.updated_at))

    assert by_key == sorted(by_key)
    assert unequal == 0


async def test_created_at_as_an_expression_is_no_obstacle(database: Database) -> None:
    """If created_at is a SQL expression, updated_at is the time in Python."""
    await create_tables(database, KitNote.metadata)

    async with database.sessions.begin() as session:
        await session.execute(insert(KitNote).values(title="x", created_at=ServerNow()))
        note = await session.scalar(select(KitNote))

    assert note is not None
    assert abs(note.created_at - note.updated_at) < timedelta(minutes=1)


@pytest.mark.parametrize("model", [KitNote, DeclarativeNote, MadeNote, DataclassNote, SQLModelNote, DecoratedNote])
def test_key_first_and_stamps_last(model: type[Any]) -> None:
    """With every base the columns are id, the model's own, then the timestamps."""
    assert model.__table__.columns.keys() == ["id", "title", "created_at", "updated_at"]


def test_a_dataclass_model_takes_its_own_fields_only() -> None:
    """The mixins add nothing to the constructor of a dataclass model."""
    assert DataclassNote("new") == DataclassNote(title="new")
    with pytest.raises(TypeError):
        DataclassNote("new", created_at=LONG_AGO)


def test_a_given_key_is_kept() -> None:
    """A given key is used."""
    assert DeclarativeNote(id=UUID(int=1), title="x").id == UUID(int=1)


# --- The base ---


class OrderBase(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


SIZE = Enum("small", "large", name="size", native_enum=False, create_constraint=True)


class Order(OrderBase):
    """Has constraints of every kind, with and without a name."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("orders.id"))
    sku: Mapped[str] = mapped_column(unique=True)
    place: Mapped[str] = mapped_column(index=True)
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    number: Mapped[int] = mapped_column(CheckConstraint("number <> 13"))
    ordered: Mapped[str] = mapped_column(SIZE)
    sent: Mapped[str] = mapped_column(SIZE)
    paid: Mapped[bool] = mapped_column(Boolean(create_constraint=True))
    __table_args__ = (
        UniqueConstraint("parent_id", "place"),
        Index(None, "place", "sku"),
        CheckConstraint("price < 100", name="cheap"),
        CheckConstraint("number > 0"),
        CheckConstraint(number > -10),
        CheckConstraint(number > -20),
    )


def constraint_names(table: Any) -> set[str]:
    """Return the names, without that of the Boolean, which gets one when it is created."""
    on_columns = [constraint for column in table.columns for constraint in column.constraints]
    return {str(item.name) for item in [*table.constraints, *table.indexes, *on_columns] if not isinstance(item.name, PythonEnum)}


async def test_every_constraint_is_named(database: Database) -> None:
    """Keys, uniques, indexes, references and checks get names that a migration can drop again, unnamed CHECKs by their condition."""
    await create_tables(database, OrderBase.metadata)

    assert constraint_names(Order.__table__) == {
        "pk_orders",
        "fk_orders_parent_id_orders",
        "uq_orders_sku",
        "uq_orders_parent_id_place",
        "ix_orders_place",
        "ix_orders_place_sku",
        "ck_orders_cheap",
        "ck_orders_2cc22ff6",
        "ck_orders_74ebb687",
        "ck_orders_number_3020944c",
        "ck_orders_number_cadc7529",
        "ck_orders_ordered",
        "ck_orders_sent",
    }


async def test_types_that_check_themselves_are_named_by_their_column(database: Database) -> None:
    """The checks of two Enums and a Boolean have different names."""
    await create_tables(database, OrderBase.metadata)

    async with database.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            found = await connection.scalars(
                text("SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid = 'orders'::regclass ORDER BY conname")
            )
            assert {"ck_orders_ordered", "ck_orders_sent"} <= set(found)
        else:
            ddl = await connection.scalar(text("SELECT sql FROM sqlite_master WHERE name = 'orders'"))
            assert all(f"ck_orders_{column} " in ddl for column in ("ordered", "sent", "paid"))


def test_a_datetime_of_the_base_is_aware() -> None:
    """``Mapped[datetime]`` on Base is a UTCDateTime column."""

    class Visit(Base):
        __tablename__ = "visits_of_test_mixins"
        id: Mapped[int] = mapped_column(primary_key=True)
        at: Mapped[datetime]
        until: Mapped[datetime | None]

    assert isinstance(Visit.__table__.c.at.type, UTCDateTime)
    assert isinstance(Visit.__table__.c.until.type, UTCDateTime)
    assert Visit.__table__.c.until.nullable
    Base.metadata.remove(Visit.__table__)


async def create_page(database: Database, page_class: type[Any]) -> int:
    """Store a page, and return its key."""
    async with database.sessions.begin() as session:
        page = page_class(title="old")
        session.add(page)
        await session.flush()
        return int(page.id)


@EVERY_VERSIONED
async def test_every_change_raises_the_version(database: Database, page_class: type[Any]) -> None:
    """A flush, an ORM update(), one by key and a Core update raise the version by one; a change to the same value does not."""
    key = await create_page(database, page_class)
    table = page_class.__table__

    async def version() -> int:
        async with database.sessions() as session:
            return (await session.get_one(page_class, key)).version

    assert await version() == 1
    for title, expected in (("flushed", 2), ("flushed", 2)):
        async with database.sessions.begin() as session:
            (await session.get_one(page_class, key)).title = title
        assert await version() == expected
    async with database.sessions.begin() as session:
        await session.execute(update(page_class).values(title="bulk"))
    assert await version() == 3
    async with database.engine.begin() as connection:
        await connection.execute(update(table).where(table.c.id == key).values(title="core"))
    assert await version() == 4


@EVERY_VERSIONED
async def test_a_row_of_two_sessions_is_written_once(database: Database, page_class: type[Any]) -> None:
    """The flush of an object whose row another session has changed raises StaleDataError."""
    key = await create_page(database, page_class)

    async with database.sessions() as session:
        page = await session.get_one(page_class, key)
        await session.commit()
        async with database.sessions.begin() as other:
            (await other.get_one(page_class, key)).title = "other"
        page.title = "lost"
        with pytest.raises(StaleDataError):
            await session.commit()


async def test_versions_are_counted_beside_mapper_arguments(database: Database) -> None:
    """A model with __mapper_args__ of its own counts versions all the same, and its subclasses do; an own counter stays."""

    class VersionBase(DeclarativeBase): ...

    class Animal(VersionMixin, VersionBase):
        __tablename__ = "animals"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}

    class Dog(Animal):
        __tablename__ = "dogs"
        id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)
        bark: Mapped[str]
        __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "dog"}

    class Own(VersionMixin, VersionBase):
        __tablename__ = "own"
        id: Mapped[int] = mapped_column(primary_key=True)
        edition: Mapped[int] = mapped_column()
        __mapper_args__: ClassVar[dict[str, Any]] = {"version_id_col": edition}

    await create_tables(database, VersionBase.metadata)
    async with database.sessions() as session:
        dog = Dog(bark="wuff")
        session.add(dog)
        await session.commit()
        dog.bark = "wow"
        await session.commit()

        assert dog.version == 2
        assert Own.__mapper__.version_id_col is Own.__table__.c.edition
