"""What tests must say in another way to the oldest versions, and what exists only in newer ones."""

from inspect import signature
from typing import Any

import pydantic
import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy import Select
from sqlalchemy.dialects import postgresql

__all__ = ["distinct_on", "needs_body_limits", "needs_denial_responses", "needs_own_validators", "needs_telemetry"]

needs_telemetry = pytest.mark.skipif("telemetry" not in signature(FastAPI).parameters, reason="FastAPI before 0.142 has no telemetry")
needs_body_limits = pytest.mark.skipif(
    "max_body_size" not in signature(FastAPI).parameters, reason="FastAPI before 0.164 has no max_body_size"
)
needs_denial_responses = pytest.mark.skipif(
    tuple(map(int, uvicorn.__version__.split(".")[:2])) < (0, 54),
    reason="older versions of uvicorn send the answer to a rejected handshake with two lengths, which clients cannot read",
)
needs_own_validators = pytest.mark.skipif(
    pydantic.VERSION.startswith("2.12."),
    reason="pydantic 2.12 puts the validator of a class in the place of its schema wherever the class is a part of another schema",
)


def distinct_on(statement: Select[Any], *columns: Any) -> Select[Any]:
    """Return *statement* with DISTINCT ON: an extension in SQLAlchemy 2.1, where the arguments of ``distinct()`` are deprecated."""
    extension = getattr(postgresql, "distinct_on", None)
    return statement.distinct(*columns) if extension is None else statement.ext(extension(*columns))
