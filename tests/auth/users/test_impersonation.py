"""Superusers who act as another user."""

import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any

import pytest
from fastapi import Depends
from httpx import AsyncClient
from pydantic import BaseModel, SecretStr
from sqlalchemy.ext.asyncio import AsyncSession
from tests.auth.accounts import PASSWORD, Registration, Site, Users, store_user
from tests.tables.accounts import User

from fastapi_kit.auth import TokenClaims, require
from fastapi_kit.auth.logins import MemoryLoginStore
from fastapi_kit.auth.users import AuthEndpoint, Impersonation, ImpersonationStart, ImpersonationToken, MailFlow
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, ImpersonatedError, InvalidTokenError, PermissionDeniedError
from fastapi_kit.testing import app_client

ROOT, ANN, CHIEF = "1", "2", "3"


async def send(*args: object) -> None: ...


class Office:
    """An app with a superuser, Ann, and another superuser, and the tokens of logins of theirs."""

    def __init__(self, users: Database, *, check_access: bool = True) -> None:
        endpoints = AuthEndpoint.ALL | AuthEndpoint.LOGINS | AuthEndpoint.ACCOUNT
        scopes = ["notes:read", "notes:write"]
        site = Site(users, scopes=scopes, endpoints=endpoints, store=MemoryLoginStore(), check_access=check_access)
        self.site, self.users = site, users
        mail: MailFlow[User, Registration] = MailFlow(flow=site.flow, tokens=site.tokens, verify=send)
        site.app.include_router(site.router(AuthEndpoint.CHANGE_EMAIL, mail), prefix="/auth")
        self.started: list[ImpersonationStart] = []
        self.impersonation: Impersonation[User, Registration] = Impersonation(
            flow=site.flow, tokens=site.tokens, on_start=self.started.append
        )
        self.client: AsyncClient

        @site.app.post("/users/{subject}/impersonate")
        async def impersonate(
            subject: str,
            claims: Annotated[TokenClaims, Depends(site.get_user.claims)],
            session: Annotated[AsyncSession, users.session],
            scope: str = "",
        ) -> ImpersonationToken:
            return await self.impersonation.start(session, claims, subject, scopes=scope.split())

        @site.app.get("/both")
        async def both(
            user: Annotated[User, Depends(site.get_user)], claims: Annotated[TokenClaims, Depends(site.get_user.claims)]
        ) -> tuple[int, str, str | None]:
            return user.id, claims.sub, claims.actor

        @site.app.delete("/account", dependencies=[Depends(require(site.get_user, impersonated=False))])
        async def delete_account() -> None: ...

    async def login(self, subject: str, scopes: Any = ()) -> str:
        return (await self.site.logins.start(subject, scopes=scopes)).access_token

    async def ask(self, token: str, path: str, method: str = "GET", **options: Any) -> Any:
        return await self.client.request(method, path, headers={"Authorization": f"Bearer {token}"}, **options)

    async def impersonate(self, token: str, subject: str = ANN, **options: Any) -> Any:
        return await self.ask(token, f"/users/{subject}/impersonate", "POST", **options)

    async def status(self, token: str) -> int:
        answer = await self.ask(token, "/both")
        return int(answer.status_code)

    async def change(self, ident: str, **values: object) -> None:
        async with self.users.begin() as session:
            await Users(session).update(int(ident), values)


@pytest.fixture
async def office(users: Database) -> AsyncIterator[Office]:
    for name, flag in (("root", True), ("ann", False), ("chief", True)):
        await store_user(users, f"{name}@example.com", is_superuser=flag)
    office = Office(users)
    async with app_client(office.site.app) as office.client:
        yield office


async def acting(office: Office) -> tuple[str, str]:
    """Return the token of a superuser's login, and one with which the superuser acts as Ann."""
    own = await office.login(ROOT)
    return own, (await office.impersonate(own)).json()["access_token"]


async def test_a_superuser_acts_as_a_user(office: Office) -> None:
    """R50: the token is the user's, names the superuser in ``act``, lives for 15 minutes and has no refresh token."""
    answer = await office.impersonate(await office.login(ROOT))

    body = answer.json()
    assert (answer.status_code, body.keys()) == (200, {"access_token", "token_type", "expires_in", "scope"})
    assert body["expires_in"] == 900
    assert (await office.ask(body["access_token"], "/both")).json() == [2, ANN, ROOT]
    assert (await office.ask(body["access_token"], "/auth/me")).json()["email"] == "ann@example.com"
    claims = office.site.tokens.decode(body["access_token"])
    assert (claims.exp - claims.iat, claims.extra) == (timedelta(minutes=15), {})
    office.site.clock.advance(timedelta(minutes=16))
    assert await office.status(body["access_token"]) == 401


async def test_it_is_reported(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    """R50: the start is reported to the application, and logged with the ids of both and nothing else."""
    caplog.set_level(logging.INFO, logger="fastapi_kit")
    token = (await office.impersonate(await office.login(ROOT))).json()["access_token"]

    claims = office.site.tokens.decode(token)
    assert office.started == [ImpersonationStart(actor=ROOT, subject=ANN, jti=claims.jti, expires_at=claims.exp)]
    lines = [record.getMessage() for record in caplog.records if record.name == "fastapi_kit.auth.users.impersonation"]
    assert lines == [f"User 1 acts as user 2 until {claims.exp}"]
    assert token not in caplog.text
    assert "example.com" not in caplog.text
    assert token not in repr(ImpersonationToken(access_token=token, expires_in=1))


async def test_no_token_without_a_report(office: Office) -> None:
    """R50: if the audit cannot be written, there is no token. The function may be async."""

    async def fail(start: ImpersonationStart) -> None:
        raise OSError

    office.impersonation = replace(office.impersonation, on_start=fail)

    assert (await office.impersonate(await office.login(ROOT))).status_code == 500


async def test_who_may_not(office: Office) -> None:
    """R50: only superusers act as others, and only as users who are active and no superusers. An unknown user is a 404."""
    root, ann = await office.login(ROOT), await office.login(ANN)
    inactive = await store_user(office.users, "eve@example.com", is_active=False)

    found = [
        (await office.impersonate(token, subject)).status_code
        for token, subject in [
            (ann, ANN),
            (ann, ROOT),
            (ann, "99"),
            (root, ROOT),
            (root, CHIEF),
            (root, str(inactive.id)),
            (root, "99"),
            (root, "x"),
            (root, "02"),
        ]
    ]

    assert found == [403, 403, 403, 403, 403, 403, 404, 404, 404]
    assert office.started == []


async def test_a_superuser_no_longer(office: Office) -> None:
    """R50: the superuser is read from the database: a token from before the demotion starts nothing."""
    root = await office.login(ROOT)
    await office.change(ROOT, is_superuser=False)

    assert (await office.impersonate(root)).status_code == 403


async def test_no_nesting(office: Office) -> None:
    """R50: who acts as another user cannot act as a third one."""
    _, token = await acting(office)
    bob = await store_user(office.users, "bob@example.com")

    answer = await office.impersonate(token, str(bob.id))

    assert (answer.status_code, answer.json()["code"]) == (403, "impersonated")


@pytest.mark.parametrize(
    ("ident", "change"),
    [(ANN, {"is_active": False}), (ROOT, {"is_active": False}), (ROOT, {"is_superuser": False}), (ANN, {"is_superuser": True})],
    ids=str,
)
async def test_it_ends_with_either_user(office: Office, ident: str, change: dict[str, bool]) -> None:
    """R50: it ends at once if the user or the superuser is not active any more, or may not act or be acted as."""
    _, token = await acting(office)
    assert await office.status(token) == 200

    await office.change(ident, **change)

    answer = await office.ask(token, "/both")
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")


@pytest.mark.parametrize("ident", [ROOT, ANN])
async def test_it_ends_with_a_deleted_user(office: Office, ident: str) -> None:
    """R50: it ends at once if either user is deleted."""
    _, token = await acting(office)
    async with office.users.begin() as session:
        await Users(session).delete(int(ident))

    assert await office.status(token) == 401


async def test_it_ends_with_the_login(office: Office) -> None:
    """R50: if access tokens end with their login, it ends with the logout of the superuser, and not with that of the user."""
    root, token = await acting(office)
    ann = await office.login(ANN)

    assert (await office.ask(ann, "/auth/logout/everywhere", "POST")).status_code == 204
    assert await office.status(token) == 200
    assert (await office.ask(root, "/auth/logout", "POST")).status_code == 204
    assert await office.status(token) == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/auth/logout"),
        ("POST", "/auth/logout/everywhere"),
        ("GET", "/auth/logins"),
        ("DELETE", "/auth/logins/x"),
        ("DELETE", "/account"),
        ("POST", "/auth/password"),
        ("POST", "/auth/email"),
        ("POST", "/auth/me/delete"),
    ],
)
async def test_what_only_the_user_may(office: Office, method: str, path: str) -> None:
    """R50: password, address, account and logins of the user are closed, and routes with ``require(impersonated=False)``.

    For the user they are open.
    """
    _, token = await acting(office)
    ann = await office.login(ANN)
    data = {"current_password": PASSWORD}
    body = {
        "/auth/password": {**data, "password": "another horse battery"},
        "/auth/email": {**data, "email": "eve@example.com"},
        "/auth/me/delete": data,
    }.get(path)

    answer = await office.ask(token, path, method, json=body)

    assert (answer.status_code, answer.json()["code"]) == (403, "impersonated")
    assert (await office.ask(ann, path, method, json=body)).status_code in {200, 202, 204, 404}
    responses = office.site.app.openapi()["paths"][path.replace("/x", "/{id}")][method.lower()]["responses"]
    assert "403" in responses


class Change(BaseModel):
    email: str | None = None
    full_name: str | None = None
    password: SecretStr | None = None
    current_password: SecretStr | None = None


@pytest.mark.parametrize("confirm", [True, False])
@pytest.mark.parametrize("data", [{"password": "another horse battery"}, {"email": "eve@example.com"}], ids=str)
async def test_no_change_of_password_or_address(office: Office, data: dict[str, str], confirm: bool) -> None:
    """R50: who acts as a user changes neither password nor address, not even with the current password. Other data can be changed."""
    async with office.users.sessions() as session:
        user = await Users(session).get_one(int(ANN))
        form = Change.model_validate({**data, "current_password": PASSWORD})
        with pytest.raises(ImpersonatedError):
            await office.site.flow.change(session, user, form, confirm=confirm, actor=ROOT)
        assert (await office.site.flow.change(session, user, Change(full_name="Ann"), actor=ROOT)).full_name == "Ann"
    async with office.users.sessions() as session:
        assert await office.site.flow.authenticate(session, email="ann@example.com", password=PASSWORD)


async def test_scopes(office: Office) -> None:
    """R50: the token has the scopes that were asked for and that the user may have, not those of the superuser."""
    root = await office.login(ROOT, scopes=["notes:write"])

    some = (await office.impersonate(root, params={"scope": "notes:read admin"})).json()

    assert some["scope"] == "notes:read"
    assert office.site.tokens.decode(some["access_token"]).scopes == {"notes:read"}
    assert (await office.impersonate(root)).json()["scope"] == ""


async def test_without_stored_logins(users: Database) -> None:
    """R50: it also works with logins that are not looked up."""
    for name, flag in (("root", True), ("ann", False)):
        await store_user(users, f"{name}@example.com", is_superuser=flag)
    office = Office(users, check_access=False)
    async with app_client(office.site.app) as office.client:
        token = (await office.impersonate(office.site.tokens.create_access_token(ROOT))).json()["access_token"]
        assert (await office.ask(token, "/both")).json() == [2, ANN, ROOT]


async def test_another_type_of_token(office: Office) -> None:
    """R50: only an access token starts it."""
    claims = office.site.tokens.decode(await office.login(ROOT))
    async with office.users.sessions() as session:
        with pytest.raises(PermissionDeniedError, match="only a superuser"):
            await office.impersonation.start(session, replace(claims, type="api"), ANN)


@pytest.mark.parametrize("lifetime", [timedelta(), timedelta(hours=1, seconds=1), timedelta(seconds=-1)])
def test_a_lifetime_out_of_bounds(users: Database, lifetime: timedelta) -> None:
    """R50: an impersonation lives for an hour at most."""
    site = Site(users)
    with pytest.raises(ConfigurationError):
        Impersonation(flow=site.flow, tokens=site.tokens, lifetime=lifetime)


def test_a_guard_without_claims() -> None:
    """A guard on the actor needs a dependency with claims."""

    async def get_user() -> None: ...

    with pytest.raises(TypeError, match="actor"):
        require(get_user, impersonated=False)


def test_only_access_tokens_have_an_actor(users: Database) -> None:
    """R50: the claim is reserved, and a refresh token with it is rejected."""
    site = Site(users)
    with pytest.raises(ConfigurationError, match="act"):
        site.tokens.create_access_token("1", extra={"act": {"sub": "2"}})
    with pytest.raises(ConfigurationError, match="actor"):
        site.tokens.create_access_token("1", actor=" ")
    forged = site.tokens._create("1", "refresh", timedelta(hours=1), actor="2")
    with pytest.raises(InvalidTokenError, match="act"):
        site.tokens.decode(forged, type="refresh")
