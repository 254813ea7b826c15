"""How much is tried: everything with ``FULL=1``, as ``.ci/run`` sets it, and otherwise what takes a few minutes at most.

A run of all tests keeps of each test one of the two databases, as many combinations of parameters as try each row of each table once,
and of many rows a third: ``leave_out``. A run of files that are named keeps them all. Where the values of one parameter are variants
of one behaviour, ``few`` keeps the first of them. Where hundreds of inputs are tried, ``sample`` draws a third.
"""

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TypeVar
from zlib import crc32

import pytest

__all__ = ["FULL", "few", "least_cover", "leave_out", "on_another_database", "sample", "third"]

FULL = os.environ.get("FULL", "") not in {"", "0"}
BOUNDED = {"conformance", "hostile", "reliability", "served"}
"""The folders whose combinations of parameters are bounded however few they are, as are those of tests that are marked as ``thorough``."""
DATABASES = ("postgresql", "sqlite")
FEW_CASES = 2
"""A test of no more cases runs them all, and one of more cases this many at least."""
FEW_INPUTS = 12
"""Of so many inputs all are tried."""

ValueT = TypeVar("ValueT")


def few(values: Sequence[ValueT], most: int = 1) -> Sequence[ValueT]:
    """Return all *values* in full mode, and else the first *most*."""
    return values if FULL else values[:most]


def sample(inputs: Iterable[ValueT]) -> Sequence[ValueT]:
    """Return all *inputs* in full mode, and else a third of them, but 12 at least: always the same, in their order."""
    values = list(inputs)
    count = len(values) if FULL else min(len(values), max(FEW_INPUTS, len(values) // 3))
    return [values[position] for position in sorted(Random(count).sample(range(len(values)), count))]


def third(values: Sequence[ValueT]) -> Sequence[ValueT]:
    """Return a third of *values*, but 2 at least, from the whole length: neighbours in a table are often alike."""
    count = min(len(values), max(FEW_CASES, len(values) // 3))
    return [values[position * len(values) // count] for position in range(count)]


def least_cover(cases: Iterable[Mapping[str, Hashable]]) -> list[int]:
    """Return the positions of as few *cases* as have each value of each parameter."""
    pairs = [set(case.items()) for case in cases]
    missing = set[tuple[str, Hashable]]().union(*pairs)
    chosen: list[int] = []
    while missing:
        best = max(range(len(pairs)), key=lambda position: len(pairs[position] & missing))
        chosen.append(best)
        missing -= pairs[best]
    return sorted(chosen)


def leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests that are marked as ``only_full``, and in a run of all tests the cases that are one too many."""
    left_out: set[pytest.Item] = {item for item in items if item.get_closest_marker("only_full")}
    if not config.option.file_or_dir:
        left_out |= cases_left_out(items)
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]


def cases_left_out(items: Iterable[pytest.Item]) -> set[pytest.Item]:
    """Return the cases on another database, those that try no new value, and two thirds of many others."""
    groups: dict[str, list[pytest.Function]] = {}
    for item in sorted(items, key=lambda item: item.nodeid):
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            groups.setdefault(f"{item.path}::{item.originalname}", []).append(item)
    left_out = set[pytest.Item]()
    for name, group in groups.items():
        left_out.update(others := on_another_database(name, group))
        group = [item for item in group if item not in others]
        if len(group) > FEW_CASES or is_bounded(group[0]):
            kept = third(least_cover(map(choices, group)))
            left_out |= {item for position, item in enumerate(group) if position not in kept}
    return left_out


def on_another_database(name: str, group: Sequence[pytest.Function]) -> list[pytest.Function]:
    """Return the tests of *group* that do not run on the database that is drawn for it: half of all tests run on SQLite."""
    drawn = DATABASES[crc32(Path(name).name.encode()) % len(DATABASES)]
    values = {fixture: [item.callspec.params.get(fixture) for item in group] for fixture in group[0].callspec.params}
    chosen = [fixture for fixture, found in values.items() if all(each in DATABASES for each in found) and drawn in found]
    return [item for item in group if any(item.callspec.params[fixture] != drawn for fixture in chosen)]


def choices(item: pytest.Function) -> dict[str, Hashable]:
    """Return the row of each table that the test is parametrized with, and the value of each fixture that has several.

    All combinations share the objects that are their values, so their identity tells one from another; they need not be hashable.
    """
    values = {name: id(value) for name, value in item.callspec.params.items()}
    rows: dict[str, Hashable] = {}
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0] if isinstance(mark.args[0], str) else ",".join(mark.args[0])
        rows[names] = tuple(values.pop(name.strip(), 0) for name in names.split(","))
    return rows | values


def is_bounded(item: pytest.Item) -> bool:
    return item.path.parent.name in BOUNDED or item.get_closest_marker("thorough") is not None
