"""The security page is true: the test that it names for a requirement exists and says so."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
ROW = re.compile(r"^\| (R\d+) \| .+? \| (.+) \|$", re.MULTILINE)
ROWS = dict(ROW.findall((REPOSITORY / "docs" / "security.md").read_text()))


@cache
def docstrings(path: Path) -> dict[str, str]:
    tree = ast.parse(path.read_text())
    return {node.name: ast.get_docstring(node) or "" for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_requirement_has_a_row() -> None:
    """R1 to R52 are on the page, in order."""
    assert list(ROWS) == [f"R{number}" for number in range(1, 53)]


@pytest.mark.parametrize("requirement", ROWS)
def test_the_test_of_a_requirement(requirement: str) -> None:
    """Each test that a row names is there, and its docstring begins with the requirement's number."""
    named = re.findall(r"`([\w/.]+)::(\w+)`", ROWS[requirement])
    for file, name in named:
        numbers = docstrings(REPOSITORY / file)[name].partition(":")[0].split(", ")
        assert requirement in numbers, f"{file}::{name}"
    assert len(named) == ROWS[requirement].count("::") > 0
