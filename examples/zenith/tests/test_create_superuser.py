"""The command that creates the first superuser, run as a process."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from fastapi_kit import Database

from .conftest import ENVIRONMENT, PASSWORD

REPOSITORY = Path(__file__).parents[3]
EMAIL = "Ada@Example.org"


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "DATABASE_URL": database_url, **ENVIRONMENT}


async def create(environment: dict[str, str], *arguments: str, password: str = PASSWORD) -> tuple[int | None, str, str]:
    command = (sys.executable, "-m", "examples.zenith.create_superuser", *arguments)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe)
    out, err = await process.communicate(f"{password}\n".encode())
    return process.returncode, out.decode(), err.decode()


async def users(url: str) -> list[tuple[str, str, bool, bool]]:
    db = Database(url)
    async with db.begin() as session:
        found = await session.execute(text("SELECT email, full_name, is_active, is_superuser FROM users"))
        rows = [(row.email, row.full_name, bool(row.is_active), bool(row.is_superuser)) for row in found]
    await db.dispose()
    return rows


async def test_create(environment: dict[str, str], database_url: str) -> None:
    """The command creates the tables and the superuser. It never changes an account that exists."""
    made = await create(environment, EMAIL, "--full-name", "Ada", "--password-stdin")
    again = await create(environment, EMAIL.lower(), "--full-name", "Mallory", "--password-stdin")
    left = await create(environment, EMAIL, "--if-missing", password="")

    assert made[0] == 0
    assert "Superuser 1 created." in made[1]
    assert (again[0], again[2]) == (1, "Not created: an account with this address already exists; it was not changed\n")
    assert left == (0, "An account with this address already exists; it was not changed.\n", "")
    assert await users(database_url) == [("ada@example.org", "Ada", True, True)]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("email", "password", "reason"),
    [
        (EMAIL, "short", "password: String should have at least 8 characters"),
        (EMAIL, "password123", "the password is too common"),
        ("ada", PASSWORD, "email: is not a valid e-mail address"),
    ],
)
async def test_rejected(environment: dict[str, str], database_url: str, email: str, password: str, reason: str) -> None:
    """R30: a weak password or an invalid address is one line of text, without the password or a traceback."""
    code, out, err = await create(environment, email, "--password-stdin", password=password)

    assert (code, out) == (1, "")
    assert err.startswith("Not created: ")
    assert reason in err
    assert (err.count("\n"), password in err) == (1, False)
    assert await users(database_url) == []


@pytest.mark.thorough
async def test_usage(environment: dict[str, str]) -> None:
    """Without an address the command prints its usage."""
    code, _, err = await create(environment)

    assert code == 2
    assert "usage: create_superuser" in err


@pytest.mark.thorough
async def test_no_database(environment: dict[str, str]) -> None:
    """A database that does not answer is one line of text."""
    nowhere = {**environment, "DATABASE_URL": "postgresql+asyncpg://postgres@127.0.0.1:1/none"}

    code, _, err = await create(nowhere, EMAIL, "--password-stdin")

    assert (code, err.count("\n")) == (1, 1)
    assert "database" in err
