"""The mixins on five kinds of base and two databases."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
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
from sqlalchemy.types import Boolean
from sqlmodel import Field, SQLModel

from fastapi_kit.db import NAMING_CONVENTION, Base, Database, TimestampMixin, UTCDateTime, UUIDv7Mixin
from fastapi_kit.db.types import ServerNow, utc_now

LONG_AGO = datetime(2001, 9, 9, 1, 46, 40, 123456, tzinfo=UTC)


class OfTheKit(Base):
    __abstract__ = True
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class KitNote(TimestampMixin, UUIDv7Mixin, OfTheKit):
    __tablename__ = "notes"
    title: Mapped[str]


class DeclarativeOwn(DeclarativeBase): ...


class DeclarativeNote(TimestampMixin, UUIDv7Mixin, DeclarativeOwn):
    __tablename__ = "notes"
    title: Mapped[str]


made_base: Any = declarative_base()


class MadeNote(TimestampMixin, UUIDv7Mixin, made_base):
    __tablename__ = "notes"
    title: Mapped[str]


class DataclassOwn(MappedAsDataclass, DeclarativeBase): ...


class DataclassNote(TimestampMixin, UUIDv7Mixin, DataclassOwn):
    __tablename__ = "notes"
    title: Mapped[str]


class SQLModelOwn(SQLModel, registry=registry()):
    metadata = MetaData()


class SQLModelNote(TimestampMixin, UUIDv7Mixin, SQLModelOwn, table=True):
    __tablename__ = "notes"
    title: str = Field(index=True)


own_registry = registry()


@own_registry.mapped
class DecoratedNote(TimestampMixin, UUIDv7Mixin):
    __tablename__ = "notes"
    title: Mapped[str]


EVERY_BASE = pytest.mark.parametrize(
    "note_class", [KitNote, DeclarativeNote, MadeNote, DataclassNote, SQLModelNote, DecoratedNote], indirect=True
)


@pytest.fixture
async def note_class(request: pytest.FixtureRequest, database: Database) -> type[Any]:
    """A model over one kind of base, its table created."""
    note_class: type[Any] = request.param
    await create_tables(database, note_class.__table__.metadata)
    return note_class


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


def constraint_names(metadata: MetaData) -> set[str]:
    table = metadata.tables["orders"]
    on_columns = [constraint for column in table.columns for constraint in column.constraints]
    return {str(item.name) for item in [*table.constraints, *table.indexes, *on_columns]}


def test_every_constraint_is_named() -> None:
    """Keys, uniques, indexes, references and checks, named or not, get names that a migration can drop again."""

    class OwnBase(DeclarativeBase):
        metadata = MetaData(naming_convention=NAMING_CONVENTION)

    class Order(OwnBase):
        __tablename__ = "orders"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int | None] = mapped_column(ForeignKey("orders.id"))
        sku: Mapped[str] = mapped_column(unique=True)
        place: Mapped[str] = mapped_column(index=True)
        price: Mapped[Decimal] = mapped_column(Numeric(10, 2))
        __table_args__ = (
            UniqueConstraint("parent_id", "place"),
            CheckConstraint("price < 100", name="cheap"),
            Index(None, "place", "sku"),
        )

    assert constraint_names(OwnBase.metadata) == {
        "pk_orders",
        "fk_orders_parent_id_orders",
        "uq_orders_sku",
        "uq_orders_parent_id_place",
        "ix_orders_place",
        "ix_orders_place_sku",
        "ck_orders_cheap",
    }


async def test_checks_without_a_name_get_one(database: Database) -> None:
    """Unnamed CHECKs get different names, by their condition, which stay the same."""

    class OwnBase(DeclarativeBase):
        metadata = MetaData(naming_convention=NAMING_CONVENTION)

    class Order(OwnBase):
        __tablename__ = "orders"
        id: Mapped[int] = mapped_column(primary_key=True)
        price: Mapped[int] = mapped_column(CheckConstraint("price <> 13"))
        __table_args__ = (CheckConstraint("price > 0"), CheckConstraint(price > -10), CheckConstraint(price > -20))

    await create_tables(database, OwnBase.metadata)

    assert constraint_names(OwnBase.metadata) - {"pk_orders"} == {
        "ck_orders_d49d734b",
        "ck_orders_4e21a66b",
        "ck_orders_price_d07d3dd1",
        "ck_orders_price_20081220",
    }


async def test_types_that_check_themselves_are_named_by_their_column(database: Database) -> None:
    """The checks of two Enums and a Boolean have different names."""

    class OwnBase(DeclarativeBase):
        metadata = MetaData(naming_convention=NAMING_CONVENTION)

    size = Enum("small", "large", name="size", native_enum=False, create_constraint=True)

    class Order(OwnBase):
        __tablename__ = "orders"
        id: Mapped[int] = mapped_column(primary_key=True)
        ordered: Mapped[str] = mapped_column(size)
        sent: Mapped[str] = mapped_column(size)
        paid: Mapped[bool] = mapped_column(Boolean(create_constraint=True))

    await create_tables(database, OwnBase.metadata)

    async with database.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            found = await connection.scalars(
                text("SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid = 'orders'::regclass ORDER BY conname")
            )
            assert list(found) == ["ck_orders_ordered", "ck_orders_sent"]
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
