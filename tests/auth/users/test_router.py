"""The ready routes, over HTTP."""

import logging
from datetime import timedelta
from typing import Any

import pytest
from fastapi import APIRouter
from httpx import AsyncClient, Response
from pydantic import BaseModel, ValidationError, create_model
from tests.auth.accounts import PASSWORD, Registration, Site, UserRead, Users, store_user
from tests.auth.tokens.hostile_tokens import hostile_tokens
from tests.thorough import sample

from fastapi_kit.auth.users import AuthEndpoint, NoStoreRoute, UserRegister, auth_router
from fastapi_kit.auth.users.accounts import PRIVILEGES
from fastapi_kit.auth.users.schemas import EnrolmentRead, RecoveryCodesRead
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.testing import app_client, bearer

ANN = {"email": "ann@example.com", "password": PASSWORD, "full_name": "Ann"}


async def log_in(client: AsyncClient, email: str = "ann@example.com", password: str = PASSWORD, **form: str) -> Response:
    return await client.post("/auth/login", data={"username": email, "password": password, **form})


async def refresh(client: AsyncClient, token: str) -> Response:
    return await client.post("/auth/refresh", json={"refresh_token": token})


async def test_the_whole_walk(client: AsyncClient) -> None:
    """R29: a user registers, logs in, reads the profile, refreshes and reads it again."""
    registered = await client.post("/auth/register", json=ANN)
    pair = (await log_in(client)).json()
    first = await client.get("/auth/me", headers={"Authorization": f"Bearer {pair['access_token']}"})
    renewed = (await refresh(client, pair["refresh_token"])).json()
    second = await client.get("/auth/me", headers={"Authorization": f"Bearer {renewed['access_token']}"})

    assert registered.status_code == 201
    assert registered.json() == first.json() == second.json() == {"id": 1, "email": "ann@example.com", "full_name": "Ann"}
    assert pair.keys() == {"access_token", "refresh_token", "token_type", "expires_in", "scope"}
    assert (pair["token_type"], pair["expires_in"], pair["scope"]) == ("bearer", 1800, "")


# --- Register ---


async def test_a_taken_address(client: AsyncClient) -> None:
    """R37: a taken address is a 409 that names the field, and the stored user stays the same."""
    await client.post("/auth/register", json=ANN)

    response = await client.post("/auth/register", json={**ANN, "password": "another long password", "full_name": "Mallory"})

    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert response.json()["errors"][0]["loc"] == ["email"]
    assert (await log_in(client)).status_code == 200


@pytest.mark.parametrize("twin", ["ANN@example.com", " ann@example.com ", "ann@EXAMPLE.com", "\uff41nn@example.com"])
async def test_no_twins(client: AsyncClient, twin: str) -> None:
    """R51: an address cannot be registered twice by case, white space or Unicode form, and every form logs in."""
    await client.post("/auth/register", json=ANN)

    assert (await client.post("/auth/register", json={**ANN, "email": twin})).status_code == 409
    assert (await log_in(client, twin)).status_code == 200


@pytest.mark.parametrize("name", sorted(PRIVILEGES))
async def test_privileges_are_rejected(client: AsyncClient, site: Site, name: str) -> None:
    """R52: a registration with a privilege is a 422, and creates no user."""
    response = await client.post("/auth/register", json={**ANN, name: True})

    assert response.status_code == 422
    async with site.database.begin() as session:
        assert await Users(session).count() == 0


async def test_who_registers_has_no_privileges(client: AsyncClient, site: Site) -> None:
    """R52: a new user is active, not verified, and no superuser."""
    await client.post("/auth/register", json=ANN)

    async with site.database.begin() as session:
        user = await Users(session).get_one(1)
    assert (user.is_active, user.is_verified, user.is_superuser) == (True, False, False)


@pytest.mark.parametrize(
    "password", ["short", "password123", "ann@example.com", "x" * 129, "aaaaaaaaaaaa", "\ud800\ud800\ud800\ud800abcd"], ids=ascii
)
async def test_a_bad_password(client: AsyncClient, site: Site, password: str) -> None:
    """R30, R35: a password that is too short, too long, common or similar to the address is a 422 that does not show it."""
    body = b'{"email": "ann@example.com", "password": "%s"}' % password.encode("ascii", "backslashreplace")

    response = await client.post("/auth/register", content=body, headers={"Content-Type": "application/json"})

    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == ["body", "password"]
    assert password not in response.text or password == "short"
    async with site.database.begin() as session:
        assert await Users(session).count() == 0


@pytest.mark.parametrize(
    "password",
    ["🦊🐺🦝🐻🐼🦡🐨🐯" * 7 + "🐸", "with\0nul inside it", "".join(map(chr, range(228, 356))), " leading and trailing "],
    ids=range(4),
)
async def test_an_unusual_password(client: AsyncClient, password: str) -> None:
    """R30: long passwords, other scripts and spaces work to the last character; NUL is rejected."""
    response = await client.post("/auth/register", json={**ANN, "password": password})

    if "\0" in password:
        assert response.status_code == 422
    else:
        assert response.status_code == 201
        assert (await log_in(client, password=password)).status_code == 200
        assert (await log_in(client, password=password[:-1])).status_code == 401


@pytest.mark.parametrize(
    "email", ["", "ann", "ann@", "a b@example.com", "ann@example.com\0", "Ann <ann@example.com>", "\ud800@example.com"], ids=ascii
)
async def test_a_bad_address(client: AsyncClient, email: str) -> None:
    """R51: a malformed address is a 422."""
    body = b'{"email": "%s", "password": "correct horse battery"}' % email.encode("ascii", "backslashreplace").replace(b"\0", b"\\u0000")

    assert (await client.post("/auth/register", content=body, headers={"Content-Type": "application/json"})).status_code == 422


# --- Log in ---


@pytest.mark.parametrize(("email", "password"), [("ann@example.com", "wrong"), ("bob@example.com", PASSWORD), ("no address", PASSWORD)])
async def test_a_failed_login(client: AsyncClient, site: Site, email: str, password: str) -> None:
    """R32: a wrong password, an unknown address and a malformed one have the same answer."""
    await store_user(site.database)

    response = await log_in(client, email, password)

    assert (response.status_code, response.json()["code"]) == (401, "invalid_credentials")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.json()["detail"] == "The credentials are not valid."


@pytest.mark.parametrize(
    "values", [{"is_active": False}, {"hashed_password": None}, {"hashed_password": "garbage"}, {"hashed_password": ""}], ids=str
)
async def test_a_user_who_cannot_log_in(client: AsyncClient, site: Site, values: dict[str, Any]) -> None:
    """R24, R33: an inactive user, a user without a password and a malformed hash are failed logins."""
    await store_user(site.database, **values)

    response = await log_in(client)

    assert (response.status_code, response.json()["code"]) == (401, "invalid_credentials")


@pytest.mark.parametrize("form", [{}, {"username": "a"}, {"password": "x"}, {"username": "a", "password": "x", "grant_type": "code"}])
async def test_an_incomplete_form(client: AsyncClient, form: dict[str, str]) -> None:
    """R35: an incomplete form is a 422."""
    assert (await client.post("/auth/login", data=form)).status_code == 422


@pytest.mark.parametrize(
    "raw",
    [
        b"username=a%40example.com&password=%ED%A0%80%ED%A0%80",
        b"username=a%00%40example.com&password=correct+horse",
        b"username=a%40example.com&password=%00%00%00",
        b"username=%FF%FE&password=%FF",
        b"username=a%40example.com&password=" + b"x" * 1025,
        b"username=" + b"a" * 400 + b"&password=x",
        b"\xff\xfe\x00=&&&==",
        b"username=a&username=b&password=x&password=y&scope=" + b"%22" * 20,
    ],
    ids=range(8),
)
async def test_a_hostile_form(client: AsyncClient, raw: bytes) -> None:
    """R35: surrogates, NUL, invalid UTF-8 and too long values are a 401 or a 422, never a 5xx."""
    response = await client.post("/auth/login", content=raw, headers={"Content-Type": "application/x-www-form-urlencoded"})

    assert response.status_code in {401, 422}
    assert response.headers["Content-Type"] == "application/problem+json"


async def test_scopes_at_login(client: AsyncClient, site: Site) -> None:
    """R23: a token gets the scopes that the login asks for and the user may have."""
    await store_user(site.database)

    asked = (await log_in(client, scope="notes:read admin")).json()
    silent = (await log_in(client)).json()

    assert (asked["scope"], silent["scope"]) == ("notes:read", "")
    assert site.tokens.decode(asked["access_token"]).scopes == {"notes:read"}


async def test_the_subject_is_the_id(client: AsyncClient, site: Site) -> None:
    """R14: a token names the id, which never changes, and not the address."""
    user = await store_user(site.database)

    assert site.tokens.decode((await log_in(client)).json()["access_token"]).sub == str(user.id)


# --- Refresh ---


async def test_a_login_does_not_live_for_ever(client: AsyncClient, site: Site) -> None:
    """R39: a refresh does not lengthen a login."""
    await store_user(site.database)
    pair = (await log_in(client)).json()
    ends = site.tokens.decode(pair["refresh_token"], type="refresh").exp

    for _ in range(6):
        site.clock.advance(timedelta(days=1))
        pair = (await refresh(client, pair["refresh_token"])).json()
        assert site.tokens.decode(pair["refresh_token"], type="refresh").exp == ends
    site.clock.advance(timedelta(days=1))

    assert (await refresh(client, pair["refresh_token"])).status_code == 401


async def test_a_refresh_keeps_login_and_scopes(client: AsyncClient, site: Site) -> None:
    """R40: a refresh keeps the ``sid`` and adds no scope."""
    await store_user(site.database)
    pair = (await log_in(client, scope="notes:read")).json()

    renewed = (await refresh(client, pair["refresh_token"])).json()

    before, after = site.tokens.decode(pair["access_token"]), site.tokens.decode(renewed["access_token"])
    assert (after.sid, after.scopes, after.sub) == (before.sid, before.scopes, before.sub)
    assert after.jti != before.jti
    assert before.sid


async def test_a_scope_that_was_taken_away(users: Database) -> None:
    """R40: a refresh drops scopes that the user may no longer have."""
    scopes = ["notes:read", "admin"]
    site = Site(users, scopes=scopes)
    await store_user(users)
    async with app_client(site.app) as client:
        pair = (await log_in(client, scope="notes:read admin")).json()
        scopes.remove("admin")
        renewed = (await refresh(client, pair["refresh_token"])).json()

    assert (pair["scope"], renewed["scope"]) == ("admin notes:read", "notes:read")
    assert site.tokens.decode(renewed["refresh_token"], type="refresh").scopes == {"notes:read"}


async def test_an_access_token_refreshes_nothing(client: AsyncClient, site: Site) -> None:
    """R17: an access token cannot refresh, and a refresh token gives no access."""
    await store_user(site.database)
    pair = (await log_in(client)).json()

    swapped = [
        await refresh(client, pair["access_token"]),
        await client.get("/auth/me", headers={"Authorization": f"Bearer {pair['refresh_token']}"}),
    ]

    assert [response.status_code for response in swapped] == [401, 401]
    assert all(response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"' for response in swapped)


@pytest.mark.parametrize("change", [{"is_active": False}, None], ids=["inactive", "deleted"])
async def test_who_may_not_log_in_any_more_cannot_refresh(client: AsyncClient, site: Site, change: dict[str, object] | None) -> None:
    """R40: a deleted or inactive user cannot refresh, and the access token ends at once."""
    user = await store_user(site.database)
    pair = (await log_in(client)).json()
    async with site.database.begin() as session:
        await (Users(session).delete(user.id) if change is None else Users(session).update(user.id, change))

    assert (await refresh(client, pair["refresh_token"])).status_code == 401
    assert (await client.get("/auth/me", headers={"Authorization": f"Bearer {pair['access_token']}"})).status_code == 401


async def test_hostile_refresh_tokens(client: AsyncClient, site: Site) -> None:
    """R20, R22: a hostile refresh token is a 401 or a 422, without the reason."""
    await store_user(site.database)
    for name, token in sample(hostile_tokens(site.tokens, type="refresh")):
        body = (
            b'{"refresh_token": "%s"}'
            % "".join(
                chr(point) if 32 <= point < 127 and chr(point) not in '"\\' else f"\\u{point:04x}"
                for point in map(ord, token)
                if point < 65536
            ).encode()
        )
        response = await client.post("/auth/refresh", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code in {401, 422}, name


# --- All of them ---


async def test_no_answer_is_stored(client: AsyncClient, site: Site) -> None:
    """R27: every answer has ``Cache-Control: no-store``, errors included."""
    await store_user(site.database)
    pair = (await log_in(client)).json()
    answers = [
        await client.post("/auth/register", json={**ANN, "email": "new@example.com"}),
        await client.post("/auth/register", json=ANN),
        await client.post("/auth/register", json={}),
        await log_in(client),
        await log_in(client, password="wrong"),
        await client.post("/auth/login"),
        await refresh(client, pair["refresh_token"]),
        await refresh(client, "x"),
        await client.get("/auth/me", headers=bearer(site.tokens, "1")),
        await client.get("/auth/me"),
    ]

    assert [answer.status_code for answer in answers] == [201, 409, 422, 200, 401, 422, 200, 401, 200, 401]
    assert [answer.headers["Cache-Control"] for answer in answers] == ["no-store"] * len(answers)


async def test_no_answer_has_a_hash_or_a_password(client: AsyncClient) -> None:
    """R28: no answer contains a hash or a password."""
    answer = await client.post("/auth/register", json=ANN)
    me = await client.get("/auth/me", headers={"Authorization": f"Bearer {(await log_in(client)).json()['access_token']}"})

    for text in (answer.text, me.text):
        assert "$2b$" not in text
        assert PASSWORD not in text


async def test_nothing_is_logged(client: AsyncClient, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """R28: no log record contains a password, a hash or a token."""
    caplog.set_level(0)
    # At DEBUG it logs every statement with its values; configure_logging() does the same.
    caplog.set_level(logging.INFO, "aiosqlite")
    await client.post("/auth/register", json=ANN)
    pair = (await log_in(client)).json()
    await log_in(client, password="wrong horse battery")
    await refresh(client, pair["refresh_token"])

    for secret in (PASSWORD, "wrong horse battery", "$2b$", pair["access_token"], pair["refresh_token"]):
        assert secret not in caplog.text


@pytest.mark.parametrize("left_out", [each for each in AuthEndpoint if each in AuthEndpoint.ALL])
async def test_leaving_one_out(users: Database, left_out: AuthEndpoint) -> None:
    """R29: each route can be left out."""
    paths = {AuthEndpoint.REGISTER: "register", AuthEndpoint.LOGIN: "login", AuthEndpoint.REFRESH: "refresh", AuthEndpoint.ME: "me"}
    site = Site(users, endpoints=AuthEndpoint.ALL & ~left_out)

    assert site.app.openapi()["paths"].keys() == {f"/auth/{path}" for endpoint, path in paths.items() if endpoint != left_out}


async def test_replacing_one(users: Database) -> None:
    """R29: a route that was left out can be declared on the router, and has ``no-store``, too."""
    site = Site(users, endpoints=AuthEndpoint.REFRESH)
    router = site.router(AuthEndpoint.ME)

    @router.get("/me/age")
    async def age() -> int:
        return 42

    site.app.include_router(router, prefix="/own")

    async with app_client(site.app) as client:
        response = await client.get("/own/me/age")
    assert (response.json(), response.headers["Cache-Control"]) == (42, "no-store")


async def test_a_router_of_your_own(users: Database) -> None:
    """R27: ``NoStoreRoute`` works on a router of your own."""
    site, router = Site(users), APIRouter(route_class=NoStoreRoute)

    @router.get("/secret")
    async def secret() -> str:
        return "s"

    site.app.include_router(router)

    async with app_client(site.app) as client:
        assert (await client.get("/secret")).headers["Cache-Control"] == "no-store"


async def test_the_document(site: Site) -> None:
    """R29: the document shows the form, the pair, every error, and the flow behind Authorize."""
    document = site.app.openapi()

    operations = {path.removeprefix("/auth/"): next(iter(item.values())) for path, item in document["paths"].items()}
    assert {name: sorted(operation["responses"]) for name, operation in operations.items()} == {
        "register": ["201", "400", "409", "413", "422", "503", "default"],
        "login": ["200", "400", "401", "413", "422", "503", "default"],
        "refresh": ["200", "400", "401", "413", "422", "503", "default"],
        "me": ["200", "401", "503", "default"],
    }
    assert operations["me"]["security"] == [{"Bearer": []}]
    assert "security" not in operations["login"]
    flow = document["components"]["securitySchemes"]["Bearer"]["flows"]["password"]
    assert (flow["tokenUrl"], sorted(flow["scopes"])) == ("auth/login", ["notes:read", "notes:write"])
    form = document["components"]["schemas"][
        operations["login"]["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]["$ref"].rpartition("/")[2]
    ]
    assert sorted(form["required"]) == ["password", "username"]
    pair = document["components"]["schemas"]["TokenPair"]
    assert {"access_token", "refresh_token", "expires_in"} <= set(pair["required"])
    assert "HTTPValidationError" not in document["components"]["schemas"]


@pytest.mark.parametrize("name", sorted(PRIVILEGES))
def test_a_form_with_privileges_is_rejected_at_start(site: Site, name: str) -> None:
    """R52: a registration schema with a privilege raises ConfigurationError."""
    schema: type[Any] = create_model("Form", __base__=UserRegister, **{name: (bool, False)})

    for endpoints in (AuthEndpoint.ALL, AuthEndpoint.ME):
        with pytest.raises(ConfigurationError, match=f"could set \\['{name}'\\]"):
            auth_router(
                site.flow, session=site.database.session, current_user=site.get_user, read=UserRead, register=schema, endpoints=endpoints
            )


def test_a_form_with_any_field_is_rejected_at_start(site: Site) -> None:
    """R52: a registration schema that allows unknown fields raises ConfigurationError."""
    schema: type[Any] = create_model("Form", __base__=UserRegister)
    schema.model_config["extra"] = "allow"

    with pytest.raises(ConfigurationError, match="users who register could set every column"):
        auth_router(site.flow, session=site.database.session, current_user=site.get_user, read=UserRead, register=schema)


def test_the_texts_of_forms_show_no_password() -> None:
    """R28: neither the repr of a form, nor the text of an error about it, shows what a user has typed."""
    for data in ({"password": "hunter2-hunter2"}, {"email": "ann@example.com", "password": "x" * 10, "pasword": "hunter2-hunter2"}):
        with pytest.raises(ValidationError) as caught:
            UserRegister.model_validate(data)
        assert "hunter2" not in f"{caught.value} {caught.value!r}"
    assert "hunter2" not in repr(EnrolmentRead(secret="hunter2", uri="otpauth://hunter2"))
    assert "hunter2" not in repr(RecoveryCodesRead(recovery_codes=["hunter2"]))


def test_a_form_needs_address_and_password(site: Site) -> None:
    """R52: a registration schema without e-mail address or password raises ConfigurationError."""

    class Form(BaseModel):
        email: str

    schema: type[Any] = Form
    with pytest.raises(ConfigurationError, match="password"):
        auth_router(site.flow, session=site.database.session, current_user=site.get_user, read=UserRead, register=schema)


def test_the_schemas_hide_the_password() -> None:
    """R28: a registration shows no password in its repr."""
    assert PASSWORD not in repr(Registration(email="ann@example.com", password=PASSWORD))  # type: ignore[arg-type]
