"""Create the first superuser: ``python -m examples.zenith.create_superuser ada@example.org``."""

import argparse
import asyncio
import getpass
import sys

from pydantic import SecretStr, ValidationError

from fastapi_kit import ConflictError, KitError, UserInputError
from fastapi_kit.auth.users import normalize_email

from .database import db, init_db
from .schemas import UserCreate
from .services import UserService


def main() -> int:
    """Return the exit code: 0 if the superuser exists now, 1 if it was not created. A wrong command line is 2."""
    parser = argparse.ArgumentParser(prog="create_superuser", description="Create an active superuser and the missing tables.")
    parser.add_argument("email")
    parser.add_argument("--full-name", default="Superuser")
    parser.add_argument("--password-stdin", action="store_true", help="read the password from the first line of stdin")
    parser.add_argument("--if-missing", action="store_true", help="succeed if an account with this address exists")
    try:
        print(asyncio.run(create(parser.parse_args())))
    except ValidationError as error:
        return fail("; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors(include_input=False)))
    except ConflictError:
        return fail("an account with this address already exists; it was not changed")
    except UserInputError as error:
        return fail(str(error))
    except KitError as error:
        return fail(f"database error: {error}")
    return 0


async def create(arguments: argparse.Namespace) -> str:
    try:
        await init_db()
        if arguments.if_missing and await is_known(arguments.email):
            return "An account with this address already exists; it was not changed."
        password = SecretStr(sys.stdin.readline().rstrip("\r\n") if arguments.password_stdin else ask())
        data = UserCreate(email=arguments.email, full_name=arguments.full_name, password=password, is_superuser=True)
        async with db.begin() as session:
            user = await UserService(session).create(data)
        return f"Superuser {user.id} created."
    finally:
        await db.dispose()


async def is_known(email: str) -> bool:
    async with db.sessions() as session:
        return await UserService(session).get_by(email=normalize_email(email)) is not None


def ask() -> str:
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise UserInputError("the passwords are not the same")
    return password


def fail(reason: str) -> int:
    print(f"Not created: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
