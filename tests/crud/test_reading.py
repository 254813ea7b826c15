"""Reading rows: by key, by columns, in lists, locked, streamed, and restricted by base_query()."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import date
from uuid import UUID

import pytest
from pydantic import BaseModel
from sqlalchemy import Select, TextClause, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import joinedload, selectinload
from tests.crud.kinds import opened
from tests.tables.library import Author, AuthorService, Book, BookService, LibraryBase, Shelf, ShelfService, Tag, TagService
from tests.tables.press import Article, Label, LabelledArticle, PressBase

from fastapi_kit.crud import FOR_UPDATE, CRUDService, ReadService, RowLock
from fastapi_kit.db import Database, unit_of_work
from fastapi_kit.errors import ConfigurationError, InvalidQueryError, MultipleMatchesError, NotFoundError, UnavailableError
from fastapi_kit.testing.queries import assert_max_queries


def tags_numbered(count: int) -> TextClause:
    """Return one INSERT of this many tags."""
    numbers = f"WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {count})"
    return text(f"INSERT INTO tags (name) {numbers} SELECT 'tag ' || i FROM numbers")


@pytest.fixture
async def tags(library: Database) -> list[Tag]:
    """Five tags: two without a weight, two with the same."""
    rows = [{"name": "a", "weight": 1}, {"name": "b"}, {"name": "c", "weight": 3}, {"name": "d", "weight": 3}, {"name": "e"}]
    async with library.begin() as session:
        return await TagService(session).create_many(rows)


# One row


async def test_get_finds_a_row_by_its_key(session: AsyncSession, tags: list[Tag]) -> None:
    """get() and get_one() return the row."""
    assert (await TagService(session).get_one(tags[2].id)).name == "c"
    found = await TagService(session).get(tags[2].id)
    assert found is not None
    assert found.name == "c"


async def test_get_of_no_row_is_none_and_get_one_raises(session: AsyncSession, tags: list[Tag]) -> None:
    """For a missing row get() returns None, and get_one() raises NotFoundError with model and key."""
    assert await TagService(session).get(99) is None
    with pytest.raises(NotFoundError) as caught:
        await TagService(session).get_one(99)
    assert (caught.value.model, caught.value.ident) == (Tag, 99)


@pytest.mark.parametrize("ident", [10**10, -(10**10), 10**30, None])
async def test_a_key_that_no_row_can_have_is_no_row(session: AsyncSession, tags: list[Tag], ident: object) -> None:
    """A key beyond the range of its column is a missing row on both databases."""
    service = TagService(session)

    assert await service.get(ident) is None
    assert await service.get_many([ident, tags[0].id]) == [await service.get_one(tags[0].id)]
    with pytest.raises(NotFoundError):
        await service.update(ident, {"weight": 1})
    with pytest.raises(NotFoundError):
        await service.delete(ident)


@pytest.mark.parametrize("ident", ["abc", "1", b"1", True, UUID(int=1), date(2020, 1, 1)], ids=str)
async def test_a_key_of_another_type_is_rejected(library: Database, session: AsyncSession, tags: list[Tag], ident: object) -> None:
    """A key of the wrong type raises ConfigurationError on both databases, before any SQL."""
    service = TagService(session)
    reads: list[Callable[[], Awaitable[object]]] = [
        lambda: service.get(ident),
        lambda: service.get_many([ident]),
        lambda: service.update(ident, {"weight": 1}),
        lambda: service.delete(ident),
    ]
    with assert_max_queries(library, 0):
        for read in reads:
            with pytest.raises(ConfigurationError, match=r"Tag\.id"):
                await read()


async def test_a_large_key_that_sqlite_stores_is_found(sqlite_database: Database) -> None:
    """A key of 64 bits is found on SQLite, whatever the type of its column is."""
    await sqlite_database.create_tables(LibraryBase.metadata)
    async with sqlite_database.begin() as session:
        await session.execute(text("INSERT INTO tags (id, name) VALUES (:id, 'large')"), {"id": 2**40})

    async with opened(sqlite_database) as session:
        assert (await TagService(session).get_one(2**40)).name == "large"


async def test_get_is_one_statement(library: Database, session: AsyncSession, tags: list[Tag]) -> None:
    """get() takes one statement, for a missing row too."""
    for ident in (tags[0].id, 99):
        with assert_max_queries(library, 1) as log:
            await TagService(session).get(ident)
        assert log.count == 1


async def test_get_loads_what_options_ask_for(session: AsyncSession) -> None:
    """Loader options load collections by a join or a select, and each row comes once."""
    author = await AuthorService(session).create({"email": "ada@example.org"})
    await BookService(session).create_many([{"title": title, "author_id": author.id} for title in "ab"])

    for loader in (joinedload, selectinload):
        session.expunge_all()
        found = await AuthorService(session).get_one(author.id, options=[loader(Author.books)])
        assert [book.title for book in found.books] == ["a", "b"]


async def test_get_by_finds_the_one_row(session: AsyncSession, tags: list[Tag]) -> None:
    """get_by() returns the row for which all values match."""
    found = await TagService(session).get_by(name="c", weight=3)

    assert found is not None
    assert found.id == tags[2].id
    assert await TagService(session).get_by(name="c", weight=1) is None


async def test_get_by_none_is_null(session: AsyncSession, tags: list[Tag]) -> None:
    """None means IS NULL."""
    found = await TagService(session).get_by(name="b", weight=None)

    assert found is not None
    assert found.id == tags[1].id
    assert await TagService(session).get_by(name="a", weight=None) is None


async def test_get_by_with_several_matches_is_an_error(session: AsyncSession, tags: list[Tag]) -> None:
    """Several matches raise MultipleMatchesError that names the columns."""
    with pytest.raises(MultipleMatchesError) as caught:
        await TagService(session).get_by(weight=3)
    assert (caught.value.model, caught.value.fields) == (Tag, ("weight",))


@pytest.mark.parametrize("columns", [{}, {"nr": 1}, {"name": "a", "nr": 1}, {"books": 1}, {"__mapper__": 1}, {"metadata": 1}], ids=str)
async def test_get_by_rejects_names_that_are_no_columns(library: Database, session: AsyncSession, columns: dict[str, object]) -> None:
    """Unknown names, relationships and no name at all raise ConfigurationError before any SQL."""
    with assert_max_queries(library, 0), pytest.raises(ConfigurationError):
        await AuthorService(session).get_by(**columns)


@pytest.mark.parametrize(
    "columns", [{"weight": 10**10}, {"weight": 10**30}, {"name": "a\0"}, {"name": "\ud800"}, {"name": "a" * 51}], ids=ascii
)
async def test_get_by_a_value_that_no_row_can_have_is_none(session: AsyncSession, tags: list[Tag], columns: dict[str, object]) -> None:
    """A value beyond the range of its column matches no row on both databases."""
    assert await TagService(session).get_by(**columns) is None


# Many rows


async def test_get_many_keeps_the_order_asked(session: AsyncSession, tags: list[Tag]) -> None:
    """Rows come in the order of the keys, each once, without unknown keys, for any iterable."""
    asked = [tags[3].id, 99, tags[0].id, tags[3].id, tags[1].id]

    for idents in (asked, iter(asked), (ident for ident in asked)):
        assert [tag.name for tag in await TagService(session).get_many(idents)] == ["d", "a", "b"]


async def test_get_many_of_composite_keys_keeps_the_order_asked(session: AsyncSession) -> None:
    """Composite keys match as pairs."""
    await ShelfService(session).create_many([{"room": room, "number": number} for room in (1, 2) for number in (1, 2)])

    shelves = await ShelfService(session).get_many([(2, 1), {"room": 1, "number": 2}, (3, 3)])

    assert [(shelf.room, shelf.number) for shelf in shelves] == [(2, 1), (1, 2)]


async def test_get_many_of_nothing_sends_nothing(library: Database, session: AsyncSession) -> None:
    """No keys send no SQL."""
    with assert_max_queries(library, 0):
        assert await TagService(session).get_many([]) == []
        assert await TagService(session).get_many(iter(())) == []
        assert await TagService(session).get_many([10**30]) == []


@pytest.mark.only_full
async def test_get_many_takes_40_000_keys(library: Database, session: AsyncSession) -> None:
    """More keys than one statement can bind are read in a few statements."""
    await session.execute(tags_numbered(40_000))
    await session.commit()

    with assert_max_queries(library, 8):
        found = await TagService(session).get_many(range(40_000, 0, -1))

    assert [tag.id for tag in found] == list(range(40_000, 0, -1))


@pytest.mark.only_full
async def test_get_many_takes_20_000_composite_keys(library: Database, session: AsyncSession) -> None:
    """Composite keys count by their columns."""
    await session.execute(insert(Shelf), [{"room": room, "number": number} for room in (1, 2, 3) for number in (1, 2, 3)])
    await session.commit()
    asked = [(room, number) for room in range(100, 0, -1) for number in range(1, 201)]

    with assert_max_queries(library, 8):
        found = await ShelfService(session).get_many(asked)

    assert [(shelf.room, shelf.number) for shelf in found] == [(room, number) for room in (3, 2, 1) for number in (1, 2, 3)]


async def test_list_is_bounded(session: AsyncSession, library: Database) -> None:
    """list() returns at most 100 rows by default; a limit of None means all, and 0 sends nothing."""
    await TagService(session).create_many([{"name": str(number)} for number in range(120)])

    assert [tag.id for tag in await TagService(session).list()] == list(range(1, 101))
    assert len(await TagService(session).list(limit=None)) == 120
    assert [tag.id for tag in await TagService(session).list(skip=118, limit=None)] == [119, 120]
    assert [tag.id for tag in await TagService(session).list(skip=10, limit=2)] == [11, 12]
    with assert_max_queries(library, 0):
        assert await TagService(session).list(limit=0) == []


async def test_list_takes_bounds_beyond_the_databases(session: AsyncSession, tags: list[Tag]) -> None:
    """A skip or limit beyond 64 bits works."""
    assert len(await TagService(session).list(limit=10**30)) == 5
    assert await TagService(session).list(skip=10**30) == []
    assert await TagService(session).list(skip=2**63 - 1, limit=2**63 - 1) == []


@pytest.mark.parametrize("bounds", [{"skip": -1}, {"limit": -1}, {"skip": -1, "limit": 0}], ids=str)
async def test_list_rejects_negative_bounds(library: Database, session: AsyncSession, bounds: dict[str, int]) -> None:
    """A negative skip or limit raises InvalidQueryError on both databases."""
    with assert_max_queries(library, 0), pytest.raises(InvalidQueryError):
        await TagService(session).list(**bounds)


async def test_list_meets_all_conditions(session: AsyncSession, tags: list[Tag]) -> None:
    """Several conditions are joined by AND."""
    assert [tag.name for tag in await TagService(session).list(Tag.weight == 3, Tag.name > "c")] == ["d"]


async def test_list_is_one_statement(library: Database, session: AsyncSession, tags: list[Tag]) -> None:
    """list() takes one statement, whatever its arguments are."""
    with assert_max_queries(library, 1):
        await TagService(session).list(Tag.weight == 3, skip=1, limit=1, order_by=Tag.name)


async def test_first_is_the_first_in_order(session: AsyncSession, tags: list[Tag]) -> None:
    """first() returns the first row in the order, by default that of the key, or None."""
    for conditions, order, name in [((), (), "a"), ((), Tag.name.desc(), "e"), ((Tag.weight == 3,), (), "c")]:
        found = await TagService(session).first(*conditions, order_by=order)
        assert found is not None
        assert found.name == name
    assert await TagService(session).first(Tag.weight == 7) is None


async def test_first_reads_one_row(library: Database, session: AsyncSession, tags: list[Tag]) -> None:
    """first() takes one statement with a limit."""
    with assert_max_queries(library, 1) as log:
        await TagService(session).first()

    assert "LIMIT" in log.statements[0]


async def test_count_and_exists(session: AsyncSession, tags: list[Tag]) -> None:
    """count() and exists() are about all rows, or those that meet the conditions."""
    service = TagService(session)

    assert (await service.count(), await service.count(Tag.weight == 3), await service.count(Tag.weight == 7)) == (5, 2, 0)
    assert (await service.exists(), await service.exists(Tag.weight == 3), await service.exists(Tag.weight == 7)) == (True, True, False)


async def test_exists_is_one_cheap_statement(library: Database, session: AsyncSession, tags: list[Tag]) -> None:
    """exists() sends one statement that returns no row of the table."""
    with assert_max_queries(library, 1) as log:
        await TagService(session).exists(Tag.weight == 3)

    (statement,) = log.statements
    assert statement.startswith("SELECT EXISTS")
    assert "ORDER BY" not in statement


async def test_reads_see_what_the_session_has_not_committed(application_sessions: async_sessionmaker[AsyncSession]) -> None:
    """Pending objects are flushed before a read, as session.execute() does."""
    async with application_sessions() as session:
        session.add(Tag(name="pending"))

        assert await TagService(session).exists(Tag.name == "pending")
        assert await TagService(session).count() == 1
        assert [tag.name for tag in await TagService(session).list()] == ["pending"]
        assert [tag.name async for tag in TagService(session).stream()] == ["pending"]


async def test_a_read_after_a_change_neither_commits_nor_loses_it(library: Database, session: AsyncSession, tags: list[Tag]) -> None:
    """A changed object is flushed before a read into a transaction that stays open."""
    tag = await TagService(session).get_one(tags[0].id)
    tag.weight = 7

    assert await TagService(session).count(Tag.weight == 7) == 1
    async with opened(library) as other:
        assert await TagService(other).count(Tag.weight == 7) == 0
    await session.commit()
    async with opened(library) as other:
        assert await TagService(other).count(Tag.weight == 7) == 1


async def test_reads_on_a_session_with_a_bind_per_model(library: Database, tags: list[Tag]) -> None:
    """Every read uses the engine that the session has for the model."""
    async with AsyncSession(binds={LibraryBase: library.engine}) as session:
        service = TagService(session)
        assert (await service.get_one(1)).name == "a"
        assert await service.count() == 5
        assert await service.exists()
        assert len(await service.list()) == 5
        assert [tag.name async for tag in service.stream()] == ["a", "b", "c", "d", "e"]


# Streams


async def test_a_stream_yields_every_row_in_order(session: AsyncSession, tags: list[Tag]) -> None:
    """stream() yields the rows that meet the conditions, in the order of the key or of order_by."""
    service = TagService(session)

    assert [tag.name async for tag in service.stream(batch_size=2)] == ["a", "b", "c", "d", "e"]
    assert [tag.name async for tag in service.stream(Tag.weight == 3, order_by=Tag.name.desc())] == ["d", "c"]
    assert not session.in_transaction()


async def test_a_stream_holds_one_batch_in_memory(library: Database, session: AsyncSession) -> None:
    """Of 5,000 rows at most one batch is in memory."""
    async with library.begin() as other:
        await other.execute(tags_numbered(5_000))

    alive: set[int] = set()
    async with aclosing(TagService(session).stream(batch_size=50)) as rows:
        async for _ in rows:
            alive.add(len(session.sync_session.identity_map))

    assert max(alive) <= 2 * 50


async def test_a_stream_is_one_statement(library: Database, session: AsyncSession, tags: list[Tag]) -> None:
    """All batches come from one cursor."""
    with assert_max_queries(library, 1):
        assert len([tag async for tag in TagService(session).stream(batch_size=2)]) == 5


async def test_a_stream_can_be_left_early(library: Database, session: AsyncSession, tags: list[Tag]) -> None:
    """After leaving the loop early the connection is returned, and the session still works."""
    async with aclosing(TagService(session).stream(batch_size=1)) as rows:
        async for tag in rows:
            assert tag.name == "a"
            break

    assert not session.in_transaction()
    assert library.engine.pool.checkedout() == 0
    assert await TagService(session).count() == 5


async def test_a_stream_that_fails_in_the_loop_gives_everything_back(library: Database, session: AsyncSession, tags: list[Tag]) -> None:
    """After an exception in the loop the connection is returned, and the session still works."""
    with pytest.raises(ZeroDivisionError):
        async with aclosing(TagService(session).stream(batch_size=1)) as rows:
            async for _ in rows:
                raise ZeroDivisionError

    assert not session.in_transaction()
    assert await TagService(session).count() == 5


async def test_reading_more_inside_a_stream(session: AsyncSession, tags: list[Tag]) -> None:
    """The same task can read through the session inside the loop."""
    seen = []
    async with aclosing(TagService(session).stream(Tag.weight.is_not(None), batch_size=1)) as rows:
        async for tag in rows:
            seen.append((tag.name, await TagService(session).count(Tag.weight == tag.weight)))

    assert seen == [("a", 1), ("c", 2), ("d", 2)]


async def test_what_is_flushed_inside_a_stream_is_not_lost(library: Database, session: AsyncSession, tags: list[Tag]) -> None:
    """Rows that the application changes in the loop are stored when it commits."""
    async with aclosing(TagService(session).stream(batch_size=1)) as rows:
        async for tag in rows:
            tag.weight = 7
            await TagService(session).count()
    await session.commit()

    async with opened(library) as other:
        assert await TagService(other).count(Tag.weight == 7) == 5


async def test_a_write_that_would_commit_inside_a_stream_is_rejected(session: AsyncSession, tags: list[Tag]) -> None:
    """A write that commits inside the loop raises ConfigurationError on both databases, and nothing is written."""
    service = TagService(session)
    writes: list[Callable[[int], Awaitable[object]]] = [
        lambda ident: service.update(ident, {"weight": 7}),
        lambda _: service.create({"name": "new"}),
        lambda ident: service.delete(ident),
    ]
    for write in writes:
        with pytest.raises(ConfigurationError):
            async with aclosing(service.stream(batch_size=2)) as rows:
                async for tag in rows:
                    await write(tag.id)

    assert not session.in_transaction()
    assert (await service.count(), await service.exists(Tag.weight == 7)) == (5, False)


async def test_writes_inside_a_stream_in_a_unit(session: AsyncSession, tags: list[Tag]) -> None:
    """In a unit of work rows can be changed inside the loop."""
    async with unit_of_work(session), aclosing(TagService(session).stream(batch_size=2)) as rows:
        async for tag in rows:
            await TagService(session).update(tag.id, {"weight": 7})

    assert await TagService(session).count(Tag.weight == 7) == 5


@pytest.mark.parametrize("batch_size", [0, -1])
async def test_a_stream_needs_a_batch(library: Database, session: AsyncSession, tags: list[Tag], batch_size: int) -> None:
    """A batch_size of 0 raises ConfigurationError."""
    with assert_max_queries(library, 0), pytest.raises(ConfigurationError):
        _ = [tag async for tag in TagService(session).stream(batch_size=batch_size)]


# Row locks


@pytest.fixture
async def locking(postgres_database: Database) -> Database:
    """Two tags, where rows can be locked."""
    await postgres_database.create_tables(LibraryBase.metadata)
    async with postgres_database.begin() as session:
        await TagService(session).create_many([{"name": "a"}, {"name": "b"}])
    return postgres_database


async def get_locked(service: TagService, lock: RowLock) -> None:
    await service.get(1, lock=lock)


async def get_one_locked(service: TagService, lock: RowLock) -> None:
    await service.get_one(1, lock=lock)


async def list_locked(service: TagService, lock: RowLock) -> None:
    await service.list(Tag.id == 1, lock=lock)


async def first_locked(service: TagService, lock: RowLock) -> None:
    await service.first(lock=lock)


@pytest.mark.parametrize("read", [get_locked, get_one_locked, list_locked, first_locked])
async def test_a_locked_row_is_locked_until_its_transaction_ends(
    locking: Database, read: Callable[[TagService, RowLock], Awaitable[None]]
) -> None:
    """With nowait another session gets UnavailableError until the transaction ends; other rows are free."""
    async with opened(locking) as first, opened(locking) as second:
        await read(TagService(first), FOR_UPDATE)
        assert await TagService(second).get(2, lock=RowLock(nowait=True)) is not None
        with pytest.raises(UnavailableError):
            await TagService(second).get(1, lock=RowLock(nowait=True))
        await second.rollback()
        await first.commit()
        assert await TagService(second).get(1, lock=RowLock(nowait=True)) is not None


async def test_a_rejected_lock_leaves_the_session_usable(locking: Database) -> None:
    """After a lock that could not be had an idle session is idle again."""
    async with opened(locking) as first, opened(locking) as second:
        await TagService(first).get(1, lock=FOR_UPDATE)
        with pytest.raises(UnavailableError):
            await TagService(second).get(1, lock=RowLock(nowait=True))

        assert await TagService(second).count() == 2
        await TagService(second).create({"name": "c"})


async def test_a_locked_row_can_be_skipped(locking: Database) -> None:
    """With skip_locked two workers get different rows."""
    async with opened(locking) as first, opened(locking) as second:
        taken = await TagService(first).first(lock=RowLock(skip_locked=True))
        other = await TagService(second).first(lock=RowLock(skip_locked=True))
        assert taken is not None
        assert other is not None
        assert (taken.id, other.id) == (1, 2)


async def test_readers_share_a_read_lock(locking: Database) -> None:
    """A shared lock lets other readers lock the row, but not writers."""
    async with opened(locking) as first, opened(locking) as second:
        await TagService(first).get(1, lock=RowLock(read=True))
        await TagService(second).get(1, lock=RowLock(read=True, nowait=True))
        with pytest.raises(UnavailableError):
            await TagService(second).get(1, lock=RowLock(nowait=True))


async def test_a_lock_locks_the_models_rows_alone(locking: Database) -> None:
    """A lock does not lock rows that base_query() joins."""
    async with locking.begin() as session:
        author = await AuthorService(session).create({"email": "ada@example.org"})
        await BookService(session).create({"title": "a", "author_id": author.id})

    class Joined(BookService):
        def base_query(self) -> Select[Book]:
            return select(Book).join(Book.author)

    async with opened(locking) as first, opened(locking) as second:
        await Joined(first).get_one(1, lock=FOR_UPDATE)
        assert await AuthorService(second).get_one(1, lock=RowLock(read=True, nowait=True))
        with pytest.raises(UnavailableError):
            await BookService(second).get_one(1, lock=RowLock(nowait=True))


async def test_a_locked_read_sees_the_row_as_it_is(library: Database, session: AsyncSession, tags: list[Tag]) -> None:
    """A locked read shows what is stored now, not what the session has loaded."""
    loaded = await TagService(session).get_one(1)
    async with library.begin() as other:
        await other.execute(update(Tag).where(Tag.id == 1).values(weight=7))

    for locked in (
        await TagService(session).get_one(1, lock=FOR_UPDATE),
        await TagService(session).first(lock=FOR_UPDATE),
        (await TagService(session).list(lock=FOR_UPDATE))[0],
    ):
        assert locked is loaded
        assert loaded.weight == 7


@pytest.mark.parametrize("lock", [FOR_UPDATE, RowLock(nowait=True), RowLock(skip_locked=True), RowLock(read=True, key_share=True)], ids=str)
async def test_locks_are_harmless_on_sqlite(sqlite_database: Database, lock: RowLock) -> None:
    """On SQLite a read with a lock works and keeps its transaction."""
    await sqlite_database.create_tables(LibraryBase.metadata)
    async with opened(sqlite_database) as session:
        await TagService(session).create({"name": "a"})
        async with unit_of_work(session):
            tag = await TagService(session).get_one(1, lock=lock)
            await TagService(session).update(tag.id, {"weight": 1})
        assert [tag.weight for tag in await TagService(session).list(lock=lock)] == [1]


async def test_a_lock_on_sqlite_keeps_writers_out(sqlite_database: Database) -> None:
    """On SQLite a second reader with a lock waits for the first."""
    await sqlite_database.create_tables(LibraryBase.metadata)
    async with sqlite_database.begin() as session:
        await TagService(session).create({"name": "a", "weight": 0})

    async def add_one() -> None:
        async with sqlite_database.begin() as session:
            tag = await TagService(session).get_one(1, lock=FOR_UPDATE)
            await TagService(session).update(1, {"weight": (tag.weight or 0) + 1})

    await asyncio.gather(*(add_one() for _ in range(10)))

    async with opened(sqlite_database) as session:
        assert (await TagService(session).get_one(1)).weight == 10


# Confined by base_query()


class ArticleCreate(BaseModel):
    title: str


class ArticleUpdate(BaseModel):
    data: str | None = None


class ArticleService(CRUDService[Article, ArticleCreate, ArticleUpdate]): ...


class ByCondition(ArticleService):
    def base_query(self) -> Select[Article]:
        return super().base_query().where(Article.title == "big")


class ByJoin(ArticleService):
    def base_query(self) -> Select[Article]:
        return select(Article).join(Article.labels).where(Label.name == "Cyd")


class ByDistinct(ArticleService):
    def base_query(self) -> Select[Article]:
        return select(Article).join(Article.labels).where(Label.name != "Zoe").distinct()


class ByGroup(ArticleService):
    def base_query(self) -> Select[Article]:
        return select(Article).join(Article.labels).group_by(Article.id).having(func.count(Label.id) > 1)


class BySelectInLoad(ByCondition):
    def base_query(self) -> Select[Article]:
        return super().base_query().options(selectinload(Article.labels))


class ByJoinedLoad(ByCondition):
    def base_query(self) -> Select[Article]:
        return super().base_query().options(joinedload(Article.labels))


class BySubquery(ArticleService):
    def base_query(self) -> Select[Article]:
        return select(Article).where(Article.id.in_(select(Label.article_id).group_by(Label.article_id).having(func.count() > 1)))


class ByOrder(ByCondition):
    def base_query(self) -> Select[Article]:
        return super().base_query().order_by(Article.title)


CONFINED = [ByCondition, ByJoin, ByDistinct, ByGroup, BySelectInLoad, ByJoinedLoad, BySubquery, ByOrder]
confined = pytest.mark.parametrize("service", CONFINED, ids=lambda service: service.__name__)


@pytest.fixture
async def articles(database: Database) -> AsyncIterator[AsyncSession]:
    """A session on three articles and a reply. Every restricted service sees only the big one, number 2."""
    await database.create_tables(PressBase.metadata)
    async with database.begin() as session:
        session.add(Article(id=1, title="small", labels=[Label(name="Zoe")]))
        session.add(Article(id=2, title="big", labels=[Label(name="Ada"), Label(name="Bob"), Label(name="Cyd")]))
        session.add(Article(id=3, title="empty"))
        session.add(Article(id=4, title="reply", answers_id=2))
    async with opened(database) as session:
        yield session


@confined
async def test_base_query_confines_the_row_reads(articles: AsyncSession, service: type[ArticleService]) -> None:
    """get(), get_one() and get_by() return only rows of base_query(), with joins and grouping too."""
    inside = service(articles)

    assert (await inside.get_one(2)).title == "big"
    assert await inside.get(1) is None
    found = await inside.get_by(title="big")
    assert found is not None
    assert found.id == 2
    assert await inside.get_by(title="small") is None


@confined
async def test_base_query_confines_lists(articles: AsyncSession, service: type[ArticleService]) -> None:
    """list(), first() and get_many() return only rows of base_query(), each once."""
    inside = service(articles)

    assert [article.id for article in await inside.list()] == [2]
    assert [article.id for article in await inside.list(order_by=Article.title.desc(), limit=1)] == [2]
    assert await inside.list(Article.title == "small") == []
    first = await inside.first()
    assert first is not None
    assert first.id == 2
    assert [article.id for article in await inside.get_many([3, 2, 1])] == [2]


@pytest.mark.parametrize("service", [service for service in CONFINED if service is not ByJoinedLoad], ids=lambda service: service.__name__)
async def test_base_query_confines_streams(articles: AsyncSession, service: type[ArticleService]) -> None:
    """stream() yields only rows of base_query(), in order and each once."""
    assert [article.id async for article in service(articles).stream()] == [2]


async def test_a_joined_collection_cannot_be_streamed(articles: AsyncSession) -> None:
    """A joinedload() of a collection in base_query() makes stream() raise ConfigurationError; the session still works."""
    with pytest.raises(ConfigurationError, match="selectinload"):
        _ = [article async for article in ByJoinedLoad(articles).stream()]

    assert not articles.in_transaction()
    assert await ByJoinedLoad(articles).count() == 1


class ByToMany(ArticleService):
    def base_query(self) -> Select[Article]:
        return select(Article).join(Article.labels)


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
async def test_a_join_that_repeats_rows_loses_none(articles: AsyncSession, limit: int) -> None:
    """Pages of a base_query() whose join repeats rows show as many rows as count() says."""
    service = ByToMany(articles)
    met: list[int] = []
    skip = 0
    while found := await service.list(skip=skip, limit=limit):
        met += [article.id for article in found]
        skip += limit

    assert set(met) == {1, 2}
    assert await service.count() == len(met)


@confined
async def test_base_query_confines_count_and_exists(articles: AsyncSession, service: type[ArticleService]) -> None:
    """count() and exists() agree with the list."""
    inside = service(articles)

    assert (await inside.count(), await inside.count(Article.title == "small")) == (1, 0)
    assert (await inside.exists(), await inside.exists(Article.title == "small")) == (True, False)


@confined
async def test_base_query_confines_update(articles: AsyncSession, service: type[ArticleService]) -> None:
    """A row outside base_query() raises NotFoundError and is not changed."""
    inside = service(articles)

    assert (await inside.update(2, ArticleUpdate(data="new"))).data == "new"
    with pytest.raises(NotFoundError):
        await inside.update(1, ArticleUpdate(data="new"))
    assert await ArticleService(articles).count(Article.data == "new") == 1


@confined
async def test_base_query_confines_delete(articles: AsyncSession, service: type[ArticleService]) -> None:
    """A row outside base_query() raises NotFoundError and is not deleted. One inside is, with its replies."""
    inside = service(articles)

    with pytest.raises(NotFoundError):
        await inside.delete(1)
    await inside.delete(2)
    assert [article.id for article in await ArticleService(articles).list()] == [1, 3]


class LabelsOfBigArticles(ReadService[Label]):
    def base_query(self) -> Select[Label]:
        return select(Label).join(Article, Label.article_id == Article.id).where(Article.title == "big")


async def test_conditions_may_name_what_base_query_joins(articles: AsyncSession) -> None:
    """Conditions of every read can refer to tables that base_query() joins."""
    labels = LabelsOfBigArticles(articles)
    condition = Article.title == "big"

    assert await labels.count(condition) == 3
    assert await labels.exists(condition)
    assert [label.name for label in await labels.list(condition, order_by=Article.data)] == ["Ada", "Bob", "Cyd"]


@pytest.mark.parametrize("service", [BySelectInLoad, ByJoinedLoad])
async def test_base_query_decides_what_is_loaded(articles: AsyncSession, service: type[ArticleService]) -> None:
    """Loader options of base_query() apply to every read and to the row that update() returns."""
    inside = service(articles)

    reads: list[Callable[[], Awaitable[Article | None]]] = [
        lambda: inside.get_one(2),
        lambda: inside.get_by(title="big"),
        lambda: inside.first(),
        lambda: inside.update(2, {"data": "new"}),
    ]
    for read in reads:
        articles.expunge_all()
        article = await read()
        assert article is not None
        assert [label.name for label in article.labels] == ["Ada", "Bob", "Cyd"]


class EagerService(CRUDService[LabelledArticle, ArticleCreate, ArticleUpdate]): ...


@pytest.fixture
async def eager(database: Database) -> AsyncIterator[EagerService]:
    """Two articles with two labels each."""
    await database.create_tables(PressBase.metadata)
    async with database.begin() as session:
        session.add_all([LabelledArticle(title=title, labels=[Label(), Label()]) for title in "ab"])
    async with opened(database) as session:
        yield EagerService(session)


async def test_a_model_that_joins_a_collection_reads_each_row_once(eager: EagerService) -> None:
    """With lazy="joined" each row comes once."""
    eager.session.expunge_all()

    assert [[label.id for label in article.labels] for article in await eager.list()] == [[1, 2], [3, 4]]
    assert [article.id for article in await eager.list(skip=1, limit=1)] == [2]
    assert [article.id for article in await eager.get_many([2, 1])] == [2, 1]
    assert (await eager.get_one(1)).title == "a"
    found = await eager.get_by(title="b")
    assert found is not None
    assert found.id == 2
    assert await eager.count() == 2
    assert await eager.exists()


async def test_a_model_that_joins_a_collection_can_be_streamed(eager: EagerService) -> None:
    """With lazy="joined" rows are streamed with their collections, each once."""
    eager.session.expunge_all()

    streamed = [(article.id, len(article.labels)) async for article in eager.stream(batch_size=1)]

    assert streamed == [(1, 2), (2, 2)]


async def test_a_session_of_the_application_keeps_its_transaction(application_sessions: async_sessionmaker[AsyncSession]) -> None:
    """On a session of the application a read joins its transaction, as session.execute() does."""
    async with application_sessions() as session:
        await TagService(session).list()
        assert session.in_transaction()
