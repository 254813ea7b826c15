"""Organizations and their members."""

from dataclasses import dataclass

import pytest
from httpx import AsyncClient

from fastapi_kit.errors import InvalidDataError
from fastapi_kit.testing.auth import login_as

from .conftest import PASSWORD, MakePerson, Person, Zenith, headers_of

UNKNOWN = 2**31 - 1


@dataclass(frozen=True)
class Club:
    """An organization with an owner, an admin, a member, and users outside of it."""

    path: str
    owner: Person
    admin: Person
    member: Person
    stranger: Person
    superuser: Person

    @property
    def organization_id(self) -> int:
        return int(self.path.rpartition("/")[2])

    async def members(self) -> dict[int, str]:
        page = (await self.superuser("GET", f"{self.path}/members")).json()
        return {item["user_id"]: item["role"] for item in page["items"]}


@pytest.fixture
async def club(ada: Person, bob: Person, root: Person, make: MakePerson) -> Club:
    founded = await ada("POST", "/organizations", {"name": "Teapots"})
    assert founded.headers["location"] == f"/api/v1/organizations/{founded.json()['id']}"
    path = founded.headers["location"].removeprefix("/api/v1")
    joined = await ada("POST", f"{path}/members", {"user_id": bob.id})
    admin = await make("adam")
    promoted = await ada("POST", f"{path}/members", {"user_id": admin.id, "role": "admin"})
    assert (founded.status_code, joined.status_code, promoted.status_code) == (201, 201, 201)
    return Club(path, ada, admin, bob, await make("eve"), root)


async def test_the_founder_is_the_owner(club: Club) -> None:
    """The user who creates an organization is its first owner."""
    assert await club.members() == {club.owner.id: "owner", club.admin.id: "admin", club.member.id: "member"}


async def test_list_filtered(club: Club) -> None:
    """Members search and sort their organizations; those of others are not found."""
    await club.owner("POST", "/organizations", {"name": "Cups", "description": "For TEA"})
    await club.stranger("POST", "/organizations", {"name": "Tea strangers"})

    async def names(**query: str) -> list[str]:
        page = (await club.owner("GET", "/organizations", params=query)).json()
        return [item["name"] for item in page["items"]]

    assert await names(q="tea", sort="name") == ["Cups", "Teapots"]
    assert await names(q="tea", description__isnull="true") == ["Teapots"]
    assert await names(sort="-created_at,name", limit="1", created_at__gte="9999-01-01") == []


async def test_all_or_nothing(client: AsyncClient, zenith: Zenith, root: Person) -> None:
    """If the first member cannot be stored, here because the user is deleted, the organization is not stored either."""
    with login_as(zenith.app, zenith.dependencies.get_current_user, zenith.models.User(id=UNKNOWN, is_superuser=False)):
        rejected = await client.post("/api/v1/organizations", json={"name": "Teapots"})

    assert (rejected.status_code, rejected.json()["code"]) == (422, "unknown_reference")
    assert (await root("GET", "/organizations")).json()["total"] == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "statuses"),
    [
        ("GET", "", None, (401, 404, 200, 200, 200, 200)),
        ("PATCH", "", {"name": "Cups"}, (401, 404, 403, 200, 200, 200)),
        ("DELETE", "", None, (401, 404, 403, 403, 204, 204)),
        ("GET", "/members", None, (401, 404, 200, 200, 200, 200)),
        ("POST", "/members", "member", (401, 404, 403, 201, 201, 201)),
        ("POST", "/members", "admin", (401, 404, 403, 403, 201, 201)),
        ("POST", "/members", "owner", (401, 404, 403, 403, 201, 201)),
        ("PATCH", "/members/{member}", {"role": "admin"}, (401, 404, 403, 403, 200, 200)),
        ("PATCH", "/members/{admin}", {"role": "owner"}, (401, 404, 403, 403, 200, 200)),
        ("PATCH", "/members/{owner}", {"role": "member"}, (401, 404, 403, 403, 409, 409)),
        ("PATCH", "/members/{owner}", {"role": "owner"}, (401, 404, 403, 403, 200, 200)),
        ("PATCH", "/members/{new}", {"role": "member"}, (401, 404, 403, 403, 404, 404)),
        ("DELETE", "/members/{new}", None, (401, 404, 403, 404, 404, 404)),
        ("DELETE", "/members/{member}", None, (401, 404, 204, 204, 204, 204)),
        ("DELETE", "/members/{admin}", None, (401, 404, 403, 204, 204, 204)),
        ("DELETE", "/members/{other_admin}", None, (401, 404, 403, 403, 204, 204)),
        ("DELETE", "/members/{owner}", None, (401, 404, 403, 403, 409, 409)),
    ],
)
@pytest.mark.parametrize("who", range(6), ids=["anonymous", "stranger", "member", "admin", "owner", "superuser"])
async def test_who_may(
    client: AsyncClient, club: Club, make: MakePerson, who: int, method: str, path: str, body: object, statuses: tuple[int, ...]
) -> None:
    """R23: strangers get 404. Members read and leave, admins change it and its members, owners its admins, its owners and everything."""
    new, other_admin = await make("new"), await make("amy")
    await club.owner("POST", f"{club.path}/members", {"user_id": other_admin.id, "role": "admin"})
    callers = [None, club.stranger, club.member, club.admin, club.owner, club.superuser]
    ids = {"new": new.id, "member": club.member.id, "admin": club.admin.id, "other_admin": other_admin.id, "owner": club.owner.id}
    path = path.format(**ids)
    body = {"user_id": new.id, "role": body} if isinstance(body, str) else body

    answer = await client.request(method, f"/api/v1{club.path}{path}", json=body, headers=headers_of(callers[who]))

    assert answer.status_code == statuses[who]


async def test_lists_are_confined(club: Club) -> None:
    """R23: lists and totals contain only the user's own organizations; a superuser sees all."""
    await club.stranger("POST", "/organizations", {"name": "Spoons"})

    seen = {}
    for name in ("owner", "member", "stranger", "superuser"):
        page = (await getattr(club, name)("GET", "/organizations")).json()
        seen[name] = (page["total"], [item["name"] for item in page["items"]])
    assert seen == {
        "owner": (1, ["Teapots"]),
        "member": (1, ["Teapots"]),
        "stranger": (1, ["Spoons"]),
        "superuser": (2, ["Teapots", "Spoons"]),
    }


@pytest.mark.parametrize("path", ["", "/members"])
async def test_unknown_organization(client: AsyncClient, root: Person, path: str) -> None:
    """An unknown organization is a 404 for a superuser too."""
    assert (await root("GET", f"/organizations/{UNKNOWN}{path}")).status_code == 404


async def test_adding_twice(club: Club) -> None:
    """A second membership of one user is a 409, and the first one stays."""
    again = await club.owner("POST", f"{club.path}/members", {"user_id": club.member.id, "role": "owner"})

    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert (await club.members())[club.member.id] == "member"


@pytest.mark.parametrize(
    "body", [{"user_id": UNKNOWN}, {"user_id": 10**30}, {"user_id": None}, {}, {"user_id": 1, "role": "king"}, {"user_id": 1, "x": 1}]
)
async def test_adding_an_invalid_member(club: Club, body: dict[str, object]) -> None:
    """An unknown user, and an unknown field or role, is a 422."""
    answer = await club.owner("POST", f"{club.path}/members", body)

    assert answer.status_code == 422
    assert len(await club.members()) == 3


@pytest.mark.parametrize("body", [{"role": "king"}, {"role": None}, {}, {"role": "owner", "user_id": 1}, {"role": "OWNER"}])
async def test_an_invalid_role(club: Club, body: dict[str, object]) -> None:
    """An unknown role or field is a 422, and the role stays."""
    answer = await club.owner("PATCH", f"{club.path}/members/{club.member.id}", body)

    assert answer.status_code == 422
    assert (await club.members())[club.member.id] == "member"


async def test_a_role_that_is_not_declared(zenith: Zenith, club: Club) -> None:
    """The database rejects another role, too."""
    async with zenith.db.sessions() as session:
        with pytest.raises(InvalidDataError):
            await zenith.services.MembershipService(session).update((club.organization_id, club.member.id), {"role": "king"})


async def test_a_change_of_roles(club: Club) -> None:
    """A new role counts from the next request on, there and in no other organization."""
    other = (await club.owner("POST", "/organizations", {"name": "Cups"})).json()["id"]
    await club.owner("POST", f"/organizations/{other}/members", {"user_id": club.member.id})

    changed = await club.owner("PATCH", f"{club.path}/members/{club.member.id}", {"role": "owner"})
    demoted = await club.member("PATCH", f"{club.path}/members/{club.owner.id}", {"role": "member"})

    assert (changed.status_code, changed.json()) == (200, {"user_id": club.member.id, "role": "owner"})
    assert (demoted.status_code, demoted.json()["role"]) == (200, "member")
    assert (await club.owner("DELETE", club.path)).status_code == 403
    assert (await club.member("PATCH", f"/organizations/{other}", {"name": "Mine"})).status_code == 403


async def test_the_last_owner(club: Club, make: MakePerson) -> None:
    """The last owner cannot leave. With a second owner the first can, and then no longer sees the organization."""
    rejected = await club.owner("DELETE", f"{club.path}/members/{club.owner.id}")
    second = await make("second")
    await club.owner("POST", f"{club.path}/members", {"user_id": second.id, "role": "owner"})
    left = await club.owner("DELETE", f"{club.path}/members/{club.owner.id}")

    assert (rejected.status_code, rejected.json()["code"], left.status_code) == (409, "last_owner", 204)
    assert await club.members() == {club.member.id: "member", club.admin.id: "admin", second.id: "owner"}
    assert (await club.owner("GET", club.path)).status_code == 404


async def test_deleting_takes_the_memberships_along(zenith: Zenith, club: Club) -> None:
    """A deleted user or organization leaves no membership behind."""
    await club.member("POST", "/auth/me/delete", {"current_password": PASSWORD})
    assert await club.members() == {club.owner.id: "owner", club.admin.id: "admin"}

    await club.owner("DELETE", club.path)
    async with zenith.db.begin() as session:
        assert await zenith.services.MembershipService(session).count() == 0


async def test_description(ada: Person) -> None:
    """A null clears the description and nothing else. Fields that are not sent stay."""
    created = (await ada("POST", "/organizations", {"name": " Teapots ", "description": "short and stout"})).json()
    path = f"/organizations/{created['id']}"

    renamed = (await ada("PATCH", path, {"name": "Cups"})).json()
    emptied = (await ada("PATCH", path, {"description": None})).json()

    assert (created["name"], renamed["name"]) == ("Teapots", "Cups")
    assert (renamed["description"], emptied["description"]) == ("short and stout", None)
    invalid: list[dict[str, object]] = [{"name": None}, {"name": ""}, {"name": "\u200b"}, {"name": "x" * 256}, {"users": []}, {"id": 1}]
    for body in invalid:
        assert (await ada("PATCH", path, body)).status_code == 422
