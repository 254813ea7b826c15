"""Counts round trips to PostgreSQL on the wire, whatever the driver says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sqlalchemy import URL


@dataclass
class Wire:
    """A proxy in front of a PostgreSQL server."""

    url: URL
    round_trips: int = 0
    _pending: dict[int, bytearray] = field(default_factory=dict)

    def read_answer(self, connection: int, data: bytes) -> None:
        """Count the ReadyForQuery messages: the server sends one at the end of each round trip."""
        buffer = self._pending.setdefault(connection, bytearray())
        buffer += data
        while len(buffer) >= 5:
            size = 1 + int.from_bytes(buffer[1:5])
            if len(buffer) < size:
                return
            self.round_trips += buffer[:1] == b"Z"
            del buffer[:size]


@asynccontextmanager
async def counted(url: URL) -> AsyncIterator[Wire]:
    """Stand between the tests and the server at *url*; connect to ``wire.url``."""
    wire = Wire(url)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(url.host, url.port or 5432)
        upward = asyncio.create_task(_copy(reader, server_writer))
        try:
            # The answer to the driver's request for TLS is one byte, no message.
            writer.write(await server_reader.readexactly(1))
            while data := await server_reader.read(65536):
                wire.read_answer(id(writer), data)
                writer.write(data)
        finally:
            upward.cancel()
            server_writer.close()
            writer.close()

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire.url = url.set(host="127.0.0.1", port=proxy.sockets[0].getsockname()[1])
    try:
        yield wire
    finally:
        proxy.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
