"""Streams of all rows by keyset batches, and their text as NDJSON and CSV."""

import csv
import gc
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from io import StringIO
from typing import Annotated, Any, ClassVar
from uuid import UUID

import pytest
from fastapi import FastAPI
from pydantic import AfterValidator, BaseModel, ConfigDict, EmailStr, Field, PlainSerializer, RootModel, ValidationError, computed_field
from sqlalchemy import Numeric, QueuePool, Select, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tests.crud.filters.test_keyset import SORTS, random_item
from tests.tables.shop import Colour, Item, ItemFeed, ItemFilters, ItemRead, ItemService, ItemWithTags, Owner, ShopBase, Tag

from fastapi_kit.crud import FilterSpec, ReadService
from fastapi_kit.crud.export import csv_columns, csv_lines, harmless, ndjson_lines
from fastapi_kit.db import Database, DatabaseOptions, unit_of_work
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.testing import app_client
from fastapi_kit.testing.queries import assert_max_queries


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[AsyncSession]:
    """No items yet."""
    await database.create_tables(ShopBase.metadata)
    async with database.sessions() as session:
        yield session


async def insert_items(session: AsyncSession, items: Sequence[dict[str, Any]]) -> None:
    await session.execute(insert(Item), items)
    await session.commit()


def connections_of(database: Database) -> int:
    pool = database.engine.pool
    assert isinstance(pool, QueuePool)
    return pool.checkedout()


# --- stream_as ---


@pytest.mark.parametrize("seed", range(10))
async def test_every_row_comes_once_in_order(shop: AsyncSession, database: Database, seed: int) -> None:
    """All batches together are the list, in any order, with ties and nulls, on one session and on one for each batch."""
    chance = random.Random(seed)
    await insert_items(shop, [random_item(chance, ident) for ident in range(1, chance.randint(2, 25))])
    for sort in chance.sample(SORTS, 4):
        query = ItemFilters(sort=sort)
        wanted = [item.id for item in await ItemService(shop).list(*query.conditions(), order_by=query.sort_items(), limit=None)]
        for begin in (None, database.begin):
            rows = ItemService(shop).stream_as(ItemRead, query, batch_size=chance.randint(1, 7), begin=begin)
            assert [item.id async for item in rows] == wanted


@pytest.mark.only_full
@pytest.mark.parametrize("seed", range(5))
async def test_rows_come_and_go(shop: AsyncSession, database: Database, seed: int) -> None:
    """Rows that stay come exactly once, whatever is inserted and deleted meanwhile."""
    chance, number = random.Random(seed), 40
    await insert_items(shop, [random_item(chance, ident) | {"archived": False} for ident in range(1, number)])
    stay = set(chance.sample(range(1, number), number // 2))
    seen: list[int] = []
    rows = ItemService(shop).stream_as(ItemRead, ItemFilters(sort=chance.choice(SORTS)), batch_size=3)
    async for item in rows:
        seen.append(item.id)
        async with database.begin() as session:
            going = chance.sample(sorted(set(range(1, number)) - stay), 2)
            await session.execute(delete(Item).where(Item.id.in_(going)))
            if len(seen) < 100:
                await session.execute(insert(Item), [random_item(chance, 1000 + len(seen))])

    assert len(seen) == len(set(seen))
    assert stay <= set(seen)


async def test_a_batch_is_one_statement(shop: AsyncSession, database: Database) -> None:
    """Five rows in batches of two are three statements; related rows take one more for each batch; no rows take one."""
    await insert_items(shop, [{"id": ident, "name": "a"} for ident in range(1, 6)])
    service = ItemService(shop)
    with assert_max_queries(database, 3):
        assert [item.id async for item in service.stream_as(ItemRead, batch_size=2)] == [1, 2, 3, 4, 5]
    with assert_max_queries(database, 6):
        assert len([item async for item in service.stream_as(ItemWithTags, batch_size=2)]) == 5
    with assert_max_queries(database, 1):
        assert [item async for item in service.stream_as(ItemRead, None, Item.id > 9)] == []


async def test_no_connection_between_batches(shop: AsyncSession, database: Database) -> None:
    """While rows are consumed, no transaction is open and no connection is held, on one session and on one for each batch."""
    await insert_items(shop, [{"id": ident, "name": "a"} for ident in range(1, 6)])
    for begin in (None, database.begin):
        async for _ in ItemService(shop).stream_as(ItemWithTags, batch_size=2, begin=begin):
            assert not shop.in_transaction()
            assert connections_of(database) == 0


async def test_a_stream_in_a_transaction(shop: AsyncSession, database: Database) -> None:
    """In an open transaction the stream shows its rows, and leaves it open."""
    async with database.sessions() as session, unit_of_work(session) as unit:
        await session.execute(insert(Item), [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])
        assert [item.name async for item in ItemService(session).stream_as(ItemRead, batch_size=1)] == ["a", "b"]
        await unit.rollback()
    assert await ItemService(shop).count() == 0


async def test_a_stream_that_is_left(shop: AsyncSession, database: Database) -> None:
    """Leaving the loop early leaves nothing open."""
    await insert_items(shop, [{"id": ident, "name": "a"} for ident in range(1, 6)])
    async with aclosing(ItemService(shop).stream_as(ItemRead, batch_size=2, begin=database.begin)) as rows:
        async for _ in rows:
            break

    assert connections_of(database) == 0


class Alive(ItemRead):
    """Counts its instances."""

    now: ClassVar[int] = 0
    most: ClassVar[int] = 0

    def model_post_init(self, context: Any, /) -> None:
        Alive.now += 1
        Alive.most = max(Alive.most, Alive.now)

    def __del__(self) -> None:
        Alive.now -= 1


@pytest.mark.only_full
@pytest.mark.parametrize("lines", [ndjson_lines, lambda rows: csv_lines(rows, schema=Alive)])
async def test_memory_is_bounded(shop: AsyncSession, database: Database, lines: Any) -> None:
    """Of 20,000 rows, one batch of 500 and the last row of the one before are alive at a time, and chunks are small."""
    await insert_items(shop, [{"id": ident, "name": "n" * 40} for ident in range(1, 20_001)])
    Alive.now = Alive.most = 0
    chunks = [len(chunk) async for chunk in lines(ItemService(shop).stream_as(Alive, batch_size=500, begin=database.begin))]

    gc.collect()  # newer versions of Python keep the last row of a loop a little longer
    assert Alive.most <= 501
    assert Alive.now == 0
    assert max(chunks) < 70_000
    assert len(chunks) > 10


class Ann(ItemService):
    """The rows of one owner, given to the constructor."""

    def __init__(self, session: AsyncSession, owner: int) -> None:
        super().__init__(session)
        self.owner = owner

    def base_query(self) -> Select[Any]:
        return select(Item).join(Item.owner).where(Owner.id == self.owner).order_by(Item.name)


async def test_a_service_is_copied(shop: AsyncSession, database: Database) -> None:
    """What the service was made with applies in every batch, and the service itself keeps its session."""
    await shop.execute(insert(Owner), [{"id": 1, "email": "a"}, {"id": 2, "email": "b"}])
    await insert_items(shop, [{"id": ident, "name": str(-ident), "owner_id": ident % 2 + 1} for ident in range(1, 8)])
    await shop.execute(insert(Tag), [{"item_id": 2, "name": "x"}])
    await shop.commit()
    service = Ann(shop, 1)

    rows = [row async for row in service.stream_as(ItemWithTags, batch_size=2, begin=database.begin)]
    assert [(row.id, len(row.tags)) for row in rows] == [(2, 1), (4, 0), (6, 0)]
    assert service.session is shop


async def test_mistakes(shop: AsyncSession) -> None:
    """A batch of nothing, a LIMIT in ``base_query`` and a sort by another table are a ConfigurationError."""

    class First(ItemService):
        def base_query(self) -> Select[Any]:
            return select(Item).limit(3)

    class ByOwner(FilterSpec[Item]):
        sort_fields: ClassVar[Any] = (Owner.email,)
        sort: str = "email"

    for rows, words in (
        (ItemService(shop).stream_as(ItemRead, batch_size=0), "at least 1"),
        (First(shop).stream_as(ItemRead), "without LIMIT"),
        (ItemService(shop).stream_as(ItemRead, ByOwner()), "a column of another table"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            await anext(rows)


async def test_a_window_is_ignored(shop: AsyncSession) -> None:
    """The limit of a KeysetSpec does not limit a stream."""
    await insert_items(shop, [{"id": ident, "name": "a"} for ident in range(1, 6)])

    assert len([row async for row in ItemService(shop).stream_as(ItemRead, ItemFeed(limit=2))]) == 5


class Kind(StrEnum):
    A = "x"
    B = "a"


class KindBase(DeclarativeBase):
    pass


class Thing(KindBase):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[Kind] = mapped_column(default=Kind.A)
    lasts: Mapped[timedelta] = mapped_column(default=timedelta(0))
    weight: Mapped[Decimal] = mapped_column(Numeric, default=Decimal(0))


class ThingRead(BaseModel):
    id: int


class ThingFilters(FilterSpec[Thing]):
    sort_fields: ClassVar[Any] = (Thing.kind, Thing.lasts)
    sort: str = ""


class Things(ReadService[Thing]): ...


@pytest.mark.parametrize("sort", ["kind", "-kind", "lasts", "-lasts,kind"])
async def test_members_that_are_strings(database: Database, sort: str) -> None:
    """A stream may be sorted by an enum whose members are strings, and by an interval."""
    await database.create_tables(KindBase.metadata)
    async with database.begin() as session:
        rows = [{"id": ident, "kind": list(Kind)[ident % 2], "lasts": timedelta(days=ident % 3)} for ident in range(1, 9)]
        await session.execute(insert(Thing), rows)
        query = ThingFilters(sort=sort)
        wanted = [row.id for row in await Things(session).list(order_by=query.sort_items())]

        assert [row.id async for row in Things(session).stream_as(ThingRead, query, batch_size=2)] == wanted


class WeightFilters(FilterSpec[Thing]):
    sort_fields: ClassVar[Any] = (Thing.weight,)
    sort: str = "weight"


async def test_values_that_are_rounded(sqlite_database: Database) -> None:
    """Where a value is not read as it is stored, a stream that would never end raises ConfigurationError."""
    await sqlite_database.create_tables(KindBase.metadata)
    async with sqlite_database.begin() as session:
        await session.execute(insert(Thing), [{"weight": Decimal("1e-20")} for _ in range(6)])
        with pytest.raises(ConfigurationError, match="Thing is sorted by values that the database rounds"):
            _ = [row async for row in Things(session).stream_as(ThingRead, WeightFilters(), batch_size=2)]


async def test_another_session_pool(database: Database) -> None:
    """With a pool of one connection, a stream with sessions of its own and the session of the request work together."""
    await database.create_tables(ShopBase.metadata)
    narrow = Database(database.engine.url, options=DatabaseOptions(pool_size=1, max_overflow=0))
    async with narrow.sessions() as session:
        service = ItemService(session)
        await insert_items(session, [{"id": ident, "name": "a"} for ident in range(1, 6)])
        async for row in service.stream_as(ItemRead, batch_size=2, begin=narrow.begin):
            assert (await service.get_one(row.id)).id == row.id
    await narrow.dispose()


# --- Lines ---


class Line(BaseModel):
    """Values of every kind, with names of their own in JSON."""

    model_config = ConfigDict(serialize_by_alias=True)

    text: str | None = Field(default=None, serialization_alias="theText")
    number: Decimal | float | int | None = None
    flag: bool | None = None
    many: list[str] | None = None
    nested: dict[str, str] | None = None
    lasts: timedelta | None = None
    hidden: str = Field(default="secret", exclude=True)

    @computed_field
    @property
    def size(self) -> int:
        return len(self.text or "")


async def stream_of(*rows: BaseModel) -> AsyncIterator[BaseModel]:
    for row in rows:
        yield row


async def csv_of(*rows: BaseModel, schema: type[BaseModel] = Line) -> list[list[str]]:
    text = b"".join([chunk async for chunk in csv_lines(stream_of(*rows), schema=schema)]).decode()
    return list(csv.reader(StringIO(text, newline=""), strict=True))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("+49 30 1234", "'+49 30 1234"),
        ("-1+1", "'-1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\n=1", "'\n=1"),
        ("\uff1d1", "'\uff1d1"),
        ("\uff0b1", "'\uff0b1"),
        ("\uff0d1", "'\uff0d1"),
        ("\uff201", "'\uff201"),
        ("-", "'-"),
        ("-5\n", "'-5\n"),
        ("-\u0665", "'-\u0665"),
        ("-cmd|' /C calc'!A0", "'-cmd|' /C calc'!A0"),
        ('=HYPERLINK("http://x","y")', '\'=HYPERLINK("http://x","y")'),
        ("-5", "-5"),
        ("-0.50", "-0.50"),
        ("-1E+3", "-1E+3"),
        ("a=1", "a=1"),
        ("'=1", "'=1"),
        ("", ""),
        ("{}", "{}"),
    ],
)
async def test_no_cell_is_a_formula(text: str, shown: str) -> None:
    """A text that a spreadsheet would run gets an apostrophe in front; negative numbers stay."""
    assert harmless(text) == shown
    assert (await csv_of(Line(text=text)))[1][0] == shown


async def test_cells() -> None:
    """Columns are the fields of the JSON; numbers are plain, booleans and nested values JSON, None and NaN empty."""
    header, *rows = await csv_of(
        Line(text='a "quoted", \r\n text \u00fc\U0001f600', number=-3, flag=True, many=["=1", "b"], nested={"a": "b,c"}),
        Line(number=Decimal("-1.50"), lasts=timedelta(days=-1)),
        Line(number=float("-inf")),
    )

    assert header == ["theText", "number", "flag", "many", "nested", "lasts", "size"] == list(csv_columns(Line))
    assert rows == [
        ['a "quoted", \r\n text \u00fc\U0001f600', "-3", "true", '["=1","b"]', '{"a":"b,c"}', "", "22"],
        ["", "-1.50", "", "", "", "'-P1D", "0"],
        ["", "", "", "", "", "", "0"],
    ]


async def test_csv_is_rfc_4180() -> None:
    """Lines end in CRLF, cells with commas, quotes and line breaks are quoted, and no rows are a header alone."""
    text = b"".join([chunk async for chunk in csv_lines(stream_of(ItemRead(id=1, name='a,"b"\n')), schema=ItemRead)])

    assert text == b'id,name\r\n1,"a,""b""\n"\r\n'
    assert await csv_of(schema=ItemRead) == [["id", "name"]]


class Node(BaseModel):
    name: str
    children: list["Node"] = []


class Odd(RootModel[list[int]]): ...


async def test_columns_of_other_schemas() -> None:
    """A schema that refers to itself has columns; one without fields in JSON is a ConfigurationError."""
    assert await csv_of(Node(name="a", children=[Node(name="b")]), schema=Node) == [
        ["name", "children"],
        ["a", '[{"name":"b","children":[]}]'],
    ]
    with pytest.raises(ConfigurationError, match="Odd has no fields in JSON"):
        csv_columns(Odd)


async def test_lines_are_what_fastapi_sends() -> None:
    """A line of NDJSON is the same JSON as in an answer of FastAPI; line breaks in text are escaped."""
    rows = [Line(text="a\nb\u2028\u00fc", number=Decimal("1.50"), many=["x"]), Line(number=float("nan"))]
    app = FastAPI()

    @app.get("/")
    async def show() -> list[Line]:
        return rows

    text = b"".join([chunk async for chunk in ndjson_lines(stream_of(*rows))])
    async with app_client(app) as client:
        shown = (await client.get("/")).text

    assert text.endswith(b"}\n")
    assert f"[{','.join(text.decode().split(chr(10))[:-1])}]" == shown
    assert [json.loads(line)["theText"] for line in text.decode().split("\n")[:-1]] == ["a\nb\u2028\u00fc", None]
    assert b"".join([chunk async for chunk in ndjson_lines(stream_of())]) == b""


async def test_enums_and_decimals_of_rows(shop: AsyncSession) -> None:
    """Rows of the database come as their JSON values."""

    class Priced(BaseModel):
        price: Decimal
        colour: Colour | None

    await insert_items(shop, [{"id": 1, "name": "a", "price": Decimal("-1.50"), "colour": Colour.RED}])
    chunks = [chunk async for chunk in csv_lines(ItemService(shop).stream_as(Priced), schema=Priced)]

    assert b"".join(chunks) == b"price,colour\r\n-1.50,r\r\n"


# --- Lines without instances ---


class Priced(BaseModel):
    """Its fields have constraints, aliases, defaults, a hidden field and serializers of values."""

    model_config = ConfigDict(str_strip_whitespace=True, alias_generator=lambda name: name.upper())

    id: Annotated[int, Field(serialization_alias="key")]
    name: Annotated[str, AfterValidator(str.title)]
    price: Annotated[Decimal, PlainSerializer(lambda value: f"{value} EUR")]
    rating: float | None
    colour: Colour | None
    sold_at: datetime | None
    code: UUID
    stock: Annotated[int, Field(exclude=True)]
    missing: str = "none"


class Shouted(BaseModel):
    """Only an instance can be written: its computed field reads other fields."""

    id: int
    name: str

    @computed_field
    def shout(self) -> str:
        return self.name.upper()


class Mailed(BaseModel):
    id: int
    note: EmailStr | None


@pytest.mark.parametrize("schema", [ItemRead, Priced, Shouted, Mailed, ItemWithTags])
async def test_lines_are_those_of_instances(shop: AsyncSession, database: Database, schema: type[BaseModel]) -> None:
    """stream_json_as() sends the bytes of ndjson_lines(), whether it makes instances or not."""
    chance = random.Random(7)
    await insert_items(
        shop, [random_item(chance, ident) | {"note": chance.choice(["Ann@EXAMPLE.org", "a@example.org", None])} for ident in range(1, 30)]
    )
    service = ItemService(shop)
    wanted = [chunk async for chunk in ndjson_lines(service.stream_as(schema, ItemFilters(sort="-price")))]
    for begin in (None, database.begin):
        found = [chunk async for chunk in service.stream_json_as(schema, ItemFilters(sort="-price"), batch_size=4, begin=begin)]
        assert b"".join(found) == b"".join(wanted)
    assert [chunk async for chunk in service.stream_json_as(schema, ItemFilters(), Item.id > 99)] == []


async def test_a_row_that_the_schema_rejects(shop: AsyncSession) -> None:
    """It is the same error with and without instances."""

    class Short(BaseModel):
        name: Annotated[str, Field(max_length=3)]

    await insert_items(shop, [{"id": 1, "name": "long"}])
    for rows in (ItemService(shop).stream_json_as(Short), ItemService(shop).stream_as(Short)):
        with pytest.raises(ValidationError, match="at most 3 characters"):
            await anext(rows)


async def test_a_stream_of_the_application_is_sent(shop: AsyncSession) -> None:
    """A service that overrides stream_as() decides what stream_json_as() sends."""

    class Last(ItemService):
        async def stream_as(self, schema: Any, *conditions: Any, **options: Any) -> Any:
            async for row in super().stream_as(schema, *conditions, **options):
                if row.id == 2:
                    yield row

    await insert_items(shop, [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])
    assert [chunk async for chunk in Last(shop).stream_json_as(ItemRead)] == [b'{"id":2,"name":"b"}\n']


async def test_large_rows_are_sent_in_parts(shop: AsyncSession) -> None:
    """A chunk has some 64 KiB, whatever the batch."""
    await insert_items(shop, [{"id": ident, "name": "a", "note": "x" * 30_000} for ident in range(1, 11)])

    class Noted(BaseModel):
        note: str

    chunks = [chunk async for chunk in ItemService(shop).stream_json_as(Noted)]
    assert [chunk.count(b"\n") for chunk in chunks] == [3, 3, 3, 1]
