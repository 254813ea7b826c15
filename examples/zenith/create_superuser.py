"""Make the first superuser: ``python -m examples.zenith.create_superuser ada@example.org``."""

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
    """Exit codes: 0 it is there, 1 it was refused, 2 the command line is wrong."""
    parser = argparse.ArgumentParser(prog="create_superuser", description="Create an active superuser, and missing tables.")
    parser.add_argument("email")
    parser.add_argument("--full-name", default="Superuser")
    parser.add_argument("--password-stdin", action="store_true", help="read the password from the first line of stdin, do not ask")
    parser.add_argument("--if-missing", action="store_true", help="leave an account alone that has this address")
    try:
        print(asyncio.run(create(parser.parse_args())))
    except ValidationError as error:
        return refuse("; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors(include_input=False)))
    except ConflictError:
        return refuse("an account with this address exists already; nobody was promoted")
    except UserInputError as error:
        return refuse(str(error))
    except KitError as error:
        return refuse(f"the database refuses: {error}")
    return 0


async def create(arguments: argparse.Namespace) -> str:
    try:
        await init_db()
        if arguments.if_missing and await is_known(arguments.email):
            return "An account with this address exists already, and stays as it is."
        password = SecretStr(sys.stdin.readline().rstrip("\r\n") if arguments.password_stdin else ask())
        data = UserCreate(email=arguments.email, full_name=arguments.full_name, password=password, is_superuser=True)
        async with db.begin() as session:
            user = await UserService(session).create(data)
        return f"Superuser {user.id} is there."
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


def refuse(reason: str) -> int:
    print(f"Not created: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
