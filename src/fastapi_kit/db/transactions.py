"""Who commits, what a refused write undoes, and what stays readable.

Every write of a service, every ``unit_of_work``, ``db.begin()``, ``db.transaction`` and ``typed_errors`` is a ``Boundary``.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from traceback import clear_frames
from typing import Any, ParamSpec, TypeAlias, TypeVar

from sqlalchemy import Connection, event, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper, Session, SessionTransaction, SessionTransactionOrigin
from sqlalchemy.util import await_only, greenlet_spawn

from fastapi_kit._compat import binds_of, discard_clean, has_sent_sql, is_clean, put_back
from fastapi_kit.db.engines.sqlite import begin_immediate
from fastapi_kit.db.errors.translate import is_retryable, typed
from fastapi_kit.db.errors.written import watch
from fastapi_kit.db.hooks import OWN, close_reading, drop_waiting_calls, on_commit, restore_calls, save_calls
from fastapi_kit.db.sessions import AUTOCOMMIT, STREAMS, commit, count_self_commit, finish, is_idle, may_autocommit, one_task
from fastapi_kit.errors import ConfigurationError

__all__ = [
    "Boundary",
    "SessionFactory",
    "UnitOfWork",
    "dropping_calls",
    "is_opened",
    "keep_clean",
    "on_commit",
    "put_back_kept",
    "read_locked",
    "run_transaction",
    "typed_errors",
    "unit_of_work",
    "write",
]

P = ParamSpec("P")
ResultT = TypeVar("ResultT")

SessionFactory: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncSession]]
"""Opens a session in a transaction: ``db.begin`` or ``async_sessionmaker(...).begin``."""

_ROOT = "fastapi_kit.boundary"
_KEPT = "fastapi_kit.kept"


def is_opened(session: AsyncSession | Session) -> bool:
    """Return whether somebody opened a transaction on purpose, and so commits; if not, a service's write commits itself.

    On purpose are ``session.begin()``, ``sessionmaker.begin()``, an open savepoint, ``unit_of_work`` and ``db.transaction``: the last two
    begin the transaction, or, where one has begun by itself, a savepoint.
    """
    sync = session.sync_session if isinstance(session, AsyncSession) else session
    transaction = sync.get_transaction()
    return transaction is not None and (transaction.origin is not SessionTransactionOrigin.AUTOBEGIN or sync.in_nested_transaction())


class Boundary:
    """A part of a session's work that is kept or undone as one. Its methods run inside the session's greenlet.

    ``begin`` begins a transaction where none is open, and else a savepoint: what the application did before is not undone. (The first write
    in a unit that has sent nothing yet shares the unit's transaction; a session bound to a connection, as in test fixtures, always gets a
    savepoint, because its rollback would end the fixture's transaction.) ``keep`` releases the savepoint, and commits unless somebody
    opened the transaction before. ``undo`` rolls back; objects that were loaded and not touched inside stay as they are.
    """

    def __init__(
        self, session: Session, *, committer: str, mapper: Mapper[Any] | None = None, commits: bool = True, one_statement: bool = False
    ) -> None:
        self.session = session
        self.committer = committer
        self.mapper = mapper
        self.commits = commits and not is_opened(session)
        self.committed = False
        self._keeps_open = not commits
        self._one_statement = one_statement
        self._transaction: SessionTransaction | None = None
        self._connection: Connection | None = None
        self._unit: Boundary | None = None
        self._keeps_readable = False
        self._saved_calls = save_calls(session)

    def run(self, work: Callable[[Session], ResultT]) -> ResultT:
        """Do *work*: kept if it returns, undone if it raises. Database errors are typed."""
        self.begin()
        try:
            with typed(self.mapper):
                result = work(self.session)
                self.session.flush()
            self.keep()
        except BaseException as error:
            release(error)
            # To its end, also while the task is being cancelled.
            await_only(finish(greenlet_spawn(self.undo)))
            raise
        return result

    def begin(self) -> None:
        """Begin. Pending changes of the application are flushed first; an error there is its own, and comes as SQLAlchemy raises it."""
        session = self.session
        if self.commits and session.info.get(STREAMS):
            raise ConfigurationError(
                "a write that commits would end the stream that is being read: put both into one unit_of_work(session)"
            )
        if OWN not in session.info:
            self._watch()
        self._keeps_readable = keep_readable(session)
        try:
            self._open()
        except BaseException:
            self._leave()
            raise

    def _open(self) -> None:
        session = self.session
        unit: Boundary | None = session.info.get(_ROOT)
        if not session.in_transaction() and not self._keeps_open and not self._is_bound_to_connection():
            self._transaction = session.begin()
            session.info[_ROOT] = self
            if self._one_statement:
                self._connect_for_one_statement()
        elif unit is not None and unit._has_sent_nothing():
            self._unit, self._transaction = unit, unit._transaction
        else:
            session.flush()
            with typed(self.mapper):
                self._connection = self._connect()
                self._transaction = session.begin_nested()

    def _connect_for_one_statement(self) -> None:
        """Let one statement be a transaction by itself, where nothing of the application's depends on BEGIN and COMMIT."""
        session = self.session
        if OWN in session.info and not self._saved_calls and may_autocommit(session):
            try:
                with typed(self.mapper):
                    session.connection(execution_options=AUTOCOMMIT)
            except BaseException:
                session.rollback()
                raise

    def keep(self) -> None:
        """Keep what was done. An error of the COMMIT is typed."""
        transaction = self._transaction
        if transaction is None or not is_open(self.session, transaction):
            raise ConfigurationError(
                f"{self.committer}: the transaction was committed or rolled back inside the block; leave that to the block"
                " (to undo a unit of work, await its rollback())"
            )
        with typed(self.mapper):
            if transaction.nested:
                transaction.commit()
            if self.commits:
                try:
                    commit(self.session, committer=self.committer)
                finally:
                    # A call of on_commit may have been cancelled: what comes after the COMMIT undoes nothing.
                    self.committed = not self.session.in_transaction()
        self._leave()

    def undo(self) -> None:
        """Undo what was done, unless it is committed."""
        session, transaction = self.session, self._transaction
        if not self.committed:
            if self._unit is not None:
                self._unit._start_again(self._saved_calls)
            elif transaction is not None and transaction.nested and is_open(session, transaction):
                self._roll_back_to(transaction)
            else:
                roll_back(session)
        self._leave()

    def _leave(self) -> None:
        info = self.session.info
        if info.get(_ROOT) is self:
            del info[_ROOT]
        put_back_kept(self.session)
        if self._keeps_readable:
            del info[_KEPT]

    def _start_again(self, calls: Any) -> None:
        """Undo the first write of a unit by rolling back all there is: the write itself."""
        roll_back(self.session)
        self._transaction = self.session.begin()
        restore_calls(self.session, calls)

    def _has_sent_nothing(self) -> bool:
        transaction, session = self._transaction, self.session
        is_current = transaction is not None and session.get_transaction() is transaction and not session.in_nested_transaction()
        return transaction is not None and is_current and not has_sent_sql(transaction) and is_clean(session)

    def _is_bound_to_connection(self) -> bool:
        return any(isinstance(bind, Connection) for bind in binds_of(self.session))

    def _watch(self) -> None:
        """Have the application's engines remember what a failed statement wrote, as those of a Database do."""
        for bind in binds_of(self.session) or ([self.session.get_bind(self.mapper)] if self.mapper is not None else []):
            watch(bind)

    def _connect(self) -> Connection | None:
        session, mapper = self.session, self.mapper
        if mapper is None and session.bind is None:
            return None
        # A savepoint that comes first would count as a transaction begun on purpose, and stay one after it is undone.
        target: dict[str, Any] = {} if mapper is None else {"mapper": mapper, "clause": insert(mapper.class_)}
        connection = session.connection(bind_arguments=target)
        if connection.dialect.name == "sqlite":
            # The stock driver lets a SAVEPOINT that comes first begin, and its RELEASE commit, the transaction.
            begin_immediate(connection)
        return connection

    def _roll_back_to(self, savepoint: SessionTransaction) -> None:
        session = self.session
        try:
            # Rolled back as a whole, what the application's own savepoints hold would be forgotten.
            while (inner := session.get_nested_transaction()) is not None and inner is not savepoint:
                inner.rollback()
            savepoint.rollback()
        except Exception:
            # The connection is gone, or SQLite's disk is full: the whole transaction is gone with it.
            if self._connection is None:
                roll_back(session)
                return
            # What came later would be stored alone. An invalid connection refuses it until whoever began the transaction rolls it back.
            if not self._connection.invalidated:
                self._connection.invalidate()
            savepoint.close()


async def write(
    session: AsyncSession, work: Callable[[Session], ResultT], *, committer: str, mapper: Mapper[Any], one_statement: bool = False
) -> ResultT:
    """Run one write of a service: refused, it is undone and typed; done, it is committed if nobody opened a transaction.

    *one_statement* writes by a single statement: it needs no BEGIN and no COMMIT where nothing of the application's depends on them.
    """
    with one_task(session):
        boundary = Boundary(session.sync_session, committer=committer, mapper=mapper, one_statement=one_statement)
        result = await session.run_sync(lambda _: boundary.run(work))
    if boundary.committed:
        count_self_commit(session, committer)
    return result


@contextmanager
def dropping_calls(session: AsyncSession) -> Generator[None]:
    """Drop what ``on_commit`` was given for a write that is refused in the block, before it has begun a transaction."""
    try:
        yield
    except Exception:
        drop_waiting_calls(session.sync_session)
        raise


class UnitOfWork:
    """An open unit of work over *session*."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    def on_commit(self, fn: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call *fn*, sync or async, once, directly after the outermost commit and before the response.

        Dropped when this unit rolls back; its errors are logged. Work after the response: ``uow.on_commit(tasks.add, fn)``.
        """
        on_commit(self.session, fn, *args, **kwargs)

    async def rollback(self) -> None:
        """Undo this unit and leave it; the code after ``async with`` goes on."""
        raise LeavingUnit(self)


class LeavingUnit(BaseException):
    # No Exception: an ``except Exception`` inside the unit must not keep it from leaving.
    def __init__(self, unit: UnitOfWork) -> None:
        super().__init__("leaving the unit of work")
        self.unit = unit


@asynccontextmanager
async def unit_of_work(session: AsyncSession) -> AsyncGenerator[UnitOfWork]:
    """Make the writes inside one transaction: opens or joins one, nests as a savepoint, commits at the outermost exit.

    Any exception undoes the unit, and only the unit, and goes on to the caller; what was loaded before and not changed inside stays
    readable. A failing COMMIT is raised as a typed error. Committing or rolling back *session* by hand inside raises ConfigurationError at
    the exit.
    """
    unit = UnitOfWork(session)
    try:
        async with bounded(session, Boundary(session.sync_session, committer="unit_of_work")):
            yield unit
    except LeavingUnit as leaving:
        if leaving.unit is not unit:
            raise
    except BaseExceptionGroup as group:
        # A task group inside the unit wraps whatever leaves it.
        others = group.split(lambda error: isinstance(error, LeavingUnit) and error.unit is unit)[1]
        if others is group:
            raise
        if others is not None:
            raise others from None


@asynccontextmanager
async def typed_errors(session: AsyncSession) -> AsyncGenerator[None]:
    """Raise database errors inside as the library's, undone to where the block began; what was loaded before stays readable.

    Flushes at the end and commits nothing.
    """
    async with bounded(session, Boundary(session.sync_session, committer="", commits=False)):
        with typed(None):
            yield
            await session.flush()


async def read_locked(session: AsyncSession, work: Callable[[Session], ResultT], *, mapper: Mapper[Any]) -> ResultT:
    """Let *work* read and lock rows. The transaction, and with it the lock, stays; a refused lock undoes nothing that was before."""
    with one_task(session), typed(mapper):
        if not is_idle(session.sync_session):
            async with typed_errors(session):
                return await session.run_sync(work)
        try:
            return await session.run_sync(work)
        except BaseException:
            await finish(session.run_sync(close_reading))
            raise


async def run_transaction(begin: SessionFactory, work: Callable[[AsyncSession], Awaitable[ResultT]], *, attempts: int = 3) -> ResultT:
    """Run *work* in a transaction, again on deadlock or serialization failure (40P01, 40001), at most *attempts* times.

    *work* gets a fresh session each time and must have no effect outside it. The last failure is raised.
    """
    for attempt in range(1, attempts + 1):
        try:
            async with begin() as session:
                return await work(session)
        except Exception as error:
            if attempt == attempts or not is_retryable(error):
                raise
        await asyncio.sleep(random.uniform(0, 0.05 * attempt))
    raise ConfigurationError("attempts must be at least 1")


@asynccontextmanager
async def bounded(session: AsyncSession, boundary: Boundary) -> AsyncGenerator[None]:
    await session.run_sync(lambda _: boundary.begin())
    try:
        yield
        await session.run_sync(lambda _: boundary.keep())
    except BaseException as error:
        release(error)
        await finish(session.run_sync(lambda _: boundary.undo()))
        raise


def release(error: BaseException) -> None:
    """Let go of what the frames of a cancelled statement hold: an SQLite connection that is closed keeps its lock while a cursor lives."""
    if not isinstance(error, Exception):
        clear_frames(error.__traceback__)


def keep_readable(session: Session) -> bool:
    """Let no rollback expire what it does not undo, not even the one that a failed flush makes. Returns False where it is so already."""
    if _KEPT in session.info:
        return False
    session.info[_KEPT] = list[object]()
    if session.info.get(OWN) is not type(session) and not event.contains(session, "after_rollback", keep_clean):
        event.listen(session, "after_rollback", keep_clean)
        event.listen(session, "after_transaction_end", put_back_kept)
    return True


def keep_clean(session: Session) -> None:
    """Keep what a rollback inside a boundary does not undo. For SQLAlchemy's ``after_rollback``, before which nothing is expired."""
    if _KEPT in session.info:
        session.info[_KEPT] += discard_clean(session)


def put_back_kept(session: Session, _ended: object = None) -> None:
    """Undo ``keep_clean`` when the rollback is over. For SQLAlchemy's ``after_transaction_end``."""
    if kept := session.info.get(_KEPT):
        put_back(session, kept)
        kept.clear()


def roll_back(session: Session) -> None:
    # Here too, because a lost connection can keep the event from being sent.
    keep_clean(session)
    session.rollback()


def is_open(session: Session, transaction: SessionTransaction) -> bool:
    current = session.get_nested_transaction() or session.get_transaction()
    while current is not None and current is not transaction:
        current = current.parent
    return current is not None
