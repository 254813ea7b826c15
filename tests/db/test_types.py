"""UTCDateTime on both databases, and time-ordered keys."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import chain, pairwise
from typing import Any
from uuid import RFC_4122, UUID

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, func, insert, literal, select, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateTable

from fastapi_kit.db import Database
from fastapi_kit.db.types import ServerNow, UTCDateTime, UUID7Maker, utc_now, uuid7
from fastapi_kit.errors import InvalidDataError

events = Table("events", MetaData(), Column("id", Integer, primary_key=True), Column("at", UTCDateTime(), server_default=ServerNow()))

IN_INDIA = timezone(timedelta(hours=5, minutes=30))
MOMENT = datetime(2024, 2, 29, 1, 2, 3, 456789, tzinfo=IN_INDIA)


@pytest.fixture
async def database(database: Database) -> Database:
    async with database.engine.begin() as connection:
        await connection.run_sync(events.metadata.create_all)
    return database


async def store(database: Database, *moments: object) -> None:
    async with database.engine.begin() as connection:
        await connection.execute(insert(events), [{"at": moment} for moment in moments])


async def fetch(database: Database, statement: Any) -> Any:
    async with database.engine.connect() as connection:
        return await connection.scalar(statement)


async def test_any_offset_goes_in_and_utc_comes_out(database: Database) -> None:
    """A moment with an offset reads back as the same moment in UTC, to the microsecond."""
    await store(database, MOMENT)

    stored = await fetch(database, select(events.c.at))

    assert stored == MOMENT
    assert stored.tzinfo is UTC
    assert stored.isoformat() == "2024-02-28T19:32:03.456789+00:00"


async def test_none_is_null(database: Database) -> None:
    """None is stored as NULL."""
    await store(database, None)

    assert await fetch(database, select(func.count()).where(events.c.at.is_(None))) == 1


async def test_moments_sort_as_time_does(database: Database) -> None:
    """Order and comparison follow time, whatever the offsets and the digits of the seconds."""
    late, middle, early = MOMENT + timedelta(microseconds=1), MOMENT, (MOMENT - timedelta(hours=1)).astimezone(UTC).replace(microsecond=0)
    await store(database, late, early, middle)

    async with database.engine.connect() as connection:
        in_order = list(await connection.scalars(select(events.c.at).order_by(events.c.at)))
        after = list(await connection.scalars(select(events.c.at).where(events.c.at > middle.astimezone(UTC))))

    assert in_order == [early, middle, late]
    assert after == [late]


async def test_an_aggregate_keeps_the_type(database: Database) -> None:
    """max() of the column is an aware datetime in UTC."""
    await store(database, MOMENT, MOMENT - timedelta(days=1))

    assert await fetch(database, select(func.max(events.c.at))) == MOMENT


async def test_a_naive_moment_is_rejected_on_insert(database: Database) -> None:
    """A naive datetime raises InvalidDataError with the remedy."""
    with pytest.raises(InvalidDataError, match=r"^naive datetime: give it a time zone, as datetime.now\(UTC\) does$") as caught:
        await store(database, MOMENT.replace(tzinfo=None))

    assert caught.value.reason == "naive_datetime"
    assert "2024" not in str(caught.value)


async def test_a_naive_moment_is_rejected_in_a_condition(database: Database) -> None:
    """A naive datetime in a WHERE clause is rejected too."""
    with pytest.raises(InvalidDataError, match="naive datetime"):
        await fetch(database, select(events.c.at).where(events.c.at > MOMENT.replace(tzinfo=None)))


@pytest.mark.parametrize("value", [date(2024, 1, 1), "2024-01-01T00:00:00Z", 1_700_000_000])
async def test_what_is_no_datetime_is_rejected(database: Database, value: object) -> None:
    """A date, a text or a number raises InvalidDataError."""
    with pytest.raises(InvalidDataError) as caught:
        await store(database, value)

    assert caught.value.reason == "wrong_type"


@pytest.mark.parametrize(
    "moment", [datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))]
)
async def test_a_moment_that_utc_cannot_name_is_rejected(database: Database, moment: datetime) -> None:
    """A moment outside the years 1 to 9999 in UTC raises InvalidDataError."""
    with pytest.raises(InvalidDataError) as caught:
        await store(database, moment)

    assert caught.value.reason == "out_of_range"


async def test_the_session_works_after_a_rejection(database: Database) -> None:
    """After a rejected value the session still works."""
    async with database.sessions() as session:
        with pytest.raises(InvalidDataError):
            await session.execute(insert(events).values(at=MOMENT.replace(tzinfo=None)))

        assert await session.scalar(select(func.count()).select_from(events)) == 0


async def test_a_raw_insert_gets_the_server_time(database: Database) -> None:
    """The server default reads back aware and can be compared with values from Python."""
    before = utc_now() - timedelta(seconds=5)
    async with database.engine.begin() as connection:
        await connection.execute(text("INSERT INTO events DEFAULT VALUES"))
    await store(database, before, before + timedelta(days=1))

    async with database.engine.connect() as connection:
        ids = list(await connection.scalars(select(events.c.id).order_by(events.c.at)))
        default = await connection.scalar(select(events.c.at).where(events.c.id == 1))

    assert ids == [2, 1, 3]
    assert default is not None
    assert abs(default - before) < timedelta(seconds=60)


async def test_an_interval_can_be_added_where_the_database_has_intervals(database: Database) -> None:
    """A timedelta in an expression with the column is an interval."""
    expression = literal(MOMENT, UTCDateTime()) + timedelta(days=1)

    if database.engine.dialect.name == "sqlite":
        assert expression.right.type.python_type is timedelta
    else:
        assert await fetch(database, select(expression)) == MOMENT + timedelta(days=1)


def test_the_type_tells_its_values() -> None:
    """python_type of the column type is datetime."""
    assert UTCDateTime().python_type is datetime


@pytest.mark.parametrize(
    ("stored", "moment"),
    [
        ("2024-01-01 00:00:00.123456", datetime(2024, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)),
        ("2024-01-01T00:00:00.123456", datetime(2024, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)),
        ("2024-01-01 00:00:00", datetime(2024, 1, 1, tzinfo=UTC)),
        ("2024-01-01", datetime(2024, 1, 1, tzinfo=UTC)),
        ("2024-01-01T02:00:00.0+02:0", None),
        ("2024-01-01 00:00:00.12345Z", datetime(2024, 1, 1, 0, 0, 0, 123450, tzinfo=UTC)),
        ("2024-01-01T02:00:00.5+0200", datetime(2024, 1, 1, 0, 0, 0, 500000, tzinfo=UTC)),
    ],
)
def test_sqlite_reads_what_others_have_written(stored: str, moment: datetime | None) -> None:
    """Text of other programs is read, with or without an offset; text that is not a moment raises an error."""
    dialect = Database("sqlite:///:memory:").engine.dialect
    read: Any = UTCDateTime().dialect_impl(dialect).result_processor(dialect, None)
    assert read(None) is None
    if moment is None:
        with pytest.raises(ValueError, match=stored[:10]):
            read(stored)
    else:
        assert (read(stored), read(stored).tzinfo) == (moment, UTC)


def test_sqlite_stores_both_ways_in_one_format() -> None:
    """The server default of SQLite has the format that Python writes."""
    bind = UTCDateTime().dialect_impl(sqlite.dialect()).bind_processor(sqlite.dialect())

    assert bind is not None
    assert bind(MOMENT) == "2024-02-28 19:32:03.456789"
    assert "strftime('%Y-%m-%d %H:%M:%f000', 'now')" in str(CreateTable(events).compile(dialect=sqlite.dialect()))


@pytest.mark.only_full
def test_ids_strictly_increase() -> None:
    """100,000 keys increase and have the version and variant of RFC 9562."""
    ids = [uuid7() for _ in range(100_000)]

    assert all(earlier < later for earlier, later in pairwise(ids))
    assert {(key.version, key.variant) for key in ids} == {(7, RFC_4122)}


def test_ids_of_threads_are_in_order_and_never_meet() -> None:
    """Keys of several threads are distinct, and increase in each thread."""
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda _: [uuid7() for _ in range(5_000)], range(4)))

    assert all(ids == sorted(ids) for ids in drawn)
    assert len(set(chain.from_iterable(drawn))) == 20_000


def test_an_id_carries_its_time() -> None:
    """The first 48 bits are the milliseconds since 1970."""
    key = UUID7Maker(clock=lambda: 1_700_000_000_123_999_999)()

    assert key.int >> 80 == 1_700_000_000_123


def test_ids_increase_when_the_clock_goes_back() -> None:
    """Keys increase when the clock goes back an hour."""
    times: Iterator[int] = iter([7_200_000_000_000, 3_600_000_000_000, 3_600_000_000_000, 7_200_000_000_000, 7_201_000_000_000])
    make = UUID7Maker(clock=lambda: next(times))

    ids = [make() for _ in range(5)]

    assert ids == sorted(set(ids))
    assert [key.int >> 80 for key in ids] == [7_200_000] * 4 + [7_201_000]


def test_a_full_counter_borrows_the_next_millisecond() -> None:
    """A full counter goes on in the next millisecond."""
    make = UUID7Maker(clock=lambda: 1_000_000, random_bits=lambda bits: 2**42 - 2 if bits > 32 else 0)

    ids = [make() for _ in range(4)]

    assert ids == sorted(set(ids))
    assert [key.int >> 80 for key in ids] == [1, 1, 2, 2]


def test_ids_cannot_be_guessed_from_their_neighbours() -> None:
    """The last 32 bits of every key are random."""
    make = UUID7Maker(clock=lambda: 1_000_000)

    tails = {UUID(int=make().int & 0xFFFF_FFFF) for _ in range(1_000)}

    assert len(tails) > 990
