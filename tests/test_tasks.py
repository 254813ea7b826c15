"""Background tasks: when they start, what happens to their errors, how they end."""

import asyncio
import gc
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import Message, Receive, Scope, Send
from tests.tables.library import AuthorCreate, AuthorService, LoanCreate, LoanService

from fastapi_kit import tasks as tasks_module
from fastapi_kit.app import create_app
from fastapi_kit.db import Database, on_commit, unit_of_work
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.middleware import RequestIdMiddleware, get_request_id
from fastapi_kit.settings import KitSettings
from fastapi_kit.tasks import TaskRunner, Tasks
from fastapi_kit.testing import app_client, isolated

App = Callable[[Scope, Receive, Send], Awaitable[None]]
SendHook = Callable[[Message], Awaitable[None]]

runner = TaskRunner()
RunnerTasks = Annotated[Tasks, runner.after_response]


@pytest.fixture(autouse=True)
async def within_its_lifespan() -> AsyncIterator[None]:
    """Most tests use the runner inside its lifespan. The others create their own."""
    async with runner.lifespan(None):
        yield


@pytest.fixture
def ran() -> list[str]:
    """The names of the tasks that ran."""
    return []


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG, logger="fastapi_kit.tasks"):
        yield caplog


def records(log: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in log.records if record.name == "fastapi_kit.tasks"]


def app_with(handler: Callable[..., object]) -> FastAPI:
    app = FastAPI()
    app.post("/")(handler)
    return app


async def post(app: App, **options: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="https://test") as client:
        return await client.post("/", **options)


def before_sending(app: App, hook: SendHook) -> App:
    """Call *hook* with each message on its way to the client."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        async def hooked(message: Message) -> None:
            await hook(message)
            await send(message)

        await app(scope, receive, hooked)

    return call


async def count(library: Database) -> int:
    async with library.begin() as session:
        return await AuthorService(session).count()


# --- The tasks of a request ---


async def test_tasks_start_when_the_response_has_been_sent() -> None:
    """Tasks start after the last part of the body, streamed or not."""
    events: list[str] = []

    async def note(message: Message) -> None:
        await asyncio.sleep(0)
        events.append("last" if message["type"] == "http.response.body" and not message.get("more_body") else "earlier")

    async def pieces() -> AsyncIterator[str]:
        yield "a"
        await asyncio.sleep(0)
        yield "b"

    async def handler(tasks: RunnerTasks) -> StreamingResponse:
        tasks.add(events.append, "work")
        return StreamingResponse(pieces())

    await post(before_sending(app_with(handler), note))
    await runner.join()

    assert events == ["earlier", "earlier", "earlier", "last", "work"]


async def test_tasks_start_after_the_commit_with_sessions_of_their_own(library: Database) -> None:
    """A task reads what the request wrote, in another session. The request's connection is back in the pool."""
    sessions: list[AsyncSession] = []
    counts: list[int] = []

    async def work() -> None:
        async with library.begin() as session:
            sessions.append(session)
            counts.append(await AuthorService(session).count())

    async def handler(session: Annotated[AsyncSession, library.transaction], tasks: RunnerTasks) -> None:
        sessions.append(session)
        tasks.add(work)
        await AuthorService(session).create(AuthorCreate(email="new@example.org"))

    response = await post(app_with(handler))
    await runner.join()

    assert response.status_code == 200
    assert counts == [1]
    assert sessions[0] is not sessions[1]


async def test_tasks_do_not_run_if_the_commit_fails(ran: list[str], library: Database) -> None:
    """The order in which the handler declares tasks and session does not matter."""

    async def session_first(session: Annotated[AsyncSession, library.transaction], tasks: RunnerTasks) -> None:
        tasks.add(ran.append, "session first")
        await LoanService(session).create(LoanCreate(book_id=99))

    async def tasks_first(tasks: RunnerTasks, session: Annotated[AsyncSession, library.transaction]) -> None:
        await session_first(session, tasks)

    for handler in (session_first, tasks_first):
        assert (await post(app_with(handler))).status_code == 500
    await runner.join()

    assert ran == []


async def reject() -> None:
    raise HTTPException(401)


async def needs_a_number(number: int) -> None: ...


async def fail() -> None:
    raise ZeroDivisionError("a bug")


@pytest.mark.parametrize("error", [HTTPException(409), ZeroDivisionError("a bug")])
async def test_tasks_are_dropped_if_the_handler_raises(ran: list[str], error: Exception) -> None:
    """HTTPException is included, as for db.transaction."""

    async def handler(tasks: RunnerTasks) -> None:
        tasks.add(ran.append, "work")
        raise error

    assert (await post(app_with(handler))).status_code >= 400
    await runner.join()
    assert ran == []


async def swallow() -> AsyncIterator[None]:
    with suppress(Exception):
        yield


Swallowing = Annotated[None, Depends(swallow, scope="function")]


@pytest.mark.parametrize("error", [HTTPException(409), ZeroDivisionError("a bug")])
async def test_tasks_are_dropped_if_a_dependency_swallows_the_handlers_exception(ran: list[str], error: Exception) -> None:
    """The order of declaration does not matter. The request has failed, because there is no response."""

    async def swallowing_first(_: Swallowing, tasks: RunnerTasks) -> None:
        tasks.add(ran.append, "work")
        raise error

    async def tasks_first(tasks: RunnerTasks, _: Swallowing) -> None:
        tasks.add(ran.append, "work")
        raise error

    def in_thread(tasks: RunnerTasks, _: Swallowing) -> None:
        tasks.add(ran.append, "work")
        raise error

    for handler in (swallowing_first, tasks_first, in_thread):
        assert (await post(app_with(handler))).status_code == 500
    await runner.join()

    assert ran == []


async def test_tasks_run_in_an_app_that_is_called_while_an_exception_is_handled(ran: list[str]) -> None:
    """The exception around the call is not the request's exception."""

    async def handler(tasks: RunnerTasks, _: Swallowing) -> None:
        tasks.add(ran.append, "work")

    app = app_with(handler)

    async def second_try(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            raise LookupError
        except LookupError:
            await app(scope, receive, send)

    assert (await post(second_try)).status_code == 200
    await runner.join()

    assert ran == ["work"]


async def test_tasks_are_dropped_if_the_request_is_rejected(ran: list[str]) -> None:
    """A dependency, validation, or a response that does not match its model may reject the request."""

    async def adds(tasks: RunnerTasks) -> None:
        tasks.add(ran.append, "work")

    async def handler() -> int:
        return "no number"  # type: ignore[return-value]

    rejected, invalid, unfit = FastAPI(), FastAPI(), FastAPI()
    rejected.post("/", dependencies=[Depends(adds), Depends(reject)])(handler)
    invalid.post("/", dependencies=[Depends(adds)])(needs_a_number)
    unfit.post("/", dependencies=[Depends(adds)])(handler)
    statuses = [(await post(app)).status_code for app in (rejected, invalid, unfit)]
    await runner.join()

    assert statuses == [401, 422, 500]
    assert ran == []


async def test_tasks_run_after_an_error_response_that_is_returned(ran: list[str]) -> None:
    """An error response is not an exception, and the writes are committed. FastAPI's BackgroundTasks run as well."""

    async def handler(tasks: RunnerTasks) -> JSONResponse:
        tasks.add(ran.append, "work")
        return JSONResponse({}, 400)

    assert (await post(app_with(handler))).status_code == 400
    await runner.join()
    assert ran == ["work"]


async def broken_pipe(message: Message) -> None:
    raise OSError("the client went away")


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
@pytest.mark.parametrize("streams", [True, False])
async def test_tasks_run_if_the_client_went_away(ran: list[str], spec_version: str, streams: bool) -> None:
    """The writes were committed. Whether the response arrives does not matter."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"

    async def handler(tasks: RunnerTasks) -> Any:
        tasks.add(ran.append, "work")
        return StreamingResponse(pieces()) if streams else JSONResponse({})

    app = app_with(handler)

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "asgi": {"version": "3.0", "spec_version": spec_version}}, receive, send)

    await post(before_sending(served, broken_pipe))
    await runner.join()

    assert ran == ["work"]


async def test_tasks_run_if_a_streamed_body_fails(ran: list[str]) -> None:
    """The commit came before the body."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        raise ZeroDivisionError

    async def handler(tasks: RunnerTasks) -> StreamingResponse:
        tasks.add(ran.append, "work")
        return StreamingResponse(pieces())

    await post(app_with(handler))
    await runner.join()

    assert ran == ["work"]


async def test_tasks_run_if_the_request_is_cancelled_while_it_is_answered(ran: list[str]) -> None:
    """A server may cancel the request while it is answered."""
    sending = asyncio.Event()

    async def endless(message: Message) -> None:
        sending.set()
        await asyncio.sleep(3600)

    async def handler(tasks: RunnerTasks) -> None:
        tasks.add(ran.append, "work")

    request = asyncio.create_task(post(before_sending(app_with(handler), endless)))
    await sending.wait()
    request.cancel()
    await asyncio.wait([request])
    await runner.join()

    assert ran == ["work"]


async def test_tasks_are_dropped_if_the_handler_is_cancelled(ran: list[str]) -> None:
    """Nothing was committed."""
    inside = asyncio.Event()

    async def handler(tasks: RunnerTasks) -> None:
        tasks.add(ran.append, "work")
        inside.set()
        await asyncio.sleep(3600)

    request = asyncio.create_task(post(app_with(handler)))
    await inside.wait()
    request.cancel()
    await asyncio.wait([request])
    await runner.join()

    assert ran == []


async def test_the_app_is_done_before_its_tasks() -> None:
    """A keep-alive connection accepts its next request while the tasks run."""
    may_end = asyncio.Event()

    async def handler(tasks: RunnerTasks) -> None:
        tasks.add(may_end.wait)

    app = app_with(handler)
    assert [(await post(app)).status_code for _ in range(2)] == [200, 200]

    may_end.set()
    await runner.join()


async def test_a_request_has_one_tasks_object(ran: list[str]) -> None:
    """Dependencies, also those that commit, and sync handlers add to the same object, in order."""

    async def note(what: str) -> None:
        ran.append(what)

    async def audit(tasks: RunnerTasks) -> AsyncIterator[None]:
        tasks.add(note, "dependency")
        yield
        tasks.add(note, "its end")

    def in_thread(tasks: RunnerTasks) -> Tasks:
        return tasks

    def handler(
        tasks: RunnerTasks,
        same: Annotated[Tasks, Depends(in_thread)],
        audited: Annotated[None, Depends(audit, scope="function")],
    ) -> bool:
        tasks.add(note, "handler")
        return tasks is same

    response = await post(app_with(handler))
    await runner.join()

    assert response.json() is True
    assert ran == ["dependency", "handler", "its end"]


async def test_tasks_work_in_included_routers_and_mounted_apps(ran: list[str]) -> None:
    """Tasks run after a commit in included routers and in mounted applications."""

    async def adds(tasks: RunnerTasks) -> None:
        tasks.add(ran.append, "dependency")

    async def handler(tasks: RunnerTasks) -> None:
        tasks.add(ran.append, "handler")

    router = APIRouter(prefix="/in", dependencies=[Depends(adds)])
    router.add_api_route("/", handler, methods=["POST"])
    inner, app = FastAPI(dependencies=[Depends(adds)]), FastAPI()
    inner.include_router(router)
    app.mount("/sub", inner)
    async with app_client(app) as client:
        assert (await client.post("/sub/in/")).status_code == 200
    await runner.join()

    assert sorted(ran) == ["dependency", "handler"]


async def test_tasks_can_be_queued_for_a_commit(ran: list[str], library: Database) -> None:
    """With on_commit(session, tasks.add, ...) the task waits for the commit and for the response."""

    async def handler(session: Annotated[AsyncSession, library.transaction], tasks: RunnerTasks) -> None:
        on_commit(session, tasks.add, ran.append, "committed")
        await AuthorService(session).create(AuthorCreate(email="new@example.org"))
        try:
            async with unit_of_work(session) as uow:
                uow.on_commit(tasks.add, ran.append, "undone")
                await AuthorService(session).create(AuthorCreate(email="other@example.org"))
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass

    await post(app_with(handler))
    await runner.join()

    assert ran == ["committed"]


async def test_adding_to_a_request_that_is_over_is_rejected(log: pytest.LogCaptureFixture) -> None:
    """A late task raises an error and is not dropped silently."""
    kept: list[Tasks] = []

    async def handler(tasks: RunnerTasks) -> None:
        kept.append(tasks)

    await post(app_with(handler))

    with pytest.raises(ConfigurationError, match="over"):
        kept[0].add(print)


async def test_a_websocket_has_no_tasks() -> None:
    """A websocket has no response, so declaring tasks raises an error."""
    app = FastAPI()

    @app.websocket("/")
    async def handler(websocket: WebSocket, tasks: RunnerTasks) -> None: ...

    messages = iter([{"type": "websocket.connect"}])

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None: ...

    scope: dict[str, Any] = {"type": "websocket", "path": "/", "query_string": b"", "headers": [], "subprotocols": []}
    with pytest.raises(ConfigurationError, match="websocket"):
        await app(scope, receive, send)


# --- How the work runs ---


async def test_the_request_id_is_carried() -> None:
    """Async tasks, and sync tasks in their thread, have the request id."""
    ids: list[str | None] = []

    async def note() -> None:
        note_in_thread()

    def note_in_thread() -> None:
        ids.append(get_request_id())

    async def handler(tasks: RunnerTasks) -> None:
        tasks.add(note)
        tasks.add(note_in_thread)
        runner.start(note)

    await post(RequestIdMiddleware(app_with(handler)), headers={"X-Request-ID": "a-request-id"})
    await runner.join()

    assert ids == ["a-request-id"] * 3
    assert get_request_id() is None


place: ContextVar[str] = ContextVar("place", default="outside")


async def test_work_has_the_context_of_the_moment_it_was_added() -> None:
    """A task gets a copy of the context, also if it has to wait."""
    own, seen = TaskRunner(max_concurrency=1), list[str]()

    async def work() -> None:
        seen.append(place.get())
        place.set("work")

    async with own.lifespan(None):
        for name in ("first", "second"):
            token = place.set(name)
            own.start(work)
            place.reset(token)

    assert seen == ["first", "second"]
    assert place.get() == "outside"


async def test_a_failing_task_is_logged_and_stops_nothing(ran: list[str], log: pytest.LogCaptureFixture) -> None:
    """The log has the traceback, the request id and the name, without the arguments."""

    async def send_mail(password: str, *, token: str) -> None:
        raise ZeroDivisionError

    async def handler(tasks: RunnerTasks) -> None:
        tasks.add(send_mail, "secret", token="secret")
        tasks.add(ran.append, "the next one")

    await post(RequestIdMiddleware(app_with(handler)), headers={"X-Request-ID": "a-request-id"})
    await runner.join()

    (record,) = records(log)
    assert ran == ["the next one"]
    assert record.levelname == "ERROR"
    assert record.getMessage().endswith("send_mail of request a-request-id failed")
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    assert "secret" not in log.text


class OwnBaseException(BaseException):
    pass


async def awaits_something_cancelled() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


@pytest.mark.parametrize("error", [StopIteration(), OwnBaseException(), asyncio.CancelledError(), GeneratorExit()])
@pytest.mark.parametrize("in_thread", [True, False])
async def test_whatever_is_raised_is_logged(log: pytest.LogCaptureFixture, error: BaseException, in_thread: bool) -> None:
    """Any exception is logged, also one that is not an Exception or that a future does not accept."""

    def work() -> None:
        raise error

    async def async_work() -> None:
        work()

    runner.start(work if in_thread else async_work)
    await runner.join()

    assert [record.levelname for record in records(log)] == ["ERROR"]


async def test_a_cancelled_future_fails_the_task_that_awaits_it(log: pytest.LogCaptureFixture) -> None:
    """The task itself was not cancelled, so its end is an error."""
    runner.start(awaits_something_cancelled)
    await runner.join()

    assert "awaits_something_cancelled" in log.text


def test_leaving_the_process_is_no_error(log: pytest.LogCaptureFixture) -> None:
    """SystemExit and KeyboardInterrupt end the event loop and are not logged."""

    def leave() -> None:
        raise SystemExit(3)

    async def main() -> None:
        own = TaskRunner()
        async with own.lifespan(None):
            own.start(leave)
            await own.join()

    with pytest.raises(SystemExit):
        asyncio.run(main())
    gc.collect()

    assert "leave" not in log.text


class Mailer:
    def __init__(self) -> None:
        self.sent: list[str] = []

    async def __call__(self, address: str) -> None:
        self.sent.append(address)

    async def send(self, address: str) -> None:
        self.sent.append(address)

    def send_blocking(self, address: str) -> None:
        self.sent.append(address)


async def test_every_kind_of_callable_runs() -> None:
    """Methods, partials, callable objects, and sync functions that return an awaitable."""
    mailer = Mailer()
    kinds: list[Callable[[], object]] = [
        partial(mailer, "object"),
        partial(partial(mailer.send, "partial")),
        partial(mailer.send_blocking, "sync partial"),
        lambda: mailer.send("lambda"),
    ]

    for kind in kinds:
        runner.start(kind)
    runner.start(mailer, "called")
    runner.start(mailer.send, address="method")
    await runner.join()

    assert sorted(mailer.sent) == ["called", "lambda", "method", "object", "partial", "sync partial"]


async def test_async_work_stays_in_the_loop_and_sync_work_leaves_it() -> None:
    """A blocking function does not stop the event loop."""
    threads: dict[str, threading.Thread] = {}
    may_end = threading.Event()

    async def note() -> None:
        threads["async"] = threading.current_thread()
        may_end.set()

    def block() -> None:
        threads["sync"] = threading.current_thread()
        may_end.wait()

    runner.start(block)
    runner.start(note)
    await runner.join()

    assert threads["async"] is threading.current_thread()
    assert threads["sync"] is not threading.current_thread()


async def test_at_most_max_concurrency_run_and_the_rest_keep_its_order() -> None:
    """Tasks start in the order in which they were added."""
    narrow = TaskRunner(max_concurrency=2)
    running, most, order = 0, 0, list[int]()

    async def work(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(number)
        await asyncio.sleep(0)
        running -= 1

    async with narrow.lifespan(None):
        for number in range(6):
            narrow.start(work, number)

    assert most == 2
    assert order == list(range(6))


async def test_the_end_of_its_caller_does_not_touch_the_work() -> None:
    """The tasks of a cancelled request go on, and are not garbage-collected."""
    may_end, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await may_end.wait()
        ended.set()

    async def request() -> None:
        runner.start(work)
        await asyncio.sleep(3600)

    caller = asyncio.create_task(request())
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller])
    may_end.set()
    await runner.join()

    assert ended.is_set()


# --- Started by hand ---


async def test_on_commit_starts_work(library: Database, log: pytest.LogCaptureFixture) -> None:
    """A task starts after the COMMIT, and does not start after a rollback."""
    counts: list[int] = []

    async def work() -> None:
        counts.append(await count(library))

    async with library.begin() as session:
        async with unit_of_work(session) as uow:
            uow.on_commit(runner.start, work)
            await AuthorService(session).create(AuthorCreate(email="new@example.org"))
        await asyncio.sleep(0)
        assert counts == []
    with pytest.raises(ZeroDivisionError):
        async with library.begin() as session:
            on_commit(session, runner.start, work)
            await AuthorService(session).create(AuthorCreate(email="other@example.org"))
            raise ZeroDivisionError
    await runner.join()

    assert counts == [1]
    assert records(log) == []


async def test_start_begins_nothing_itself() -> None:
    """Even with an eager task factory the caller, which may be in a COMMIT, goes on first."""
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    made: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        made.append("task")
        return asyncio.Task(coroutine, loop=loop, **options)

    loop.set_task_factory(factory)
    try:
        runner.start(fail_quietly)
        assert made == []
        await runner.join()
    finally:
        loop.set_task_factory(before)

    assert made == ["task"]


async def fail_quietly() -> None: ...


async def test_a_sync_handler_starts_work() -> None:
    """It is called from a worker thread, in which no event loop runs."""
    threads: list[threading.Thread] = []

    async def work() -> None:
        threads.append(threading.current_thread())

    def handler() -> None:
        runner.start(work)

    assert (await post(app_with(handler))).status_code == 200
    await runner.join()

    assert threads == [threading.current_thread()]


async def test_work_from_a_short_lived_loop_runs_in_the_one_of_the_lifespan() -> None:
    """Otherwise asyncio.run() in a sync task would cancel the new task when it ends."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def work() -> None:
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())

    async def start() -> None:
        runner.start(work)

    runner.start(lambda: asyncio.run(start()))
    await runner.join()

    assert loops == [asyncio.get_running_loop()]


async def test_without_its_lifespan_work_runs_with_a_warning(ran: list[str], log: pytest.LogCaptureFixture) -> None:
    """Tests and scripts may do so. The warning tells the developer that the lifespan is missing."""
    own = TaskRunner()

    async with own.lifespan(None):
        pass
    own.start(ran.append, "work")
    await own.join()

    assert ran == ["work"]
    assert [record.levelname for record in records(log)] == ["WARNING"]
    assert "list.append is started outside the lifespan" in log.text


async def test_without_lifespan_and_loop_work_is_rejected() -> None:
    """There is no event loop that could run it."""
    own = TaskRunner()

    with pytest.raises(ConfigurationError, match="print cannot start"):
        await asyncio.to_thread(own.start, print)


async def test_what_is_not_a_function_is_rejected_at_once() -> None:
    """Passing send_mail(...) instead of send_mail raises an error."""
    wrong: Any = "send_mail"

    with pytest.raises(TypeError):
        runner.start(wrong)


# --- The end ---


async def test_the_lifespan_waits_for_running_and_waiting_work(ran: list[str]) -> None:
    """It also waits for the tasks that these tasks start."""
    own = TaskRunner(max_concurrency=1)

    async def work(name: str) -> None:
        await asyncio.sleep(0)
        ran.append(name)
        if name != "child":
            own.start(work, "child")

    async with own.lifespan(None):
        own.start(work, "running")
        own.start(work, "waiting")

    assert ran == ["running", "waiting", "child", "child"]


async def test_a_failing_lifespan_waits_too(ran: list[str]) -> None:
    """The lifespan waits although a later lifespan fails."""
    own = TaskRunner()

    with pytest.raises(ZeroDivisionError):
        async with own.lifespan(None):
            own.start(ran.append, "work")
            raise ZeroDivisionError

    assert ran == ["work"]


async def test_work_past_the_limit_is_cancelled_and_named(log: pytest.LogCaptureFixture) -> None:
    """The tasks are cancelled, may clean up, and are logged by name and number."""
    own, cleaned = TaskRunner(max_concurrency=1, shutdown_timeout=0), list[str]()

    async def endless_work(secret: str) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            cleaned.append("cleaned")

    async with own.lifespan(None):
        own.start(endless_work, "secret")
        own.start(endless_work, "secret")
        own.start(fail)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    (record,) = records(log)
    assert cleaned == ["cleaned"]
    assert record.getMessage().startswith("Shutdown: 3 background tasks cancelled after 0 seconds: ")
    assert "endless_work (2), fail (1)" in record.getMessage()
    assert "secret" not in log.text


async def test_work_that_swallows_its_cancellation_does_not_hang_the_shutdown(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shutdown goes on without it, and logs it."""
    own, may_end = TaskRunner(shutdown_timeout=0), asyncio.Event()

    async def deaf() -> None:
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue

    monkeypatch.setattr(tasks_module, "CLEANUP_SECONDS", 0.01)
    async with own.lifespan(None):
        own.start(deaf)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    may_end.set()
    await own.join()

    assert "1 background tasks ignore their cancellation" in log.text


async def test_work_that_starts_itself_again_does_not_hang_the_shutdown(log: pytest.LogCaptureFixture) -> None:
    """The time limit holds for all tasks together."""
    own = TaskRunner(shutdown_timeout=0.01)

    async def again() -> None:
        own.start(again)

    async with own.lifespan(None):
        own.start(again)

    assert "again (1)" in log.text


async def test_a_cancelled_shutdown_cancels_the_work(log: pytest.LogCaptureFixture) -> None:
    """If the server cancels the shutdown, the tasks are cancelled and logged."""
    own, stopping = TaskRunner(shutdown_timeout=3600), asyncio.Event()

    async def endless_work() -> None:
        await asyncio.sleep(3600)

    async def serve() -> None:
        async with own.lifespan(None):
            own.start(endless_work)
            stopping.set()

    server = asyncio.create_task(serve())
    await stopping.wait()
    await asyncio.sleep(0)
    server.cancel()
    await asyncio.wait([server])

    assert server.cancelled()
    assert "endless_work (1)" in log.text


@pytest.mark.only_full
def test_a_hanging_function_does_not_keep_the_process() -> None:
    """A thread cannot be stopped, but the interpreter does not wait for it."""
    program = """
import asyncio, threading
from fastapi_kit.tasks import TaskRunner

async def main():
    runner = TaskRunner(shutdown_timeout=0.01)
    async with runner.lifespan(None):
        runner.start(threading.Event().wait)

asyncio.run(main())
print("ended")
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert (done.returncode, done.stdout) == (0, "ended\n")


async def test_work_at_shutdown_still_has_its_database(library: Database) -> None:
    """create_app closes lifespans in reverse order and enters the database first."""
    own = TaskRunner()
    app = create_app(KitSettings(SECRET_KEY=SecretStr("k" * 32)), database=library, lifespans=[own.lifespan])
    may_go = asyncio.Event()

    async def work() -> None:
        await may_go.wait()
        async with library.begin() as session:
            await AuthorService(session).create(AuthorCreate(email="late@example.org"))

    @app.post("/")
    async def handler(tasks: Annotated[Tasks, own.after_response]) -> None:
        tasks.add(work)

    async with app_client(app) as client:
        await client.post("/")
        asyncio.get_running_loop().call_soon(may_go.set)

    assert await count(library) == 1


def test_a_runner_serves_one_loop_after_the_other(ran: list[str]) -> None:
    """An application in tests may run in several loops."""
    own = TaskRunner()

    async def main(name: str) -> None:
        async with own.lifespan(None):
            own.start(ran.append, name)

    for name in ("first", "second"):
        asyncio.run(main(name))

    assert ran == ["first", "second"]


async def test_join_lets_a_test_go_on_between_two_requests(library: Database) -> None:
    """An isolated database has one session at a time, so the test must wait."""
    own = TaskRunner()
    app = FastAPI(lifespan=own.lifespan)

    async def work() -> None:
        async with library.begin() as session:
            await AuthorService(session).create(AuthorCreate(email="new@example.org"))

    @app.post("/")
    async def handler(tasks: Annotated[Tasks, own.after_response]) -> None:
        tasks.add(work)

    async with isolated(library), app_client(app) as client:
        await client.post("/")
        await own.join()

        assert await count(library) == 1


@pytest.mark.parametrize("options", [{"max_concurrency": 0}, {"shutdown_timeout": -1}, {"shutdown_timeout": float("nan")}])
def test_senseless_limits_are_rejected(options: dict[str, Any]) -> None:
    """Limits that make no sense are rejected."""
    with pytest.raises(ConfigurationError):
        TaskRunner(**options)
