"""Counting statements."""

import re
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from fastapi_kit.db import Database

__all__ = ["QueryLog", "assert_max_queries", "assert_no_n_plus_one"]


@dataclass
class QueryLog:
    """The statements of a block, as they ran; transaction control is left out."""

    statements: list[str] = field(default_factory=list[str])

    @property
    def count(self) -> int:
        """How many statements ran; an ``executemany`` is one."""
        return len(self.statements)


@contextmanager
def assert_max_queries(database: Database | AsyncEngine, limit: int) -> Generator[QueryLog, None, None]:
    """Fail, listing them, if the block runs more than *limit* statements.

    Statements of other tasks on the same engine count too. Raises AssertionError.
    """
    with _recorded(database) as log:
        yield log
    if log.count > limit:
        raise AssertionError(_listing(f"{log.count} statements ran, at most {limit} may", log.statements))


@contextmanager
def assert_no_n_plus_one(database: Database | AsyncEngine, *, repeats: int = 3) -> Generator[QueryLog, None, None]:
    """Fail if one statement, but for its values, runs more than *repeats* times in the block. Raises AssertionError."""
    with _recorded(database) as log:
        yield log
    counts = Counter(map(_without_values, log.statements))
    if repeated := [f"{count} times: {statement}" for statement, count in counts.items() if count > repeats]:
        raise AssertionError(_listing(f"The same statement ran more than {repeats} times", repeated))


# Whatever path they take: SQLAlchemy's savepoints and a driver's BEGIN run as statements too.
_CONTROL = re.compile(
    r"\s*(BEGIN|START\s+TRANSACTION|COMMIT|END|ROLLBACK|SAVEPOINT|RELEASE|SET\s+(LOCAL|SESSION|TRANSACTION))\b", re.IGNORECASE
)
_VALUE = re.compile(r"'(?:[^']|'')*'|\$\d+|(?<!:):\w+|\?|\b\d+(?:\.\d+)?\b")
_VALUES = re.compile(r"\?(?:::\w+)?(?:, \?(?:::\w+)?)*")


@contextmanager
def _recorded(database: Database | AsyncEngine) -> Generator[QueryLog, None, None]:
    engine = (database.engine if isinstance(database, Database) else database).sync_engine
    log = QueryLog()

    def record(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not _CONTROL.match(statement):
            log.statements.append(statement)

    event.listen(engine, "before_cursor_execute", record)
    try:
        yield log
    finally:
        event.remove(engine, "before_cursor_execute", record)


def _without_values(statement: str) -> str:
    return _VALUES.sub("?", _VALUE.sub("?", statement))


def _listing(title: str, lines: list[str]) -> str:
    return "\n".join([f"{title}:", *(f"  {' '.join(line.split())}" for line in lines)])
