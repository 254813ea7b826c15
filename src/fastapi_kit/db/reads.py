"""Reading without leaving a transaction open."""

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

ResultT = TypeVar("ResultT")


async def read(session: AsyncSession, work: Callable[[Session], ResultT], *, mapper: Mapper[Any]) -> ResultT:
    """Return the result of *work*, which reads through *session* and buffers its rows.

    Afterwards an idle session of a ``Database`` has no open transaction and holds no connection. On PostgreSQL only the statements
    themselves are sent. Statements of one *work* share a snapshot if the isolation level gives one. A session of the application is used
    as ``session.execute`` would use it.

    Raises:
        KitError: The library's error for an error of the database.
    """
    with one_task(session), typed(mapper):
        if is_idle(session.sync_session):
            return await session.run_sync(read_and_end, work)
        return await session.run_sync(work)


def read_and_end(session: Session, work: Callable[[Session], ResultT]) -> ResultT:
    try:
        if may_autocommit(session):
            session.connection(execution_options=AUTOCOMMIT)
        return work(session)
    finally:
        close_reading(session)


async def stream(session: AsyncSession, statement: Select[Any], *, mapper: Mapper[Any]) -> AsyncGenerator[Any]:
    """Yield the rows of *statement* from an open cursor.

    At the end an idle session of a ``Database`` is idle again, unless something was written through it meanwhile. Where the application
    overrides ``AsyncSession.execute``, which cannot give a cursor, all rows are read at once.

    Raises:
        KitError: The library's error for an error of the database.
        ConfigurationError: The statement joins a collection.
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
