"""Private names of SQLAlchemy and FastAPI, and what differs between the supported versions of SQLAlchemy and pydantic.

``tests/test_compat.py`` tries each on the lowest and the newest version.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from inspect import CO_ASYNC_GENERATOR, currentframe
from types import CodeType, FrameType
from typing import Any, Final, cast

import sqlalchemy
from pydantic_core import SchemaValidator
from sqlalchemy import ColumnElement, Connection, Engine, Result, Select
from sqlalchemy.orm import InstanceState, LoaderCallableStatus, Mapper, Session, SessionTransaction
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.collections import collection_adapter
from sqlalchemy.orm.interfaces import LoaderOption, ORMOption
from sqlalchemy.types import TypeEngine
from sqlalchemy.util import await_only

__all__ = [
    "AWAITING",
    "BY_PLACE",
    "binds_of",
    "code_of_dependency",
    "connect_errors",
    "criteria_options",
    "demands_unique",
    "discard_clean",
    "emulated_cause",
    "froms_of",
    "has_begin_listener",
    "has_sent_sql",
    "is_clean",
    "is_running",
    "is_ungrouped",
    "limits_rows",
    "loads_from_joins",
    "mark_deleted",
    "mark_inserted",
    "mark_updated",
    "options_of",
    "options_of_session",
    "order_of",
    "own_isolation_level",
    "plain_criteria",
    "put_back",
    "python_type",
    "refresh_row",
    "validator_of",
]

# --- Sessions and their transactions ---


def binds_of(session: Session) -> list[Engine | Connection]:
    """Return the engines and connections that *session* is bound to."""
    # SQLAlchemy 2.0 calls them __binds.
    given: Mapping[object, Engine | Connection] = getattr(session, "binds", None) or getattr(session, "_Session__binds", {})
    return [bind for bind in (session.bind, *given.values()) if bind is not None]


def has_sent_sql(transaction: SessionTransaction) -> bool:
    """Return whether *transaction* has a connection. Without one it has sent nothing."""
    return bool(cast("Any", transaction)._connections)


def is_clean(session: Session) -> bool:
    """Return whether a flush of *session* would do nothing."""
    return bool(cast("Any", session)._is_clean())


BY_PLACE: Final = {"_result_disable_adapt_to_context": True}
"""Execution options for rows that are read by place, as the ORM gives them: names are not looked up again for each execution."""


def options_of_session(session: Session) -> Mapping[str, Any]:
    """Return the execution options of every statement of *session*. Sessions of SQLAlchemy 2.0 have none."""
    return cast("Mapping[str, Any]", getattr(session, "execution_options", {}))


def discard_clean(session: Session) -> list[object]:
    """Remove the objects that the open transactions have not written from the identity map, and return them.

    A rollback expires the objects in the map. No event fires and nothing is copied. Objects that were changed or marked as deleted, but
    not written, get back what was loaded.
    """
    private, written = cast("Any", session), set[InstanceState[Any]]()
    for transaction in _open_transactions(session):
        written.update(cast("Any", transaction)._new, cast("Any", transaction)._dirty, cast("Any", transaction)._deleted)
    states = [state for state in session.identity_map.all_states() if state not in written]
    for state in states:
        _revert_collections(state)
    kept: list[object] = []
    for state in states:
        row = state.obj()
        if row is not None:
            private._deleted.pop(state, None)
            # An object that was removed from a collection would be an orphan, and the next flush would delete it.
            vars(state).pop("parents", None)
            if state.modified:
                _revert(state, session)
            session.identity_map.safe_discard(state)
            kept.append(row)
    return kept


def _revert_collections(state: InstanceState[Any]) -> None:
    for name, loaded in state.committed_state.items():
        if name in state.dict and state.manager[name].impl.collection and not isinstance(loaded, LoaderCallableStatus):
            collection = state.dict[name]
            if isinstance(collection, list):
                # In the original order, and without the new numbers of an ordering list.
                list[object].__setitem__(cast("list[object]", collection), slice(None), loaded)
                continue
            adapter = collection_adapter(collection)
            for item in [item for item in adapter if not any(item is each for each in loaded)]:
                adapter.remove_without_event(item)
            for item in [item for item in loaded if not any(item is each for each in adapter)]:
                adapter.append_without_event(item)


def _revert(state: InstanceState[Any], session: Session) -> None:
    """Set the loaded column values and references on *state*. Attributes whose loaded value is unknown are expired."""
    known, unknown = list[str](), list[str]()
    for name, value in state.committed_state.items():
        impl = state.manager[name].impl
        if isinstance(value, LoaderCallableStatus) or impl.dynamic:
            unknown.append(name)
            continue
        known.append(name)
        if not impl.collection:
            state.dict[name] = value
    private = cast("Any", state)
    private._expire_attributes(state.dict, unknown)
    private._commit_all(state.dict, session.identity_map)
    # The event builds composites again and gives mutable values their owner.
    state.manager.dispatch.refresh(state, None, known)


def put_back(session: Session, objects: Iterable[object]) -> None:
    """Put the *objects* that ``discard_clean`` returned into the identity map again."""
    for each in objects:
        state: InstanceState[Any] = cast("Any", each)._sa_instance_state
        if state.key is not None and state.session is session and state.key not in session.identity_map:
            session.identity_map.add(state)


def mark_inserted(session: Session, rows: Iterable[object]) -> None:
    """Let a rollback make *rows*, which a statement inserted and returned, transient, as it does with flushed rows."""
    transaction = cast("Any", session)._transaction
    for row in rows:
        transaction._new[cast("Any", row)._sa_instance_state] = True


def mark_updated(session: Session, row: object) -> None:
    """Let a rollback expire *row*, which a statement changed, as it does with flushed rows."""
    cast("Any", session)._register_altered([cast("Any", row)._sa_instance_state])


def mark_deleted(session: Session, row: object) -> None:
    """Remove *row*, which a statement deleted, from the session, as a flush does."""
    cast("Any", session)._remove_newly_deleted([cast("Any", row)._sa_instance_state])


def refresh_row(row: object, values: Mapping[str, Any]) -> None:
    """Set the stored *values* of attributes on the persistent *row*. The ``refresh`` event tells mutable types."""
    for name, value in values.items():
        set_committed_value(row, name, value)
    state: InstanceState[Any] = cast("Any", row)._sa_instance_state
    state.manager.dispatch.refresh(state, None, values.keys())


def _open_transactions(session: Session) -> Iterator[SessionTransaction]:
    transaction: SessionTransaction | None = cast("Any", session)._transaction
    while transaction is not None:
        yield transaction
        transaction = transaction.parent


# --- Engines ---


def has_begin_listener(engine: Engine) -> bool:
    """Return whether the application listens to the ``begin`` event of *engine*."""
    return bool(engine.dispatch.begin)


def own_isolation_level(engine: Engine) -> str | None:
    """Return the isolation level that ``create_engine`` or ``execution_options`` gave *engine*, or None."""
    level: str | None = engine.get_execution_options().get("isolation_level") or cast("Any", engine.dialect)._on_connect_isolation_level
    return level


# --- Types and drivers ---


def python_type(sql_type: TypeEngine[Any]) -> type[Any] | None:
    """Return the class of the values of *sql_type*, or None where it does not say: object in SQLAlchemy 2.1, an error in 2.0."""
    try:
        found = sql_type.python_type
    except NotImplementedError:
        return None
    return None if found is object else found


def connect_errors() -> tuple[type[Exception], ...]:
    """Return the classes of asyncpg's errors, which SQLAlchemy 2.0 raises as they are where a connection cannot be made."""
    if not sqlalchemy.__version__.startswith("2.0.") or find_spec("asyncpg") is None:
        return ()
    asyncpg = import_module("asyncpg")
    return (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


AWAITING: str = await_only.__module__
"""The module in which SQLAlchemy awaits a coroutine for code that is not asynchronous."""


def emulated_cause(error: BaseException) -> BaseException | None:
    """Return the driver's exception where *error* is of SQLAlchemy's own classes, which stand for those of asyncpg; None otherwise.

    SQLAlchemy 2.1 calls the base of these classes EmulatedDBAPIException.
    """
    return error.__cause__ if type(error).__module__.startswith("sqlalchemy.dialects.") else None


# --- Statements and results ---


def options_of(statement: Select[Any]) -> Sequence[ORMOption]:
    """Return the ORM options of *statement*."""
    return cast("Sequence[ORMOption]", cast("Any", statement)._with_options)


def criteria_options(statement: Select[Any]) -> Sequence[ORMOption]:
    """Return the ``with_loader_criteria`` options of *statement*. They restrict its rows; the others determine how rows are loaded."""
    return [option for option in options_of(statement) if not isinstance(option, LoaderOption)]


def loads_from_joins(options: Iterable[ORMOption]) -> bool:
    """Return whether ``contains_eager`` is among *options*. Then the joins of the statement determine which rows are loaded."""
    loads = (option for option in options if isinstance(option, LoaderOption))
    elements = (element for option in loads for element in getattr(option, "context", ()))
    return any("eager_from_alias" in element.local_opts for element in elements)


def order_of(statement: Select[Any]) -> Sequence[ColumnElement[Any]]:
    """Return the ORDER BY of *statement*."""
    return cast("Sequence[ColumnElement[Any]]", cast("Any", statement)._order_by_clauses)


def froms_of(expression: Any) -> Sequence[object]:
    """Return the tables that *expression* needs in a FROM."""
    element: Any = expression.__clause_element__() if hasattr(expression, "__clause_element__") else expression
    return cast("Sequence[object]", getattr(element, "_from_objects", ()))


def is_ungrouped(statement: Select[Any]) -> bool:
    """Return whether columns can be added to *statement* without changing its rows: it has no DISTINCT, GROUP BY or HAVING."""
    private = cast("Any", statement)
    return not (private._distinct or private._distinct_on or private._group_by_clauses or private._having_criteria)


def limits_rows(statement: Select[Any]) -> bool:
    """Return whether *statement* returns only some of the rows that meet its WHERE: it has a LIMIT, an OFFSET or a DISTINCT ON."""
    private = cast("Any", statement)
    # DISTINCT ON is an argument of distinct(), and an extension since SQLAlchemy 2.1.
    extension = getattr(private, "_pre_columns_clause", None)
    return bool(private._has_row_limiting_clause or private._distinct_on) or extension is not None


def plain_criteria(statement: Select[Any], mapper: Mapper[Any]) -> Sequence[ColumnElement[bool]] | None:
    """Return the conditions in the WHERE of *statement*, or None if it is more than a select of the model with a WHERE."""
    private = cast("Any", statement)
    shape = (
        *(private._setup_joins, private._from_obj, private._group_by_clauses, private._having_criteria, private._independent_ctes),
        *(private._distinct, private._distinct_on, private._prefixes, private._has_row_limiting_clause),
        private._for_update_arg is not None,
    )
    criteria: Sequence[ColumnElement[bool]] = private._where_criteria
    own = {mapper.local_table, *mapper.tables}
    foreign = (table for each in criteria for table in froms_of(each) if table not in own)
    if any(shape) or len(private._raw_columns) != 1 or any(True for _ in foreign):
        return None
    return criteria


def demands_unique(result: Result[Any]) -> bool:
    """Return whether ``unique()`` must be called on *result*, because a joined collection repeats rows."""
    return getattr(result, "_unique_filter_state", None) is not None


# --- Pydantic ---


def validator_of(schema: Any, *, part_of: type[Any] | None = None) -> SchemaValidator:
    """Return a validator of *schema* itself: by default classes bring their own validators, also in place of a changed node.

    pydantic 2.12 cannot be asked for that. There, only the class *part_of* does not bring its own.
    """
    try:
        return cast("SchemaValidator", cast("Any", SchemaValidator)(schema, _use_prebuilt=False))
    except TypeError:
        if part_of is None:
            return SchemaValidator(schema)
    part_of.__pydantic_complete__ = False
    try:
        return SchemaValidator(schema)
    finally:
        part_of.__pydantic_complete__ = True


# --- Dependencies of FastAPI ---


def code_of_dependency() -> CodeType | None:
    """Return the code of the dependency of FastAPI that enters the context manager which calls this. None if anything else enters it.

    A dependency stays open while the route runs, so the route is not inside its ``async with`` block.
    """
    here, code = currentframe(), None
    frame = here and here.f_back
    while frame is not None and (frame.f_code.co_flags & CO_ASYNC_GENERATOR or module_of(frame) == "contextlib"):
        # Newer versions of FastAPI have a generator of their own around each dependency.
        code = code if module_of(frame) in {"contextlib", "fastapi.concurrency"} else frame.f_code
        frame = frame.f_back
    return code if frame is not None and module_of(frame) == "fastapi.dependencies.utils" else None


def module_of(frame: FrameType) -> object:
    return frame.f_globals.get("__name__")


def is_running(code: CodeType) -> bool:
    """Return whether *code* is running now, and called this."""
    frame = currentframe()
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None
