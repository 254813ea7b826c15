"""The command that creates the first superuser."""

import asyncio
import io
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import URL, make_url
from tests.auth.accounts import PASSWORD, Registration, Users
from tests.tables.accounts import AccountsBase, User

from fastapi_kit.auth.users import Account, AuthFlow, superuser_command
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.testing import cheap_hasher

FLOW = AuthFlow[User, Registration](accounts=Users, passwords=cheap_hasher())
EMAIL = "Ada@Example.org"


@pytest.fixture
def database_url(database: Database) -> URL:
    """An empty database."""
    return database.engine.url


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    def type_in(*lines: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        typed = iter(lines)
        monkeypatch.setattr("getpass.getpass", lambda prompt: next(typed))

    return type_in


def run(url: URL, *arguments: str, flow: AuthFlow[User, Registration] = FLOW) -> int:
    """Run the command as a process would: on a database and an event loop of its own."""
    db = Database(url)
    return superuser_command(db, flow, Registration, prepare=lambda: db.create_tables(AccountsBase.metadata), arguments=arguments)


def stored(url: URL) -> list[tuple[str, str, bool, bool, bool]]:
    async def read() -> list[tuple[str, str, bool, bool, bool]]:
        db = Database(url)
        async with db.sessions() as session:
            users = await Users(session).list()
        await db.dispose()
        return [(user.email, user.full_name, user.is_active, user.is_verified, user.is_superuser) for user in users]

    return asyncio.run(read())


def test_create(database_url: URL, type_in: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prepares the database and creates the superuser; it never changes an account that exists."""
    type_in(PASSWORD)
    assert run(database_url, EMAIL, "--full-name", "Ada", "--password-stdin") == 0
    assert capsys.readouterr() == ("Superuser 1 created.\n", "")
    type_in(PASSWORD)
    assert run(database_url, EMAIL.lower(), "--password-stdin") == 1
    assert capsys.readouterr() == ("", "Not created: an account with this address already exists; it was not changed\n")
    type_in()
    assert run(database_url, EMAIL, "--if-missing") == 0
    assert capsys.readouterr() == ("An account with this address already exists; it was not changed.\n", "")
    assert stored(database_url) == [("ada@example.org", "Ada", True, False, True)]


@pytest.mark.parametrize(
    ("email", "password", "reason"),
    [
        (EMAIL, "short", "password: String should have at least 8 characters"),
        (EMAIL, "password123", "the password is too common"),
        ("ada", PASSWORD, "email: is not a valid e-mail address"),
    ],
)
def test_rejected(database_url: URL, type_in: Any, capsys: pytest.CaptureFixture[str], email: str, password: str, reason: str) -> None:
    """R30: a weak password or an invalid address is one line of text, without the password or a traceback."""
    type_in(password)
    assert run(database_url, email, "--password-stdin") == 1

    out, err = capsys.readouterr()
    assert (out, err.count("\n"), password in err) == ("", 1, False)
    assert err.startswith("Not created: ")
    assert reason in err
    assert stored(database_url) == []


def test_the_password_is_typed_twice(database_url: URL, type_in: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Without ``--password-stdin`` the command asks twice, and rejects two different passwords."""
    type_in(PASSWORD, "another password")
    assert run(database_url, EMAIL) == 1
    assert "not the same" in capsys.readouterr().err
    type_in(PASSWORD, PASSWORD)
    assert run(database_url, EMAIL) == 0


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Without an address the command prints its usage, with an option for each field of the schema."""
    with pytest.raises(SystemExit) as caught:
        run(make_url("sqlite://"))
    assert caught.value.code == 2
    assert "--full-name" in capsys.readouterr().err


def test_no_database(type_in: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A database that does not answer is one line of text."""
    type_in(PASSWORD)
    assert run(make_url("postgresql+asyncpg://postgres@127.0.0.1:1/none"), EMAIL, "--password-stdin") == 1
    err = capsys.readouterr().err
    assert (err.count("\n"), "database" in err) == (1, True)


def test_accounts_of_your_own(database_url: URL, type_in: Any) -> None:
    """Accounts that are not a UserAccounts raise ConfigurationError, and create no user."""

    class Wrapped:
        def __init__(self, session: Any) -> None:
            self.users = Users(session)

        def describe(self, user: User, /) -> Account:
            return self.users.describe(user)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.users, name)

    type_in(PASSWORD)
    own: Any = Wrapped
    with pytest.raises(ConfigurationError, match="Wrapped"):
        run(database_url, EMAIL, "--password-stdin", flow=replace(FLOW, accounts=own))
    assert stored(database_url) == []
