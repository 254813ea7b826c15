"""A write returns what is stored, whatever the mapping is; listeners are called; loaded objects stay the same objects."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel
from sqlalchemy import (
    CHAR,
    REAL,
    Column,
    Computed,
    DateTime,
    ForeignKey,
    Identity,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    event,
    func,
    inspect,
    join,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    column_property,
    mapped_column,
    relationship,
    selectinload,
    undefer,
)
from tests.crud.kinds import KindsBase, Point, Ticket
from tests.tables.library import LibraryBase, Shelf
from tests.tables.names import NamesBase, Validated
from tests.tables.zoo import Animal, Cat, Dog, ZooBase

from fastapi_kit.crud import CRUDService
from fastapi_kit.db import Database
from fastapi_kit.errors import ConflictError, StaleVersionError


class Base(DeclarativeBase):
    metadata = MetaData()


class Measured(Base):
    """The database rounds, pads, cuts, computes and renames its values."""

    __tablename__ = "Measured Things"
    id: Mapped[int] = mapped_column("Id", primary_key=True)
    exact: Mapped[Decimal] = mapped_column("Exact Number", Numeric(6, 2))
    real: Mapped[float] = mapped_column(REAL)
    padded: Mapped[str] = mapped_column(CHAR(5))
    moment: Mapped[datetime] = mapped_column(DateTime().with_variant(TIMESTAMP(precision=0), "postgresql"))
    seven: Mapped[int] = mapped_column(server_default="7")
    double: Mapped[int] = mapped_column(Computed("seven * 2", persisted=True))
    changed: Mapped[int | None] = mapped_column(default=None, onupdate=lambda: 5)
    changed_there: Mapped[str | None] = mapped_column(onupdate=func.upper("x"))
    made_there: Mapped[str | None] = mapped_column(default=func.lower("ABC"))
    late: Mapped[str | None] = mapped_column(String(50), deferred=True)

    @hybrid_property
    def eight(self) -> int:
        return self.seven + 1

    @eight.inplace.setter
    def _set_eight(self, value: int) -> None:
        self.seven = value - 1


class Summed(Base):
    __tablename__ = "summed"
    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column()
    other: Mapped[int] = mapped_column()
    total: Mapped[int] = column_property(value + other)


class Doubling(Base):
    __table__ = Summed.__table__
    value: Mapped[int]
    other: Mapped[int]

    def __init__(self, value: int) -> None:
        self.value, self.other = value, value * 2


class Counted(Base):
    __tablename__ = "counted"
    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int]
    version: Mapped[int] = mapped_column()
    __mapper_args__: ClassVar = {"version_id_col": version}


class Tenfold(Base):
    __table__ = Counted.__table__
    __mapper_args__: ClassVar = {
        "version_id_col": Counted.__table__.c.version,
        "version_id_generator": lambda version: (version or 0) + 10,
    }


class Marked(Base):
    __tablename__ = "marked"
    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int]
    version: Mapped[str] = mapped_column(String(32))
    __mapper_args__: ClassVar = {"version_id_col": version, "version_id_generator": lambda _: uuid.uuid4().hex}


class Coded(Base):
    __tablename__ = "coded"
    code: Mapped[str] = mapped_column(CHAR(6), primary_key=True)
    value: Mapped[int]


class Numbered(Base):
    __tablename__ = "numbered"
    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    value: Mapped[int]


_upper = Table("upper_half", Base.metadata, Column("id", Integer, primary_key=True), Column("value", Integer))
_lower = Table("lower_half", Base.metadata, Column("id", ForeignKey("upper_half.id"), primary_key=True), Column("other", Integer))


class Joined(Base):
    __table__ = join(_upper, _lower)
    id = column_property(_upper.c.id, _lower.c.id)


class Triggered(Base):
    """Its triggers run after the statement, so RETURNING does not show their changes."""

    __tablename__ = "triggered"
    __table_args__: ClassVar = {"implicit_returning": False}
    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[str]


class Parent(Base):
    __tablename__ = "parents"
    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[str]
    other: Mapped[str | None]
    late: Mapped[str | None] = mapped_column(deferred=True)
    children: Mapped[list["Child"]] = relationship(back_populates="parent")


class Child(Base):
    __tablename__ = "children"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("parents.id"))
    parent: Mapped[Parent | None] = relationship(back_populates="children")


def _service(model: type[Any]) -> type[CRUDService[Any, BaseModel, BaseModel]]:
    class Service(CRUDService[model, BaseModel, BaseModel]):  # type: ignore[valid-type]
        pass

    return Service


@pytest.fixture
async def filled(database: Database) -> Database:
    for metadata in (Base.metadata, KindsBase.metadata, LibraryBase.metadata, NamesBase.metadata, ZooBase.metadata):
        await database.create_tables(metadata)
    return database


@asynccontextmanager
async def _session(database: Database) -> AsyncIterator[AsyncSession]:
    async with asynccontextmanager(database.get_session)() as session:
        yield session


def _loaded(row: object) -> dict[str, Any]:
    state = inspect(row, raiseerr=True)
    return {attribute.key: state.dict[attribute.key] for attribute in state.mapper.column_attrs if attribute.key in state.dict}


async def _stored(database: Database, model: type[Any], key: object) -> dict[str, Any]:
    async with _session(database) as session:
        return _loaded(await _service(model)(session).get_one(key, options=[undefer("*")]))


_MOMENT = datetime.fromisoformat("2020-01-01T01:01:01.600000")
_THING = {"exact": Decimal("1.239"), "real": 0.1, "padded": "ab", "moment": _MOMENT}


@pytest.mark.thorough
@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(
    ("model", "values", "changes"),
    [
        (Measured, _THING, {"exact": Decimal("2.239")}),
        (Measured, _THING, {"padded": "x", "real": 0.7, "moment": _MOMENT.replace(year=2021)}),
        (Measured, {**_THING, "eight": 9}, {"eight": 100}),
        (Measured, {**_THING, "late": "a"}, {"late": "b"}),
        (Measured, _THING, {"seven": text("4")}),
        (Summed, {"value": 1, "other": 2}, {"value": 5}),
        (Counted, {"value": 1}, {"value": 2}),
        (Tenfold, {"value": 1}, {"value": 2}),
        (Marked, {"value": 1}, {"value": 2}),
        (Animal, {"name": "x"}, {"name": "y"}),
        (Dog, {"name": "x", "bark": "w"}, {"name": "y", "bark": "v"}),
        (Cat, {"name": "x", "lives": 7}, {"name": "y", "lives": 6}),
        (Point, {"x": 1}, {"y": 9}),
        (Doubling, {"value": 3}, {"value": 4}),
        (Validated, {"name": "ABC"}, {"name": "DEF"}),
        (Coded, {"code": "Z", "value": 1}, {"value": 2}),
        (Shelf, {"room": 1, "number": 2, "label": "a"}, {"label": "b"}),
        (Numbered, {"value": 1}, {"value": 2}),
        (Ticket, {"name": "a"}, {"name": "b"}),
        (Joined, {"value": 1, "other": 2}, {"value": 3, "other": 4}),
        (Triggered, {"value": "a"}, {"value": "b"}),
    ],
)
async def test_a_write_answers_as_the_next_read(filled: Database, model: type[Any], values: Any, changes: Any, many: bool) -> None:
    async with _session(filled) as session:
        service = _service(model)(session)
        row = (await service.create_many([values]))[0] if many else await service.create(values)
        key = inspect(row).identity
        stored = await _stored(filled, model, key)
        assert {name: stored[name] for name in _loaded(row)} == _loaded(row)
        undeferred = {attribute.key for attribute in inspect(model).column_attrs if not attribute.deferred}
        assert undeferred | (values.keys() & stored.keys()) <= _loaded(row).keys()
        assert await service.update(key, changes) is row
        stored = await _stored(filled, model, key)
        assert {name: stored[name] for name in _loaded(row)} == _loaded(row)
    async with _session(filled) as session:
        service = _service(model)(session)
        unchanged = await service.update(key, {name: stored.get(name, value) for name, value in changes.items()})
        assert await _stored(filled, model, key) == stored
        assert {name: stored[name] for name in _loaded(unchanged)} == _loaded(unchanged)
        await service.delete(key)
        assert await service.get(key) is None


@pytest.mark.parametrize("model", [Triggered, Parent])
async def test_what_triggers_change_is_returned(filled: Database, model: type[Any]) -> None:
    """Changes of PostgreSQL's BEFORE triggers are on the returned row; those of other triggers with implicit_returning=False."""
    table = model.__tablename__
    async with filled.engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            when, change = ("AFTER", f"UPDATE {table} SET value = upper(value) WHERE value <> upper(value);")
            if model is Parent:
                when, change = ("BEFORE", "NEW.value = upper(NEW.value);")
            await connection.execute(text(f"CREATE FUNCTION up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {change} RETURN NEW; END $$"))
            await connection.execute(text(f"CREATE TRIGGER t {when} INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION up()"))
        elif model is Parent:
            pytest.skip("SQLite has no trigger that changes the new row")
        else:
            for verb in ("INSERT", "UPDATE"):
                change = f"UPDATE {table} SET value = upper(value) WHERE id = NEW.id"
                await connection.exec_driver_sql(
                    f"CREATE TRIGGER t{verb} AFTER {verb} ON {table} WHEN NEW.value <> upper(NEW.value) BEGIN {change}; END"
                )
    async with _session(filled) as session:
        service = _service(model)(session)
        row = await service.create({"value": "a"})
        assert row.value == "A"
        assert (await service.update(row.id, {"value": "b"})).value == "B"
        assert [each.value for each in await service.create_many([{"value": "c"}, {"value": "d"}])] == ["C", "D"]


@pytest.mark.parametrize("change", [{"value": "bad"}, {"value": "bad", "children": []}])
async def test_a_trigger_that_swallows_a_change(filled: Database, change: dict[str, Any]) -> None:
    async with filled.engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            body = "IF NEW.value = 'bad' THEN RETURN NULL; END IF; RETURN NEW;"
            await connection.execute(text(f"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$"))
            await connection.execute(text("CREATE TRIGGER t BEFORE UPDATE ON parents FOR EACH ROW EXECUTE FUNCTION f()"))
        else:
            ignore = "BEGIN SELECT RAISE(IGNORE); END"
            await connection.exec_driver_sql(f"CREATE TRIGGER t BEFORE UPDATE ON parents WHEN NEW.value = 'bad' {ignore}")
    async with _session(filled) as session:
        service = _service(Parent)(session)
        row = await service.create({"value": "good"})
        with pytest.raises(ConflictError):
            await service.update(row.id, change)
        assert (await service.get_one(row.id)).value == "good"


@pytest.mark.filterwarnings("ignore:DELETE statement on table")
@pytest.mark.parametrize("model", [Parent, Counted])
async def test_a_trigger_that_drops_a_delete(filled: Database, model: type[Any]) -> None:
    """A delete that a trigger drops raises ConflictError, by a flush and by a statement."""
    table = model.__tablename__
    async with filled.engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            await connection.execute(text("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$"))
            await connection.execute(text(f"CREATE TRIGGER t BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION f()"))
        else:
            await connection.exec_driver_sql(f"CREATE TRIGGER t BEFORE DELETE ON {table} BEGIN SELECT RAISE(IGNORE); END")
    async with _session(filled) as session:
        service = _service(model)(session)
        row = await service.create({"value": "1" if model is Parent else 1})
        with pytest.raises(ConflictError):
            await service.delete(row.id)
        assert await service.count() == 1


@pytest.mark.parametrize(
    "name", ["before_insert", "after_insert", "before_update", "after_update", "before_delete", "after_delete", "init", "refresh"]
)
async def test_listeners_of_the_model_are_called(filled: Database, name: str) -> None:
    called: list[object] = []

    def listener(*arguments: object) -> None:
        called.append(arguments)

    event.listen(Parent, name, listener)
    try:
        async with _session(filled) as session:
            service = _service(Parent)(session)
            row = await service.create({"value": "a"})
            await service.update(row.id, {"value": "b"})
            await service.delete(row.id)
    finally:
        event.remove(Parent, name, listener)
    assert called


@pytest.mark.parametrize("name", ["before_flush", "after_flush", "transient_to_pending", "persistent_to_deleted", "do_orm_execute"])
async def test_listeners_of_the_session_are_called(filled: Database, name: str) -> None:
    called: list[object] = []
    async with _session(filled) as session:
        event.listen(session.sync_session, name, lambda *arguments: called.append(arguments))
        service = _service(Counted)(session)
        row = await service.create({"value": 1})
        await service.update(row.id, {"value": 2})
        await service.delete(row.id)
    assert called


async def test_a_held_object_stays_itself(filled: Database) -> None:
    async with _session(filled) as session:
        key = (await _service(Parent)(session).create({"value": "a", "late": "l"})).id
        child = await _service(Child)(session).create({"parent_id": key})
    async with _session(filled) as session:
        service = _service(Parent)(session)
        row = await service.get_one(key, options=[selectinload(Parent.children), undefer(Parent.late)])
        children = row.children
        async with _session(filled) as other:
            await other.execute(update(Parent).values(other="theirs", late="later"))
            await other.commit()
        assert await service.update(key, {"value": "b"}) is row
        assert row.children is children
        assert (row.value, row.other, row.late) == ("b", "theirs", "later")
        assert not session.dirty
        mine = next(iter(children))
        await _service(Child)(session).update(child.id, {"parent_id": None})
        assert mine.parent_id is None
        assert "parent" not in vars(mine)


@pytest.mark.parametrize("flushes", [False, True])
async def test_a_deferred_column_is_compared_and_shown_as_it_is_now(filled: Database, flushes: bool) -> None:
    async with _session(filled) as session:
        key = (await _service(Parent)(session).create({"value": "a", "late": "old"})).id
    async with _session(filled) as session:
        service = _service(Parent)(session)
        if flushes:
            event.listen(session.sync_session, "before_flush", lambda *_: None)
        held = await service.get_one(key, options=[undefer(Parent.late)])
        for read_again in (True, False):
            async with _session(filled) as other:
                await other.execute(update(Parent).values(late="theirs"))
                await other.commit()
            if read_again:
                assert (await service.get_one(key)).late == "theirs"
            assert await service.update(key, {"late": "old"}) is held
            assert held.late == "old"
            assert (await _stored(filled, Parent, key))["late"] == "old"
    async with _session(filled) as session:
        assert vars(await _service(Parent)(session).update(key, {"late": "new"}))["late"] == "new"
        assert vars(await _service(Parent)(session).update(key, {"late": "new"}))["late"] == "new"


@pytest.mark.thorough
@pytest.mark.parametrize("expected", [0, -1, 2**40, 2**70, 7])
@pytest.mark.parametrize("changes", [{"value": 5}, {"value": 1}, {}])
async def test_versions_that_no_row_has(filled: Database, expected: int, changes: dict[str, Any]) -> None:
    async with _session(filled) as session:
        service = _service(Counted)(session)
        row = await service.create({"value": 1})
        with pytest.raises(StaleVersionError):
            await service.update(row.id, changes, expected_version=expected)
        with pytest.raises(StaleVersionError):
            await service.delete(row.id, expected_version=expected)
        assert (await service.get_one(row.id)).version == 1


async def test_translated_schemas(postgres_database: Database) -> None:
    async with postgres_database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text("CREATE SCHEMA other"))
        await connection.execute(text("CREATE TABLE other.counted (LIKE public.counted INCLUDING ALL)"))
    engine = postgres_database.engine.execution_options(schema_translate_map={None: "other"})
    async with async_sessionmaker(engine, expire_on_commit=False)() as session:
        service = _service(Counted)(session)
        row = await service.create({"value": 1})
        await service.update(row.id, {"value": 2})
        await service.create_many([{"value": 3}, {"value": 4}])
        await service.delete(row.id)
        assert await service.count() == 2
    async with _session(postgres_database) as session:
        assert await _service(Counted)(session).count() == 0
