"""The same tokens for Starlette."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from starlette.authentication import AuthenticationError, BaseUser, SimpleUser, requires
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from tests.auth.people import app_with, tokens

from fastapi_kit.auth.backend import TokenBackend, TokenUser
from fastapi_kit.auth.tokens import TokenClaims
from fastapi_kit.handlers import problem_response
from fastapi_kit.testing import app_client, bearer


def refuse(connection: HTTPConnection, error: AuthenticationError) -> Response:
    cause = error.__cause__
    assert isinstance(cause, Exception)
    return problem_response(Request(connection.scope), cause)


def app_over(load_user: Callable[[TokenClaims], Awaitable[BaseUser | None]] | None = None) -> FastAPI:
    def build(app: FastAPI) -> None:
        app.add_middleware(AuthenticationMiddleware, backend=TokenBackend(tokens, load_user=load_user), on_error=refuse)

        @app.get("/")
        async def read(request: Request) -> list[Any]:
            return [request.user.is_authenticated, request.user.display_name, sorted(request.auth.scopes)]

        @app.get("/notes")
        @requires("notes:read")
        async def notes(request: Request) -> str:
            return str(request.user.identity)

    return app_with(build)


async def test_a_token_is_a_user() -> None:
    """R29: request.user and request.auth come from the token."""
    async with app_client(app_over()) as client:
        answer = await client.get("/", headers=bearer(tokens, "7", scopes=["notes:read"]))
        notes = [await client.get("/notes", headers=bearer(tokens, "7", scopes=scopes)) for scopes in (["notes:read"], [])]

    assert answer.json() == [True, "7", ["notes:read"]]
    assert [response.status_code for response in notes] == [200, 403]
    assert notes[0].json() == "7"


async def test_no_token_is_no_user() -> None:
    """R21: without a token there is nobody, and nothing is refused."""
    async with app_client(app_over()) as client:
        assert (await client.get("/")).json() == [False, "", []]


@pytest.mark.parametrize("header", ["Bearer x.y.z", "Bearer", f"Bearer {tokens.create_refresh_token('1')}"])
async def test_a_bad_token(header: str) -> None:
    """R22: a bad token is answered as by the dependencies."""
    async with app_client(app_over()) as client:
        response = await client.get("/", headers={"Authorization": header})

    assert (response.status_code, response.json()["code"]) == (401, "invalid_token")
    assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


async def test_the_hosts_user() -> None:
    """R22: a loader gives the host's user; nobody for a token is a bad token."""

    async def load(claims: TokenClaims) -> BaseUser | None:
        return SimpleUser("Ann") if claims.sub == "7" else None

    async with app_client(app_over(load)) as client:
        assert (await client.get("/", headers=bearer(tokens, "7"))).json()[1] == "Ann"
        assert (await client.get("/", headers=bearer(tokens, "8"))).status_code == 401


def test_a_user_of_a_token() -> None:
    """R29: as far as the token tells, a user is its subject."""
    claims = tokens.decode(tokens.create_access_token("7"))

    user = TokenUser(claims)
    assert (user.identity, user.display_name, user.is_authenticated, user.claims) == ("7", "7", True, claims)
