"""How the library reads: without leaving a transaction open behind it."""

from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Result, Select, event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncResult, AsyncSession
from sqlalchemy.orm import Mapper, ORMExecuteState, Session

from fastapi_kit.db.boundary import typed
from fastapi_kit.db.session import execute, execute_buffered, execute_plainly, finish, one_task, streaming
from fastapi_kit.db.transaction import typed_errors
from fastapi_kit.errors import ConfigurationError

__all__ = ["OWN", "is_idle", "read", "read_locked", "stream"]

RowT = TypeVar("RowT")

OWN = "fastapi_kit.own"
"""Key in ``session.info`` that marks the sessions of a ``Database``."""

_AUTOCOMMIT = {"isolation_level": "AUTOCOMMIT"}


def is_idle(session: AsyncSession) -> bool:
    """Return whether *session* is one of a ``Database``, bound to its engine, with no transaction begun and so nothing pending."""
    return OWN in session.info and not session.sync_session.in_transaction() and isinstance(session.bind, AsyncEngine)


async def read(session: AsyncSession, statement: Select[Any], *, mapper: Mapper[Any]) -> Result[Any]:
    """Run the read *statement* through *session* and return its buffered rows. Database errors are typed.

    On an idle session of a ``Database`` no transaction stays open and no connection is held afterwards; on PostgreSQL it is one round trip.
    A host's session is used as ``session.execute`` would.
    """
    with one_task(session), typed(mapper):
        rows: Result[Any] = await session.run_sync(_read_and_end if is_idle(session) else execute_buffered, statement)
        return rows


async def read_locked(session: AsyncSession, statement: Select[Any], *, mapper: Mapper[Any]) -> Result[Any]:
    """Run the locking read *statement*. The transaction, and with it the lock, stays; a refused lock undoes nothing that was before."""
    rows: Result[Any]
    with one_task(session), typed(mapper):
        if not is_idle(session):
            async with typed_errors(session):
                rows = await execute(session, statement)
            return rows
        try:
            rows = await execute(session, statement)
        except BaseException:
            await finish(session.run_sync(_end))
            raise
        return rows


async def stream(session: AsyncSession, statement: Select[RowT], *, mapper: Mapper[Any]) -> AsyncGenerator[RowT]:
    """Yield the rows of *statement* from an open cursor.

    At the end an idle session of a ``Database`` is idle again, unless something was written through it meanwhile.
    """
    idle = is_idle(session)
    with one_task(session), typed(mapper), streaming(session), _noting_writes(session.sync_session) as written:
        try:
            rows = AsyncResult(await session.run_sync(_open_cursor, statement)).scalars()
            try:
                async for row in rows:
                    yield row
            finally:
                await rows.close()
        except InvalidRequestError as error:
            raise ConfigurationError(f"this cannot be streamed; use selectinload() for collections: {error}") from error
        finally:
            if idle and not written:
                await finish(session.run_sync(_end))


def _open_cursor(session: Session, statement: Select[Any]) -> Result[Any]:
    return execute_plainly(session, statement, stream_results=True)


@contextmanager
def _noting_writes(session: Session) -> Generator[list[str]]:
    written: list[str] = []

    def note_flush(_session: Session, _context: object) -> None:
        written.append("flush")

    def note_statement(state: ORMExecuteState) -> None:
        if not state.is_select:
            written.append("statement")

    event.listen(session, "after_flush", note_flush)
    event.listen(session, "do_orm_execute", note_statement)
    try:
        yield written
    finally:
        event.remove(session, "after_flush", note_flush)
        event.remove(session, "do_orm_execute", note_statement)


def _read_and_end(session: Session, statement: Select[Any]) -> Result[Any]:
    if session.get_bind().dialect.name == "postgresql":
        session.connection(execution_options=_AUTOCOMMIT)
    try:
        return execute_buffered(session, statement)
    finally:
        _end(session)


def _end(session: Session) -> None:
    # Neither commit nor rollback: the one would run on_commit hooks, the other expire what was loaded.
    transaction = session.get_transaction()
    if transaction is not None:
        transaction.close()
