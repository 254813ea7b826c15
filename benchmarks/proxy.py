"""A database that is farther away: a TCP proxy, in a process of its own, that delivers what it is given a little later.

Run with HOST PORT SECONDS, this file prints the port that it listens on, and ends with its standard input.
"""

import asyncio
import selectors
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

__all__ = ["delayed"]

_LARGEST_READ = 65_536
_OWN_COST = 0.000_2
"""Seconds that reading, waking up and writing take by themselves."""


@asynccontextmanager
async def delayed(host: str, port: int, seconds: float) -> AsyncGenerator[int]:
    """Yield a port of this machine behind which *host* and *port* are *seconds* farther away, in each direction."""
    arguments = [__file__, host, str(port), str(seconds)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.stdin.close()
        await process.wait()


async def _serve(host: str, port: int, seconds: float) -> asyncio.Server:
    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, port)
        await asyncio.gather(_deliver_later(reader, far_writer, seconds), _deliver_later(far_reader, writer, seconds))

    return await asyncio.start_server(connect, "127.0.0.1", 0)


async def _deliver_later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Write each piece *seconds* after it was read. The next one is read meanwhile: what is sent in one go arrives in one go."""
    later, wait = asyncio.get_running_loop().call_later, max(seconds - _OWN_COST, 0)
    with suppress(ConnectionError):
        while piece := await reader.read(_LARGEST_READ):
            later(wait, writer.write, piece)
    later(wait, writer.close)


async def _main(host: str, port: str, seconds: str) -> None:
    server = await _serve(host, int(port), float(seconds))
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


def _exact_loop() -> asyncio.SelectorEventLoop:
    """epoll waits for whole milliseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=_exact_loop) as runner:
        runner.run(_main(*sys.argv[1:]))
