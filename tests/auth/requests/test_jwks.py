"""The route that publishes the public keys, and a change of the key over HTTP."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from fastapi import Depends, FastAPI
from httpx import AsyncClient
from tests.auth.accounts import PASSWORD, Registration, UserRead, Users, load_user, store_user
from tests.auth.people import SECRET
from tests.auth.tokens.test_hostile_tokens import P256, pem
from tests.auth.tokens.test_keys import public_pem
from tests.tables.accounts import User

from fastapi_kit import create_app
from fastapi_kit.auth import JWTService, Key, Keyring, get_current_user_factory, jwks_router
from fastapi_kit.auth.logins import StatelessLogins
from fastapi_kit.auth.users import AuthEndpoint, AuthFlow, auth_router
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.settings import KitSettings
from fastapi_kit.testing import app_client, cheap_hasher

OLD = ed25519.Ed25519PrivateKey.generate()
NEW = ed25519.Ed25519PrivateKey.generate()
OLD_KEY, NEW_KEY = Key(pem(OLD), "EdDSA", kid="2029"), Key(pem(NEW), "EdDSA", kid="2030")


def service(*keys: Key) -> JWTService:
    return JWTService(keyring=Keyring(*keys))


async def test_the_public_keys() -> None:
    """Whoever verifies our tokens gets the public keys, may cache them, and sees no secret and no private member."""
    app = create_app(KitSettings(SECRET_KEY=SECRET))
    app.include_router(jwks_router(service(Key(pem(P256), "ES256", kid="a"), Key(SECRET, "HS256", kid="b")), max_age=timedelta(hours=1)))

    async with app_client(app) as client:
        answer = await client.get("/.well-known/jwks.json")

    assert answer.headers["cache-control"] == "public, max-age=3600"
    (key,) = answer.json()["keys"]
    assert key.keys() == {"kty", "crv", "x", "y", "alg", "use", "kid"}


async def test_the_document_is_in_openapi() -> None:
    """The route is in OpenAPI, and needs no login."""
    app = FastAPI()
    app.include_router(jwks_router(service(OLD_KEY)))

    operation = app.openapi()["paths"]["/.well-known/jwks.json"]["get"]

    assert "security" not in operation
    assert operation["responses"]["200"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/JWKSet"}


def test_no_public_key() -> None:
    """Without a public key there is nothing to publish: an error at start-up, not an empty document."""
    with pytest.raises(ConfigurationError, match="no public key"):
        jwks_router(JWTService(secret_key=SECRET))


@pytest.mark.parametrize("max_age", [timedelta(seconds=-1), timedelta(days=1, seconds=1)])
def test_an_impossible_max_age(max_age: timedelta) -> None:
    """A document that others would keep for days cannot be published."""
    with pytest.raises(ConfigurationError, match="24 hours"):
        jwks_router(service(OLD_KEY), max_age=max_age)


# --- A change of the key ---


def instance(database: Database, *keys: Key) -> FastAPI:
    """Return one of several instances of an application, with its keys."""
    tokens = service(*keys)
    flow: AuthFlow[User, Registration] = AuthFlow(accounts=Users, logins=StatelessLogins(tokens), passwords=cheap_hasher())
    get_user = get_current_user_factory(tokens, load_user, session=database.session)
    app = create_app(KitSettings(SECRET_KEY=SECRET))
    app.include_router(jwks_router(tokens))
    endpoints = AuthEndpoint.ALL & ~AuthEndpoint.REGISTER
    app.include_router(auth_router(flow, session=database.session, current_user=get_user, read=UserRead, endpoints=endpoints))

    @app.get("/name")
    async def name(user: Annotated[User, Depends(get_user)]) -> str:
        return user.email

    return app


@asynccontextmanager
async def clients(*apps: FastAPI) -> AsyncGenerator[list[AsyncClient]]:
    async with app_client(apps[0]) as first, app_client(apps[1]) as second:
        yield [first, second]


async def log_in(client: AsyncClient) -> dict[str, str]:
    answer = await client.post("/login", data={"username": "ann@example.com", "password": PASSWORD})
    assert answer.status_code == 200
    pair: dict[str, str] = answer.json()
    return pair


async def statuses(client: AsyncClient, pair: dict[str, str]) -> tuple[int, int]:
    """Return how *client* answers the access token, and the refresh token."""
    read = await client.get("/name", headers={"Authorization": f"Bearer {pair['access_token']}"})
    renewed = await client.post("/refresh", json={"refresh_token": pair["refresh_token"]})
    return read.status_code, renewed.status_code


async def kids(client: AsyncClient) -> list[str]:
    return [key["kid"] for key in (await client.get("/.well-known/jwks.json")).json()["keys"]]


async def test_a_new_key_ends_no_login(users: Database) -> None:
    """Publish the new public key, then sign with it, then remove the old key: instances of two neighbouring steps accept all tokens."""
    await store_user(users)
    new_public, old_public = Key(public_pem(NEW), "EdDSA", kid="2030"), Key(public_pem(OLD), "EdDSA", kid="2029")
    steps = [(OLD_KEY,), (OLD_KEY, new_public), (NEW_KEY, old_public), (NEW_KEY,)]
    apps = [instance(users, *keys) for keys in steps]

    # Two deployments: each has an old and a new instance for a while, which get tokens of one another.
    for before, after in ((0, 1), (1, 2)):
        async with clients(apps[before], apps[after]) as both:
            pairs = [await log_in(client) for client in both]
            assert [await statuses(client, pair) for client in both for pair in pairs] == [(200, 200)] * 4

    # The third comes when the tokens of the old key have expired.
    async with clients(apps[2], apps[3]) as both:
        pairs = [await log_in(client) for client in both]
        assert [await statuses(client, pair) for client in both for pair in pairs] == [(200, 200)] * 4
        assert [await kids(client) for client in both] == [["2030", "2029"], ["2030"]]


async def test_the_wrong_order(users: Database) -> None:
    """An instance that signs with a key which the others do not know yet: its users are a 401 there until all are deployed."""
    await store_user(users)

    async with clients(instance(users, OLD_KEY), instance(users, NEW_KEY, OLD_KEY)) as (old, new):
        from_old, from_new = await log_in(old), await log_in(new)

        assert await statuses(new, from_old) == (200, 200)
        assert await statuses(old, from_new) == (401, 401)
