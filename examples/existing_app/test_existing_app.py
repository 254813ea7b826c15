"""One test suite for the application before and after, then what the application gained."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from examples.existing_app.after.database import Base, get_db
from examples.existing_app.after.models import User
from examples.existing_app.after.schemas import UserCreate
from examples.existing_app.after.security import verify_password
from examples.existing_app.after.services import UserService
from fastapi import Depends, FastAPI, HTTPException
from httpx import AsyncClient
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.testing.client import app_client

HERE = Path(__file__).parent
PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Variant:
    """The application before or after, and how its sessions are created."""

    package: str
    expire_on_commit: bool = False
    begin: bool = False


VARIANTS = {
    "before": Variant("before"),
    "after": Variant("after"),
    "after, expire_on_commit": Variant("after", expire_on_commit=True),
    "after, sessions.begin": Variant("after", begin=True),
}


@asynccontextmanager
async def served(variant: Variant, engine: AsyncEngine) -> AsyncGenerator[AsyncClient]:
    """Start the application of *variant* on *engine*."""
    main = import_module(f"examples.existing_app.{variant.package}.main")
    database = import_module(f"examples.existing_app.{variant.package}.database")
    sessions = async_sessionmaker(engine, expire_on_commit=variant.expire_on_commit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "engine", engine)
        patch.setattr(database, "AsyncSessionLocal", sessions)
        if variant.begin:
            patch.setitem(main.app.dependency_overrides, database.get_db, beginning(sessions))
        async with app_client(main.app) as client:
            yield client


def beginning(sessions: async_sessionmaker[AsyncSession]) -> Callable[[], AsyncIterator[AsyncSession]]:
    """Return a ``get_db`` that opens one transaction for the whole request."""

    async def get_db() -> AsyncIterator[AsyncSession]:
        async with sessions.begin() as session:
            yield session

    return get_db


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("before", "after"):
        monkeypatch.setattr(f"examples.existing_app.{package}.security.ITERATIONS", 10)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """The application's engine, as SQLAlchemy creates it."""
    engine = create_async_engine(database_url)
    yield engine
    await engine.dispose()


@pytest.fixture(params=VARIANTS)
async def client(request: pytest.FixtureRequest, engine: AsyncEngine) -> AsyncIterator[AsyncClient]:
    """A client of each variant."""
    async with served(VARIANTS[request.param], engine) as client:
        yield client


@pytest.fixture
async def before(engine: AsyncEngine) -> AsyncIterator[AsyncClient]:
    async with served(VARIANTS["before"], engine) as client:
        yield client


@pytest.fixture
async def after(engine: AsyncEngine) -> AsyncIterator[AsyncClient]:
    async with served(VARIANTS["after"], engine) as client:
        yield client


def new_user(name: str) -> dict[str, Any]:
    return {"email": f"{name}@example.org", "full_name": name.title(), "password": f"password of {name}"}


async def create(client: AsyncClient, name: str) -> dict[str, Any]:
    response = await client.post("/users/", json=new_user(name))
    assert response.status_code == 201
    user: dict[str, Any] = response.json()
    return user


async def stored(engine: AsyncEngine) -> list[tuple[str, str]]:
    """Return the addresses and hashes that another connection sees."""
    async with engine.connect() as connection:
        rows = await connection.execute(select(User.email, User.hashed_password).order_by(User.id))
        return [(row.email, row.hashed_password) for row in rows]


# --- What the application does, before and after ---


async def test_create(client: AsyncClient) -> None:
    """A new user is returned, without the password and its hash."""
    user = await create(client, "ada")

    assert user == {"id": user["id"], "email": "ada@example.org", "full_name": "Ada", "is_active": True}


async def test_the_password_is_stored_hashed(client: AsyncClient, engine: AsyncEngine) -> None:
    """The user is committed with a hash, and only that password matches it."""
    await create(client, "ada")

    [(email, hashed_password)] = await stored(engine)

    assert email == "ada@example.org"
    assert "password of ada" not in hashed_password
    assert await verify_password("password of ada", hashed_password)
    assert not await verify_password("password of bob", hashed_password)


async def test_get(client: AsyncClient) -> None:
    """A user can be read by key and by address."""
    user = await create(client, "ada")

    assert (await client.get(f"/users/{user['id']}")).json() == user
    assert (await client.get("/users/by-email/ada@example.org")).json() == user


@pytest.mark.parametrize(("method", "path"), [("GET", "/users/99"), ("PATCH", "/users/99"), ("GET", "/users/by-email/unknown@example.org")])
async def test_unknown_user(client: AsyncClient, method: str, path: str) -> None:
    """An unknown user is a 404 with a text."""
    response = await client.request(method, path, json={} if method == "PATCH" else None)

    assert response.status_code == 404
    assert isinstance(response.json()["detail"], str)


async def test_list(client: AsyncClient) -> None:
    """A list contains all users, or the part that was asked for."""
    users = [await create(client, name) for name in ("ada", "bob", "cyd")]

    assert (await client.get("/users/")).json() == users
    assert (await client.get("/users/", params={"skip": 1, "limit": 1})).json() == [users[1]]


@pytest.mark.parametrize("params", [{"skip": -1}, {"limit": 0}, {"limit": 1001}])
async def test_list_out_of_bounds(client: AsyncClient, params: dict[str, int]) -> None:
    """Values of skip and limit out of range are a 422."""
    assert (await client.get("/users/", params=params)).status_code == 422


async def test_update(client: AsyncClient) -> None:
    """A change sets the fields that were sent; it is returned and stored."""
    user = await create(client, "ada")

    response = await client.patch(f"/users/{user['id']}", json={"full_name": "Ada Lovelace", "is_active": False})

    assert response.status_code == 200
    assert response.json() == {**user, "full_name": "Ada Lovelace", "is_active": False}
    assert (await client.get(f"/users/{user['id']}")).json() == response.json()


async def test_update_of_nothing(client: AsyncClient) -> None:
    """An empty PATCH changes nothing."""
    user = await create(client, "ada")

    response = await client.patch(f"/users/{user['id']}", json={})

    assert (response.status_code, response.json()) == (200, user)


async def test_update_of_the_password(client: AsyncClient, engine: AsyncEngine) -> None:
    """A new password is stored as a hash too."""
    user = await create(client, "ada")

    response = await client.patch(f"/users/{user['id']}", json={"password": "correct horse"})

    [(_, hashed_password)] = await stored(engine)
    assert (response.status_code, response.json()) == (200, user)
    assert await verify_password("correct horse", hashed_password)


# --- What it gained ---


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "fields"),
    [
        pytest.param("POST", "/users/", new_user("ada"), 409, ["email"], id="create with a taken address"),
        pytest.param("PATCH", "/users/2", {"email": "ada@example.org"}, 409, ["email"], id="change to a taken address"),
        pytest.param("PATCH", "/users/2", {"email": None}, 422, ["email"], id="change to no address"),
        pytest.param("PATCH", "/users/2", {"password": None}, 422, ["hashed_password"], id="change to no password"),
        pytest.param("GET", f"/users/{10**20}", None, 404, [], id="a key beyond 64 bits"),
    ],
)
async def test_what_was_a_500(
    before: AsyncClient, after: AsyncClient, method: str, path: str, body: object, status: int, fields: list[str]
) -> None:
    """What was an internal error before is now an answer that names the field. The stored users do not change."""
    users = [await create(after, name) for name in ("ada", "bob")]

    old = await before.request(method, path, json=body)
    new = await after.request(method, path, json=body)

    assert (old.status_code, new.status_code) == (500, status)
    assert new.headers["content-type"] == PROBLEM
    assert [error["loc"] for error in new.json().get("errors", [])] == [[field] for field in fields]
    assert (await after.get("/users/")).json() == users


AFTER = pytest.mark.parametrize("name", [name for name, variant in VARIANTS.items() if variant.package == "after"])


@AFTER
async def test_a_rejected_write_on_any_session(engine: AsyncEngine, name: str) -> None:
    """A taken address is a 409 on any kind of session, and the other users are stored."""
    async with served(VARIANTS[name], engine) as client:
        await create(client, "ada")
        response = await client.post("/users/", json=new_user("ada"))
        await create(client, "bob")

    assert response.status_code == 409
    assert [email for email, _ in await stored(engine)] == ["ada@example.org", "bob@example.org"]


@AFTER
async def test_one_of_eight_at_once(engine: AsyncEngine, name: str) -> None:
    """Of eight requests for one address at once, one succeeds and the others are 409."""
    async with served(VARIANTS[name], engine) as client:
        responses = await asyncio.gather(*(client.post("/users/", json=new_user("ada")) for _ in range(8)))

    assert sorted(response.status_code for response in responses) == [201, *7 * [409]]
    assert len(await stored(engine)) == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("GET", "/users/99", 404, "There is nothing here."),
        ("GET", "/users/by-email/unknown@example.org", 404, "User not found"),
        ("GET", "/nowhere", 404, "Not Found"),
        ("DELETE", "/users/", 405, "Method Not Allowed"),
        ("GET", "/users/many", 422, "The request is not valid."),
    ],
)
async def test_every_error_has_one_body(after: AsyncClient, method: str, path: str, status: int, detail: str) -> None:
    """The library's errors, the application's HTTPException and the framework's errors have the same body."""
    response = await after.request(method, path)

    assert response.status_code == status
    assert response.headers["content-type"] == PROBLEM
    assert {"type": "about:blank", "status": status, "detail": detail}.items() <= response.json().items()


async def test_a_rejected_password_is_not_echoed(before: AsyncClient, after: AsyncClient) -> None:
    """A 422 names the field and does not repeat its value, as FastAPI's does."""
    body = {**new_user("ada"), "password": "hunter2"}

    old, new = [await client.post("/users/", json=body) for client in (before, after)]

    assert (old.status_code, new.status_code) == (422, 422)
    assert ("hunter2" in old.text, "hunter2" in new.text) == (True, False)
    assert [error["loc"] for error in new.json()["errors"]] == [["body", "password"]]


async def test_a_forgotten_field_does_not_echo_the_body(before: AsyncClient, after: AsyncClient) -> None:
    """A 422 for a missing field does not repeat the body, as FastAPI's does, with the password."""
    body = {"email": "ada@example.org", "password": "correct horse"}

    old, new = [await client.post("/users/", json=body) for client in (before, after)]

    assert ("correct horse" in old.text, "correct horse" in new.text) == (True, False)
    assert [error["loc"] for error in new.json()["errors"]] == [["body", "full_name"]]


@pytest.mark.parametrize(("begin", "kept"), [(False, 1), (True, 0)], ids=["the write", "sessions.begin"])
@pytest.mark.parametrize("expire_on_commit", [False, True])
async def test_who_began_ends(engine: AsyncEngine, begin: bool, kept: int, expire_on_commit: bool) -> None:
    """A write that commits itself stays if the handler fails later; the application's own transaction is rolled back."""
    sessions = async_sessionmaker(engine, expire_on_commit=expire_on_commit)
    app = FastAPI()
    register_exception_handlers(app)

    @app.post("/")
    async def create_and_fail(user_in: UserCreate, db: AsyncSession = Depends(get_db)) -> None:
        user = await UserService(db).create(user_in)
        raise HTTPException(status_code=402, detail=f"{user.full_name} has not paid")

    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    app.dependency_overrides[get_db] = beginning(sessions) if begin else sessions_alone(sessions)
    async with app_client(app) as client:
        response = await client.post("/", json=new_user("ada"))

    assert (response.status_code, response.json()["detail"]) == (402, "Ada has not paid")
    assert len(await stored(engine)) == kept


def sessions_alone(sessions: async_sessionmaker[AsyncSession]) -> Callable[[], AsyncIterator[AsyncSession]]:
    """Return the ``get_db`` of the application: a session without a commit."""

    async def get_db() -> AsyncIterator[AsyncSession]:
        async with sessions() as session:
            yield session

    return get_db


# --- What it cost ---


def sizes(package: str) -> dict[str, int]:
    """Return the number of lines that are not blank, by file."""
    return {path.name: sum(map(bool, path.read_text().split("\n"))) for path in sorted((HERE / package).glob("*.py"))}


def test_the_app_is_shorter() -> None:
    """The files are the same and most are unchanged. The README shows the right numbers."""
    before, after = sizes("before"), sizes("after")
    same = [name for name in before if (HERE / "before" / name).read_text() == (HERE / "after" / name).read_text()]
    changed = before.keys() - {*same}
    readme = (HERE / "README.md").read_text()

    assert before.keys() == after.keys()
    assert same == ["database.py", "models.py", "schemas.py", "security.py"]
    assert changed == {"main.py", "routers.py", "services.py"}
    assert all(f"| `{name}` | {before[name]} | {after[name]} |" in readme for name in changed)


def test_the_app_before_does_not_use_the_library() -> None:
    """The application before is plain FastAPI and SQLAlchemy."""
    assert not any("fastapi_kit" in path.read_text() for path in (HERE / "before").glob("*.py"))
