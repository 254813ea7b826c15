"""Register, log in, and what a token allows."""

import unicodedata
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from httpx import AsyncClient, Response

from fastapi_kit import JWTService
from fastapi_kit.testing.auth import FrozenClock, captured_mails

from .conftest import PASSWORD, SECRET_KEY, MakePerson, Person, Zenith

BASE = "/api/v1/auth"


def form(email: str, **others: str) -> Mapping[str, str]:
    return {"email": email, "full_name": "Eve", "password": PASSWORD, **others}


async def register(client: AsyncClient, email: str) -> Response:
    return await client.post(f"{BASE}/register", json=form(email))


async def login(client: AsyncClient, email: str, password: str = PASSWORD) -> Response:
    return await client.post(f"{BASE}/login", data={"username": email, "password": password})


async def me(client: AsyncClient, token: str) -> Response:
    return await client.get(f"{BASE}/me", headers={"Authorization": f"Bearer {token}"})


async def refresh(client: AsyncClient, token: str) -> Response:
    return await client.post(f"{BASE}/refresh", json={"refresh_token": token})


async def call(client: AsyncClient, tokens: Mapping[str, Any], method: str, path: str) -> Response:
    return await client.request(method, f"{BASE}{path}", headers={"Authorization": f"Bearer {tokens['access_token']}"})


async def tokens_of(client: AsyncClient, email: str) -> Mapping[str, Any]:
    answer = await login(client, email)
    tokens: Mapping[str, Any] = answer.json()
    assert (answer.status_code, tokens["token_type"], tokens["expires_in"]) == (200, "bearer", 1800)
    return tokens


async def test_the_whole_walk(client: AsyncClient, root: Person) -> None:
    """A user can register, log in, refresh, read their own data, create an organization and add a member."""
    registered = await register(client, "eve@example.org")
    tokens = await tokens_of(client, "eve@example.org")
    renewed = (await refresh(client, tokens["refresh_token"])).json()
    shown = await me(client, renewed["access_token"])
    eve = {"Authorization": f"Bearer {renewed['access_token']}"}
    founded = await client.post("/api/v1/organizations", json={"name": "Teapots"}, headers=eve)
    members = f"{founded.headers['location']}/members"
    joined = await client.post(members, json={"user_id": root.id}, headers=eve)
    listed = await client.get(members, headers=eve)

    assert (registered.status_code, founded.status_code, joined.status_code) == (201, 201, 201)
    assert registered.json() == shown.json()
    assert registered.json().keys() == {
        *("id", "email", "full_name", "is_active", "is_verified", "is_superuser", "created_at", "updated_at")
    }
    assert {item["user_id"]: item["role"] for item in listed.json()["items"]} == {shown.json()["id"]: "owner", root.id: "member"}
    assert (await root("GET", "/users")).json()["total"] == 2


@pytest.mark.parametrize("name", ["is_superuser", "is_active", "is_verified", "id", "hashed_password", "role"])
async def test_registration_sets_no_privileges(client: AsyncClient, name: str) -> None:
    """R52: a registration with an unknown field is rejected."""
    answer = await client.post(f"{BASE}/register", json={**form("eve@example.org"), name: "1"})

    assert answer.status_code == 422
    assert [error["loc"] for error in answer.json()["errors"]] == [["body", name]]
    assert (await login(client, "eve@example.org")).status_code == 401


@pytest.mark.parametrize("twin", ["ÉVE@Example.ORG", " éve@example.org ", unicodedata.normalize("NFD", "éve@example.org")])
async def test_no_twins(client: AsyncClient, twin: str) -> None:
    """R51: one mailbox is one account, in any spelling, and every spelling logs in."""
    first = await register(client, "éve@example.org")
    second = await register(client, twin)

    assert (first.status_code, second.status_code) == (201, 409)
    assert [error["loc"] for error in second.json()["errors"]] == [["email"]]
    assert (await login(client, twin)).status_code == 200


@pytest.mark.parametrize("password", ["short", "password123", "eve@example.org", "x" * 129, "nul\0nul\0nul", "\ud800" * 10])
async def test_weak_passwords(client: AsyncClient, password: str) -> None:
    """R30: a weak password is rejected, and the answer does not repeat it."""
    escaped = password.encode("unicode_escape").decode().replace("\\x00", "\\u0000")
    body = f'{{"email": "eve@example.org", "full_name": "Eve", "password": "{escaped}"}}'

    answer = await client.post(f"{BASE}/register", content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 422
    assert [error["loc"] for error in answer.json()["errors"]] == [["body", "password"]]
    assert "Eve" not in answer.text


@pytest.mark.parametrize(
    ("email", "password"), [("ada@example.org", "wrong teapot"), ("unknown@example.org", PASSWORD), ("no address", "x")]
)
async def test_a_failed_login_says_nothing(client: AsyncClient, ada: Person, email: str, password: str) -> None:
    """R32: every failed login gets the same answer."""
    answer = await login(client, email, password)

    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_credentials")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_an_inactive_user_cannot_log_in(client: AsyncClient, make: MakePerson) -> None:
    """R24: an inactive user gets a 401, even with the right password."""
    await make("ina", is_active=False)

    assert (await login(client, "ina@example.org")).status_code == 401


async def test_answers_with_tokens_are_not_stored(client: AsyncClient, ada: Person) -> None:
    """R27: caches do not store answers with tokens or user data."""
    answers = [await login(client, ada.email), await ada("GET", "/auth/me"), await register(client, "eve@example.org")]

    assert [answer.headers["cache-control"] for answer in answers] == 3 * ["no-store"]


@pytest.mark.parametrize(
    ("header", "challenge"),
    [
        (None, "Bearer"),
        ("Basic YWRhOmFkYQ==", "Bearer"),
        ("Bearer", 'Bearer error="invalid_token"'),
        ("Bearer nonsense", 'Bearer error="invalid_token"'),
        ("bearer a.b.c", 'Bearer error="invalid_token"'),
    ],
)
async def test_no_token_and_bad_ones(client: AsyncClient, header: str | None, challenge: str) -> None:
    """R21, R22, R25: a missing or bad token is a 401. The challenge shows an error only for a bad one."""
    answer = await client.get(f"{BASE}/me", headers={} if header is None else {"Authorization": header})

    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, challenge)


async def test_an_expired_token(client: AsyncClient, ada: Person) -> None:
    """R11: an expired token is rejected."""
    clock = FrozenClock()
    service = JWTService(secret_key=SECRET_KEY, clock=clock)
    good = service.create_access_token(str(ada.id))
    clock.advance(timedelta(days=-1))
    expired = service.create_access_token(str(ada.id))

    assert ((await me(client, good)).status_code, (await me(client, expired)).status_code) == (200, 401)


async def test_tokens_do_not_take_each_others_place(client: AsyncClient, ada: Person) -> None:
    """R17: a refresh token is not accepted as an access token, or the other way round."""
    tokens = await tokens_of(client, ada.email)

    assert (await me(client, tokens["refresh_token"])).status_code == 401
    assert (await refresh(client, tokens["access_token"])).status_code == 401
    assert (await refresh(client, tokens["refresh_token"])).status_code == 200


async def test_deactivated(client: AsyncClient, ada: Person, root: Person) -> None:
    """R42: from the next request on, both tokens of a deactivated user are rejected."""
    tokens = await tokens_of(client, ada.email)

    await root("PATCH", f"/users/{ada.id}/privileges", {"is_active": False})

    assert (await me(client, tokens["access_token"])).status_code == 401
    assert (await refresh(client, tokens["refresh_token"])).status_code == 401


async def test_deleted(client: AsyncClient, ada: Person) -> None:
    """R22: users delete their account with their password, and its tokens are then rejected like any bad token."""
    tokens = await tokens_of(client, ada.email)

    assert (await ada("POST", "/auth/me/delete", {"current_password": "a guess"})).status_code == 422
    assert (await ada("POST", "/auth/me/delete", {"current_password": PASSWORD})).status_code == 204

    answers = [await me(client, tokens["access_token"]), await refresh(client, tokens["refresh_token"])]
    assert [answer.json()["code"] for answer in answers] == 2 * ["invalid_token"]


async def test_logout(client: AsyncClient, ada: Person) -> None:
    """R41: after a logout the refresh token is rejected. The other logins go on until a logout everywhere."""
    laptop, phone, tablet = [await tokens_of(client, ada.email) for _ in range(3)]

    assert (await call(client, laptop, "POST", "/logout")).status_code == 204
    assert (await refresh(client, laptop["refresh_token"])).status_code == 401
    assert len((await call(client, phone, "GET", "/logins")).json()) == 2

    assert (await call(client, phone, "POST", "/logout/everywhere")).status_code == 204
    assert [(await refresh(client, each["refresh_token"])).status_code for each in (phone, tablet)] == [401, 401]


async def test_a_lost_device(client: AsyncClient, ada: Person, bob: Person) -> None:
    """R41: a user ends one login from the list, and cannot end the login of another user."""
    mine, lost, theirs = [await tokens_of(client, person.email) for person in (ada, ada, bob)]
    other = next(login for login in (await call(client, mine, "GET", "/logins")).json() if not login["is_current"])
    (foreign,) = (await call(client, theirs, "GET", "/logins")).json()

    answers = [await call(client, mine, "DELETE", f"/logins/{login['id']}") for login in (other, foreign)]

    assert [answer.status_code for answer in answers] == [204, 404]
    assert [(await refresh(client, each["refresh_token"])).status_code for each in (mine, lost, theirs)] == [200, 401, 200]


async def test_a_used_refresh_token(client: AsyncClient, ada: Person) -> None:
    """R38: a refresh token works once. When it comes back after its successor was used, the login ends."""
    first = await tokens_of(client, ada.email)
    second = (await refresh(client, first["refresh_token"])).json()
    third = (await refresh(client, second["refresh_token"])).json()

    answers = [await refresh(client, each["refresh_token"]) for each in (first, third)]

    assert [answer.status_code for answer in answers] == [401, 401]


async def test_demoted(ada: Person, root: Person, make: MakePerson) -> None:
    """R43: a superuser who loses the privilege loses it with the next request."""
    other = await make("other", is_superuser=True)
    assert (await other("GET", "/users")).status_code == 200

    await root("PATCH", f"/users/{other.id}/privileges", {"is_superuser": False})

    assert (await other("GET", "/users")).status_code == 403


async def test_a_recycled_address(client: AsyncClient, ada: Person) -> None:
    """R14: the tokens of a deleted user do not work for a new user with the same address."""
    tokens = await tokens_of(client, ada.email)
    await ada("POST", "/auth/me/delete", {"current_password": PASSWORD})

    assert (await register(client, ada.email)).json()["id"] != ada.id
    assert (await me(client, tokens["access_token"])).status_code == 401


async def test_a_changed_address(client: AsyncClient, ada: Person) -> None:
    """R14: a user who changes the address stays logged in."""
    changed = await ada("PATCH", f"/users/{ada.id}", {"email": "Lovelace@example.org", "current_password": PASSWORD})

    assert (changed.status_code, changed.json()["email"]) == (200, "lovelace@example.org")
    assert (await ada("GET", "/auth/me")).json() == changed.json()
    assert (await login(client, ada.email)).status_code == 401


# --- Links in mails ---


async def test_a_forgotten_password(zenith: Zenith, client: AsyncClient, ada: Person) -> None:
    """The link of a mail sets a new password, once, and ends all logins. Nothing shows whether an address is known."""
    before = await tokens_of(client, ada.email)
    with captured_mails(zenith.services.mail) as mails:
        answers = [await client.post(f"{BASE}/password/forgot", json={"email": email}) for email in (ada.email, "eve@example.org")]
    reset = {"token": mails[0].token, "password": "another teapot"}
    statuses = [(await client.post(f"{BASE}/password/reset", json=reset)).status_code for _ in range(2)]

    assert [(answer.status_code, answer.content) for answer in answers] == [(202, b"")] * 2
    assert ([(mail.kind, mail.to) for mail in mails], statuses) == ([("reset", ada.email)], [204, 422])
    assert (await refresh(client, before["refresh_token"])).status_code == 401
    assert [(await login(client, ada.email, word)).status_code for word in (PASSWORD, "another teapot")] == [401, 200]


async def test_a_verified_address(zenith: Zenith, client: AsyncClient) -> None:
    """A registration sends a link, which verifies the address. A new address is one when its own link is used."""
    with captured_mails(zenith.services.mail) as mails:
        await register(client, "eve@example.org")
        assert (await client.post(f"{BASE}/email/confirm", json={"token": mails[0].token})).status_code == 204
        token = (await tokens_of(client, "eve@example.org"))["access_token"]
        assert (await me(client, token)).json()["is_verified"]

        change = {"email": "eva@example.org", "current_password": PASSWORD}
        headers = {"Authorization": f"Bearer {token}"}
        assert (await client.post(f"{BASE}/email", json=change, headers=headers)).status_code == 202
    assert (await me(client, token)).json()["email"] == "eve@example.org"
    assert (await client.post(f"{BASE}/email/confirm", json={"token": mails[1].token})).status_code == 204
    shown = (await me(client, token)).json()
    assert (shown["email"], shown["is_verified"]) == ("eva@example.org", True)


async def test_a_deleted_account(client: AsyncClient, ada: Person, root: Person) -> None:
    """Users delete their account with their password."""
    statuses = [(await ada("POST", "/auth/me/delete", {"current_password": word})).status_code for word in ("wrong", PASSWORD)]

    assert statuses == [422, 204]
    assert (await root("GET", f"/users/{ada.id}")).status_code == 404


async def test_guesses(client: AsyncClient, ada: Person, bob: Person) -> None:
    """R47: after ten wrong passwords an account is closed for a while, also to the right one. Other accounts are open."""
    guesses = [(await login(client, ada.email, f"guess {number}")).status_code for number in range(11)]
    right = await login(client, ada.email)

    assert guesses == [*10 * [401], 429]
    assert (right.status_code, right.json()["code"]) == (429, "rate_limited")
    assert int(right.headers["retry-after"]) > 0
    assert (await login(client, bob.email)).status_code == 200


async def test_a_mailbox_is_not_filled(client: AsyncClient, ada: Person) -> None:
    """R47: an address gets five mails of a kind in a quarter of an hour."""
    statuses = [(await client.post(f"{BASE}/password/forgot", json={"email": ada.email})).status_code for _ in range(6)]

    assert statuses == [*5 * [202], 429]
