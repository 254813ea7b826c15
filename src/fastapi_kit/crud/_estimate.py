"""How many rows the planner of PostgreSQL expects."""

from typing import Any

from sqlalchemy import JSON, Select, literal_column
from sqlalchemy.ext.compiler import compiles

__all__ = ["expected_rows", "explained"]


class Explain(Select[Any]):
    """Returns the plan of a select. It is one, so criteria of a session apply to it."""

    inherit_cache = True


@compiles(Explain)
def explain(element: Explain, compiler: Any, **options: Any) -> str:
    return f"EXPLAIN (FORMAT JSON) {compiler.visit_select(element, **options)}"


def explained(rows: Select[Any]) -> Select[Any]:
    """Return the statement whose one value ``expected_rows`` reads."""
    plan: Any = literal_column("NULL", JSON).label("plan")
    return Explain(plan).select_from(rows.subquery())


def expected_rows(plan: Any) -> int:
    """Return how many rows the planner expects of the select that was explained."""
    return int(plan[0]["Plan"]["Plan Rows"])
