"""Reading the exceptions of the database drivers: their codes, tables and columns, without importing the drivers."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from traceback import walk_tb
from typing import Any

from sqlalchemy.exc import StatementError

from fastapi_kit._compat import AWAITING, emulated_cause

__all__ = ["Failure", "driver_error", "raised_by_database", "read_failure"]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A rejected statement or a lost connection, in the words of the driver. What the driver does not report is empty."""

    kind: str
    """A reason of InvalidDataError; or unique, foreign_key, unknown_reference, still_referenced, integrity, generated, rejected (by a
    RAISE), denied, unavailable."""
    code: str = ""
    schema: str | None = None
    table: str | None = None
    constraint: str | None = None
    columns: tuple[str, ...] = ()
    text: str = field(default="", repr=False)
    """PostgreSQL's DETAIL; on SQLite the name or the expression of a CHECK."""
    position: int | None = None
    """Number of the bind parameter at fault, from 1."""


def driver_error(error: BaseException) -> BaseException:
    """Return the driver's exception inside SQLAlchemy's *error*, or *error* itself."""
    inner = error.orig if isinstance(error, StatementError) and error.orig is not None else error
    return emulated_cause(inner) or inner


def read_failure(error: BaseException) -> Failure | None:
    """Return what *error*, an exception of a driver or its socket, reports. None if that is about neither data nor availability."""
    world = type(error).__module__.partition(".")[0]
    if world == "sqlite3":
        return read_sqlite(error)
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        return read_postgres(error, state)
    if world == "builtins" or isinstance(error, OSError):
        return read_builtin(error)
    return read_client(error, world)


# --- PostgreSQL: SQLSTATE (appendix A of its manual), and the names that come with it ---

_POSTGRES = {
    "23505": "unique",
    "23P01": "unique",
    "23503": "foreign_key",
    "23001": "still_referenced",
    "23502": "null",
    "23514": "check",
    "44000": "check",
    "22001": "too_long",
    "428C9": "generated",
    "54000": "too_long",
    "54001": "invalid",
    "22003": "out_of_range",
    "22008": "out_of_range",
    "22021": "invalid_text",
    "22P05": "invalid_text",
    "22007": "wrong_type",
    "22P02": "wrong_type",
    "55P03": "unavailable",
    "57014": "unavailable",
    "40001": "unavailable",
    "40003": "unavailable",
    "40P01": "unavailable",
    "25006": "unavailable",
    "25P03": "unavailable",
    "25P04": "unavailable",
    "3D000": "unavailable",
}
_POSTGRES_CLASSES = {
    "08": "unavailable",
    "22": "invalid",
    "23": "integrity",
    "28": "unavailable",
    "53": "unavailable",
    "57": "unavailable",
    "58": "unavailable",
    "P0": "rejected",
}
# Codes with several meanings. The name of the server's function tells which, in every language.
_POSTGRES_FUNCTIONS = {
    ("0A000", "RevalidateCachedQuery"): "unavailable",
    ("42501", "ExecWithCheckOptions"): "denied",
    ("42501", "exec_stmt_raise"): "denied",
}
# The server is starting; a type was dropped and created again after the driver had looked it up.
_POSTGRES_TEXTS = {"55000": "accepting connections", "XX000": "cache lookup failed"}
# The classes of appendix A. Other codes come from a RAISE.
_POSTGRES_OWN = (
    "00 01 02 03 08 09 0A 0B 0F 0L 0P 0Z 10 20 21 22 23 24 25 26 27 28 2B 2D 2F 34 38 39 3B 3D 3F 40 42 44 53 54 55 57 58 72 F0 HV P0 XX"
)


def read_postgres(error: Any, state: str) -> Failure | None:
    if state == "22000" and error.__cause__ is not None:
        return read_asyncpg_argument(error)
    names = getattr(error, "diag", error)
    function = getattr(names, "source_function", None) or getattr(names, "server_source_function", None) or ""
    kind = _POSTGRES.get(state) or _POSTGRES_FUNCTIONS.get((state, function)) or _POSTGRES_CLASSES.get(state[:2])
    if _POSTGRES_TEXTS.get(state, "\0") in str(error):
        kind = "unavailable"
    if kind is None and (function == "exec_stmt_raise" or state[:2] not in _POSTGRES_OWN):
        kind = "rejected"
    if kind is None:
        return None
    column = getattr(names, "column_name", None)
    detail = getattr(names, "detail", None) or getattr(names, "message_detail", None) or ""
    if kind == "generated" and (quoted := re.search(r"[\"„»«]\s?(.+?)\s?[\"“«»]", detail)):
        # For example: Column "id" is an identity column defined as GENERATED ALWAYS.
        column = quoted[1]
    return Failure(
        kind=kind,
        code=state,
        schema=getattr(names, "schema_name", None),
        table=getattr(names, "table_name", None),
        constraint=getattr(names, "constraint_name", None),
        columns=(column,) if column else (),
        text=detail,
    )


def read_asyncpg_argument(error: BaseException) -> Failure:
    # asyncpg encodes arguments itself. The encoder's exception is the cause.
    kinds: Mapping[type[BaseException | None], str] = {OverflowError: "out_of_range", UnicodeEncodeError: "invalid_text"}
    position = re.search(r"query argument \$(\d+)", str(error))
    return Failure(kind=kinds.get(type(error.__cause__), "wrong_type"), position=int(position[1]) if position else None)


def read_client(error: BaseException, world: str) -> Failure | None:
    name, text = type(error).__name__, str(error)
    if world == "asyncpg" and name == "OutdatedSchemaCacheError":
        return Failure(kind="unavailable", code="0A000")
    if world == "asyncpg" and _ASYNCPG_LOST.get(name, "\0") in text:
        return Failure(kind="unavailable")
    if world == "psycopg" and name in _PSYCOPG:
        known = name != "ProgrammingError" or text.startswith("cannot adapt")
        return Failure(kind=_PSYCOPG[name]) if known else None
    return None


_ASYNCPG_LOST = {
    "InterfaceError": "closed",
    "InternalClientError": "switch to state",
    "ProtocolError": "",
    "TargetServerAttributeNotMatched": "",
}
_PSYCOPG = {"OperationalError": "unavailable", "DataError": "invalid_text", "ProgrammingError": "wrong_type"}


# --- SQLite: extended result codes; columns are only in the text ---

_SQLITE = {
    "SQLITE_CONSTRAINT_UNIQUE": "unique",
    "SQLITE_CONSTRAINT_PRIMARYKEY": "unique",
    "SQLITE_CONSTRAINT_ROWID": "unique",
    "SQLITE_CONSTRAINT_FOREIGNKEY": "foreign_key",
    "SQLITE_CONSTRAINT_NOTNULL": "null",
    "SQLITE_CONSTRAINT_CHECK": "check",
    "SQLITE_CONSTRAINT_TRIGGER": "rejected",
    "SQLITE_CONSTRAINT_DATATYPE": "wrong_type",
    "SQLITE_MISMATCH": "wrong_type",
    "SQLITE_TOOBIG": "too_long",
}
_SQLITE_CLASSES = {
    "CONSTRAINT": "integrity",
    "BUSY": "unavailable",
    "LOCKED": "unavailable",
    "FULL": "unavailable",
    "IOERR": "unavailable",
    "CANTOPEN": "unavailable",
    "READONLY": "unavailable",
    "CORRUPT": "unavailable",
    "NOTADB": "unavailable",
    "INTERRUPT": "unavailable",
    "NOMEM": "unavailable",
    "PROTOCOL": "unavailable",
}


def read_sqlite(error: BaseException) -> Failure | None:
    code, text = getattr(error, "sqlite_errorname", None), str(error)
    if not isinstance(code, str):
        return read_sqlite_client(text)
    if code == "SQLITE_CONSTRAINT_TRIGGER" and text == "FOREIGN KEY constraint failed":
        return Failure(kind="still_referenced", code=code)  # ON DELETE RESTRICT works by a trigger.
    generated = re.fullmatch(r"cannot (?:INSERT into|UPDATE) generated column \"(.*)\"", text)
    if generated:
        return Failure(kind="generated", code=code, columns=(generated[1],))
    kind = _SQLITE.get(code) or _SQLITE_CLASSES.get(code.split("_")[1])
    if kind is None:
        return None
    detail = text.partition("constraint failed: ")[2]
    index = re.fullmatch(r"index '(.*)'", detail)
    if kind not in {"unique", "null"} or index is not None:
        return Failure(kind=kind, code=code, constraint=index[1] if index is not None else None, text=detail)
    names = [part.rpartition(".") for part in detail.split(", ")]
    return Failure(kind=kind, code=code, table=names[0][0] or None, columns=tuple(column for _, _, column in names))


def read_sqlite_client(text: str) -> Failure | None:
    position = re.match(r"Error binding parameter (\d+)", text)
    if position:
        return Failure(kind="wrong_type", position=int(position[1]))
    return Failure(kind="unavailable") if text in {"no active connection", "connection closed"} else None


# --- Exceptions of Python, which SQLAlchemy does not wrap ---

_PACKAGES = {"aiosqlite", "asyncpg", "psycopg", "psycopg_binary", "psycopg_c", "sqlalchemy"}
_BETWEEN = sys.stdlib_module_names | {"uvloop"}
# Modules that call the driver: SQLAlchemy's awaiting of coroutines, and this library's cursor for SQLite.
_CALLERS = {AWAITING, "fastapi_kit.db.engines.sqlite"}


def raised_by_database(error: BaseException) -> bool:
    """Return whether a driver or SQLAlchemy raised *error*, not code of the application that they had called.

    The innermost frame decides, apart from those of the standard library, the event loop, and modules that only call the driver. An
    exception without a traceback counts as raised by the driver.
    """
    modules: list[str] = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    for module in reversed(modules):
        package = module.partition(".")[0]
        if package not in _BETWEEN and module not in _CALLERS:
            return package in _PACKAGES
    return not modules


def read_builtin(error: BaseException) -> Failure | None:
    if not raised_by_database(error):
        return None
    if isinstance(error, OSError):
        return Failure(kind="unavailable")
    if isinstance(error, OverflowError) and "SQLite INTEGER" in str(error):
        return Failure(kind="out_of_range")
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return Failure(kind="invalid_text")
    return None
