"""Import paths beside those of the rooms."""

import importlib

import pytest

PATHS = {
    "accounts": "users.accounts",
    "dependencies": "requests",
    "flow": "users.flow",
    "keys": "tokens.keys",
    "router": "users.router",
    "schemas": "users.schemas",
    "sql": "users.sql",
    "transports": "requests.transports",
}


@pytest.mark.parametrize(("path", "home"), PATHS.items())
def test_a_short_path(path: str, home: str) -> None:
    """``fastapi_kit.auth.sql`` and its like have the names of the room that they belong to."""
    short, room = (importlib.import_module(f"fastapi_kit.auth.{name}") for name in (path, home))

    assert [name for name in short.__all__ if getattr(short, name) is not getattr(room, name)] == []
