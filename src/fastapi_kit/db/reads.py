"""How the library reads: without leaving a transaction open behind it."""

from collections.abc import AsyncGenerator
from typing import Any, TypeVar

from sqlalchemy import Result, Select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Mapper, Session

from fastapi_kit.db.boundary import typed
from fastapi_kit.db.session import one_task

__all__ = ["OWN", "is_idle", "read", "stream"]

RowT = TypeVar("RowT")

OWN = "fastapi_kit.own"
"""Key in ``session.info`` that marks the sessions of a ``Database``."""

_BUFFERED = {"prebuffer_rows": True}
_AUTOCOMMIT = {"isolation_level": "AUTOCOMMIT"}


def is_idle(session: AsyncSession) -> bool:
    """Return whether *session* is one of a ``Database``, bound to its engine, with no transaction begun and so nothing pending."""
    return OWN in session.info and not session.sync_session.in_transaction() and isinstance(session.bind, AsyncEngine)


async def read(session: AsyncSession, statement: Select[Any], *, mapper: Mapper[Any], keep_transaction: bool = False) -> Result[Any]:
    """Run the read *statement* through *session* and return its buffered rows. Database errors are typed.

    On an idle session of a ``Database`` no transaction stays open and no connection is held afterwards, unless *keep_transaction* (a row
    lock lives as long as its transaction); on PostgreSQL it is one round trip. A host's session is used as ``session.execute`` would.
    """
    with one_task(session), typed(mapper):
        stays_idle = is_idle(session) and not keep_transaction
        rows: Result[Any] = await (session.run_sync(_read_and_end, statement) if stays_idle else session.execute(statement))
        return rows


async def stream(session: AsyncSession, statement: Select[RowT], *, mapper: Mapper[Any]) -> AsyncGenerator[RowT]:
    """Yield the rows of *statement* from an open cursor; at the end an idle session of a ``Database`` is idle again."""
    idle = is_idle(session)
    try:
        with typed(mapper):
            rows = await session.stream_scalars(statement)
            try:
                async for row in rows:
                    yield row
            finally:
                await rows.close()
    finally:
        if idle:
            await session.run_sync(_end)


def _read_and_end(session: Session, statement: Select[Any]) -> Result[Any]:
    if session.get_bind().dialect.name == "postgresql":
        session.connection(execution_options=_AUTOCOMMIT)
    try:
        return session.execute(statement, execution_options=_BUFFERED)
    finally:
        _end(session)


def _end(session: Session) -> None:
    # Neither commit nor rollback: the one would run on_commit hooks, the other expire what was loaded.
    transaction = session.get_transaction()
    if transaction is not None:
        transaction.close()
