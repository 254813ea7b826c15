"""Who commits, what a refused write undoes, what runs after the commit, and what is tried again."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ParamSpec, TypeAlias, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper

from fastapi_kit.db.boundary import Boundary, is_opened, typed
from fastapi_kit.db.errors import is_retryable
from fastapi_kit.db.hooks import on_commit
from fastapi_kit.db.session import finish, one_task
from fastapi_kit.db.snapshot import Snapshot

__all__ = ["SessionFactory", "UnitOfWork", "is_opened", "on_commit", "run_transaction", "typed_errors", "unit_of_work", "writing"]

P = ParamSpec("P")
ResultT = TypeVar("ResultT")

SessionFactory: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncSession]]
"""Opens a session in a transaction: ``db.begin`` or ``async_sessionmaker(...).begin``."""


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
        raise _LeavingUnit(self)


class _LeavingUnit(BaseException):
    # No Exception: an ``except Exception`` inside the unit must not keep it from leaving.
    def __init__(self, unit: UnitOfWork) -> None:
        super().__init__("leaving the unit of work")
        self.unit = unit


@asynccontextmanager
async def unit_of_work(session: AsyncSession) -> AsyncGenerator[UnitOfWork]:
    """Make the writes inside one transaction: opens or joins one, nests as a savepoint, commits at the outermost exit.

    Any exception undoes the unit, and only the unit, and goes on to the caller; what was loaded before stays readable. A failing COMMIT
    is raised as a typed error. Committing or rolling back *session* by hand inside raises ConfigurationError at the exit.
    """
    unit = UnitOfWork(session)
    try:
        async with _within(Boundary(session, committer="unit_of_work")):
            yield unit
    except _LeavingUnit as leaving:
        if leaving.unit is not unit:
            raise


@asynccontextmanager
async def writing(session: AsyncSession, *, committer: str, mapper: Mapper[Any]) -> AsyncGenerator[Snapshot]:
    """Run one write of a service: refused, it is undone and typed; done, it is committed if nobody opened a transaction.

    Give the row that is about to change to ``keep`` of the snapshot.
    """
    with one_task(session):
        boundary = Boundary(session, committer=committer, mapper=mapper, self_commit=True)
        async with _within(boundary):
            with typed(mapper):
                yield boundary.changing
                await session.flush()


@asynccontextmanager
async def typed_errors(session: AsyncSession) -> AsyncGenerator[None]:
    """Raise database errors inside as the library's, undone to where the block began; what was loaded before stays readable.

    Flushes at the end and commits nothing.
    """
    async with _within(Boundary(session, committer="", commits=False)):
        with typed(None):
            yield
            await session.flush()


async def run_transaction(begin: SessionFactory, work: Callable[[AsyncSession], Awaitable[ResultT]], *, attempts: int = 3) -> ResultT:
    """Run *work* in a transaction, again on deadlock or serialization failure (40P01, 40001), at most *attempts* times.

    *work* gets a fresh session each time and must have no effect outside it. The last failure is raised.
    """
    for attempt in range(1, attempts):
        try:
            return await _run_once(begin, work)
        except Exception as error:
            if not is_retryable(error):
                raise
            await asyncio.sleep(random.uniform(0, 0.05 * attempt))
    return await _run_once(begin, work)


async def _run_once(begin: SessionFactory, work: Callable[[AsyncSession], Awaitable[ResultT]]) -> ResultT:
    async with begin() as session:
        return await work(session)


@asynccontextmanager
async def _within(boundary: Boundary) -> AsyncGenerator[None]:
    await boundary.enter()
    try:
        yield
        await boundary.leave()
    except BaseException:
        await finish(boundary.undo())
        raise
