"""RequestIdMiddleware: one id per request, wherever it is looked for."""

import asyncio
from typing import Annotated, Any
from uuid import RFC_4122, UUID

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Request, WebSocket
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.middleware.asgi import ask, http_scope, websocket_scope

from fastapi_kit.errors import ConfigurationError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.middleware import RequestIdMiddleware, get_request_id
from fastapi_kit.testing import app_client


class Body(BaseModel):
    count: int


def make_app(**options: Any) -> FastAPI:
    app = FastAPI()
    register_exception_handlers(app)
    app.add_middleware(RequestIdMiddleware, **options)

    @app.get("/id")
    async def read_id(request: Request) -> list[str | None]:
        return [request.state.request_id, get_request_id()]

    @app.post("/body")
    async def take_body(body: Body) -> None: ...

    @app.get("/bug")
    async def fail() -> None:
        raise RuntimeError("a bug")

    return app


async def echo_id(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that returns the id."""
    await JSONResponse(get_request_id())(scope, receive, send)


async def test_an_id_is_made() -> None:
    """Without an id in the request it is a UUID, the same in the header, in request.state and in get_request_id()."""
    async with app_client(make_app()) as client:
        answer = await client.get("/id")

    made = answer.headers["x-request-id"]
    assert (str(UUID(made)), UUID(made).version, UUID(made).variant) == (made, 4, RFC_4122)
    assert answer.json() == [made, made]


@pytest.mark.parametrize("sent", ["a", "6f1c-x_Y.9", "0" * 128])
async def test_a_safe_id_from_outside_is_kept(sent: str) -> None:
    """Up to 128 letters, digits, dots, underscores and hyphens are taken."""
    async with app_client(make_app()) as client:
        answer = await client.get("/id", headers={"X-Request-ID": sent})

    assert (answer.headers["x-request-id"], answer.json()) == (sent, [sent, sent])


UNSAFE = [b"", b"0" * 129, b"a b", b"a\n", b"a\r\nSet-Cookie: b=c", b"\xc3\xa4", b'a"b', b"<a>", b"a,b", b"a\x00", b"${jndi:x}"]


@pytest.mark.parametrize("sent", UNSAFE)
async def test_an_unsafe_id_from_outside_is_replaced(sent: bytes) -> None:
    """An id that could break a log line or a header is replaced."""
    answer = await ask(RequestIdMiddleware(echo_id), http_scope(headers=[(b"x-request-id", sent)]))

    (made,) = answer.values("x-request-id")
    assert str(UUID(made)) == made


async def test_several_ids_from_outside_are_replaced() -> None:
    """Two headers in the request are replaced by a new id."""
    sent = [(b"x-request-id", b"one"), (b"x-request-id", b"two")]

    answer = await ask(RequestIdMiddleware(echo_id), http_scope(headers=sent))

    (made,) = answer.values("x-request-id")
    assert made not in {"one", "two", "one, two"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [("GET", "/nowhere", None, 404), ("PUT", "/id", None, 405), ("POST", "/body", {"count": "x"}, 422), ("GET", "/bug", None, 500)],
)
async def test_every_error_has_the_id(method: str, path: str, body: object, status: int) -> None:
    """The header and the error body have the same id."""
    async with app_client(make_app()) as client:
        answer = await client.request(method, path, json=body)

    made = answer.headers["x-request-id"]
    assert answer.status_code == status
    assert (answer.json()["request_id"], answer.json()["instance"]) == (made, f"urn:uuid:{made}")


async def test_an_id_that_is_not_a_uuid_is_not_the_instance() -> None:
    """An id that is not a UUID is in the body as request_id only."""
    async with app_client(make_app()) as client:
        problem = (await client.get("/nowhere", headers={"X-Request-ID": "trace-7"})).json()

    assert (problem["request_id"], problem.get("instance")) == ("trace-7", None)


async def test_the_id_reaches_all_that_the_request_calls() -> None:
    """Threads, dependencies, background tasks and tasks of the request see the id."""
    app, seen = make_app(), dict[str, str | None]()

    def note(where: str) -> None:
        seen[where] = get_request_id()

    def in_thread() -> None:
        note("dependency in a thread")

    async def in_task() -> None:
        note("task")

    @app.get("/all")
    def endpoint(thread: Annotated[None, Depends(in_thread)], tasks: BackgroundTasks) -> None:
        note("endpoint in a thread")
        tasks.add_task(note, "background")

    @app.get("/task")
    async def start_task() -> None:
        await asyncio.create_task(in_task())

    async with app_client(app) as client:
        for path in ("/all", "/task"):
            await client.get(path, headers={"X-Request-ID": "one"})

    assert seen == dict.fromkeys(["dependency in a thread", "endpoint in a thread", "background", "task"], "one")


async def test_there_is_no_id_outside_a_request() -> None:
    """get_request_id() is None after the request."""
    assert get_request_id() is None

    await ask(make_app(), http_scope("/id"))

    assert get_request_id() is None


async def test_the_server_sees_the_id_after_a_bug() -> None:
    """The server's record of an exception is written while get_request_id() still has the id."""

    async def serve() -> str | None:
        await ask(make_app(), http_scope("/bug"))
        return get_request_id()

    assert await asyncio.create_task(serve()) is not None
    assert get_request_id() is None


async def test_requests_at_the_same_time_have_their_own_ids() -> None:
    """Two requests at the same time have different ids."""
    app, both = make_app(), asyncio.Barrier(2)

    @app.get("/meet")
    async def meet(request: Request) -> list[str | None]:
        await both.wait()
        return [request.state.request_id, get_request_id()]

    async with app_client(app) as client:
        names = ["one", "two"]
        answers = await asyncio.gather(*(client.get("/meet", headers={"X-Request-ID": name}) for name in names))

    assert [answer.json() for answer in answers] == [[name, name] for name in names]


async def test_requests_after_each_other_have_their_own_ids() -> None:
    """The state of the lifespan is not changed by a request."""
    async with app_client(make_app()) as client:
        first, second = await client.get("/id"), await client.get("/id")

    assert first.json() != second.json()


@pytest.mark.parametrize("name", [b"X-Request-ID", b"x-request-id"])
async def test_a_header_of_the_app_is_replaced(name: bytes) -> None:
    """A header of the same name that the app sends is replaced, and its others stay."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(name, b"own"), (b"a", b"b")]})

    answer = await ask(RequestIdMiddleware(app), http_scope(headers=[(b"x-request-id", b"one")]))

    assert (answer.values("X-Request-ID"), answer.values("a")) == (["one"], ["b"])


async def test_a_response_that_is_sent_twice_stays_as_it_is() -> None:
    """The message and its list of headers are not changed."""
    cached = Response("text")
    before = [*cached.raw_headers]
    app = RequestIdMiddleware(cached)

    await ask(app, http_scope())
    answer = await ask(app, http_scope())

    assert len(answer.values("x-request-id")) == 1
    assert cached.raw_headers == before


async def test_a_message_without_headers_gets_them() -> None:
    """A message without headers gets the header."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204})

    answer = await ask(RequestIdMiddleware(app), http_scope(headers=[(b"x-request-id", b"one")]))

    assert answer.values("x-request-id") == ["one"]


async def accept(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.accept"})


async def deny(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.http.response.start", "status": 403, "headers": []})


@pytest.mark.parametrize("app", [accept, deny])
async def test_a_websocket_handshake_has_the_id(app: ASGIApp) -> None:
    """The acceptance and a denial of a WebSocket have the header."""
    answer = await ask(RequestIdMiddleware(app), websocket_scope(headers=[(b"x-request-id", b"one")]))

    assert answer.values("x-request-id") == ["one"]


async def test_a_websocket_endpoint_sees_the_id() -> None:
    """A WebSocket has one id for its whole life."""
    app = make_app()
    seen: list[str | None] = []

    @app.websocket("/ws")
    async def talk(socket: WebSocket) -> None:
        seen.extend([socket.state.request_id, get_request_id()])
        await socket.close()

    await ask(app, websocket_scope("/ws", headers=[(b"x-request-id", b"one")]), {"type": "websocket.connect"})

    assert seen == ["one", "one"]


async def test_a_mounted_app_keeps_the_id() -> None:
    """A mounted app with the middleware keeps the id of the outer app."""
    inner, outer = make_app(), make_app()
    outer.mount("/inner", inner)

    answer = await ask(outer, http_scope("/inner/id"))

    (made,) = answer.values("x-request-id")
    assert answer.body.decode() == f'["{made}","{made}"]'


async def test_an_id_of_an_own_middleware_is_kept() -> None:
    """An id that is in request.state already is kept."""
    answer = await ask(RequestIdMiddleware(echo_id), http_scope(state={"request_id": "host"}, headers=[(b"x-request-id", b"one")]))

    assert (answer.values("x-request-id"), answer.body) == (["host"], b'"host"')


async def test_the_options_count() -> None:
    """header=, generator= and accept= replace the defaults."""
    app = RequestIdMiddleware(echo_id, header="X-Correlation-Id", generator=lambda: "made", accept=lambda value: value == "good value")

    good = await ask(app, http_scope(headers=[(b"x-correlation-id", b"good value")]))
    bad = await ask(app, http_scope(headers=[(b"x-correlation-id", b"bad"), (b"x-request-id", b"one")]))

    assert (good.values("x-correlation-id"), bad.values("x-correlation-id")) == (["good value"], ["made"])
    assert bad.values("x-request-id") == []


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "ä"])
def test_an_invalid_header_name_raises(name: str) -> None:
    """An invalid header= raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match="not the name of a header"):
        RequestIdMiddleware(echo_id, header=name)


async def test_the_lifespan_passes_through() -> None:
    """The lifespan has no id."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope))

    await ask(RequestIdMiddleware(app), {"type": "lifespan"})

    assert seen == [{"type": "lifespan"}]
