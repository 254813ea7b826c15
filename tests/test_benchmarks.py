"""The benchmarks compare like with like, and say what they found; how fast anything is, no test says."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from benchmarks.__main__ import show
from benchmarks.contenders import Turn, Work
from benchmarks.databases import DATABASES
from benchmarks.logins import show_logins
from benchmarks.measure import DifferentAnswersError, Effort, check, speed
from benchmarks.proxy import delayed
from benchmarks.rows import ROWS, Row, Target
from benchmarks.stage import Stage, open_stage
from benchmarks.table import line, verdict

from fastapi_kit.testing import cheap_hasher

ONE_ROUND = Effort(batch=0, rounds=1, least=1, budget=0)


@pytest.fixture(scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    file = tmp_path_factory.mktemp("bench") / "bench.db"
    async with open_stage(f"sqlite+aiosqlite:///{file}", "SQLite", rows=110, bulk_rows=20, many_rows=2000) as stage:
        yield stage


@pytest.mark.only_full
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
async def test_a_row_does_the_same_work_on_both_sides(row: Row, stage: Stage) -> None:
    """Both sides give the same answer and leave the same table, and one round can be timed."""
    await check(row, stage)

    assert await speed(row, stage, ONE_ROUND) > 0


async def test_the_table_is_printed(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """There is a line for each row, its target beside it."""
    await show(ROWS[:2], stage, ONE_ROUND)

    heading, _, *lines = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in heading.strip("|").split("|")] == ["work", "measure", "result", "must", "aim", "target"]
    assert [row.title in printed for row, printed in zip(ROWS[:2], lines, strict=True)] == [True, True]


def row_named(name: str) -> Row:
    return next(row for row in ROWS if row.name == name)


async def test_other_answers_are_found(stage: Stage) -> None:
    """Nothing is timed where the answers differ."""
    row = replace(row_named("http_list"), comparable=len)

    with pytest.raises(DifferentAnswersError, match="http_list on SQLite"):
        await show([row], stage, ONE_ROUND)


async def test_another_table_is_found(stage: Stage) -> None:
    """A write that answers nothing is known by what it leaves behind."""

    @asynccontextmanager
    async def idle(_: Stage) -> AsyncGenerator[Work]:
        async def nothing(_: object) -> None: ...

        yield nothing

    with pytest.raises(DifferentAnswersError, match="delete on SQLite"):
        await check(replace(row_named("delete"), kit=idle), stage)


async def test_an_address_that_was_not_checked_is_found(stage: Stage) -> None:
    """The stored addresses are not all in the form that EmailStr gives them, so reading them as text shows."""
    plain = row_named("http_list_plain")

    with pytest.raises(DifferentAnswersError):
        await check(replace(row_named("http_list"), kit=plain.kit), stage)


async def test_other_bytes_are_found(stage: Stage) -> None:
    """Over HTTP the same JSON is not enough: it has to be written in the same way."""
    row = row_named("http_get")

    @asynccontextmanager
    async def spaced(stage: Stage) -> AsyncGenerator[Work]:
        async with row.kit(stage) as work:

            async def once(turn: Turn) -> bytes:
                answer = await work(turn)
                assert isinstance(answer, bytes)
                return answer.replace(b":", b": ", 1)

            yield once

    with pytest.raises(DifferentAnswersError, match="http_get on SQLite"):
        await check(replace(row, kit=spaced), stage)


@pytest.mark.only_full
async def test_the_distant_database_delivers_all_in_order() -> None:
    """What goes through the proxy arrives whole, both ways, on several connections, and ends when its sender ends."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(3_000_000))
        writer.close()

    async def talk(port: int, seed: int) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        sent = b"".join((number * seed).to_bytes(8) for number in range(375_000))
        for start in range(0, len(sent), 100_000):
            writer.write(sent[start : start + 100_000])
        received = await reader.read(-1)
        writer.close()
        return received == sent

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, delayed("127.0.0.1", server.sockets[0].getsockname()[1], 0.001) as port:
        assert await asyncio.gather(*(talk(port, seed) for seed in (1, 2, 3))) == [True, True, True]


def test_where_a_row_is_run() -> None:
    """Against the distant database only what has a target there, and what uses no database once."""
    names = {place: [row.name for row in ROWS if row.is_run_on(place)] for place in DATABASES}

    assert names["SQLite"] == [row.name for row in ROWS]
    assert names["PostgreSQL"] == [name for name in names["SQLite"] if not name.startswith("middleware")]
    assert names["PostgreSQL, 1 ms away"] == ["http_list", "http_list_auth", "http_get", "http_get_auth", "http_create"]


@pytest.mark.parametrize(("speed", "written"), [(0.5, "0.50"), (0.91, "="), (1.09, "="), (1.1, "1.10"), (12, "12.00")])
def test_a_small_difference_is_none(speed: float, written: str) -> None:
    """Two shared cores are noisy: less than 10 % is printed as no difference."""
    assert line(row_named("create"), "SQLite", speed).split("|")[3].strip() == written


def test_a_time_is_the_inverse_of_a_speed() -> None:
    """Where the target is a time, half the speed is twice the time."""
    printed = [cell.strip() for cell in line(row_named("get"), "SQLite", 0.5).split("|")]

    assert printed[2:-1] == ["time", "2.00", "≤ 1.05", "≤ 1.02", "missed"]


def test_a_target_may_differ_by_database() -> None:
    """SQLite has its own where one is given."""
    row = row_named("create_many")

    assert (row.target_on("PostgreSQL"), row.target_on("SQLite")) == (Target(2.5, 10), Target(8, 20))
    assert row_named("http_get").target_on("PostgreSQL, 1 ms away") == Target(2.5)


@pytest.mark.parametrize(
    ("target", "reached", "expected"),
    [
        (Target(1.4, 2.4), 2.4, "aim met"),
        (Target(1.4, 2.4), 1.4, "must met"),
        (Target(1.4, 2.4), 1.39, "missed"),
        (Target(1.05, 1.02, "time"), 1.01, "aim met"),
        (Target(1.05, 1.02, "time"), 1.05, "must met"),
        (Target(1.05, 1.02, "time"), 1.09, "unclear"),
        (Target(1.05, 1.02, "time"), 1.1, "missed"),
        (Target(0.95, 1.2), 0.92, "unclear"),
        (Target(2.5), 2.5, "must met"),
        (Target(2.5), 2.4, "missed"),
    ],
)
def test_verdicts(target: Target, reached: float, expected: str) -> None:
    """A target missed by less than can be shown is neither met nor missed."""
    assert verdict(target, reached) == expected


async def test_logins_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty logins succeed while health is asked, and wrong ones of known and unknown addresses are both a 401."""
    await show_logins(cheap_hasher(), rounds=1)

    health, unknown = capsys.readouterr().out.splitlines()
    assert "worst /health during 20 logins" in health
    assert "login: unknown against known" in unknown
