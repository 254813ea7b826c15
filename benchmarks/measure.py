"""Comparing the answers first, and then the times: A, B, A, B, and the median of the rounds' ratios."""

import gc
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple, cast

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from benchmarks.contenders import Contender, Turn
from benchmarks.models import STAMPS, User, UserRead
from benchmarks.rows import Row
from benchmarks.stage import Stage

__all__ = ["FULL", "QUICK", "DifferentAnswersError", "Effort", "check", "speed"]


@dataclass(frozen=True)
class Effort:
    """How long is measured: *rounds* of two batches of about *batch* seconds; *least* rounds once *budget* seconds are spent.

    The large table has *many_rows*.
    """

    batch: float
    rounds: int
    least: int
    budget: float
    many_rows: int = 1_000_000


FULL = Effort(batch=0.05, rounds=99, least=9, budget=15)
QUICK = Effort(batch=0.03, rounds=15, least=1, budget=0.8, many_rows=100_000)


class DifferentAnswersError(Exception):
    """The two sides do not do the same work, so their times say nothing."""


async def check(row: Row, stage: Stage) -> None:
    """Let both sides do the work once from the same start.

    Raises DifferentAnswersError unless their answers are equal, over HTTP to the byte, and their tables afterwards.
    """
    kit, by_hand = await _outcome(row, row.kit, stage), await _outcome(row, row.by_hand, stage)
    same = to_json(row.comparable(kit.shown)) == to_json(by_hand.shown) and kit.table == by_hand.table
    if not same or not (row.writes or _holds(kit.answer, by_hand.answer)):
        raise DifferentAnswersError(f"{row.name} on {stage.place}")


async def speed(row: Row, stage: Stage, effort: Effort) -> float:
    """Return how many times as fast as the hand-written code the library is."""
    await stage.fill()
    calls = await _calls_per_batch(row, stage, effort)
    ratios: list[float] = []
    start = perf_counter()
    while len(ratios) < effort.rounds and (len(ratios) < effort.least or perf_counter() - start < effort.budget):
        kit = await _seconds(row, row.kit, stage, calls)
        by_hand = await _seconds(row, row.by_hand, stage, calls)
        ratios.append(by_hand / kit)
    return median(ratios)


async def _calls_per_batch(row: Row, stage: Stage, effort: Effort) -> int:
    # One call between two batches of the other side would be measured with cold caches only.
    calls = 5 if row.is_large else 1
    while calls < stage.rows and await _seconds(row, row.by_hand, stage, calls) < effort.batch / 2:
        calls *= 2
    return min(calls, stage.rows)


async def _seconds(row: Row, contender: Contender, stage: Stage, calls: int) -> float:
    if row.writes:
        await stage.fill()
    turns = [Turn(stage, number) for number in range(calls)]
    async with contender(stage) as work:
        gc.collect(1)
        start = perf_counter()
        for turn in turns:
            await work(turn)
        return perf_counter() - start


class _Outcome(NamedTuple):
    answer: object
    shown: Any
    table: list[tuple[Any, ...]]


async def _outcome(row: Row, contender: Contender, stage: Stage) -> _Outcome:
    await stage.fill()
    async with contender(stage) as work:
        answer = await work(Turn(stage, 0))
        shown = _shown(answer)
    return _Outcome(answer, _without_stamps(shown) if row.writes else shown, await stage.contents())


def _holds(answer: object, by_hand: object) -> bool:
    """Return whether what was sent by hand was sent by the library to the byte; a page has more around it."""
    match answer, by_hand:
        case bytes(), bytes():
            return by_hand in answer
        case list(), list():
            return all(map(_holds, cast("list[object]", answer), cast("list[object]", by_hand)))
        case _:
            return True


def _shown(answer: object) -> Any:
    """Return *answer* as the JSON that a client would get."""
    match answer:
        case bytes():
            return from_json(answer)
        case User():
            return _shown(UserRead.model_validate(answer))
        case BaseModel():
            return answer.model_dump(mode="json")
        case list():
            return [_shown(item) for item in cast("list[object]", answer)]
        case _:
            return answer


def _without_stamps(answer: object) -> Any:
    if isinstance(answer, list):
        return [_without_stamps(item) for item in cast("list[object]", answer)]
    if isinstance(answer, dict):
        return {name: value for name, value in cast("dict[str, object]", answer).items() if name not in STAMPS}
    return answer
