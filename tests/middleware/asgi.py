"""What the tests of middleware need: a request without any client, and a real server."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import uvicorn
from starlette.types import ASGIApp, Message, Scope

__all__ = ["Answer", "Served", "ask", "http_scope", "serving", "websocket_scope"]

Headers = Sequence[tuple[bytes, bytes]]


def http_scope(path: str = "/", *, method: str = "GET", headers: Headers = (), **others: Any) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"test"), *headers],
        **others,
    }


def websocket_scope(path: str = "/", *, headers: Headers = ()) -> Scope:
    scope = http_scope(path, headers=headers)
    del scope["method"]
    return {**scope, "type": "websocket", "scheme": "ws", "subprotocols": []}


@dataclass
class Answer:
    """What an app sent, and the exception that it raised."""

    messages: list[Message] = field(default_factory=list[Message])
    error: BaseException | None = None

    @property
    def start(self) -> Message:
        return self.messages[0]

    @property
    def status(self) -> int:
        status: int = self.start["status"]
        return status

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    def values(self, name: str) -> list[str]:
        """Return the value of each field *name* of the response."""
        return [value.decode("latin-1") for key, value in self.start["headers"] if key.lower() == name.lower().encode()]


async def ask(app: ASGIApp, scope: Scope, *messages: Message) -> Answer:
    """Call *app*. After *messages* the client has left. It never raises."""
    answer, queue = Answer(), list(messages or [{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        return queue.pop(0) if queue else {"type": f"{scope['type']}.disconnect", "code": 1000}

    async def send(message: Message) -> None:
        answer.messages.append(message)

    try:
        await app(scope, receive, send)
    except (Exception, asyncio.CancelledError) as error:
        answer.error = error
    return answer


@dataclass(frozen=True)
class Served:
    """An app on a port of 127.0.0.1."""

    port: int

    async def head_of_answer(self, *parts: bytes) -> bytes:
        """Send *parts* before anything is read, as simple clients do. Return the head of the response."""
        return await asyncio.to_thread(self._send_and_read, parts)

    def _send_and_read(self, parts: Sequence[bytes]) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            for part in parts:
                connection.sendall(part)
            return _read_head(connection)

    async def heads_of_answers(self, *requests: bytes) -> list[bytes]:
        """Send one request after the other on one connection. Return the heads of the responses."""
        return await asyncio.to_thread(self._talk, requests)

    def _talk(self, requests: Sequence[bytes]) -> list[bytes]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            heads: list[bytes] = []
            for request in requests:
                connection.sendall(request)
                heads.append(_read_head(connection))
            return heads


def _read_head(connection: socket.socket) -> bytes:
    """Return the head of a response, and discard its body."""
    with connection.makefile("rb") as stream:
        head = b"".join(iter(lambda: stream.readline().replace(b"\r\n", b"\n").lower(), b"\n"))
        length = head.partition(b"content-length: ")[2].partition(b"\n")[0]
        stream.read(int(length or 0))
        return head


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@asynccontextmanager
async def serving(app: ASGIApp, http: Literal["h11", "httptools"]) -> AsyncIterator[Served]:
    """Serve *app* with uvicorn."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(app, http=http, ws="none", lifespan="off", log_config=None, access_log=False))
    task = asyncio.create_task(server.serve([listener]))
    try:
        async with asyncio.timeout(30):
            await server.ready.wait()
        yield Served(listener.getsockname()[1])
    finally:
        server.should_exit = True
        await task
