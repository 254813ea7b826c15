"""How much is tried: everything with ``FULL=1``, as ``.ci/run`` sets it, and otherwise the least that tries each behaviour.

Where a test is parametrized several times, ``leave_out`` keeps as many combinations as try each row of each table once. Where the values of
one parameter are variants of one behaviour, ``few`` keeps the first of them. Where hundreds of inputs are tried, ``sample`` draws a third.
"""

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TypeVar
from zlib import crc32

import pytest

__all__ = ["FULL", "few", "least_cover", "leave_out", "on_another_database", "sample"]

FULL = os.environ.get("FULL", "") not in {"", "0"}
BOUNDED = {"conformance", "hostile", "reliability", "served"}
"""The folders whose tests are bounded, beside those that are marked as ``thorough`` and those of many cases."""
DATABASES = ("postgresql", "sqlite")
ONE_DATABASE = {"auth", "crud", "examples", "routing"}
"""The folders whose tests run on one database each, half of them on SQLite. Those of ``db`` run on both."""
FEW_CASES = 4
"""A test of no more cases runs them all."""
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
    """Deselect the tests that are marked as ``only_full``, and the combinations of parameters that try no new value."""
    combinations: dict[str, list[pytest.Function]] = {}
    for item in sorted(items, key=lambda item: item.nodeid):
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            combinations.setdefault(f"{item.path}::{item.originalname}", []).append(item)
    left_out: set[pytest.Item] = {item for item in items if item.get_closest_marker("only_full")}
    for name, group in combinations.items():
        left_out.update(others := on_another_database(name, group))
        group = [item for item in group if item not in others]
        if len(group) <= FEW_CASES and not is_bounded(group[0]):
            continue
        kept = least_cover(map(choices, group))
        left_out |= {item for position, item in enumerate(group) if position not in kept}
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]


def on_another_database(name: str, group: Sequence[pytest.Function]) -> list[pytest.Function]:
    """Return the tests of *group* that do not run on the database that is drawn for it, if its folder is one of ``ONE_DATABASE``."""
    if ONE_DATABASE.isdisjoint(group[0].path.parts):
        return []
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
