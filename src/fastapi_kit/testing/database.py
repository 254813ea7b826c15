"""Roll back everything that a test has written."""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction

from fastapi_kit.db.database import Database
from fastapi_kit.db.engines.sqlite import begin_immediate
from fastapi_kit.db.sessions import ISOLATED
from fastapi_kit.errors import ConfigurationError

__all__ = ["isolated"]


@asynccontextmanager
async def isolated(database: Database | async_sessionmaker[AsyncSession]) -> AsyncGenerator[None]:
    """Bind every session of *database* to one connection, make commits savepoints, and roll everything back at the end, on SQLite too.

    ``db.session``, ``db.begin()``, tasks and streams see the same data. The lifespan of an app that creates its tables works inside. Use
    one session at a time: requests one after the other, and no request inside a transaction of the test. A session of a ``Database`` that
    has only read is in none.

    Args:
        database: A ``Database``, or your own sessionmaker that is bound to an ``AsyncEngine``.

    Raises:
        ConfigurationError: The sessions are not bound to an ``AsyncEngine``, or are isolated already. Also if a second session uses the
            database while the first is in a transaction.
    """
    sessions = database.sessions if isinstance(database, Database) else database
    before = dict(sessions.kw)
    engine = sessions.kw.get("bind")
    if not isinstance(engine, AsyncEngine):
        raise ConfigurationError("isolated() needs sessions that are bound to an AsyncEngine, and not isolated already")
    async with engine.connect() as connection:
        transaction = await connection.begin()
        await connection.run_sync(begin_on_sqlite)
        info = {**before.get("info", {}), ISOLATED: True}
        sessions.configure(bind=connection, join_transaction_mode="create_savepoint", info=info)
        try:
            with one_at_a_time(connection.sync_connection):
                yield
        finally:
            sessions.kw.clear()
            sessions.configure(**before)
            await transaction.rollback()


def begin_on_sqlite(connection: Connection) -> None:
    """Send BEGIN. SQLite's own driver sends none for a savepoint, whose RELEASE would then commit."""
    if connection.dialect.name == "sqlite":
        begin_immediate(connection)


@contextmanager
def one_at_a_time(connection: Connection | None) -> Generator[None]:
    """Raise ConfigurationError if two sessions on *connection* are in a transaction."""
    active: list[Session] = []

    def enter(session: Session, transaction: SessionTransaction) -> None:
        if session.bind is not connection or transaction.parent is not None:
            return
        # A session whose calls of on_commit run has ended its transaction, and has not left yet.
        if active and active[0] is not session and active[0].in_transaction():
            raise ConfigurationError("isolated(): two sessions are in a transaction at once; leave the first before the second")
        active[:] = [session]

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
