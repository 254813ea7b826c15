"""From a read schema to what is selected and loaded, and back to instances of it."""

from fastapi_kit.crud.read_plan.plan import ReadPlan, read_plan

__all__ = ["ReadPlan", "read_plan"]
