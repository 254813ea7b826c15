"""ServerTimingMiddleware and timed(): where the time went, in one header."""

import asyncio
from collections.abc import Iterator
from itertools import count

import pytest
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from tests.middleware.asgi import Answer, ask, http_scope, websocket_scope

from fastapi_kit.errors import ConfigurationError
from fastapi_kit.middleware import ServerTimingMiddleware, server_timing, timed


@pytest.fixture(autouse=True)
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that advances by one second each time it is read."""
    ticks = count()
    monkeypatch.setattr(server_timing, "perf_counter", lambda: float(next(ticks)))


def timings(answer: Answer) -> dict[str, float]:
    """Return the values of the header, in milliseconds."""
    (value,) = answer.values("server-timing")
    pairs = (entry.split(";dur=") for entry in value.split(", "))
    return {name: float(milliseconds) for name, milliseconds in pairs}


def make_app() -> FastAPI:
    app = FastAPI()
    app.add_middleware(ServerTimingMiddleware)

    @app.get("/blocks")
    async def blocks() -> None:
        with timed("db"):
            pass
        with timed("render"), timed("db"):
            pass

    return app


async def test_the_total_and_the_blocks_are_in_one_header() -> None:
    """The header has the total and the sum of the blocks of each name; blocks may be nested."""
    answer = await ask(make_app(), http_scope("/blocks"))

    assert answer.values("server-timing") == ["total;dur=7000.00, db;dur=2000.00, render;dur=3000.00"]


async def test_a_block_that_fails_counts() -> None:
    """A block that raises is timed too."""
    app = make_app()

    @app.get("/failing")
    async def failing() -> None:
        try:
            with timed("db"):
                raise LookupError
        except LookupError:
            pass

    assert "db" in timings(await ask(app, http_scope("/failing")))


async def test_tasks_and_threads_of_the_request_count() -> None:
    """Blocks in gathered tasks and in a thread are in the header."""
    app = make_app()

    async def work(name: str) -> None:
        with timed(name):
            await asyncio.sleep(0)

    def in_thread() -> None:
        with timed("thread"):
            pass

    @app.get("/gathered")
    async def gathered() -> None:
        await asyncio.gather(work("a"), work("b"), work("a"), asyncio.to_thread(in_thread))

    assert set(timings(await ask(app, http_scope("/gathered")))) == {"total", "a", "b", "thread"}


async def test_requests_at_the_same_time_have_their_own_blocks() -> None:
    """Two requests at the same time have their own blocks."""
    app, both = make_app(), asyncio.Barrier(2)

    @app.get("/{name}")
    async def meet(name: str) -> None:
        with timed(name):
            await both.wait()

    first, second = await asyncio.gather(ask(app, http_scope("/a")), ask(app, http_scope("/b")))

    assert (set(timings(first)), set(timings(second))) == ({"total", "a"}, {"total", "b"})


async def test_what_ends_after_the_start_is_not_sent() -> None:
    """Blocks in a streamed body and in background tasks are ignored."""
    app, collected = make_app(), list[server_timing.Blocks | None]()

    def parts() -> Iterator[str]:
        with timed("stream"):
            yield "a"
        collected.append(server_timing._current.get())

    def later() -> None:
        with timed("background"):
            pass

    @app.get("/stream")
    async def stream(tasks: BackgroundTasks) -> StreamingResponse:
        tasks.add_task(later)
        return StreamingResponse(parts(), background=tasks)

    answer = await ask(app, http_scope("/stream", asgi={"version": "3.0", "spec_version": "2.4"}))

    assert (answer.error, set(timings(answer))) == (None, {"total"})
    assert [blocks and blocks.ended for blocks in collected] == [[]]


async def test_a_block_outside_a_request_does_nothing() -> None:
    """A block outside a request does nothing."""
    with timed("before"):
        pass
    await ask(make_app(), http_scope("/blocks"))

    with timed("after"):
        pass

    assert server_timing._current.get() is None
    assert timings(await ask(make_app(), http_scope("/blocks"))).keys() == {"total", "db", "render"}


@pytest.mark.parametrize("name", ["", "a b", "a,b", "a;b", 'a"', "ä", "a\r\nb", "a=b", "total"])
def test_an_invalid_name_raises(name: str) -> None:
    """A name that is not a token (RFC 9110, 5.6.2), or is total, raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match="cannot name a block"), timed(name):
        pass


async def test_the_apps_own_header_is_joined() -> None:
    """Server-Timing of the app itself comes first in the same header."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"Server-Timing", b"cache;desc=hit"), (b"a", b"b"), (b"server-timing", b"db;dur=1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    answer = await ask(ServerTimingMiddleware(app), http_scope())

    assert answer.values("server-timing") == ["cache;desc=hit, db;dur=1, total;dur=1000.00"]
    assert answer.values("a") == ["b"]


async def test_a_mounted_app_is_timed_once() -> None:
    """Of two middlewares the outer one sends the header with all blocks."""
    outer = make_app()
    outer.mount("/inner", make_app())

    answer = await ask(outer, http_scope("/inner/blocks"))

    (value,) = answer.values("server-timing")
    assert [entry.partition(";")[0] for entry in value.split(", ")] == ["total", "db", "render"]


async def test_a_response_that_is_sent_twice_stays_as_it_is() -> None:
    """The list of headers of the app is not changed."""
    cached = JSONResponse({})
    before = [*cached.raw_headers]

    await ask(ServerTimingMiddleware(cached), http_scope())

    assert cached.raw_headers == before


@pytest.mark.parametrize("scope", [websocket_scope(), {"type": "lifespan"}])
async def test_other_connections_pass_through(scope: Scope) -> None:
    """WebSockets get no header."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with timed("a"):
            await send({"type": "websocket.accept"})

    answer = await ask(ServerTimingMiddleware(app), scope)

    assert answer.messages == [{"type": "websocket.accept"}]
