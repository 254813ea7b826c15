"""What a cache promises, in memory and on Redis."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, SecretStr
from tests.redis_server import PATIENT, URL, loops_that_leave_connections, shared_redis
from tests.reliability.aside import eventually

from fastapi_kit.cache import Cache, cached
from fastapi_kit.errors import ConfigurationError, MissingExtraError
from fastapi_kit.settings import KitSettings

MINUTE = timedelta(minutes=1)


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[Cache]:
    if request.param == "memory":
        yield Cache()
    else:
        async with shared_redis() as (found,):
            yield found


@dataclass
class Source:
    """Counts its loads, and holds them back while ``gate`` is closed."""

    value: Any = "old"
    loads: int = 0
    started: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def load(self) -> Any:
        self.loads += 1
        value = self.value
        self.started.set()
        await self.gate.wait()
        if isinstance(value, BaseException):
            raise value
        return value


def reading(cache: Cache, source: Source, *, kind: Any = str | None, lifetime: timedelta = MINUTE) -> Callable[..., Awaitable[Any]]:
    async def read(key: str = "key") -> Any:
        return await source.load()

    read.__annotations__["return"] = kind
    return cached(cache, lifetime=lifetime, key=lambda key="key": key)(read)


async def test_what_was_loaded_is_kept(cache: Cache) -> None:
    """The second call does not run the function."""
    source = Source()
    read = reading(cache, source)

    assert [await read(), await read()] == ["old", "old"]
    assert source.loads == 1


async def test_each_key_has_its_value(cache: Cache) -> None:
    """Keys that differ have entries that differ, however long they are and whatever characters they have."""
    keys = ["a", "A", "é", "e\u0301", "*", "a*", "a.b", "a b", "", "ключ", "🗝", "\x00", "\ud800", "k" * 100_000, "k" * 100_001, "%2A"]

    async def read(key: str) -> int:
        return keys.index(key)

    keeping = cached(cache, lifetime=MINUTE, key=lambda key: key)(read)
    assert [await keeping(key) for key in keys] == list(range(len(keys)))
    assert [await keeping(key) for key in keys] == list(range(len(keys)))


async def test_two_functions_may_have_one_key(cache: Cache) -> None:
    """A key belongs to its function, and ``delete`` drops the entries of both."""

    async def number(key: str) -> int:
        return 1

    async def text(key: str) -> str:
        return "one"

    keep = cached(cache, lifetime=MINUTE, key=lambda key: key)
    assert (await keep(number)("a"), await keep(text)("a")) == (1, "one")
    assert (await keep(number)("a"), await keep(text)("a")) == (1, "one")


async def test_delete_drops_an_entry(cache: Cache) -> None:
    """After ``delete`` the function runs again, and other keys stay."""
    source = Source()
    read = reading(cache, source)
    await read("a")
    await read("b")

    source.value = "new"
    await cache.delete("a")

    assert (await read("a"), await read("b")) == ("new", "old")


@pytest.mark.parametrize(
    ("prefix", "expected"), [("", 4), ("user:1*", 1), ("user:", 2), ("user:" + "long" * 100, 1), ("usr.", 1), ("nothing", 0)]
)
async def test_clear_drops_what_starts_with_a_prefix(cache: Cache, prefix: str, expected: int) -> None:
    """Without a prefix everything goes. The prefix is plain text, not a pattern."""
    source = Source()
    read = reading(cache, source)
    keys = ["user:1*", "user:" + "long" * 101, "usr.1", "usr-1"]
    for key in keys:
        await read(key)

    await cache.clear(prefix)
    for key in keys:
        await read(key)

    assert source.loads == 4 + expected


async def test_an_entry_ends(cache: Cache) -> None:
    """After its lifetime an entry is loaded again."""
    source = Source()
    read = reading(cache, source, lifetime=timedelta(milliseconds=20))

    async def is_loaded_again() -> bool:
        await read()
        return source.loads > 1

    await eventually(is_loaded_again)


async def test_none_is_a_value(cache: Cache) -> None:
    """A function that found nothing is not asked again."""
    source = Source(value=None)
    read = reading(cache, source)

    assert [await read(), await read()] == [None, None]
    assert source.loads == 1


class Part(BaseModel):
    price: Decimal
    renamed: str = Field(alias="Other", serialization_alias="other-name")


class Whole(BaseModel):
    id: UUID
    at: datetime
    parts: list[Part]
    seconds: timedelta


async def test_types_survive(cache: Cache) -> None:
    """What comes from the cache equals what was loaded: datetimes, Decimals, UUIDs, nested schemas, fields with aliases."""
    part = Part.model_validate({"price": Decimal("0.10"), "Other": "x"})
    id = UUID("0190d3a5-0000-7000-8000-000000000001")
    whole = Whole(id=id, at=datetime(2030, 1, 2, 3, 4, 5, 678901, UTC), parts=[part], seconds=timedelta(days=2))
    source = Source(value={1: [whole]})
    read = reading(cache, source, kind=dict[int, list[Whole]])

    first, second, third = await read(), await read(), await read()

    assert first == second == third
    assert source.loads == 1
    assert second[1] is not third[1]


class Login(BaseModel):
    password: SecretStr


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Login, Login(password=SecretStr("hush"))), (float, float("nan")), (bytes, b"\xff"), (Any, {"at": datetime(2030, 1, 1, tzinfo=UTC)})],
)
async def test_a_value_that_does_not_survive_is_not_kept(cache: Cache, kind: Any, value: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is loaded each time, and one warning names the function, not the value."""
    source = Source(value=value)
    read = reading(cache, source, kind=kind)

    assert await read() is value
    assert await read() is value
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "read is not cached: its value does not survive JSON" in warning.getMessage()
    assert "hush" not in caplog.text


async def test_an_exception_is_not_kept(cache: Cache) -> None:
    """It is raised, and the next call runs the function again."""
    source = Source(value=LookupError("no"))
    read = reading(cache, source)
    with pytest.raises(LookupError):
        await read()

    source.value = "new"
    assert await read() == "new"


async def test_concurrent_misses_load_once(cache: Cache) -> None:
    """Twenty callers of one key run the function once, and each gets an object of its own."""
    source = Source(value=["x"])
    source.gate.clear()
    read = reading(cache, source, kind=list[str])
    calls = [asyncio.ensure_future(read()) for _ in range(20)]
    await eventually(lambda: waiting_for_one_load(cache, calls))
    source.gate.set()
    found = await asyncio.gather(*calls)

    assert source.loads == 1
    assert found == [["x"]] * 20
    assert len({id(each) for each in found}) == 20


async def waiting_for_one_load(cache: Cache, calls: list[asyncio.Future[Any]]) -> bool:
    """Return whether all *calls* but the one that loads wait for its future."""
    callbacks = [len(flight._callbacks or ()) for flight in cache._flights.values()]  # type: ignore[attr-defined]
    return callbacks == [len(calls) - 1]


async def test_keys_do_not_wait_for_each_other(cache: Cache) -> None:
    """While one key loads, another one is loaded."""
    slow, fast = Source(), Source(value="fast")
    slow.gate.clear()
    waiting = asyncio.ensure_future(reading(cache, slow)("slow"))
    await slow.started.wait()

    assert await reading(cache, fast)("fast") == "fast"
    slow.gate.set()
    assert await waiting == "old"


async def test_a_cancelled_load_fails_no_other_call(cache: Cache) -> None:
    """The client of the request that loads goes away: another waiting request loads, once for all of them."""
    source = Source()
    source.gate.clear()
    read = reading(cache, source)
    first = asyncio.ensure_future(read())
    await source.started.wait()
    others = [asyncio.ensure_future(read()) for _ in range(5)]
    await eventually(lambda: waiting_for_one_load(cache, [first, *others]))

    first.cancel()
    await eventually(lambda: waiting_for_one_load(cache, others))
    source.gate.set()

    assert await asyncio.gather(*others) == ["old"] * 5
    assert source.loads == 2
    assert first.cancelled()


async def test_a_failed_load_fails_no_other_call(cache: Cache) -> None:
    """An exception belongs to the call that met it: the others load for themselves, all at once."""
    failing, working = Source(value=LookupError("mine")), Source(value="new")
    failing.gate.clear()
    working.gate.clear()

    async def load() -> str:
        return str(await (working if failing.loads else failing).load())

    read = cached(cache, lifetime=MINUTE, key=lambda: "key")(load)
    first = asyncio.ensure_future(read())
    await failing.started.wait()
    others = [asyncio.ensure_future(read()) for _ in range(3)]
    await eventually(lambda: waiting_for_one_load(cache, [first, *others]))

    failing.gate.set()
    with pytest.raises(LookupError):
        await first

    async def all_load() -> bool:
        return working.loads == 3

    await eventually(all_load)
    working.gate.set()
    assert await asyncio.gather(*others) == ["new"] * 3


async def test_a_cancelled_caller_leaves_the_load_alone(cache: Cache) -> None:
    """A caller who only waited goes away: the load goes on."""
    source = Source()
    source.gate.clear()
    read = reading(cache, source)
    first = asyncio.ensure_future(read())
    await source.started.wait()
    waiting = asyncio.ensure_future(read())
    await eventually(lambda: waiting_for_one_load(cache, [first, waiting]))

    waiting.cancel()
    source.gate.set()

    assert await first == "old"
    assert source.loads == 1


async def test_what_was_loaded_before_a_delete_is_never_shown_after_it(cache: Cache) -> None:
    """A slow load that began before a write does not put the old value back."""
    source = Source()
    source.gate.clear()
    read = reading(cache, source)
    slow = asyncio.ensure_future(read())
    await source.started.wait()

    source.value = "new"
    await cache.delete("key")
    source.gate.set()

    assert await slow == "old"
    assert await read() == "new"


async def test_a_call_after_a_delete_does_not_join_a_load_from_before(cache: Cache) -> None:
    """Who calls after the write gets the new value, even while the old one is being loaded."""
    source = Source()
    source.gate.clear()
    read = reading(cache, source)
    slow = asyncio.ensure_future(read())
    await source.started.wait()

    source.value = "new"
    await cache.delete("key")
    later = asyncio.ensure_future(read())
    source.gate.set()

    assert await asyncio.gather(slow, later) == ["old", "new"]


async def test_processes_share_a_redis() -> None:
    """What one process has loaded another one finds, and what one drops is dropped in both."""
    async with shared_redis(processes=2) as (here, there):
        source = Source()
        read = [reading(cache, source) for cache in (here, there)]
        assert [await read[0](), await read[1]()] == ["old", "old"]
        assert source.loads == 1

        source.value = "new"
        await there.delete("key")
        assert [await read[0](), await read[1]()] == ["new", "new"]

        await here.clear()
        await read[1]()
        assert source.loads == 3


async def test_a_load_here_does_not_hide_a_delete_there() -> None:
    """Another process writes while this one loads: the old value is not shown afterwards, in neither."""
    async with shared_redis(processes=2) as (here, there):
        source = Source()
        source.gate.clear()
        read = [reading(cache, source) for cache in (here, there)]
        slow = asyncio.ensure_future(read[0]())
        await source.started.wait()

        source.value = "new"
        await there.delete("key")
        later = asyncio.ensure_future(read[0]())
        source.gate.set()

        assert await asyncio.gather(slow, later) == ["old", "new"]
        assert [await read[0](), await read[1]()] == ["new", "new"]


@pytest.mark.parametrize("turns", range(1, 8))
async def test_a_cancelled_delete_is_made(turns: int) -> None:
    """A client goes away while its write drops an entry: the entry is dropped, at once here and a moment later in other processes."""
    async with shared_redis(processes=2) as (here, there):
        source = Source()
        read = [reading(cache, source) for cache in (here, there)]
        await read[1]()
        source.value = "new"
        dropping = asyncio.ensure_future(here.delete("key"))
        for _ in range(turns):
            await asyncio.sleep(0)
        dropping.cancel()

        async def is_dropped_there() -> bool:
            return bool(await read[1]() == "new")

        await eventually(is_dropped_there)
        assert await read[0]() == "new"


async def test_prefixes_keep_applications_apart() -> None:
    """Two applications on one Redis do not see each other's entries."""
    async with shared_redis() as (mine,), shared_redis() as (theirs,):
        assert await reading(mine, Source(value="mine"))() == "mine"
        assert await reading(theirs, Source(value="theirs"))() == "theirs"


@pytest.mark.only_full
async def test_memory_is_bounded() -> None:
    """Ten thousand keys keep no more than *max_entries* names, and what was used last stays."""
    cache, source = Cache(max_entries=100), Source()
    read = reading(cache, source)
    for number in range(10_000):
        await read(str(number))
    client: Any = cache._store._client

    assert await client.get_keys_count() == 100
    await read("9999")
    assert source.loads == 10_000


async def test_what_others_wrote_is_not_unpickled(cache: Cache) -> None:
    """Bytes that are no entry, or not of this type, count as a miss."""
    number, text = Source(value=7), Source(value="seven")
    read = reading(cache, text)
    read_number = reading(cache, number, kind=int)
    assert await read() == "seven"

    assert await read_number() == 7
    assert await read_number() == 7


def test_a_loop_of_its_own_connects_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """A cache outlives the event loop that used it first, as tests with several loops need it, closed or not."""
    memory = Cache()

    async def use_memory(value: str) -> str:
        return str(await reading(memory, Source(value=value))())

    async def some_prefix() -> str:
        async with shared_redis() as (cache,):
            return cache._prefix

    assert [asyncio.run(use_memory("first")), asyncio.run(use_memory("second"))] == ["first", "first"]
    redis = Cache(URL, prefix=asyncio.run(some_prefix()), timeout=PATIENT)

    async def use_redis(value: str) -> str:
        return str(await reading(redis, Source(value=value), lifetime=timedelta(seconds=20))())

    async def use_and_close() -> str:
        async with redis.lifespan(None):
            return await use_redis("third")

    with loops_that_leave_connections():
        assert [asyncio.run(use_redis("first")), asyncio.run(use_redis("second")), asyncio.run(use_and_close())] == ["first"] * 3
    assert [record.getMessage() for record in caplog.records if record.name == "fastapi_kit.cache"] == []


@pytest.mark.parametrize("kind", ["sync", "bare", "unknown", "undefined"])
def test_a_function_that_cannot_be_cached_is_rejected(kind: str) -> None:
    """The mistake shows at import, not in a request."""

    def sync() -> str:
        return ""

    async def bare():  # type: ignore[no-untyped-def]
        return ""

    async def unknown() -> Cache:
        return Cache()

    async def undefined() -> "Missing":  # type: ignore[name-defined]  # noqa: F821
        return None

    function: Any = {"sync": sync, "bare": bare, "unknown": unknown, "undefined": undefined}[kind]
    with pytest.raises(ConfigurationError, match="cannot be cached"):
        cached(Cache(), lifetime=MINUTE, key=str)(function)


def test_a_lifetime_is_positive() -> None:
    """Zero would keep an entry for ever on some servers."""
    with pytest.raises(ConfigurationError, match="lifetime"):
        cached(Cache(), lifetime=timedelta(0), key=str)


@pytest.mark.parametrize("arguments", [{"timeout": 0}, {"timeout": float("nan")}, {"max_entries": 0}])
def test_arguments_are_checked(arguments: dict[str, Any]) -> None:
    """A cache without time or room is a mistake."""
    with pytest.raises(ConfigurationError):
        Cache(**arguments)


@pytest.mark.parametrize("url", ["", "memcached://:hush@cache", "redis//:hush@cache", "redis://:hush@cache:port", "http://hush"])
def test_a_wrong_url_is_rejected_and_not_shown(url: str) -> None:
    """The error names the form of a URL and no part of the given one."""
    with pytest.raises(ConfigurationError, match="redis://") as caught:
        Cache(url)
    assert "hush" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_repr_shows_no_password() -> None:
    """The repr has neither the URL nor a part of it."""
    assert repr(Cache("redis://app:hush@cache.example.com/0")) == "Cache(redis, prefix='cache:')"


@pytest.mark.parametrize(("given", "shown"), [({}, "memory"), ({"CACHE_URL": "redis://:hush@cache/1"}, "redis")])
def test_settings_choose_the_cache(given: dict[str, Any], shown: str) -> None:
    """CACHE_URL is a Redis, and a secret; without it the cache is in memory."""
    settings = KitSettings(_env_file=None, SECRET_KEY=SecretStr("x" * 40), **given)  # type: ignore[call-arg]

    assert repr(Cache.from_settings(settings)).startswith(f"Cache({shown}")
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(("package", "url"), [("cashews", None), ("redis", "redis://cache")])
def test_the_cache_needs_its_extra(package: str, url: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the packages the error shows the command that installs them."""
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(MissingExtraError, match=r"pip install 'fastapi-kit-blocks\[cache\]'"):
        Cache(url)


@pytest.mark.only_full
def test_importing_the_module_needs_no_extra() -> None:
    """An application without a cache can import every module."""
    code = "import sys; sys.modules['cashews'] = sys.modules['redis'] = None; import fastapi_kit.cache, fastapi_kit.crud.cached"

    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.only_full
def test_the_first_command_imports_nothing() -> None:
    """What takes long is done when the cache is made: the first request would wait, and take Redis for gone."""
    code = """
import asyncio, sys
from datetime import timedelta
from fastapi_kit.cache import Cache, cached

cache = Cache("redis://127.0.0.1:1/0")
loaded = set(sys.modules)

@cached(cache, lifetime=timedelta(minutes=1), key=lambda: "key")
async def read() -> int:
    return 1

asyncio.run(read())
print(*(name for name in sys.modules.keys() - loaded if name.startswith(("cashews", "redis"))))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.split() == []
