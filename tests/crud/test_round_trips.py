"""What a service costs: round trips to PostgreSQL, and statements on both databases."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession
from tests.crud.kinds import opened
from tests.tables.library import Author, AuthorCreate, AuthorRead, AuthorService, AuthorUpdate, LibraryBase, TagService
from tests.wire import Wire, counted

from fastapi_kit.db import Database, unit_of_work
from fastapi_kit.errors import ConflictError
from fastapi_kit.pagination import PageParams
from fastapi_kit.testing.queries import assert_max_queries


@pytest.fixture
async def wired(postgres_url: URL, postgres_database: Database) -> AsyncIterator[tuple[Wire, Database]]:
    """The library's tables behind a proxy that counts round trips."""
    await postgres_database.create_tables(LibraryBase.metadata)
    async with counted(postgres_url) as wire:
        database = Database(wire.url)
        yield wire, database
        await database.dispose()


async def read_one(session: AsyncSession) -> None:
    await AuthorService(session).get(1)


async def read_list(session: AsyncSession) -> None:
    await AuthorService(session).list()


async def read_page(session: AsyncSession) -> None:
    await AuthorService(session).page_as(AuthorRead, PageParams())


async def update(session: AsyncSession) -> None:
    author = await AuthorService(session).update(1, AuthorUpdate(name=f"name {id(session)}"))
    assert author.updated_at > author.created_at


async def update_nothing(session: AsyncSession) -> None:
    await AuthorService(session).update(1, AuthorUpdate())


_numbers = iter(range(1000))


async def create(session: AsyncSession) -> None:
    author = await AuthorService(session).create(AuthorCreate(email=f"{next(_numbers)}@example.org"))
    assert author.created_at == author.updated_at


async def create_in_a_unit(session: AsyncSession) -> None:
    async with unit_of_work(session):
        await create(session)


async def create_rejected(session: AsyncSession) -> None:
    with pytest.raises(ConflictError):
        await AuthorService(session).create(AuthorCreate(email="taken@example.org"))


async def create_after_a_read_by_hand(session: AsyncSession) -> None:
    await session.get(Author, 1)
    await create(session)


ROUND_TRIPS = [
    (read_one, 1),
    (read_list, 1),
    (read_page, 2),
    (create, 3),
    (create_rejected, 3),
    (create_in_a_unit, 3),
    (create_after_a_read_by_hand, 6),
    (update, 1),
    (update_nothing, 1),
]


@pytest.mark.parametrize(("work", "expected"), ROUND_TRIPS, ids=[work.__name__ for work, _ in ROUND_TRIPS])
async def test_round_trips(wired: tuple[Wire, Database], work: Callable[[AsyncSession], Awaitable[None]], expected: int) -> None:
    """A read takes one round trip; a write takes those of its transaction and no more."""
    wire, database = wired
    async with database.begin() as session:
        await AuthorService(session).create_many([{"email": "taken@example.org"}, {"email": "other@example.org"}])

    used = 0
    for _ in range(3):  # the driver prepares each statement, and looks types up, when it meets them first
        async with opened(database) as session:
            before = wire.round_trips
            await work(session)
        used = wire.round_trips - before

    assert used == expected


async def test_a_delete_is_one_round_trip(wired: tuple[Wire, Database]) -> None:
    """A delete that needs no flush is one DELETE without BEGIN and COMMIT."""
    wire, database = wired
    async with database.begin() as session:
        tags = await TagService(session).create_many([{"name": name} for name in "abc"])

    used = 0
    for tag in tags:
        async with opened(database) as session:
            before = wire.round_trips
            await TagService(session).delete(tag.id)
        used = wire.round_trips - before

    assert used == 1


async def test_create_many_of_a_thousand_is_few_statements(session: AsyncSession, library: Database) -> None:
    """A thousand rows take at most three statements on both databases, whatever their defaults are."""
    rows = [{"name": f"tag {number}", "weight": number if number % 3 else None} for number in range(1000)]

    with assert_max_queries(library, 3):
        tags = await TagService(session).create_many(rows)

    assert [tag.name for tag in tags] == [row["name"] for row in rows]


@pytest.mark.parametrize(
    ("work", "expected"),
    [(read_one, 1), (read_list, 1), (read_page, 2), (create, 1), (create_rejected, 1), (update, 1)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
async def test_statements(library: Database, work: Callable[[AsyncSession], Awaitable[None]], expected: int) -> None:
    """Only the statements of the work itself are sent; a rejected write sends no further one."""
    async with library.begin() as session:
        await AuthorService(session).create_many([{"email": "taken@example.org"}, {"email": "other@example.org"}])

    async with opened(library) as session:
        with assert_max_queries(library, expected) as log:
            await work(session)

    assert log.count == expected
