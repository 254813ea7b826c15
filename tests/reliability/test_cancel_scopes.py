"""A cancelled scope of anyio, in which Starlette runs what it may have to stop: the undo is finished, and no core is kept busy."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from anyio import CancelScope
from sqlalchemy import text
from tests.reliability.aside import Aside
from tests.reliability.proxy import Fault, Proxy

from fastapi_kit.db import Database, DatabaseOptions
from fastapi_kit.db.sessions import finish

ResultT = TypeVar("ResultT")


class CountingTask(asyncio.Task[ResultT]):
    """Counts how often it is cancelled."""

    cancels = 0

    def cancel(self, msg: Any = None) -> bool:
        self.cancels += 1
        return super().cancel(msg)


def start(work: Coroutine[Any, Any, ResultT]) -> CountingTask[ResultT]:
    return CountingTask(work, loop=asyncio.get_running_loop())


@pytest.mark.only_full
async def test_a_frozen_rollback_is_waited_for_without_turning(proxy: Proxy, aside: Aside) -> None:
    """The task is cancelled a few times, not in every turn of the event loop until the command's time is over."""
    database = Database(proxy.url, options=DatabaseOptions(command_timeout=0.5, pool_size=1, max_overflow=0))

    async def request() -> None:
        with CancelScope() as scope:
            async with database.begin() as session:
                await session.execute(text("UPDATE tags SET weight = 9"))
                proxy.arm(Fault.FREEZE_ALL, at=1)
                scope.cancel()
                await asyncio.sleep(0)

    task = start(request())
    await task

    assert proxy.struck.is_set()
    assert task.cancels < 10
    proxy.arm()
    proxy.cut()
    assert await aside.column("SELECT weight FROM tags") == [1, 1]
    await database.dispose()


async def test_a_frozen_statement_is_given_up_without_turning(proxy: Proxy) -> None:
    """Likewise where the scope is cancelled while a statement is not answered."""
    database = Database(proxy.url, options=DatabaseOptions(command_timeout=0.5, pool_size=1, max_overflow=0))
    async with database.begin() as session:
        await session.execute(text("SELECT 1"))
    proxy.arm(Fault.FREEZE_ALL, at=2)

    async def request() -> None:
        with CancelScope() as scope:
            async with asyncio.TaskGroup() as group:
                group.create_task(cancel_when_struck(scope))
                async with database.begin() as session:
                    await session.execute(text("UPDATE tags SET weight = 9"))

    async def cancel_when_struck(scope: CancelScope) -> None:
        await proxy.struck.wait()
        scope.cancel()

    task = start(request())
    await task

    assert task.cancels < 10
    proxy.arm()
    proxy.cut()
    await database.dispose()


async def test_what_must_be_finished_is_finished_in_a_cancelled_scope() -> None:
    """The scope's cancellation is held back until the end, and then goes on."""
    done: list[str] = []

    async def work() -> None:
        for _ in range(50):
            await asyncio.sleep(0)
        done.append("work")

    async def request() -> None:
        with CancelScope() as scope:
            scope.cancel()
            await finish(work())
            done.append("not reached")

    task = start(request())
    await task

    assert done == ["work"]
    assert task.cancels < 3


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancellation_of_asyncio_is_raised_at_the_end(times: int) -> None:
    """The task that waits stays cancelled, however often cancel() was called, and the work is finished."""
    started, released, done = asyncio.Event(), asyncio.Event(), list[str]()

    async def work() -> None:
        started.set()
        await released.wait()
        done.append("work")

    task = start(finish(work()))
    await started.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    released.set()
    await asyncio.wait({task})

    assert task.cancelled()
    assert done == ["work"]


async def test_an_error_of_the_work_is_raised_unless_the_task_is_cancelled() -> None:
    """The cancellation is what the caller must hear of."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await finish(fail())
    with CancelScope() as scope:
        scope.cancel()
        await finish(fail())
    assert scope.cancelled_caught
