"""From an error of SQLAlchemy or a driver to the library's: by code and table metadata.

What a driver says is read in ``drivers``, what the statement wrote in ``written``, and which constraint that is in ``constraints``.
"""

import json
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

from sqlalchemy import JSON, Column, ForeignKeyConstraint, MetaData, Table
from sqlalchemy.exc import IntegrityError, InvalidRequestError, PendingRollbackError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.exc import ObjectDeletedError, StaleDataError

from fastapi_kit.db.checks.column_types import value_check
from fastapi_kit.db.errors.constraints import columns_named_in, columns_of, find_rule, find_unique, indexed_columns, name_of, target_of
from fastapi_kit.db.errors.drivers import Failure, driver_error, raised_by_database, read_failure
from fastapi_kit.db.errors.refusal import Refusal
from fastapi_kit.db.errors.written import Written, failed_statement
from fastapi_kit.errors import (
    ConflictError,
    InvalidDataError,
    KitError,
    PermissionDeniedError,
    StillReferencedError,
    UnavailableError,
    UnknownReferenceError,
)

__all__ = ["as_kit_error", "is_retryable", "typed"]

_RETRYABLE = {"40001", "40P01", "0A000", "XX000"}
_INDEX_ROW_TOO_LONG = "54000"
_DISK_FULL = {"53100", "SQLITE_FULL"}
_LOST_SAVEPOINT = "no such savepoint: sa_savepoint_"
_VERBS = {"INSERT", "UPDATE", "DELETE", "MERGE", "COMMIT"}


def as_kit_error(error: BaseException, *, metadata: MetaData | None = None, mapper: Mapper[Any] | None = None) -> KitError | None:
    """Return the library's error for a SQLAlchemy, driver or connection *error*, or None if it is something else.

    None is returned for mistakes in the code too, such as an unknown table or a lazy load, and for what the application itself raised below
    SQLAlchemy, in a listener or a column type. A column type refuses a value with ValueError or TypeError.

    *metadata*, or that of *mapper*, or that of the statement on a watched engine, tells which columns a constraint is about; without it the
    fields are what the driver itself says. They are column keys, and attributes where *mapper* maps the column. Raise the result
    ``from error``. Runs no SQL and changes nothing.
    """
    if isinstance(error, KitError):
        return error
    said = str(error) if isinstance(error, InvalidRequestError) else ""
    if isinstance(error, StaleDataError | ObjectDeletedError) or said.startswith("Could not refresh instance"):
        return ConflictError()
    if isinstance(error, PoolTimeoutError) or (isinstance(error, PendingRollbackError) and said.startswith("Can't reconnect")):
        return UnavailableError("database")
    cause = driver_error(error)
    if isinstance(cause, KitError):
        return cause
    if isinstance(cause, SQLAlchemyError):
        return None
    failure = read_failure(cause)
    if failure is None:
        return without_code(error, cause, metadata, mapper)
    verb, written = failed_statement(error)
    if failure.kind in {"refused", "denied"} and verb not in _VERBS:
        return None
    if metadata is None and mapper is not None:
        metadata = getattr(mapper.local_table, "metadata", mapper.registry.metadata)
    elif metadata is None and written is not None:
        metadata = written.table.metadata
    return _ANSWERS.get(failure.kind, refused_value)(Refusal(failure, verb, written, metadata, mapper))


@contextmanager
def typed(mapper: Mapper[Any] | None) -> Generator[None]:
    """Raise database errors as the library's, fields named as attributes of *mapper*."""
    try:
        yield
    except KitError:
        raise
    except Exception as error:
        mapped = as_kit_error(error, mapper=mapper)
        if mapped is None:
            raise
        raise mapped from error


def is_retryable(error: BaseException) -> bool:
    """Return whether the whole transaction may succeed if it is run again.

    That is a serialization failure, a deadlock (SQLSTATE 40001, 40P01), or a statement that was prepared before a migration (0A000, XX000).
    """
    while isinstance(error, KitError) and error.__cause__ is not None:
        error = error.__cause__
    failure = read_failure(driver_error(error))
    return failure is not None and failure.kind == "unavailable" and failure.code in _RETRYABLE


def without_code(error: BaseException, cause: BaseException, metadata: MetaData | None, mapper: Mapper[Any] | None) -> KitError | None:
    if str(cause).startswith(_LOST_SAVEPOINT):
        # SQLite has undone the whole transaction; why, stands before the attempt to undo a part of it.
        before = as_kit_error(error.__context__, metadata=metadata, mapper=mapper) if isinstance(error.__context__, Exception) else None
        return before or UnavailableError("database")
    if getattr(error, "connection_invalidated", False):
        return UnavailableError("database")
    if isinstance(error, IntegrityError):
        return ConflictError()
    if type(error) is StatementError and is_unfit_value(cause):
        return InvalidDataError(reason="invalid_text" if isinstance(cause, UnicodeEncodeError) else "wrong_type")
    return None


def is_unfit_value(error: BaseException) -> bool:
    # SQLAlchemy wraps what a column type raises for a value, and what a column's default raises; the name of its own function tells them
    # apart. Its own types raise nearly anything.
    if raised_by_database(error):
        return isinstance(error, ArithmeticError | AttributeError | LookupError | RecursionError | TypeError | ValueError)
    in_default = any(frame.f_code.co_name == "_process_execute_defaults" for frame, _ in walk_tb(error.__traceback__))
    return isinstance(error, ArithmeticError | TypeError | ValueError) and not in_default


# --- One answer for each kind of failure. ---


def conflict(refusal: Refusal) -> KitError:
    rule, table, name = refusal.rule, refusal.table, refusal.failure.constraint
    if name is None and table is not None:
        rule = find_unique(table, refusal.columns)
    fields = refusal.fields(columns_of(rule) if rule is not None else refusal.columns)
    return ConflictError(fields, constraint=name_of(rule) or name, table=refusal.table_name)


def null(refusal: Refusal) -> KitError:
    return InvalidDataError(refusal.fields(refusal.columns), reason="null", table=refusal.table_name)


def check_error(refusal: Refusal) -> KitError:
    said, table, rule = refusal.failure.text, refusal.table, refusal.rule
    columns: Sequence[Column[Any]] = columns_of(rule) if rule is not None else []
    if rule is None and refusal.failure.constraint is None and table is not None:
        named = find_rule([table], said)
        columns = columns_of(named) if named is not None else columns_named_in(said, table)
    return InvalidDataError(refusal.fields(columns), reason="check", table=refusal.table_name)


def refused_value(refusal: Refusal) -> KitError:
    reason, columns = refusal.failure.kind, list[Column[Any]]()
    if refusal.rule is not None:
        columns = list(columns_of(refusal.rule))
    elif refusal.table is not None and refusal.written is not None:
        reason, columns = values_at_fault(refusal.table, refusal.written, refusal.failure)
    return InvalidDataError(refusal.fields(columns), reason=reason, table=refusal.table_name)


def values_at_fault(table: Table, written: Written, failure: Failure) -> tuple[str, list[Column[Any]]]:
    """Return the columns whose type cannot hold what was written, for a driver that names none, and the reason."""
    found: dict[str, list[Column[Any]]] = {}
    values = written.values
    only = written.column_at(failure.position) if failure.position is not None else None
    for column in table.columns:
        if column.name not in values or (failure.position is not None and column.name != only):
            continue
        check = value_check(column.type, bound=True)
        bound = map(document, values[column.name]) if isinstance(column.type, JSON) else values[column.name]
        reason = next(filter(None, map(check, bound)), None) if check is not None else None
        if reason or only is not None:
            found.setdefault(reason or failure.kind, []).append(column)
    if not found and failure.code == _INDEX_ROW_TOO_LONG:
        # An entry of PostgreSQL's indexes has at most 2,704 bytes after compression.
        long = {name for name, sent in values.items() if any(isinstance(value, str) and len(value) > 2000 for value in sent)}
        found[failure.kind] = [column for column in table.columns if column.name in long and column in indexed_columns(table)]
    reason = failure.kind if failure.kind in found else next(iter(found), failure.kind)
    return reason, found.get(reason, [])


def document(value: object) -> object:
    # Drivers get JSON as text, or in a wrapper.
    if not isinstance(value, str):
        return getattr(value, "obj", value)
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def generated(refusal: Refusal) -> KitError:
    return InvalidDataError(refusal.fields(refusal.columns), reason="read_only", table=refusal.table_name)


def refused(refusal: Refusal) -> KitError:
    # A trigger's text may show data. RAISE may name the column that is at fault.
    if refusal.failure.columns:
        return InvalidDataError(refusal.fields(refusal.columns), reason="check", table=refusal.table_name)
    return ConflictError(constraint=refusal.failure.constraint, table=refusal.table_name)


def denied(refusal: Refusal) -> KitError:
    return PermissionDeniedError(f"a policy of {refusal.table_name or 'the database'} refuses the row")


def unavailable(refusal: Refusal) -> KitError:
    return UnavailableError("database", retry_after=30.0 if refusal.failure.code in _DISK_FULL else 1.0)


# --- Foreign keys. PostgreSQL names the constraint, of the referencing table in both directions; SQLite names nothing. ---


def reference(refusal: Refusal) -> KitError:
    if not refusal.failure.constraint:
        return guessed_reference(refusal)
    rule = refusal.rule if isinstance(refusal.rule, ForeignKeyConstraint) else None
    known = {"still_referenced": True}.get(refusal.failure.kind, {"DELETE": True, "INSERT": False}.get(refusal.verb))
    if known is None and rule is not None:
        known = detail_says_so(refusal, rule)
    if "is still referenced" in refusal.failure.text if known is None else known:
        return still_referenced(refusal, rule)
    columns = columns_of(rule) if rule is not None else refusal.columns
    return UnknownReferenceError(refusal.fields(columns), table=refusal.table_name)


def detail_says_so(refusal: Refusal, rule: ForeignKeyConstraint) -> bool | None:
    # PostgreSQL translates the words of a DETAIL, not its names. Where the row is still referenced, they are the referenced key and the
    # referencing table; where the reference is unknown, the other way round.
    target = target_of(rule)
    key, own, other = refusal.key.split(", "), [column.name for column in rule.columns], [column.name for column in target]
    if own != other and key in (own, other):
        return key == other
    words = re.findall(r"\w+", refusal.failure.text.rpartition(")")[2])
    says_own, says_other = rule.table.name in words, any(column.table.name in words for column in target)
    return says_own if says_own != says_other else None


def still_referenced(refusal: Refusal, rule: ForeignKeyConstraint | None) -> KitError:
    fields = refusal.fields(columns_of(rule)) if rule is not None else ()
    table = rule.table.fullname if rule is not None else refusal.failure.table
    return StillReferencedError(fields, constraint=name_of(rule) or refusal.failure.constraint, table=table)


def guessed_reference(refusal: Refusal) -> KitError:
    table = refusal.table
    values: Mapping[str, Sequence[object]] = refusal.written.values if refusal.written is not None else {}
    pointing = set[Column[Any]]()
    for rule in table.foreign_key_constraints if table is not None else ():
        # A key with a NULL in it is not looked up.
        rows = zip(*(values[column.name] for column in rule.columns if column.name in values), strict=True)
        if any(None not in row for row in rows):
            pointing.update(rule.columns)
    changes_target = refusal.verb == "UPDATE" and table is not None and not pointing
    if refusal.verb == "DELETE" or refusal.failure.kind == "still_referenced" or changes_target:
        keys = [key for other in refusal.tables for key in other.foreign_key_constraints]
        rules = [key for key in keys if table is not None and any(column.table is table for column in target_of(key))]
        only = rules[0] if len(rules) == 1 and rules[0].ondelete in {None, "NO ACTION", "RESTRICT"} else None
        return still_referenced(refusal, only)
    columns = [column for column in table.columns if column in pointing] if table is not None else []
    return UnknownReferenceError(refusal.fields(columns), table=refusal.table_name, precise=False)


_ANSWERS: Mapping[str, Callable[[Refusal], KitError]] = {
    "unique": conflict,
    "integrity": lambda refusal: ConflictError(constraint=refusal.failure.constraint, table=refusal.table_name),
    "foreign_key": reference,
    "still_referenced": reference,
    "null": null,
    "check": check_error,
    "generated": generated,
    "refused": refused,
    "denied": denied,
    "unavailable": unavailable,
}
