"""What a rejected or undone write leaves in memory: everything that was loaded stays, and nothing that was undone."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from sqlalchemy import event, func, inspect, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import (
    selectinload,
)
from sqlalchemy.orm.session import JoinTransactionMode
from tests.tables.houses import City, Door, Floor, Guest, House, HouseBase, Key, Lease, Letter, Nest, Plant, Point, Room, Tree
from tests.thorough import FULL, few

from fastapi_kit.crud import CRUDService
from fastapi_kit.db import Database, unit_of_work
from fastapi_kit.db.transactions import typed_errors
from fastapi_kit.errors import ConflictError, StillReferencedError, UnavailableError, UnknownReferenceError


class Anything(BaseModel): ...


class Cities(CRUDService[City, Anything, Anything]): ...


class Houses(CRUDService[House, Anything, Anything]): ...


class Trees(CRUDService[Tree, Anything, Anything]): ...


class Leases(CRUDService[Lease, Anything, Anything]): ...


@pytest.fixture(autouse=True)
def quick_collections() -> None:
    """Keep garbage collections short: objects of other tests are not looked at."""
    gc.freeze()


@pytest.fixture
async def street(database: Database) -> Database:
    """Two houses, one with everything, and two trees."""
    await database.create_tables(HouseBase.metadata)
    async with database.begin() as session:
        full = House(name="full", note="old", data={"n": 1}, tags=["a"], at=Point(1, 2))
        full.rooms = [Room(name="r1"), Room(name="r2"), Room(name="r3")]
        full.doors = {Door(name="d1"), Door(name="d2")}
        full.keys = {"k1": Key(name="k1"), "k2": Key(name="k2")}
        full.floors = [Floor(name="f1"), Floor(name="f2"), Floor(name="f3")]
        full.guests.add(Guest(name="g1"))
        full.letters.append(Letter(name="l1"))
        full.annexes = [House(name="annex")]
        session.add_all([City(id=1, name="one"), City(id=2, name="two"), Tree(name="oak", height=3), Tree(name="elm")])
        await session.flush()
        full.city_id = 1
        session.add_all([full, Nest(tree_id=1)])
    return database


@asynccontextmanager
async def request_session(database: Database) -> AsyncIterator[AsyncSession]:
    """A session of a ``Database`` that is rolled back at the end."""
    async with database.sessions() as session:
        yield session
        await session.rollback()


LOADED = [House.annexes, House.rooms, House.seen_rooms, House.doors, House.keys, House.floors, House.parent]


class Held:
    """A house with everything that it has loaded, and a copy of that."""

    def __init__(self, house: House, trees: list[Tree]) -> None:
        self.house, self.trees = house, trees
        self.collections, self.shown = self.loaded_collections(), self.show()

    @classmethod
    async def load(cls, session: AsyncSession) -> "Held":
        found = await session.scalars(select(House).where(House.name == "full").options(*map(selectinload, LOADED)))
        house = found.one()
        return cls(house, list(await session.scalars(select(Tree).order_by(Tree.id))))

    def loaded_collections(self) -> dict[str, int]:
        return {attribute.key: id(vars(self.house)[attribute.key]) for attribute in LOADED}

    def show(self) -> list[object]:
        house = self.house
        return [
            *(house.name, house.note, dict(house.data), list(house.tags), (house.at.x, house.at.y), house.parent),
            *([room.name for room in house.rooms], [room.name for room in house.seen_rooms], sorted(door.name for door in house.doors)),
            *({name: key.name for name, key in house.keys.items()}, [(floor.name, floor.position) for floor in house.floors]),
            *([annex.name for annex in house.annexes], [(tree.name, tree.height) for tree in self.trees]),
        ]

    async def check(self, session: AsyncSession) -> None:
        """Check that everything is readable without SQL, nothing is pending, and the identity map is consistent."""
        gc.collect()
        assert self.show() == self.shown
        assert self.loaded_collections() == self.collections
        assert (list(session.dirty), list(session.new), list(session.deleted)) == ([], [], [])
        assert await session.get(House, self.house.id) is self.house
        for each in [*self.house.rooms, *self.house.doors, *self.house.floors, *self.house.keys.values(), *self.trees]:
            (key,) = inspect(each).identity or ()
            assert await session.get(type(each), key) is each

    async def change_and_look(self, session: AsyncSession) -> None:
        """Check that the next change is stored, and nothing else."""
        house = self.house
        house.note, house.at.x, house.rooms[0].name = "next", 9, "changed"
        house.data["later"] = 1
        house.tags.append("later")
        house.rooms.append(Room(name="r4"))
        self.trees[0].height = 7
        expected = self.show()
        await session.flush()
        session.expunge_all()
        shown = (await Held.load(session)).show()
        # Seen rooms are only read: the new one is there after it was stored.
        assert [shown[index] for index in range(len(shown)) if index != 7] == [expected[index] for index in range(len(shown)) if index != 7]


# --- How a write is rejected or undone. ---


async def insert_by_statement(session: AsyncSession) -> None:
    with pytest.raises(ConflictError):
        await Cities(session).create({"id": 3, "name": "one"})


async def insert_by_flush(session: AsyncSession) -> None:
    with pytest.raises(ConflictError):
        await Trees(session).create({"name": "oak"})


async def many_inserts(session: AsyncSession) -> None:
    with pytest.raises(ConflictError):
        await Houses(session).create_many([{"name": "x"}, {"name": "annex"}])
    with pytest.raises(ConflictError):
        await Cities(session).create_many([{"name": "x"}, {"name": "one"}])


async def update_by_statement(session: AsyncSession) -> None:
    with pytest.raises(ConflictError):
        await Cities(session).update(2, {"name": "one"})


async def update_by_flush(session: AsyncSession) -> None:
    with pytest.raises(ConflictError):
        await Trees(session).update(2, {"name": "oak", "height": 99})


async def delete_by_statement(session: AsyncSession) -> None:
    with pytest.raises(StillReferencedError):
        await Cities(session).delete(1)


async def delete_by_flush(session: AsyncSession) -> None:
    with pytest.raises(StillReferencedError):
        await Trees(session).delete(1)


async def failed_commit_of_a_deferred_check(session: AsyncSession) -> None:
    if not session.in_transaction():
        with pytest.raises(UnknownReferenceError):
            await Leases(session).create({"house_id": 99})


async def unit_that_fails(session: AsyncSession) -> None:
    with pytest.raises(ZeroDivisionError):
        async with unit_of_work(session):
            await Houses(session).create({"name": "x"})
            raise ZeroDivisionError


async def unit_in_a_unit_that_fails(session: AsyncSession) -> None:
    async with unit_of_work(session) as outer:
        await Houses(session).create({"name": "x"})
        async with unit_of_work(session):
            await Houses(session).create({"name": "y"})
            async with unit_of_work(session) as inner:
                await Houses(session).create({"name": "z"})
                await inner.rollback()
            await insert_by_statement(session)
        await outer.rollback()


async def flush_that_fails_in_a_unit(session: AsyncSession) -> None:
    with pytest.raises(IntegrityError):
        async with unit_of_work(session):
            session.add(House(name="annex"))
            await session.flush()


async def savepoint_left_open_in_a_unit(session: AsyncSession) -> None:
    with pytest.raises(ZeroDivisionError):
        async with unit_of_work(session):
            savepoint = await session.begin_nested()
            session.add(House(name="x"))
            await session.flush()
            assert savepoint.is_active
            raise ZeroDivisionError


async def changes_in_place(session: AsyncSession) -> None:
    house = held_house(session, "full")
    tree = next(each for each in session.identity_map.values() if isinstance(each, Tree))
    with pytest.raises(ZeroDivisionError):
        async with unit_of_work(session):
            _change_everything(house)
            tree.height = 99
            raise ZeroDivisionError


def _change_everything(house: House) -> None:
    house.note = "undone"
    house.at.x = 77
    house.data = {"undone": 1}
    house.tags = ["undone"]
    house.rooms.remove(house.rooms[0])
    house.rooms.insert(0, Room(name="undone"))
    house.doors.remove(next(iter(house.doors)))
    house.doors.add(Door(name="undone"))
    del house.keys["k1"]
    house.keys["undone"] = Key(name="undone")
    del house.floors[0]
    house.floors.append(Floor(name="undone"))
    house.annexes.clear()
    house.guests.add(Guest(name="undone"))
    house.letters.append(Letter(name="undone"))


def held_house(session: AsyncSession, name: str) -> House:
    return next(each for each in session.identity_map.values() if isinstance(each, House) and each.name == name)


UNDONE: list[Callable[[AsyncSession], Awaitable[None]]] = [
    *(insert_by_statement, insert_by_flush, many_inserts, update_by_statement, update_by_flush, delete_by_statement, delete_by_flush),
    *(failed_commit_of_a_deferred_check, unit_that_fails, unit_in_a_unit_that_fails, flush_that_fails_in_a_unit),
    *(savepoint_left_open_in_a_unit, changes_in_place),
]


# --- Where. ---


@asynccontextmanager
async def on_an_idle_session(session: AsyncSession) -> AsyncIterator[None]:
    await session.rollback()
    yield


@asynccontextmanager
async def after_a_read(session: AsyncSession) -> AsyncIterator[None]:
    await session.execute(select(House.id))
    yield


@asynccontextmanager
async def in_a_unit(session: AsyncSession) -> AsyncIterator[None]:
    async with unit_of_work(session):
        yield


@asynccontextmanager
async def in_a_unit_that_has_written(session: AsyncSession) -> AsyncIterator[None]:
    async with unit_of_work(session):
        session.add(Guest(name="before"))
        await session.flush()
        yield


@asynccontextmanager
async def in_a_transaction_that_was_begun(session: AsyncSession) -> AsyncIterator[None]:
    async with session.begin():
        yield


@asynccontextmanager
async def in_a_savepoint(session: AsyncSession) -> AsyncIterator[None]:
    async with session.begin_nested():
        yield


PLACES = [on_an_idle_session, after_a_read, in_a_unit, in_a_unit_that_has_written, in_a_transaction_that_was_begun, in_a_savepoint]


@pytest.mark.parametrize("undone", UNDONE)
async def test_what_was_loaded_is_as_it_was(street: Database, undone: Callable[[AsyncSession], Awaitable[None]]) -> None:
    """What was loaded is readable in the block and after it, with collections of every kind, and the next change is stored."""
    for place in few(PLACES, 3):
        async with request_session(street) as session:
            held = await Held.load(session)
            await session.commit()
            async with place(session):
                await undone(session)
                await held.check(session)
            await held.check(session)
            await held.change_and_look(session)


# --- What was changed inside. ---


async def test_a_change_in_place_does_not_come_back(street: Database) -> None:
    """A mutable column that was changed inside is read again, and its next change is stored."""
    async with request_session(street) as session:
        house = await Houses(session).get_one(1)
        with pytest.raises(ZeroDivisionError):
            async with unit_of_work(session):
                house.data["n"] = 2
                house.tags.append("undone")
                raise ZeroDivisionError

        assert not session.dirty
        assert await Houses(session).get_one(1) is house
        assert (house.data, house.tags) == ({"n": 1}, ["a"])
        house.data["later"] = 1
        house.tags.append("later")
        await session.commit()
    async with request_session(street) as session:
        house = await Houses(session).get_one(1)
        assert (house.data, house.tags) == ({"n": 1, "later": 1}, ["a", "later"])


async def test_what_was_written_inside_is_read_again(street: Database) -> None:
    """What was written inside is read again, also from an open savepoint of the application."""
    for is_left_open in (False, True):
        async with request_session(street) as session:
            held, new = await Held.load(session), Room(name="new")
            with pytest.raises(ZeroDivisionError):
                async with unit_of_work(session):
                    savepoint = await session.begin_nested() if is_left_open else None
                    assert savepoint is None or savepoint.is_active
                    held.house.note = "undone"
                    held.house.rooms.append(new)
                    await session.flush()
                    raise ZeroDivisionError

            assert inspect(new).transient
            assert "note" not in vars(held.house)
            assert not session.dirty
            again = await Held.load(session)
            assert again.house is held.house
            assert again.show() == held.shown


async def test_a_savepoint_of_the_applications_is_undone_inside_a_unit(street: Database) -> None:
    """After a rollback of the application's savepoint objects can be changed and are stored with the unit."""
    for is_read_first in (False, True):
        async with request_session(street) as session:
            held = await Held.load(session)
            if not is_read_first:
                await session.rollback()
                held = await Held.load(session)
                await session.commit()
            async with unit_of_work(session):
                with pytest.raises(IntegrityError):
                    async with session.begin_nested():
                        session.add(House(name="annex"))
                await held.check(session)
                held.house.note = f"{is_read_first}"
            assert not session.dirty
        async with request_session(street) as session:
            assert (await Houses(session).get_one(1)).note == f"{is_read_first}"


async def test_a_savepoint_undone_inside_a_rejected_flush_keeps_the_map_whole(street: Database) -> None:
    """The identity map stays consistent in ``typed_errors`` and after a rollback to a savepoint by hand."""
    async with request_session(street) as session:
        held = await Held.load(session)
        async with typed_errors(session):
            savepoint = await session.begin_nested()
            session.add(House(name="x"))
            await session.flush()
            await savepoint.rollback()
            held.house.note = "kept"
        await session.commit()
    async with request_session(street) as session:
        assert (await Houses(session).get_one(1)).note == "kept"


# --- What the application has pending. ---


async def test_what_is_pending_stays_the_applications(street: Database) -> None:
    """Pending changes are flushed before the savepoint of a rejected write, and stored with the commit."""
    for is_in_a_unit in (False, True):
        async with request_session(street) as session, AsyncExitStack() as stack:
            house, elm = await Houses(session).get_one(1), (await session.scalars(select(Tree).where(Tree.name == "elm"))).one()
            if is_in_a_unit:
                await session.commit()
                await stack.enter_async_context(unit_of_work(session))
            pending, expired = House(name=f"pending {is_in_a_unit}"), await Houses(session).get_one(2)
            session.add(pending)
            house.data["n"], elm.height = 5, 5
            await session.delete(house.rooms[0] if "rooms" in vars(house) else await session.get_one(Room, 1 + is_in_a_unit))
            session.expire(expired)

            await insert_by_statement(session)
            await insert_by_flush(session)

            assert inspect(pending).persistent
            assert "name" not in vars(expired)
            await session.refresh(expired)
            if not is_in_a_unit:
                await session.commit()
        async with request_session(street) as session:
            house = await Houses(session).get_one(1)
            assert (house.data["n"], await session.scalar(select(Tree.height).where(Tree.name == "elm"))) == (5, 5)
            assert await session.scalar(select(func.count()).select_from(Room)) == 2 - is_in_a_unit
            assert await session.scalar(select(House.id).where(House.name == f"pending {is_in_a_unit}"))


async def test_a_deletion_that_was_not_flushed_is_taken_back(street: Database) -> None:
    """An object that was marked as deleted belongs to the session again and can be changed."""
    async with request_session(street) as session:
        tree = await Trees(session).get_one(2)
        async with unit_of_work(session) as uow:
            await session.delete(tree)
            await uow.rollback()

        assert not session.deleted
        tree.height = 8
        await session.commit()
        assert await session.scalar(select(Tree.height).where(Tree.id == 2)) == 8


async def test_objects_without_a_reference_are_collected(street: Database) -> None:
    """A rollback keeps no object alive."""
    async with request_session(street) as session:
        held = await Held.load(session)
        await session.scalars(select(Guest))
        await insert_by_statement(session)
        gc.collect()

        assert not any(isinstance(each, Guest) for each in session.identity_map.values())
        await held.check(session)


# --- Sessions of another kind. ---


@pytest.mark.only_full
@pytest.mark.parametrize("mode", get_args(JoinTransactionMode))
async def test_a_session_on_a_connection(street: Database, mode: JoinTransactionMode) -> None:
    """A rejected write does not end the transaction of the connection, in every join_transaction_mode."""
    async with street.engine.connect() as connection:
        outer = await connection.begin()
        session = AsyncSession(connection, expire_on_commit=False, join_transaction_mode=mode)
        held = await Held.load(session)
        for undone in UNDONE:
            if undone is not failed_commit_of_a_deferred_check:
                await undone(session)
                await held.check(session)
        async with unit_of_work(session):
            for undone in UNDONE:
                await undone(session)
                await held.check(session)
        assert outer.is_active is (mode != "control_fully")
        await session.close()
        if outer.is_active:
            await outer.rollback()


async def test_a_session_of_two_engines(street: Database) -> None:
    """A rejected write on one engine leaves the work on the other."""
    if street.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    other = create_async_engine(street.engine.url)
    async with AsyncSession(binds={HouseBase: street.engine, Plant: other, Tree: other}, expire_on_commit=False) as session:
        held = await Held.load(session)
        for undone in (insert_by_statement, insert_by_flush, unit_that_fails):
            await undone(session)
            await held.check(session)
        await session.commit()
        async with unit_of_work(session):
            await insert_by_statement(session)
            await Houses(session).create({"name": "x"})
            await insert_by_flush(session)
            await Trees(session).create({"name": "pine"})
            await insert_by_flush(session)
            await insert_by_statement(session)
            await held.check(session)
    await other.dispose()
    async with request_session(street) as session:
        assert await Houses(session).get_by(name="x")
        assert await Trees(session).count() == 3


async def test_a_rejected_first_write_of_a_unit_takes_no_savepoint(street: Database) -> None:
    """A rejected first write of a unit is undone without a savepoint, unless the application has pending objects."""
    sent = watched(street)
    async with request_session(street) as session:
        held = await Held.load(session)
        await session.commit()
        sent.clear()
        async with unit_of_work(session):
            await insert_by_statement(session)
            await held.check(session)
            await Cities(session).create({"id": 4, "name": "x"})
        assert sent == ["BEGIN", "INSERT", "ROLLBACK", "BEGIN", "INSERT", "COMMIT"]

        sent.clear()
        async with unit_of_work(session):
            session.add(House(name="mine"))
            await insert_by_statement(session)
        assert "SAVEPOINT" in sent
    async with request_session(street) as session:
        assert await Houses(session).get_by(name="mine")


def watched(database: Database) -> list[str]:
    """Return a list of the first words of all following statements."""
    sent: list[str] = []
    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda _c, _cursor, statement, *_: sent.append(statement.split()[0]))
    event.listen(engine, "begin", lambda _: sent.append("BEGIN"))
    event.listen(engine, "rollback", lambda _: sent.append("ROLLBACK"))
    event.listen(engine, "commit", lambda _: sent.append("COMMIT"))
    event.listen(engine, "savepoint", lambda *_: sent.append("SAVEPOINT"))
    return sent


# --- Cancelled, and cut off. ---


@pytest.mark.parametrize("place", [on_an_idle_session, in_a_unit, in_a_unit_that_has_written])
async def test_a_write_cancelled_at_each_await(street: Database, place: Callable[[AsyncSession], Any]) -> None:
    """A write that is cancelled at any point stores nothing, and what was loaded stays."""

    async def work(session: AsyncSession) -> None:
        async with place(session):
            await rejected_and_undone(session)
            raise ZeroDivisionError

    for moment in range(0, 60, 1 if FULL else 3):
        async with request_session(street) as session:
            held = await Held.load(session)
            await session.commit()
            is_done = await cancelled_at(moment, work(session))
            await held.check(session)
            assert await Houses(session).get_by(name="undone") is None
        if is_done:
            break
    assert is_done
    assert moment > 5


async def rejected_and_undone(session: AsyncSession) -> None:
    async with unit_of_work(session) as uow:
        await insert_by_statement(session)
        await Houses(session).create({"name": "undone"})
        await Cities(session).update(2, {"name": "undone"})
        await uow.rollback()


async def cancelled_at(moment: int, work: Coroutine[Any, Any, None]) -> bool:
    """Cancel *work* at its await number *moment*; return whether it had ended before."""
    task, waits, last = asyncio.ensure_future(work), -1, None
    while not task.done():
        waiter: object = getattr(task, "_fut_waiter", None)
        if waiter is not None and waiter is not last:
            last, waits = waiter, waits + 1
            if waits == moment:
                task.cancel()
        await asyncio.sleep(0)
    return not task.cancelled() and isinstance(task.exception(), ZeroDivisionError)


async def test_a_connection_that_is_lost(street: Database) -> None:
    """After a lost connection what was loaded can be read, and the next write works."""
    if street.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no connection to lose")
    for place in (on_an_idle_session, in_a_unit, in_a_unit_that_has_written):
        for write in (insert_by_statement, insert_by_flush, update_by_statement, update_by_flush):
            async with request_session(street) as session:
                held = await Held.load(session)
                await session.commit()
                with pytest.raises(UnavailableError):
                    async with place(session), unit_of_work(session):
                        await Houses(session).create({"name": "undone"})
                        await cut(session)
                        await write(session)
                await held.check(session)
                assert await Houses(session).get_by(name="undone") is None


async def cut(session: AsyncSession) -> None:
    """Close the driver's connection of *session*."""
    driver: Any = (await (await session.connection()).get_raw_connection()).driver_connection
    driver.terminate()
