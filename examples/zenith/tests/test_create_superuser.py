"""The command that makes the first superuser, as a process of its own."""

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
    """The superuser is made, with the tables; a second time is an error that promotes nobody, or left alone if so wished."""
    made = await create(environment, EMAIL, "--full-name", "Ada", "--password-stdin")
    again = await create(environment, EMAIL.lower(), "--full-name", "Mallory", "--password-stdin")
    left = await create(environment, EMAIL, "--if-missing", password="")

    assert made[0] == 0
    assert "Superuser 1 is there." in made[1]
    assert (again[0], again[2]) == (1, "Not created: an account with this address exists already; nobody was promoted\n")
    assert left == (0, "An account with this address exists already, and stays as it is.\n", "")
    assert await users(database_url) == [("ada@example.org", "Ada", True, True)]


@pytest.mark.parametrize(
    ("email", "password", "reason"),
    [
        (EMAIL, "short", "password: String should have at least 8 characters"),
        (EMAIL, "password123", "the password is too common"),
        ("nobody", PASSWORD, "email: is not a valid e-mail address"),
    ],
)
async def test_refused(environment: dict[str, str], database_url: str, email: str, password: str, reason: str) -> None:
    """R30: a password that the policy refuses, or what is no address, is said in a sentence, without the password or a traceback."""
    code, out, err = await create(environment, email, "--password-stdin", password=password)

    assert (code, out) == (1, "")
    assert err.startswith("Not created: ")
    assert reason in err
    assert (err.count("\n"), password in err) == (1, False)
    assert await users(database_url) == []


async def test_usage(environment: dict[str, str]) -> None:
    """Without an address the command line is wrong."""
    code, _, err = await create(environment)

    assert code == 2
    assert "usage: create_superuser" in err


async def test_no_database(environment: dict[str, str]) -> None:
    """A database that does not answer is said in a sentence too."""
    nowhere = {**environment, "DATABASE_URL": "postgresql+asyncpg://postgres@127.0.0.1:1/none"}

    code, _, err = await create(nowhere, EMAIL, "--password-stdin")

    assert (code, err.count("\n")) == (1, 1)
    assert "database" in err
