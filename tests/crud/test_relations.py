"""What an update does to relationships."""

from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload
from tests.tables.library import Author, AuthorService, Book, BookService


async def test_a_loaded_collection_stays_loaded(session: AsyncSession) -> None:
    """A collection that was loaded before an update is still loaded after it."""
    author = await AuthorService(session).create({"email": "a@example.org"})
    await BookService(session).create({"title": "One", "author_id": author.id})
    author = await AuthorService(session).get_one(author.id, options=[selectinload(Author.books)])

    await AuthorService(session).update(author.id, {"name": "A"})

    assert [book.title for book in author.books] == ["One"]
    assert not session.dirty


async def test_relationships_that_were_not_loaded_are_untouched(session: AsyncSession) -> None:
    """An update neither loads nor empties relationships that were not loaded."""
    author = await AuthorService(session).create({"email": "a@example.org"})
    await BookService(session).create({"title": "One", "author_id": author.id})
    session.expunge_all()

    author = await AuthorService(session).update(author.id, {"name": "A"})

    assert "books" in inspect(author).unloaded
    assert await BookService(session).count(Book.author_id == author.id) == 1


async def test_a_reference_whose_key_changed_does_not_show_the_old_row(session: AsyncSession) -> None:
    """A changed foreign key unloads the relationship; reading it again gives the new row."""
    one, two = await AuthorService(session).create_many([{"email": "1@example.org"}, {"email": "2@example.org"}])
    book = await BookService(session).create({"title": "One", "author": one})
    assert book.author is one

    await BookService(session).update(book.id, {"author_id": two.id})

    assert "author" in inspect(book).unloaded
    book = await BookService(session).get_one(book.id, options=[selectinload(Book.author)])
    assert book.author is two


async def test_a_reference_set_as_an_object_is_kept(session: AsyncSession) -> None:
    """Setting the relationship writes the foreign key and keeps the object loaded."""
    one, two = await AuthorService(session).create_many([{"email": "1@example.org"}, {"email": "2@example.org"}])
    book = await BookService(session).create({"title": "One", "author": one})

    await BookService(session).update(book.id, {"author": two})

    assert book.author is two
    assert book.author_id == two.id
