"""Users: who may see and change them."""

from typing import Any

import pytest
from httpx import AsyncClient

from fastapi_kit.testing import app_client, assert_max_queries
from fastapi_kit.testing.auth import login_as

from .conftest import PASSWORD, MakePerson, Person, Zenith, headers_of, make_in

NEW = {"email": "New@Example.org", "full_name": "New", "password": PASSWORD}
UNKNOWN = 2**31 - 1


async def can_log_in(client: AsyncClient, email: str, password: str) -> bool:
    answer = await client.post("/api/v1/auth/login", data={"username": email, "password": password})
    return answer.status_code == 200


def locations(problem: dict[str, Any]) -> list[list[str]]:
    return [error["loc"] for error in problem["errors"]]


@pytest.mark.parametrize(
    ("method", "path", "body", "statuses"),
    [
        ("GET", "/users", None, (401, 403, 403, 200)),
        ("POST", "/users", NEW, (401, 403, 403, 201)),
        ("GET", "/users/{id}", None, (401, 403, 200, 200)),
        ("PATCH", "/users/{id}", {"full_name": "A"}, (401, 403, 200, 200)),
        ("PATCH", "/users/{id}/privileges", {"is_active": True}, (401, 403, 403, 200)),
        ("POST", "/users/{id}/impersonate", None, (401, 403, 403, 200)),
        ("DELETE", "/users/{id}", None, (401, 403, 403, 204)),
        ("GET", f"/users/{UNKNOWN}", None, (401, 403, 403, 404)),
        ("PATCH", f"/users/{UNKNOWN}", {"full_name": "A"}, (401, 403, 403, 404)),
        ("PATCH", f"/users/{UNKNOWN}/privileges", {"is_active": True}, (401, 403, 403, 404)),
        ("POST", f"/users/{UNKNOWN}/impersonate", None, (401, 403, 403, 404)),
        ("DELETE", f"/users/{UNKNOWN}", None, (401, 403, 403, 404)),
    ],
)
@pytest.mark.parametrize("who", range(4), ids=["anonymous", "another", "self", "superuser"])
async def test_who_may(
    client: AsyncClient, ada: Person, bob: Person, root: Person, who: int, method: str, path: str, body: object, statuses: tuple[int, ...]
) -> None:
    """R21, R23: anonymous requests are 401. Other users are 403, even if the user is missing. A superuser may do all."""
    caller = [None, bob, ada, root][who]

    answer = await client.request(method, f"/api/v1{path.format(id=ada.id)}", json=body, headers=headers_of(caller))

    assert answer.status_code == statuses[who]
    assert ("www-authenticate" in answer.headers) == (answer.status_code == 401)


async def test_a_profile_is_kept_until_it_changes(zenith: Zenith) -> None:
    """The second read asks the database for the current user only. A change, or a change of privileges, shows at once.

    The test commits what it writes, because what a transaction has written is not cached.
    """
    async with app_client(zenith.app, raise_errors=True) as client:
        make = make_in(zenith, client)
        cleo, chief = await make("cleo"), await make("chief", is_superuser=True)
        try:
            path = f"/users/{cleo.id}"
            first = (await cleo("GET", path)).json()
            with assert_max_queries(zenith.db, 1):
                assert (await cleo("GET", path)).json() == first

            await cleo("PATCH", path, {"full_name": "Cleopatra"})
            assert (await cleo("GET", path)).json()["full_name"] == "Cleopatra"

            await chief("PATCH", f"{path}/privileges", {"is_active": False})
            assert (await chief("GET", path)).json()["is_active"] is False
        finally:
            for person in (cleo, chief):
                await chief("DELETE", f"/users/{person.id}")


async def test_list(zenith: Zenith, ada: Person, bob: Person, root: Person) -> None:
    """A list takes two statements and one for the current user, and never shows a hash."""
    with assert_max_queries(zenith.db, 3):
        page = (await root("GET", "/users", params={"skip": 1, "limit": 1})).json()

    assert ([item["id"] for item in page["items"]], page["total"], page["has_more"]) == ([bob.id], 3, True)
    assert not any("password" in name for name in page["items"][0])


@pytest.mark.parametrize("query", [{"skip": -1}, {"skip": 10**30}, {"limit": 0}, {"limit": 1001}, {"page": 1}])
async def test_list_out_of_bounds(root: Person, query: dict[str, int]) -> None:
    """skip must be 0 or more, limit 1 to 1000."""
    assert (await root("GET", "/users", params=query)).status_code == 422


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"q": "ADA example"}, ["Ada"]),
        ({"sort": "-full_name"}, ["Root", "Bob", "Ada"]),
        ({"is_superuser": False, "sort": "email", "limit": 1}, ["Ada"]),
        ({"created_at__gte": "2026-01-01", "is_superuser": True}, ["Root"]),
        ({"created_at__gte": "9999-01-01"}, []),
    ],
)
async def test_list_filtered(ada: Person, bob: Person, root: Person, query: dict[str, Any], names: list[str]) -> None:
    """A superuser searches, filters and sorts the users."""
    page = (await root("GET", "/users", params=query)).json()

    assert [item["full_name"] for item in page["items"]] == names


async def test_list_of_an_organization(ada: Person, bob: Person, root: Person) -> None:
    """A filter leads over memberships to an organization."""
    founded = (await bob("POST", "/organizations", {"name": "Teapots"})).json()
    page = (await root("GET", "/users", params={"organizations__id": founded["id"]})).json()

    assert [item["id"] for item in page["items"]] == [bob.id]


@pytest.mark.parametrize("query", [{"sort": "hashed_password"}, {"hashed_password": "x"}, {"created_at__gte": "2026"}])
async def test_list_by_what_is_not_declared(root: Person, query: dict[str, str]) -> None:
    """A list cannot be sorted or filtered by a column that its schema does not name."""
    assert (await root("GET", "/users", params=query)).status_code == 422


async def test_create(client: AsyncClient, root: Person) -> None:
    """R52: a superuser creates users with any privileges. The address is normalized."""
    created = await root("POST", "/users", {**NEW, "is_superuser": True, "is_active": False})

    assert created.status_code == 201
    assert (created.json()["email"], created.json()["is_superuser"], created.json()["is_active"]) == ("new@example.org", True, False)
    assert created.headers["location"] == f"/api/v1/users/{created.json()['id']}"
    assert not await can_log_in(client, "new@example.org", PASSWORD)
    assert (await root("POST", "/users", NEW)).status_code == 409
    assert locations((await root("POST", "/users", {**NEW, "password": "password123"})).json()) == [["body", "password"]]


@pytest.mark.parametrize("field", [{"email": "new@example.org"}, {"password": "another teapot"}])
@pytest.mark.parametrize("confirmed", [{}, {"current_password": "wrong teapot"}, {"current_password": "\0" * 128}])
async def test_unconfirmed_change(client: AsyncClient, ada: Person, field: dict[str, str], confirmed: dict[str, str]) -> None:
    """R36: without the current password, a change of the own address or password is rejected as a whole."""
    answer = await ada("PATCH", f"/users/{ada.id}", {**field, **confirmed, "full_name": "Mallory"})

    assert (answer.status_code, locations(answer.json())) == (422, [["body", "current_password"]])
    assert (await ada("GET", "/auth/me")).json()["full_name"] == "Ada"
    assert await can_log_in(client, ada.email, PASSWORD)


async def test_change_of_the_password(client: AsyncClient, ada: Person) -> None:
    """R36: the new password logs in, the old one does not."""
    answer = await ada("PATCH", f"/users/{ada.id}", {"password": "another teapot", "current_password": PASSWORD})

    assert answer.status_code == 200
    assert "teapot" not in answer.text
    assert await can_log_in(client, ada.email, "another teapot")
    assert not await can_log_in(client, ada.email, PASSWORD)


async def test_a_new_password_ends_the_other_logins(client: AsyncClient, ada: Person, root: Person) -> None:
    """R36: the login in which a user changes the password goes on, the others end. A superuser's change ends all of them."""

    async def log_in(password: str) -> dict[str, str]:
        tokens: dict[str, str] = (await client.post("/api/v1/auth/login", data={"username": ada.email, "password": password})).json()
        return tokens

    async def refresh(tokens: dict[str, str]) -> int:
        return (await client.post("/api/v1/auth/refresh", json={"refresh_token": tokens["refresh_token"]})).status_code

    mine, other = await log_in(PASSWORD), await log_in(PASSWORD)
    headers = {"Authorization": f"Bearer {mine['access_token']}"}
    change = {"password": "another teapot", "current_password": PASSWORD}

    assert (await client.patch(f"/api/v1/users/{ada.id}", json=change, headers=headers)).status_code == 200
    assert [await refresh(mine), await refresh(other)] == [200, 401]

    last = await log_in("another teapot")
    await root("PATCH", f"/users/{ada.id}", {"password": "a third teapot"})
    assert await refresh(last) == 401


@pytest.mark.parametrize("password", ["password123", "ada@example.org", "lady lovelace"])
async def test_change_to_a_weak_password(ada: Person, password: str) -> None:
    """R30: the password policy also checks changes, and compares with the old and the new user data."""
    changes = {"password": password, "current_password": PASSWORD, "full_name": "Lady Lovelace"}

    answer = await ada("PATCH", f"/users/{ada.id}", changes)

    assert (answer.status_code, locations(answer.json())) == (422, [["body", "password"]])


async def test_change_by_a_superuser(client: AsyncClient, ada: Person, root: Person) -> None:
    """A superuser may set another user's password. Their own requires the current one."""
    helped = await root("PATCH", f"/users/{ada.id}", {"password": "another teapot"})
    own = await root("PATCH", f"/users/{root.id}", {"password": "another teapot"})

    assert (helped.status_code, own.status_code) == (200, 422)
    assert await can_log_in(client, ada.email, "another teapot")


@pytest.mark.parametrize("name", ["is_superuser", "is_active", "is_verified", "id", "hashed_password", "created_at"])
async def test_no_privileges_by_the_way(ada: Person, root: Person, name: str) -> None:
    """R52: a change of user data cannot change privileges, not even for a superuser."""
    for person in (ada, root):
        answer = await person("PATCH", f"/users/{person.id}", {name: True})
        assert (answer.status_code, locations(answer.json())) == (422, [["body", name]])


async def test_privileges(ada: Person, root: Person) -> None:
    """R43: granted privileges apply from the next request on. The route accepts no other field."""
    granted = await root("PATCH", f"/users/{ada.id}/privileges", {"is_superuser": True})

    assert (granted.status_code, granted.json()["is_superuser"]) == (200, True)
    assert (await ada("GET", "/users")).status_code == 200
    for body in ({"is_superuser": None}, {"is_verified": True}, {"email": "x@example.org"}, {"is_active": "perhaps"}):
        assert (await root("PATCH", f"/users/{ada.id}/privileges", body)).status_code == 422


@pytest.mark.parametrize("changes", [{}, {"current_password": PASSWORD}, {"full_name": "Ada"}])
async def test_change_of_nothing(ada: Person, changes: dict[str, str]) -> None:
    """A PATCH with equal values, or without any, changes nothing."""
    before = (await ada("GET", "/auth/me")).json()

    answer = await ada("PATCH", f"/users/{ada.id}", changes)

    assert (answer.status_code, answer.json()) == (200, before)


@pytest.mark.parametrize("name", ["email", "full_name", "password", "current_password"])
async def test_null(client: AsyncClient, ada: Person, name: str) -> None:
    """A null is rejected, and the password stays."""
    answer = await ada("PATCH", f"/users/{ada.id}", {name: None})

    assert (answer.status_code, locations(answer.json())) == (422, [["body", name]])
    assert await can_log_in(client, ada.email, PASSWORD)


async def test_taken_address(ada: Person, bob: Person) -> None:
    """R51: the address of another user is a 409, in any case."""
    answer = await ada("PATCH", f"/users/{ada.id}", {"email": "BOB@example.org", "current_password": PASSWORD})

    assert (answer.status_code, locations(answer.json())) == (409, [["email"]])


async def test_a_test_may_say_who_calls(client: AsyncClient, zenith: Zenith, make: MakePerson) -> None:
    """R29: login_as gives every request a user, and the guards still check that user."""
    stranger = zenith.models.User(id=UNKNOWN, is_superuser=False)

    with login_as(zenith.app, zenith.dependencies.get_current_user, stranger):
        assert (await client.get("/api/v1/users")).status_code == 403
    with login_as(zenith.app, zenith.dependencies.get_current_user, zenith.models.User(id=UNKNOWN, is_superuser=True)):
        assert (await client.get("/api/v1/users")).status_code == 200
    assert (await client.get("/api/v1/users")).status_code == 401


async def test_a_superuser_acts_as_a_user(client: AsyncClient, ada: Person, root: Person) -> None:
    """R50: the superuser sees and changes what the user may, but not password, address, logins and the account itself."""
    answer = await root("POST", f"/users/{ada.id}/impersonate")
    acting = Person(ada.id, ada.email, {"Authorization": f"Bearer {answer.json()['access_token']}"}, client)

    assert answer.headers["cache-control"] == "no-store"
    assert (await acting("GET", "/auth/me")).json()["id"] == ada.id
    assert (await acting("PATCH", f"/users/{ada.id}", {"full_name": "Ada L."})).status_code == 200
    assert [(await acting(*each)).status_code for each in (("GET", "/users"), ("DELETE", f"/users/{ada.id}"))] == [403, 403]
    changes = [{"password": "another teapot"}, {"email": "eve@example.org"}]
    rejected = [await acting("PATCH", f"/users/{ada.id}", {**change, "current_password": PASSWORD}) for change in changes]
    rejected += [await acting("POST", "/auth/me/delete", {"current_password": PASSWORD}), await acting("GET", "/auth/logins")]
    assert [(each.status_code, each.json()["code"]) for each in rejected] == 4 * [(403, "impersonated")]
    assert (await root("POST", f"/users/{root.id}/impersonate")).status_code == 403
