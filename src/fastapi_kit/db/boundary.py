"""The one mechanism behind every write and unit: where it begins, how it is undone, and who commits it."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Mapper, Session, SessionTransaction, SessionTransactionOrigin

from fastapi_kit.db.errors import as_kit_error
from fastapi_kit.db.hooks import drop_hooks
from fastapi_kit.db.session import commit, refuse_commit_in_stream
from fastapi_kit.db.snapshot import MAX_OBJECTS, Snapshot
from fastapi_kit.db.sqlite import begin_immediate
from fastapi_kit.errors import ConfigurationError, KitError

__all__ = ["Boundary", "is_opened", "typed"]


def is_opened(session: AsyncSession) -> bool:
    """Return whether somebody opened a transaction on purpose, and so commits; if not, a service's write commits itself.

    On purpose are ``session.begin()``, ``sessionmaker.begin()``, an open savepoint, ``unit_of_work`` and ``db.transaction``: the last two
    begin the transaction, or, where one has begun by itself, a savepoint.
    """
    transaction = session.sync_session.get_transaction()
    if transaction is None:
        return False
    return transaction.origin is not SessionTransactionOrigin.AUTOBEGIN or session.sync_session.in_nested_transaction()


class Boundary:
    """A part of a session's work that is kept or undone as one.

    Where no transaction has begun it is a transaction, and else a savepoint: what the host did before is not its to undo. It commits at the
    end unless somebody else opened the transaction. (A test fixture's session, bound to a connection, gets the savepoint as well, because
    its rollback would end the fixture's transaction.)
    """

    def __init__(
        self, session: AsyncSession, *, committer: str, mapper: Mapper[Any] | None = None, commits: bool = True, self_commit: bool = False
    ) -> None:
        self.session = session
        self.committer = committer
        self.mapper = mapper
        self.self_commit = self_commit
        self.commits = commits and not is_opened(session)
        self.loaded = Snapshot.of_loaded(session.sync_session)
        self.changing = Snapshot()
        self._transaction: SessionTransaction | None = None
        self._connection: Connection | None = None

    async def enter(self) -> None:
        """Begin. Pending changes of the host are flushed first; an error there is the host's and comes as SQLAlchemy raises it."""
        if self.commits:
            refuse_commit_in_stream(self.session)
        if _needs_savepoint(self.session) or not self.commits:
            await self.session.flush()
            with typed(self.mapper):
                self._connection = await self.session.run_sync(_connect, self.mapper)
                self._transaction = (await self.session.begin_nested()).sync_transaction
        else:
            self._transaction = (await self.session.begin()).sync_transaction

    async def leave(self) -> None:
        """Keep what was done: release the savepoint, and commit if nobody else will. An error of the COMMIT is typed."""
        transaction = self._open_transaction()
        with typed(self.mapper):
            if transaction.nested:
                await self.session.run_sync(lambda _: transaction.commit())
            if self.commits:
                await commit(self.session, committer=self.committer, self_commit=self.self_commit)

    async def undo(self) -> None:
        """Undo what was done, and make what was loaded before readable again."""
        savepoint = self._transaction
        if savepoint is not None and savepoint.nested and _is_open(self.session.sync_session, savepoint):
            await self._roll_back_to(savepoint)
            self.changing.restore()
        else:
            await self.session.rollback()
            if savepoint is not None and not savepoint.nested:
                self.changing.restore()
        self.loaded.restore()
        if self.commits:
            drop_hooks(self.session)

    async def _roll_back_to(self, savepoint: SessionTransaction) -> None:
        try:
            await self.session.run_sync(lambda _: savepoint.rollback())
        except Exception:
            # The connection is gone, or SQLite's disk is full: the whole transaction is gone with it.
            if self._connection is None:
                await self.session.rollback()
            else:
                await self.session.run_sync(_give_up, savepoint, self._connection)

    def _open_transaction(self) -> SessionTransaction:
        if self._transaction is None or not _is_open(self.session.sync_session, self._transaction):
            raise ConfigurationError(
                f"{self.committer}: the transaction was committed or rolled back inside the block; leave that to the block"
                " (to undo a unit of work, await its rollback())"
            )
        return self._transaction


@contextmanager
def typed(mapper: Mapper[Any] | None) -> Generator[None]:
    """Raise database errors as the library's, fields named as attributes of *mapper*."""
    try:
        yield
    except KitError:
        raise
    except Exception as error:
        mapped = as_kit_error(error, mapper=mapper)
        if mapped is None:
            raise
        raise mapped from error


def _needs_savepoint(session: AsyncSession) -> bool:
    sync = session.sync_session
    return sync.in_transaction() or isinstance(session.bind, AsyncConnection) or len(sync.identity_map) > MAX_OBJECTS


def _connect(session: Session, mapper: Mapper[Any] | None) -> Connection | None:
    if mapper is None and session.bind is None:
        return None
    # A savepoint that comes first would count as a transaction begun on purpose, and stay one after it is undone.
    connection = session.connection(bind_arguments={} if mapper is None else {"mapper": mapper})
    if connection.dialect.name == "sqlite":
        # The stock driver lets a SAVEPOINT that comes first begin, and its RELEASE commit, the transaction.
        begin_immediate(connection)
    return connection


def _give_up(_session: Session, savepoint: SessionTransaction, connection: Connection) -> None:
    # What came later would be stored alone. An invalid connection refuses it until whoever began the transaction rolls it back.
    if not connection.invalidated:
        connection.invalidate()
    savepoint.close()


def _is_open(session: Session, transaction: SessionTransaction) -> bool:
    current = session.get_nested_transaction() or session.get_transaction()
    while current is not None and current is not transaction:
        current = current.parent
    return current is not None
