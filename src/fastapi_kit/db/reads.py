"""How the library reads: without leaving a transaction open behind it."""

from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

from sqlalchemy import Select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncResult, AsyncSession
from sqlalchemy.orm import Mapper, Session

from fastapi_kit.db.errors.translate import typed
from fastapi_kit.db.hooks import close_reading, has_uncommitted_writes
from fastapi_kit.db.sessions import AUTOCOMMIT, execute, finish, is_idle, is_overridden, may_autocommit, one_task, streaming
from fastapi_kit.errors import ConfigurationError

__all__ = ["read", "stream"]

RowT = TypeVar("RowT")
ResultT = TypeVar("ResultT")


async def read(session: AsyncSession, work: Callable[[Session], ResultT], *, mapper: Mapper[Any]) -> ResultT:
    """Let *work* read through *session*; it buffers its rows. Database errors are typed.

    On an idle session of a ``Database`` no transaction stays open and no connection is held afterwards; on PostgreSQL nothing is sent but
    the statements themselves. Several statements of *work* share a snapshot where the isolation level promises one. The application's own
    session is used as ``session.execute`` would.
    """
    with one_task(session), typed(mapper):
        return await session.run_sync(read_and_end if is_idle(session.sync_session) else read_only, work)


def read_only(session: Session, work: Callable[[Session], ResultT]) -> ResultT:
    return work(session)


def read_and_end(session: Session, work: Callable[[Session], ResultT]) -> ResultT:
    try:
        if may_autocommit(session):
            session.connection(execution_options=AUTOCOMMIT)
        return work(session)
    finally:
        close_reading(session)


async def stream(session: AsyncSession, statement: Select[RowT], *, mapper: Mapper[Any]) -> AsyncGenerator[RowT]:
    """Yield the rows of *statement* from an open cursor.

    At the end an idle session of a ``Database`` is idle again, unless something was written through it meanwhile. Where the application's
    class overrides ``AsyncSession.execute``, which has no cursor, it is asked for all rows at once.
    """
    idle = is_idle(session.sync_session)
    with one_task(session), typed(mapper), streaming(session):
        try:
            has_cursor = not is_overridden(type(session), AsyncSession)
            asked = statement if has_cursor else statement.execution_options(yield_per=None)
            result = await session.run_sync(lambda sync: execute(sync, asked, stream_results=has_cursor))
            rows = AsyncResult(result).scalars()
            try:
                async for row in rows:
                    yield row
            finally:
                await rows.close()
        except InvalidRequestError as error:
            raise ConfigurationError(f"this cannot be streamed; use selectinload() for collections: {error}") from error
        finally:
            if idle and not has_uncommitted_writes(session.sync_session):
                await finish(session.run_sync(close_reading))
