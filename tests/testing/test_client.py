"""app_client(): the client for tests of applications."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI, Request

from fastapi_kit.testing.client import app_client


def failing_app() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def fail() -> None:
        raise ZeroDivisionError

    return app


async def test_the_lifespan_is_open_while_the_client_is() -> None:
    """The lifespan starts before the first request and ends after the last."""
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        events.append("start")
        yield
        events.append("stop")

    async with app_client(FastAPI(lifespan=lifespan)):
        assert events == ["start"]

    assert events == ["start", "stop"]


async def test_a_request_sees_what_the_lifespan_yields() -> None:
    """request.state has what the lifespan yields, and its changes are not shared."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, int]]:
        yield {"number": 7}

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def read(request: Request) -> list[object]:
        seen = [request.state.number, hasattr(request.state, "mine")]
        request.state.mine = True
        return seen

    async with app_client(app) as client:
        answers = [(await client.get("/")).json() for _ in range(2)]

    assert answers == [[7, False], [7, False]]


async def test_an_unhandled_error_is_a_500() -> None:
    """By default a bug is a 500, as under a server."""
    async with app_client(failing_app()) as client:
        assert (await client.get("/")).status_code == 500


async def test_an_unhandled_error_can_be_raised_in_the_test() -> None:
    """raise_errors=True raises the bug in the test."""
    async with app_client(failing_app(), raise_errors=True) as client:
        with pytest.raises(ZeroDivisionError):
            await client.get("/")


async def test_the_client_uses_https_by_default() -> None:
    """Secure cookies work by default."""
    app = FastAPI()

    @app.get("/")
    async def read(request: Request) -> str:
        return str(request.url)

    async with app_client(app) as client:
        assert (await client.get("/")).json() == "https://test/"
    async with app_client(app, base_url="http://localhost:8000") as client:
        assert (await client.get("/")).json() == "http://localhost:8000/"


@pytest.mark.only_full
def test_without_httpx_the_error_has_the_install_command() -> None:
    """Without httpx the import raises an error with the install command."""
    program = "import sys; sys.modules['httpx'] = None; import fastapi_kit.testing"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "MissingExtraError: pip install 'fastapi-kit-blocks[testing]'" in done.stderr
