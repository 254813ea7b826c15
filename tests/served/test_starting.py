"""A start that cannot succeed says so, and shows no secret."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.served.servers import Command, gunicorn, launched, serving, uvicorn
from tests.thorough import few

PRODUCTION = {"ENVIRONMENT": "production", "SECRET_KEY": "6f1de2a7c94b3058e7a19cd460fb25839b0c7ed1"}


@pytest.fixture
def away() -> Iterator[str]:
    """The URL of a database server that is away: its port is taken, and nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"postgresql+asyncpg://app:hush-hush@127.0.0.1:{taken.getsockname()[1]}/shop?password=hush-hush"


@pytest.mark.only_full
@pytest.mark.parametrize("command", few([uvicorn(), gunicorn()]), ids=str)
async def test_tables_cannot_be_created_without_a_database(command: Command, away: str, tmp_path: Path) -> None:
    """With create_tables the app does not start without its database; the log says so, without the password."""
    async with launched(command, tmp_path, DATABASE_URL=away, **PRODUCTION) as server:
        code = await server.ended()

    assert code == 3, server.output
    assert "The postgresql database does not answer yet" in server.log
    assert "UnavailableError: database is unavailable" in server.log
    assert "hush" not in server.output


@pytest.mark.only_full
async def test_an_app_starts_before_its_database(away: str, tmp_path: Path) -> None:
    """Without create_tables the app starts, says one line, is not ready, and answers 503 until the database does."""
    async with (
        serving(uvicorn(), tmp_path, DATABASE_URL=away, CREATE_TABLES="false", **PRODUCTION) as server,
        server.client() as client,
    ):
        ready, alive = await client.get("/readyz"), await client.get("/livez")
        notes = await client.get("/notes")

    assert (ready.status_code, ready.json()["checks"], alive.status_code) == (503, {"database": "failed"}, 200)
    assert (notes.status_code, notes.json()["code"], notes.headers["retry-after"]) == (503, "unavailable", "1")
    assert server.log.count("does not answer yet") == 1
    assert "Traceback" not in server.output
    assert "hush" not in server.output


@pytest.mark.parametrize(("command", "code"), few([(gunicorn(), 3), (uvicorn(), 1)]), ids=str)
async def test_settings_that_are_unsafe_end_it(command: Command, code: int, away: str, tmp_path: Path) -> None:
    """The log says what is missing, and nothing of what was given."""
    async with launched(command, tmp_path, DATABASE_URL=away, ENVIRONMENT="production") as server:
        assert await server.ended() == code

    assert "SECRET_KEY is missing" in server.log
    assert "hush" not in server.output
