"""Conditions on text that mean the same on SQLite and PostgreSQL. ``%`` and ``_`` are ordinary characters."""

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Boolean, ColumnElement, func, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from fastapi_kit.db.engines.sqlite import UNICODE_LOWER, unicode_lower
from fastapi_kit.errors import ConfigurationError

__all__ = ["OnPostgreSQL", "contains", "endswith", "startswith"]


class ByDialect(FunctionElement[bool]):
    """The first condition on SQLite and the second elsewhere: ``ByDialect(on_sqlite, elsewhere)``."""

    inherit_cache = True
    type = Boolean()
    name = "by_dialect"


@compiles(ByDialect, "sqlite")
def compile_on_sqlite(element: ByDialect, compiler: Any, **options: Any) -> str:
    """Return the SQL of the first condition."""
    return f"({compiler.process(next(iter(element.clauses)), **options)})"


@compiles(ByDialect)
def compile_elsewhere(element: ByDialect, compiler: Any, **options: Any) -> str:
    """Return the SQL of the second condition."""
    return f"({compiler.process(list(element.clauses)[1], **options)})"


class OnPostgreSQL(FunctionElement[bool]):
    """A condition that other databases than PostgreSQL do not have."""

    inherit_cache = True
    type = Boolean()
    name = "on_postgresql"


@compiles(OnPostgreSQL, "postgresql")
def compile_on_postgresql(element: OnPostgreSQL, compiler: Any, **options: Any) -> str:
    """Return the SQL of the condition."""
    return f"({compiler.process(next(iter(element.clauses)), **options)})"


@compiles(OnPostgreSQL)
def reject_elsewhere(_element: OnPostgreSQL, compiler: Any, **_options: Any) -> str:
    """Raise ConfigurationError."""
    raise ConfigurationError(f"a filter asks what an array or JSON column contains: {compiler.dialect.name} cannot, PostgreSQL can")


def contains(column: Any, value: str, *, ignore_case: bool = False) -> ColumnElement[bool]:
    """Return the condition that *value* is a part of the text of *column*."""
    return matching(column, value, f"%{escaped(value)}%", lambda text, part: func.instr(text, part) > 0, ignore_case=ignore_case)


def startswith(column: Any, value: str, *, ignore_case: bool = False) -> ColumnElement[bool]:
    """Return the condition that the text of *column* starts with *value*."""
    return matching(
        column, value, f"{escaped(value)}%", lambda text, part: func.substr(text, 1, len(value)) == part, ignore_case=ignore_case
    )


def endswith(column: Any, value: str, *, ignore_case: bool = False) -> ColumnElement[bool]:
    """Return the condition that the text of *column* ends with *value*."""

    def ends(text: Any, part: Any) -> Any:
        # substr(text, -0) is the whole text.
        return func.substr(text, -len(value)) == part if value else text.is_not(None)

    return matching(column, value, f"%{escaped(value)}", ends, ignore_case=ignore_case)


def matching(column: Any, value: str, pattern: str, on_sqlite: Callable[[Any, Any], Any], *, ignore_case: bool) -> ColumnElement[bool]:
    """Return *on_sqlite* of the text and the part there, whose LIKE ignores the case of ASCII only, and LIKE or ILIKE elsewhere."""
    if ignore_case:
        lowered = getattr(func, UNICODE_LOWER)(column)
        return ByDialect(on_sqlite(lowered, literal(unicode_lower(value))), column.ilike(pattern, escape=ESCAPE))
    return ByDialect(on_sqlite(column, literal(value)), column.like(pattern, escape=ESCAPE))


ESCAPE: Final = "/"


def escaped(value: str) -> str:
    for character in (ESCAPE, "%", "_"):
        value = value.replace(character, ESCAPE + character)
    return value
