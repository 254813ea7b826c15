"""Deleting one row: by one statement where the mapping asks no more, and else as the unit of work does."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel
from sqlalchemy import Column, ForeignKey, Integer, String, Table, delete, event, func, inspect, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, WriteOnlyMapped, mapped_column, relationship, selectinload
from sqlalchemy.util import await_only
from tests.models import (
    Author,
    AuthorService,
    BookService,
    Leaflet,
    LeafletService,
    LibraryBase,
    Loan,
    LoanService,
    ShelfService,
    Tag,
    TagService,
)

from fastapi_kit.crud import CRUDService
from fastapi_kit.db import Database, DatabaseOptions, unit_of_work
from fastapi_kit.db.errors import as_kit_error
from fastapi_kit.errors import (
    ConfigurationError,
    NotFoundError,
    StaleVersionError,
    StillReferencedError,
    UnavailableError,
    UnknownReferenceError,
)
from fastapi_kit.testing.queries import assert_max_queries


class OfficeBase(DeclarativeBase): ...


user_organizations = Table(
    "user_organizations",
    OfficeBase.metadata,
    Column("user_id", ForeignKey("users.id"), primary_key=True),
    Column("organization_id", ForeignKey("organizations.id"), primary_key=True),
)


class User(OfficeBase):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(50), unique=True)
    organizations: Mapped[list["Organization"]] = relationship(secondary=user_organizations, back_populates="users")


class Organization(OfficeBase):
    __tablename__ = "organizations"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    users: Mapped[list[User]] = relationship(secondary=user_organizations, back_populates="organizations")


class Order(OfficeBase):
    """Its lines go with it; its remarks stay, without an order; a receipt keeps it."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    lines: Mapped[list["Line"]] = relationship(cascade="all, delete-orphan")
    remarks: Mapped[list["Remark"]] = relationship(lazy="raise")


class Line(OfficeBase):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))


class Remark(OfficeBase):
    __tablename__ = "remarks"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int | None] = mapped_column(ForeignKey("orders.id"))


class Receipt(OfficeBase):
    """Points at an order that knows nothing of it."""

    __tablename__ = "receipts"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))


class Folder(OfficeBase):
    """The database deletes what is in it."""

    __tablename__ = "folders"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    papers: Mapped[list["Paper"]] = relationship(cascade="all, delete-orphan", passive_deletes=True)
    slips: WriteOnlyMapped["Slip"] = relationship(cascade="all, delete-orphan", passive_deletes=True)
    shown: Mapped[list["Paper"]] = relationship(viewonly=True)


class Paper(OfficeBase):
    __tablename__ = "papers"
    id: Mapped[int] = mapped_column(primary_key=True)
    folder_id: Mapped[int] = mapped_column(ForeignKey("folders.id", ondelete="CASCADE"))


class Slip(OfficeBase):
    __tablename__ = "slips"
    id: Mapped[int] = mapped_column(primary_key=True)
    folder_id: Mapped[int] = mapped_column(ForeignKey("folders.id", ondelete="CASCADE"))


class Stamp(OfficeBase):
    """Still referenced by nothing but a plain foreign key, and without a relationship of its own."""

    __tablename__ = "stamps"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Letter(OfficeBase):
    __tablename__ = "letters"
    id: Mapped[int] = mapped_column(primary_key=True)
    stamp_id: Mapped[int] = mapped_column(ForeignKey("stamps.id"))


class Room(OfficeBase):
    """A tree, and an owner that goes with it."""

    __tablename__ = "rooms"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("rooms.id"))
    key_id: Mapped[int | None] = mapped_column(ForeignKey("room_keys.id"))
    children: Mapped[list["Room"]] = relationship()
    key: Mapped["RoomKey | None"] = relationship(cascade="all, delete-orphan", single_parent=True)


class RoomKey(OfficeBase):
    __tablename__ = "room_keys"
    id: Mapped[int] = mapped_column(primary_key=True)


class Worker(OfficeBase):
    """The root of a joined-table and of a single-table hierarchy."""

    __tablename__ = "workers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    kind: Mapped[str] = mapped_column(String(10))
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_on": "kind", "polymorphic_identity": "worker"}


class Engineer(Worker):
    __tablename__ = "engineers"
    id: Mapped[int] = mapped_column(Integer, ForeignKey("workers.id"), primary_key=True)
    tool: Mapped[str | None]
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "engineer"}


class Clerk(Worker):
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "clerk"}


class Listened(OfficeBase):
    __tablename__ = "listened"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


deleted_names: list[str] = []


@event.listens_for(Listened, "before_delete")
def _note_name(_mapper: object, _connection: object, row: Listened) -> None:
    deleted_names.append(row.name)


class Named(BaseModel):
    name: str


class UserService(CRUDService[User, Named, Named]): ...


class OrganizationService(CRUDService[Organization, Named, Named]): ...


class OrderService(CRUDService[Order, Named, Named]): ...


class FolderService(CRUDService[Folder, Named, Named]): ...


class StampService(CRUDService[Stamp, Named, Named]): ...


class LetterService(CRUDService[Letter, Named, Named]): ...


class RoomService(CRUDService[Room, Named, Named]): ...


class WorkerService(CRUDService[Worker, Named, Named]): ...


class EngineerService(CRUDService[Engineer, Named, Named]): ...


class ClerkService(CRUDService[Clerk, Named, Named]): ...


class ListenedService(CRUDService[Listened, Named, Named]): ...


def opened(database: Database) -> AbstractAsyncContextManager[AsyncSession]:
    """Another request's session."""
    return asynccontextmanager(database.get_session)()


@pytest.fixture
async def office(database: Database) -> AsyncIterator[AsyncSession]:
    """A session on the tables above."""
    await database.create_tables(OfficeBase.metadata)
    async with opened(database) as session:
        yield session


async def add(session: AsyncSession, *rows: object) -> None:
    """Store these and forget them."""
    session.add_all(rows)
    await session.commit()
    session.expunge_all()


async def number(session: AsyncSession, table: Any) -> int:
    """How many rows a table has."""
    found = await session.scalar(select(func.count()).select_from(table))
    await session.rollback()
    return found or 0


# One statement


async def test_a_deleted_row_is_gone_for_others(session: AsyncSession, library: Database) -> None:
    """The write commits itself, and only that row is gone."""
    tags = await TagService(session).create_many([{"name": "a"}, {"name": "b"}])

    await TagService(session).delete(tags[0].id)

    assert not session.in_transaction()
    async with opened(library) as other:
        assert [tag.name for tag in await TagService(other).list()] == ["b"]


PLAIN: list[tuple[type[CRUDService[Any, Any, Any]], list[object]]] = [
    (StampService, [Stamp(id=1, name="a")]),
    (LetterService, [Stamp(id=1, name="a"), Letter(id=1, stamp_id=1)]),
    (FolderService, [Folder(id=1, name="a", papers=[Paper(), Paper()]), Slip(folder_id=1)]),
]


@pytest.mark.parametrize(("service", "rows"), PLAIN, ids=lambda value: getattr(value, "__name__", ""))
async def test_one_statement_where_the_mapping_asks_no_more(
    database: Database, office: AsyncSession, service: type[CRUDService[Any, Any, Any]], rows: list[object]
) -> None:
    """No relationship, references to others only, or children that the database deletes."""
    for row in rows:
        await add(office, _copy(row))

    with assert_max_queries(database, 1) as log:
        await service(office).delete(1)

    assert log.statements[0].startswith("DELETE FROM")
    assert await service(office).count() == 0
    assert (await number(office, Paper), await number(office, Slip)) == (0, 0)


def _copy(row: object) -> object:
    # The objects of a parameter list are used once for each database.
    state = inspect(row, raiseerr=True)
    values = {name: value for name, value in state.dict.items() if not name.startswith("_")}
    values = {name: [_copy(item) for item in value] if isinstance(value, list) else value for name, value in values.items()}
    return type(row)(**values)


async def test_one_statement_for_a_composite_key(session: AsyncSession, library: Database) -> None:
    """And that row alone."""
    await ShelfService(session).create_many([{"room": 1, "number": 1}, {"room": 1, "number": 2}])

    with assert_max_queries(library, 1):
        await ShelfService(session).delete((1, 2))

    assert [(shelf.room, shelf.number) for shelf in await ShelfService(session).list()] == [(1, 1)]


@pytest.mark.parametrize("service", [TagService, AuthorService, LeafletService])
async def test_a_missing_row_is_not_found(session: AsyncSession, service: type[CRUDService[Any, Any, Any]]) -> None:
    """By one statement or by the row; the session works on."""
    for ident in (99, 10**30):
        with pytest.raises(NotFoundError) as caught:
            await service(session).delete(ident)
        assert (caught.value.model, caught.value.ident) == (service.model, ident)
    assert not session.in_transaction()


async def test_a_row_can_be_deleted_once(session: AsyncSession) -> None:
    """The second time it is missing."""
    tag = await TagService(session).create({"name": "a"})
    await TagService(session).delete(tag.id)

    with pytest.raises(NotFoundError):
        await TagService(session).delete(tag.id)


async def test_a_loaded_row_leaves_the_session(session: AsyncSession) -> None:
    """By one statement too; what it held can still be read."""
    tag = await TagService(session).create({"name": "a"})

    await TagService(session).delete(tag.id)

    assert tag not in session
    assert tag.name == "a"
    assert await session.get(Tag, tag.id) is None
    await session.rollback()
    assert (await TagService(session).create({"name": "b"})).name == "b"


async def test_a_delete_in_an_opened_transaction_is_the_openers(session: AsyncSession, library: Database) -> None:
    """Undone with the rest, and the row is the session's again."""
    tag = await TagService(session).create({"name": "a"})
    key = tag.id

    async with unit_of_work(session) as uow:
        await TagService(session).delete(key)
        assert not await TagService(session).exists()
        await uow.rollback()

    assert await TagService(session).get_one(key) is tag
    assert tag.name == "a"


async def test_a_delete_on_a_default_session(application_sessions: async_sessionmaker[AsyncSession]) -> None:
    """The host's engine and its transaction."""
    async with application_sessions() as session:
        tags = await TagService(session).create_many([{"name": "a"}, {"name": "b"}])
        await TagService(session).delete(tags[0].id)
        assert [tag.name for tag in await TagService(session).list()] == ["b"]


# What the unit of work must do


async def test_a_user_of_organizations(office: AsyncSession) -> None:
    """The many-to-many rows go with the user, those of others and the organizations stay."""
    acme, zenith = Organization(id=1, name="acme"), Organization(id=2, name="zenith")
    await add(office, User(id=1, email="a", organizations=[acme, zenith]), User(id=2, email="b", organizations=[acme]))

    await UserService(office).delete(1)

    assert await UserService(office).count() == 1
    assert await number(office, Organization) == 2
    assert (await office.execute(select(user_organizations))).all() == [(2, 1)]


async def test_an_organization_of_users(office: AsyncSession) -> None:
    """From the other side as well."""
    acme = Organization(id=1, name="acme")
    await add(office, User(id=1, email="a", organizations=[acme]), User(id=2, email="b", organizations=[acme]))

    await OrganizationService(office).delete(1)

    assert (await number(office, User), await number(office, user_organizations)) == (2, 0)


async def test_children_that_go_with_it(office: AsyncSession) -> None:
    """A delete cascade of the mapping deletes them, and no others."""
    await add(office, Order(id=1, name="a", lines=[Line(), Line()]), Order(id=2, name="b", lines=[Line()]))

    await OrderService(office).delete(1)

    assert [order.id for order in await OrderService(office).list()] == [2]
    assert [line.order_id for line in await office.scalars(select(Line))] == [2]


async def test_children_that_stay(office: AsyncSession) -> None:
    """A nullable reference is set to null, also through a relationship that rejects to be read lazily."""
    await add(office, Order(id=1, name="a", remarks=[Remark(), Remark()]))

    await OrderService(office).delete(1)

    assert [remark.order_id for remark in await office.scalars(select(Remark))] == [None, None]


async def test_children_of_a_tree(office: AsyncSession) -> None:
    """They become roots; what the row owned through its own reference goes."""
    await add(office, Room(id=1, name="a", key=RoomKey(), children=[Room(id=2, name="b", key=RoomKey())]))

    await RoomService(office).delete(1)

    assert [(room.id, room.parent_id) for room in await RoomService(office).list()] == [(2, None)]
    assert await number(office, RoomKey) == 1


async def test_children_that_the_session_has_loaded(office: AsyncSession) -> None:
    """Loaded or not, they are gone with the row."""
    await add(office, Folder(id=1, name="a", papers=[Paper()]), Order(id=1, name="a", lines=[Line()]))
    folder = await FolderService(office).get_one(1, options=[selectinload(Folder.papers)])
    order = await OrderService(office).get_one(1, options=[selectinload(Order.lines)])
    paper, line = folder.papers[0], order.lines[0]

    await FolderService(office).delete(1)
    await OrderService(office).delete(1)

    assert await office.get(Line, line.id) is None
    assert await office.get(Paper, paper.id, populate_existing=True) is None


async def test_a_row_of_two_tables(office: AsyncSession) -> None:
    """Joined-table inheritance: both rows go, by the subclass or its parent."""
    await add(office, Engineer(id=1, name="a"), Engineer(id=2, name="b"), Engineer(id=3, name="c"))

    await EngineerService(office).delete(1)
    await WorkerService(office).delete(2)

    assert (await number(office, Engineer.__table__), await number(office, Worker.__table__)) == (1, 1)


async def test_a_row_of_one_kind(office: AsyncSession) -> None:
    """Single-table inheritance: a row of another kind is not found."""
    await add(office, Clerk(id=1, name="a"), Worker(id=2, name="b"))

    with pytest.raises(NotFoundError):
        await ClerkService(office).delete(2)
    await ClerkService(office).delete(1)

    assert [worker.id for worker in await WorkerService(office).list()] == [2]


async def test_listeners_of_the_model_are_called(office: AsyncSession) -> None:
    """With the row."""
    await add(office, Listened(id=1, name="heard"))
    deleted_names.clear()

    await ListenedService(office).delete(1)

    assert deleted_names == ["heard"]
    assert await ListenedService(office).count() == 0


def deleted_in_flush(session: Session, *_: object) -> list[str]:
    return [row.name for row in session.deleted]


def deleted_itself(_session: Session, row: Any) -> list[str]:
    return [row.name]


LISTENERS: list[tuple[str, Callable[..., list[str]]]] = [
    ("before_flush", deleted_in_flush),
    ("after_flush", deleted_in_flush),
    ("persistent_to_deleted", deleted_itself),
]


@pytest.mark.parametrize(("name", "names"), LISTENERS, ids=lambda value: value if isinstance(value, str) else "")
async def test_listeners_of_the_session_are_called(session: AsyncSession, name: str, names: Callable[..., list[str]]) -> None:
    """An audit log that hears of rows deleted by hand hears of these."""
    tag = await TagService(session).create({"name": "heard"})
    heard: list[str] = []
    event.listen(session.sync_session, name, lambda *arguments: heard.extend(names(*arguments)))

    await TagService(session).delete(tag.id)

    assert heard == ["heard"]


# Versions and races


@pytest.fixture
async def leaflet(library: Database) -> Leaflet:
    """A leaflet at version 2."""
    async with library.begin() as session:
        leaflet = await LeafletService(session).create({"text": "a"})
        return await LeafletService(session).update(leaflet.id, {"text": "b"})


async def test_a_versioned_row(session: AsyncSession, leaflet: Leaflet) -> None:
    """Is deleted, at whatever version it is."""
    await LeafletService(session).delete(leaflet.id)

    assert await LeafletService(session).count() == 0


async def test_the_expected_version_is_let_through(session: AsyncSession, leaflet: Leaflet) -> None:
    """Another is a conflict that says which versions."""
    with pytest.raises(StaleVersionError) as caught:
        await LeafletService(session).delete(leaflet.id, expected_version=1)
    assert (caught.value.expected, caught.value.found) == (1, 2)
    assert await LeafletService(session).count() == 1

    await LeafletService(session).delete(leaflet.id, expected_version=2)
    assert await LeafletService(session).count() == 0


async def test_a_model_without_versions_has_none_to_expect(session: AsyncSession, library: Database) -> None:
    """A mistake in the code, before any SQL."""
    with assert_max_queries(library, 0), pytest.raises(ConfigurationError, match="version"):
        await TagService(session).delete(1, expected_version=1)


def before_statement(session: AsyncSession, happen: Callable[[], Awaitable[None]]) -> None:
    """Let this happen once, when the next write has begun and has not locked its row yet."""
    event.listen(session.sync_session, "do_orm_execute", lambda *_: await_only(happen()), once=True)


async def by_another(database: Database, statement: Any) -> None:
    """Somebody else's committed statement."""
    async with database.engine.begin() as connection:
        await connection.execute(statement)


async def test_a_version_that_advances_in_between_is_a_conflict(session: AsyncSession, library: Database, leaflet: Leaflet) -> None:
    """Nobody deletes what somebody has just changed."""
    before_statement(session, lambda: by_another(library, update(Leaflet.__table__).values(version=3)))

    with pytest.raises(StaleVersionError):
        await LeafletService(session).delete(leaflet.id, expected_version=2)

    assert await LeafletService(session).count() == 1


async def test_a_row_that_is_deleted_in_between_is_not_found(session: AsyncSession, library: Database) -> None:
    """Whichever way it would have been deleted, one of two deletes is told."""
    author = await AuthorService(session).create({"email": "a@example.org"})
    before_statement(session, lambda: by_another(library, delete(Author)))

    with pytest.raises(NotFoundError):
        await AuthorService(session).delete(author.id)

    assert not session.in_transaction()


async def test_links_that_are_deleted_in_between_are_no_hindrance(database: Database, office: AsyncSession) -> None:
    """Many-to-many rows that somebody else has just deleted were to go anyway."""
    await add(office, User(id=1, email="a", organizations=[Organization(name="acme"), Organization(name="zenith")]))
    before_statement(office, lambda: by_another(database, delete(user_organizations)))

    await UserService(office).delete(1)

    assert (await UserService(office).count(), await number(office, user_organizations)) == (0, 0)


@pytest.fixture
async def impatient(database: Database) -> AsyncIterator[Database]:
    """The same database for somebody who does not wait long for a lock."""
    other = Database(database.engine.url, options=DatabaseOptions(pool_timeout=0.2, command_timeout=0.5))
    yield other
    await other.dispose()


def before_flush(session: AsyncSession, impatient: Database, statement: Any) -> list[bool]:
    """Let somebody else try this after the row was read and before it is deleted; the list says afterwards whether it could be done."""
    done: list[bool] = []

    async def attempt() -> None:
        try:
            async with impatient.begin() as other:
                await other.execute(statement)
        except Exception as error:
            if not isinstance(as_kit_error(error), UnavailableError):
                raise
            done.append(False)
        else:
            done.append(True)

    event.listen(session.sync_session, "before_flush", lambda *_: await_only(attempt()), once=True)
    return done


@pytest.mark.parametrize("expected", [None, 2])
async def test_a_change_after_the_row_was_read(session: AsyncSession, impatient: Database, leaflet: Leaflet, expected: int | None) -> None:
    """Either it must wait for the delete, or the delete is told of it."""
    changed = before_flush(session, impatient, update(Leaflet.__table__).values(version=3))

    try:
        await LeafletService(session).delete(leaflet.id, expected_version=expected)
    except StaleVersionError:
        assert changed == [True]
    else:
        assert changed == [False]

    assert await LeafletService(session).count() == sum(changed)


async def test_a_delete_after_the_row_was_read(session: AsyncSession, impatient: Database) -> None:
    """Either it must wait for this delete, or this delete is told of it."""
    author = await AuthorService(session).create({"email": "a@example.org"})
    gone = before_flush(session, impatient, delete(Author))

    try:
        await AuthorService(session).delete(author.id)
    except NotFoundError:
        assert gone == [True]
    else:
        assert gone == [False]

    assert await AuthorService(session).count() == 0


# Still referenced


async def test_a_row_that_others_point_at(office: AsyncSession) -> None:
    """By one statement: rejected, named, nothing changed, and the session works on."""
    await add(office, Stamp(id=1, name="a"))
    await add(office, Letter(id=1, stamp_id=1))
    stamp = await StampService(office).get_one(1)

    with pytest.raises(StillReferencedError) as caught:
        await StampService(office).delete(1)

    assert (caught.value.table, caught.value.fields) == ("letters", ("stamp_id",))
    assert stamp.name == "a"
    assert stamp in office
    await LetterService(office).delete(1)
    await StampService(office).delete(1)


async def test_a_row_whose_children_need_it(session: AsyncSession) -> None:
    """Children that cannot be without it keep it: their reference is not nulled, they are not named as null."""
    author = await AuthorService(session).create({"email": "a@example.org"})
    await BookService(session).create({"title": "a", "author_id": author.id})

    with pytest.raises(StillReferencedError):
        await AuthorService(session).delete(author.id)

    assert (await AuthorService(session).count(), await BookService(session).count()) == (1, 1)
    assert author.email == "a@example.org"


@pytest.mark.parametrize("opener", ["nobody", "unit"])
async def test_a_rejected_delete_changes_nothing(office: AsyncSession, opener: str) -> None:
    """Not the children that would have gone or stayed either, and all of them can still be read."""
    await add(office, Order(id=1, name="a", lines=[Line()], remarks=[Remark()]))
    await add(office, Receipt(order_id=1))
    order = await OrderService(office).get_one(1, options=[selectinload(Order.lines), selectinload(Order.remarks)])

    async def rejected() -> None:
        with pytest.raises(StillReferencedError):
            await OrderService(office).delete(1)

    if opener == "unit":
        async with unit_of_work(office):
            await rejected()
    else:
        await rejected()

    assert (order.name, [line.order_id for line in order.lines], [remark.order_id for remark in order.remarks]) == ("a", [1], [1])
    assert (await number(office, Line), await number(office, Remark.__table__)) == (1, 1)
    assert await office.scalar(select(func.count()).where(Remark.order_id == 1)) == 1


async def test_a_reference_that_is_checked_at_commit(session: AsyncSession) -> None:
    """A deferred foreign key rejects the COMMIT: still referenced, on both databases."""
    author = await AuthorService(session).create({"email": "a@example.org"})
    book = await BookService(session).create({"title": "a", "author_id": author.id})
    await LoanService(session).create({"book_id": book.id})

    with pytest.raises(StillReferencedError):
        await BookService(session).delete(book.id)

    assert not session.in_transaction()
    assert (await BookService(session).count(), await number(session, Loan)) == (1, 1)


async def test_what_else_the_commit_rejects_is_not_of_the_delete(postgres_database: Database) -> None:
    """A pending row of the host that points nowhere is named as that, where the database says which it is."""
    await postgres_database.create_tables(LibraryBase.metadata)
    async with opened(postgres_database) as session:
        tag = await TagService(session).create({"name": "a"})
        session.add(Loan(book_id=99))

        with pytest.raises(UnknownReferenceError) as caught:
            await TagService(session).delete(tag.id)

    assert caught.value.fields == ("book_id",)
