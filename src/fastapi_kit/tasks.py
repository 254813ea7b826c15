"""Small work after the response, in this process. What must not be lost belongs in the database, not here."""

import asyncio
import inspect
import logging
import sys
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from threading import Thread
from types import TracebackType
from typing import ParamSpec
from weakref import WeakKeyDictionary

from fastapi.params import Depends
from starlette.requests import HTTPConnection
from starlette.types import Scope

from fastapi_kit.errors import ConfigurationError
from fastapi_kit.middleware.request_id import get_request_id

__all__ = ["TaskRunner", "Tasks"]

P = ParamSpec("P")

_GRACE = 1.0
"""Seconds that a cancelled task has to clean up."""
_log = logging.getLogger("fastapi_kit.tasks")


@dataclass(frozen=True, eq=False)
class _Job:
    call: partial[object]
    context: Context = field(default_factory=copy_context)

    @property
    def name(self) -> str:
        """The name of the function. Never more: arguments may hold secrets."""
        return str(getattr(self.call.func, "__qualname__", type(self.call.func).__qualname__))

    async def run(self) -> None:
        try:
            result = self.call() if _is_async(self.call.func) else await _in_thread(self.call)
            if inspect.isawaitable(result):
                await result
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                raise
            _log.exception("Background task %s of request %s failed", self.name, get_request_id())


class Tasks:
    """The work of one request: started after the response, and so after its commit; dropped if the request failed."""

    def __init__(self) -> None:
        self._jobs: list[_Job] | None = []

    def add(self, fn: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call *fn*, sync or async, after the response. It opens a session of its own (``db.begin()``).

        Its errors are logged and stop nothing. It has the context variables of now, the request id among them.
        Raises ConfigurationError once the request is over.
        """
        if self._jobs is None:
            raise ConfigurationError("the request of these tasks is over: start the work with the runner's start()")
        self._jobs.append(_Job(partial(fn, *args, **kwargs)))


class _RequestTasks(Tasks):
    def end(self) -> list[_Job]:
        jobs, self._jobs = self._jobs or [], None
        return jobs


class TaskRunner:
    """Runs the work, with the request id, at most *max_concurrency* at a time, and waits for it at shutdown.

    What comes beyond waits in order, without a bound. Async functions run in the event loop, sync ones in a thread of their own. An error
    is logged with its traceback, the request id and the function's name, on the logger ``fastapi_kit.tasks``; KeyboardInterrupt and
    SystemExit go on. The work is no part of the request: neither its cancellation nor its end touches it. It is lost if the process dies.
    """

    def __init__(self, *, max_concurrency: int = 100, shutdown_timeout: float = 10.0) -> None:
        """*shutdown_timeout* is in seconds. Raises ConfigurationError if it is below 0, or *max_concurrency* below 1."""
        if max_concurrency < 1 or not shutdown_timeout >= 0:
            raise ConfigurationError("max_concurrency must be at least 1 and shutdown_timeout at least 0")
        self._max_concurrency = max_concurrency
        self._shutdown_timeout = shutdown_timeout
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pool] = WeakKeyDictionary()
        self._lifespans: list[asyncio.AbstractEventLoop] = []

    @property
    def after_response(self) -> Depends:
        """Marker for ``Annotated[Tasks, runner.after_response]``: one object for all of a request's dependencies.

        The work starts when the whole response has been sent, also if the client went away meanwhile. It is dropped if an exception, an
        ``HTTPException`` included, left the handler, a dependency with ``scope="function"`` (``db.transaction``: a failing COMMIT) or
        the making of the response; an error response that the handler returns is no exception. A dependency that swallows what
        the handler raised changes nothing; one that swallows what another dependency raises at its end hides it. A websocket
        has no response: there it raises ConfigurationError.
        """
        return Depends(self._get_tasks, scope="request")

    async def _get_tasks(self, connection: HTTPConnection) -> AsyncIterator[Tasks]:
        if connection.scope["type"] != "http":
            raise ConfigurationError("a websocket has no response to wait for: start the work with the runner's start()")
        tasks, commit = _RequestTasks(), _Commit(connection.scope)
        try:
            yield tasks
        finally:
            jobs = tasks.end()
            if commit.done:
                for job in jobs:
                    self._submit(job)

    def start(self, fn: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Start *fn*, sync or async, now; for ``uow.on_commit(runner.start, fn)``. From any thread, once the lifespan is entered.

        Before and after that it runs in the running event loop, and a warning is logged: no shutdown waits for it. Without one
        ConfigurationError is raised.
        """
        self._submit(_Job(partial(fn, *args, **kwargs)))

    async def join(self) -> None:
        """Wait until nothing is running or waiting in this event loop; for tests. Work that calls it waits for itself."""
        await self._pool(asyncio.get_running_loop()).join()

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncGenerator[None]:
        """Wait for running and waiting work at the end, *shutdown_timeout* seconds at most.

        What is left is cancelled, has one second to clean up, and is logged by name. A sync function cannot be stopped: it
        goes on while the process lives, and does not keep it alive.
        """
        loop = asyncio.get_running_loop()
        pool = self._pool(loop)
        self._lifespans.append(loop)
        try:
            yield
        finally:
            try:
                async with asyncio.timeout(self._shutdown_timeout):
                    await pool.join()
            except TimeoutError:
                pass
            finally:
                self._lifespans.remove(loop)
                await pool.cut_off(self._shutdown_timeout)

    def _submit(self, job: _Job) -> None:
        here = _running_loop()
        opened = [loop for loop in self._lifespans if not loop.is_closed()]
        loop = here if here in opened or not opened else opened[-1]
        if loop is None:
            raise ConfigurationError(f"{job.name} cannot start: no event loop runs here, and the lifespan of the TaskRunner is not entered")
        if not opened:
            _log.warning("%s is started outside the lifespan of its TaskRunner: no shutdown waits for it", job.name)
        pool = self._pool(loop)
        if loop is here:
            pool.add(job)
        else:
            loop.call_soon_threadsafe(pool.add, job)

    def _pool(self, loop: asyncio.AbstractEventLoop) -> "_Pool":
        return self._pools.setdefault(loop, _Pool(self._max_concurrency))


class _Pool:
    """The work of one event loop."""

    def __init__(self, max_concurrency: int) -> None:
        self.max_concurrency = max_concurrency
        self.waiting: deque[_Job] = deque()
        self.running: dict[asyncio.Task[None], _Job] = {}

    def add(self, job: _Job) -> None:
        self.waiting.append(job)
        # Not at once: with an eager task factory the job would begin inside its caller, which may be a COMMIT.
        asyncio.get_running_loop().call_soon(self._fill)

    async def join(self) -> None:
        while self.waiting or self.running:
            await (asyncio.wait(list(self.running)) if self.running else asyncio.sleep(0))

    async def cut_off(self, seconds: float) -> None:
        cut = [*(job for task, job in self.running.items() if task.cancel()), *self.waiting]
        self.waiting.clear()
        if cut:
            _log.error("Shutdown: %d background tasks were cut off after %g seconds: %s", len(cut), seconds, _count(cut))
        if self.running:
            await asyncio.wait(list(self.running), timeout=_GRACE)
        if self.running:
            _log.error("Shutdown: %d background tasks ignore their cancellation: %s", len(self.running), _count(self.running.values()))

    def _fill(self) -> None:
        while self.waiting and len(self.running) < self.max_concurrency:
            job = self.waiting.popleft()
            task = asyncio.get_running_loop().create_task(job.run(), name=job.name, context=job.context)
            self.running[task] = job
            task.add_done_callback(self._leave)

    def _leave(self, task: asyncio.Task[None]) -> None:
        del self.running[task]
        if not task.cancelled():
            # A SystemExit has left the loop already: asyncio need not report it once more.
            task.exception()
        self._fill()


class _Commit:
    """Whether a request's handler and its function-scoped dependencies, those that commit, have ended without an exception."""

    def __init__(self, scope: Scope) -> None:
        self.done = False
        self._outside = sys.exception()
        # An exception that reaches a request-scoped dependency may come from the commit or from a client that went away. Only
        # what lies below all others on FastAPI's stack, and so is left last, can tell.
        stack: AsyncExitStack = scope["fastapi_function_astack"]
        above = stack.pop_all()
        stack.push(self._note)
        stack.push_async_exit(above)

    def _note(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        # A dependency may have swallowed what the handler raised. The stack is left while that is still being handled.
        self.done = error is None and sys.exception() is self._outside


async def _in_thread(call: Callable[[], object]) -> object:
    # No pool: the interpreter waits for the threads of pools at its end, however long a call hangs.
    outcome: Future[tuple[object, BaseException | None]] = Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result = call()
        except BaseException as error:
            # As a value: a future refuses StopIteration.
            outcome.set_result((None, error))
        else:
            outcome.set_result((result, None))

    Thread(target=copy_context().run, args=(run,), daemon=True).start()
    result, error = await asyncio.wrap_future(outcome)
    if error is not None:
        raise error
    return result


def _is_async(fn: Callable[..., object]) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _count(jobs: Iterable[_Job]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in Counter(job.name for job in jobs).most_common())
