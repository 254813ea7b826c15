"""What an import loads, and the import paths beside those of the rooms."""

import importlib
import subprocess
import sys

import pytest

PATHS = {
    "accounts": "users.accounts",
    "dependencies": "requests",
    "flow": "users.flow",
    "keys": "tokens.keys",
    "router": "users.router",
    "schemas": "users.schemas",
    "sessions": "logins",
    "sql": "users.sql",
    "transports": "requests",
    "websocket": "requests.websocket",
}


@pytest.mark.parametrize(("path", "home"), PATHS.items())
def test_a_short_path(path: str, home: str) -> None:
    """``fastapi_kit.auth.sql`` and the other short paths export the names of their rooms."""
    short, room = (importlib.import_module(f"fastapi_kit.auth.{name}") for name in (path, home))

    assert [name for name in short.__all__ if getattr(short, name) is not getattr(room, name)] == []


SCRIPTS = {
    "tokens": (
        "from fastapi_kit.auth import JWTService",
        "tokens = JWTService(secret_key='o3Q9vK1cXf7mZ2rT8yLwB5nH4dJ6sGaE')",
        "tokens.decode(tokens.create_access_token('1'))",
    ),
    "passwords": (
        "import asyncio",
        "from fastapi_kit.auth.passwords import PasswordHasher, PasswordPolicy",
        "asyncio.run(PasswordPolicy().check('correct horse battery staple'))",
        "asyncio.run(PasswordHasher(rounds=10).hash('correct horse battery staple'))",
    ),
    "logins": (
        "import asyncio",
        "from fastapi_kit.auth.logins import StatelessLogins",
        "from fastapi_kit.auth.tokens import JWTService",
        "asyncio.run(StatelessLogins(JWTService(secret_key='o3Q9vK1cXf7mZ2rT8yLwB5nH4dJ6sGaE')).start('1'))",
    ),
    "api_keys": (
        "import asyncio",
        "from fastapi_kit.auth.api_keys import APIKeys, MemoryAPIKeyStore",
        "asyncio.run(APIKeys(MemoryAPIKeyStore(), prefix='shop').create('1', name='script'))",
    ),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_loads_no_framework(script: str) -> None:
    """A script with tokens, API keys, passwords or logins loads neither FastAPI nor SQLAlchemy, also when it runs."""
    assert {"fastapi", "starlette", "sqlalchemy"}.isdisjoint(modules_loaded_by(*SCRIPTS[script]))


@pytest.mark.only_full
def test_a_model_of_users_loads_no_web_framework() -> None:
    """Models, services and the steps of a login are without FastAPI: scripts and migrations use them, too."""
    loaded = modules_loaded_by("from fastapi_kit.auth.users import Account, AuthFlow, UserAccounts, UserMixin, normalize_email")

    assert {"fastapi", "starlette"}.isdisjoint(loaded)


def modules_loaded_by(*lines: str) -> list[str]:
    command = [sys.executable, "-W", "error", "-c", "\n".join([*lines, "import sys", "print(*sys.modules)"])]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
