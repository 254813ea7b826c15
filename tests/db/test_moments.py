"""Aware datetimes and times in columns of SQLAlchemy's own types: stored and compared in UTC on both databases."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import TIMESTAMP, DateTime, Time, TypeDecorator, bindparam, func, insert, literal, select, text, update
from sqlalchemy.dialects.sqlite import DATETIME
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_kit.db import Database
from fastapi_kit.db.checks import check_offsets
from fastapi_kit.db.types import UTCDateTime
from fastapi_kit.errors import ConfigurationError, InvalidDataError

EAST, WEST = timezone(timedelta(hours=2)), timezone(timedelta(hours=-8))
MOMENT = datetime(2024, 1, 1, 2, 0, 0, 123456, tzinfo=EAST)
NOON = datetime.fromisoformat("2024-01-01T12:00:00")
IN_UTC = datetime(2024, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)


class Renamed(TypeDecorator[datetime]):
    """A type of the application without a conversion."""

    impl = DateTime(timezone=True)
    cache_ok = True


class Own(DeclarativeBase): ...


class Meeting(Own):
    __tablename__ = "meetings"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    until: Mapped[datetime | None] = mapped_column(TIMESTAMP(timezone=True))
    renamed: Mapped[datetime | None] = mapped_column(Renamed())
    daily: Mapped[time | None] = mapped_column(Time(timezone=True))
    utc: Mapped[datetime | None] = mapped_column(UTCDateTime())
    naive: Mapped[datetime | None] = mapped_column(DateTime())
    clock: Mapped[time | None] = mapped_column(Time())


@pytest.fixture
async def database(database: Database) -> Database:
    await database.create_tables(Own.metadata)
    return database


@pytest.fixture
async def sqlite(sqlite_database: Database) -> Database:
    await sqlite_database.create_tables(Own.metadata)
    return sqlite_database


@pytest.fixture
async def plain_engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """An engine of the application on SQLite."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'own.db'}")
    yield engine
    await engine.dispose()


async def one(database: Database, statement: Any) -> Any:
    async with database.sessions() as session:
        return (await session.execute(statement)).scalar_one()


COLUMNS = ["at", "until", "renamed", "utc"]


@pytest.mark.parametrize("column", COLUMNS)
async def test_a_flushed_moment_is_the_same_when_it_is_read(database: Database, column: str) -> None:
    """A moment with any offset reads back as the same moment in UTC."""
    async with database.begin() as session:
        meeting = Meeting(id=1, **{column: MOMENT})
        session.add(meeting)
        await session.flush()
        await session.refresh(meeting)
        assert (getattr(meeting, column), getattr(meeting, column).utcoffset()) == (IN_UTC, timedelta(0))
        setattr(meeting, column, MOMENT.astimezone(WEST) + timedelta(days=1))

    assert await one(database, select(getattr(Meeting, column))) == IN_UTC + timedelta(days=1)


@pytest.mark.parametrize("column", COLUMNS)
async def test_conditions_agree_with_what_is_stored(database: Database, column: str) -> None:
    """One moment in three offsets is the same for ``==``, ``IN``, ``BETWEEN``, an order and an aggregate."""
    attribute = getattr(Meeting, column)
    same = [MOMENT, IN_UTC, MOMENT.astimezone(WEST)]
    async with database.begin() as session:
        await session.execute(insert(Meeting), [{"id": id, column: moment} for id, moment in enumerate(same)])
        await session.execute(insert(Meeting).values({"id": 9, column: MOMENT + timedelta(hours=1)}))
        await session.execute(update(Meeting).where(attribute == same[2]).values(naive=NOON))

    for condition in (attribute == same[0], attribute.in_(same[2:]), attribute.between(same[1], same[2]), attribute <= same[1]):
        assert await one(database, select(func.count()).where(condition)) == 3
    assert await one(database, select(func.count(Meeting.naive))) == 3
    assert await one(database, select(func.max(attribute))) == IN_UTC + timedelta(hours=1)
    assert await one(database, select(Meeting.id).order_by(attribute.desc()).limit(1)) == 9


async def test_a_moment_without_a_column_is_compared_in_utc_too(sqlite: Database) -> None:
    """Parameters of text() and literals are compared in UTC too."""
    async with sqlite.begin() as session:
        session.add(Meeting(id=1, at=MOMENT))

    by_text = text("SELECT id FROM meetings WHERE at = :at").bindparams(bindparam("at", MOMENT.astimezone(WEST), DateTime()))
    assert await one(sqlite, by_text) == 1
    assert await one(sqlite, select(Meeting.id).where(literal(MOMENT.astimezone(WEST)) == Meeting.at)) == 1
    assert await one(sqlite, text("SELECT at FROM meetings")) == "2024-01-01 00:00:00.123456"


async def test_a_naive_moment_stays_as_it_is(sqlite: Database) -> None:
    """A naive datetime counts as UTC in a column with a time zone, and is stored unchanged in one without."""
    async with sqlite.begin() as session:
        session.add(Meeting(id=1, at=NOON, naive=NOON, daily=time(12)))
    async with sqlite.sessions() as session:
        meeting = await session.get_one(Meeting, 1)

    assert (meeting.at, meeting.naive, meeting.daily) == (NOON.replace(tzinfo=UTC), NOON, time(12, tzinfo=UTC))
    assert meeting.naive is not None
    assert meeting.naive.tzinfo is None


async def test_an_aware_moment_in_a_naive_column_is_its_time_in_utc(sqlite: Database) -> None:
    """In a column without a time zone an aware datetime is stored in UTC; services reject it."""
    async with sqlite.begin() as session:
        session.add(Meeting(id=1, naive=MOMENT))

    assert await one(sqlite, select(Meeting.naive)) == IN_UTC.replace(tzinfo=None)


async def test_null_and_the_databases_own_clock(sqlite: Database) -> None:
    """NULL is None, and ``CURRENT_TIMESTAMP`` is UTC on SQLite."""
    async with sqlite.begin() as session:
        await session.execute(insert(Meeting).values(id=1, at=func.now(), daily=None))
    async with sqlite.sessions() as session:
        meeting = await session.get_one(Meeting, 1)

    assert meeting.at is not None
    assert abs(meeting.at - datetime.now(UTC)) < timedelta(hours=1)
    assert (meeting.until, meeting.daily) == (None, None)


async def test_a_time_of_day_is_the_same_when_it_is_read(database: Database) -> None:
    """An aware time reads back in UTC: 02:30 at +02:00 is 00:30."""
    async with database.begin() as session:
        session.add(Meeting(id=1, daily=time(2, 30, tzinfo=EAST)))

    assert await one(database, select(Meeting.daily)) == time(0, 30, tzinfo=UTC)
    assert await one(database, select(Meeting.id).where(Meeting.daily == time(2, 30, tzinfo=EAST))) == 1


async def test_a_time_of_day_that_lies_on_another_day_in_utc(sqlite: Database) -> None:
    """A time that is on another day in UTC keeps its time."""
    async with sqlite.begin() as session:
        session.add_all([Meeting(id=1, daily=time(1, tzinfo=EAST)), Meeting(id=2, daily=time(20, tzinfo=WEST))])
    async with sqlite.sessions() as session:
        found = (await session.scalars(select(Meeting.daily).order_by(Meeting.id))).all()

    assert found == [time(23, tzinfo=UTC), time(4, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"daily": time(12, tzinfo=ZoneInfo("Europe/Berlin"))}, "naive_datetime"),
        ({"at": datetime.min.replace(tzinfo=EAST)}, "out_of_range"),
    ],
)
async def test_what_utc_cannot_name_is_rejected(sqlite: Database, values: dict[str, Any], reason: str) -> None:
    """A time whose offset depends on the date, and a moment before the year 1, are rejected."""
    with pytest.raises(InvalidDataError) as caught:
        async with sqlite.begin() as session:
            session.add(Meeting(id=1, **values))

    assert caught.value.reason == reason


async def test_a_format_of_the_applications_own_is_kept() -> None:
    """A storage format that the application gives to SQLite's type is kept."""
    database = Database("sqlite:///:memory:")
    short = DATETIME(timezone=True, truncate_microseconds=True)
    async with database.engine.connect() as connection:
        assert await connection.scalar(select(func.quote(literal(MOMENT, short)))) == "'2024-01-01 00:00:00'"
        assert await connection.scalar(select(literal(MOMENT, short))) == IN_UTC.replace(microsecond=0)
    await database.dispose()


async def test_the_applications_engine_is_taken(plain_engine: AsyncEngine) -> None:
    """An engine that is given to a Database stores moments in UTC; other engines are unchanged."""
    other = create_async_engine(plain_engine.url)
    async with other.connect() as connection:
        assert await connection.scalar(select(literal(MOMENT, DateTime(timezone=True)))) == MOMENT.replace(tzinfo=None)
    await other.dispose()
    Database(plain_engine)
    async with plain_engine.connect() as connection:
        assert await connection.scalar(select(literal(MOMENT, DateTime(timezone=True)))) == IN_UTC


def test_an_offset_that_would_be_lost_is_the_developers_mistake(plain_engine: AsyncEngine) -> None:
    """An offset that would be lost raises ConfigurationError with the attributes, before the write."""
    mapper, dialect = Meeting.__mapper__, plain_engine.dialect
    lost = {"at": MOMENT, "renamed": MOMENT, "daily": time(1, tzinfo=EAST)}
    kept = {
        "at": IN_UTC,
        "until": MOMENT.replace(tzinfo=None),
        "utc": MOMENT,
        "id": 1,
        "daily": None,
        "clock": time(1, tzinfo=EAST),
        "unknown": MOMENT,
    }

    with pytest.raises(ConfigurationError, match=r"Meeting\.at, renamed, daily"):
        check_offsets(mapper, lost, dialect)
    check_offsets(mapper, kept, dialect)
    Database(plain_engine)
    check_offsets(mapper, lost, dialect)


def test_postgresql_loses_no_offset(postgres_database: Database) -> None:
    check_offsets(Meeting.__mapper__, {"at": MOMENT}, postgres_database.engine.dialect)
