"""The bounded run of the long suites leaves no value of a parameter out."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests import thorough
from tests.thorough import choices, least_cover, on_another_database, sample

Sizes = tuple[int, ...]


@pytest.mark.parametrize(("sizes", "count"), [((3,), 3), ((3, 6), 6), ((3, 3, 2), 3), ((1, 1), 1), ((4, 3, 3), 4)])
def test_each_value_is_tried_once(sizes: Sizes, count: int) -> None:
    """Of all combinations as many are kept as the longest parameter has values, and each value of each parameter is in one of them."""
    cases = [dict(zip("abc", case, strict=False)) for case in itertools.product(*map(range, sizes))]

    kept = [cases[position] for position in least_cover(cases)]

    assert len(kept) == count
    assert {pair for case in kept for pair in case.items()} == {pair for case in cases for pair in case.items()}


@pytest.fixture(params=["first", "second"])
def fixture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("single", [1, 2])
@pytest.mark.parametrize(("left", "right"), [("a", True), ("a", False), ("b", True)])
def test_a_row_of_a_table_is_one_choice(request: pytest.FixtureRequest, fixture: str, single: int, left: str, right: bool) -> None:
    """Names that are parametrized together count as one: no row is left out because its values are in others."""
    assert isinstance(request.node, pytest.Function)
    assert choices(request.node) == {"single": (id(single),), "left,right": (id(left), id(right)), "fixture": id(fixture)}


@pytest.mark.parametrize(
    ("is_full", "inputs", "count"), [(False, 300, 100), (False, 20, 12), (False, 5, 5), (False, 0, 0), (True, 300, 300)]
)
def test_a_third_of_many_inputs_is_drawn(monkeypatch: pytest.MonkeyPatch, is_full: bool, inputs: int, count: int) -> None:
    """Few inputs are all tried, and in full mode all. The same are drawn each time, in their order, and not at equal distances."""
    monkeypatch.setattr(thorough, "FULL", is_full)
    drawn = sample(range(inputs))

    assert len(set(drawn)) == count
    assert list(drawn) == sorted(drawn) == list(sample(iter(range(inputs))))
    assert count in {0, inputs} or len({number % 3 for number in drawn}) == 3


def test_a_test_without_cases_is_no_error() -> None:
    """Where nothing was collected, nothing is kept."""
    assert least_cover([]) == []


def cases_in(folder: str, **parameters: Sequence[str]) -> list[Any]:
    """Return stand-ins for the cases of a test that is parametrized with all *parameters*."""
    combinations = itertools.product(*parameters.values())
    specs = [SimpleNamespace(params=dict(zip(parameters, values, strict=True))) for values in combinations]
    return [SimpleNamespace(path=Path("tests", folder, "test_a.py"), callspec=spec) for spec in specs]


@pytest.mark.parametrize(("folder", "count"), [("auth", 3), ("auth/users", 3), ("crud", 3), ("db", 0), ("hostile", 0)])
def test_a_test_runs_on_one_database(folder: str, count: int) -> None:
    """Each of its cases runs on the database that is drawn for the test. In other folders all run on both."""
    left_out = on_another_database("test_a", cases_in(folder, database=["sqlite", "postgresql"], case=["a", "b", "c"]))

    assert len(left_out) == count
    assert len({case.callspec.params["database"] for case in left_out}) <= 1


def test_every_store_is_tried() -> None:
    """Stores that are no databases, and a test of one database alone, are not left out."""
    assert on_another_database("test_a", cases_in("auth", store=["memory", "sqlite", "postgresql", "redis"])) == []
    assert on_another_database("test_a", cases_in("auth", database=["sqlite"])) == []
    assert on_another_database("test_b", cases_in("auth", database=["sqlite"])) == []
