"""API keys over HTTP: in requests, and the ready routes with which users manage them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, Security
from httpx import AsyncClient, Response
from pydantic import BaseModel, SecretStr
from tests.auth.accounts import PASSWORD, Registration, Site, UserRead, Users, load_user, store_user
from tests.reliability.servers import closed_port
from tests.tables.accounts import APIKey, Login, User

from fastapi_kit.auth import APIKeyTransport, BearerTransport, TokenClaims, Transport, get_current_user_factory, require
from fastapi_kit.auth.api_keys import APIKeys, MemoryAPIKeyStore
from fastapi_kit.auth.api_keys.redis import RedisAPIKeyStore
from fastapi_kit.auth.api_keys.router import APIKeyCreated, api_keys_router
from fastapi_kit.auth.api_keys.sql import SQLAPIKeyStore
from fastapi_kit.auth.logins.sql import SQLLoginStore
from fastapi_kit.auth.users import AuthEndpoint, LoginThrottle, auth_router
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.testing import app_client, login_as

SCOPES = ["notes:read", "notes:write"]


class PasswordChange(BaseModel):
    password: SecretStr
    current_password: SecretStr


class KeySite(Site):
    """The app, which takes API keys beside bearer tokens."""

    def router(self, endpoints: AuthEndpoint = AuthEndpoint.ALL) -> APIRouter:
        database = self.database
        self.keys = APIKeys(SQLAPIKeyStore(database.sessions, APIKey), prefix="shop", clock=self.clock)
        ways: list[Transport] = [APIKeyTransport(keys=self.keys), BearerTransport(scopes=dict.fromkeys(SCOPES, ""))]
        self.get_user = get_current_user_factory(self.logins, load_user, session=database.session, transports=ways)
        self.app.include_router(api_keys_router(self.keys, current_user=self.get_user, scopes=lambda user: SCOPES), prefix="/keys")
        self.add_routes()
        return auth_router(
            self.flow, session=database.session, current_user=self.get_user, read=UserRead, register=Registration, endpoints=endpoints
        )

    def add_routes(self) -> None:
        @self.app.get("/notes", dependencies=[Depends(require(self.get_user, scopes=["notes:read"]))])
        async def notes() -> None: ...

        @self.app.get("/security", dependencies=[Security(self.get_user, scopes=["notes:write"])])
        async def security() -> None: ...

        @self.app.get("/claims")
        async def claims(claims: Annotated[TokenClaims, Depends(self.get_user.claims)]) -> list[str | None]:
            return [claims.sub, claims.type, claims.sid]

        @self.app.get("/login-only")
        async def login_only(user: Annotated[User, Depends(require(self.get_user, login=True))]) -> int:
            return user.id


@pytest.fixture
def site(users: Database) -> KeySite:
    store = SQLLoginStore(users.sessions, Login)
    return KeySite(users, endpoints=AuthEndpoint.ALL | AuthEndpoint.LOGINS | AuthEndpoint.ACCOUNT, store=store, scopes=SCOPES)


class Person:
    """A user who has logged in, and may have a key."""

    def __init__(self, client: AsyncClient, token: str) -> None:
        self.client = client
        self.login = {"Authorization": f"Bearer {token}"}

    async def create(self, **values: object) -> dict[str, Any]:
        answer = await self.client.post("/keys", json={"name": "Backup", **values}, headers=self.login)
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json()
        return created


@pytest.fixture
async def ann(site: Site) -> AsyncIterator[Person]:
    await store_user(site.database)
    async with app_client(site.app) as client:
        yield await log_in(client)


async def log_in(client: AsyncClient, email: str = "ann@example.com") -> Person:
    answer = await client.post("/auth/login", data={"username": email, "password": PASSWORD})
    return Person(client, answer.json()["access_token"])


def header(key: str) -> dict[str, str]:
    return {"X-API-Key": key}


async def statuses(client: AsyncClient, key: str, *paths: str) -> list[int]:
    return [(await client.get(path, headers=header(key))).status_code for path in paths]


async def test_a_key_in_a_request(ann: Person) -> None:
    """R45: a key is its user, with the claims of a key, and reaches what its scopes allow."""
    key = (await ann.create(scopes=["notes:read"]))["key"]

    assert (await ann.client.get("/auth/me", headers=header(key))).json()["email"] == "ann@example.com"
    assert (await ann.client.get("/claims", headers=header(key))).json() == ["1", "api", None]
    assert await statuses(ann.client, key, "/notes", "/security") == [200, 403]
    denied = await ann.client.get("/security", headers=header(key))
    assert denied.headers["www-authenticate"] == 'ApiKey error="insufficient_scope", scope="notes:write"'
    assert await statuses(ann.client, (await ann.create())["key"], "/notes", "/security") == [403, 403]


async def test_the_routes(ann: Person) -> None:
    """R45: the key is in the answer that creates it and in no other; the list has hints; a revoked key is a 401."""
    created = await ann.create(name="Backup", scopes=["notes:read"], expires_at="2999-01-01T00:00:00+09:00")
    await ann.client.get("/auth/me", headers=header(created["key"]))

    listed = await ann.client.get("/keys", headers=ann.login)
    (shown,) = listed.json()
    gone = await ann.client.delete(f"/keys/{created['id']}", headers=ann.login)

    key = created.pop("key")
    assert shown.pop("last_used_at") is not None
    assert created.pop("last_used_at") is None
    assert shown == created
    assert (shown["hint"], shown["expires_at"]) == (f"shop_…{key[-4:]}", "2998-12-31T15:00:00Z")
    assert shown.keys() == {"id", "name", "hint", "scopes", "created_at", "expires_at"}
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await ann.client.get("/keys", headers=ann.login)).json() == []
    assert await statuses(ann.client, key, "/auth/me") == [401]
    assert {answer.headers["cache-control"] for answer in (listed, gone)} == {"no-store"}


async def test_no_answer_is_stored(ann: Person) -> None:
    """R27: no answer of the routes is cached, errors included."""
    answers = [
        await ann.client.post("/keys", json={"name": "Backup"}, headers=ann.login),
        await ann.client.post("/keys", json={}, headers=ann.login),
        await ann.client.post("/keys", json={"name": "Backup"}),
        await ann.client.delete("/keys/unknown", headers=ann.login),
    ]
    assert [(answer.status_code, answer.headers["cache-control"]) for answer in answers] == [
        (201, "no-store"),
        (422, "no-store"),
        (401, "no-store"),
        (404, "no-store"),
    ]


async def test_keys_of_others(ann: Person, site: Site) -> None:
    """R45: users see and revoke their own keys only. An unknown id, and another user's, are the same 404."""
    await store_user(site.database, "bob@example.com")
    bob = await log_in(ann.client, "bob@example.com")
    mine, theirs = await ann.create(), await bob.create()

    answers = [await ann.client.delete(f"/keys/{id}", headers=ann.login) for id in (theirs["id"], "unknown", "x" * 65, "%00", mine["id"])]

    assert [answer.status_code for answer in answers] == [404, 404, 422, 422, 204]
    assert answers[0].json()["detail"] == answers[1].json()["detail"]
    assert [key["id"] for key in (await bob.client.get("/keys", headers=bob.login)).json()] == [theirs["id"]]
    assert await statuses(ann.client, theirs["key"], "/auth/me") == [200]


async def test_who_acts_as_a_user_has_no_key(ann: Person, site: Site) -> None:
    """R45, R50: a superuser who acts as a user neither creates a key, which would outlive that, nor lists or revokes keys."""
    created = await ann.create()
    acting = {"Authorization": f"Bearer {site.tokens.create_access_token('1', actor='2')}"}
    await store_user(site.database, "root@example.com", is_superuser=True)
    assert (await ann.client.get("/auth/me", headers=acting)).status_code == 200

    answers = [
        await ann.client.post("/keys", json={"name": "Backup"}, headers=acting),
        await ann.client.get("/keys", headers=acting),
        await ann.client.delete(f"/keys/{created['id']}", headers=acting),
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(403, "impersonated")] * 3
    assert await statuses(ann.client, created["key"], "/auth/me") == [200]


def test_the_repr_of_an_answer() -> None:
    """R28: the repr of the answer that has a key does not show it."""
    info = {"id": "1", "name": "Backup", "hint": "", "scopes": [], "created_at": datetime.now(UTC), "expires_at": None}
    assert "shop_secret" not in repr(APIKeyCreated.model_validate({**info, "last_used_at": None, "key": "shop_secret"}))


async def test_many_revocations_at_once(ann: Person) -> None:
    """R45: of many revocations of one key at once, one is a 204 and the others are a 404."""
    created = await ann.create()

    answers = await asyncio.gather(*(ann.client.delete(f"/keys/{created['id']}", headers=ann.login) for _ in range(10)))

    assert sorted(answer.status_code for answer in answers) == [204, *[404] * 9]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "line\nbreak"}, "name"),
        ({"name": None}, "name"),
        ({"scopes": ["admin"]}, "scopes"),
        ({"scopes": ["notes:read", "admin"]}, "scopes"),
        ({"scopes": ["notes:read notes:write"]}, "scopes"),
        ({"scopes": "notes:read"}, "scopes"),
        ({"scopes": ["x"] * 101}, "scopes"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2999-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-12:00"}, "expires_at"),
        ({"subject": "2"}, "subject"),
        ({"key": "shop_x"}, "key"),
    ],
    ids=ascii,
)
async def test_a_wrong_body(ann: Person, values: dict[str, object], field: str) -> None:
    """R45, R52: a wrong field is a 422 that names it and creates nothing: no foreign scope, no past end, no other user."""
    answer = await ann.client.post("/keys", json={"name": "Backup", **values}, headers=ann.login)

    assert (answer.status_code, answer.json()["errors"][0]["loc"][1]) == (422, field)
    assert "admin" not in answer.text
    assert (await ann.client.get("/keys", headers=ann.login)).json() == []


async def test_a_name_that_is_not_unicode(ann: Person) -> None:
    """R45: a lone surrogate in the body is a 422."""
    answer = await ann.client.post("/keys", content=b'{"name": "\\ud800"}', headers={**ann.login, "Content-Type": "application/json"})
    assert answer.status_code == 422


# --- What a key must not do ---


async def test_a_key_manages_no_keys(ann: Person) -> None:
    """R45: a key, whatever its scopes, creates, lists and revokes no keys."""
    created = await ann.create(scopes=SCOPES)
    by_key = header(created["key"])

    answers = [
        await ann.client.post("/keys", json={"name": "More"}, headers=by_key),
        await ann.client.get("/keys", headers=by_key),
        await ann.client.delete(f"/keys/{created['id']}", headers=by_key),
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(403, "permission_denied")] * 3
    assert len((await ann.client.get("/keys", headers=ann.login)).json()) == 1


async def test_a_key_ends_no_login(ann: Person, site: Site) -> None:
    """R41, R45: a key neither lists nor ends the logins of its user."""
    key = (await ann.create(scopes=SCOPES))["key"]
    (login,) = await site.logins.list_logins("1")  # type: ignore[union-attr]

    routes = [("POST", "/logout"), ("POST", "/logout/everywhere"), ("GET", "/logins"), ("DELETE", f"/logins/{login.sid}")]
    answers = [await ann.client.request(method, f"/auth{path}", headers=header(key)) for method, path in routes]

    assert [answer.status_code for answer in answers] == [403] * 4
    assert await site.logins.list_logins("1") == [login]  # type: ignore[union-attr]
    assert (await ann.client.post("/auth/logout", headers=ann.login)).status_code == 204


async def test_a_key_changes_no_account(ann: Person) -> None:
    """R36, R45: a key neither changes the password nor deletes the account, also with the right password. A login does."""
    key = header((await ann.create(scopes=SCOPES))["key"])
    change = {"password": "another horse battery", "current_password": PASSWORD}

    for headers, status in ((key, 403), (ann.login, 204)):
        answer = await ann.client.post("/auth/password", json=change, headers=headers)
        assert answer.status_code == status
    answer = await ann.client.post("/auth/me/delete", json={"current_password": "another horse battery"}, headers=key)
    assert answer.status_code == 403


async def test_what_needs_a_login(ann: Person) -> None:
    """R45: ``require(login=True)`` is a 403 for a key, and gives the user of a login."""
    key = (await ann.create(scopes=SCOPES))["key"]

    assert await statuses(ann.client, key, "/login-only") == [403]
    assert (await ann.client.get("/login-only", headers=ann.login)).json() == 1


async def test_a_login_in_a_test(ann: Person, site: Site) -> None:
    """R29: ``login_as`` is a login, so a test can call what needs one."""
    user = User(id=1, email="ann@example.com")
    with login_as(site.app, site.get_user, user):
        assert (await ann.client.get("/login-only")).json() == 1
        assert (await ann.client.get("/keys")).json() == []


async def test_tokens_in_the_wrong_place(ann: Person, site: Site) -> None:
    """R17: a key is no bearer token, and neither an access token nor one of type ``api`` is a key."""
    key = (await ann.create(scopes=SCOPES))["key"]
    api = site.tokens.create_token("1", type="api", lifetime=timedelta(days=1))

    answers = [
        await ann.client.get("/auth/me", headers={"Authorization": f"Bearer {key}"}),
        await ann.client.get("/auth/me", headers=header(ann.login["Authorization"].removeprefix("Bearer "))),
        await ann.client.get("/auth/me", headers=header(api)),
        await ann.client.get("/auth/me", headers={"Authorization": f"Bearer {api}"}),
        await ann.client.post("/auth/refresh", json={"refresh_token": key}),
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(401, "invalid_token")] * 5


@pytest.mark.parametrize("inactive", [True, False])
async def test_a_user_who_is_gone(ann: Person, site: Site, inactive: bool) -> None:
    """R42, R45: the keys of an inactive and of a deleted user are a 401 with the next request."""
    key = (await ann.create(scopes=SCOPES))["key"]
    async with site.database.begin() as session:
        if inactive:
            await Users(session).update(1, {"is_active": False})
        else:
            await Users(session).delete(1)

    assert await statuses(ann.client, key, "/auth/me", "/notes") == [401, 401]


async def test_an_expired_key(ann: Person, site: Site) -> None:
    """R45: an expired key is the same 401 as a wrong one."""
    end = (site.clock() + timedelta(hours=1)).isoformat()
    key = (await ann.create(expires_at=end))["key"]
    site.clock.advance(timedelta(hours=1))

    expired, wrong = [await ann.client.get("/auth/me", headers=header(value)) for value in (key, key[:-1] + "x")]

    assert expired.status_code == wrong.status_code == 401
    assert expired.json()["detail"] == wrong.json()["detail"]
    assert expired.headers["www-authenticate"] == 'ApiKey error="invalid_token"'


async def test_a_store_that_is_gone(ann: Person, site: KeySite) -> None:
    """R45: while the store does not answer, a key is neither valid nor wrong: the answer is a 503. Logins go on."""
    site.keys.store = RedisAPIKeyStore(f"redis://:hidden@127.0.0.1:{closed_port()}/0")

    answers = [
        await ann.client.get("/notes", headers=header(f"shop_{'0' * 32}_{'0' * 64}")),
        await ann.client.post("/keys", json={"name": "Key"}, headers=ann.login),
        await ann.client.get("/keys", headers=ann.login),
        await ann.client.delete("/keys/x", headers=ann.login),
    ]

    assert [answer.status_code for answer in answers] == [503] * 4
    assert not any("hidden" in answer.text for answer in answers)
    assert (await ann.client.get("/claims", headers=ann.login)).status_code == 200


async def test_two_keys_and_an_empty_one(ann: Person) -> None:
    """R45: two headers, an empty one, and hostile ones are a 401; a key beside a bearer token counts in the declared order."""
    key = (await ann.create())["key"]
    one = (b"X-API-Key", key.encode())
    hostile = [b"", b" ", b"\xff", b"'; DROP TABLE api_keys; --", b"x" * 100_000, key.encode() + b"\x00", b'"' + key.encode() + b'"']

    answers = [await ann.client.get("/auth/me", headers=headers) for headers in ([one, one], *([(b"X-API-Key", each)] for each in hostile))]

    assert [answer.status_code for answer in answers] == [401] * 8
    assert (await ann.client.get("/claims", headers={**ann.login, **header(key)})).json()[1] == "api"
    assert (await ann.client.get("/claims", headers={**ann.login, **header("x")})).status_code == 401


async def test_a_key_in_the_query(ann: Person) -> None:
    """R28: a key in the query string is not read."""
    key = (await ann.create())["key"]
    answer = await ann.client.get("/auth/me", params={"X-API-Key": key, "api_key": key, "access_token": key})
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")


async def test_nothing_is_logged(ann: Person, caplog: pytest.LogCaptureFixture) -> None:
    """R28: no log record and no body of an error has a key."""
    with caplog.at_level(logging.DEBUG, "fastapi_kit"):
        key = (await ann.create())["key"]
        answers: list[Response] = [
            await ann.client.get("/notes", headers=header(key)),
            await ann.client.get("/notes", headers=header(key[:-1] + "x")),
            await ann.client.get("/keys", headers=header(key)),
        ]
    assert key[:-1] not in caplog.text + "".join(answer.text for answer in answers)


# --- How the routes are built ---


def test_the_document(site: Site) -> None:
    """R29: OpenAPI has the key beside the token, the routes and their statuses."""
    document = site.app.openapi()

    assert document["components"]["securitySchemes"]["APIKey"] == {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    assert document["paths"]["/notes"]["get"]["security"] == [{"APIKey": ["notes:read"]}, {"Bearer": ["notes:read"]}]
    found = {
        (path, method): sorted(operation["responses"])
        for path in ("/keys", "/keys/{id}")
        for method, operation in document["paths"][path].items()
    }
    assert found == {
        ("/keys", "get"): ["200", "401", "403", "503", "default"],
        ("/keys", "post"): ["201", "400", "401", "403", "413", "422", "503", "default"],
        ("/keys/{id}", "delete"): ["204", "401", "403", "404", "422", "503", "default"],
    }


def test_a_user_without_claims() -> None:
    """R45: a dependency of your own, which has no ``claims``, raises ConfigurationError when the router is built."""

    async def get_user() -> User:
        return User()

    with pytest.raises(ConfigurationError, match="claims"):
        api_keys_router(APIKeys(MemoryAPIKeyStore(), prefix="shop"), current_user=get_user)
    with pytest.raises(TypeError, match="logins"):
        require(get_user, login=True)


@pytest.mark.parametrize("name", ["", "X API", "Authorization", "authorization", "X-Key:"])
def test_a_wrong_header(name: str) -> None:
    """R45: a name that no header has, and the header of the other tokens, raise ConfigurationError."""
    with pytest.raises(ConfigurationError):
        APIKeyTransport(keys=APIKeys(MemoryAPIKeyStore(), prefix="shop"), header=name)


async def test_keys_without_scopes(users: Database) -> None:
    """R45: where no scopes are declared, keys have none."""
    site = Site(users)
    keys = APIKeys(MemoryAPIKeyStore(), prefix="shop")
    site.app.include_router(api_keys_router(keys, current_user=site.get_user), prefix="/keys")
    await store_user(users)
    async with app_client(site.app) as client:
        ann = await log_in(client)
        assert (await ann.create())["scopes"] == []
        assert (await client.post("/keys", json={"name": "x", "scopes": ["notes:read"]}, headers=ann.login)).status_code == 422


async def test_a_key_for_the_password(site: KeySite) -> None:
    """R45: with ``flow=``, a key needs the current password, and guesses are limited: a stolen access token creates none."""
    await store_user(site.database)
    flow = replace(site.flow, throttle=LoginThrottle(per_account=2))
    router = api_keys_router(site.keys, current_user=site.get_user, scopes=lambda user: SCOPES, flow=flow, session=site.database.session)
    site.app.include_router(router, prefix="/asked")
    async with app_client(site.app) as client:
        person = await log_in(client)

        async def create(**values: object) -> Response:
            return await client.post("/asked", json={"name": "ci", **values}, headers=person.login)

        answers = [await create(), await create(current_password="wrong"), await create(current_password=PASSWORD)]
        assert [answer.status_code for answer in answers] == [422, 422, 201]
        assert answers[1].json()["errors"][0]["code"] == "wrong_password"
        assert (await client.get("/claims", headers={"X-API-Key": answers[2].json()["key"]})).status_code == 200
        assert [(await create(current_password=word)).status_code for word in ("a", "b", PASSWORD)] == [422, 422, 429]
    responses = site.app.openapi()["paths"]["/asked"]["post"]["responses"]
    assert {"201", "422", "429"} <= responses.keys()


def test_half_of_what_the_password_needs(site: KeySite) -> None:
    """A flow without a session is an error at start."""
    with pytest.raises(ConfigurationError, match="flow= and session="):
        api_keys_router(site.keys, current_user=site.get_user, flow=site.flow)
