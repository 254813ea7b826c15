"""The bounded run of the long suites leaves no value of a parameter out."""

import itertools

import pytest
from tests.thorough import choices, least_cover

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


def test_a_test_without_cases_is_no_error() -> None:
    """Where nothing was collected, nothing is kept."""
    assert least_cover([]) == []
