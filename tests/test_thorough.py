"""The bounded run of the long suites leaves no value of a parameter out."""

import itertools

import pytest
from tests.thorough import least_cover

Sizes = tuple[int, ...]


@pytest.mark.parametrize(("sizes", "count"), [((3,), 3), ((3, 6), 6), ((3, 3, 2), 3), ((1, 1), 1), ((4, 3, 3), 4)])
def test_each_value_is_tried_once(sizes: Sizes, count: int) -> None:
    """Of all combinations as many are kept as the longest parameter has values, and each value of each parameter is in one of them."""
    cases = [dict(zip("abc", case, strict=False)) for case in itertools.product(*map(range, sizes))]

    kept = [cases[position] for position in least_cover(cases)]

    assert len(kept) == count
    assert {pair for case in kept for pair in case.items()} == {pair for case in cases for pair in case.items()}


def test_rows_of_one_table_are_all_kept() -> None:
    """Names that are parametrized together have the same position: each row has values that no other row has."""
    assert least_cover([{"text": row, "expected": row} for row in range(4)]) == [0, 1, 2, 3]


def test_a_test_without_cases_is_no_error() -> None:
    """Where nothing was collected, nothing is kept."""
    assert least_cover([]) == []
