"""AccessLogMiddleware: one record per request, and nothing secret in it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from opentelemetry.trace import NonRecordingSpan, SpanContext, use_span
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send
from tests.middleware.asgi import ask, http_scope, websocket_scope

from fastapi_kit.errors import ConfigurationError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.middleware import AccessLogMiddleware, RequestIdMiddleware, access_log

LOGGER = "fastapi_kit.access"
FIELDS = ("method", "route", "status", "duration_ms", "request_id", "trace_id")


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    """The records of the access log."""
    caplog.set_level(logging.DEBUG)
    kept: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = kept.append  # type: ignore[method-assign]
    logger = logging.getLogger(LOGGER)
    logger.addHandler(handler)
    yield kept
    logger.removeHandler(handler)


def fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: record.__dict__[name] for name in FIELDS}


async def plain(request: Request) -> PlainTextResponse:
    return PlainTextResponse("plain")


def make_app(**options: Any) -> FastAPI:
    app = FastAPI()
    register_exception_handlers(app)
    app.add_middleware(AccessLogMiddleware, **options)
    app.add_middleware(RequestIdMiddleware)

    @app.get("/items/{item_id}")
    async def read_item(item_id: int) -> int:
        return item_id

    @app.get("/bug")
    async def fail() -> None:
        raise RuntimeError("a bug")

    return app


async def test_a_request_is_one_record(records: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    """One INFO record has method, route template, status, duration, request id and trace id."""
    ticks = count(1.0, 0.0125)
    monkeypatch.setattr(access_log, "perf_counter", lambda: next(ticks))

    await ask(make_app(), http_scope("/items/7", headers=[(b"x-request-id", b"one")]))

    (record,) = records
    expected = {"method": "GET", "route": "/items/{item_id}", "status": 200, "duration_ms": 12.5, "request_id": "one", "trace_id": None}
    assert fields(record) == expected
    assert record.module == "access_log"
    assert (record.levelname, record.name, record.getMessage()) == ("INFO", LOGGER, "GET /items/{item_id} 200 in 12.5 ms")


def make_large_app(folder: Path) -> FastAPI:
    """Return an app with every kind of route."""
    app, tenant = make_app(), APIRouter(prefix="/inner")
    sub = make_sub_app()

    @tenant.get("/things/{thing:path}")
    async def read_thing(thing: str) -> str:
        return thing

    tenant.add_route("/plain/{name}", plain)
    outer = APIRouter()
    outer.include_router(tenant, prefix="/tenants/{tenant}")
    outer.mount("/mounted/{place}", Starlette(routes=[Route("/plain/{name}", plain), Mount("/deeper", sub)]))
    app.include_router(outer, prefix="/api/v1")
    app.mount("/sub", sub)
    app.mount("/subs/{name}", sub)
    app.mount("/static", StaticFiles(directory=folder))
    app.add_route("/plain", plain)
    app.add_route("/plain/{name}", plain)
    return app


def make_sub_app() -> FastAPI:
    sub = FastAPI()

    @sub.get("/items/{item_id}")
    async def read_item(item_id: str) -> str:
        return item_id

    return sub


@pytest.mark.parametrize(
    ("method", "path", "status", "route"),
    [
        ("GET", "/items/secret", 422, "/items/{item_id}"),
        ("DELETE", "/items/7", 405, "/items/{item_id}"),
        ("GET", "/api/v1/tenants/secret/inner/things/secret/deep", 200, "/api/v1/tenants/{tenant}/inner/things/{thing}"),
        ("GET", "/api/v1/tenants/secret/plain/secret", 200, "/api/v1/tenants/{tenant}/plain/{name}"),
        ("GET", "/api/v1/mounted/secret/plain/secret", 200, "/api/v1/mounted/{place}/plain/{name}"),
        ("GET", "/api/v1/mounted/secret/deeper/items/secret", 200, "/api/v1/mounted/{place}/deeper/items/{item_id}"),
        ("GET", "/api/v1/mounted/secret/secret", 404, "/api/v1/mounted/{place}/{path}"),
        ("GET", "/api/v1/mounted/secret/deeper/secret", 404, "/api/v1/mounted/{place}/deeper/{path}"),
        ("GET", "/sub/items/secret", 200, "/sub/items/{item_id}"),
        ("GET", "/sub/secret", 404, "/sub/{path}"),
        ("GET", "/sub/docs", 200, "/sub/docs"),
        ("GET", "/subs/secret/items/secret", 200, "/subs/{name}/items/{item_id}"),
        ("GET", "/static/there.txt", 200, "/static/{path}"),
        ("GET", "/static/secret", 404, "/static/{path}"),
        ("GET", "/plain", 200, "/plain"),
        ("GET", "/plain/secret", 200, "/plain/{name}"),
        ("GET", "/docs", 200, "/docs"),
        ("GET", "/secret", 404, "-"),
        ("GET", "/plain/", 307, "-"),
        ("GET", "/\nsecret", 404, "-"),
    ],
)
async def test_the_route_is_a_template(
    method: str, path: str, status: int, route: str, records: list[logging.LogRecord], tmp_path: Path
) -> None:
    """The template has the prefixes of routers and mounts, and the record has nothing that the client sent."""
    tmp_path.joinpath("there.txt").write_text("there")

    await ask(make_large_app(tmp_path), http_scope(path, method=method, query_string=b"token=secret"))

    (record,) = records
    assert (record.__dict__["route"], record.__dict__["status"]) == (route, status)
    assert "secret" not in str(record.__dict__)


async def test_files_at_the_root_have_a_template(records: list[logging.LogRecord], tmp_path: Path) -> None:
    """A mount at the root is logged as one route."""
    app = make_app()
    app.mount("/", StaticFiles(directory=tmp_path))

    await ask(app, http_scope("/secret"))

    assert [record.__dict__["route"] for record in records] == ["/{path}"]


@pytest.mark.parametrize(
    ("path", "route"),
    [("/proxy/items/7", "/items/{item_id}"), ("/items/7", "/items/{item_id}"), ("/proxy/sub/items/7", "/sub/items/{item_id}")],
)
async def test_the_root_path_is_not_in_the_template(path: str, route: str, records: list[logging.LogRecord], tmp_path: Path) -> None:
    """The template is the same whether or not a proxy removes its prefix."""
    await ask(make_large_app(tmp_path), http_scope(path, root_path="/proxy"))

    assert [record.__dict__["route"] for record in records] == [route]


async def test_an_app_that_hides_its_scope_has_no_template(records: list[logging.LogRecord]) -> None:
    """Without a known route the record shows a dash, not the path."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("plain")({**scope}, receive, send)

    await ask(AccessLogMiddleware(app), http_scope("/secret"))

    assert records[0].getMessage().startswith("GET - 200 in ")


async def test_a_bug_is_a_warning(records: list[logging.LogRecord]) -> None:
    """A 5xx is one WARNING, and the exception is raised on."""
    answer = await ask(make_app(), http_scope("/bug"))

    assert isinstance(answer.error, RuntimeError)
    assert [(record.levelname, record.__dict__["status"]) for record in records] == [("WARNING", 500)]


async def test_an_unanswered_exception_is_a_500(records: list[logging.LogRecord]) -> None:
    """An exception without a response is logged as 500, which the server sends."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("a bug")

    answer = await ask(AccessLogMiddleware(app), http_scope())

    assert isinstance(answer.error, RuntimeError)
    assert [record.__dict__["status"] for record in records] == [500]


async def test_a_client_that_leaves_during_its_body_is_a_499(records: list[logging.LogRecord], caplog: pytest.LogCaptureFixture) -> None:
    """A client that leaves while it sends its body is logged as 499, at INFO."""
    app = make_app()

    @app.post("/raw")
    async def read(request: Request) -> int:
        return len(await request.body())

    scope = http_scope("/raw", method="POST")
    answer = await ask(app, scope, {"type": "http.request", "body": b"a", "more_body": True})

    assert [(record.levelname, record.__dict__["status"]) for record in records] == [("INFO", 499)]
    assert type(answer.error).__name__ == "ClientDisconnect"
    assert "Unhandled" not in caplog.text


async def test_a_cancelled_request_is_a_499(records: list[logging.LogRecord]) -> None:
    """A cancelled request is logged as 499, and the cancellation is raised on."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    answer = await ask(AccessLogMiddleware(app), http_scope())

    assert isinstance(answer.error, asyncio.CancelledError)
    assert [record.__dict__["status"] for record in records] == [499]


async def test_a_request_without_answer_is_a_499(records: list[logging.LogRecord]) -> None:
    """An app that returns without a response is logged as 499."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    await ask(AccessLogMiddleware(app), http_scope())

    assert [record.__dict__["status"] for record in records] == [499]


async def test_a_stream_lasts_to_its_end(records: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is written after the last part, with the duration of the whole response."""
    app, now, seen_before_the_end = make_app(), [0.0], list[logging.LogRecord]()
    monkeypatch.setattr(access_log, "perf_counter", lambda: now[0])

    async def parts() -> AsyncIterator[str]:
        for part in "abc":
            now[0] += 1
            seen_before_the_end.extend(records)
            yield part

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(parts())

    await ask(app, http_scope("/stream", asgi={"version": "3.0", "spec_version": "2.4"}))

    assert seen_before_the_end == []
    assert [record.__dict__["duration_ms"] for record in records] == [3000]


async def test_a_stream_that_breaks_is_logged_once(records: list[logging.LogRecord]) -> None:
    """A stream that raises is logged once, with the status that was sent."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        raise RuntimeError("a bug")

    await ask(AccessLogMiddleware(app), http_scope())

    assert [record.__dict__["status"] for record in records] == [200]


async def test_background_tasks_are_not_waited_for(records: list[logging.LogRecord]) -> None:
    """The record is written before background tasks run."""
    app, seen = make_app(), list[int]()

    @app.get("/task")
    async def start(tasks: BackgroundTasks) -> None:
        tasks.add_task(lambda: seen.append(len(records)))

    await ask(app, http_scope("/task"))

    assert (seen, len(records)) == ([1], 1)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/metrics"])
async def test_health_checks_are_not_logged(path: str, records: list[logging.LogRecord]) -> None:
    """Health checks and metrics are not logged."""
    await ask(make_app(), http_scope(path))

    assert records == []


@pytest.mark.parametrize(
    ("path", "root_path", "logged"),
    [
        ("/quiet", "", False),
        ("/proxy/quiet", "/proxy", False),
        ("/quiet", "/proxy", False),
        ("/quiet", "/qui", False),
        ("/quiet/", "", True),
        ("/quiet/more", "", True),
        ("/sub/quiet", "", True),
        ("/livez", "", True),
    ],
)
async def test_skip_is_about_whole_paths(path: str, root_path: str, logged: bool, records: list[logging.LogRecord]) -> None:
    """skip= compares whole paths below the root path."""
    await ask(make_app(skip=["/quiet"]), http_scope(path, root_path=root_path))

    assert bool(records) == logged


def test_skip_rejects_one_string() -> None:
    """One string as skip= raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match="not one string"):
        AccessLogMiddleware(FastAPI(), skip="/livez")


async def test_a_failing_log_fails_no_request(records: list[logging.LogRecord]) -> None:
    """If a filter or handler raises, the response is still sent."""

    def broken(record: logging.LogRecord) -> bool:
        raise OSError("disk full")

    logging.getLogger(LOGGER).addFilter(broken)
    try:
        answer = await ask(make_app(), http_scope("/items/7"))
    finally:
        logging.getLogger(LOGGER).removeFilter(broken)

    assert (answer.error, answer.status, answer.body) == (None, 200, b"7")
    assert records == []


async def test_the_trace_is_that_of_the_current_span(records: list[logging.LogRecord]) -> None:
    """The trace id is that of OpenTelemetry's current span."""
    span = NonRecordingSpan(SpanContext(trace_id=0xABC, span_id=1, is_remote=False))

    with use_span(span):
        await ask(make_app(), http_scope("/items/7"))

    assert [record.__dict__["trace_id"] for record in records] == ["00000000000000000000000000000abc"]


async def test_the_logger_can_be_chosen(caplog: pytest.LogCaptureFixture) -> None:
    """logger= names the logger, whose level counts."""
    caplog.set_level(logging.WARNING, logger="app.access")
    app = make_app(logger="app.access")

    await ask(app, http_scope("/items/7"))
    await ask(app, http_scope("/bug"))

    assert [(record.name, record.__dict__["status"]) for record in caplog.records if record.name == "app.access"] == [("app.access", 500)]


@pytest.mark.parametrize(("method", "logged"), [("QUERY", "QUERY"), ("SECRET", "-"), ("get", "-"), ("WEBSOCKET", "-")])
async def test_an_unknown_method_is_a_dash(method: str, logged: str, records: list[logging.LogRecord]) -> None:
    """A method that is not one of HTTP is logged as a dash."""
    await ask(make_app(), http_scope("/items/7", method=method))

    assert [record.__dict__["method"] for record in records] == [logged]


async def deny(send: Send) -> None:
    await send({"type": "websocket.http.response.start", "status": 429, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b"later"})


async def close_first(send: Send) -> None:
    await send({"type": "websocket.close", "code": 1008})


async def accept_and_close(send: Send) -> None:
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 1000})


@pytest.mark.parametrize(("talk", "status"), [(deny, 429), (close_first, 403), (accept_and_close, 101)])
async def test_a_websocket_is_one_record_at_its_end(talk: Any, status: int, records: list[logging.LogRecord]) -> None:
    """A WebSocket is one record with the status of its handshake."""
    seen: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await talk(send)
        seen.append(len(records))

    await ask(AccessLogMiddleware(app), websocket_scope("/secret"))

    assert seen == [0]
    assert [(record.__dict__["method"], record.__dict__["status"]) for record in records] == [("WEBSOCKET", status)]


async def test_a_websocket_has_a_template(records: list[logging.LogRecord]) -> None:
    """The route of a WebSocket has the prefixes of its routers."""
    app, router = make_app(), APIRouter(prefix="/rooms/{room}")

    @router.websocket("/ws")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()

    app.include_router(router, prefix="/api")
    connect: Message = {"type": "websocket.connect"}

    await ask(app, websocket_scope("/api/rooms/secret/ws"), connect)

    assert [record.__dict__["route"] for record in records] == ["/api/rooms/{room}/ws"]


async def test_the_lifespan_is_not_logged(records: list[logging.LogRecord]) -> None:
    """The lifespan is not logged."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    await ask(AccessLogMiddleware(app), {"type": "lifespan"})

    assert records == []
