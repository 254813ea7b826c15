"""Who commits, what a failed write undoes, and what stays readable.

Every write of a service, ``unit_of_work``, ``db.begin()``, ``db.transaction`` and ``typed_errors`` is a ``Boundary``.
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
"""Opens a session in a transaction, as ``db.begin`` and ``async_sessionmaker(...).begin`` do."""

_ROOT = "fastapi_kit.boundary"
_KEPT = "fastapi_kit.kept"


def is_opened(session: AsyncSession | Session) -> bool:
    """Return whether a transaction was opened on purpose. If so, whoever opened it commits; if not, each write of a service does.

    ``session.begin()``, ``sessionmaker.begin()``, ``begin_nested()``, ``unit_of_work`` and ``db.transaction`` open one on purpose. The
    last two begin a savepoint if a transaction has begun by itself before.
    """
    sync = session.sync_session if isinstance(session, AsyncSession) else session
    transaction = sync.get_transaction()
    return transaction is not None and (transaction.origin is not SessionTransactionOrigin.AUTOBEGIN or sync.in_nested_transaction())


class Boundary:
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
        self._keeps_open = not commits
        self._one_statement = one_statement
        self._transaction: SessionTransaction | None = None
        self._connection: Connection | None = None
        self._unit: Boundary | None = None
        self._keeps_readable = False
        self._saved_calls = save_calls(session)

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
        self._keeps_readable = keep_readable(session)
        try:
            self._open()
        except BaseException:
            self._leave()
            raise

    def _open(self) -> None:
        session = self.session
        unit: Boundary | None = session.info.get(_ROOT)
        is_bound_to_connection = any(isinstance(bind, Connection) for bind in binds_of(session))
        if not session.in_transaction() and not self._keeps_open and not is_bound_to_connection:
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
        """Send no BEGIN and no COMMIT around the one statement, unless something of the application depends on them."""
        session = self.session
        if OWN in session.info and not self._saved_calls and may_autocommit(session):
            try:
                with typed(self.mapper):
                    session.connection(execution_options=AUTOCOMMIT)
            except BaseException:
                session.rollback()
                raise

    def keep(self) -> None:
        """Keep what was done. Raises the library's error if the COMMIT fails."""
        transaction = self._transaction
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
        self._leave()

    def undo(self) -> None:
        """Undo what was done, unless it was committed."""
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
        """Undo the first write of a unit of work. The transaction contains nothing else, so it is rolled back and begun again."""
        roll_back(self.session)
        self._transaction = self.session.begin()
        restore_calls(self.session, calls)

    def _has_sent_nothing(self) -> bool:
        transaction, session = self._transaction, self.session
        is_current = transaction is not None and session.get_transaction() is transaction and not session.in_nested_transaction()
        return transaction is not None and is_current and not has_sent_sql(transaction) and is_clean(session)

    def _connect(self) -> Connection | None:
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

    def _roll_back_to(self, savepoint: SessionTransaction) -> None:
        session = self.session
        try:
            # From the inside out: SQLAlchemy forgets what inner savepoints contain if the outer one is rolled back alone.
            while (inner := session.get_nested_transaction()) is not None and inner is not savepoint:
                inner.rollback()
            savepoint.rollback()
        except Exception:
            # The connection is lost, or SQLite's disk is full. The whole transaction is lost with it.
            if self._connection is None:
                roll_back(session)
                return
            # Later writes would be stored without the earlier ones. An invalidated connection rejects them until the transaction is
            # rolled back.
            if not self._connection.invalidated:
                self._connection.invalidate()
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
        boundary = Boundary(session.sync_session, committer=committer, mapper=mapper, one_statement=one_statement)
        result = await session.run_sync(lambda _: boundary.run(work))
    if boundary.committed:
        count_self_commit(session, committer)
    return result


@contextmanager
def dropping_calls(session: AsyncSession) -> Generator[None]:
    """Drop the calls of ``on_commit`` that wait for a write if the block raises, before the write has begun its transaction."""
    try:
        yield
    except Exception:
        drop_waiting_calls(session.sync_session)
        raise


class UnitOfWork:
    """An open unit of work, as ``unit_of_work`` gives it."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    def on_commit(self, fn: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call *fn*, sync or async, once, directly after the outermost COMMIT and before the response.

        The call is dropped if this unit rolls back. An error of *fn* is logged and undoes nothing. For work after the response use
        ``uow.on_commit(tasks.add, fn)``.

        Args:
            fn: The function to call. It gets no session.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
        """
        on_commit(self.session, fn, *args, **kwargs)

    async def rollback(self) -> None:
        """Undo this unit and leave its block. The code after ``async with`` runs."""
        raise LeavingUnit(self)


class LeavingUnit(BaseException):
    # A BaseException, so that ``except Exception`` inside the unit does not catch it.
    def __init__(self, unit: UnitOfWork) -> None:
        super().__init__("leaving the unit of work")
        self.unit = unit


@asynccontextmanager
async def unit_of_work(session: AsyncSession) -> AsyncGenerator[UnitOfWork]:
    """Put the writes inside the block into one transaction.

    The outermost unit commits at the end of the block, and commits what the session wrote before, too. A unit inside another one, or
    inside a transaction that was opened on purpose, is a savepoint and commits nothing. Any exception undoes the unit, and only the unit,
    and is raised again. Objects that were loaded before and not changed inside stay readable.

    Raises:
        KitError: The COMMIT failed, for example ConflictError for a deferred constraint.
        ConfigurationError: The code inside committed or rolled back *session* itself.

    Example:
        ```python
        import asyncio

        from pydantic import BaseModel
        from sqlalchemy.orm import Mapped, mapped_column

        from fastapi_kit import Base, ConflictError, CRUDService, Database, unit_of_work


        class Tag(Base):
            __tablename__ = "tags"
            id: Mapped[int] = mapped_column(primary_key=True)
            name: Mapped[str] = mapped_column(unique=True)


        class TagCreate(BaseModel):
            name: str


        class TagService(CRUDService[Tag, TagCreate, TagCreate]): ...


        async def main() -> None:
            db = Database("sqlite:///:memory:")
            await db.create_tables()
            async with db.sessions() as session:
                tags = TagService(session)
                try:
                    async with unit_of_work(session) as uow:
                        await tags.create(TagCreate(name="new"))
                        uow.on_commit(print, "stored")
                        await tags.create(TagCreate(name="new"))
                except ConflictError as error:
                    assert error.fields == ("name",)
                assert await tags.count() == 0  # the first was undone too, and nothing was printed
            await db.dispose()


        asyncio.run(main())
        ```
    """
    unit = UnitOfWork(session)
    try:
        async with bounded(session, Boundary(session.sync_session, committer="unit_of_work")):
            yield unit
    except LeavingUnit as leaving:
        if leaving.unit is not unit:
            raise
    except BaseExceptionGroup as group:
        # A task group inside the unit wraps the exception in a group.
        others = group.split(lambda error: isinstance(error, LeavingUnit) and error.unit is unit)[1]
        if others is group:
            raise
        if others is not None:
            raise others from None


@asynccontextmanager
async def typed_errors(session: AsyncSession) -> AsyncGenerator[None]:
    """Raise errors of the database inside the block as the library's. Flushes at the end of the block and commits nothing.

    Any exception rolls back to where the block began. Objects that were loaded before stay readable. For statements of your own on the
    session; services do this by themselves.

    Raises:
        KitError: The library's error for an error of the database.
        ConfigurationError: The code inside committed or rolled back *session* itself.
    """
    async with bounded(session, Boundary(session.sync_session, committer="", commits=False)):
        with typed(None):
            yield
            await session.flush()


async def read_locked(session: AsyncSession, work: Callable[[Session], ResultT], *, mapper: Mapper[Any]) -> ResultT:
    """Return the result of *work*, which reads and locks rows. The transaction, and the lock with it, stays open.

    Raises:
        KitError: The library's error for an error of the database. A lock that cannot be had undoes nothing from before.
    """
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
    """Run *work* in a transaction and commit it. Run it again if the database reports a deadlock or a serialization failure.

    Args:
        begin: Opens a session in a transaction: ``db.begin`` or ``async_sessionmaker(...).begin``.
        work: Gets a new session in each attempt. It must have no effect outside of it.
        attempts: How often *work* runs at most. After attempt n there is a random pause of up to n * 0.05 seconds.

    Returns:
        What *work* returned.

    Raises:
        Exception: The error of the last attempt, or any error that another attempt cannot help.
        ConfigurationError: *attempts* is less than 1.
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
    """Keep the objects that a rollback inside a boundary does not undo. A listener of ``after_rollback``, which runs before they expire."""
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
