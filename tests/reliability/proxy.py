"""A PostgreSQL proxy that breaks a connection at a given statement."""

import asyncio
import enum
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sqlalchemy import URL
from tests.reliability.servers import is_cancel, read_startup, serving

__all__ = ["Fault", "Proxy", "proxied"]


class Fault(enum.Enum):
    """What happens to a statement on its way."""

    CUT = "the server does not get it, the connection is closed"
    RESET = "the server does not get it, the connection is reset"
    CUT_ANSWER = "the server has done it, the connection is closed before it says so"
    FREEZE = "the server does not get it, nothing is answered on this connection any more"
    FREEZE_ANSWER = "the server has done it, nothing is answered on this connection any more"
    FREEZE_ALL = "the server does not get it, nothing is answered on any connection, new ones included"
    HOLD = "it waits until it is released"

    @property
    def is_done(self) -> bool:
        """Whether the server has done what it was asked."""
        return self in {Fault.CUT_ANSWER, Fault.FREEZE_ANSWER}


@dataclass
class Proxy:
    """Connect to *url*. A statement is what the client sends in one go and waits for: a login, a query, a COMMIT."""

    url: URL
    server: URL
    statements: list[bytes] = field(default_factory=list[bytes])
    """What has been sent since the last ``arm``."""
    struck: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the fault has happened."""
    released: asyncio.Event = field(default_factory=asyncio.Event)
    _fault: Fault | None = None
    _at: int = 0
    frozen: bool = False
    _clients: set[asyncio.StreamWriter] = field(default_factory=set[asyncio.StreamWriter])

    def arm(self, fault: Fault | None = None, *, at: int = 0) -> None:
        """Break the statement number *at*, counted from now and from 1; without a *fault* only count, and everything works again."""
        self.statements, self.struck, self.released = [], asyncio.Event(), asyncio.Event()
        self._fault, self._at, self.frozen = fault, at, False

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self._clients.add(writer)
        try:
            await self._talk(reader, writer)
        finally:
            self._clients.discard(writer)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        startup = await read_startup(reader, writer)
        if self.frozen:
            await reader.read(-1)
            return
        up_reader, up_writer = await asyncio.open_connection(self.server.host, self.server.port or 5432)
        connection = _Connection(self, reader, writer, up_reader, up_writer)
        try:
            if is_cancel(startup):
                up_writer.write(startup)
                await up_reader.read(-1)
            else:
                await connection.run(startup)
        finally:
            up_writer.transport.abort()

    def cut(self) -> None:
        """Close every connection that is open."""
        for writer in list(self._clients):
            writer.close()

    def next_fault(self, statement: bytes) -> Fault | None:
        self.statements.append(statement)
        if self._fault is None or len(self.statements) != self._at:
            return None
        self.frozen = self._fault is Fault.FREEZE_ALL
        if not self._fault.is_done:
            self.struck.set()
        return self._fault


@dataclass
class _Connection:
    proxy: Proxy
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    up_reader: asyncio.StreamReader
    up_writer: asyncio.StreamWriter
    answering: bool = True
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, startup: bytes) -> None:
        up, down = asyncio.create_task(self.copy_up(startup)), asyncio.create_task(self.copy_down())
        try:
            await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.wait([up, down])
            for task in (up, down):
                if not task.cancelled():
                    task.exception()

    async def copy_up(self, statement: bytes) -> None:
        while True:
            if not await self.forward(statement):
                return
            statement = await self.read_statement()

    async def read_statement(self) -> bytes:
        statement = b""
        while True:
            head = await self.reader.readexactly(5)
            statement += head + await self.reader.readexactly(int.from_bytes(head[1:]) - 4)
            if head[:1] in b"QSX":
                return statement
            if head[:1] == b"H":
                self.up_writer.write(statement)
                statement = b""

    async def forward(self, statement: bytes) -> bool:
        if statement[:1] == b"X":
            return False
        if self.proxy.frozen:
            await self.reader.read(-1)
            return False
        match self.proxy.next_fault(statement):
            case Fault.CUT:
                return False
            case Fault.RESET:
                raw: socket.socket = self.writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.writer.transport.abort()
                return False
            case Fault.FREEZE | Fault.FREEZE_ALL:
                self.answering = False
                await self.reader.read(-1)
                return False
            case Fault.CUT_ANSWER | Fault.FREEZE_ANSWER as fault:
                self.answering = False
                self.up_writer.write(statement)
                await self.done.wait()
                self.proxy.struck.set()
                if fault is Fault.FREEZE_ANSWER:
                    await self.reader.read(-1)
                return False
            case Fault.HOLD:
                await self.proxy.released.wait()
            case _:
                pass
        self.up_writer.write(statement)
        return True

    async def copy_down(self) -> None:
        pending = bytearray()
        while data := await self.up_reader.read(65536):
            if self.answering and not self.proxy.frozen:
                self.writer.write(data)
                continue
            pending += data
            while len(pending) >= 5 and len(pending) > (size := int.from_bytes(pending[1:5])):
                if bytes(pending[:1]) == b"Z":
                    self.done.set()
                del pending[: size + 1]


@asynccontextmanager
async def proxied(server: URL, *, port: int = 0) -> AsyncGenerator[Proxy]:
    """Stand between the app and the *server*, at *port* if one is given."""
    proxy = Proxy(server, server)
    async with serving(proxy.talk, port=port) as port:
        proxy.url = server.set(host="127.0.0.1", port=port)
        yield proxy
