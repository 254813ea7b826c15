"""A command that creates the first superuser."""

import argparse
import asyncio
import getpass
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from fastapi_kit.auth.users.flow import AuthFlow
from fastapi_kit.auth.users.sql import UserAccounts, UserMixin
from fastapi_kit.db.database import Database
from fastapi_kit.errors import ConfigurationError, ConflictError, KitError, UserInputError

__all__ = ["superuser_command"]

UserT = TypeVar("UserT", bound=UserMixin)
RegisterT = TypeVar("RegisterT", bound=BaseModel)

KNOWN = "an account with this address already exists; it was not changed"


def superuser_command(
    db: Database,
    flow: AuthFlow[UserT, RegisterT],
    schema: type[RegisterT],
    *,
    prepare: Callable[[], Awaitable[object]] | None = None,
    arguments: Sequence[str] | None = None,
) -> int:
    """Create an active superuser from the command line, and return the exit code: ``sys.exit(superuser_command(db, flow, UserRegister))``.

    The command takes the e-mail address, and the other fields of *schema* as options: ``full_name`` is ``--full-name``. It asks for the
    password, or reads it from stdin with ``--password-stdin``. With ``--if-missing`` an account that exists is no failure. An account that
    exists is never changed. What goes wrong is one line of text on stderr, and the exit code is 1.

    Args:
        db: The database. It is disposed at the end.
        flow: Its *accounts* are a ``UserAccounts``. Its policy checks the password.
        schema: The schema of a registration.
        prepare: Called first, such as a function that creates missing tables in development.
        arguments: Instead of those of the process.
    """
    parser = argparse.ArgumentParser(description="Create an active superuser.")
    parser.add_argument("email")
    options = [name for name in schema.model_fields if name not in {"email", "password"}]
    for name in options:
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name)
    parser.add_argument("--password-stdin", action="store_true", help="read the password from the first line of stdin")
    parser.add_argument("--if-missing", action="store_true", help="succeed if an account with this address exists")
    given = parser.parse_args(arguments)
    values = {name: getattr(given, name) for name in ["email", *options] if getattr(given, name) is not None}
    try:
        sys.stdout.write(asyncio.run(create(db, flow, schema, prepare, values, given)))
    except ValidationError as error:
        return fail("; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_input=False)))
    except ConflictError:
        return fail(KNOWN)
    except ConfigurationError:
        raise
    except UserInputError as error:
        return fail(str(error))
    except KitError as error:
        return fail(f"database error: {error}")
    return 0


async def create(
    db: Database,
    flow: AuthFlow[UserT, RegisterT],
    schema: type[RegisterT],
    prepare: Callable[[], Awaitable[object]] | None,
    values: dict[str, str],
    given: argparse.Namespace,
) -> str:
    """Create the superuser, and return what to print."""
    try:
        if prepare is not None:
            await prepare()
        async with db.sessions() as session:
            if given.if_missing and await flow.accounts(session).get_account_by_email(values["email"]) is not None:
                return f"{KNOWN.capitalize()}.\n"
        password = sys.stdin.readline().rstrip("\r\n") if given.password_stdin else ask()
        data = schema.model_validate({**values, "password": password})
        async with db.begin() as session:
            user = await flow.register(session, data, password=password)
            accounts = flow.accounts(session)
            if not isinstance(accounts, UserAccounts):
                raise ConfigurationError(f"{type(accounts).__name__} is not a UserAccounts: create the superuser by a script of your own")
            await cast("Any", accounts).update(cast("Any", user).id, {"is_superuser": True})
        return f"Superuser {accounts.describe(user).subject} created.\n"
    finally:
        await db.dispose()


def ask() -> str:
    """Return the password that the user types twice."""
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise UserInputError("the passwords are not the same")
    return password


def fail(reason: str) -> int:
    """Print why there is no superuser, and return the exit code."""
    sys.stderr.write(f"Not created: {reason}\n")
    return 1
