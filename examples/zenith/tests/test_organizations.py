"""Organizations and their members."""

from dataclasses import dataclass

import pytest
from httpx import AsyncClient

from fastapi_kit.testing.auth import login_as

from .conftest import MakePerson, Person, Zenith, headers_of

UNKNOWN = 2**31 - 1


@dataclass(frozen=True)
class Club:
    """An organization with an owner and a member, and people outside."""

    path: str
    owner: Person
    member: Person
    stranger: Person
    superuser: Person

    async def members(self) -> dict[int, str]:
        page = (await self.superuser("GET", f"{self.path}/members")).json()
        return {item["user_id"]: item["role"] for item in page["items"]}


@pytest.fixture
async def club(ada: Person, bob: Person, root: Person, make: MakePerson) -> Club:
    founded = await ada("POST", "/organizations", {"name": "Teapots"})
    assert founded.headers["location"] == f"/api/v1/organizations/{founded.json()['id']}"
    path = founded.headers["location"].removeprefix("/api/v1")
    joined = await ada("POST", f"{path}/members", {"user_id": bob.id})
    assert (founded.status_code, joined.status_code) == (201, 201)
    return Club(path, ada, bob, await make("eve"), root)


async def test_the_founder_is_the_owner(club: Club) -> None:
    """Who creates an organization is its first member, and owns it."""
    assert await club.members() == {club.owner.id: "owner", club.member.id: "member"}


async def test_all_or_nothing(client: AsyncClient, zenith: Zenith, root: Person) -> None:
    """Organization and first member are one transaction: without the member, here of a user who is gone, no organization."""
    with login_as(zenith.app, zenith.dependencies.get_current_user, zenith.models.User(id=UNKNOWN, is_superuser=False)):
        refused = await client.post("/api/v1/organizations", json={"name": "Teapots"})

    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_reference")
    assert (await root("GET", "/organizations")).json()["total"] == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "statuses"),
    [
        ("GET", "", None, (401, 404, 200, 200, 200)),
        ("PATCH", "", {"name": "Cups"}, (401, 404, 403, 200, 200)),
        ("DELETE", "", None, (401, 404, 403, 204, 204)),
        ("GET", "/members", None, (401, 404, 200, 200, 200)),
        ("POST", "/members", "new", (401, 404, 403, 201, 201)),
        ("DELETE", "/members/{new}", None, (401, 404, 403, 404, 404)),
        ("DELETE", "/members/{member}", None, (401, 404, 204, 204, 204)),
        ("DELETE", "/members/{owner}", None, (401, 404, 403, 409, 409)),
    ],
)
@pytest.mark.parametrize("who", range(5), ids=["nobody", "stranger", "member", "owner", "superuser"])
async def test_who_may(
    client: AsyncClient, club: Club, make: MakePerson, who: int, method: str, path: str, body: object, statuses: tuple[int, ...]
) -> None:
    """R23: to strangers it does not exist, members read it and may leave, owners and superusers change it; the last owner stays."""
    new = await make("new")
    callers = [None, club.stranger, club.member, club.owner, club.superuser]
    path = path.format(new=new.id, member=club.member.id, owner=club.owner.id)
    body = {"user_id": new.id} if body == "new" else body

    answer = await client.request(method, f"/api/v1{club.path}{path}", json=body, headers=headers_of(callers[who]))

    assert answer.status_code == statuses[who]


async def test_lists_are_confined(club: Club) -> None:
    """R23: members see theirs, superusers all; the total gives nothing away."""
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
async def test_of_nothing(client: AsyncClient, root: Person, path: str) -> None:
    """An organization that is not there is a 404 for a superuser too."""
    assert (await root("GET", f"/organizations/{UNKNOWN}{path}")).status_code == 404


async def test_adding_twice(club: Club) -> None:
    """A membership is there once, whatever the role; the first one stays."""
    again = await club.owner("POST", f"{club.path}/members", {"user_id": club.member.id, "role": "owner"})

    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert (await club.members())[club.member.id] == "member"


@pytest.mark.parametrize(
    "body", [{"user_id": UNKNOWN}, {"user_id": 10**30}, {"user_id": None}, {}, {"user_id": 1, "role": "king"}, {"user_id": 1, "x": 1}]
)
async def test_adding_nobody(club: Club, body: dict[str, object]) -> None:
    """An unknown user is a 422, as is everything that the form does not know."""
    answer = await club.owner("POST", f"{club.path}/members", body)

    assert answer.status_code == 422
    assert len(await club.members()) == 2


async def test_the_last_owner(club: Club, make: MakePerson) -> None:
    """The last owner cannot leave or be removed; with a second one she can, and the organization is no longer hers to see."""
    refused = await club.owner("DELETE", f"{club.path}/members/{club.owner.id}")
    second = await make("second")
    await club.owner("POST", f"{club.path}/members", {"user_id": second.id, "role": "owner"})
    left = await club.owner("DELETE", f"{club.path}/members/{club.owner.id}")

    assert (refused.status_code, refused.json()["code"], left.status_code) == (409, "last_owner", 204)
    assert await club.members() == {club.member.id: "member", second.id: "owner"}
    assert (await club.owner("GET", club.path)).status_code == 404


async def test_deleting_takes_the_memberships_along(zenith: Zenith, club: Club) -> None:
    """The foreign keys cascade: of a deleted user or organization no membership is left."""
    await club.member("DELETE", f"/users/{club.member.id}")
    assert await club.members() == {club.owner.id: "owner"}

    await club.owner("DELETE", club.path)
    async with zenith.db.begin() as session:
        assert await zenith.services.MembershipService(session).count() == 0


async def test_description(ada: Person) -> None:
    """Null empties what may be empty, and only that; what is not sent stays."""
    created = (await ada("POST", "/organizations", {"name": " Teapots ", "description": "short and stout"})).json()
    path = f"/organizations/{created['id']}"

    renamed = (await ada("PATCH", path, {"name": "Cups"})).json()
    emptied = (await ada("PATCH", path, {"description": None})).json()

    assert (created["name"], renamed["name"]) == ("Teapots", "Cups")
    assert (renamed["description"], emptied["description"]) == ("short and stout", None)
    refused: list[dict[str, object]] = [{"name": None}, {"name": ""}, {"name": "\u200b"}, {"name": "x" * 256}, {"users": []}, {"id": 1}]
    for body in refused:
        assert (await ada("PATCH", path, body)).status_code == 422
