"""One row by its columns or by conditions, a delete that may find nothing, and tables of two foreign keys."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import Select, false, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload
from tests.tables import press
from tests.tables.library import (
    Author,
    AuthorRead,
    AuthorService,
    BookService,
    Loan,
    LoanService,
    ShelfService,
    Tag,
    TagService,
)

from fastapi_kit.crud import FOR_UPDATE, CRUDService, RowLock
from fastapi_kit.db import Database, unit_of_work
from fastapi_kit.errors import (
    ConfigurationError,
    ConflictError,
    MultipleMatchesError,
    NotFoundError,
    StillReferencedError,
    UnavailableError,
    UnknownReferenceError,
)
from fastapi_kit.testing.queries import assert_max_queries


class TaggingService(CRUDService[press.Tagging, Any, Any]): ...


class BookTitles(BaseModel):
    title: str


class AuthorWithBooks(BaseModel):
    email: str
    books: list[BookTitles]


@pytest.fixture
async def authors(session: AsyncSession) -> AuthorService:
    """Two authors of one name; the first has two books."""
    service = AuthorService(session)
    ada, _ = await service.create_many([{"email": "ada@example.org", "name": "A"}, {"email": "bob@example.org", "name": "A"}])
    await BookService(session).create_many([{"title": title, "author_id": ada.id} for title in ("one", "two")])
    session.expunge_all()
    return service


@pytest.fixture
async def other(library: Database) -> AsyncIterator[AsyncSession]:
    """Another client's session."""
    async with library.sessions() as session:
        yield session


# By columns


async def test_get_one_by_returns_the_row_or_says_what_is_missing(authors: AuthorService) -> None:
    """A missing row is a NotFoundError (404) with the values, several rows are an error too."""
    assert (await authors.get_one_by(email="bob@example.org", name="A")).email == "bob@example.org"
    with pytest.raises(NotFoundError) as missing:
        await authors.get_one_by(email="eve@example.org")
    with pytest.raises(MultipleMatchesError):
        await authors.get_one_by(name="A")
    with pytest.raises(NotFoundError):
        await authors.get_one_by(email="x" * 51)
    assert (missing.value.model, missing.value.ident) == (Author, {"email": "eve@example.org"})


async def test_the_row_of_columns_is_loaded_with_options(authors: AuthorService, library: Database) -> None:
    """Collections come with the row."""
    with assert_max_queries(library, 2):
        found = await authors.get_by(email="ada@example.org", options=[selectinload(Author.books)])
    assert found is not None
    assert [book.title for book in found.books] == ["one", "two"]
    assert len((await authors.get_one_by(email="ada@example.org", options=[selectinload(Author.books)])).books) == 2


async def test_the_row_of_columns_is_locked(authors: AuthorService, other: AsyncSession, library: Database) -> None:
    """Nobody else gets the lock before the transaction ends. SQLite locks the whole database."""
    async with unit_of_work(authors.session):
        await authors.get_one_by(email="ada@example.org", lock=FOR_UPDATE)
        if library.engine.dialect.name == "postgresql":
            with pytest.raises(UnavailableError):
                await AuthorService(other).get_by(email="ada@example.org", lock=RowLock(nowait=True))
            assert await AuthorService(other).get_by(email="ada@example.org", lock=RowLock(skip_locked=True)) is None
    assert await AuthorService(other).get_by(email="ada@example.org", lock=FOR_UPDATE) is not None


# As a schema, by conditions


async def test_conditions_find_a_row_as_a_schema(authors: AuthorService, library: Database) -> None:
    """One statement reads a flat schema, one more each collection."""
    with assert_max_queries(library, 1):
        assert (await authors.get_as(AuthorRead, Author.email == "bob@example.org")).email == "bob@example.org"
    with assert_max_queries(library, 2):
        ada = await authors.get_as(AuthorWithBooks, Author.name == "A", Author.email.startswith("ada"))
    assert [book.title for book in ada.books] == ["one", "two"]


async def test_conditions_that_find_no_row_or_several_are_errors(authors: AuthorService) -> None:
    """The errors name the conditions, without values."""
    with pytest.raises(NotFoundError) as missing:
        await authors.get_as(AuthorRead, Author.email == "secret@example.org")
    with pytest.raises(MultipleMatchesError) as several:
        await authors.get_as(AuthorRead, Author.name == "A")
    assert "authors.email = " in str(missing.value)
    assert "secret" not in str(missing.value)
    assert several.value.fields == ("authors.name = :name_1",)


async def test_conditions_respect_base_query_and_an_override_of_get(authors: AuthorService) -> None:
    """A row that base_query hides is missing, and an override of get() decides what is shown."""

    class Hidden(AuthorService):
        def base_query(self) -> Select[Author]:
            return super().base_query().where(Author.email != "ada@example.org")

    class Careful(AuthorService):
        async def get(self, ident: object, **options: Any) -> Author | None:
            found = await super().get(ident, **options)
            return None if found is None or found.email.startswith("bob") else found

    with pytest.raises(NotFoundError):
        await Hidden(authors.session).get_as(AuthorRead, Author.email == "ada@example.org")
    assert (await Careful(authors.session).get_as(AuthorRead, Author.email == "ada@example.org")).email == "ada@example.org"
    with pytest.raises(NotFoundError):
        await Careful(authors.session).get_as(AuthorRead, Author.email == "bob@example.org")


# Delete if there


async def test_discard_says_whether_it_deleted(session: AsyncSession) -> None:
    """A missing row is no error; a key that no row can have is a missing row."""
    tag = await TagService(session).create({"name": "a"})

    assert await TagService(session).discard(tag.id) is True
    assert await TagService(session).discard(tag.id) is False
    assert await TagService(session).discard(10**30) is False
    assert await TagService(session).count() == 0
    with pytest.raises(ConfigurationError):
        await TagService(session).discard("a")


async def test_discard_respects_base_query_and_references(authors: AuthorService) -> None:
    """A hidden row is missing and stays. A row that others refer to is not discarded."""

    class Nothing(TagService):
        def base_query(self) -> Select[Tag]:
            return super().base_query().where(false())

    tag = await TagService(authors.session).create({"name": "a"})
    book_id = (await BookService(authors.session).get_one_by(title="one")).id
    await LoanService(authors.session).create({"book_id": book_id})

    assert await Nothing(authors.session).discard(tag.id) is False
    assert await TagService(authors.session).get(tag.id) is not None
    with pytest.raises(StillReferencedError):
        await BookService(authors.session).discard(book_id)
    assert await LoanService(authors.session).exists(Loan.book_id == book_id)


async def test_discard_of_a_missing_row_undoes_nothing(session: AsyncSession, other: AsyncSession) -> None:
    """What else the unit writes, and what waits for its commit, stays."""
    called = list[str]()
    async with unit_of_work(session) as uow:
        uow.on_commit(called.append, "mail")
        await TagService(session).create({"name": "kept"})
        session.add(Tag(name="pending"))
        assert await TagService(session).discard(99) is False

    assert called == ["mail"]
    assert sorted((await other.scalars(select(Tag.name))).all()) == ["kept", "pending"]


async def test_discard_calls_an_override_of_delete(session: AsyncSession) -> None:
    """What the override raises for another row is raised."""
    seen = list[object]()

    class Guarded(TagService):
        async def delete(self, ident: object, /, *, expected_version: int | None = None) -> None:
            seen.append(ident)
            await self.get_one(7)
            await super().delete(ident, expected_version=expected_version)

    with pytest.raises(NotFoundError):
        await Guarded(session).discard(8)
    assert await Guarded(session).discard(7) is False
    assert seen == [8, 7]


async def test_two_may_discard_one_row(library: Database, session: AsyncSession) -> None:
    """One of them deletes it, neither fails."""
    tag = await TagService(session).create({"name": "a"})

    async def discard() -> bool:
        async with library.sessions() as own:
            return await TagService(own).discard(tag.id)

    assert sorted(await asyncio.gather(discard(), discard())) == [False, True]


async def test_a_loaded_row_that_is_discarded_leaves_the_session(session: AsyncSession) -> None:
    """As with delete()."""
    shelf = await ShelfService(session).create({"room": 1, "number": 2})
    assert await ShelfService(session).discard({"room": 1, "number": 2}) is True
    assert await ShelfService(session).get((1, 2)) is None
    assert shelf not in session


# A table of two foreign keys


async def test_a_table_of_two_keys_needs_no_schemas(database: Database) -> None:
    """Any stands for the schemas: rows are created from mappings, found and discarded by the pair of keys."""
    await database.create_tables(press.PressBase.metadata)
    async with database.begin() as session:
        session.add_all([press.Article(id=1, title="one"), press.Article(id=2, title="two"), press.Tag(name="new")])
    async with database.sessions() as session:
        taggings = TaggingService(session)

        created = await taggings.create({"article_id": 1, "tag_name": "new"})
        with pytest.raises(ConflictError):
            await taggings.create({"article_id": 1, "tag_name": "new"})
        with pytest.raises(UnknownReferenceError):
            await taggings.create({}, article_id=1, tag_name="unknown")

        assert (created.article_id, created.tag_name) == (1, "new")
        assert await taggings.exists(press.Tagging.article_id == 1, press.Tagging.tag_name == "new")
        assert await taggings.get_by(article_id=2) is None
        assert [await taggings.discard((1, "new")), await taggings.discard((1, "new"))] == [True, False]
