"""Transactions for applications: who commits, and what is undone."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ParamSpec, TypeAlias, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit.db.atomic import AtomicBlock, atomic
from fastapi_kit.db.errors.translate import is_retryable, typed
from fastapi_kit.db.hooks import on_commit
from fastapi_kit.errors import ConfigurationError

__all__ = ["SessionFactory", "UnitOfWork", "run_transaction", "typed_errors", "unit_of_work"]

P = ParamSpec("P")
ResultT = TypeVar("ResultT")

SessionFactory: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncSession]]
"""Opens a session in a transaction, as ``db.begin`` and ``async_sessionmaker(...).begin`` do."""


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
        async with atomic(session, AtomicBlock(session.sync_session, committer="unit_of_work")):
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
    async with atomic(session, AtomicBlock(session.sync_session, committer="", commits=False)):
        with typed(None):
            yield
            await session.flush()


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
