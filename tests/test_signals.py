"""The app hears of SIGTERM before the server does."""

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
    """The signal handler that a server installs before it starts the app."""

    def __init__(self) -> None:
        self.notified = asyncio.Event()
        self.signals: list[int] = []

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)
        self.notified.set()


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
    """From SIGTERM on /readyz is a 503 while the app still serves."""
    async with app_client(app_with()) as client:
        assert await ready(client) == 200

        signal.raise_signal(signal.SIGTERM)

        assert server.signals == [signal.SIGTERM]
        assert await ready(client) == 503
        assert (await client.get("/livez")).status_code == 200


async def test_the_server_gets_the_signal_after_the_delay(server: Server) -> None:
    """The server gets the signal after drain_seconds."""
    async with app_client(app_with(drain_seconds=0.05)) as client:
        signal.raise_signal(signal.SIGTERM)

        assert server.signals == []
        assert await ready(client) == 503
        await server.notified.wait()
        assert server.signals == [signal.SIGTERM]


async def test_a_second_signal_ends_the_wait(server: Server) -> None:
    """A second SIGTERM is passed on at once."""
    async with app_client(app_with(drain_seconds=3600)):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

        assert server.signals == [signal.SIGTERM]


async def test_the_servers_handler_is_put_back(server: Server) -> None:
    """After the lifespan the server's handler is installed again."""
    async with app_client(app_with()):
        assert signal.getsignal(signal.SIGTERM) is not server

    assert signal.getsignal(signal.SIGTERM) is server


async def test_a_handler_that_came_later_stays(server: Server) -> None:
    """A handler that the application has installed meanwhile is kept."""
    later = Server()
    async with app_client(app_with()):
        signal.signal(signal.SIGTERM, later)

    assert signal.getsignal(signal.SIGTERM) is later


async def test_two_apps_in_one_process_both_get_the_signal(server: Server) -> None:
    """Two apps in one process both stop."""
    async with app_client(app_with()) as first, app_client(app_with()) as second:
        signal.raise_signal(signal.SIGTERM)

        assert (await ready(first), await ready(second)) == (503, 503)
        assert server.signals == [signal.SIGTERM]


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
async def test_nothing_is_installed_without_a_handler(server: Server, handler: signal.Handlers) -> None:
    """Without a handler for SIGTERM nothing is installed."""
    signal.signal(signal.SIGTERM, handler)

    async with app_client(app_with()):
        assert signal.getsignal(signal.SIGTERM) is handler


async def test_nothing_is_installed_outside_the_main_thread(server: Server) -> None:
    """In another thread nothing is installed."""

    async def run() -> int:
        async with app_client(app_with()) as client:
            return await ready(client)

    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(asyncio.run(run())))
    thread.start()
    await asyncio.to_thread(thread.join)

    assert statuses == [200]


async def test_the_event_loops_own_handlers_are_called(server: Server) -> None:
    """A handler by add_signal_handler, as gunicorn's, is called."""
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
    """SHUTDOWN_DRAIN_SECONDS is the delay of create_app."""
    async with app_client(create_app(KitSettings(SHUTDOWN_DRAIN_SECONDS=3600))) as client:
        signal.raise_signal(signal.SIGTERM)

        assert server.signals == []
        assert await ready(client) == 503
