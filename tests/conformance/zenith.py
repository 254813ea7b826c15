"""The Zenith example with two users: a superuser, and a stranger who must not see what belongs to the superuser."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from fastapi import FastAPI

from fastapi_kit.auth import JWTService

__all__ = ["TOKENS", "UNGUESSED", "app"]

_SECRET = "qT8vX2nB6mK9wR4zL7pC1hJ5gF3sD0aY"
# Keys that the driver does not come upon by itself: it would delete the one whose token it has.
_USERS = {"superuser": 1_500_000_001, "stranger": 1_500_000_002}
_TOKENS = JWTService(secret_key=_SECRET)
# They are made when the tests are collected, and used at the end of a long run.
TOKENS = {name: _TOKENS.create_access_token(str(ident), lifetime=timedelta(days=1)) for name, ident in _USERS.items()}
_MEMBERS = "/api/v1/organizations/{organization_id}/members"
UNGUESSED = frozenset(
    {
        "POST /api/v1/auth/login",
        "POST /api/v1/auth/refresh",
        "DELETE /api/v1/auth/logins/{id}",
        "POST /api/v1/auth/password",
        "POST /api/v1/auth/password/reset",
        "POST /api/v1/auth/email",
        "POST /api/v1/auth/email/confirm",
        "POST /api/v1/auth/me/delete",
        "POST /api/v1/users",
        f"POST {_MEMBERS}",
        f"PATCH {_MEMBERS}/{{user_id}}",
        f"DELETE {_MEMBERS}/{{user_id}}",
    }
)
"""What the driver cannot guess: a password, a token, the link of a mail, a login, an existing user and organization.

The tests of the example call these.
"""


def app() -> FastAPI:
    """Return the app, whose users are made at its start."""
    os.environ.update(SECRET_KEY=_SECRET, ENVIRONMENT="test", PASSWORD_HASH_ROUNDS="4", LOG_LEVEL="WARNING")
    from examples.zenith.database import db
    from examples.zenith.main import app
    from examples.zenith.services import UserService

    start = app.router.lifespan_context

    @asynccontextmanager
    async def with_users(app: FastAPI) -> AsyncGenerator[Any]:
        async with start(app) as state:
            async with db.begin() as session:
                for name, ident in _USERS.items():
                    values = {"id": ident, "email": f"{name}@example.com", "full_name": name, "is_superuser": name == "superuser"}
                    await UserService(session).create(values)
            yield state

    app.router.lifespan_context = with_users
    return app
