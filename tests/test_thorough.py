"""The bounded run of the long suites leaves no value of a parameter out."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests import thorough
from tests.thorough import choices, least_cover, leave_out, on_another_database, sample, third

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


@pytest.mark.parametrize(("length", "count"), [(0, 0), (1, 1), (2, 2), (3, 2), (9, 3), (15, 5), (100, 33)])
def test_a_third_of_the_rows_of_a_table_is_run(length: int, count: int) -> None:
    """They come from the whole table: the first, one of the last four, and none twice. Short tables are run whole."""
    kept = third(range(length))

    assert len(set(kept)) == len(kept) == count
    assert length == 0 or (kept[0] == 0 and kept[-1] >= length - 4)


class Deselected:
    """A stand-in for the configuration of a run in which *files* are named."""

    def __init__(self, *files: str) -> None:
        self.option = SimpleNamespace(file_or_dir=list(files))
        self.hook = self
        self.items: list[pytest.Item] = []

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self.items = items


@pytest.mark.parametrize("number", range(30))
def test_of_named_files_every_case_is_run(request: pytest.FixtureRequest, number: int) -> None:
    """A run of all tests has a third of the cases of this one; a run of its file has them all."""
    everything = [item for item in request.session.items if item.name.startswith("test_of_named_files")]
    whole, named = Deselected(), Deselected("tests/test_thorough.py")
    for config in (whole, named):
        leave_out(config, list(everything))  # type: ignore[arg-type]  # a stand-in has what is read of it

    assert named.items == []
    assert len(everything) - len(whole.items) == len(third(everything))


def test_a_test_without_cases_is_no_error() -> None:
    """Where nothing was collected, nothing is kept."""
    assert least_cover([]) == []


def cases_in(folder: str, **parameters: Sequence[str]) -> list[Any]:
    """Return stand-ins for the cases of a test that is parametrized with all *parameters*."""
    combinations = itertools.product(*parameters.values())
    specs = [SimpleNamespace(params=dict(zip(parameters, values, strict=True))) for values in combinations]
    return [SimpleNamespace(path=Path("tests", folder, "test_a.py"), callspec=spec) for spec in specs]


def test_a_test_runs_on_one_database() -> None:
    """Each of its cases runs on the database that is drawn for the test, and half of the tests run on each."""
    cases = cases_in("crud", database=["sqlite", "postgresql"], case=["a", "b", "c"])
    others = [on_another_database(f"test_{number}", cases) for number in range(100)]

    assert {len(left_out) for left_out in others} == {3}
    assert all(len({case.callspec.params["database"] for case in left_out}) == 1 for left_out in others)
    assert 30 < sum(left_out[0].callspec.params["database"] == "sqlite" for left_out in others) < 70


def test_every_store_is_tried() -> None:
    """Stores that are no databases, and a test of one database alone, are not left out."""
    assert on_another_database("test_a", cases_in("auth", store=["memory", "sqlite", "postgresql", "redis"])) == []
    assert on_another_database("test_a", cases_in("auth", database=["sqlite"])) == []
    assert on_another_database("test_b", cases_in("auth", database=["sqlite"])) == []
