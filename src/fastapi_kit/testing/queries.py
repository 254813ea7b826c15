"""Count SQL statements."""

import re
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from fastapi_kit.db.database import Database

__all__ = ["QueryLog", "assert_max_queries", "assert_no_n_plus_one"]


@dataclass
class QueryLog:
    """The statements of a block in order, without BEGIN, COMMIT, savepoints and the like."""

    statements: list[str] = field(default_factory=list[str])

    @property
    def count(self) -> int:
        """The number of statements. An ``executemany`` is one."""
        return len(self.statements)


@contextmanager
def assert_max_queries(database: Database | AsyncEngine, limit: int) -> Generator[QueryLog, None, None]:
    """Fail if the block runs more than *limit* statements. Statements of other tasks on the same engine count too.

    Raises:
        AssertionError: Too many statements ran. The text lists them.
    """
    with recorded(database) as log:
        yield log
    if log.count > limit:
        raise AssertionError(listing(f"{log.count} statements ran, at most {limit} may", log.statements))


@contextmanager
def assert_no_n_plus_one(database: Database | AsyncEngine, *, repeats: int = 3) -> Generator[QueryLog, None, None]:
    """Fail if the same statement runs more than *repeats* times in the block, whatever its values.

    Raises:
        AssertionError: A statement was repeated. The text names it.
    """
    with recorded(database) as log:
        yield log
    counts = Counter(map(without_values, log.statements))
    if repeated := [f"{count} times: {statement}" for statement, count in counts.items() if count > repeats]:
        raise AssertionError(listing(f"The same statement ran more than {repeats} times", repeated))


# SQLAlchemy's savepoints and BEGIN of some drivers run as statements too.
_CONTROL = re.compile(
    r"\s*(BEGIN|START\s+TRANSACTION|COMMIT|END|ROLLBACK|SAVEPOINT|RELEASE|SET\s+(LOCAL|SESSION|TRANSACTION))\b", re.IGNORECASE
)
_VALUE = re.compile(r"'(?:[^']|'')*'|\$\d+|(?<!:):\w+|\?|\b\d+(?:\.\d+)?\b")
_VALUES = re.compile(r"\?(?:::\w+)?(?:, \?(?:::\w+)?)*")


@contextmanager
def recorded(database: Database | AsyncEngine) -> Generator[QueryLog, None, None]:
    """Record the statements of the block."""
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


def without_values(statement: str) -> str:
    """Return *statement* with ``?`` for its values."""
    return _VALUES.sub("?", _VALUE.sub("?", statement))


def listing(title: str, lines: list[str]) -> str:
    """Return *title* and the *lines* below it."""
    return "\n".join([f"{title}:", *(f"  {' '.join(line.split())}" for line in lines)])
