"""The user of a WebSocket: the token in a subprotocol or in the first message, with a test client and with a real server."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any

import pytest
import uvicorn
from fastapi import Depends, FastAPI, WebSocket
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import Message
from starlette.websockets import WebSocketDisconnect
from tests.auth.people import People, Person, app_with, no_session, tokens
from tests.versions import needs_denial_responses
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Origin, Subprotocol

from fastapi_kit.auth import (
    APIKeyTransport,
    BearerTransport,
    CookieTransport,
    FirstMessageTransport,
    SubprotocolTransport,
    Transport,
    accept_websocket,
    get_current_user_factory,
    require,
)
from fastapi_kit.auth.api_keys import APIKeys, MemoryAPIKeyStore
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.testing import app_client, bearer

COOKIE = CookieTransport(csrf_key=b"kJ8#vQ2!xW5@zR9$nL3%pC7^hF4&dS6*")
FIRST = FirstMessageTransport(subprotocols=["chat"])
BEFORE: Sequence[Transport] = (BearerTransport(), COOKIE, SubprotocolTransport())
DAY = timedelta(days=1)  # the tokens are made when the tests are collected, and used at the end of a long run
GOOD = tokens.create_access_token("1", lifetime=DAY)
BAD = {
    "garbage": "x.y.z",
    "refresh": tokens.create_refresh_token("1", lifetime=DAY),
    "unknown user": tokens.create_access_token("9", lifetime=DAY),
    "inactive user": tokens.create_access_token("2", lifetime=DAY),
    "a word": "chat",
    "long": "x" * 9_000,
}


def site(*transports: Transport) -> FastAPI:
    people = People(Person(1), Person(2, is_active=False))
    get_user = get_current_user_factory(tokens, people.load, session=no_session, transports=transports)

    def build(app: FastAPI) -> None:
        @app.websocket("/talk")
        async def talk(socket: WebSocket, user: Annotated[Person, Depends(get_user)]) -> None:
            await accept_websocket(socket, subprotocols=["chat", "chat.v2"])
            await socket.send_text(f"{user.id} {await socket.receive_text()}")

        @app.websocket("/admin")
        async def admin(socket: WebSocket, user: Annotated[Person, Depends(require(get_user, superuser=True))]) -> None:
            await accept_websocket(socket)

        @app.get("/me")
        async def me(user: Annotated[Person, Depends(get_user)]) -> int:
            return user.id

    return app_with(build)


def auth(token: object, **more: object) -> str:
    return json.dumps({"type": "auth", "token": token, **more})


# --- A subprotocol ---


@pytest.mark.parametrize(
    ("offered", "accepted"),
    [
        (["bearer", GOOD], "bearer"),
        (["chat", "bearer", GOOD], "chat"),
        (["bearer", GOOD, "chat"], "chat"),
        (["chat.v2", "bearer", GOOD, "chat"], "chat"),
        (["other", "bearer", GOOD, "chat.v2"], "chat.v2"),
        (["other", "bearer", GOOD], "bearer"),
    ],
    ids=range(6),
)
def test_a_subprotocol(offered: list[str], accepted: str) -> None:
    """R49: the token after the word ``bearer`` is the user's; the answer is a subprotocol of the app, or the word, never the token."""
    with TestClient(site(*BEFORE)) as client, client.websocket_connect("/talk", subprotocols=offered) as socket:
        socket.send_text("hello")
        assert (socket.receive_text(), socket.accepted_subprotocol) == ("1 hello", accepted)


@pytest.mark.parametrize(
    "offered",
    [
        *(["bearer", token] for token in BAD.values()),
        ["bearer"],
        ["chat", "bearer"],
        ["bearer", "bearer", GOOD],
        ["bearer", GOOD, "bearer"],
        ["bearer", GOOD, "bearer", GOOD],
        [],
    ],
    ids=range(len(BAD) + 6),
)
def test_a_wrong_subprotocol(offered: list[str]) -> None:
    """R49: without one valid token the handshake is rejected with the 401 of HTTP, before it is accepted."""
    denied = pytest.raises(WebSocketDenialResponse)
    with TestClient(site(*BEFORE)) as client, denied as caught, client.websocket_connect("/talk", subprotocols=offered):
        pass
    assert caught.value.status_code == 401
    assert caught.value.json()["code"] == ("invalid_token" if offered else "not_authenticated")
    assert GOOD not in caught.value.text


def test_a_token_with_the_name_of_a_subprotocol() -> None:
    """R49: what stands after the word is never answered, even if it is the name of a subprotocol."""

    def build(app: FastAPI) -> None:
        @app.websocket("/")
        async def talk(socket: WebSocket) -> None:
            await accept_websocket(socket, subprotocols=["chat"])

    with TestClient(app_with(build)) as client:
        for offered, accepted in ((["bearer", "chat"], "bearer"), (["chat"], "chat"), (["other"], None), ([], None)):
            with client.websocket_connect("/", subprotocols=offered) as socket:
                assert socket.accepted_subprotocol == accepted


@pytest.mark.parametrize("lines", [[f"chat, bearer, {GOOD}"], [f"bearer,{GOOD}", "chat"], ["chat", "bearer", GOOD]], ids=range(3))
async def test_a_server_that_does_not_split_the_header(lines: list[str]) -> None:
    """R49: with a server that passes the lines of the header on, the token is found, and not answered."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    socket = WebSocket({"type": "websocket", "headers": [], "subprotocols": lines}, receive, send)

    claims = await SubprotocolTransport().authenticate(socket, tokens)
    await accept_websocket(socket, subprotocols=["chat"])

    assert claims is not None
    assert (claims.sub, [message["subprotocol"] for message in sent]) == ("1", ["chat"])


@pytest.mark.parametrize("names", ["chat", ["a b"], [""], ["bearer"], ["chat", "a,b"], ["ä"]], ids=ascii)
def test_a_wrong_name(names: Any) -> None:
    """R49: a subprotocol that no handshake can have, and the word for the token, raise ConfigurationError."""
    with pytest.raises(ConfigurationError):
        FirstMessageTransport(subprotocols=names)


@pytest.mark.parametrize("headers", [{"Sec-WebSocket-Protocol": f"bearer, {GOOD}"}, {}])
async def test_another_request(headers: dict[str, str]) -> None:
    """R49: both transports of WebSockets have no token in other requests, and are not in OpenAPI."""
    for ways in ([BearerTransport(), SubprotocolTransport(), FIRST], [SubprotocolTransport(), FIRST, BearerTransport()]):
        app = site(*ways)
        async with app_client(app) as client:
            assert (await client.get("/me", headers=headers)).status_code == 401
            assert (await client.get("/me", headers={**headers, **bearer(tokens, "1")})).json() == 1
        assert app.openapi()["paths"]["/me"]["get"]["security"] == [{"Bearer": []}]
    async with app_client(site(SubprotocolTransport(), FIRST)) as client:
        assert (await client.get("/me", headers=headers)).status_code == 401


# --- The first message ---


def test_a_first_message() -> None:
    """R49: the token in the first message is that of the user; the route runs after it."""
    with TestClient(site(*BEFORE, FIRST)) as client, client.websocket_connect("/talk", subprotocols=["chat"]) as socket:
        socket.send_text(auth(GOOD))
        socket.send_text("hello")
        assert (socket.receive_text(), socket.accepted_subprotocol) == ("1 hello", "chat")


def test_a_token_before() -> None:
    """R49: a client with a token in the handshake sends no first message."""
    with TestClient(site(*BEFORE, FIRST)) as client:
        for options in ({"headers": bearer(tokens, "1")}, {"subprotocols": ["bearer", GOOD]}):
            with client.websocket_connect("/talk", **options) as socket:  # type: ignore[arg-type]
                socket.send_text("hello")
                assert socket.receive_text() == "1 hello"


MESSAGES = {
    "empty": "",
    "text": "hello",
    "the token": GOOD,
    "null": "null",
    "list": f"[{auth(GOOD)}]",
    "no type": json.dumps({"token": GOOD}),
    "another type": json.dumps({"type": "hello", "token": GOOD}),
    "no token": '{"type": "auth"}',
    "a null": auth(None),
    "a number": auth(7),
    "more": auth(GOOD, admin=True),
    "deep": '{"type":"auth","token":' + "[" * 5_000 + "]" * 4_000,
    "surrogate": '{"type": "auth", "token": "\\ud800"}',
    "raw surrogate": auth("x").replace("x", "\ud800"),
    "NUL": auth("\0"),
    "a long one": auth(GOOD) + " " * 10_000,
    "two": auth(GOOD) + auth(GOOD),
    "not json": "{'type': 'auth'}",
    **{name: auth(token) for name, token in BAD.items()},
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_a_wrong_first_message(message: str, caplog: pytest.LogCaptureFixture) -> None:
    """R28, R49: any other first message closes the WebSocket with 1008, and is neither logged nor shown."""
    with caplog.at_level(logging.DEBUG, "fastapi_kit"), TestClient(site(FIRST)) as client, client.websocket_connect("/talk") as socket:
        socket.send_text(message)
        socket.send_text("hello")  # which the route would answer
        with pytest.raises(WebSocketDisconnect) as caught:
            socket.receive_text()
    assert (caught.value.code, caught.value.reason) == (1008, "invalid_token")
    assert GOOD not in caplog.text


def test_a_binary_message() -> None:
    """R49: a binary first message closes the WebSocket with 1008, whatever is in it."""
    for content in (auth(GOOD).encode(), b"", b"\xff"):
        with TestClient(site(FIRST)) as client, client.websocket_connect("/talk") as socket:
            socket.send_bytes(content)
            socket.send_text("hello")
            with pytest.raises(WebSocketDisconnect) as caught:
                socket.receive_text()
            assert (caught.value.code, caught.value.reason) == (1008, "not_authenticated")


def test_no_message_in_time() -> None:
    """R49: a client that sends nothing is closed with 1008."""
    way = FirstMessageTransport(timeout=timedelta(milliseconds=1))
    with TestClient(site(way)) as client, client.websocket_connect("/talk") as socket, pytest.raises(WebSocketDisconnect) as caught:
        socket.receive_text()
    assert (caught.value.code, caught.value.reason) == (1008, "not_authenticated")


def test_a_client_that_leaves() -> None:
    """R49: a client that leaves before its first message is no error."""
    with TestClient(site(FIRST)) as client, client.websocket_connect("/talk") as socket:
        socket.close()


def test_a_guard_after_the_first_message() -> None:
    """R49: a guard that fails closes the accepted WebSocket with 1008."""
    with TestClient(site(FIRST)) as client, client.websocket_connect("/admin") as socket:
        socket.send_text(auth(GOOD))
        with pytest.raises(WebSocketDisconnect) as caught:
            socket.receive_text()
    assert (caught.value.code, caught.value.reason) == (1008, "permission_denied")


@pytest.mark.parametrize(
    "options", [{"timeout": timedelta()}, {"timeout": timedelta(seconds=-1)}, {"timeout": timedelta(minutes=2)}, {"max_length": 0}]
)
def test_a_limit_out_of_bounds(options: dict[str, Any]) -> None:
    """R49: a time limit of nothing or of more than a minute, and a length below one, raise ConfigurationError."""
    with pytest.raises(ConfigurationError):
        FirstMessageTransport(**options)


@pytest.mark.parametrize("name", ["token", "access_token", "Authorization", "bearer", "__Host-session"])
def test_a_token_in_the_query(name: str) -> None:
    """R28, R49: a token in the query string of a WebSocket is not read."""
    denied = pytest.raises(WebSocketDenialResponse)
    with TestClient(site(*BEFORE)) as client, denied as caught, client.websocket_connect(f"/talk?{name}={GOOD}"):
        pass
    assert caught.value.json()["code"] == "not_authenticated"


# --- A real server ---


@asynccontextmanager
async def served(app: FastAPI) -> AsyncGenerator[str]:
    """Serve *app* with uvicorn in this event loop, and yield its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", ws="websockets-sansio", lifespan="off"))
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            assert not task.done()
            await asyncio.sleep(0.01)
        yield f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


KEYS = APIKeys(MemoryAPIKeyStore(), prefix="shop")


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """A server whose clients can send their token in every way."""
    async with served(site(*BEFORE, APIKeyTransport(keys=KEYS), FirstMessageTransport(timeout=timedelta(seconds=30)))) as address:
        yield f"{address}/talk"


async def closed(socket: ClientConnection) -> tuple[int, str]:
    async with asyncio.timeout(30):
        with pytest.raises(ConnectionClosed) as caught:
            await socket.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


async def talked(socket: ClientConnection) -> tuple[str | bytes, str | None]:
    await socket.send("hello")
    return await socket.recv(), socket.subprotocol


async def test_a_subprotocol_on_a_server(address: str) -> None:
    """R49: a client accepts what a server answers to its subprotocols."""
    for offered, accepted in ((["bearer", GOOD], "bearer"), (["chat", "bearer", GOOD], "chat")):
        async with connect(address, subprotocols=[Subprotocol(each) for each in offered]) as socket:
            assert await talked(socket) == ("1 hello", accepted)


@needs_denial_responses
async def test_a_wrong_subprotocol_on_a_server(address: str) -> None:
    """R49: a server rejects the handshake with a 401 whose body does not have the token."""
    with pytest.raises(InvalidStatus) as caught:
        async with connect(address, subprotocols=[Subprotocol("bearer"), Subprotocol(BAD["refresh"])]):
            pass
    response = caught.value.response
    assert (response.status_code, json.loads(response.body or b"")["code"]) == (401, "invalid_token")
    assert BAD["refresh"].encode() not in (response.body or b"")


async def test_headers_on_a_server(address: str) -> None:
    """R45, R49: a bearer token, an API key and a cookie with the right origin are read from the handshake."""
    key = (await KEYS.create("1", name="Key")).key
    cookie = f"__Host-session=id.{GOOD}"
    for headers in (bearer(tokens, "1"), {"X-API-Key": key}, {"Cookie": cookie}):
        async with connect(
            address, additional_headers=headers, origin=Origin(address.replace("ws", "http").removesuffix("/talk"))
        ) as socket:
            assert await talked(socket) == ("1 hello", None)


async def test_another_site_on_a_server(address: str) -> None:
    """R44, R49: a server rejects the handshake of another site, whose visitor has the cookie."""
    with pytest.raises(InvalidHandshake):
        async with connect(address, additional_headers={"Cookie": f"__Host-session=id.{GOOD}"}, origin=Origin("https://evil.example")):
            pass


async def test_first_messages_on_a_server(address: str) -> None:
    """R49: after a server has accepted, the first message decides: the user, or 1008."""
    async with connect(address) as socket:
        await socket.send(auth(GOOD))
        assert await talked(socket) == ("1 hello", None)
    for message in ("hello", auth(GOOD).encode(), auth(BAD["refresh"]), auth(BAD["inactive user"]), auth(GOOD) + " " * 10_000):
        async with connect(address) as socket:
            await socket.send(message)
            code, reason = await closed(socket)
            assert (code, reason) == (1008, "not_authenticated" if isinstance(message, bytes) else "invalid_token")
    async with connect(address):
        pass  # a client that leaves


async def test_silence_on_a_server() -> None:
    """R49: a server closes a client that sends nothing with 1008."""
    async with served(site(FirstMessageTransport(timeout=timedelta(milliseconds=50)))) as address, connect(f"{address}/talk") as socket:
        assert await closed(socket) == (1008, "not_authenticated")
