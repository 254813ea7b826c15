"""Many requests at the same time, each with its own session: one wins, and the others get an error."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from tests.crud.kinds import opened
from tests.tables.library import AuthorCreate, AuthorService, LeafletService, LibraryBase, ShelfService, Tag, TagCreate, TagService
from tests.thorough import FULL

from fastapi_kit.crud import FOR_UPDATE
from fastapi_kit.db import Database, run_transaction, unit_of_work
from fastapi_kit.errors import ConflictError, NotFoundError, StaleVersionError, UnavailableError

REQUESTS = 20 if FULL else 8
LOST = (NotFoundError, ConflictError, UnavailableError)

Request = Callable[[AsyncSession], Awaitable[object]]


async def at_once(database: Database, *requests: Request) -> list[object]:
    """Run each request with its own session at the same time; return results and exceptions."""

    async def run(request: Request) -> object:
        async with opened(database) as session:
            return await request(session)

    return list(await asyncio.gather(*map(run, requests), return_exceptions=True))


async def at_the_same_moment(database: Database, *requests: Request) -> list[object]:
    """As at_once(), but each request has a connection and a warm statement cache before the first begins."""
    ready = asyncio.Barrier(len(requests))

    def waiting(request: Request) -> Request:
        async def run(session: AsyncSession) -> object:
            await TagService(session).list()
            await ready.wait()
            return await request(session)

        return run

    return await at_once(database, *map(waiting, requests))


def kinds(results: list[object]) -> Counter[str]:
    return Counter(type(result).__name__ for result in results)


def unexpected(results: list[object]) -> list[object]:
    return [result for result in results if isinstance(result, BaseException) and not isinstance(result, LOST)]


@pytest.mark.parametrize("race", [at_once, at_the_same_moment])
async def test_one_of_many_creates_of_one_key_wins(library: Database, race: Callable[..., Coroutine[Any, Any, list[object]]]) -> None:
    """All others get ConflictError that names the field."""
    results = await race(library, *[lambda session: AuthorService(session).create(AuthorCreate(email="one@example.org"))] * REQUESTS)

    assert kinds(results) == {"Author": 1, "ConflictError": REQUESTS - 1}
    assert {error.fields for error in results if isinstance(error, ConflictError)} == {("email",)}
    async with opened(library) as session:
        assert await AuthorService(session).count() == 1


async def test_one_of_many_creates_of_many_rows_wins(library: Database) -> None:
    """One create_many() stores all its rows, and the others store none."""

    def create(number: int) -> Request:
        rows = [{"name": f"{number}"}, {"name": "shared"}, {"name": f"{number} again"}]
        return lambda session: TagService(session).create_many(rows)

    results = await at_the_same_moment(library, *(create(number) for number in range(REQUESTS)))

    assert kinds(results) == {"list": 1, "ConflictError": REQUESTS - 1}
    async with opened(library) as session:
        assert await TagService(session).count() == 3


async def test_one_of_many_creates_of_a_given_key_wins(library: Database) -> None:
    """One create with a given composite key wins, and the others get ConflictError."""
    results = await at_the_same_moment(library, *[lambda session: ShelfService(session).create({"room": 1, "number": 1})] * REQUESTS)

    assert kinds(results) == {"Shelf": 1, "ConflictError": REQUESTS - 1}


async def test_many_creates_of_different_keys_all_win(library: Database) -> None:
    """All creates with different keys succeed and return their own row."""

    def create(number: int) -> Request:
        return lambda session: TagService(session).create(TagCreate(name=str(number)))

    results = await at_the_same_moment(library, *(create(number) for number in range(REQUESTS)))

    tags = [result for result in results if isinstance(result, Tag)]
    assert [tag.name for tag in tags] == [str(number) for number in range(REQUESTS)]
    assert len({tag.id for tag in tags}) == REQUESTS


@pytest.fixture
async def rows(library: Database) -> Database:
    """A plain row, a row that needs a flush, and a row with a version, each with key 1."""
    async with library.begin() as session:
        await TagService(session).create({"name": "a", "weight": 0})
        await AuthorService(session).create({"email": "a@example.org"})
        await LeafletService(session).create({"text": "a"})
    return library


SERVICES: list[tuple[type[Any], dict[str, Any]]] = [
    (TagService, {"weight": 1}),
    (AuthorService, {"name": "b"}),
    (LeafletService, {"text": "b"}),
]
services = pytest.mark.parametrize(("service", "change"), SERVICES, ids=lambda value: getattr(value, "__name__", ""))


@services
async def test_patches_and_deletes_of_one_row(rows: Database, service: type[Any], change: dict[str, Any]) -> None:
    """Late updates and deletes get NotFoundError or StaleVersionError, and no other error."""

    def patch(session: AsyncSession) -> Awaitable[object]:
        return service(session).update(1, change)

    def delete(session: AsyncSession) -> Awaitable[object]:
        return service(session).delete(1)

    results = await at_the_same_moment(rows, *[patch, delete] * (REQUESTS // 2))

    assert unexpected(results) == []
    deleted = results[1::2].count(None)
    assert deleted == 1 or (deleted == 0 and service is LeafletService)
    async with opened(rows) as session:
        assert await service(session).count() == 1 - deleted


@services
async def test_one_of_many_deletes_of_one_row_wins(rows: Database, service: type[Any], change: dict[str, Any]) -> None:
    """One delete wins and the others get NotFoundError, by a statement or by a flush."""
    results = await at_the_same_moment(rows, *[lambda session: service(session).delete(1)] * REQUESTS)

    assert unexpected(results) == []
    assert results.count(None) == 1
    async with opened(rows) as session:
        assert await service(session).count() == 0


async def test_one_of_many_patches_of_an_expected_version_wins(rows: Database) -> None:
    """One update with the expected version wins, and the others get StaleVersionError."""

    def patch(number: int) -> Request:
        return lambda session: LeafletService(session).update(1, {"text": str(number)}, expected_version=1)

    results = await at_the_same_moment(rows, *(patch(number) for number in range(REQUESTS)))

    assert kinds(results) == {"Leaflet": 1, "StaleVersionError": REQUESTS - 1}
    async with opened(rows) as session:
        assert (await LeafletService(session).get_one(1)).version == 2


async def test_no_patch_of_a_versioned_row_is_lost(rows: Database) -> None:
    """The version counts the updates that succeeded; the others got an error."""

    def patch(number: int) -> Request:
        return lambda session: LeafletService(session).update(1, {"text": str(number)})

    results = await at_the_same_moment(rows, *(patch(number) for number in range(REQUESTS)))

    assert [error for error in unexpected(results) if not isinstance(error, StaleVersionError)] == []
    async with opened(rows) as session:
        assert (await LeafletService(session).get_one(1)).version == 1 + kinds(results)["Leaflet"]


async def test_expressions_lose_no_increment(rows: Database) -> None:
    """Increments by a SQL expression all succeed and none is lost."""
    results = await at_the_same_moment(rows, *[lambda session: TagService(session).update(1, {"weight": Tag.weight + 1})] * REQUESTS)

    assert kinds(results) == {"Tag": REQUESTS}
    async with opened(rows) as session:
        assert (await TagService(session).get_one(1)).weight == REQUESTS


async def test_locked_rows_lose_no_increment(rows: Database) -> None:
    """Increments of a locked row all succeed and none is lost."""

    async def add_one(session: AsyncSession) -> object:
        async with unit_of_work(session):
            tag = await TagService(session).get_one(1, lock=FOR_UPDATE)
            return await TagService(session).update(1, {"weight": (tag.weight or 0) + 1})

    results = await at_the_same_moment(rows, *[add_one] * REQUESTS)

    assert kinds(results) == {"Tag": REQUESTS}
    async with opened(rows) as session:
        assert (await TagService(session).get_one(1)).weight == REQUESTS


# SQLite has one writer


@pytest.fixture
async def sqlite(sqlite_database: Database) -> Database:
    """The library's tables on SQLite."""
    await sqlite_database.create_tables(LibraryBase.metadata)
    return sqlite_database


async def read_then_create(session: AsyncSession) -> object:
    await TagService(session).count()
    return await TagService(session).create({"name": f"tag {id(session)}"})


async def read_by_hand_then_create(session: AsyncSession) -> object:
    await session.get(Tag, 1)
    return await TagService(session).create({"name": f"tag {id(session)}"})


async def read_then_create_in_a_unit(session: AsyncSession) -> object:
    async with unit_of_work(session):
        await TagService(session).count()
        return await TagService(session).create({"name": f"tag {id(session)}"})


async def read_then_write_by_hand(session: AsyncSession) -> object:
    await session.get(Tag, 1)
    tag = Tag(name=f"tag {id(session)}")
    session.add(tag)
    await session.commit()
    return tag


async def read_then_create_many(session: AsyncSession) -> object:
    await TagService(session).list()
    (tag, _) = await TagService(session).create_many([{"name": f"tag {id(session)}"}, {"name": f"other {id(session)}"}])
    return tag


@pytest.mark.parametrize(
    "request_", [read_then_create, read_by_hand_then_create, read_then_create_in_a_unit, read_then_write_by_hand, read_then_create_many]
)
async def test_requests_that_read_and_then_write_all_succeed(sqlite: Database, request_: Request) -> None:
    """Twenty requests on SQLite read and then write, and none finds the database locked."""
    results = await at_the_same_moment(sqlite, *[request_] * REQUESTS)

    assert kinds(results) == {"Tag": REQUESTS}


async def test_readers_do_not_wait_for_a_writer(sqlite: Database) -> None:
    """Reads during a write return what is committed."""
    async with sqlite.begin() as writer:
        await TagService(writer).create({"name": "uncommitted"})
        results = await at_once(sqlite, *[lambda session: TagService(session).count()] * REQUESTS)

    assert results == [0] * REQUESTS


# Serialization failures of PostgreSQL


@pytest.mark.only_full
async def test_a_whole_unit_can_be_run_again(postgres_database: Database) -> None:
    """Of two units that lock two rows in opposite orders one is run again, and both succeed."""
    await postgres_database.create_tables(LibraryBase.metadata)
    async with postgres_database.begin() as session:
        await TagService(session).create_many([{"name": "a", "weight": 0}, {"name": "b", "weight": 0}])
    first_time = asyncio.Barrier(2)
    waits = iter((True, True))

    async def add_to(session: AsyncSession, order: tuple[int, int]) -> None:
        await TagService(session).update(order[0], {"weight": Tag.weight + 1})
        if next(waits, False):
            await first_time.wait()
        await TagService(session).update(order[1], {"weight": Tag.weight + 1})

    await asyncio.gather(
        run_transaction(postgres_database.begin, lambda session: add_to(session, (1, 2))),
        run_transaction(postgres_database.begin, lambda session: add_to(session, (2, 1))),
    )

    async with opened(postgres_database) as session:
        assert [tag.weight for tag in await TagService(session).list()] == [2, 2]
