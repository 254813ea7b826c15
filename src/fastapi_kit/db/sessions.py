"""Using a session: by one task at a time, with one debug line per commit, and closed even if the task is cancelled."""

import asyncio
import logging
from collections.abc import Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager
from inspect import currentframe
from typing import Any, TypeVar

from anyio import CancelScope
from anyio.lowlevel import checkpoint_if_cancelled
from sqlalchemy import Engine, Executable, Result, Row
from sqlalchemy.ext.asyncio import AsyncSession, async_session
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.util import await_only

from fastapi_kit._compat import BY_PLACE, has_begin_listener, is_clean, options_of_session, own_isolation_level
from fastapi_kit.db.hooks import OWN, OWN_LISTENERS
from fastapi_kit.errors import ConfigurationError

__all__ = [
    "AUTOCOMMIT",
    "ISOLATED",
    "NO_AUTOCOMMIT",
    "STREAMS",
    "Place",
    "close",
    "commit",
    "count_self_commit",
    "execute",
    "executes_plainly",
    "finish",
    "has_own_rows",
    "is_idle",
    "is_overridden",
    "log_application_commits",
    "may_autocommit",
    "one_task",
    "report_second_commit",
    "rows_of",
    "streaming",
]

ResultT = TypeVar("ResultT")

NO_AUTOCOMMIT = "fastapi_kit.no_autocommit"
"""Key in ``session.info``: whether the ``Database`` has the option ``autocommit_reads=False``."""
ISOLATED = "fastapi_kit.isolated"
"""Key in ``session.info``: a test has bound the session to one connection, and its transactions are savepoints there."""
STREAMS = "fastapi_kit.streams"
"""Key in ``session.info`` of the number of open cursors."""
_TASK = "fastapi_kit.task"
_COMMITTER = "fastapi_kit.committer"
_SELF_COMMITS = "fastapi_kit.self_commits"
_log = logging.getLogger("fastapi_kit.db")

Place = tuple[str, int]
"""A file and a line in it."""


@contextmanager
def one_task(session: AsyncSession) -> Generator[None]:
    """Raise ConfigurationError, before any SQL, if a second task uses *session* while the block runs."""
    task = asyncio.current_task()
    owner: asyncio.Task[Any] | None = session.info.get(_TASK)
    if owner is not None and owner is not task and not owner.done():
        raise ConfigurationError(
            "two tasks use one session at the same time: give each its own (async with db.begin()), or await one after the other"
        )
    session.info[_TASK] = task
    try:
        yield
    finally:
        if owner is None:
            session.info.pop(_TASK, None)


AUTOCOMMIT = {"isolation_level": "AUTOCOMMIT"}


def is_idle(session: Session) -> bool:
    """Return whether *session* belongs to a ``Database``, uses its engine or the connection of a test, and has begun no transaction."""
    is_bound = isinstance(session.bind, Engine) or ISOLATED in session.info
    return OWN in session.info and not session.in_transaction() and is_bound


def may_autocommit(session: Session) -> bool:
    """Return whether an idle *session* may run a statement without a transaction.

    It may not where the application listens to the begin of transactions or has chosen an isolation level.
    """
    engine = session.get_bind()
    return (
        isinstance(engine, Engine)
        and engine.dialect.name == "postgresql"
        and all(each in OWN_LISTENERS for each in session.dispatch.after_begin)
        and "isolation_level" not in options_of_session(session)
        and not has_begin_listener(engine)
        and own_isolation_level(engine) is None
        # Unknown before the first connection.
        and getattr(engine.dialect, "default_isolation_level", None) == "READ COMMITTED"
        and not session.info.get(NO_AUTOCOMMIT)
    )


def execute(
    session: Session, statement: Executable, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None, **options: Any
) -> Result[Any]:
    """Run *statement* with execution *options* through ``execute`` of the session, also where the application overrides it."""
    asynchronous = async_session(session)
    if asynchronous is not None and is_overridden(type(asynchronous), AsyncSession):
        rows: Result[Any] = await_only(asynchronous.execute(statement, parameters, execution_options=options))
        return rows
    if is_overridden(type(session), Session):
        return session.execute(statement, parameters, execution_options=options)
    return Session.execute(session, statement, parameters, execution_options=options)


def rows_of(
    session: Session, statement: Executable, parameters: Mapping[str, Any] | None = None, *, mapper: Mapper[Any]
) -> Sequence[Row[Any]]:
    """Run *statement*, which selects columns of *mapper*, and return its rows.

    They come from the connection of the session, without the ORM's own row for each, where the session has nothing to add: nothing to
    flush, no listener and no ``execute`` of the application's. The ORM compiles the statement there too.
    """
    if not executes_plainly(session) or session.dispatch.do_orm_execute or not is_clean(session):
        return execute(session, statement, parameters).all()
    connection = session.connection(bind_arguments={"mapper": mapper, "clause": statement})
    return connection.execute(statement, parameters, execution_options=BY_PLACE).all()


def executes_plainly(session: Session) -> bool:
    """Return whether ``execute`` of *session* is SQLAlchemy's own."""
    asynchronous = async_session(session)
    return not is_overridden(type(session), Session) and (asynchronous is None or not is_overridden(type(asynchronous), AsyncSession))


def has_own_rows(session: Session, engine: Engine) -> bool:
    """Return whether something of the application's, such as a listener that confines a tenant, may decide which rows *session* finds."""
    return (
        not executes_plainly(session)
        or bool(session.dispatch.do_orm_execute)
        or not all(each in OWN_LISTENERS for each in session.dispatch.after_begin)
        or has_begin_listener(engine)
    )


def is_overridden(sessions: type[Session | AsyncSession], base: type[Session | AsyncSession]) -> bool:
    """Return whether the class *sessions* overrides ``execute`` of *base*."""
    # execute() of SQLModel's sessions warns and then calls SQLAlchemy's.
    return sessions.execute is not base.execute and not hasattr(sessions.execute, "__deprecated__")


def commit(session: Session, *, committer: str) -> None:
    """Commit *session* and log *committer*. Its rows stay readable, whatever its ``expire_on_commit`` is."""
    expire, session.expire_on_commit = session.expire_on_commit, False
    session.info[_COMMITTER] = committer
    try:
        session.commit()
    finally:
        session.expire_on_commit = expire
        session.info.pop(_COMMITTER, None)
    _log.debug("commit by %s", committer)


def log_application_commits(session: Session) -> None:
    """Log a commit of the application. A listener of SQLAlchemy's ``after_commit``, which fires for savepoints too."""
    if _COMMITTER not in session.info and not session.in_nested_transaction():
        _log.debug("commit by the application")


async def close(session: AsyncSession) -> None:
    """Roll back and close *session*, also while the task is being cancelled.

    The rollback is explicit. After a failed COMMIT, closing alone would leave SQLite's connection inside the transaction.
    """
    if session.sync_session.in_transaction():
        await finish(roll_back_and_close(session))
    else:
        session.sync_session.close()


async def roll_back_and_close(session: AsyncSession) -> None:
    try:
        await session.rollback()
    except Exception:
        _log.debug("the rollback at the end of a session failed; its connection is dropped", exc_info=True)
        await session.invalidate()
    else:
        await session.close()


@contextmanager
def streaming(session: AsyncSession) -> Generator[None]:
    """Count an open cursor of *session* while the block runs. A COMMIT would close the cursor."""
    session.info[STREAMS] = session.info.get(STREAMS, 0) + 1
    try:
        yield
    finally:
        session.info[STREAMS] -= 1


async def finish(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Await *work* to its end, also while this task is being cancelled. Raise the cancellation afterwards.

    The wait is shielded from anyio, whose cancelled scopes cancel again in every turn of the event loop. asyncio's own cancellation is
    caught and raised at the end.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    with CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as error:
                cancelled = error
            except Exception:
                # task.result() below raises it.
                break
    try:
        if cancelled is not None:
            raise cancelled
        await checkpoint_if_cancelled()
    except asyncio.CancelledError:
        if not task.cancelled():
            task.exception()
        raise
    finally:
        # The traceback refers to this frame: without this line the frame would refer back to it.
        del cancelled
    return task.result()


def report_second_commit(session: AsyncSession, *, reported: set[Place]) -> None:
    """Let *session* log a warning for a second write that commits itself. *reported* holds the lines that were reported before."""
    session.info[_SELF_COMMITS] = ([], reported)


def count_self_commit(session: AsyncSession, committer: str) -> None:
    """Note that *committer*, a write of a service, has committed itself."""
    commits, reported = session.info.get(_SELF_COMMITS, (None, None))
    if commits is None:
        return
    commits.append(committer)
    if len(commits) == 2 and (place := application_line()) not in reported:
        reported.add(place)
        _log.warning(
            "%s:%d: %s and %s each committed in one request: if the second fails, the first stays. "
            "For one transaction use Annotated[AsyncSession, db.transaction] or unit_of_work(session).",
            *place,
            *commits,
        )


def application_line() -> Place:
    frame = currentframe()
    while frame is not None and (frame.f_globals.get("__name__") or "").split(".")[0] in {"fastapi_kit", "contextlib"}:
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("?", 0)
