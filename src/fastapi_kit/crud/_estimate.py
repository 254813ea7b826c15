"""How many rows the planner of PostgreSQL expects."""

from typing import Any

from sqlalchemy import JSON, Select, literal_column
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session

from fastapi_kit.crud._base_query import BaseQuery
from fastapi_kit.db.sessions import execute

__all__ = ["estimate"]


class Explain(Select[Any]):
    """Returns the plan of a select. It is one, so criteria of a session apply to it."""

    inherit_cache = True


@compiles(Explain)
def explain(element: Explain, compiler: Any, **options: Any) -> str:
    return f"EXPLAIN (FORMAT JSON) {compiler.visit_select(element, **options)}"


def estimate(session: Session, base: BaseQuery, rows: Select[Any]) -> int:
    """Return how many *rows* of *base* the planner expects."""
    plan: Any = literal_column("NULL", JSON).label("plan")
    (found,) = execute(session, base.around(Explain(plan).select_from(rows.subquery()))).scalar_one()
    return int(found["Plan"]["Plan Rows"])
