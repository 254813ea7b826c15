"""The routes that list and end logins, and the steps behind them, with logins in SQL."""

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from httpx import AsyncClient, Response
from pydantic import BaseModel, SecretStr
from tests.auth.accounts import PASSWORD, Site, Users, load_user, store_user
from tests.tables.accounts import Login, User

from fastapi_kit.auth import get_current_user_factory
from fastapi_kit.auth.logins import StoredLogins
from fastapi_kit.auth.logins.sql import SQLLoginStore
from fastapi_kit.auth.passwords import PasswordHasher
from fastapi_kit.auth.users import AuthEndpoint, auth_router
from fastapi_kit.db import Database, unit_of_work
from fastapi_kit.errors import ConfigurationError, NotFoundError, UnavailableError, UserInputError
from fastapi_kit.testing import app_client, assert_max_queries, login_as

ALL = AuthEndpoint.ALL | AuthEndpoint.LOGINS
NEW = "another horse battery"


@pytest.fixture
def site(users: Database) -> Site:
    """The app, with logins in SQL, whose access tokens end with their logins."""
    return Site(users, endpoints=ALL, store=SQLLoginStore(users.sessions, Login), check_access=True)


@pytest.fixture
def relaxed(site: Site) -> Site:
    """The same logins, in an app that does not look up access tokens."""
    return Site(site.database, endpoints=ALL, store=SQLLoginStore(site.database.sessions, Login))


class Device:
    """A client that has logged in."""

    def __init__(self, client: AsyncClient, pair: dict[str, Any]) -> None:
        self.client = client
        self.pair = pair

    async def __call__(self, method: str, path: str, **options: Any) -> Response:
        headers = {"Authorization": f"Bearer {self.pair['access_token']}"}
        return await self.client.request(method, f"/auth{path}", headers=headers, **options)

    async def refresh(self) -> int:
        answer = await self.client.post("/auth/refresh", json={"refresh_token": self.pair["refresh_token"]})
        if answer.status_code == 200:
            self.pair = answer.json()
        return answer.status_code

    async def status(self) -> int:
        return (await self("GET", "/me")).status_code


async def log_in(client: AsyncClient, email: str = "ann@example.com", agent: str = "Teapot/1.0") -> Device:
    form = {"username": email, "password": PASSWORD}
    answer = await client.post("/auth/login", data=form, headers={"User-Agent": agent})
    assert answer.status_code == 200
    return Device(client, answer.json())


async def test_logout(client: AsyncClient, site: Site) -> None:
    """R41: after a logout, neither token of the login works. Other logins go on."""
    await store_user(site.database)
    laptop, phone = await log_in(client), await log_in(client)

    answer = await laptop("POST", "/logout")

    assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (204, b"", "no-store")
    assert (await laptop.status(), await laptop.refresh()) == (401, 401)
    assert (await laptop("POST", "/logout")).status_code == 401
    assert (await phone.status(), await phone.refresh()) == (200, 200)


async def test_logout_without_a_look_up(relaxed: Site) -> None:
    """R41: without *check_access* the access token lives until it expires, and a second logout is no error."""
    await store_user(relaxed.database)
    async with app_client(relaxed.app) as client:
        laptop = await log_in(client)

        assert [(await laptop("POST", "/logout")).status_code for _ in range(2)] == [204, 204]

        assert (await laptop.status(), await laptop.refresh()) == (200, 401)
        relaxed.clock.advance(timedelta(minutes=31))
        assert await laptop.status() == 401


async def test_logout_everywhere(client: AsyncClient, site: Site) -> None:
    """R41: a logout everywhere ends all logins of the user at once, and no other user's."""
    await store_user(site.database)
    await store_user(site.database, "bob@example.com")
    devices = [await log_in(client) for _ in range(3)]
    bob = await log_in(client, "bob@example.com")

    assert (await devices[1]("POST", "/logout/everywhere")).status_code == 204

    for device in devices:
        assert (await device.status(), await device.refresh()) == (401, 401)
    assert (await bob.status(), await bob.refresh()) == (200, 200)


async def test_the_list_of_logins(client: AsyncClient, site: Site) -> None:
    """R41: users see their own logins: client, address, times, and which one they use. No hash and no token is shown."""
    await store_user(site.database)
    await store_user(site.database, "bob@example.com")
    laptop = await log_in(client, agent="Laptop")
    site.clock.advance(timedelta(minutes=1))
    await log_in(client, agent="Phone")
    await log_in(client, "bob@example.com", agent="Bob")

    answer = await laptop("GET", "/logins")

    phone, this = answer.json()
    assert this.keys() == {"id", "created_at", "last_used_at", "ends_at", "address", "user_agent", "is_current"}
    assert [(each["user_agent"], each["address"], each["is_current"]) for each in (phone, this)] == [
        ("Phone", "127.0.0.1", False),
        ("Laptop", "127.0.0.1", True),
    ]
    assert this["created_at"] < phone["created_at"] < phone["ends_at"]
    assert this["id"] == site.tokens.decode(laptop.pair["access_token"]).sid


async def test_the_end_of_another_login(client: AsyncClient, site: Site) -> None:
    """R41: users end a lost device's login. An unknown id, and another user's, are the same 404."""
    await store_user(site.database)
    await store_user(site.database, "bob@example.com")
    laptop, phone = await log_in(client, agent="Laptop"), await log_in(client, agent="Phone")
    bob = await log_in(client, "bob@example.com")
    (theirs,) = (await bob("GET", "/logins")).json()
    lost = next(each["id"] for each in (await laptop("GET", "/logins")).json() if each["user_agent"] == "Phone")

    answers = [await laptop("DELETE", f"/logins/{id}") for id in (lost, lost, theirs["id"], "unknown", "x" * 65)]

    assert [answer.status_code for answer in answers] == [204, 404, 404, 404, 422]
    assert len({answer.json()["detail"] for answer in answers[1:4]}) == 1
    assert "unknown" not in answers[3].text
    assert [await device.status() for device in (laptop, phone, bob)] == [200, 401, 200]


async def test_a_refresh_token_that_comes_back(client: AsyncClient, site: Site) -> None:
    """R38: a used refresh token is a 401, ends the login with all its tokens, and is reported."""
    await store_user(site.database)
    laptop, phone = await log_in(client, agent="Laptop"), await log_in(client, agent="Phone")
    thief = Device(client, dict(laptop.pair))
    assert await laptop.refresh() == 200
    site.clock.advance(timedelta(minutes=1))

    assert await thief.refresh() == 401

    assert (await laptop.status(), await laptop.refresh(), await thief.status()) == (401, 401, 401)
    assert [login.user_agent for login in site.reused] == ["Laptop"]
    assert await phone.refresh() == 200


async def test_a_double_click(client: AsyncClient, site: Site) -> None:
    """R38: twenty refreshes at once with one token all succeed within the grace, and lead to one login."""
    await store_user(site.database)
    laptop = await log_in(client)
    tabs = [Device(client, dict(laptop.pair)) for _ in range(20)]

    assert await asyncio.gather(*(tab.refresh() for tab in tabs)) == [200] * 20

    assert site.reused == []
    assert len((await tabs[0]("GET", "/logins")).json()) == 1
    assert len({site.tokens.decode(tab.pair["refresh_token"], type="refresh").jti for tab in tabs}) == 1


async def test_an_inactive_user(client: AsyncClient, site: Site) -> None:
    """R42: a deactivated user is a 401 in these routes, too, and is logged out with the next request."""
    user = await store_user(site.database)
    laptop = await log_in(client)
    async with site.database.begin() as session:
        await Users(session).update(user.id, {"is_active": False})

    for method, path in (("POST", "/logout"), ("POST", "/logout/everywhere"), ("GET", "/logins"), ("DELETE", "/logins/x")):
        assert (await laptop(method, path)).status_code == 401
    assert await laptop.refresh() == 401


# --- A changed password ---


class PasswordChange(BaseModel):
    password: SecretStr
    current_password: SecretStr


class AddressChange(BaseModel):
    email: str
    current_password: SecretStr


def new_password(password: str = NEW, *, current: str = PASSWORD) -> PasswordChange:
    return PasswordChange(password=SecretStr(password), current_password=SecretStr(current))


async def test_a_new_password_ends_the_other_logins(client: AsyncClient, site: Site) -> None:
    """R36, R42: a new password ends the other logins of its user, their access tokens included. The one that was used goes on."""
    user = await store_user(site.database)
    laptop, phone = await log_in(client), await log_in(client)
    sid = site.tokens.decode(laptop.pair["access_token"]).sid

    async with site.database.sessions() as session:
        await site.flow.change(session, user, new_password(), keep=sid)

    assert (await laptop.status(), await laptop.refresh()) == (200, 200)
    assert (await phone.status(), await phone.refresh()) == (401, 401)


@pytest.mark.parametrize("change", [new_password(current="wrong"), new_password("password123")], ids=["wrong", "weak"])
async def test_a_rejected_change_ends_no_login(client: AsyncClient, site: Site, change: PasswordChange) -> None:
    """R36: a change without the current password, or to a weak one, ends no login, also not with a later commit of the session."""
    user = await store_user(site.database)
    laptop = await log_in(client)

    async with site.database.sessions() as session:
        with pytest.raises(UserInputError):
            await site.flow.change(session, user, change)
        await Users(session).update(user.id, {"full_name": "Ann"})

    assert (await laptop.status(), await laptop.refresh()) == (200, 200)


async def test_a_change_that_is_rolled_back(client: AsyncClient, site: Site) -> None:
    """R36: a new password that is rolled back ends no login."""
    user = await store_user(site.database)
    laptop = await log_in(client)

    async with site.database.sessions() as session, unit_of_work(session) as unit:
        await site.flow.change(session, user, new_password())
        await unit.rollback()

    assert (await laptop.status(), await laptop.refresh()) == (200, 200)


async def test_a_new_address_ends_no_login(client: AsyncClient, site: Site) -> None:
    """R36: other changes of a user's own data end no login."""
    user = await store_user(site.database)
    laptop = await log_in(client)

    async with site.database.sessions() as session:
        change = AddressChange(email="new@example.com", current_password=SecretStr(PASSWORD))
        assert (await site.flow.change(session, user, change)).email == "new@example.com"

    assert (await laptop.status(), await laptop.refresh()) == (200, 200)


async def test_a_change_in_a_transaction(client: AsyncClient, site: Site) -> None:
    """R36: in a transaction the logins end after its commit, so that the store never waits for it."""
    user = await store_user(site.database)
    laptop = await log_in(client)

    async with site.database.begin() as session:
        await Users(session).update(user.id, {"full_name": "Ann"})
        await site.flow.change(session, user, new_password(), confirm=False)

    assert (await laptop.status(), await laptop.refresh()) == (401, 401)


@pytest.mark.parametrize(("stored", "status"), [("new:another", 401), ("new:right", 200)], ids=["changed", "only hashed again"])
async def test_a_password_that_is_changed_during_a_login(site: Site, stored: str, status: int) -> None:
    """R36: a login with the old password that is at work while the password is changed does not survive the change.

    A better hash of the same password, from another login, is no change.
    """
    user = await store_user(site.database, hashed_password="old:right")
    loop = asyncio.get_running_loop()

    async def change() -> None:
        async with site.database.begin() as session:
            await Users(session).set_password(user, hashed_password=stored)
        await site.logins.end_all(str(user.id))  # type: ignore[union-attr]

    class Slow:
        """Verifies a password while another request stores another hash."""

        def hash(self, secret: str, /) -> str:
            return f"new:{secret}"

        def verify_and_update(self, secret: str, hash: str, /) -> tuple[bool, str | None]:
            kind, _, known = hash.partition(":")
            if kind == "old":
                asyncio.run_coroutine_threadsafe(change(), loop).result(timeout=30)
            return known == secret, f"new:{secret}" if kind == "old" else None

    site.flow = replace(site.flow, passwords=PasswordHasher(context=Slow()))
    site.app.include_router(site.router(AuthEndpoint.LOGIN), prefix="/slow")
    async with app_client(site.app) as client:
        answer = await client.post("/slow/login", data={"username": user.email, "password": "right"})

    assert answer.status_code == status
    assert len(await site.logins.list_logins(str(user.id))) == (status == 200)  # type: ignore[union-attr]


async def test_the_statements_of_a_login(site: Site) -> None:
    """R36: a login reads the user, stores the login, and reads the user again."""
    user = await store_user(site.database)
    async with site.database.sessions() as session:
        with assert_max_queries(site.database, 3) as log:
            await site.flow.login(session, email=user.email, password=PASSWORD)
        assert log.count == 3


async def test_a_store_that_is_gone(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """R36: if the store does not answer after the commit, the new password is stored and an error is logged."""

    class Gone(SQLLoginStore):
        async def end_all(self, subject: str, /, *, keep: str | None) -> None:
            raise UnavailableError("the store of logins")

    user = await store_user(site.database)
    flow = replace(site.flow, logins=StoredLogins(site.tokens, Gone(site.database.sessions, Login)))

    with caplog.at_level(logging.ERROR, "fastapi_kit.db"):
        async with site.database.sessions() as session:
            await flow.change(session, user, new_password())

    assert [record.levelname for record in caplog.records] == ["ERROR"]
    async with site.database.sessions() as session:
        assert (await flow.authenticate(session, email="ann@example.com", password=NEW)).id == user.id


# --- How the routes are built ---


def test_the_document(site: Site) -> None:
    """R29: the document has the routes, their statuses, and the need of a token."""
    paths = site.app.openapi()["paths"]

    found = {(path, method): operation for path, item in paths.items() for method, operation in item.items()}
    routes = {
        ("/auth/logout", "post"): ["204", "401", "403", "503", "default"],
        ("/auth/logout/everywhere", "post"): ["204", "401", "403", "503", "default"],
        ("/auth/logins", "get"): ["200", "401", "403", "503", "default"],
        ("/auth/logins/{id}", "delete"): ["204", "401", "403", "404", "422", "503", "default"],
    }
    assert {route: sorted(found[route]["responses"]) for route in routes} == routes
    assert all(found[route]["security"] == [{"Bearer": []}] for route in routes)


@pytest.mark.parametrize("endpoint", [each for each in AuthEndpoint if each in AuthEndpoint.LOGINS])
def test_one_of_them(site: Site, endpoint: AuthEndpoint) -> None:
    """R41: each route can be asked for alone, and none is there by default."""
    assert [len(site.router(endpoints).routes) for endpoints in (endpoint, AuthEndpoint.ALL, ALL, ALL & ~endpoint)] == [1, 4, 8, 7]


@pytest.mark.parametrize("endpoint", [each for each in AuthEndpoint if each in AuthEndpoint.LOGINS])
async def test_logins_without_a_store(users: Database, endpoint: AuthEndpoint) -> None:
    """R41: without a store the routes cannot be built and the steps raise ConfigurationError, which says what is missing."""
    with pytest.raises(ConfigurationError, match="StoredLogins"):
        Site(users, endpoints=endpoint)

    site = Site(users)
    claims = site.tokens.decode(site.tokens.create_access_token("1", sid="x"))
    for step in (site.flow.logout, site.flow.logout_everywhere, site.flow.list_logins):
        with pytest.raises(ConfigurationError, match="StatelessLogins cannot"):
            await step(claims)


def test_a_user_without_claims(site: Site) -> None:
    """R41: a dependency of your own, which has no ``claims``, raises ConfigurationError when the router is built."""

    async def get_user() -> User:
        return User()

    with pytest.raises(ConfigurationError, match="claims"):
        auth_router(
            site.flow, session=site.database.session, current_user=get_user, read=PasswordChange, endpoints=AuthEndpoint.LIST_LOGINS
        )


async def test_the_steps(site: Site) -> None:
    """R41: AuthFlow has the steps of the routes, for routes of your own."""
    user = await store_user(site.database)
    async with site.database.sessions() as session:
        first, second = [await site.flow.login(session, email=user.email, password=PASSWORD) for _ in range(2)]
    claims, other = site.tokens.decode(first.access_token), site.tokens.decode(second.access_token)

    await site.flow.end_login(claims, other.sid or "")
    with pytest.raises(NotFoundError):
        await site.flow.end_login(claims, other.sid or "")
    assert [login.sid for login in await site.flow.list_logins(claims)] == [claims.sid]
    await site.flow.logout(site.tokens.decode(site.tokens.create_access_token(str(user.id))))  # no login: nothing to end
    await site.flow.logout(claims)

    assert list(await site.flow.list_logins(claims)) == []


async def test_login_as(site: Site) -> None:
    """R29: a test that says who calls can call the routes."""
    user = await store_user(site.database)
    get_user = get_current_user_factory(site.logins, load_user, session=site.database.session)
    site.app.include_router(
        auth_router(
            site.flow, session=site.database.session, current_user=get_user, read=PasswordChange, endpoints=AuthEndpoint.LIST_LOGINS
        ),
        prefix="/own",
    )
    async with app_client(site.app) as client:
        await log_in(client)
        with login_as(site.app, get_user, user):
            assert [login["is_current"] for login in (await client.get("/own/logins")).json()] == [False]
