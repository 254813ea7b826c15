"""The application gets SIGTERM before the server does."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from fastapi_kit.app import create_app
from fastapi_kit.health import health_router
from fastapi_kit.settings import KitSettings
from fastapi_kit.testing import app_client


class Server:
    """A handler as a server installs it before it starts the application."""

    def __init__(self) -> None:
        self.signalled = asyncio.Event()
        self.signals: list[int] = []

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)
        self.signalled.set()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    before = signal.signal(signal.SIGTERM, server)
    yield server
    signal.signal(signal.SIGTERM, before)


def app_with(*, drain_seconds: float = 0.0) -> FastAPI:
    app = FastAPI()
    app.include_router(health_router(version="1", cache_seconds=0, drain_seconds=drain_seconds))
    return app


async def ready(client: AsyncClient) -> int:
    return (await client.get("/readyz")).status_code


async def test_readiness_goes_first(server: Server) -> None:
    """After SIGTERM the application is not ready, but still answers. The server gets the signal too."""
    async with app_client(app_with()) as client:
        assert await ready(client) == 200

        signal.raise_signal(signal.SIGTERM)

        assert server.signals == [signal.SIGTERM]
        assert await ready(client) == 503
        assert (await client.get("/livez")).status_code == 200


async def test_the_server_gets_the_signal_after_the_delay(server: Server) -> None:
    """Until the delay is over, the application is not ready and still answers."""
    async with app_client(app_with(drain_seconds=0.05)) as client:
        signal.raise_signal(signal.SIGTERM)

        assert server.signals == []
        assert await ready(client) == 503
        await server.signalled.wait()
        assert server.signals == [signal.SIGTERM]


async def test_a_second_signal_ends_the_wait(server: Server) -> None:
    """A second signal is passed on without a delay."""
    async with app_client(app_with(drain_seconds=3600)):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

        assert server.signals == [signal.SIGTERM]


async def test_the_servers_handler_is_put_back(server: Server) -> None:
    """The server's handler is restored after the lifespan."""
    async with app_client(app_with()):
        assert signal.getsignal(signal.SIGTERM) is not server

    assert signal.getsignal(signal.SIGTERM) is server


async def test_a_handler_that_came_later_stays(server: Server) -> None:
    """A handler that the application installed meanwhile stays."""
    later = Server()
    async with app_client(app_with()):
        signal.signal(signal.SIGTERM, later)

    assert signal.getsignal(signal.SIGTERM) is later


async def test_two_apps_in_one_process_both_get_it(server: Server) -> None:
    """Each application passes the signal on."""
    async with app_client(app_with()) as first, app_client(app_with()) as second:
        signal.raise_signal(signal.SIGTERM)

        assert (await ready(first), await ready(second)) == (503, 503)
        assert server.signals == [signal.SIGTERM]


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
async def test_nothing_is_installed_without_a_handler(server: Server, handler: signal.Handlers) -> None:
    """A script or a test without a handler keeps the default behaviour."""
    signal.signal(signal.SIGTERM, handler)

    async with app_client(app_with()):
        assert signal.getsignal(signal.SIGTERM) is handler


async def test_nothing_is_installed_outside_the_main_thread(server: Server) -> None:
    """Python sets signal handlers in the main thread only. A server in another thread works without one."""

    async def run() -> int:
        async with app_client(app_with()) as client:
            return await ready(client)

    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(asyncio.run(run())))
    thread.start()
    await asyncio.to_thread(thread.join)

    assert statuses == [200]


async def test_the_event_loops_own_handlers_are_called(server: Server) -> None:
    """gunicorn's asgi worker uses the handlers of the event loop. They are called, and so is the application's."""
    heard = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, heard.set)
    try:
        async with app_client(app_with()) as client:
            signal.raise_signal(signal.SIGTERM)

            await heard.wait()
            assert await ready(client) == 503
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def test_an_app_waits_as_its_settings_say(server: Server) -> None:
    """SHUTDOWN_DRAIN_SECONDS is passed on to the probes of create_app."""
    async with app_client(create_app(KitSettings(SHUTDOWN_DRAIN_SECONDS=3600))) as client:
        signal.raise_signal(signal.SIGTERM)

        assert server.signals == []
        assert await ready(client) == 503
