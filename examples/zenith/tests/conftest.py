"""The application on two databases, a client whose writes are rolled back, and users who send requests."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, TypeAlias

import pytest
from httpx import AsyncClient, Response
from sqlalchemy import text

from fastapi_kit.testing import app_client, isolated
from fastapi_kit.testing.auth import bearer

APP = "examples.zenith"
PASSWORD = "enchanted teapot"
SECRET_KEY = "f3c1d0a85e7b46928c04d7b1ea9536f2"
ENVIRONMENT = {"ENVIRONMENT": "test", "PASSWORD_HASH_ROUNDS": "4", "SECRET_KEY": SECRET_KEY}

ImportZenith: TypeAlias = Callable[..., ModuleType]


@dataclass(frozen=True)
class Person:
    """A user. Calling a person sends a request below /api/v1 with the token of that user."""

    id: int
    email: str
    headers: Mapping[str, str]
    client: AsyncClient

    async def __call__(self, method: str, path: str, json: object = None, **options: Any) -> Response:
        return await self.client.request(method, f"/api/v1{path}", json=json, headers=self.headers, **options)


def headers_of(person: Person | None) -> Mapping[str, str]:
    return person.headers if person else {}


MakePerson: TypeAlias = Callable[..., Awaitable[Person]]


def leave_logging_alone(**_: object) -> None:
    """Do nothing: pytest has configured logging already."""


def forget_zenith() -> None:
    for name in [name for name in sys.modules if name.startswith(f"{APP}.") and not name.startswith(f"{APP}.tests")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def import_zenith(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImportZenith]:
    """Import the application again. It reads its settings at import, so each database needs its own import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("zenith"))
        patch.setattr("fastapi_kit.logs.configure_logging", leave_logging_alone)

        def fresh(database_url: str, **environment: str) -> ModuleType:
            forget_zenith()
            with pytest.MonkeyPatch.context() as only_now:
                for name, value in {**ENVIRONMENT, "DATABASE_URL": database_url, **environment}.items():
                    only_now.setenv(name, value)
                import_module(f"{APP}.main")
                import_module(f"{APP}.utils.security")
            return sys.modules[APP]

        yield fresh
        forget_zenith()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def imported(request: pytest.FixtureRequest, import_zenith: ImportZenith) -> ModuleType:
    return import_zenith("sqlite+aiosqlite:///test.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url"))


@dataclass(frozen=True)
class Zenith:
    """The parts of the application that the tests use."""

    app: Any
    db: Any
    models: Any
    services: Any
    dependencies: Any
    security: Any


def parts_of(package: ModuleType) -> Zenith:
    return Zenith(
        app=package.main.app,
        db=package.database.db,
        models=package.models,
        services=package.services,
        dependencies=package.dependencies,
        security=package.utils.security,
    )


@pytest.fixture(scope="module")
async def zenith(imported: ModuleType) -> AsyncIterator[Zenith]:
    """The application with empty tables."""
    parts, init_db = parts_of(imported), imported.database.init_db
    if parts.db.engine.dialect.name == "postgresql":
        async with parts.db.engine.begin() as connection:
            for statement in ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public"):
                await connection.execute(text(statement))
    await init_db()
    yield parts
    await parts.db.dispose()


@pytest.fixture
async def client(zenith: Zenith) -> AsyncIterator[AsyncClient]:
    """A client of the started application. What a test writes is rolled back, and its logins are not counted."""
    zenith.services.attempts.clear()
    async with isolated(zenith.db), app_client(zenith.app, raise_errors=True) as client:
        yield client


def make_in(zenith: Zenith, client: AsyncClient) -> MakePerson:
    """Return what creates a user who is logged in."""

    async def make_person(name: str, **columns: object) -> Person:
        email = f"{name}@example.org"
        async with zenith.db.begin() as session:
            hashed_password = await zenith.security.get_password_hash(PASSWORD)
            values = {"email": email, "full_name": name.title(), "hashed_password": hashed_password, **columns}
            user = await zenith.services.UserService(session).create(values)
        return Person(user.id, email, bearer(zenith.security.tokens, str(user.id)), client)

    return make_person


@pytest.fixture
def make(zenith: Zenith, client: AsyncClient) -> MakePerson:
    """Create a user who is logged in."""
    return make_in(zenith, client)


@pytest.fixture
async def ada(make: MakePerson) -> Person:
    return await make("ada")


@pytest.fixture
async def bob(make: MakePerson) -> Person:
    return await make("bob")


@pytest.fixture
async def root(make: MakePerson) -> Person:
    return await make("root", is_superuser=True)
