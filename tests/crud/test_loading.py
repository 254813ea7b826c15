"""Reading rows with their relationships for a response."""

import pytest
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession
from tests.models import AuthorRead, AuthorService, BookService

from fastapi_kit.db import Database
from fastapi_kit.pagination import PageParams
from fastapi_kit.testing import assert_max_queries


class BookRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    title: str
    author: AuthorRead


class Shelved(BaseModel):
    title: str


class AuthorWithBooks(AuthorRead):
    works: list[Shelved] = Field(validation_alias="books")


class Circular(BaseModel):
    title: str
    author: "AuthorOfCircular | None"


class AuthorOfCircular(BaseModel):
    email: str
    books: list[Circular]


@pytest.fixture
async def books(library: Database) -> None:
    """Three authors with two books each."""
    async with library.begin() as session:
        authors = await AuthorService(session).create_many([{"email": f"{number}@example.org"} for number in range(3)])
        await BookService(session).create_many([{"title": title, "author_id": author.id} for author in authors for title in "ab"])


@pytest.mark.usefixtures("books")
async def test_a_nested_row_is_loaded(session: AsyncSession) -> None:
    """D22: get_as() loads the relationship that the schema names."""
    book = await BookService(session).get_as(BookRead, 1)

    assert (book.title, book.author.email) == ("a", "0@example.org")


@pytest.mark.usefixtures("books")
async def test_a_page_of_nested_rows_takes_a_fixed_number_of_queries(session: AsyncSession, library: Database) -> None:
    """D32: rows, their children and the total, whatever the number of rows; an alias names the attribute."""
    with assert_max_queries(library, 3):
        page = await AuthorService(session).page_as(AuthorWithBooks, PageParams())

    assert [[book.title for book in author.works] for author in page.items] == [["a", "b"]] * 3
    assert page.total == 3


@pytest.mark.usefixtures("books")
async def test_a_flat_schema_loads_no_relationship(session: AsyncSession, library: Database) -> None:
    """D32: one query for the rows."""
    with assert_max_queries(library, 1):
        assert len(await AuthorService(session).list_as(AuthorRead)) == 3


def test_a_schema_that_contains_itself_is_followed_once_round() -> None:
    """D32: its options end."""
    from sqlalchemy import inspect
    from tests.models import Author

    from fastapi_kit.crud.loading import options_for

    assert len(options_for(AuthorOfCircular, inspect(Author))) == 1
