"""Translation of an error of SQLAlchemy or a driver to the library's, by its code and the metadata of the table.

``drivers`` reads what the driver reports, ``written`` what the statement wrote, and ``constraints`` finds the constraint.
``rejected`` turns its columns into fields.
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
from fastapi_kit.db.errors.rejected import RejectedStatement
from fastapi_kit.db.errors.written import Written, failed_statement
from fastapi_kit.errors import (
    ConfigurationError,
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
_MISSING_FUNCTION = "no such function: unicode_lower"
_VERBS = {"INSERT", "UPDATE", "DELETE", "MERGE", "COMMIT"}


def as_kit_error(error: BaseException, *, metadata: MetaData | None = None, mapper: Mapper[Any] | None = None) -> KitError | None:
    """Return the library's error for an *error* of SQLAlchemy, a driver or a connection. Raise it ``from error``. Runs no SQL.

    A ValueError or TypeError of a column type becomes InvalidDataError.

    Args:
        error: The exception that was caught.
        metadata: The tables, which tell the columns of a constraint. None: the metadata of *mapper*, or that of the statement on an
            engine of a ``Database``. Without any, the error has only the columns that the driver names.
        mapper: The fields of the error are its attributes, where it maps the columns, and column keys otherwise.

    Returns:
        None for a mistake in the code, such as an unknown table or a lazy load, and for what code of the application raised in a listener
        or a column type.
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
    if failure.kind in {"rejected", "denied"} and verb not in _VERBS:
        return None
    if metadata is None and mapper is not None:
        metadata = getattr(mapper.local_table, "metadata", mapper.registry.metadata)
    elif metadata is None and written is not None:
        metadata = written.table.metadata
    return _ANSWERS.get(failure.kind, invalid_value)(RejectedStatement(failure, verb, written, metadata, mapper))


@contextmanager
def typed(mapper: Mapper[Any] | None) -> Generator[None]:
    """Raise errors of the database inside the block as the library's. Their fields are attributes of *mapper*."""
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

    That is so for a serialization failure (SQLSTATE 40001), a deadlock (40P01), and a statement that was prepared before a migration
    (0A000, XX000).
    """
    while isinstance(error, KitError) and error.__cause__ is not None:
        error = error.__cause__
    failure = read_failure(driver_error(error))
    return failure is not None and failure.kind == "unavailable" and failure.code in _RETRYABLE


def without_code(error: BaseException, cause: BaseException, metadata: MetaData | None, mapper: Mapper[Any] | None) -> KitError | None:
    if str(cause).startswith(_LOST_SAVEPOINT):
        # SQLite has rolled back the whole transaction. The reason is the error before the failed rollback to the savepoint.
        before = as_kit_error(error.__context__, metadata=metadata, mapper=mapper) if isinstance(error.__context__, Exception) else None
        return before or UnavailableError("database")
    if str(cause) == _MISSING_FUNCTION:
        return ConfigurationError(
            'a search on SQLite needs a function of the library: event.listen(engine.sync_engine, "connect", add_functions) '
            "with add_functions from fastapi_kit.db.engines.sqlite, or use a Database"
        )
    if getattr(error, "connection_invalidated", False):
        return UnavailableError("database")
    if isinstance(error, IntegrityError):
        return ConflictError()
    if type(error) is StatementError and is_unfit_value(cause):
        return InvalidDataError(reason="invalid_text" if isinstance(cause, UnicodeEncodeError) else "wrong_type")
    return None


def is_unfit_value(error: BaseException) -> bool:
    # SQLAlchemy wraps what a column type raises for a value and what the default of a column raises. The name of its function tells
    # which it was. SQLAlchemy's own types raise nearly any exception.
    if raised_by_database(error):
        return isinstance(error, ArithmeticError | AttributeError | LookupError | RecursionError | TypeError | ValueError)
    in_default = any(frame.f_code.co_name == "_process_execute_defaults" for frame, _ in walk_tb(error.__traceback__))
    return isinstance(error, ArithmeticError | TypeError | ValueError) and not in_default


# --- One function for each kind of failure ---


def conflict(statement: RejectedStatement) -> KitError:
    rule, table, name = statement.rule, statement.table, statement.failure.constraint
    if name is None and table is not None:
        rule = find_unique(table, statement.columns)
    fields = statement.fields(columns_of(rule) if rule is not None else statement.columns)
    return ConflictError(fields, constraint=name_of(rule) or name, table=statement.table_name)


def null_value(statement: RejectedStatement) -> KitError:
    return InvalidDataError(statement.fields(statement.columns), reason="null", table=statement.table_name)


def check_error(statement: RejectedStatement) -> KitError:
    said, table, rule = statement.failure.text, statement.table, statement.rule
    columns: Sequence[Column[Any]] = columns_of(rule) if rule is not None else []
    if rule is None and statement.failure.constraint is None and table is not None:
        named = find_rule([table], said)
        columns = columns_of(named) if named is not None else columns_named_in(said, table)
    return InvalidDataError(statement.fields(columns), reason="check", table=statement.table_name)


def invalid_value(statement: RejectedStatement) -> KitError:
    reason, columns = statement.failure.kind, list[Column[Any]]()
    if statement.rule is not None:
        columns = list(columns_of(statement.rule))
    elif statement.table is not None and statement.written is not None:
        reason, columns = values_at_fault(statement.table, statement.written, statement.failure)
    return InvalidDataError(statement.fields(columns), reason=reason, table=statement.table_name)


def values_at_fault(table: Table, written: Written, failure: Failure) -> tuple[str, list[Column[Any]]]:
    """Return the reason, and the columns whose type cannot hold what was written. For drivers that name no column."""
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
        # An entry of an index has at most 2,704 bytes on PostgreSQL, after compression.
        long = {name for name, sent in values.items() if any(isinstance(value, str) and len(value) > 2000 for value in sent)}
        found[failure.kind] = [column for column in table.columns if column.name in long and column in indexed_columns(table)]
    reason = failure.kind if failure.kind in found else next(iter(found), failure.kind)
    return reason, found.get(reason, [])


def document(value: object) -> object:
    # Drivers get JSON as text or in a wrapper object.
    if not isinstance(value, str):
        return getattr(value, "obj", value)
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def generated_column(statement: RejectedStatement) -> KitError:
    return InvalidDataError(statement.fields(statement.columns), reason="read_only", table=statement.table_name)


def rejected(statement: RejectedStatement) -> KitError:
    # The text of a RAISE may show data, so it is dropped. A RAISE may name the column at fault.
    if statement.failure.columns:
        return InvalidDataError(statement.fields(statement.columns), reason="check", table=statement.table_name)
    return ConflictError(constraint=statement.failure.constraint, table=statement.table_name)


def denied(statement: RejectedStatement) -> KitError:
    return PermissionDeniedError(f"a policy of {statement.table_name or 'the database'} rejects the row")


def unavailable(statement: RejectedStatement) -> KitError:
    return UnavailableError("database", retry_after=30.0 if statement.failure.code in _DISK_FULL else 1.0)


# --- Foreign keys: PostgreSQL names the constraint of the referencing table in both directions, SQLite names nothing ---


def reference(statement: RejectedStatement) -> KitError:
    if not statement.failure.constraint:
        return guessed_reference(statement)
    rule = statement.rule if isinstance(statement.rule, ForeignKeyConstraint) else None
    is_referenced = {"still_referenced": True}.get(statement.failure.kind, {"DELETE": True, "INSERT": False}.get(statement.verb))
    if is_referenced is None and rule is not None:
        is_referenced = is_still_referenced(statement, rule)
    if "is still referenced" in statement.failure.text if is_referenced is None else is_referenced:
        return still_referenced(statement, rule)
    columns = columns_of(rule) if rule is not None else statement.columns
    return UnknownReferenceError(statement.fields(columns), table=statement.table_name)


def is_still_referenced(statement: RejectedStatement, rule: ForeignKeyConstraint) -> bool | None:
    # PostgreSQL translates the words of a DETAIL, not its names. If the row is still referenced, it names the referenced key and the
    # referencing table. If the reference is unknown, it names the referencing key and the referenced table.
    target = target_of(rule)
    key, own, other = statement.key.split(", "), [column.name for column in rule.columns], [column.name for column in target]
    if own != other and key in (own, other):
        return key == other
    words = re.findall(r"\w+", statement.failure.text.rpartition(")")[2])
    says_own, says_other = rule.table.name in words, any(column.table.name in words for column in target)
    return says_own if says_own != says_other else None


def still_referenced(statement: RejectedStatement, rule: ForeignKeyConstraint | None) -> KitError:
    fields = statement.fields(columns_of(rule)) if rule is not None else ()
    table = rule.table.fullname if rule is not None else statement.failure.table
    return StillReferencedError(fields, constraint=name_of(rule) or statement.failure.constraint, table=table)


def guessed_reference(statement: RejectedStatement) -> KitError:
    table = statement.table
    values: Mapping[str, Sequence[object]] = statement.written.values if statement.written is not None else {}
    pointing = set[Column[Any]]()
    for rule in table.foreign_key_constraints if table is not None else ():
        # The database does not check a key with a NULL in it.
        rows = zip(*(values[column.name] for column in rule.columns if column.name in values), strict=True)
        if any(None not in row for row in rows):
            pointing.update(rule.columns)
    changes_target = statement.verb == "UPDATE" and table is not None and not pointing
    if statement.verb == "DELETE" or statement.failure.kind == "still_referenced" or changes_target:
        keys = [key for other in statement.tables for key in other.foreign_key_constraints]
        rules = [key for key in keys if table is not None and any(column.table is table for column in target_of(key))]
        only = rules[0] if len(rules) == 1 and rules[0].ondelete in {None, "NO ACTION", "RESTRICT"} else None
        return still_referenced(statement, only)
    columns = [column for column in table.columns if column in pointing] if table is not None else []
    return UnknownReferenceError(statement.fields(columns), table=statement.table_name, precise=False)


_ANSWERS: Mapping[str, Callable[[RejectedStatement], KitError]] = {
    "unique": conflict,
    "integrity": lambda statement: ConflictError(constraint=statement.failure.constraint, table=statement.table_name),
    "foreign_key": reference,
    "still_referenced": reference,
    "null": null_value,
    "check": check_error,
    "generated": generated_column,
    "rejected": rejected,
    "denied": denied,
    "unavailable": unavailable,
}
