"""Deleting one row: by one statement where the mapping needs no more, and otherwise by a flush."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import delete, event, func, inspect, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, selectinload
from sqlalchemy.util import await_only
from tests.crud.kinds import Named, opened
from tests.tables.library import (
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
from tests.tables.names import ListenedDelete, NamesBase, deleted_names
from tests.tables.store import (
    Binder,
    Branch,
    Folder,
    Label,
    Labelled,
    Line,
    Owner,
    Paper,
    Remark,
    Slip,
    StoreBase,
    folder_labels,
)
from tests.tables.zoo import Animal, Cat, Dog, ZooBase

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


class LabelledService(CRUDService[Labelled, Named, Named]): ...


class LabelService(CRUDService[Label, Named, Named]): ...


class BinderService(CRUDService[Binder, Named, Named]): ...


class PaperService(CRUDService[Paper, Named, Named]): ...


class OwnerService(CRUDService[Owner, Named, Named]): ...


class FolderService(CRUDService[Folder, Named, Named]): ...


class BranchService(CRUDService[Branch, Named, Named]): ...


class AnimalService(CRUDService[Animal, Named, Named]): ...


class CatService(CRUDService[Cat, Named, Named]): ...


class DogService(CRUDService[Dog, Named, Named]): ...


class ListenedDeleteService(CRUDService[ListenedDelete, Named, Named]): ...


@pytest.fixture
async def office(database: Database) -> AsyncIterator[AsyncSession]:
    """A session on the tables of the store."""
    for metadata in (StoreBase.metadata, NamesBase.metadata, ZooBase.metadata):
        await database.create_tables(metadata)
    async with opened(database) as session:
        yield session


async def add(session: AsyncSession, *rows: object) -> None:
    """Store objects and remove them from the session."""
    session.add_all(rows)
    await session.commit()
    session.expunge_all()


async def number(session: AsyncSession, table: Any) -> int:
    """Return how many rows a table has."""
    found = await session.scalar(select(func.count()).select_from(table))
    await session.rollback()
    return found or 0


# One statement


async def test_a_deleted_row_is_gone_for_others(session: AsyncSession, library: Database) -> None:
    """A delete commits and deletes only that row."""
    tags = await TagService(session).create_many([{"name": "a"}, {"name": "b"}])

    await TagService(session).delete(tags[0].id)

    assert not session.in_transaction()
    async with opened(library) as other:
        assert [tag.name for tag in await TagService(other).list()] == ["b"]


PLAIN: list[tuple[type[CRUDService[Any, Any, Any]], list[object]]] = [
    (OwnerService, [Owner(id=1, name="a")]),
    (PaperService, [Folder(id=1, name="a"), Paper(id=1, folder_id=1)]),
    (FolderService, [Folder(id=1, name="a", papers=[Paper(), Paper()]), Slip(id=3, folder_id=1)]),
]


@pytest.mark.parametrize(("service", "rows"), PLAIN, ids=lambda value: getattr(value, "__name__", ""))
async def test_one_statement_where_the_mapping_asks_no_more(
    database: Database, office: AsyncSession, service: type[CRUDService[Any, Any, Any]], rows: list[object]
) -> None:
    """One statement is enough without relationships, with references to other tables, and with cascades of the database."""
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
    """A row with a composite key is deleted by one statement."""
    await ShelfService(session).create_many([{"room": 1, "number": 1}, {"room": 1, "number": 2}])

    with assert_max_queries(library, 1):
        await ShelfService(session).delete((1, 2))

    assert [(shelf.room, shelf.number) for shelf in await ShelfService(session).list()] == [(1, 1)]


@pytest.mark.parametrize("service", [TagService, AuthorService, LeafletService])
async def test_a_missing_row_is_not_found(session: AsyncSession, service: type[CRUDService[Any, Any, Any]]) -> None:
    """A missing row raises NotFoundError, and the session still works."""
    for ident in (99, 10**30):
        with pytest.raises(NotFoundError) as caught:
            await service(session).delete(ident)
        assert (caught.value.model, caught.value.ident) == (service.model, ident)
    assert not session.in_transaction()


async def test_a_row_can_be_deleted_once(session: AsyncSession) -> None:
    """A second delete raises NotFoundError."""
    tag = await TagService(session).create({"name": "a"})
    await TagService(session).delete(tag.id)

    with pytest.raises(NotFoundError):
        await TagService(session).delete(tag.id)


async def test_a_loaded_row_leaves_the_session(session: AsyncSession) -> None:
    """A loaded row leaves the session, and its loaded attributes can still be read."""
    tag = await TagService(session).create({"name": "a"})

    await TagService(session).delete(tag.id)

    assert tag not in session
    assert tag.name == "a"
    assert await session.get(Tag, tag.id) is None
    await session.rollback()
    assert (await TagService(session).create({"name": "b"})).name == "b"


async def test_a_delete_in_an_opened_transaction_is_the_openers(session: AsyncSession, library: Database) -> None:
    """A delete in an open transaction is undone with it, and the object belongs to the session again."""
    tag = await TagService(session).create({"name": "a"})
    key = tag.id

    async with unit_of_work(session) as uow:
        await TagService(session).delete(key)
        assert not await TagService(session).exists()
        await uow.rollback()

    assert await TagService(session).get_one(key) is tag
    assert tag.name == "a"


async def test_a_delete_on_a_default_session(application_sessions: async_sessionmaker[AsyncSession]) -> None:
    """A delete works in a transaction on an engine of the application."""
    async with application_sessions() as session:
        tags = await TagService(session).create_many([{"name": "a"}, {"name": "b"}])
        await TagService(session).delete(tags[0].id)
        assert [tag.name for tag in await TagService(session).list()] == ["b"]


# What the unit of work must do


async def test_a_folder_with_labels(office: AsyncSession) -> None:
    """The many-to-many rows of a folder are deleted with it; those of others stay, and so do the labels."""
    acme, zenith = Label(id=1, name="acme"), Label(id=2, name="zenith")
    await add(office, Labelled(id=1, name="a", labels=[acme, zenith]), Labelled(id=2, name="b", labels=[acme]))

    await LabelledService(office).delete(1)

    assert await LabelledService(office).count() == 1
    assert await number(office, Label) == 2
    assert (await office.execute(select(folder_labels))).all() == [(2, 1)]


async def test_a_label_of_folders(office: AsyncSession) -> None:
    """The many-to-many rows are deleted from the other side too."""
    acme = Label(id=1, name="acme")
    await add(office, Labelled(id=1, name="a", labels=[acme]), Labelled(id=2, name="b", labels=[acme]))

    await LabelService(office).delete(1)

    assert (await number(office, Labelled), await number(office, folder_labels)) == (2, 0)


async def test_children_that_go_with_it(office: AsyncSession) -> None:
    """A delete cascade of the mapping deletes the children of the row, and no others."""
    await add(office, Binder(id=1, name="a", lines=[Line(), Line()]), Binder(id=2, name="b", lines=[Line()]))

    await BinderService(office).delete(1)

    assert [binder.id for binder in await BinderService(office).list()] == [2]
    assert [line.folder_id for line in await office.scalars(select(Line))] == [2]


async def test_children_that_stay(office: AsyncSession) -> None:
    """A nullable foreign key of children is set to null, even with lazy="raise"."""
    await add(office, Binder(id=1, name="a", remarks=[Remark(), Remark()]))

    await BinderService(office).delete(1)

    assert [remark.folder_id for remark in await office.scalars(select(Remark))] == [None, None]


async def test_children_of_a_tree(office: AsyncSession) -> None:
    """Children in a tree become roots; what the row owns by its own foreign key is deleted."""
    await add(office, Branch(id=1, name="a", owner=Owner(name="a"), children=[Branch(id=2, name="b", owner=Owner(name="a"))]))

    await BranchService(office).delete(1)

    assert [(branch.id, branch.parent_id) for branch in await BranchService(office).list()] == [(2, None)]
    assert await number(office, Owner) == 1


async def test_children_that_the_session_has_loaded(office: AsyncSession) -> None:
    """Children are deleted with the row, loaded or not."""
    await add(office, Folder(id=1, name="a", papers=[Paper()]), Binder(id=2, name="b", lines=[Line()]))
    folder = await FolderService(office).get_one(1, options=[selectinload(Folder.papers)])
    binder = await BinderService(office).get_one(2, options=[selectinload(Binder.lines)])
    paper, line = folder.papers[0], binder.lines[0]

    await FolderService(office).delete(1)
    await BinderService(office).delete(2)

    assert await office.get(Line, line.id) is None
    assert await office.get(Paper, paper.id, populate_existing=True) is None


async def test_a_row_of_two_tables(office: AsyncSession) -> None:
    """With joined tables both rows are deleted, by the subclass or its parent."""
    await add(office, Cat(ident=1, name="a"), Cat(ident=2, name="b"), Cat(ident=3, name="c"))

    await CatService(office).delete(1)
    await AnimalService(office).delete(2)

    assert (await number(office, Cat.__table__), await number(office, Animal.__table__)) == (1, 1)


async def test_a_row_of_one_kind(office: AsyncSession) -> None:
    """With single-table inheritance a row of another class is not found."""
    await add(office, Dog(ident=1, name="a"), Animal(ident=2, name="b"))

    with pytest.raises(NotFoundError):
        await DogService(office).delete(2)
    await DogService(office).delete(1)

    assert [animal.ident for animal in await AnimalService(office).list()] == [2]


async def test_listeners_of_the_model_are_called(office: AsyncSession) -> None:
    """Delete listeners of the model get the row."""
    await add(office, ListenedDelete(id=1, name="heard"))
    deleted_names.clear()

    await ListenedDeleteService(office).delete(1)

    assert deleted_names == ["heard"]
    assert await ListenedDeleteService(office).count() == 0


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
    """Delete listeners of the session, such as an audit log, get the row."""
    tag = await TagService(session).create({"name": "heard"})
    heard: list[str] = []
    event.listen(session.sync_session, name, lambda *arguments: heard.extend(names(*arguments)))

    await TagService(session).delete(tag.id)

    assert heard == ["heard"]


# Versions and races


@pytest.fixture
async def leaflet(library: Database) -> Leaflet:
    """A leaflet with version 2."""
    async with library.begin() as session:
        leaflet = await LeafletService(session).create({"text": "a"})
        return await LeafletService(session).update(leaflet.id, {"text": "b"})


async def test_a_versioned_row(session: AsyncSession, leaflet: Leaflet) -> None:
    """A row with a version is deleted at any version."""
    await LeafletService(session).delete(leaflet.id)

    assert await LeafletService(session).count() == 0


async def test_the_expected_version_is_let_through(session: AsyncSession, leaflet: Leaflet) -> None:
    """A row with the expected version is deleted; another version raises StaleVersionError with both versions."""
    with pytest.raises(StaleVersionError) as caught:
        await LeafletService(session).delete(leaflet.id, expected_version=1)
    assert (caught.value.expected, caught.value.found) == (1, 2)
    assert await LeafletService(session).count() == 1

    await LeafletService(session).delete(leaflet.id, expected_version=2)
    assert await LeafletService(session).count() == 0


async def test_a_model_without_versions_has_none_to_expect(session: AsyncSession, library: Database) -> None:
    """expected_version on a model without versions raises ConfigurationError before any SQL."""
    with assert_max_queries(library, 0), pytest.raises(ConfigurationError, match="version"):
        await TagService(session).delete(1, expected_version=1)


def before_statement(session: AsyncSession, happen: Callable[[], Awaitable[None]]) -> None:
    """Run this once, after the next write has begun and before it locks its row."""
    event.listen(session.sync_session, "do_orm_execute", lambda *_: await_only(happen()), once=True)


async def by_another(database: Database, statement: Any) -> None:
    """Return a function that commits the statement in another session."""
    async with database.engine.begin() as connection:
        await connection.execute(statement)


async def test_a_version_that_advances_in_between_is_a_conflict(session: AsyncSession, library: Database, leaflet: Leaflet) -> None:
    """A row that another session changes meanwhile is not deleted."""
    before_statement(session, lambda: by_another(library, update(Leaflet.__table__).values(version=3)))

    with pytest.raises(StaleVersionError):
        await LeafletService(session).delete(leaflet.id, expected_version=2)

    assert await LeafletService(session).count() == 1


async def test_a_row_that_is_deleted_in_between_is_not_found(session: AsyncSession, library: Database) -> None:
    """A row that another session deletes meanwhile raises NotFoundError."""
    author = await AuthorService(session).create({"email": "a@example.org"})
    before_statement(session, lambda: by_another(library, delete(Author)))

    with pytest.raises(NotFoundError):
        await AuthorService(session).delete(author.id)

    assert not session.in_transaction()


async def test_links_that_are_deleted_in_between_are_no_hindrance(database: Database, office: AsyncSession) -> None:
    """Many-to-many rows that another session deletes meanwhile do not make the delete fail."""
    await add(office, Labelled(id=1, name="a", labels=[Label(name="acme"), Label(name="zenith")]))
    before_statement(office, lambda: by_another(database, delete(folder_labels)))

    await LabelledService(office).delete(1)

    assert (await LabelledService(office).count(), await number(office, folder_labels)) == (0, 0)


@pytest.fixture
async def impatient(database: Database) -> AsyncIterator[Database]:
    """The same database with a short wait for locks."""
    other = Database(database.engine.url, options=DatabaseOptions(pool_timeout=0.2, command_timeout=0.5))
    yield other
    await other.dispose()


def before_flush(session: AsyncSession, impatient: Database, statement: Any) -> list[bool]:
    """Run this in another session between the read and the delete of the row; the list tells whether it succeeded."""
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
    """A change after the row was read either waits for the delete, or makes it fail."""
    changed = before_flush(session, impatient, update(Leaflet.__table__).values(version=3))

    try:
        await LeafletService(session).delete(leaflet.id, expected_version=expected)
    except StaleVersionError:
        assert changed == [True]
    else:
        assert changed == [False]

    assert await LeafletService(session).count() == sum(changed)


async def test_a_delete_after_the_row_was_read(session: AsyncSession, impatient: Database) -> None:
    """Another delete after the row was read either waits for this one, or makes it fail."""
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
    """A row that others refer to raises StillReferencedError; nothing changes and the session still works."""
    await add(office, Owner(id=1, name="a"))
    await add(office, Folder(id=1, name="a", owner_id=1))
    owner = await OwnerService(office).get_one(1)

    with pytest.raises(StillReferencedError) as caught:
        await OwnerService(office).delete(1)

    assert (caught.value.table, caught.value.fields) == ("folders", ("owner_id",))
    assert owner.name == "a"
    assert owner in office
    await FolderService(office).delete(1)
    await OwnerService(office).delete(1)


async def test_a_row_whose_children_need_it(session: AsyncSession) -> None:
    """Children whose foreign key cannot be null prevent the delete, and the error is StillReferencedError."""
    author = await AuthorService(session).create({"email": "a@example.org"})
    await BookService(session).create({"title": "a", "author_id": author.id})

    with pytest.raises(StillReferencedError):
        await AuthorService(session).delete(author.id)

    assert (await AuthorService(session).count(), await BookService(session).count()) == (1, 1)
    assert author.email == "a@example.org"


@pytest.mark.parametrize("opener", ["none", "unit"])
async def test_a_rejected_delete_changes_nothing(office: AsyncSession, opener: str) -> None:
    """A rejected delete changes no child either, and all loaded objects can still be read."""
    await add(office, Binder(id=1, name="a", lines=[Line()], remarks=[Remark()]))
    await add(office, Folder(id=2, name="b", parent_id=1))
    binder = await BinderService(office).get_one(1, options=[selectinload(Binder.lines), selectinload(Binder.remarks)])

    async def rejected() -> None:
        with pytest.raises(StillReferencedError):
            await BinderService(office).delete(1)

    if opener == "unit":
        async with unit_of_work(office):
            await rejected()
    else:
        await rejected()

    assert (binder.name, [line.folder_id for line in binder.lines], [remark.folder_id for remark in binder.remarks]) == ("a", [1], [1])
    assert (await number(office, Line), await number(office, Remark.__table__)) == (1, 1)
    assert await office.scalar(select(func.count()).where(Remark.folder_id == 1)) == 1


async def test_a_reference_that_is_checked_at_commit(session: AsyncSession) -> None:
    """A deferred foreign key that fails at COMMIT raises StillReferencedError on both databases."""
    author = await AuthorService(session).create({"email": "a@example.org"})
    book = await BookService(session).create({"title": "a", "author_id": author.id})
    await LoanService(session).create({"book_id": book.id})

    with pytest.raises(StillReferencedError):
        await BookService(session).delete(book.id)

    assert not session.in_transaction()
    assert (await BookService(session).count(), await number(session, Loan)) == (1, 1)


async def test_another_error_of_the_commit_stays_its_own(postgres_database: Database) -> None:
    """A pending row of the application with an unknown reference keeps its own error, if the database names it."""
    await postgres_database.create_tables(LibraryBase.metadata)
    async with opened(postgres_database) as session:
        tag = await TagService(session).create({"name": "a"})
        session.add(Loan(book_id=99))

        with pytest.raises(UnknownReferenceError) as caught:
            await TagService(session).delete(tag.id)

    assert caught.value.fields == ("book_id",)
