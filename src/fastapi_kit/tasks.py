"""Small work after the response, in this process. Work that must not be lost belongs in the database."""

import asyncio
import inspect
import logging
import sys
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager, suppress
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

CLEANUP_SECONDS = 1.0
"""How long a cancelled task may clean up."""
logger = logging.getLogger("fastapi_kit.tasks")


@dataclass(frozen=True, eq=False)
class Job:
    """A call, with the context variables of the moment in which it was added."""

    call: partial[object]
    context: Context = field(default_factory=copy_context)

    @property
    def name(self) -> str:
        """The name of the function, without its arguments: they may contain secrets."""
        return str(getattr(self.call.func, "__qualname__", type(self.call.func).__qualname__))

    async def run(self) -> None:
        """Make the call, and log its error. Cancellation of the task, KeyboardInterrupt and SystemExit are raised."""
        function = self.call.func
        is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
        try:
            result = self.call() if is_async else await run_in_thread(self.call)
            if inspect.isawaitable(result):
                await result
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            logger.exception("Background task %s of request %s failed", self.name, get_request_id())


class Tasks:
    """The background tasks of one request. They start after the response, so after the commit. They are dropped if the request fails."""

    def __init__(self) -> None:
        self._jobs: list[Job] | None = []

    def add(self, fn: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call *fn*, sync or async, after the response. It must open its own session (``db.begin()``).

        Its errors are logged and do not stop other tasks. It sees the current context variables, the request id included.

        Raises:
            ConfigurationError: The request is over.
        """
        if self._jobs is None:
            raise ConfigurationError("the request of these tasks is over: start the work with the runner's start()")
        self._jobs.append(Job(partial(fn, *args, **kwargs)))


class RequestTasks(Tasks):
    def close(self) -> list[Job]:
        jobs, self._jobs = self._jobs or [], None
        return jobs


class TaskRunner:
    """Runs background tasks and waits for them at shutdown.

    At most *max_concurrency* tasks run at a time. Others wait in order; their number is not limited. Async functions run in the event
    loop, each sync function in its own thread. An error is logged on ``fastapi_kit.tasks`` with its traceback, the request id and the
    name of the function; KeyboardInterrupt and SystemExit are raised. Tasks do not depend on the request: its end and its cancellation
    do not stop them. They are lost if the process dies.

    Args:
        max_concurrency: How many tasks run at a time. At least 1.
        shutdown_timeout: How many seconds the lifespan waits for tasks when it ends.

    Raises:
        ConfigurationError: *max_concurrency* is below 1, or *shutdown_timeout* below 0.
    """

    def __init__(self, *, max_concurrency: int = 100, shutdown_timeout: float = 10.0) -> None:
        if max_concurrency < 1 or not shutdown_timeout >= 0:
            raise ConfigurationError("max_concurrency must be at least 1 and shutdown_timeout at least 0")
        self._max_concurrency = max_concurrency
        self._shutdown_timeout = shutdown_timeout
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, Pool] = WeakKeyDictionary()
        self._lifespans: list[asyncio.AbstractEventLoop] = []

    @property
    def after_response(self) -> Depends:
        """Marker for ``Annotated[Tasks, runner.after_response]``. All dependencies of a request get the same object.

        The tasks start when the whole response has been sent, or when the client has disconnected. They are dropped if an exception
        leaves the handler, a dependency with ``scope="function"`` (``db.transaction``: a failing COMMIT), or the creation of the
        response. An ``HTTPException`` counts, an error response that the handler returns does not. If a dependency suppresses the
        exception of the handler, the tasks are still dropped. If it suppresses the exception of another dependency, they start.

        In a websocket route ConfigurationError is raised, because there is no response.
        """
        return Depends(self._get_tasks, scope="request")

    async def _get_tasks(self, connection: HTTPConnection) -> AsyncIterator[Tasks]:
        if connection.scope["type"] != "http":
            raise ConfigurationError("a websocket has no response to wait for: start the work with the runner's start()")
        tasks, outcome = RequestTasks(), RequestOutcome(connection.scope)
        try:
            yield tasks
        finally:
            jobs = tasks.close()
            if outcome.is_success:
                for job in jobs:
                    self._submit(job)

    def start(self, fn: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Start *fn*, sync or async, now. Use it as ``uow.on_commit(runner.start, fn)``.

        Inside the lifespan it may be called from any thread. Outside, *fn* runs in the running event loop, and a warning is logged:
        no shutdown waits for it.

        Raises:
            ConfigurationError: There is neither a lifespan nor a running event loop.
        """
        self._submit(Job(partial(fn, *args, **kwargs)))

    async def join(self) -> None:
        """Wait until no task runs or waits in this event loop. For tests. A task that calls it waits for itself."""
        await self._pool(asyncio.get_running_loop()).join()

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncGenerator[None]:
        """Wait for running and waiting tasks when the lifespan ends, at most *shutdown_timeout* seconds.

        The remaining tasks are cancelled, have one second to clean up, and are logged by name. A sync function cannot be stopped: it
        goes on while the process lives, but the process does not wait for it.
        """
        loop = asyncio.get_running_loop()
        pool = self._pool(loop)
        self._lifespans.append(loop)
        try:
            yield
        finally:
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._shutdown_timeout):
                        await pool.join()
            finally:
                self._lifespans.remove(loop)
                await pool.cancel(self._shutdown_timeout)

    def _submit(self, job: Job) -> None:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        opened = [loop for loop in self._lifespans if not loop.is_closed()]
        loop = running if running in opened or not opened else opened[-1]
        if loop is None:
            raise ConfigurationError(f"{job.name} cannot start: there is no running event loop, and no lifespan of the TaskRunner")
        if not opened:
            logger.warning("%s is started outside the lifespan of its TaskRunner: no shutdown waits for it", job.name)
        pool = self._pool(loop)
        if loop is running:
            pool.add(job)
        else:
            loop.call_soon_threadsafe(pool.add, job)

    def _pool(self, loop: asyncio.AbstractEventLoop) -> "Pool":
        return self._pools.setdefault(loop, Pool(self._max_concurrency))


class Pool:
    """The jobs of one event loop."""

    def __init__(self, max_concurrency: int) -> None:
        self.max_concurrency = max_concurrency
        self.waiting: deque[Job] = deque()
        self.running: dict[asyncio.Task[None], Job] = {}

    def add(self, job: Job) -> None:
        self.waiting.append(job)
        # Not now: with an eager task factory the job would begin inside its caller, which may be a COMMIT.
        asyncio.get_running_loop().call_soon(self.fill)

    async def join(self) -> None:
        while self.waiting or self.running:
            await (asyncio.wait(list(self.running)) if self.running else asyncio.sleep(0))

    async def cancel(self, seconds: float) -> None:
        """Cancel all jobs and drop those that wait. *seconds* is how long they had; it is logged."""
        cancelled = [*(job for task, job in self.running.items() if task.cancel()), *self.waiting]
        self.waiting.clear()
        if cancelled:
            logger.error("Shutdown: %d background tasks cancelled after %g seconds: %s", len(cancelled), seconds, names_of(cancelled))
        if self.running:
            await asyncio.wait(list(self.running), timeout=CLEANUP_SECONDS)
        if self.running:
            logger.error("Shutdown: %d background tasks ignore their cancellation: %s", len(self.running), names_of(self.running.values()))

    def fill(self) -> None:
        while self.waiting and len(self.running) < self.max_concurrency:
            job = self.waiting.popleft()
            task = asyncio.get_running_loop().create_task(job.run(), name=job.name, context=job.context)
            self.running[task] = job
            task.add_done_callback(self.remove)

    def remove(self, task: asyncio.Task[None]) -> None:
        del self.running[task]
        if not task.cancelled():
            # A SystemExit has left the loop already. Reading it here keeps asyncio from reporting it again.
            task.exception()
        self.fill()


class RequestOutcome:
    """Whether the handler of a request and its function-scoped dependencies, those that commit, have ended without an exception."""

    def __init__(self, scope: Scope) -> None:
        self.is_success = False
        self._outer_exception = sys.exception()
        # An exception that reaches a request-scoped dependency may come from the commit, or from sending to a client that has
        # disconnected. Only a callback at the bottom of FastAPI's exit stack, which is called last, can tell.
        stack: AsyncExitStack = scope["fastapi_function_astack"]
        others = stack.pop_all()
        stack.push(self.note)
        stack.push_async_exit(others)

    def note(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        # A dependency may have suppressed the handler's exception. The stack is left while that is still being handled.
        self.is_success = error is None and sys.exception() is self._outer_exception


async def run_in_thread(call: Callable[[], object]) -> object:
    # Not in a pool: at exit the interpreter waits for the threads of pools, however long a call hangs.
    outcome: Future[tuple[object, BaseException | None]] = Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result = call()
        except BaseException as error:
            # As a value: a future does not accept StopIteration as its exception.
            outcome.set_result((None, error))
        else:
            outcome.set_result((result, None))

    Thread(target=copy_context().run, args=(run,), daemon=True).start()
    result, error = await asyncio.wrap_future(outcome)
    if error is not None:
        raise error
    return result


def names_of(jobs: Iterable[Job]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in Counter(job.name for job in jobs).most_common())
