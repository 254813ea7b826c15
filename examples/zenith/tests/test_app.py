"""The whole application: its OpenAPI document, hostile input, logs, work after the commit, many logins at once."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from httpx import AsyncClient
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.orm import selectinload

from fastapi_kit.testing import app_client

from .conftest import PASSWORD, ImportZenith, Person, Zenith, parts_of

REGISTRATION = {"email": "eve@example.org", "full_name": "Eve", "password": PASSWORD}
LINKS = ("password/forgot", "password/reset", "email/verification", "email/confirm")
OPEN = {f"/api/v1/auth/{path}" for path in ("login", "register", "refresh", *LINKS)}
WITHOUT_INPUT = {f"/api/v1/auth/{path}" for path in ("me", "logout", "logout/everywhere", "logins")}


@pytest.fixture
def mails(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The log lines of the mailer so far."""
    caplog.set_level(logging.INFO, logger="zenith.mail")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "zenith.mail"]


@asynccontextmanager
async def on_its_own(package: Any) -> AsyncGenerator[tuple[Zenith, AsyncClient]]:
    """Start the application without isolation: its commits are real."""
    parts = parts_of(package)
    async with app_client(parts.app) as client:
        yield parts, client


# --- The document ---


async def test_document(client: AsyncClient) -> None:
    """The document shows the security, the errors and a unique id of every operation."""
    document = (await client.get("/api/v1/openapi.json")).json()
    operations = {(path, method): each for path, item in document["paths"].items() for method, each in item.items()}
    ids = [each["operationId"] for each in operations.values()]

    assert len(ids) == len(set(ids)) == 31
    for (path, method), operation in operations.items():
        needed = {"503"} if path in OPEN else {"401", "503"}
        needed |= {"403"} if not path.startswith("/api/v1/auth") else set()
        needed |= {"422"} if path not in WITHOUT_INPUT else set()
        needed |= {"404"} if "{" in path else set()
        assert needed <= operation["responses"].keys(), (method, path)
        assert ("security" in operation) == (path not in OPEN), (method, path)


async def test_authorize_works(client: AsyncClient) -> None:
    """R29: the Authorize button of the docs uses the login route."""
    document = (await client.get("/api/v1/openapi.json")).json()

    (scheme,) = document["components"]["securitySchemes"].values()
    assert scheme["flows"]["password"]["tokenUrl"] == "api/v1/auth/login"
    assert (await client.get("/docs")).status_code == 200


async def test_health(client: AsyncClient) -> None:
    """The health check also checks the database."""
    assert (await client.get("/health")).json() == {"status": "healthy", "version": "1.0.0", "checks": {"database": "ok", "cache": "ok"}}


# --- Hostile input ---

TEXTS = [
    r'"\u0000"',
    r'"\ud800"',
    '"' + "x" * 100_000 + '"',
    "1e400",
    "NaN",
    "-1",
    str(10**400),
    "null",
    "true",
    "{}",
    "[" * 1000,
    '"\xff"',
]


@pytest.mark.thorough
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
@pytest.mark.parametrize(
    ("method", "path", "field"),
    [
        ("POST", "/auth/register", "full_name"),
        ("POST", "/auth/register", "email"),
        ("POST", "/auth/register", "password"),
        ("POST", "/auth/refresh", "refresh_token"),
        ("PATCH", "/users/{id}", "email"),
        ("PATCH", "/users/{id}", "current_password"),
        ("PATCH", "/users/{id}/privileges", "is_active"),
        ("POST", "/organizations", "name"),
        ("POST", "/organizations/{organization}/members", "user_id"),
        ("PATCH", "/organizations/{organization}/members/{id}", "role"),
    ],
)
async def test_hostile_values(root: Person, method: str, path: str, field: str, text: str) -> None:
    """Any value in a body is accepted or rejected, and never a server error."""
    organization = (await root("POST", "/organizations", {"name": "Teapots"})).json()["id"]
    others = {**REGISTRATION, "current_password": PASSWORD} if field in {"full_name", "password"} else {}
    body = "".join(f'"{name}": "{value}", ' for name, value in others.items() if name != field)

    answer = await root.client.request(
        method,
        f"/api/v1{path.format(id=root.id, organization=organization)}",
        content=f'{{{body}"{field}": {text}}}'.encode("latin-1"),
        headers={**root.headers, "Content-Type": "application/json"},
    )

    assert answer.status_code < 500


@pytest.mark.thorough
@pytest.mark.parametrize("key", ["0", "-1", str(2**31), str(2**63), str(10**100), "%00", "%ED%A0%80", "%FF", "1.5", "x", "١"])
@pytest.mark.parametrize(
    "path", ["/users/{}", "/users/{}/privileges", "/organizations/{}", "/organizations/{}/members", "/organizations/1/members/{}"]
)
async def test_hostile_keys(root: Person, path: str, key: str) -> None:
    """An unknown or impossible key is a 404, 405 or 422 for every method."""
    for method in ("GET", "PATCH", "DELETE", "POST"):
        answer = await root(method, path.format(key), {} if method in {"PATCH", "POST"} else None)
        assert answer.status_code in {404, 405, 422}


@pytest.mark.parametrize("username", ["\0", "x" * 100_000, "٠@١", "a@b@c"])
@pytest.mark.parametrize("password", ["\0", "x" * 100_000, "é" * 40])
async def test_hostile_logins(client: AsyncClient, username: str, password: str) -> None:
    """R35: hostile logins are rejected, and are never a server error."""
    answer = await client.post("/api/v1/auth/login", data={"username": username, "password": password})

    assert answer.status_code in {401, 413, 422}


# --- What is logged ---


async def test_audit(client: AsyncClient, ada: Person, caplog: pytest.LogCaptureFixture) -> None:
    """Each request that may change something is logged with user, method, route and status. A bad token counts as anonymous."""
    caplog.set_level(logging.INFO, logger="zenith.audit")

    await ada("GET", "/auth/me")
    await ada("PATCH", f"/users/{ada.id}", {"full_name": "Ada L."})
    await client.post("/api/v1/auth/register", json=REGISTRATION, headers={"Authorization": "Bearer nonsense"})
    await client.delete("/api/v1/organizations/7/members/8")
    await client.post("/nowhere/secret")

    assert [record.getMessage() for record in caplog.records if record.name == "zenith.audit"] == [
        f"{ada.id} PATCH /api/v1/users/{{id}} 200",
        "anonymous POST /api/v1/auth/register 201",
        "anonymous DELETE /api/v1/organizations/{organization_id}/members/{user_id} 401",
        "anonymous POST - 404",
    ]


async def test_audit_of_an_impersonation(ada: Person, root: Person, caplog: pytest.LogCaptureFixture) -> None:
    """R50: the log shows who acts as whom, from the start on."""
    caplog.set_level(logging.INFO)

    token = (await root("POST", f"/users/{ada.id}/impersonate")).json()["access_token"]
    await root.client.post("/api/v1/organizations", json={"name": "Teapots"}, headers={"Authorization": f"Bearer {token}"})

    lines = [record.getMessage() for record in caplog.records if record.name in {"zenith.audit", "fastapi_kit.auth.users.impersonation"}]
    assert lines[0].startswith(f"User {root.id} acts as user {ada.id} until ")
    assert lines[1:] == [
        f"{root.id} POST /api/v1/users/{{id}}/impersonate 200",
        f"{root.id} as {ada.id} POST /api/v1/organizations 201",
    ]


async def test_nothing_secret_is_logged(client: AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    """R28: no log record shows a password, token, hash or address."""
    caplog.set_level(logging.INFO)
    await client.post("/api/v1/auth/register", json=REGISTRATION)
    tokens = (await client.post("/api/v1/auth/login", data={"username": "eve@example.org", "password": PASSWORD})).json()
    await client.post("/api/v1/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
    await client.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {tokens['access_token']}x"})

    assert len(caplog.records) >= 4
    for secret in (PASSWORD, "eve@example.org", "$2b$", tokens["access_token"], tokens["refresh_token"]):
        assert secret not in caplog.text


# --- After the commit ---


async def test_welcome(client: AsyncClient, mails: Callable[[], list[str]]) -> None:
    """A new user gets one mail, and a rejected registration sends none. The log does not show the address."""
    created = await client.post("/api/v1/auth/register", json=REGISTRATION)
    taken = await client.post("/api/v1/auth/register", json=REGISTRATION)

    assert (created.status_code, taken.status_code) == (201, 409)
    assert mails() == [f"Verification mail for user {created.json()['id']}"]


async def test_the_answer_does_not_wait_for_the_mail(client: AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    """The mail is sent after the response."""
    caplog.set_level(logging.INFO)

    await client.post("/api/v1/auth/register", json=REGISTRATION)

    loggers = [record.name for record in caplog.records]
    assert loggers.index("fastapi_kit.access") < loggers.index("zenith.mail")


async def test_no_welcome_without_a_commit(database_url: str, import_zenith: ImportZenith, mails: Callable[[], list[str]]) -> None:
    """If the COMMIT fails, no mail is sent."""

    def fail(_connection: object) -> None:
        raise DBAPIError("COMMIT", None, ConnectionResetError(), connection_invalidated=True)

    async with on_its_own(import_zenith(database_url)) as (zenith, client):
        event.listen(zenith.db.engine.sync_engine, "commit", fail)
        failed = await client.post("/api/v1/auth/register", json=REGISTRATION)
        event.remove(zenith.db.engine.sync_engine, "commit", fail)
        before = mails()
        again = await client.post("/api/v1/auth/register", json=REGISTRATION)

    assert (failed.status_code, failed.headers["content-type"], before) == (503, "application/problem+json", [])
    assert (again.status_code, len(mails())) == (201, 1)


# --- Many at once ---


@pytest.mark.only_full
async def test_twenty_logins_and_a_pool_of_one(database_url: str, import_zenith: ImportZenith, monkeypatch: pytest.MonkeyPatch) -> None:
    """R31: twenty logins that hash passwords hold no connection: with a pool of one, the database still answers."""
    package = import_zenith(database_url, DB_POOL_SIZE="1", DB_MAX_OVERFLOW="0")
    async with on_its_own(package) as (zenith, client):
        hasher = zenith.security.passwords
        verify, waiting, open_the_gate = hasher.verify_and_update, asyncio.Semaphore(0), asyncio.Event()

        async def verify_later(password: str, hashed: str | None) -> object:
            waiting.release()
            await open_the_gate.wait()
            return await verify(password, hashed)

        for number in range(2):
            await client.post("/api/v1/auth/register", json={**REGISTRATION, "email": f"eve{number}@example.org"})
        monkeypatch.setattr(hasher, "verify_and_update", verify_later)
        forms = [{"username": f"eve{number % 2}@example.org", "password": PASSWORD} for number in range(20)]
        logins = [asyncio.create_task(client.post("/api/v1/auth/login", data=form)) for form in forms]
        for _ in logins:
            await waiting.acquire()
        await zenith.db.ping()
        health = await client.get("/health")
        open_the_gate.set()
        answers = await asyncio.gather(*logins)

    assert (health.status_code, health.json()["checks"]) == (200, {"database": "ok", "cache": "ok"})
    assert [answer.status_code for answer in answers] == 20 * [200]


@pytest.mark.only_full
@pytest.mark.parametrize("spelling", ["eve@example.org", "EVE@example.org"])
async def test_one_of_twenty(database_url: str, import_zenith: ImportZenith, spelling: str) -> None:
    """Of twenty registrations of one address at once, one succeeds and the others are 409, as far as the limit of its mails lets them."""
    async with on_its_own(import_zenith(database_url)) as (zenith, client):
        zenith.services.mail.throttle = None
        bodies = [{**REGISTRATION, "email": spelling if number % 2 else "eve@example.org"} for number in range(20)]
        answers = await asyncio.gather(*(client.post("/api/v1/auth/register", json=body) for body in bodies))

    assert sorted(answer.status_code for answer in answers) == [201, *19 * [409]]


@pytest.mark.only_full
@pytest.mark.parametrize(("method", "body"), [("DELETE", None), ("PATCH", {"role": "member"})])
async def test_two_last_owners(database_url: str, import_zenith: ImportZenith, method: str, body: object) -> None:
    """If two owners leave at once, or give up their role, one of them has to stay."""
    async with on_its_own(import_zenith(database_url)) as (zenith, client):
        people: list[tuple[int, Mapping[str, str]]] = []
        for name in ("ada", "bob"):
            user = (await client.post("/api/v1/auth/register", json={**REGISTRATION, "email": f"{name}@example.org"})).json()
            people.append((user["id"], {"Authorization": f"Bearer {zenith.security.create_access_token(user['id'])}"}))
        founded = await client.post("/api/v1/organizations", json={"name": "Teapots"}, headers=people[0][1])
        members = f"{founded.headers['location']}/members"
        await client.post(members, json={"user_id": people[1][0], "role": "owner"}, headers=people[0][1])

        answers = await asyncio.gather(
            *(client.request(method, f"{members}/{ident}", json=body, headers=headers) for ident, headers in people)
        )

    assert sorted(answer.status_code for answer in answers) == [204 if method == "DELETE" else 200, 409]


async def test_five_changes_by_one_password(database_url: str, import_zenith: ImportZenith) -> None:
    """R36: of five password changes at once, one succeeds. For the others the current password has changed."""
    async with on_its_own(import_zenith(database_url)) as (zenith, client):
        user = (await client.post("/api/v1/auth/register", json=REGISTRATION)).json()
        headers = {"Authorization": f"Bearer {zenith.security.create_access_token(user['id'])}"}
        bodies = [{"password": f"a wholly new kettle {number}", "current_password": PASSWORD} for number in range(5)]
        answers = await asyncio.gather(*(client.patch(f"/api/v1/users/{user['id']}", json=body, headers=headers) for body in bodies))
        stored = [answer.status_code for answer in answers].index(200)
        form = {"username": REGISTRATION["email"], "password": bodies[stored]["password"]}
        login = await client.post("/api/v1/auth/login", data=form)

    assert sorted(answer.status_code for answer in answers) == [200, *4 * [422]]
    assert login.status_code == 200


# --- The tutorial's names ---


async def test_the_tutorials_names(zenith: Zenith) -> None:
    """The function names of the tutorial's utils/security.py still work."""
    hashed = await zenith.security.get_password_hash(PASSWORD)
    claims = zenith.security.decode_access_token(zenith.security.create_access_token(7))

    assert await zenith.security.verify_password(PASSWORD, hashed)
    assert not await zenith.security.verify_password("wrong teapot", hashed)
    assert (claims.sub, claims.type) == ("7", "access")


async def test_relationships_are_never_loaded_lazily(zenith: Zenith, ada: Person) -> None:
    """Relationships are loaded where a query asks for them, and raise an error elsewhere."""
    await ada("POST", "/organizations", {"name": "Teapots"})
    models, service = zenith.models, zenith.services.UserService
    async with zenith.db.begin() as session:
        plain = await service(session).get_one(ada.id)
        with pytest.raises(InvalidRequestError, match="lazy='raise'"):
            plain.organizations  # noqa: B018
        loaded = await service(session).get_one(
            ada.id, options=[selectinload(models.User.organizations).selectinload(models.Organization.users)]
        )
        assert [organization.name for organization in loaded.organizations] == ["Teapots"]
        assert loaded.organizations[0].users == [loaded]
