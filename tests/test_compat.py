"""Each private name of other packages, and each difference between versions, tried alone on the lowest and the newest version."""

import gc
import inspect as python_inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from traceback import walk_tb
from types import CodeType
from typing import Annotated, Any
from uuid import UUID

import pytest
from asyncpg import DivisionByZeroError
from fastapi import Depends, FastAPI
from pydantic import BaseModel, TypeAdapter
from sqlalchemy import URL, Enum, Integer, Uuid, create_engine, event, func, insert, literal_column, select, text
from sqlalchemy import inspect as orm_inspect
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    Session,
    contains_eager,
    joinedload,
    selectinload,
    with_loader_criteria,
)
from sqlalchemy.pool import StaticPool
from sqlalchemy.types import NullType, TypeEngine
from sqlalchemy.util import await_only, greenlet_spawn
from tests.tables.houses import Guest, House, HouseBase, Room
from tests.versions import distinct_on

from fastapi_kit import _compat, _compat_web
from fastapi_kit._compat import (
    AWAITING,
    BY_PLACE,
    binds_of,
    code_of_dependency,
    connect_errors,
    criteria_options,
    demands_unique,
    discard_clean,
    emulated_cause,
    froms_of,
    has_begin_listener,
    has_sent_sql,
    is_clean,
    is_running,
    is_ungrouped,
    limits_rows,
    loads_from_joins,
    mark_deleted,
    mark_inserted,
    mark_updated,
    options_of,
    options_of_session,
    order_of,
    own_isolation_level,
    plain_criteria,
    put_back,
    python_type,
    refresh_row,
    validator_of,
)
from fastapi_kit._compat_web import new_app
from fastapi_kit.testing import app_client


@pytest.fixture
def session() -> Iterator[Session]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    HouseBase.metadata.create_all(engine)
    with Session(engine, expire_on_commit=False) as session:
        session.add_all([House(id=1, name="one", data={"n": 1}, rooms=[Room(name="a"), Room(name="b")]), House(id=2, name="two")])
        session.commit()
        session.expunge_all()
        yield session
    engine.dispose()


def test_every_name_is_tried() -> None:
    """A new one needs a test here."""
    source = python_inspect.getsource(python_inspect.getmodule(test_every_name_is_tried) or HouseBase)
    assert [name for name in _compat.__all__ + _compat_web.__all__ if source.count(name) < 2] == []


def test_binds_of(session: Session) -> None:
    other = create_engine("sqlite://")
    assert binds_of(session) == [session.bind]
    assert set(binds_of(Session(binds={House: other}))) == {other}
    assert set(binds_of(Session(session.bind, binds={Room: other}))) == {session.bind, other}
    assert binds_of(Session()) == []


def test_has_sent_sql(session: Session) -> None:
    with session.begin() as transaction:
        assert not has_sent_sql(transaction)
        session.add(House(name="new"))
        assert not has_sent_sql(transaction)
        session.flush()
        assert has_sent_sql(transaction)


def test_is_clean(session: Session) -> None:
    house = session.get_one(House, 1)
    assert is_clean(session)
    house.name = "changed"
    assert not is_clean(session)
    session.rollback()
    session.add(House(name="new"))
    assert not is_clean(session)
    session.rollback()
    session.delete(session.get_one(House, 2))
    assert not is_clean(session)


def loaded(session: Session) -> House:
    return session.scalars(select(House).where(House.id == 1).options(selectinload(House.rooms))).one()


def test_discard_and_put_back_in_a_rollback(session: Session) -> None:
    """What was not touched is not expired; what was written is."""
    house, other = loaded(session), session.get_one(House, 2)
    other.name = "changed"
    session.flush()
    event.listen(session, "after_rollback", lambda _: kept.extend(discard_clean(session)))
    kept: list[object] = []
    session.rollback()
    assert house not in session.identity_map.values()
    put_back(session, kept)

    assert session.get(House, 1) is house
    assert {"name", "rooms", "data"} <= vars(house).keys()
    assert "name" not in vars(other)
    assert other.name == "two"
    house.name = "later"
    session.commit()
    assert session.scalar(select(House.name).where(House.id == 1)) == "later"


@pytest.mark.parametrize("is_nested", [True, False])
def test_discard_gives_back_what_was_loaded(session: Session, is_nested: bool) -> None:
    """References, collections in their order, write-only ones; a value whose old one is unknown is expired; deletions are taken back."""
    house, other = loaded(session), session.get_one(House, 2)
    first, second = collection = house.rooms
    transaction = session.begin_nested() if is_nested else session.get_transaction()
    assert transaction is not None
    with session.no_autoflush:
        house.name = "undone"
        house.data["n"] = 2
        house.rooms.remove(first)
        house.rooms.append(Room(name="undone"))
        house.guests.add(Guest(name="undone"))
        second.house = other
        session.delete(other)
    kept = discard_clean(session)
    transaction.rollback()
    put_back(session, kept)

    assert (house.name, list(house.rooms)) == ("one", [first, second])
    assert house.rooms is collection
    assert (first.house, second.house) == (house, house)
    assert "data" not in vars(house)
    assert house.data == {"n": 1}
    assert (list(session.dirty), list(session.new), list(session.deleted)) == ([], [], [])
    house.data["n"], first.name = 3, "kept"
    session.commit()
    session.expunge_all()
    again = loaded(session)
    assert (again.data, [room.name for room in again.rooms]) == ({"n": 3}, ["kept", "b"])
    assert session.scalar(select(func.count()).select_from(Guest)) == 0
    assert session.get(House, 2) is not None


def test_put_back_leaves_what_is_not_the_sessions(session: Session) -> None:
    house, other = loaded(session), session.get_one(House, 2)
    kept = discard_clean(session)
    again = session.get_one(House, 2)
    session.expunge(again)
    put_back(session, kept)

    assert session.get(House, 1) is house
    assert session.get(House, 2) in {other, again}
    del kept, house
    gc.collect()
    assert session.identity_map.get(orm_inspect(House).identity_key_from_primary_key((1,))) is None


def test_mark_inserted(session: Session) -> None:
    """A rollback makes it transient."""
    row = session.scalars(insert(House).values(name="new", data={}).returning(House)).one()
    mark_inserted(session, [row])
    session.rollback()
    assert orm_inspect(row).transient


def test_mark_updated(session: Session) -> None:
    """Also a savepoint's rollback expires it."""
    house = loaded(session)
    with session.begin_nested() as savepoint:
        refresh_row(house, {"name": "changed"})
        mark_updated(session, house)
        savepoint.rollback()
    assert "name" not in vars(house)


def test_mark_deleted(session: Session) -> None:
    """It is in the session again after a rollback, and leaves it with the commit."""
    room = session.get_one(Room, 1)
    mark_deleted(session, room)
    assert orm_inspect(room).deleted
    session.rollback()
    assert orm_inspect(room).persistent
    session.begin()
    mark_deleted(session, room)
    session.expire_on_commit = True
    session.commit()
    assert orm_inspect(room).detached


def test_refresh_row(session: Session) -> None:
    """Nothing is dirty, and a mutable value tells its row of a change."""
    house = loaded(session)
    refresh_row(house, {"name": "new", "data": MutableDict({"n": 5})})
    assert (house.name, house.data, list(session.dirty)) == ("new", {"n": 5}, [])
    house.data["n"] = 6
    assert house in session.dirty


def test_has_begin_listener() -> None:
    engine = create_engine("sqlite://")
    assert not has_begin_listener(engine)
    event.listen(engine, "begin", lambda _: None)
    assert has_begin_listener(engine)


def test_own_isolation_level() -> None:
    assert own_isolation_level(create_engine("sqlite://")) is None
    assert own_isolation_level(create_engine("sqlite://", isolation_level="SERIALIZABLE")) == "SERIALIZABLE"
    assert own_isolation_level(create_engine("sqlite://", execution_options={"isolation_level": "AUTOCOMMIT"})) == "AUTOCOMMIT"
    assert own_isolation_level(create_engine("sqlite://").execution_options(isolation_level="AUTOCOMMIT")) == "AUTOCOMMIT"


def test_options_of_a_statement() -> None:
    load, criteria = selectinload(House.rooms), with_loader_criteria(House, House.id > 0)
    statement = select(House).options(load, criteria)
    assert list(options_of(statement)) == [load, criteria]
    assert list(criteria_options(statement)) == [criteria]


def test_loads_from_joins() -> None:
    assert loads_from_joins([contains_eager(Room.house)])
    assert loads_from_joins([joinedload(House.rooms), contains_eager(House.rooms).joinedload(Room.house)])
    assert not loads_from_joins([joinedload(House.rooms), selectinload(House.rooms).joinedload(Room.house)])
    assert not loads_from_joins([with_loader_criteria(House, House.id > 0)])


def test_order_of() -> None:
    assert [str(each) for each in order_of(select(House).order_by(House.name, House.id.desc()))] == ["houses.name", "houses.id DESC"]
    assert not order_of(select(House).order_by(House.name).order_by(None))


def test_froms_of() -> None:
    assert list(froms_of(House.name)) == [House.__table__]
    assert set(froms_of(House.id == Room.house_id)) == {House.__table__, Room.__table__}
    assert not froms_of(literal_column("1"))


def test_is_ungrouped() -> None:
    plain = select(House).where(House.id > 0).order_by(House.id).limit(1)
    assert is_ungrouped(plain)
    for grouped in (plain.distinct(), distinct_on(plain, House.id), plain.group_by(House.id), plain.having(House.id > 0)):
        assert not is_ungrouped(grouped)


def test_plain_criteria() -> None:
    mapper = orm_inspect(House)
    where = House.id > 0
    found = plain_criteria(select(House).where(where).order_by(House.id).options(selectinload(House.rooms)), mapper)
    assert found is not None
    assert [str(each) for each in found] == [str(where)]
    assert plain_criteria(select(House), mapper) == ()
    plain = select(House)
    for more in (
        *(plain.join(House.rooms), plain.select_from(Room), plain.group_by(House.id), plain.having(House.id > 0), plain.distinct()),
        *(plain.prefix_with("ALL"), plain.limit(1), plain.offset(1), plain.with_for_update(), plain.add_columns(Room.id)),
        *(plain.where(Room.id > 0), plain.add_cte(select(Room.id).cte()), distinct_on(plain, House.id)),
    ):
        assert plain_criteria(more, mapper) is None


def test_limits_rows() -> None:
    every = select(House).where(House.id > 1).order_by(House.id)
    assert not limits_rows(every)
    assert not limits_rows(every.distinct())
    for some in (every.limit(1), every.offset(1), every.fetch(1), distinct_on(every, House.id)):
        assert limits_rows(some)


def test_demands_unique(session: Session) -> None:
    assert demands_unique(session.execute(select(House).options(joinedload(House.rooms))))
    assert not demands_unique(session.execute(select(House).options(selectinload(House.rooms))))
    assert not demands_unique(session.execute(select(House.id)))


def test_by_place(session: Session) -> None:
    """The rows are the same. A statement from the cache keeps the names of the first one, so it need not make its own."""
    connection = session.connection()
    plain, by_place = (
        [connection.execute(select(House.id, House.name), execution_options=options) for _ in "ab"] for options in ({}, BY_PLACE)
    )
    assert by_place[1].all() == plain[1].all()
    assert by_place[1]._metadata is by_place[0]._metadata
    assert plain[1]._metadata is not plain[0]._metadata


def test_options_of_session(session: Session) -> None:
    assert dict(options_of_session(session)) == {}
    if "execution_options" in python_inspect.signature(Session).parameters:
        assert dict(options_of_session(Session(execution_options={"stream_results": True}))) == {"stream_results": True}


@pytest.mark.parametrize(
    ("sql_type", "expected"), [(Integer(), int), (Uuid(), UUID), (INET(), None), (Enum("a", "b"), str), (NullType(), None)], ids=repr
)
def test_python_type(sql_type: TypeEngine[Any], expected: type[Any] | None) -> None:
    assert python_type(sql_type) is expected


async def test_emulated_cause(postgres_url: URL) -> None:
    """asyncpg's own error is inside SQLAlchemy's."""
    engine = create_async_engine(postgres_url)
    with pytest.raises(DBAPIError) as caught:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1/0"))
    await engine.dispose()
    assert caught.value.orig is not None
    assert isinstance(emulated_cause(caught.value.orig), DivisionByZeroError)
    assert emulated_cause(DivisionByZeroError()) is None


async def test_connect_errors(postgres_url: URL) -> None:
    """A connection that cannot be made raises SQLAlchemy's error, or one of these."""
    engine = create_async_engine(postgres_url.set(database="no_such_database"))
    with pytest.raises((DBAPIError, *connect_errors())):
        await engine.connect()
    await engine.dispose()


async def test_awaiting() -> None:
    assert AWAITING.startswith("sqlalchemy.util.")
    with pytest.raises(ZeroDivisionError) as caught:
        await greenlet_spawn(lambda: await_only(divide()))
    modules = [frame.f_globals["__name__"] for frame, _ in walk_tb(caught.value.__traceback__)]
    assert {name for name in modules if name.startswith("sqlalchemy.")} == {AWAITING}


async def divide() -> float:
    return 1 / 0


def test_validator_of() -> None:
    """The schema itself is used, not the validator of the class in it."""
    assert validator_of(TypeAdapter(list[int]).core_schema).validate_python(["1"]) == [1]


def test_validator_of_a_part() -> None:
    """A class that has another validator gets one for some of its fields, and keeps its own."""

    class Both(BaseModel):
        a: int
        b: int

    core: Any = Both.__pydantic_core_schema__
    fields = core["schema"]["fields"]
    part = {**core, "schema": {**core["schema"], "fields": {"a": fields["a"]}}}

    assert validator_of(part, part_of=Both).validate_python({"a": 1, "b": 2}).__dict__ == {"a": 1}
    assert Both.model_validate({"a": 1, "b": 2}).__dict__ == {"a": 1, "b": 2}
    assert Both.__pydantic_complete__


def test_new_app() -> None:
    """Telemetry is passed on where FastAPI has it; an unknown argument is an error everywhere."""
    app = new_app({"title": "Notes"}, telemetry={"operation_spans": False})
    assert app.title == "Notes"
    for unknown in ("titel", "extra", "self"):
        with pytest.raises(TypeError, match=unknown):
            new_app({unknown: "x"}, telemetry={})


@asynccontextmanager
async def note_code() -> AsyncIterator[CodeType | None]:
    yield code_of_dependency()


async def test_code_of_dependency() -> None:
    """It is the code of the dependency whose block is open while the route runs, at any depth; None in a block of the route."""

    @asynccontextmanager
    async def helper() -> AsyncIterator[CodeType | None]:
        async with note_code() as code:
            yield code

    async def get_code() -> AsyncIterator[CodeType | None]:
        async with helper() as code:
            assert code is not None
            assert is_running(code)
            yield code

    async def get_own_code() -> CodeType | None:
        async with note_code() as code:
            return code

    app = FastAPI()

    @app.get("/")
    async def read(
        mine: Annotated[CodeType, Depends(get_code, use_cache=False)], own: Annotated[CodeType | None, Depends(get_own_code)]
    ) -> bool:
        async with helper() as here:
            return mine is get_code.__code__ and not is_running(mine) and own is here is None

    async with app_client(app) as client:
        assert (await client.get("/")).json() is True


def test_is_running() -> None:
    """A function is running in everything that it calls."""

    def outer() -> bool:
        return is_running(outer.__code__)

    assert outer()
    assert not is_running(outer.__code__)
