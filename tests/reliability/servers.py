"""Servers that fail as a PostgreSQL server can: before it speaks, while it starts, or by saying something else."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

__all__ = [
    "Talk",
    "closed_port",
    "hang_up",
    "rejecting",
    "say_garbage",
    "say_garbage_after_login",
    "say_nothing",
    "say_nothing_after_login",
    "serving",
]

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""What a server does with one connection; at its end the connection is closed."""

_WITHOUT_TLS = {80877103, 80877104}
_CANCEL = 80877102


@asynccontextmanager
async def serving(talk: Talk, *, port: int = 0) -> AsyncGenerator[int]:
    """Let *talk* serve every connection to a port of 127.0.0.1, which is yielded. At the end nothing listens there."""
    talks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        # A cancelled task of start_server is reported as an error of the loop.
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            try:
                await talk(reader, writer)
            finally:
                talks.discard(task)
                writer.transport.abort() if task.cancelling() else writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in list(talks):
            task.cancel()
        if talks:
            await asyncio.wait(talks)


def closed_port() -> int:
    """Return a port of 127.0.0.1 where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept and close at once."""


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept and never answer."""
    await reader.read(-1)


async def say_garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as a web server would, whatever is said."""
    await reader.read(4)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()


async def say_garbage_after_login(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the login with bytes that are no message."""
    await read_startup(reader, writer)
    writer.write(b"\xff\x00\x00\x00\x08\xde\xad\xbe\xef" * 8)
    await writer.drain()


async def say_nothing_after_login(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Let the client in and answer no statement."""
    await read_startup(reader, writer)
    status = b"".join(
        message(b"S", name + b"\0" + value + b"\0") for name, value in [(b"server_version", b"15.0"), (b"client_encoding", b"UTF8")]
    )
    writer.write(message(b"R", (0).to_bytes(4)) + status + message(b"K", bytes(8)) + message(b"Z", b"I"))
    await reader.read(-1)


def rejecting(state: str, text: str) -> Talk:
    """Reject every login with the SQLSTATE *state* and the *text*, as a server does."""

    async def reject(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_startup(reader, writer)
        fields = {"S": "FATAL", "V": "FATAL", "C": state, "M": text}
        writer.write(message(b"E", b"".join(f"{key}{value}\0".encode() for key, value in fields.items()) + b"\0"))
        await writer.drain()

    return reject


def message(kind: bytes, body: bytes) -> bytes:
    """Return a message of the protocol (PostgreSQL's manual, 55.7)."""
    return kind + (len(body) + 4).to_bytes(4) + body


async def read_startup(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Read until the client logs in, or cancels, and return what it said. There is no TLS."""
    while True:
        head = await reader.readexactly(8)
        body = await reader.readexactly(int.from_bytes(head[:4]) - 8)
        if int.from_bytes(head[4:]) not in _WITHOUT_TLS:
            return head + body
        writer.write(b"N")


def is_cancel(startup: bytes) -> bool:
    """Return whether *startup* asks to cancel a statement of another connection."""
    return int.from_bytes(startup[4:8]) == _CANCEL
