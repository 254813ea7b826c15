"""Redis for the tests: the shared server, and one that a test can stop and start."""

import asyncio
import gc
import os
import shutil
import sys
import warnings
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from tests.reliability.aside import eventually
from tests.reliability.servers import closed_port

from fastapi_kit.cache import Cache
from fastapi_kit.errors import UnavailableError

URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/0")
PROGRAM = shutil.which("redis-server")
# A busy machine is slow, and a test that is about something else must not depend on it.
PATIENT = 10.0


def leave_out(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def loops_that_leave_connections() -> Generator[None]:
    """Collect the connections of closed event loops at the end, all at once and without a word: each warns when it is collected."""
    said, gc_was_on = sys.unraisablehook, gc.isenabled()
    # What pytest notes of an error keeps the connection alive until the next test.
    sys.unraisablehook = lambda _: None
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            yield
            gc.collect()
    finally:
        sys.unraisablehook = said
        if gc_was_on:
            gc.enable()


async def answers(cache: Cache) -> bool:
    with suppress(UnavailableError):
        await cache.ping()
        return True
    return False


@asynccontextmanager
async def shared_redis(*, processes: int = 1) -> AsyncGenerator[list[Cache]]:
    """Yield caches on the shared server that see each other's entries, as those of several processes do. They are emptied at the end."""
    prefix = f"fastapi_kit_tests_{uuid4().hex}:"
    caches = [Cache(URL, prefix=prefix, timeout=PATIENT) for _ in range(processes)]
    if not await answers(caches[0]):
        leave_out("Redis is not reachable: set TEST_REDIS_URL or start it on 127.0.0.1:6379")
    try:
        yield caches
    finally:
        store = caches[0]._store
        await store.delete_all(prefix)
        for cache in caches:
            async with cache.lifespan(None):
                pass


@asynccontextmanager
async def shared_prefix() -> AsyncGenerator[str]:
    """Yield how the names of a test's own keys on the shared server begin. They are removed at the end."""
    prefix = f"fastapi_kit_tests_{uuid4().hex}:"
    async with Redis.from_url(URL) as client:
        try:
            await client.ping()
        except RedisError:
            leave_out("Redis is not reachable: set TEST_REDIS_URL or start it on 127.0.0.1:6379")
        yield prefix
        keys = [key async for key in client.scan_iter(f"{prefix}*")]
        if keys:
            await client.delete(*keys)


class RedisServer:
    """A server of the test's own. It stores nothing on disk, so it is empty after a start."""

    def __init__(self, folder: Path, *, password: str = "") -> None:
        if PROGRAM is None:
            leave_out("redis-server is not installed: apt-get install redis-server")
        self.port = closed_port()
        self.url = f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}/0"
        self._password = ["--requirepass", password] if password else []
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *, dump: bool = False) -> None:
        quiet, port = asyncio.subprocess.DEVNULL, str(self.port)
        options = ["--bind", "127.0.0.1", "--port", port, "--save", "3600 1000000" if dump else "", "--dir", str(self._folder)]
        self._process = await asyncio.create_subprocess_exec(PROGRAM or "", *options, *self._password, stdout=quiet, stderr=quiet)
        await eventually(self.listens)

    async def stop(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            await self._process.wait()
            self._process = None

    async def listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True
