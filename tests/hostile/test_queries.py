"""Lists with filters, search, sort and cursors: hostile parameters in random sets, on both databases at once."""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar
from urllib.parse import quote_from_bytes
from uuid import UUID

import pytest
from fastapi import Query
from sqlalchemy import func, insert
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from tests.hostile.apps import Colour, HostileBase, Sample, SampleRead, SampleService, made_app
from tests.hostile.asgi import Sent
from tests.hostile.promise import CANARY
from tests.hostile.sites import Site, Sites
from tests.thorough import FULL

from fastapi_kit import Database, crud_router
from fastapi_kit.crud import FilterSpec, KeysetSpec, QuerySpec, Where
from fastapi_kit.pagination import KeysetPage
from fastapi_kit.routing import Endpoint
from fastapi_kit.testing import app_client


class SampleFilters(FilterSpec[Sample]):
    """A filter of each operator and of each type of column."""

    search_fields: ClassVar[Any] = (Sample.name, Sample.text)
    sort_fields: ClassVar[Any] = (
        Sample.name,
        Sample.number,
        Sample.ratio,
        Sample.price,
        Sample.moment,
        Sample.colour,
        func.length(Sample.name).label("size"),
    )
    name: str | None = None
    name__ne: str | None = None
    name__in: list[str] | None = None
    name__contains: str | None = None
    name__istartswith: str | None = None
    text__icontains: str | None = None
    text__endswith: str | None = None
    text__isnull: bool | None = None
    number__gt: int | None = None
    number__not_in: list[int] | None = None
    big: int | None = None
    small__lte: int | None = None
    ratio__lt: float | None = None
    single: float | None = None
    price__gte: Decimal | None = None
    amount__lt: Decimal | None = None
    day: date | None = None
    day__in: list[date] | None = None
    moment: date | None = None
    moment__lte: date | datetime | None = None
    moment__date: date | None = None
    wall__gt: datetime | None = None
    colour: Colour | None = None
    token: UUID | None = None
    flag: bool | None = None
    longer: Annotated[int | None, Where(lambda length: func.length(Sample.name) > length)] = None
    starting: Annotated[str | None, Where(lambda start: Sample.name.startswith(start, autoescape=True))] = None


class SampleQuery(SampleFilters, QuerySpec[Sample]): ...


class SampleFeed(SampleFilters, KeysetSpec[Sample]): ...


LISTS = (b"/found", b"/feed", b"/by-hand")
ROWS = [
    {
        "name": name,
        "number": number,
        "weight": 1.0,
        "ratio": ratio,
        "price": Decimal(number) / 4,
        "day": date(2024, 2, number),
        "text": text,
    }
    for number, (name, ratio, text) in enumerate([("a%", 0.5, None), ("A_", None, "x"), ("", 1e300, "Ü"), ("a", -0.0, "ü")], 1)
]


async def site_with_lists(database: Database, stack: AsyncExitStack) -> Site:
    """Start an application with three lists of four samples on an empty database."""
    await database.create_tables(HostileBase.metadata)
    async with database.begin() as session:
        for row in ROWS:
            await session.execute(insert(Sample), row)
    app = made_app(database)
    made: dict[str, Any] = {"read": SampleRead, "session": database.session, "endpoints": Endpoint.LIST}
    app.include_router(crud_router(SampleService, query=SampleQuery, **made), prefix="/found", tags=["found"])
    app.include_router(crud_router(SampleService, query=SampleFeed, **made), prefix="/feed", tags=["feed"])

    @app.get("/by-hand")
    async def by_hand(query: Annotated[SampleFeed, Query()], session: Annotated[AsyncSession, database.session]) -> KeysetPage[SampleRead]:
        return await SampleService(session).keyset_page_as(SampleRead, query)

    engine = create_async_engine(database.engine.url)
    stack.push_async_callback(engine.dispose)
    state = await stack.enter_async_context(app.router.lifespan_context(app))
    eye = await stack.enter_async_context(engine.connect())
    return Site(engine.dialect.name, {"made": app}, {"made": state or {}}, eye)


@pytest.fixture
async def lists(sqlite_database: Database, postgres_database: Database, log: pytest.LogCaptureFixture) -> AsyncIterator[Sites]:
    """The lists on both databases."""
    async with AsyncExitStack() as stack:
        yield Sites([await site_with_lists(database, stack) for database in (sqlite_database, postgres_database)], log)


# --- Generated queries ---

# fmt: off
VALUES: tuple[bytes, ...] = (
    b"", b"0", b"1", b"-1", b"+1", b" 1 ", b"01", b"1.0", b"1e3", b"1_0", b"0x10", b"9" * 4, b"9" * 10, b"9" * 19, b"9" * 20, b"9" * 5000,
    b"-32769", b"2147483648", b"-9223372036854775809", b"1e308", b"1e309", b"1e400", b"-1e999999999", b"1e-400", b"0." + b"1" * 200,
    b"1E+131072", b"NaN", b"nan", b"-NaN", b"sNaN", b"inf", b"-Infinity", b"1/0", b"true", b"False", b"null", b"None", b"undefined",
    b"on", b"a", b"a%", b"%", b"_", b"/", b"\\", b"\0", b"a\0b", b"%00", b"\xed\xa0\x80", b"\xff\xfe", b"\xc0\x80", b"\xf4\x90\x80\x80",
    "ü".encode(), "İSTANBUL".encode(), "ß".encode(), "ΣΣ".encode(), "e\u0301".encode(), "\u202e\u200b\ufeff".encode(),
    "\U0001f9ff".encode(), "٣".encode(), b"\r\nX: y", b"\x1b[31m", b"' OR '1'='1", b"'; DROP TABLE samples; --",
    b"1) UNION SELECT 1,2,3--", b"$1", b":id", b"?", b"%s", b"{0.__class__}", b"${jndi:ldap://x}", b"../../etc/passwd", b"<script>",
    b"[]", b"[1]", b"{}", b'{"a":1}', b"[" * 2000, b"a" * 201, b"a" * 3000, b"2024-02-29", b"2023-02-29", b"0000-01-01", b"0001-01-01",
    b"9999-12-31", b"10000-01-01", b"-0001-01-01", b"20240229", b"2024-02-29T12:00:00", b"2024-02-29T12:00:00Z",
    b"0001-01-01T00:00:00+23:59", b"9999-12-31T23:59:59-23:59", b"9999-12-31T23:59:59.9999999Z", b"2024-02-29T24:00:00Z", b"1e18",
    b"253402300800", b"-62135596801", b"red", b"RED", b"Colour.RED", b"00000000-0000-0000-0000-000000000000",
    b"{00000000000000000000000000000000}", b"urn:uuid:00000000-0000-0000-0000-000000000000", CANARY.encode(),
)
SORTS: tuple[bytes, ...] = (
    b"", b"name", b"-name", b"size,-price", b"-moment,colour", b"ratio,-number", b"name,name", b"-name,name", b"--name", b"name,",
    b",name", b"NAME", b"name desc", b"id", b"samples.name", b"(SELECT 1)", b"name;DROP TABLE samples", b"-", b",", b"+name", b"name\0",
    b"name," * 500, b"__class__",
)
CURSORS: tuple[bytes, ...] = (
    b"", b"=", b"====", b"x", b"AAAA", b"\0", b"\xff", b"null", b"eyJpZCI6MX0", b"W10", b"-_-_", b"A" * 100_000, "ü".encode(), b"../x",
    b" ", b"1,2",
)
NAMES: tuple[bytes, ...] = (
    b"nme", b"id", b"name__", b"__name", b"name__regex", b"name__in__in", b"price__gte__lt", b"weight", b"filters", b"model_config",
    b"search_fields", b"__class__", b"name[]", b"name[0]", b"name[$ne]", b"name__in[]", b"sort[]", b"", b"\0", b"\xff", b"q\0", b"Name",
    b"name ", b"a" * 5000, b"skip", b"cursor", b"owner__name", CANARY.encode(),
)
BOUNDS: tuple[bytes, ...] = (
    b"0", b"1", b"2", b"4", b"1000", b"1001", b"-1", b"2147483647", b"2147483648", b"9" * 30, b"1.5", b"x", b"", b"NaN",
)
# fmt: on
FIELDS = tuple(name.encode() for name in SampleFilters.model_filters)


def parameters(chance: random.Random) -> Iterator[tuple[bytes, bytes]]:
    """Yield one to five parameters. Most are known, so that most of them reach SQL."""
    for _ in range(chance.randint(1, 5)):
        kind = chance.random()
        if kind < 0.65:
            yield chance.choice(FIELDS), chance.choice(VALUES)
        elif kind < 0.75:
            yield b"sort", chance.choice(SORTS)
        elif kind < 0.85:
            yield b"q", chance.choice(VALUES)
        elif kind < 0.9:
            yield b"cursor", chance.choice(CURSORS)
        elif kind < 0.95:
            yield chance.choice((b"skip", b"limit")), chance.choice(BOUNDS)
        else:
            yield chance.choice(NAMES), chance.choice(VALUES)


def query(chance: random.Random) -> bytes:
    """Return a query string: some parameters come twice, and some bytes are not percent-encoded."""
    given = list(parameters(chance))
    if chance.random() < 0.2:
        given.append((chance.choice(given)[0], chance.choice(VALUES)))
    safe = "%" if chance.random() < 0.1 else ""
    return b"&".join(quote_from_bytes(name, safe).encode() + b"=" + quote_from_bytes(value, safe).encode() for name, value in given)


def requests(seed: int, count: int) -> Iterator[Sent]:
    chance = random.Random(seed)
    for _ in range(count):
        asked = query(chance)
        for path in LISTS:
            yield Sent(method="GET", path=path, query=asked, headers=())


@pytest.mark.only_full
@pytest.mark.parametrize("seed", range(10 if FULL else 1))
async def test_random_sets_of_parameters(lists: Sites, seed: int) -> None:
    """No list answers a set of parameters with a 5xx, repeats it, or answers otherwise on the other database."""
    await lists.keep_promise("made", requests(seed, 100 if FULL else 60))


@pytest.mark.only_full
async def test_each_value_in_each_filter(lists: Sites) -> None:
    """Every value alone: some pass every check and reach the database."""
    names = FIELDS if FULL else (b"moment__lte", b"price__gte", b"ratio__lt")
    every = (
        Sent(method="GET", path=b"/found", query=b"%s=%s" % (name, quote_from_bytes(value, "").encode()), headers=())
        for name in names
        for value in VALUES
    )
    await lists.keep_promise("made", every)


@pytest.mark.only_full
async def test_the_lists_find_the_same_rows(lists: Sites) -> None:
    """Hostile text that may pass finds the same rows on both databases."""
    names = ("q", "name__contains", "text__icontains") if FULL else ("q",)
    urls = [f"{path.decode()}?{name}={quote_from_bytes(value, '')}" for path in LISTS[:2] for name in names for value in VALUES]
    answers: list[list[list[str]]] = []
    for site in lists.every:
        async with app_client(site.apps["made"]) as client:
            pages = [(await client.get(url)).json() for url in urls]
        answers.append([[item["name"] for item in page.get("items", [])] for page in pages])

    assert answers[0] == answers[1]
    assert any(answers[0])
