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
def environment(database_url: str) -> dict[str, str]:
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")])
    return {"PATH": os.environ["PATH"], "PYTHONPATH": path, "DATABASE_URL": database_url, **ENVIRONMENT}


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


@pytest.mark.only_full
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
