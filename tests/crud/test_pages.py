"""Offset pages: their rows, their total, and their statements."""

from typing import Any, ClassVar, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import joinedload
from tests.tables.library import Author, AuthorRead, AuthorService, Book, BookService, Tag, TagService

from fastapi_kit.crud import ReadService
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, NotFoundError
from fastapi_kit.pagination import Page, PageParams, Slice
from fastapi_kit.testing.queries import assert_max_queries

SchemaT = TypeVar("SchemaT", bound=BaseModel)


class TagRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    name: str


class Uncounted(PageParams):
    """For lists without a total."""


class CountedTo3(PageParams):
    max_total: ClassVar[int | None] = 3


@pytest.fixture
async def tags(session: AsyncSession) -> TagService:
    """Five tags, of which three have a weight."""
    service = TagService(session)
    await service.create_many([{"name": name, "weight": weight} for name, weight in zip("abcde", (1, None, 2, None, 3), strict=True)])
    return service


def shape(page: Slice[Any]) -> tuple[list[Any], int | None, bool, bool]:
    total, capped = (page.total, page.total_capped) if isinstance(page, Page) else (None, False)
    return [getattr(item, "name", item) for item in page.items], total, capped, page.has_more


async def listed(service: ReadService[Any], schema: type[SchemaT], query: PageParams) -> Slice[SchemaT]:
    """A slice where *query* asks for no total."""
    return await (service.slice_as if isinstance(query, Uncounted) else service.page_as)(schema, query)


# Rows as a schema


async def test_rows_come_as_the_schema(tags: TagService) -> None:
    """get_as(), list_as() and page_as() return instances of the schema."""
    assert await tags.get_as(TagRead, 1) == TagRead(id=1, name="a")
    assert await tags.list_as(TagRead, Tag.weight > 1, order_by=Tag.name.desc(), limit=1) == [TagRead(id=5, name="e")]
    page = await tags.page_as(TagRead, PageParams(limit=1))
    assert isinstance(page, Page)
    assert page.items == [TagRead(id=1, name="a")]


async def test_a_schema_needs_no_from_attributes(tags: TagService) -> None:
    """A read schema needs no from_attributes=True."""

    class Plain(BaseModel):
        name: str

    assert await tags.get_as(Plain, 1) == Plain(name="a")


async def test_a_missing_row_as_a_schema_is_not_found(tags: TagService) -> None:
    """get_as() raises NotFoundError for a missing row."""
    with pytest.raises(NotFoundError):
        await tags.get_as(TagRead, 99)


# Pages


PAGES: list[tuple[PageParams, tuple[list[str], int | None, bool, bool]]] = [
    (PageParams(), (["a", "b", "c", "d", "e"], 5, False, False)),
    (PageParams(limit=2), (["a", "b"], 5, False, True)),
    (PageParams(skip=2, limit=2), (["c", "d"], 5, False, True)),
    (PageParams(skip=4, limit=2), (["e"], 5, False, False)),
    (PageParams(skip=3, limit=2), (["d", "e"], 5, False, False)),
    (PageParams(skip=5, limit=2), ([], 5, False, False)),
    (PageParams(skip=2**31 - 1, limit=2), ([], 5, False, False)),
    (PageParams(limit=0), ([], 5, False, True)),
    (PageParams(skip=5, limit=0), ([], 5, False, False)),
    (Uncounted(limit=2), (["a", "b"], None, False, True)),
    (Uncounted(limit=5), (["a", "b", "c", "d", "e"], None, False, False)),
    (Uncounted(skip=7, limit=2), ([], None, False, False)),
    (Uncounted(limit=0), ([], None, False, True)),
    (Uncounted(skip=5, limit=0), ([], None, False, False)),
    (CountedTo3(limit=2), (["a", "b"], 3, True, True)),
    (CountedTo3(skip=3, limit=2), (["d", "e"], 3, True, False)),
    (CountedTo3(skip=9, limit=2), ([], 3, True, False)),
    (CountedTo3(limit=0), ([], 3, True, True)),
]


@pytest.mark.parametrize(
    ("query", "expected"), PAGES, ids=lambda value: f"{type(value).__name__} {value}" if isinstance(value, BaseModel) else ""
)
async def test_pages(tags: TagService, query: PageParams, expected: tuple[list[str], int | None, bool, bool]) -> None:
    """A page has its rows, the total, and whether there are more, also past the end and with a limit of 0."""
    page = await listed(tags, TagRead, query)

    assert shape(page) == expected
    assert (page.skip, page.limit) == (query.skip, query.limit)


CAPS: list[tuple[int, tuple[int, bool]]] = [(1, (1, True)), (4, (4, True)), (5, (5, False)), (6, (5, False))]


@pytest.mark.parametrize(("cap", "expected"), CAPS)
async def test_a_cap_counts_no_further(tags: TagService, cap: int, expected: tuple[int, bool]) -> None:
    """With max_total the total is exact below it and capped above."""

    class Capped(PageParams):
        max_total: ClassVar[int | None] = cap

    page = await tags.page_as(TagRead, Capped(limit=2))

    assert (page.total, page.total_capped) == expected


async def test_pages_meet_conditions_and_orders(tags: TagService) -> None:
    """Rows and total are of the same conditions."""
    page = await tags.page_as(TagRead, PageParams(limit=2), Tag.weight.is_not(None), order_by=Tag.weight.desc())
    assert shape(page) == (["e", "c"], 3, False, True)
    page = await tags.page_as(TagRead, CountedTo3(limit=2), Tag.weight.is_not(None), Tag.name > "a")
    assert shape(page) == (["c", "e"], 2, False, False)


async def test_pages_of_nothing(session: AsyncSession) -> None:
    """An empty table gives an empty page of each kind."""
    for query, total in ((PageParams(), 0), (Uncounted(), None), (CountedTo3(), 0)):
        assert shape(await listed(TagService(session), TagRead, query)) == ([], total, False, False)


STATEMENTS = [(PageParams, 10, 2), (PageParams, 0, 1), (Uncounted, 10, 1), (Uncounted, 0, 1), (CountedTo3, 10, 2)]


@pytest.mark.parametrize(("query", "limit", "expected"), STATEMENTS)
async def test_a_page_costs_what_it_must(library: Database, tags: TagService, query: type[PageParams], limit: int, expected: int) -> None:
    """A page takes two statements, and one without a total or without rows."""
    with assert_max_queries(library, expected) as log:
        await listed(tags, TagRead, query(limit=limit))

    assert log.count == expected


async def test_a_cap_stops_counting_in_the_database(library: Database, tags: TagService) -> None:
    """The statement that counts has a limit."""
    with assert_max_queries(library, 2) as log:
        await tags.page_as(TagRead, CountedTo3(limit=2))

    assert all("LIMIT" in statement for statement in log.statements)


@pytest.mark.parametrize("values", [{"skip": -1}, {"limit": -1}, {"limit": 1001}, {"skip": 2**31}, {"page": 1}], ids=str)
def test_bounds_are_enforced(values: dict[str, int]) -> None:
    """Parameters out of range are rejected by PageParams."""
    with pytest.raises(ValidationError):
        PageParams(**values)


async def test_pages_on_a_session_of_the_application(application_sessions: async_sessionmaker[AsyncSession]) -> None:
    """Pages include pending objects of the session."""
    async with application_sessions() as session:
        session.add_all([Tag(name="a"), Tag(name="b")])
        assert shape(await TagService(session).page_as(TagRead, PageParams(limit=1))) == (["a"], 2, False, True)


# Totals of joins, DISTINCT and GROUP BY


class Joined(AuthorService):
    def base_query(self) -> Select[Author]:
        return select(Author).join(Author.books).where(Book.title == "1")


class Distinct(AuthorService):
    def base_query(self) -> Select[Author]:
        return select(Author).join(Author.books).distinct()


class Grouped(AuthorService):
    def base_query(self) -> Select[Author]:
        return select(Author).join(Author.books).group_by(Author.id).having(func.count(Book.id) > 1)


class Loading(AuthorService):
    def base_query(self) -> Select[Author]:
        return select(Author).options(joinedload(Author.books)).where(Author.books.any())


class Ordered(AuthorService):
    def base_query(self) -> Select[Author]:
        return select(Author).where(Author.books.any()).order_by(Author.email)


@pytest.fixture
async def authors(session: AsyncSession) -> AsyncSession:
    """Six authors, four of them with two books each."""
    authors = await AuthorService(session).create_many([{"email": f"{number}@example.org"} for number in range(6)])
    rows = [{"title": title, "author_id": author.id} for author in authors[:4] for title in "12"]
    await BookService(session).create_many(rows)
    session.expunge_all()
    return session


@pytest.mark.parametrize("query", [PageParams, Uncounted, CountedTo3])
@pytest.mark.parametrize("service", [Joined, Distinct, Grouped, Loading, Ordered])
async def test_totals_are_of_rows(authors: AsyncSession, service: type[AuthorService], query: type[PageParams]) -> None:
    """The total counts rows of the model, not joined rows, and pages are full."""
    totals = {PageParams: (4, False), Uncounted: (None, False), CountedTo3: (3, True)}

    first = await listed(service(authors), AuthorRead, query(limit=3))
    last = await listed(service(authors), AuthorRead, query(skip=3, limit=3))
    past = await listed(service(authors), AuthorRead, query(skip=6, limit=3))

    assert [[author.id for author in page.items] for page in (first, last, past)] == [[1, 2, 3], [4], []]
    assert [shape(page)[1:3] for page in (first, last, past)] == [totals[query]] * 3
    assert [page.has_more for page in (first, last, past)] == [True, False, False]


class Repeating(AuthorService):
    """Its join repeats each author for each book."""

    def base_query(self) -> Select[Author]:
        return select(Author).join(Author.books)


@pytest.mark.parametrize("query", [PageParams, Uncounted])
@pytest.mark.parametrize("limit", [1, 2, 3, 5])
async def test_a_join_that_repeats_rows_loses_none(authors: AsyncSession, query: type[PageParams], limit: int) -> None:
    """Following has_more over a join that repeats rows shows as many rows as the total says."""
    items: list[int] = []
    page = await listed(Repeating(authors), AuthorRead, query(limit=limit))
    items += [author.id for author in page.items]
    while page.has_more:
        page = await listed(Repeating(authors), AuthorRead, query(skip=page.skip + limit, limit=limit))
        items += [author.id for author in page.items]

    assert set(items) == {1, 2, 3, 4}
    assert shape(page)[1] in {None, len(items)}


@pytest.mark.parametrize("service", [Joined, Distinct, Grouped, Loading, Ordered])
async def test_pages_of_joins_cost_no_more(authors: AsyncSession, library: Database, service: type[AuthorService]) -> None:
    """A page of a join takes two statements."""
    with assert_max_queries(library, 2):
        await service(authors).page_as(AuthorRead, PageParams(limit=3))


@pytest.mark.parametrize("bound", [0, -1])
async def test_a_page_cannot_do_without_a_total(tags: TagService, bound: int) -> None:
    """A bound below 1 is a mistake in the code, and the error names the method that does not count."""

    class Wrong(PageParams):
        max_total: ClassVar[int | None] = bound

    with pytest.raises(ConfigurationError, match="slice_as"):
        await tags.page_as(TagRead, Wrong())


async def test_slices_meet_conditions_orders_and_overrides(tags: TagService) -> None:
    """An override of list() is called, as for pages."""

    class Light(TagService):
        async def list(self, *conditions: Any, **options: Any) -> list[Tag]:
            return await super().list(Tag.weight < 3, *conditions, **options)

    heaviest = await tags.slice_as(TagRead, PageParams(limit=2), Tag.weight.is_not(None), order_by=Tag.weight.desc())
    light = await Light(tags.session).slice_as(TagRead, PageParams(limit=2), order_by=Tag.weight.desc())

    assert shape(heaviest) == (["e", "c"], None, False, True)
    assert shape(light) == (["c", "a"], None, False, False)
    assert isinstance(heaviest, Slice)
