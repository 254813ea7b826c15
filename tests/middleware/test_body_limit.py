"""BodyLimitMiddleware: no reader gets more than the limit, and the client gets a 413 in the shape of the app."""

import json
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated, Any, Literal

import pytest
from fastapi import Body, FastAPI, File, Form, Request, UploadFile
from fastapi.responses import StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tests.middleware.asgi import Answer, Headers, ask, http_scope, serving, websocket_scope
from tests.versions import needs_body_limits

from fastapi_kit.errors import ConfigurationError
from fastapi_kit.handlers import Problem, legacy_body, register_exception_handlers
from fastapi_kit.middleware import BodyLimitMiddleware, RequestIdMiddleware, UnhandledErrorMiddleware

LIMIT = 100
JSON = (b"content-type", b"application/json")
FORM = (b"content-type", b"application/x-www-form-urlencoded")
MULTIPART = (b"content-type", b"multipart/form-data; boundary=b")


def add_routes(app: FastAPI) -> None:
    @app.post("/json")
    async def take_json(data: Annotated[dict[str, str], Body()]) -> int:
        return len(str(data))

    @app.post("/form")
    async def take_form(field: Annotated[str, Form()]) -> int:
        return len(field)

    @app.post("/file")
    async def take_file(file: UploadFile) -> int:
        return len(await file.read())

    @app.post("/bytes")
    async def take_bytes(file: Annotated[bytes, File()]) -> int:
        return len(file)

    @app.api_route("/raw", methods=["GET", "HEAD", "POST"])
    async def read_raw(request: Request) -> int:
        return len(await request.body())

    @app.post("/stream")
    async def read_stream(request: Request) -> int:
        return sum([len(chunk) async for chunk in request.stream()])

    @app.post("/unread")
    async def read_nothing() -> str:
        return "fine"

    @app.post("/parts")
    async def stream_parts() -> StreamingResponse:
        return StreamingResponse(iter(["a", "b"]))


def make_app(max_bytes: int = LIMIT, **options: Any) -> FastAPI:
    app = FastAPI(**options)
    app.add_middleware(BodyLimitMiddleware, max_bytes=max_bytes)
    app.add_middleware(RequestIdMiddleware)
    register_exception_handlers(app)
    add_routes(app)
    return app


def chunks(*parts: bytes) -> list[Message]:
    """Return a body as messages of the server."""
    return [{"type": "http.request", "body": part, "more_body": number < len(parts)} for number, part in enumerate(parts, 1)]


def announced(length: int | bytes) -> tuple[bytes, bytes]:
    return b"content-length", length if isinstance(length, bytes) else str(length).encode()


async def post(app: ASGIApp, path: str, parts: Sequence[bytes], headers: Headers = (), **scope: Any) -> Answer:
    return await ask(app, http_scope(path, **{"method": "POST", **scope}, headers=headers), *chunks(*parts))


def problem_of(answer: Answer) -> Problem:
    return Problem.model_validate_json(answer.body)


def multipart(size: int) -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"x" * size + b"\r\n--b--\r\n"


READERS = [
    ("/json", JSON, b'{"a": "' + b"x" * LIMIT + b'"}'),
    ("/form", FORM, b"field=" + b"x" * LIMIT),
    ("/file", MULTIPART, multipart(LIMIT)),
    ("/bytes", MULTIPART, multipart(LIMIT)),
    ("/raw", JSON, b"x" * LIMIT * 2),
    ("/stream", JSON, b"x" * LIMIT * 2),
]


@pytest.mark.parametrize("announces", [True, False], ids=["announced", "counted"])
@pytest.mark.parametrize(("path", "kind", "body"), READERS, ids=[path for path, _, _ in READERS])
async def test_a_body_that_is_too_large_is_a_413(path: str, kind: tuple[bytes, bytes], body: bytes, announces: bool) -> None:
    """However the body is read, the response is a problem with the request id."""
    parts = [body[:60], body[60:120], body[120:]]
    headers = [kind, announced(len(body))] if announces else [kind]

    answer = await post(make_app(), path, parts, headers)

    assert (answer.status, answer.error, answer.values("content-type")) == (413, None, ["application/problem+json"])
    problem = problem_of(answer)
    assert (problem.code, problem.detail) == ("content_too_large", "The body may have 100 bytes at most.")
    assert answer.values("x-request-id") == [problem.request_id]
    assert b"xxx" not in answer.body


@pytest.mark.parametrize(("path", "kind", "body"), READERS, ids=[path for path, _, _ in READERS])
async def test_a_body_of_exactly_the_limit_is_read(path: str, kind: tuple[bytes, bytes], body: bytes) -> None:
    """A body of exactly max_bytes is accepted, announced or counted."""
    parts, headers = [body[:60], body[60:]], [kind, announced(len(body))]

    assert (await post(make_app(len(body)), path, parts, headers)).status == 200
    assert (await post(make_app(len(body) - 1), path, parts, headers)).status == 413
    assert (await post(make_app(len(body) - 1), path, parts, [kind])).status == 413


async def test_an_announced_body_is_not_touched() -> None:
    """A body that announces too many bytes is rejected before it is read."""
    asked: list[str] = []

    async def receive() -> Message:
        asked.append("for the body")
        return {"type": "http.request", "body": b"x" * LIMIT * 2, "more_body": False}

    async def send(message: Message) -> None: ...

    await make_app()(http_scope("/raw", method="POST", headers=[announced(LIMIT + 1)]), receive, send)

    assert asked == []


async def test_counting_stops_at_the_chunk_that_is_too_much() -> None:
    """Nothing is read after the chunk that exceeds the limit."""
    asked: list[int] = []

    async def receive() -> Message:
        asked.append(1)
        return {"type": "http.request", "body": b"x" * 60, "more_body": True}

    async def send(message: Message) -> None: ...

    await make_app()(http_scope("/raw", method="POST"), receive, send)

    assert len(asked) == 2


@pytest.mark.parametrize("length", [b"", b"-1", b"+500", b"5_00", b"0x500", b"abc", b"\xb2", b"1.5", b" 500", b"500, 500"])
async def test_an_invalid_length_is_ignored(length: bytes) -> None:
    """With an invalid Content-Length the bytes are counted."""
    small = await post(make_app(), "/raw", [b"x" * LIMIT], [announced(length)])
    large = await post(make_app(), "/raw", [b"x" * LIMIT, b"x"], [announced(length)])

    assert (small.status, large.status) == (200, 413)


@pytest.mark.parametrize("length", [b"9" * 30, b"9" * 5000, b"0101"])
async def test_a_length_beyond_all_numbers_is_too_large(length: bytes) -> None:
    """A Content-Length of 5,000 digits is a 413."""
    answer = await post(make_app(), "/raw", [b"x"], [announced(length)])

    assert (answer.status, answer.error) == (413, None)


async def test_the_largest_of_several_lengths_counts() -> None:
    """Of several Content-Length headers the largest counts."""
    answer = await post(make_app(), "/raw", [b"x"], [announced(1), announced(LIMIT + 1)])

    assert answer.status == 413


async def test_a_length_that_is_too_small_is_not_trusted() -> None:
    """The bytes are counted even if Content-Length is small."""
    answer = await post(make_app(), "/raw", [b"x" * LIMIT, b"x"], [announced(1)])

    assert answer.status == 413


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_other_methods_have_bodies_too(method: str) -> None:
    """The limit counts for all methods."""
    answer = await post(make_app(), "/raw", [b"x" * LIMIT, b"x"], method=method)

    assert answer.status == 413


@pytest.mark.parametrize(("path", "status"), [("/unread", 200), ("/nowhere", 404)])
async def test_a_body_that_is_not_read_is_not_rejected(path: str, status: int) -> None:
    """A route that does not read the body responds as usual."""
    answer = await post(make_app(), path, [b"x" * LIMIT, b"x"], [announced(LIMIT + 1)])

    assert (answer.status, answer.error) == (status, None)


async def test_no_bytes_may_be_the_limit() -> None:
    """With max_bytes=0 only requests without a body pass."""
    assert (await post(make_app(0), "/raw", [b""])).status == 200
    assert (await post(make_app(0), "/raw", [b"x"])).status == 413


def test_a_negative_limit_raises() -> None:
    """A negative max_bytes raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match="negative"):
        BodyLimitMiddleware(make_app(), max_bytes=-1)


@needs_body_limits
async def test_a_route_may_allow_more() -> None:
    """max_body_size of a route counts instead, for more and for less."""
    app = make_app()

    @app.post("/large", max_body_size=LIMIT * 2)
    @app.post("/small", max_body_size=LIMIT // 2)
    async def read(request: Request) -> int:
        return len(await request.body())

    statuses = {
        (path, size, headers): (await post(app, path, [b"x" * 40, b"x" * (size - 40)], [announced(size)] if headers else [])).status
        for path, size in [("/large", 200), ("/large", 201), ("/small", 50), ("/small", 51)]
        for headers in (True, False)
    }

    assert {key for key, status in statuses.items() if status == 200} == {
        ("/large", 200, True),
        ("/large", 200, False),
        ("/small", 50, True),
        ("/small", 50, False),
    }
    assert set(statuses.values()) == {200, 413}


async def test_the_answer_has_the_shape_of_the_app() -> None:
    """The 413 has the error body of the app, by the library, by an own handler, or by FastAPI."""
    legacy, own, bare = make_app(), make_app(), FastAPI()
    register_exception_handlers(legacy, body=legacy_body)

    @own.exception_handler(413)
    async def answer_own(request: Request, error: Exception) -> Response:
        return PlainTextResponse("too much", 413)

    bare.add_middleware(BodyLimitMiddleware, max_bytes=LIMIT)
    add_routes(bare)

    bodies = [(await post(app, "/raw", [b"x"], [announced(LIMIT + 1)])).body for app in (legacy, own, bare)]

    text = "The body may have 100 bytes at most."
    assert [json.loads(bodies[0]), bodies[1], json.loads(bodies[2])] == [{"detail": text}, b"too much", {"detail": text}]


async def test_a_mounted_app_is_bounded() -> None:
    """The limit counts in mounted apps, whose own error body is used."""
    outer, inner = make_app(), FastAPI()
    add_routes(inner)
    outer.mount("/inner", inner)

    answer = await post(outer, "/inner/raw", [b"x" * LIMIT, b"x"])

    assert (answer.status, answer.error) == (413, None)


async def read_in_middleware(request: Request, call_next: Any) -> Response:
    await request.body()
    response: Response = await call_next(request)
    return response


@pytest.mark.parametrize("has_handlers", [True, False])
async def test_a_middleware_that_reads_is_answered_for(has_handlers: bool) -> None:
    """If a middleware reads the body, the handlers of the app answer."""
    app = FastAPI()
    app.add_middleware(BaseHTTPMiddleware, dispatch=read_in_middleware)
    app.add_middleware(BodyLimitMiddleware, max_bytes=LIMIT)
    if has_handlers:
        register_exception_handlers(app)
    add_routes(app)

    answer = await post(app, "/raw", [b"x"], [announced(LIMIT + 1)])

    assert (answer.status, answer.error) == (413, None)
    assert json.loads(answer.body)["detail"] == "The body may have 100 bytes at most."


async def test_an_app_without_handlers_is_answered_for() -> None:
    """A plain ASGI app gets a 413 too."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            pass

    answer = await post(BodyLimitMiddleware(app, max_bytes=LIMIT), "/", [b"x" * LIMIT, b"x"])

    assert (answer.status, answer.body, answer.error) == (413, b"The body may have 100 bytes at most.", None)


async def test_a_413_is_not_logged_as_a_bug(caplog: pytest.LogCaptureFixture) -> None:
    """A 413 is not logged as a bug, whatever the order of the middleware."""
    app = FastAPI()
    app.add_middleware(UnhandledErrorMiddleware)
    app.add_middleware(BodyLimitMiddleware, max_bytes=LIMIT)
    add_routes(app)

    await post(app, "/raw", [b"x" * LIMIT, b"x"])

    assert caplog.records == []


async def stream_back(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"begin "
        async for chunk in request.stream():
            yield chunk

    return StreamingResponse(parts())


async def test_a_body_over_the_limit_ends_a_started_response(caplog: pytest.LogCaptureFixture) -> None:
    """After the response has started, the reader sees a disconnect, and one line is logged."""
    app = FastAPI()
    app.add_middleware(BodyLimitMiddleware, max_bytes=LIMIT)
    app.add_middleware(RequestIdMiddleware)
    app.add_api_route("/echo", stream_back, methods=["POST"])
    headers = [(b"x-request-id", b"one")]

    asgi = {"version": "3.0", "spec_version": "2.4"}
    answer = await post(app, "/echo", [b"x" * LIMIT, b"y"], headers, asgi=asgi)

    assert (answer.status, answer.body) == (200, b"begin " + b"x" * LIMIT)
    assert answer.messages[-1]["more_body"] is True
    assert type(answer.error).__name__ == "ClientDisconnect"
    (record,) = [record for record in caplog.records if record.name == "fastapi_kit.middleware.body_limit"]
    assert (record.levelno, "one" in record.getMessage(), "100 bytes" in record.getMessage()) == (logging.WARNING, True, True)


@pytest.mark.parametrize(("parts", "headers"), [([b"x"], [announced(LIMIT + 1)]), ([b"x" * LIMIT * 2], [])], ids=["announced", "counted"])
async def test_a_listener_ends_a_streamed_answer(parts: list[bytes], headers: Headers, caplog: pytest.LogCaptureFixture) -> None:
    """A streamed response that listens for a disconnect is cut off."""
    answer = await post(make_app(), "/parts", parts, headers)

    assert (answer.status, answer.error) == (200, None)
    assert [record.levelname for record in caplog.records if record.name.startswith("fastapi_kit")] == ["WARNING"]


@pytest.mark.parametrize("parts", [[b"x"], [b"x" * LIMIT * 2]])
async def test_is_disconnected_does_not_read(parts: list[bytes]) -> None:
    """request.is_disconnected() does not reject the body."""
    app = make_app()

    @app.post("/there")
    async def look(request: Request) -> bool:
        return await request.is_disconnected()

    answer = await post(app, "/there", parts, [announced(LIMIT + 1)])

    assert (answer.status, answer.body) == (200, b"false")


async def test_a_disconnect_is_passed_on() -> None:
    """A disconnect is passed on to the app."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((await receive())["type"])

    await ask(BodyLimitMiddleware(app), http_scope(), {"type": "http.disconnect"})

    assert seen == ["http.disconnect"]


async def test_a_message_without_body_is_an_empty_one() -> None:
    """Both members of an ASGI body message are optional."""
    answer = await ask(make_app(), http_scope("/raw", method="POST"), {"type": "http.request"})

    assert answer.status == 200


@pytest.mark.parametrize("scope", [websocket_scope("/"), {"type": "lifespan"}])
async def test_other_connections_pass_through(scope: Scope) -> None:
    """WebSockets are not limited."""
    seen: list[Receive] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(receive)
        await JSONResponse(1)(scope, receive, send) if scope["type"] == "http" else None

    async def receive() -> Message:
        return {"type": "nothing"}

    async def send(message: Message) -> None: ...

    await BodyLimitMiddleware(app, max_bytes=0)(scope, receive, send)

    assert seen == [receive]


@pytest.mark.parametrize(
    ("version", "expect", "closing"),
    [("1.1", b"100-continue", ["close"]), ("1.1", b"100-Continue", ["close"]), ("2", b"100-continue", []), ("1.1", b"", [])],
)
async def test_a_waiting_client_gets_connection_close(version: str, expect: bytes, closing: list[str]) -> None:
    """With Expect: 100-continue the 413 has Connection: close, except over HTTP/2."""
    headers = [announced(LIMIT + 1), (b"expect", expect)]

    answer = await post(make_app(), "/raw", [b"x"], headers, http_version=version)

    assert (answer.status, answer.values("connection")) == (413, closing)


# --- Under uvicorn ---

SERVERS: list[Literal["h11", "httptools"]] = ["h11", "httptools"]
TEN_MEGABYTES = 10_000_000
POST = b"POST /raw HTTP/1.1\r\nHost: test\r\n"


def in_chunks(size: int) -> Iterator[bytes]:
    yield from (b"2710\r\n" + b"x" * 10_000 + b"\r\n" for _ in range(size // 10_000))
    yield b"0\r\n\r\n"


@pytest.mark.parametrize("http", SERVERS)
async def test_a_waiting_client_never_sends_its_body(http: Literal["h11", "httptools"]) -> None:
    """A client that sends Expect: 100-continue gets the 413 before it sends its body."""
    app = make_app()

    async with serving(app, http) as served:
        rejected = await served.head_of_answer(POST + b"Content-Length: 10000000\r\nExpect: 100-continue\r\n\r\n")
        welcome = await served.head_of_answer(POST + b"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n")

    assert rejected.startswith(b"http/1.1 413")
    assert b"\nconnection: close\n" in rejected
    assert welcome.startswith(b"http/1.1 100")


@pytest.mark.parametrize("http", SERVERS)
async def test_a_client_that_sends_first_gets_to_read_the_413(http: Literal["h11", "httptools"]) -> None:
    """A client that sends ten megabytes before it reads gets the 413."""
    announcing = [POST + b"Content-Length: 10000000\r\n\r\n", b"x" * TEN_MEGABYTES]
    counting = [POST + b"Transfer-Encoding: chunked\r\n\r\n", *in_chunks(TEN_MEGABYTES)]

    async with serving(make_app(), http) as served:
        heads = [await served.head_of_answer(*parts) for parts in (announcing, counting)]

    assert [head[:12] for head in heads] == [b"http/1.1 413"] * 2


@pytest.mark.parametrize("http", SERVERS)
async def test_the_connection_goes_on_after_a_413(http: Literal["h11", "httptools"]) -> None:
    """The next request on the connection is served after a 413."""
    large = POST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1_000_000
    small = POST + b"Content-Length: 3\r\n\r\nabc"

    async with serving(make_app(), http) as served:
        heads = await served.heads_of_answers(large, small)

    assert [head[:12] for head in heads] == [b"http/1.1 413", b"http/1.1 200"]


@pytest.mark.parametrize("http", SERVERS)
@pytest.mark.parametrize("length", [b"-1", b"abc", b"1\r\nContent-Length: 500"])
async def test_uvicorn_rejects_invalid_lengths(http: Literal["h11", "httptools"], length: bytes) -> None:
    """uvicorn itself answers 400 to an invalid Content-Length."""
    async with serving(make_app(), http) as served:
        head = await served.head_of_answer(POST + b"Content-Length: " + length + b"\r\n\r\nx")

    assert head.startswith(b"http/1.1 400")
