"""From driver errors to the library's errors, by code and table metadata.

What a driver says is read in ``_drivers``, what the statement wrote in ``_statements``, and which constraint that is in ``_constraints``.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import JSON, Column, ForeignKeyConstraint, MetaData, Table
from sqlalchemy.exc import IntegrityError, InvalidRequestError, PendingRollbackError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.exc import ObjectDeletedError, StaleDataError

from fastapi_kit.db._constraints import columns_named_in, columns_of, find_rule, find_unique, indexed_columns, name_of, target_of
from fastapi_kit.db._drivers import Failure, driver_error, read_failure
from fastapi_kit.db._refusals import Refusal
from fastapi_kit.db._statements import Written, read_statement
from fastapi_kit.db._type_checks import value_check
from fastapi_kit.errors import ConflictError, InvalidDataError, KitError, StillReferencedError, UnavailableError, UnknownReferenceError

__all__ = ["as_kit_error", "is_retryable"]

_RETRYABLE = {"40001", "40P01"}
_DISK_FULL = {"53100", "SQLITE_FULL", "1021"}
_LOST_SAVEPOINT = "no such savepoint: sa_savepoint_"
_INDEX_ROW_TOO_LONG = "54000"
_CONVERSION_ERRORS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def as_kit_error(error: BaseException, *, metadata: MetaData | None = None, mapper: Mapper[Any] | None = None) -> KitError | None:
    """Return the library's error for a SQLAlchemy, driver or connection *error*, or None if it is something else.

    None is returned for mistakes in the code too, such as an unknown table or a lazy load. *metadata*, or that of *mapper*, tells which
    columns a constraint is about; without it the fields are what the driver itself says. They are column keys, and attributes where
    *mapper* maps the column. Raise the result ``from error``. Runs no SQL and changes nothing.
    """
    if isinstance(error, KitError):
        return error
    if isinstance(error, StaleDataError | ObjectDeletedError) or _is_vanished(error):
        return ConflictError()
    if isinstance(error, PoolTimeoutError) or _is_lost(error):
        return UnavailableError("database")
    cause = driver_error(error)
    if isinstance(cause, KitError):
        return cause
    if isinstance(cause, SQLAlchemyError):
        return None
    failure = read_failure(cause)
    if failure is None and str(cause).startswith(_LOST_SAVEPOINT):
        # SQLite has undone the whole transaction; why, stands before the attempt to undo a part of it.
        before = as_kit_error(error.__context__, metadata=metadata, mapper=mapper) if isinstance(error.__context__, Exception) else None
        return before or UnavailableError("database")
    if failure is None:
        return _by_class(error, cause)
    if metadata is None and mapper is not None:
        metadata = getattr(mapper.local_table, "metadata", mapper.registry.metadata)
    refusal = Refusal(failure, read_statement(error), metadata, mapper)
    return _ANSWERS.get(failure.kind, _refused_value)(refusal)


def is_retryable(error: BaseException) -> bool:
    """Return whether the whole transaction may succeed if it is run again: a serialization failure or deadlock (SQLSTATE 40001, 40P01)."""
    while isinstance(error, KitError) and error.__cause__ is not None:
        error = error.__cause__
    failure = read_failure(driver_error(error))
    return failure is not None and failure.code in _RETRYABLE


def _is_lost(error: BaseException) -> bool:
    return isinstance(error, PendingRollbackError) and str(error).startswith("Can't reconnect")


def _is_vanished(error: BaseException) -> bool:
    return type(error) is InvalidRequestError and str(error).startswith("Could not refresh instance")


def _by_class(error: BaseException, cause: BaseException) -> KitError | None:
    if getattr(error, "connection_invalidated", False):
        return UnavailableError("database")
    if isinstance(error, IntegrityError):
        return ConflictError()
    # A column type could not convert the value; SQLAlchemy wraps whatever it raised.
    converting = type(error) is StatementError and isinstance(cause, _CONVERSION_ERRORS)
    return InvalidDataError(reason="wrong_type") if converting else None


# --- One answer for each kind of failure. ---


def _conflict(refusal: Refusal) -> KitError:
    rule, table, name = refusal.rule, refusal.table, refusal.failure.constraint
    if name is None and table is not None:
        rule = find_unique(table, refusal.columns)
    fields = refusal.fields(columns_of(rule) if rule is not None else refusal.columns)
    return ConflictError(fields, constraint=name_of(rule) or name, table=refusal.table_name)


def _null(refusal: Refusal) -> KitError:
    return InvalidDataError(refusal.fields(refusal.columns), reason="null", table=refusal.table_name)


def _check(refusal: Refusal) -> KitError:
    said, table, rule = refusal.failure.text, refusal.table, refusal.rule
    columns: Sequence[Column[Any]] = columns_of(rule) if rule is not None else []
    if rule is None and refusal.failure.constraint is None and table is not None:
        named = find_rule([table], said)
        columns = columns_of(named) if named is not None else columns_named_in(said, table)
    return InvalidDataError(refusal.fields(columns), reason="check", table=refusal.table_name)


def _refused_value(refusal: Refusal) -> KitError:
    reason, columns = refusal.failure.kind, list[Column[Any]]()
    if refusal.rule is not None:
        columns = list(columns_of(refusal.rule))
    elif refusal.table is not None and refusal.written is not None:
        reason, columns = _values_at_fault(refusal.table, refusal.written, refusal.failure)
        if refusal.failure.code == _INDEX_ROW_TOO_LONG and not columns:
            columns = _long_in_index(refusal.table, refusal.written)
    return InvalidDataError(refusal.fields(columns), reason=reason, table=refusal.table_name)


def _values_at_fault(table: Table, written: Written, failure: Failure) -> tuple[str, list[Column[Any]]]:
    # The driver names no column: find those whose type cannot hold what was written.
    found: dict[str, list[Column[Any]]] = {}
    for column in table.columns:
        values = written.values.get(column.name, ())
        if failure.position is not None and written.columns.get(failure.position) != column.name:
            continue
        reason = next(filter(None, (_problem(column, value) for value in values)), None)
        if reason or (failure.position is not None and values):
            found.setdefault(reason or failure.kind, []).append(column)
    reason = failure.kind if failure.kind in found else next(iter(found), failure.kind)
    return reason, found.get(reason, [])


def _long_in_index(table: Table, written: Written) -> list[Column[Any]]:
    # An entry of PostgreSQL's indexes has at most 2,704 bytes after compression.
    long = {name for name, values in written.values.items() if any(isinstance(value, str) and len(value) > 2000 for value in values)}
    return [column for column in table.columns if column.name in long and column in indexed_columns(table)]


def _problem(column: Column[Any], value: object) -> str | None:
    check = value_check(column.type, bound=True)
    return check(_document(value) if isinstance(column.type, JSON) else value) if check is not None else None


def _document(value: object) -> object:
    # Drivers get JSON as text, or in a wrapper.
    if not isinstance(value, str):
        return getattr(value, "obj", value)
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _unavailable(refusal: Refusal) -> KitError:
    return UnavailableError("database", retry_after=30.0 if refusal.failure.code in _DISK_FULL else 1.0)


# --- Foreign keys. PostgreSQL names the constraint, of the referencing table in both directions; SQLite names nothing. ---


def _reference(refusal: Refusal) -> KitError:
    if not refusal.failure.constraint:
        return _guessed_reference(refusal)
    rule = refusal.rule if isinstance(refusal.rule, ForeignKeyConstraint) else None
    if _is_still_referenced(refusal, rule):
        return _still_referenced(refusal, rule)
    columns = columns_of(rule) if rule is not None else refusal.columns
    return UnknownReferenceError(refusal.fields(columns), table=refusal.table_name)


def _is_still_referenced(refusal: Refusal, rule: ForeignKeyConstraint | None) -> bool:
    known = {"still_referenced": True, "unknown_reference": False}.get(refusal.failure.kind)
    if known is None and refusal.written is not None:
        known = {"DELETE": True, "INSERT": False}.get(refusal.written.verb)
    if known is None and rule is not None:
        known = _detail_says_so(refusal, rule)
    return "is still referenced" in refusal.failure.text if known is None else known


def _detail_says_so(refusal: Refusal, rule: ForeignKeyConstraint) -> bool | None:
    # PostgreSQL translates the words of a DETAIL, not its names. Where the row is still referenced, they are the referenced key and the
    # referencing table; where the reference is unknown, the other way round.
    target = target_of(rule)
    key, own, other = refusal.key.split(", "), [column.name for column in rule.columns], [column.name for column in target]
    if own != other and key in (own, other):
        return key == other
    words = re.findall(r"\w+", refusal.failure.text.rpartition(")")[2])
    says_own, says_other = rule.table.name in words, any(column.table.name in words for column in target)
    return says_own if says_own != says_other else None


def _still_referenced(refusal: Refusal, rule: ForeignKeyConstraint | None) -> KitError:
    fields = refusal.fields(columns_of(rule)) if rule is not None else ()
    table = rule.table.fullname if rule is not None else refusal.failure.table
    return StillReferencedError(fields, constraint=name_of(rule) or refusal.failure.constraint, table=table)


def _guessed_reference(refusal: Refusal) -> KitError:
    written, table = refusal.written, refusal.table
    if written is None:
        return UnknownReferenceError(precise=False)
    pointing = _keys_written(table, written) if table is not None else []
    changes_target = written.verb == "UPDATE" and table is not None and not pointing
    if written.verb == "DELETE" or refusal.failure.kind == "still_referenced" or changes_target:
        return _still_referenced(refusal, _only_rule_at(table, refusal.tables) if table is not None else None)
    named = {column for rule in pointing for column in rule.columns}
    columns = [column for column in table.columns if column in named] if table is not None else []
    return UnknownReferenceError(refusal.fields(columns), table=refusal.table_name, precise=False)


def _only_rule_at(target: Table, tables: Iterable[Table]) -> ForeignKeyConstraint | None:
    keys = [rule for table in tables for rule in table.foreign_key_constraints]
    rules = [rule for rule in keys if any(column.table is target for column in target_of(rule))]
    return rules[0] if len(rules) == 1 and rules[0].ondelete in {None, "NO ACTION", "RESTRICT"} else None


def _keys_written(table: Table, written: Written) -> list[ForeignKeyConstraint]:
    return [rule for rule in table.foreign_key_constraints if _points_somewhere(rule, written)]


def _points_somewhere(rule: ForeignKeyConstraint, written: Written) -> bool:
    # A key with a NULL in it is not looked up.
    rows = zip(*(written.values[column.name] for column in rule.columns if column.name in written.values), strict=True)
    return any(None not in row for row in rows)


_ANSWERS: Mapping[str, Callable[[Refusal], KitError]] = {
    "unique": _conflict,
    "integrity": lambda refusal: ConflictError(constraint=refusal.failure.constraint, table=refusal.table_name),
    "foreign_key": _reference,
    "unknown_reference": _reference,
    "still_referenced": _reference,
    "null": _null,
    "check": _check,
    "unavailable": _unavailable,
}
