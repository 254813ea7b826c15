"""The block that every write runs in: it commits, or undoes itself and nothing else, and what was loaded before stays readable.

Every write of a service, ``unit_of_work``, ``db.begin()``, ``db.transaction`` and ``typed_errors`` is an ``AtomicBlock``.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from traceback import clear_frames
from typing import Any, TypeVar

from sqlalchemy import Connection, event, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper, Session, SessionTransaction, SessionTransactionOrigin
from sqlalchemy.util import await_only, greenlet_spawn

from fastapi_kit._compat import binds_of, discard_clean, has_sent_sql, is_clean, put_back
from fastapi_kit.db.engines.sqlite import begin_immediate
from fastapi_kit.db.errors.translate import typed
from fastapi_kit.db.errors.written import watch
from fastapi_kit.db.hooks import OWN, close_reading, restore_calls, save_calls
from fastapi_kit.db.sessions import AUTOCOMMIT, STREAMS, commit, count_self_commit, finish, is_idle, may_autocommit, one_task
from fastapi_kit.errors import ConfigurationError

__all__ = ["AtomicBlock", "atomic", "is_opened", "keep_clean", "put_back_kept", "read_locked", "write"]

ResultT = TypeVar("ResultT")

_ROOT = "fastapi_kit.atomic"
_KEPT = "fastapi_kit.kept"


def is_opened(session: AsyncSession | Session) -> bool:
    """Return whether a transaction was opened on purpose. If so, whoever opened it commits; if not, each write of a service does.

    ``session.begin()``, ``sessionmaker.begin()``, ``begin_nested()``, ``unit_of_work`` and ``db.transaction`` open one on purpose. The
    last two begin a savepoint if a transaction has begun by itself before.
    """
    sync = session.sync_session if isinstance(session, AsyncSession) else session
    transaction = sync.get_transaction()
    return transaction is not None and (transaction.origin is not SessionTransactionOrigin.AUTOBEGIN or sync.in_nested_transaction())


class AtomicBlock:
    """A part of a session's work that is kept or undone as a whole. Its methods run inside the session's greenlet.

    ``begin`` begins a transaction, or a savepoint if one is open, so that earlier work of the application is not undone. There are two
    exceptions. The first write in a unit of work that has sent nothing yet shares the unit's transaction. A session that is bound to a
    connection, as in test fixtures, always gets a savepoint, because a rollback would end the transaction of the fixture.

    ``keep`` releases the savepoint, and commits unless a transaction was opened on purpose before. ``undo`` rolls back. Objects that were
    loaded before and not changed inside stay as they are.
    """

    def __init__(
        self, session: Session, *, committer: str, mapper: Mapper[Any] | None = None, commits: bool = True, one_statement: bool = False
    ) -> None:
        self.session = session
        self.committer = committer
        self.mapper = mapper
        self.commits = commits and not is_opened(session)
        self.committed = False
        self.keeps_open = not commits
        self.one_statement = one_statement
        self.transaction: SessionTransaction | None = None
        self.connection: Connection | None = None
        self.unit: AtomicBlock | None = None
        self.keeps_readable = False
        self.saved_calls = save_calls(session)

    def run(self, work: Callable[[Session], ResultT]) -> ResultT:
        """Run *work*: keep it if it returns, undo it if it raises. Raises the library's errors for those of the database."""
        self.begin()
        try:
            with typed(self.mapper):
                result = work(self.session)
                self.session.flush()
            self.keep()
        except BaseException as error:
            release(error)
            # finish() completes it also while the task is being cancelled.
            await_only(finish(greenlet_spawn(self.undo)))
            raise
        return result

    def begin(self) -> None:
        """Begin. Pending changes of the application are flushed first, and an error of that flush is raised as SQLAlchemy raises it."""
        session = self.session
        if self.commits and session.info.get(STREAMS):
            raise ConfigurationError(
                "a write that commits would end the stream that is being read: put both into one unit_of_work(session)"
            )
        if OWN not in session.info:
            # The engines of a Database are watched already.
            for bind in binds_of(session) or ([session.get_bind(self.mapper)] if self.mapper is not None else []):
                watch(bind)
        self.keeps_readable = keep_readable(session)
        try:
            self.open()
        except BaseException:
            self.leave()
            raise

    def open(self) -> None:
        """Begin a transaction or a savepoint, or join the transaction of a unit of work that has sent nothing."""
        session = self.session
        unit: AtomicBlock | None = session.info.get(_ROOT)
        is_bound_to_connection = any(isinstance(bind, Connection) for bind in binds_of(session))
        if not session.in_transaction() and not self.keeps_open and not is_bound_to_connection:
            self.transaction = session.begin()
            session.info[_ROOT] = self
            if self.one_statement:
                self.connect_for_one_statement()
        elif unit is not None and unit.has_sent_nothing():
            self.unit, self.transaction = unit, unit.transaction
        else:
            session.flush()
            with typed(self.mapper):
                self.connection = self.connect()
                self.transaction = session.begin_nested()

    def connect_for_one_statement(self) -> None:
        """Send no BEGIN and no COMMIT around the one statement, unless something of the application depends on them."""
        session = self.session
        if OWN in session.info and not self.saved_calls and may_autocommit(session):
            try:
                with typed(self.mapper):
                    session.connection(execution_options=AUTOCOMMIT)
            except BaseException:
                session.rollback()
                raise

    def keep(self) -> None:
        """Keep what was done. Raises the library's error if the COMMIT fails."""
        transaction = self.transaction
        if transaction is None or not is_open(self.session, transaction):
            raise ConfigurationError(
                f"{self.committer}: the transaction was committed or rolled back inside the block. Leave that to the block;"
                " to undo a unit of work, await its rollback()"
            )
        with typed(self.mapper):
            if transaction.nested:
                transaction.commit()
            if self.commits:
                try:
                    commit(self.session, committer=self.committer)
                finally:
                    # A call of on_commit may have been cancelled, but the COMMIT has happened: there is nothing to undo.
                    self.committed = not self.session.in_transaction()
        self.leave()

    def undo(self) -> None:
        """Undo what was done, unless it was committed."""
        session, transaction = self.session, self.transaction
        if not self.committed:
            if self.unit is not None:
                self.unit.start_again(self.saved_calls)
            elif transaction is not None and transaction.nested and is_open(session, transaction):
                self.roll_back_to(transaction)
            else:
                roll_back(session)
        self.leave()

    def leave(self) -> None:
        """Remove the marks of this block from the session."""
        info = self.session.info
        if info.get(_ROOT) is self:
            del info[_ROOT]
        put_back_kept(self.session)
        if self.keeps_readable:
            del info[_KEPT]

    def start_again(self, calls: Any) -> None:
        """Undo the first write of a unit of work. The transaction contains nothing else, so it is rolled back and begun again."""
        roll_back(self.session)
        self.transaction = self.session.begin()
        restore_calls(self.session, calls)

    def has_sent_nothing(self) -> bool:
        """Return whether the transaction of this block is the open one, has sent no SQL, and has nothing to flush."""
        transaction, session = self.transaction, self.session
        is_current = transaction is not None and session.get_transaction() is transaction and not session.in_nested_transaction()
        return transaction is not None and is_current and not has_sent_sql(transaction) and is_clean(session)

    def connect(self) -> Connection | None:
        """Return the connection that the savepoint will be on, or None if the session cannot tell yet."""
        session, mapper = self.session, self.mapper
        if mapper is None and session.bind is None:
            return None
        # Connect before the savepoint. A savepoint that begins the transaction would count as one opened on purpose, also after its end.
        target: dict[str, Any] = {} if mapper is None else {"mapper": mapper, "clause": insert(mapper.class_)}
        connection = session.connection(bind_arguments=target)
        if connection.dialect.name == "sqlite":
            # In SQLite a SAVEPOINT outside a transaction begins one, and its RELEASE commits it.
            begin_immediate(connection)
        return connection

    def roll_back_to(self, savepoint: SessionTransaction) -> None:
        """Roll back to *savepoint*, or the whole transaction if that fails."""
        session = self.session
        try:
            # From the inside out: SQLAlchemy forgets what inner savepoints contain if the outer one is rolled back alone.
            while (inner := session.get_nested_transaction()) is not None and inner is not savepoint:
                inner.rollback()
            savepoint.rollback()
        except Exception:
            # The connection is lost, or SQLite's disk is full. The whole transaction is lost with it.
            if self.connection is None:
                roll_back(session)
                return
            # Later writes would be stored without the earlier ones. An invalidated connection rejects them until the transaction is
            # rolled back.
            if not self.connection.invalidated:
                self.connection.invalidate()
            savepoint.close()


async def write(
    session: AsyncSession, work: Callable[[Session], ResultT], *, committer: str, mapper: Mapper[Any], one_statement: bool = False
) -> ResultT:
    """Run *work*, a write of a service, and commit it unless a transaction was opened on purpose. An error undoes it.

    Args:
        session: The session to write through.
        work: Does the write.
        committer: The name of the write in log lines.
        mapper: Gives the names of the fields in errors.
        one_statement: The write is a single statement, which may run without BEGIN and COMMIT.

    Raises:
        KitError: The library's error for an error of the database.
    """
    with one_task(session):
        block = AtomicBlock(session.sync_session, committer=committer, mapper=mapper, one_statement=one_statement)
        result = await session.run_sync(lambda _: block.run(work))
    if block.committed:
        count_self_commit(session, committer)
    return result


@asynccontextmanager
async def atomic(session: AsyncSession, block: AtomicBlock) -> AsyncGenerator[None]:
    """Begin *block*, and keep what the code inside does, or undo it if the code raises."""
    await session.run_sync(lambda _: block.begin())
    try:
        yield
        await session.run_sync(lambda _: block.keep())
    except BaseException as error:
        release(error)
        await finish(session.run_sync(lambda _: block.undo()))
        raise


async def read_locked(session: AsyncSession, work: Callable[[Session], ResultT], *, mapper: Mapper[Any]) -> ResultT:
    """Return the result of *work*, which reads and locks rows. The transaction, and the lock with it, stays open.

    Raises:
        KitError: The library's error for an error of the database. A lock that cannot be had undoes nothing from before.
    """
    with one_task(session), typed(mapper):
        if not is_idle(session.sync_session):
            async with atomic(session, AtomicBlock(session.sync_session, committer="", commits=False)):
                return await session.run_sync(work)
        try:
            return await session.run_sync(work)
        except BaseException:
            await finish(session.run_sync(close_reading))
            raise


def release(error: BaseException) -> None:
    """Release the cursors in the frames of a cancelled statement: a closed SQLite connection keeps its lock while a cursor exists."""
    if not isinstance(error, Exception):
        clear_frames(error.__traceback__)


def keep_readable(session: Session) -> bool:
    """Let rollbacks expire only what they undo, also the rollback of a failed flush. Return False if this is in effect already."""
    if _KEPT in session.info:
        return False
    session.info[_KEPT] = list[object]()
    if session.info.get(OWN) is not type(session) and not event.contains(session, "after_rollback", keep_clean):
        event.listen(session, "after_rollback", keep_clean)
        event.listen(session, "after_transaction_end", put_back_kept)
    return True


def keep_clean(session: Session) -> None:
    """Keep the objects that a rollback inside a block does not undo. A listener of ``after_rollback``, which runs before they expire."""
    if _KEPT in session.info:
        session.info[_KEPT] += discard_clean(session)


def put_back_kept(session: Session, _ended: object = None) -> None:
    """Put back what ``keep_clean`` took out. A listener of ``after_transaction_end``."""
    if kept := session.info.get(_KEPT):
        put_back(session, kept)
        kept.clear()


def roll_back(session: Session) -> None:
    # The event may not fire if the connection is lost.
    keep_clean(session)
    session.rollback()


def is_open(session: Session, transaction: SessionTransaction) -> bool:
    current = session.get_nested_transaction() or session.get_transaction()
    while current is not None and current is not transaction:
        current = current.parent
    return current is not None
