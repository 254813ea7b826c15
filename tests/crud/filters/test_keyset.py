"""Keyset pages: no row is left out or shown twice, in any order, both ways, while rows come and go."""

import json
import random
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

import pytest
from sqlalchemy import Select, delete, event, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import contains_eager
from tests.tables.shop import (
    Colour,
    Item,
    ItemFeed,
    ItemRead,
    ItemService,
    ItemWithTags,
    Owner,
    ShopBase,
    Tag,
    moment,
)
from tests.thorough import FULL

from fastapi_kit.crud import KeysetSpec
from fastapi_kit.crud.filters.cursors import CursorCodec, Position
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, InvalidQueryError
from fastapi_kit.pagination import KeysetPage
from fastapi_kit.testing.queries import assert_max_queries

SORTS = [
    "",
    "name",
    "-name",
    "price,-name",
    "-price,name",
    "note",
    "-note,price",
    "sold_at,-rating",
    "-sold_at",
    "rating,note",
    "colour,-size",
    "size",
]


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[AsyncSession]:
    """No items yet."""
    await database.create_tables(ShopBase.metadata)
    async with database.sessions() as session:
        yield session


def random_item(chance: random.Random, ident: int) -> dict[str, Any]:
    """Return values with many ties and nulls."""
    return {
        "id": ident,
        "name": chance.choice(["a", "b", "B", "\u00e4", "bb"]),
        "note": chance.choice([None, "", "x", "y"]),
        "price": Decimal(chance.randint(0, 3)) / 2,
        "rating": chance.choice([None, 0.1, 0.25, 1e300]),
        "colour": chance.choice([None, *Colour]),
        "sold_at": chance.choice([None, *(moment(day, hour) for day in (1, 2) for hour in (0, 1))]),
        "archived": chance.random() < 0.1,
    }


async def all_ids(session: AsyncSession, query: ItemFeed) -> list[int]:
    """Return the ids of all rows in the order of *query*, without pages."""
    return [item.id for item in await ItemService(session).list(*query.conditions(), order_by=query.sort_items(), limit=None)]


async def walk(session: AsyncSession, *, backward: bool = False, **parameters: Any) -> AsyncIterator[KeysetPage[ItemRead]]:
    """Yield page after page, from the first on, or from a *cursor* back to it."""
    while True:
        page = await ItemService(session).keyset_page_as(ItemRead, ItemFeed(**parameters))
        yield page
        parameters["cursor"] = page.previous_cursor if backward else page.next_cursor
        if parameters["cursor"] is None:
            return


@pytest.mark.parametrize("seed", range(200 if FULL else 10))
async def test_every_row_comes_once_both_ways(shop: AsyncSession, seed: int) -> None:
    """All pages together are the list, forwards and backwards, in any order. Each seed is ten lists."""
    chance = random.Random(seed)
    for _ in range(10):
        await shop.execute(delete(Item))
        await shop.execute(insert(Item), [random_item(chance, ident) for ident in range(1, chance.randint(2, 25))])
        asked: dict[str, Any] = {"sort": chance.choice(SORTS), "limit": chance.randint(1, 7)}
        wanted = await all_ids(shop, ItemFeed(**asked))

        pages = [page async for page in walk(shop, **asked)]
        assert [item.id for page in pages for item in page.items] == wanted
        assert pages[0].previous_cursor is None
        assert pages[-1].next_cursor is None
        assert all(len(page.items) == asked["limit"] for page in pages[:-1])

        if len(pages) > 1:
            back = [page async for page in walk(shop, backward=True, cursor=pages[-1].previous_cursor, **asked)]
            assert [[item.id for item in page.items] for page in [pages[-1], *back]][::-1] == unevenly([pages[-1], *back][::-1])
            assert [item.id for page in [*back[::-1], pages[-1]] for item in page.items] == wanted
            assert all(page.next_cursor is not None for page in back)


def unevenly(pages: Sequence[KeysetPage[ItemRead]]) -> list[list[int]]:
    """Return the ids of *pages*, of which only the first may be short when they are read backwards."""
    assert all(len(page.items) == page.limit for page in pages[1:-1])
    return [[item.id for item in page.items] for page in pages]


@pytest.mark.only_full
@pytest.mark.parametrize("seed", range(100 if FULL else 5))
async def test_rows_come_and_go(shop: AsyncSession, seed: int) -> None:
    """Rows that stay come exactly once, whatever is inserted and deleted between two pages."""
    chance, number = random.Random(seed), 40
    await shop.execute(insert(Item), [random_item(chance, ident) | {"archived": False} for ident in range(1, number)])
    asked: dict[str, Any] = {"sort": chance.choice(SORTS), "limit": chance.randint(1, 6)}
    stay = set(chance.sample(range(1, number), number // 2))
    seen: list[int] = []
    async for page in walk(shop, **asked):
        seen += [item.id for item in page.items]
        going = chance.sample(sorted(set(range(1, number)) - stay), 3)
        await shop.execute(delete(Item).where(Item.id.in_(going)))
        new = range(number * 1000 + len(seen) * 10, number * 1000 + len(seen) * 10 + chance.randint(0, 2))
        await shop.execute(insert(Item), [random_item(chance, ident) for ident in new] or [random_item(chance, 10**6 + len(seen))])

    assert len(seen) == len(set(seen))
    assert stay <= set(seen)


async def test_a_page_whose_rows_are_gone(shop: AsyncSession) -> None:
    """The cursor of an empty page leads back to the row where it started."""
    await shop.execute(insert(Item), [{"id": ident, "name": "a"} for ident in range(1, 6)])
    service = ItemService(shop)
    first = await service.keyset_page_as(ItemRead, ItemFeed(limit=2))
    await shop.execute(delete(Item).where(Item.id > 2))

    empty = await service.keyset_page_as(ItemRead, ItemFeed(limit=2, cursor=first.next_cursor))
    assert (empty.items, empty.next_cursor) == ([], None)
    back = await service.keyset_page_as(ItemRead, ItemFeed(limit=2, cursor=empty.previous_cursor))
    assert [item.id for item in back.items] == [1, 2]

    await shop.execute(delete(Item))
    nothing = await service.keyset_page_as(ItemRead, ItemFeed(limit=2, cursor=empty.previous_cursor))
    assert (nothing.items, nothing.previous_cursor) == ([], None)
    assert nothing.next_cursor is not None
    assert await service.keyset_page_as(ItemRead, ItemFeed()) == KeysetPage(items=[], next_cursor=None, previous_cursor=None, limit=100)


async def test_nested_rows(shop: AsyncSession) -> None:
    """Rows with collections come in pages too; an expression may be the sort."""
    await shop.execute(insert(Item), [{"id": ident, "name": "x" * (9 - ident)} for ident in range(1, 6)])
    await shop.execute(insert(Tag), [{"item_id": ident, "name": str(ident)} for ident in (1, 1, 4)])
    service = ItemService(shop)

    first = await service.keyset_page_as(ItemWithTags, ItemFeed(limit=3, sort="size"))
    second = await service.keyset_page_as(ItemWithTags, ItemFeed(limit=3, sort="size", cursor=first.next_cursor))

    assert [(item.id, len(item.tags)) for item in [*first.items, *second.items]] == [(5, 0), (4, 1), (3, 0), (2, 0), (1, 2)]


class Tagged(ItemService):
    """Items with tags, loaded by a join that multiplies them, in an order of its own."""

    def base_query(self) -> Select[Any]:
        return select(Item).join(Item.tags).options(contains_eager(Item.tags)).order_by(Tag.name.desc())


class WithTags(ItemService):
    """The same without loading."""

    def base_query(self) -> Select[Any]:
        return select(Item).join(Item.tags).order_by(Tag.name.desc())


class FirstItems(ItemService):
    """Rows that depend on the order."""

    def base_query(self) -> Select[Any]:
        return select(Item).order_by(Item.name).limit(3)


@pytest.mark.parametrize("service_class", [Tagged, WithTags])
@pytest.mark.parametrize("schema", [ItemRead, ItemWithTags])
async def test_joins_in_the_base_query(shop: AsyncSession, service_class: type[ItemService], schema: type[ItemRead]) -> None:
    """Each row comes once, in the order of the list."""
    await shop.execute(insert(Item), [{"id": ident, "name": "ab"[ident % 2]} for ident in range(1, 8)])
    await shop.execute(insert(Tag), [{"item_id": ident, "name": name} for ident in range(1, 7) for name in "xyz"[: ident % 3 + 1]])
    seen: list[int] = []
    cursor = None
    while True:
        page = await service_class(shop).keyset_page_as(schema, ItemFeed(sort="name", limit=2, cursor=cursor), Item.id != 3)
        seen += [item.id for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break

    assert seen == [2, 4, 6, 1, 5]


async def test_base_queries_without_keyset_pages(shop: AsyncSession) -> None:
    """A LIMIT in ``base_query``, and a sort by another table, are a ConfigurationError."""

    class ByOwner(KeysetSpec[Item]):
        sort_fields: ClassVar[Any] = (Owner.email,)
        sort: str = "email"

    with pytest.raises(ConfigurationError, match="without LIMIT"):
        await FirstItems(shop).keyset_page_as(ItemRead, ItemFeed())
    with pytest.raises(ConfigurationError, match="a column of another table"):
        await ItemService(shop).keyset_page_as(ItemRead, ByOwner())


# --- Cursors ---


class SignedFeed(ItemFeed):
    cursor_key: ClassVar[bytes | None] = b"a key of the application"


async def cursor_of(shop: AsyncSession, query: ItemFeed) -> str:
    cursor = (await ItemService(shop).keyset_page_as(ItemRead, query)).next_cursor
    assert cursor is not None
    return cursor


async def test_a_cursor_is_for_its_list(shop: AsyncSession) -> None:
    """A cursor of other filters, another sort, another search or another key is rejected; another limit is fine."""
    await shop.execute(insert(Item), [{"id": ident, "name": "a"} for ident in range(1, 6)])
    cursor = await cursor_of(shop, ItemFeed(limit=1, sort="name"))

    async def ask(query: ItemFeed) -> list[int]:
        return [item.id for item in (await ItemService(shop).keyset_page_as(ItemRead, query)).items]

    assert await ask(ItemFeed(limit=3, sort="name", cursor=cursor)) == [2, 3, 4]
    for other in (
        {"sort": "-name"},
        {"sort": ""},
        {"sort": "name", "name": "a"},
        {"sort": "name", "q": "a"},
        {"sort": "name", "archived": True},
    ):
        with pytest.raises(InvalidQueryError) as caught:
            await ask(ItemFeed(**other, cursor=cursor))
        assert [(error.loc, error.code) for error in caught.value.errors] == [(("query", "cursor"), "invalid_cursor")]
    with pytest.raises(InvalidQueryError):
        await ask(SignedFeed(sort="name", cursor=cursor))


@pytest.mark.parametrize("feed", [ItemFeed, SignedFeed])
async def test_hostile_cursors(shop: AsyncSession, feed: type[ItemFeed]) -> None:
    """Whatever is sent as a cursor is taken or rejected, and never an error of the database."""
    await shop.execute(insert(Item), [{"id": ident, "name": "a"} for ident in range(1, 6)])
    cursor = await cursor_of(shop, feed(limit=1, sort="rating,colour,sold_at,name"))
    raw = urlsafe_b64decode(cursor + "==")
    context = feed(sort="rating,colour,sold_at,name").cursor_context()
    chance = random.Random(1)
    forged = [
        *(cursor[:place] for place in range(len(cursor))),
        *(cursor[:place] + chance.choice("Ab1_-+/=\u00e4\0 ") + cursor[place + 1 :] for place in range(len(cursor))),
        *(urlsafe_b64encode(raw[:16] + content).decode() for content in (b"", b"[]", b"null", b"[0,1]", b"\xff", b"[" * 100_000)),
        "a" * 100_000,
    ]
    for each in forged:
        if each != cursor:
            with pytest.raises(InvalidQueryError):
                await ItemService(shop).keyset_page_as(ItemRead, feed(sort="rating,colour,sold_at,name", cursor=each))
    values: list[Any] = [
        None,
        True,
        1,
        -1.5,
        "x",
        "\0",
        2**80,
        float("inf"),
        ["datetime", "2026"],
        ["datetime", "2026-01-01"],
        ["decimal", "1e9"],
    ]
    values += [
        ["uuid", "x"],
        ["bytes", "zz"],
        ["nothing", "x"],
        ["span", "1"],
        ["span", "9999999999,0,0"],
        [1],
        {"a": 1},
        ["datetime", 5],
        "RED",
        "r",
    ]
    for place in range(5):
        for value in values:
            row: list[Any] = [0.5, "RED", ["datetime", "2026-01-01T00:00:00+00:00"], "a", 1]
            row[place] = value
            content = json.dumps([0, *row]).encode()
            sealed = CursorCodec(context, feed.cursor_key).digest(content) + content
            query = feed(sort="rating,colour,sold_at,name", cursor=urlsafe_b64encode(sealed).decode())
            with suppress(InvalidQueryError):
                await ItemService(shop).keyset_page_as(ItemRead, query)


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 0, -(2**70), 1.5, 1e300, "", "\u00e4\U0001f600", "x" * 10_000, Decimal("1.10"), Decimal("-0"), Decimal("1E+40")),
        *(
            UUID(int=5),
            b"\0\xff",
            date(2026, 1, 1),
            datetime(2026, 1, 1, 1, 1, 1, 5, tzinfo=UTC),
            datetime.min.replace(tzinfo=UTC),
            time(1, 2, 3, 4),
        ),
        *(timedelta(-1, 5, 6), datetime.max.replace(tzinfo=UTC), time(1, 2, tzinfo=UTC)),
    ],
)
@pytest.mark.parametrize("key", [None, b"k"])
def test_cursors_keep_values_and_types(value: Any, key: bytes | None) -> None:
    """What was written is read again with its type, and without padding, so that it fits into a URL."""
    codec = CursorCodec("context", key)
    for position in (Position((value, 1)), Position((1, value), backward=True), Position((value, value), inclusive=True)):
        cursor = codec.encode(position)
        read = codec.decode(cursor, length=2)

        assert read == position
        assert list(map(type, read.values)) == list(map(type, position.values))
        assert set(cursor) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


def test_values_without_a_cursor() -> None:
    """A sort by values that cursors do not know is a ConfigurationError."""
    with pytest.raises(ConfigurationError, match="cannot be sorted by values of the type complex"):
        CursorCodec("", None).encode(Position((1j,)))


# --- What the database does ---


async def plan_of(session: AsyncSession, query: ItemFeed) -> str:
    """Return how PostgreSQL reads the page of *query*."""
    sent: list[Any] = []

    def record(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: object) -> None:
        sent.append((statement, parameters))

    engine = session.sync_session.get_bind().engine
    event.listen(engine, "before_cursor_execute", record)
    await ItemService(session).keyset_page_as(ItemRead, query)
    event.remove(engine, "before_cursor_execute", record)
    ((statement, parameters),) = sent
    connection = await session.connection()
    return "\n".join((await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)).scalars())


@pytest.mark.parametrize(("sort", "condition"), [("name", "(ROW("), ("-name", "name)::text <= "), ("-price,name", "price <= ")])
async def test_an_index_serves_a_page(postgres_database: Database, sort: str, condition: str) -> None:
    """PostgreSQL starts in the index at the row of the cursor and reads one page of it."""
    await postgres_database.create_tables(ShopBase.metadata)
    async with postgres_database.begin() as session:
        await session.execute(text("CREATE INDEX by_name ON items (name, id)"))
        await session.execute(text("CREATE INDEX by_name_down ON items (name DESC, id)"))
        await session.execute(text("CREATE INDEX by_price ON items (price DESC, name, id)"))
        await session.execute(insert(Item), [{"name": str(number), "price": number} for number in range(2000)])
        await session.execute(text("ANALYZE items"))
        cursor = await cursor_of(session, ItemFeed(sort=sort, limit=10))

        plan = await plan_of(session, ItemFeed(sort=sort, limit=10, cursor=cursor))

    assert "Index Cond: (" in plan
    assert condition in plan
    assert "Sort" not in plan.replace("Incremental Sort", "")


async def test_pages_are_one_statement(shop: AsyncSession, database: Database) -> None:
    """A page is one SELECT, at the start and at a cursor, and never counts."""
    await shop.execute(insert(Item), [{"id": ident, "name": "a"} for ident in range(1, 6)])
    await shop.commit()
    with assert_max_queries(database, 1):
        cursor = await cursor_of(shop, ItemFeed(limit=1))
    with assert_max_queries(database, 1):
        await cursor_of(shop, ItemFeed(limit=1, cursor=cursor))


def test_pages_link_to_their_neighbours() -> None:
    """The Link header keeps other parameters and has prev and next where there are any."""
    page = KeysetPage[int](items=[1], next_cursor="Nn", previous_cursor="Pp", limit=5)

    assert page.link_header("/items?cursor=x&limit=9&q=a%20b#top") == (
        '</items?q=a%20b&limit=5&cursor=Pp>; rel="prev", </items?q=a%20b&limit=5&cursor=Nn>; rel="next"'
    )
    assert KeysetPage[int](items=[], next_cursor=None, previous_cursor=None, limit=5).link_header("/items") == ""
