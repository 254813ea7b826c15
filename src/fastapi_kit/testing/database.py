"""Tests that leave nothing behind."""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction

from fastapi_kit.db import Database
from fastapi_kit.db.engines.sqlite import begin_immediate
from fastapi_kit.errors import ConfigurationError

__all__ = ["isolated"]


@asynccontextmanager
async def isolated(database: Database | async_sessionmaker[AsyncSession]) -> AsyncGenerator[None]:
    """Bind every session of *database* to one connection, commits being savepoints, and roll it all back at the end. SQLite too.

    ``db.session``, ``db.begin()``, tasks and streams see the same data, and the lifespan of an app that makes its tables works inside.
    One session at a time: a second one that uses the database while the first is in a transaction raises ConfigurationError. So requests
    go one after the other, and a session that the test itself has read with is closed before a request.
    """
    sessions = database.sessions if isinstance(database, Database) else database
    before = dict(sessions.kw)
    async with _engine_of(sessions).connect() as connection:
        transaction = await connection.begin()
        await connection.run_sync(_begin_for_real)
        sessions.configure(bind=connection, join_transaction_mode="create_savepoint")
        try:
            with _one_at_a_time(connection.sync_connection):
                yield
        finally:
            sessions.kw.clear()
            sessions.configure(**before)
            await transaction.rollback()


def _engine_of(sessions: async_sessionmaker[AsyncSession]) -> AsyncEngine:
    bind = sessions.kw.get("bind")
    if not isinstance(bind, AsyncEngine):
        raise ConfigurationError("isolated() needs sessions that are bound to an AsyncEngine, and not isolated already")
    return bind


def _begin_for_real(connection: Connection) -> None:
    # The stock SQLite driver sends no BEGIN for a savepoint, whose RELEASE would then commit.
    if connection.dialect.name == "sqlite":
        begin_immediate(connection)


@contextmanager
def _one_at_a_time(connection: Connection | None) -> Generator[None]:
    active: list[Session] = []

    def enter(session: Session, transaction: SessionTransaction) -> None:
        if session.bind is not connection or transaction.parent is not None:
            return
        if active and active[0] is not session:
            raise ConfigurationError("isolated(): two sessions are in a transaction at once; leave the first before the second")
        active.append(session)

    def leave(session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None and session in active:
            active.remove(session)

    event.listen(Session, "after_transaction_create", enter)
    event.listen(Session, "after_transaction_end", leave)
    try:
        yield
    finally:
        event.remove(Session, "after_transaction_create", enter)
        event.remove(Session, "after_transaction_end", leave)
