"""What a failed statement was about to write. A listener of the engine keeps it on the driver's exception."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, TypeAlias

from sqlalchemy import BindParameter, Connection, Engine, ExceptionContext, Table, event
from sqlalchemy.engine.interfaces import ExecuteStyle
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.sql.compiler import SQLCompiler

__all__ = ["Written", "failed_statement", "watch"]

_KEY = "_fastapi_kit_written"
_VERB = re.compile(
    r"(?:\s|--[^\n]*+\n|/\*(?:[^*]|\*(?!/))*+\*/)*+(?:WITH\b.*?\b)?(INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE | re.DOTALL
)
_Row: TypeAlias = Mapping[str, object] | Sequence[object]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Written:
    """A failed INSERT, UPDATE or DELETE of SQLAlchemy. It holds the values that were sent; its repr shows none of them."""

    verb: str
    table: Table
    schema: str | None
    """The table's schema in the database, after ``schema_translate_map``."""
    columns: Mapping[str, str]
    """Name of a bind parameter -> name of the column that stores it."""
    order: Sequence[str]
    """Names of the bind parameters in the order of their numbers. Empty if the driver takes them by name."""
    rows: Sequence[_Row]
    batched: bool
    """Whether one statement had several rows, with the parameters of one row after those of another."""

    @property
    def values(self) -> Mapping[str, Sequence[object]]:
        """The values of all rows by column name, without columns that an SQL expression fills."""
        found: dict[str, list[object]] = {}
        for row in self.rows:
            named = row if isinstance(row, Mapping) else dict(zip(self.order, row, strict=False))
            for name, value in named.items():
                if name in self.columns:
                    found.setdefault(self.columns[name], []).append(value)
        return found

    def column_at(self, position: int) -> str | None:
        """Return the column that stores bind parameter number *position*, from 1. None for a parameter of a condition."""
        if self.batched and any(name not in self.columns for name in self.order):
            return None
        index = (position - 1) % len(self.order) if self.batched and self.order else position - 1
        return self.columns.get(self.order[index]) if index < len(self.order) else None


def watch(engine: Engine | AsyncEngine | Connection | AsyncConnection) -> None:
    """Let errors on *engine* keep what was written, so that ``as_kit_error`` can name the fields. A second call changes nothing.

    The engine of a ``Database`` is watched. On other engines an error has only the fields that the driver names.
    """
    if not event.contains(engine.dialect, "handle_error", remember):
        event.listen(engine.dialect, "handle_error", remember)


def failed_statement(error: BaseException) -> tuple[str, Written | None]:
    """Return the verb of the statement that raised *error*, and what it wrote if its engine is watched.

    The verb is INSERT, UPDATE, DELETE, MERGE or COMMIT. It is empty for other statements and without a statement.
    """
    if not isinstance(error, StatementError):
        written: Written | None = vars(error).get(_KEY)
        return written.verb if written is not None else "", written
    written = vars(error.orig).get(_KEY) if error.orig is not None else None
    if written is not None or error.statement is None:
        return written.verb if written is not None else "COMMIT", written
    found = _VERB.match(error.statement)
    return found[1].upper() if found is not None else "", None


def remember(context: ExceptionContext) -> None:
    execution = context.execution_context
    if execution is None or not isinstance(execution.compiled, SQLCompiler):
        return
    compiled = execution.compiled
    table: Any = getattr(compiled.statement, "table", None)
    if not (compiled.isinsert or compiled.isupdate or compiled.isdelete) or not hasattr(table, "metadata"):
        return
    schemas: Mapping[str | None, str | None] = execution.execution_options.get("schema_translate_map") or {}
    # A list for IN becomes several parameters, which shifts the numbers of the following ones. Columns come before conditions.
    lists = {compiled.bind_names[parameter] for parameter in compiled.post_compile_params | compiled.literal_execute_params}
    # Not setattr(), which an exception class of the application may reject.
    vars(context.original_exception)[_KEY] = Written(
        verb="INSERT" if compiled.isinsert else "UPDATE" if compiled.isupdate else "DELETE",
        table=table,
        schema=schemas.get(table.schema, table.schema),
        columns=columns_of_parameters(compiled, table),
        order=list(takewhile(lambda name: name not in lists, compiled.positiontup or ())),
        rows=execution.parameters,
        batched=execution.execute_style is ExecuteStyle.INSERTMANYVALUES,
    )


def columns_of_parameters(compiled: SQLCompiler, table: Table) -> Mapping[str, str]:
    # SQLAlchemy names the parameter of a column by the column's key, with a number if a statement has several rows. The parameter has
    # the column's type object, unlike a parameter of the same name in a condition.
    columns, found = {column.key: column for column in table.columns}, dict[str, str]()
    for name, parameter in compiled.binds.items():
        named = [columns[key] for key in (name, re.sub(r"_m\d+\Z", "", name)) if key in columns]
        # Parameters of ON CONFLICT DO UPDATE SET have other names.
        owners = [column for column in named or (columns.values() if compiled.isinsert else ()) if column.type is parameter.type]
        if (named and owners) or len(owners) == 1:
            found[name] = owners[0].name
    # Parameters that the application named. Only this private attribute of SQLAlchemy tells their columns.
    given: Mapping[Any, Any] = getattr(compiled.compile_state, "_dict_parameters", None) or {}
    for target, value in given.items():
        column = columns.get(getattr(target, "key", target))
        if column is not None and isinstance(value, BindParameter) and not value.unique:
            found[value.key] = column.name
    escaped = compiled.escaped_bind_names
    return found | {escaped[name]: column for name, column in found.items() if name in escaped}
