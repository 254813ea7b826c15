"""What the library does with a session beside SQL: commit it, close it, keep two tasks from sharing it."""

import asyncio
import logging
from collections.abc import Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager
from inspect import currentframe
from typing import Any, TypeVar

from anyio import CancelScope
from anyio.lowlevel import checkpoint_if_cancelled
from sqlalchemy import Executable, Result
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from fastapi_kit.errors import ConfigurationError

__all__ = [
    "close",
    "commit",
    "execute",
    "execute_buffered",
    "execute_plainly",
    "finish",
    "log_host_commits",
    "one_task",
    "refuse_commit_in_stream",
    "report_second_commit",
    "streaming",
]

ResultT = TypeVar("ResultT")

_TASK = "fastapi_kit.task"
_COMMITTER = "fastapi_kit.committer"
_SELF_COMMITS = "fastapi_kit.self_commits"
_STREAMS = "fastapi_kit.streams"
_log = logging.getLogger("fastapi_kit.db")

Place = tuple[str, int]
"""A file and a line in it."""


@contextmanager
def one_task(session: AsyncSession) -> Generator[None]:
    """Refuse a second task that uses *session* while the block runs: ConfigurationError, before any SQL."""
    task = asyncio.current_task()
    owner: asyncio.Task[Any] | None = session.info.get(_TASK)
    if owner is not None and owner is not task and not owner.done():
        raise ConfigurationError("two tasks use one session at once: give each its own (async with db.begin()), or await them in turn")
    session.info[_TASK] = task
    try:
        yield
    finally:
        if owner is None:
            session.info.pop(_TASK, None)


async def execute(
    session: AsyncSession, statement: Executable, parameters: Sequence[Mapping[str, Any]] | None = None, **options: Any
) -> Result[Any]:
    """Run *statement* as ``session.execute`` does, with execution *options*, and return its buffered rows."""
    rows: Result[Any] = await session.run_sync(execute_buffered, statement, parameters, **options)
    return rows


def execute_buffered(
    session: Session, /, statement: Executable, parameters: Sequence[Mapping[str, Any]] | None = None, **options: Any
) -> Result[Any]:
    """Run *statement* likewise, inside the session's greenlet."""
    return execute_plainly(session, statement, parameters, prebuffer_rows=True, **options)


def execute_plainly(
    session: Session, /, statement: Executable, parameters: Sequence[Mapping[str, Any]] | None = None, **options: Any
) -> Result[Any]:
    """Run *statement* without buffering its rows."""
    # SQLModel's sessions warn whoever calls their own execute(); SQLAlchemy's is meant.
    return Session.execute(session, statement, parameters, execution_options=options)


@contextmanager
def streaming(session: AsyncSession) -> Generator[None]:
    """Mark *session* as having an open cursor, which a COMMIT would close."""
    session.info[_STREAMS] = session.info.get(_STREAMS, 0) + 1
    try:
        yield
    finally:
        session.info[_STREAMS] -= 1


def refuse_commit_in_stream(session: AsyncSession) -> None:
    """Raise ConfigurationError if rows of *session* are being streamed."""
    if session.info.get(_STREAMS):
        raise ConfigurationError("a write that commits would end the stream that is being read: put both into one unit_of_work(session)")


async def commit(session: AsyncSession, *, committer: str, self_commit: bool) -> None:
    """Commit *session* and leave its rows readable, whatever its ``expire_on_commit``; one debug line says who committed."""
    sync = session.sync_session
    expire, sync.expire_on_commit = sync.expire_on_commit, False
    session.info[_COMMITTER] = committer
    try:
        await session.commit()
    finally:
        sync.expire_on_commit = expire
        session.info.pop(_COMMITTER, None)
    _log.debug("commit by %s", committer)
    if self_commit:
        _count_self_commit(session, committer)


def log_host_commits(session: Any) -> None:
    """Log a commit that the library did not make. For SQLAlchemy's ``after_commit``, which fires for savepoints too."""
    if _COMMITTER not in session.info and not session.in_nested_transaction():
        _log.debug("commit by the host")


def report_second_commit(session: AsyncSession, *, reported: set[Place]) -> None:
    """From now on report a second write of *session* that commits itself, once per place in the host's code: *reported* remembers them."""
    session.info[_SELF_COMMITS] = ([], reported)


async def close(session: AsyncSession) -> None:
    """Roll back what is open and give the connection back, to the end even if the task is cancelled.

    The rollback is explicit: after a failed COMMIT, closing alone would leave SQLite's connection inside the transaction.
    """
    if session.sync_session.in_transaction():
        await finish(_roll_back_and_close(session))
    else:
        session.sync_session.close()


async def finish(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Await *work* to its end, also while this task is being cancelled; then let the cancellation go on.

    A cancelled scope of anyio cancels again in every turn of the event loop, which would keep a core busy: it is shielded. asyncio's own
    cancellation comes through, and is raised at the end.
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
                break
    try:
        if cancelled is not None:
            raise cancelled
        await checkpoint_if_cancelled()
    except asyncio.CancelledError:
        if not task.cancelled():
            task.exception()
        raise
    return task.result()


async def _roll_back_and_close(session: AsyncSession) -> None:
    try:
        await session.rollback()
    except Exception:
        _log.debug("rollback at the end of a session failed; its connection is dropped", exc_info=True)
        await session.invalidate()
    else:
        await session.close()


def _count_self_commit(session: AsyncSession, committer: str) -> None:
    commits: list[str]
    commits, reported = session.info.get(_SELF_COMMITS, ([], set[Place]()))
    commits.append(committer)
    if len(commits) == 2 and (place := _host_place()) not in reported:
        reported.add(place)
        _log.warning(
            "%s:%d: %s and %s each committed in one request; if the second fails the first stays. "
            "For one transaction use Annotated[AsyncSession, db.transaction] or unit_of_work(session).",
            *place,
            *commits,
        )


def _host_place() -> Place:
    frame = currentframe()
    while frame is not None and (frame.f_globals.get("__name__") or "").split(".")[0] in {"fastapi_kit", "contextlib"}:
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("?", 0)
