"""fastapi-users and the library share one ``Database``: its register and login beside ``crud_router``."""

from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import pytest
from fastapi import Depends, FastAPI
from fastapi.exceptions import DependencyScopeError
from httpx import AsyncClient
from pydantic import BaseModel, ConfigDict
from sqlalchemy import ForeignKey, MetaData, String, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_kit.app import create_app
from fastapi_kit.auth import require
from fastapi_kit.crud import CRUDService
from fastapi_kit.db import NAMING_CONVENTION, Database, TimestampMixin, UUIDv7Mixin
from fastapi_kit.routing import crud_router
from fastapi_kit.settings import KitSettings
from fastapi_kit.testing import app_client

# Its adapter for SQLAlchemy needs SQLAlchemy 2.0, so the application has one of its own.
users = pytest.importorskip("fastapi_users")
authentication = pytest.importorskip("fastapi_users.authentication")
database_of_users = pytest.importorskip("fastapi_users.db")

SECRET = "mD3vY7qT1kR9wX5zB8nL2pC6hJ4gF0sA"


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class User(UUIDv7Mixin, Base):
    __tablename__ = "users"
    email: Mapped[str] = mapped_column(String(320), unique=True)
    hashed_password: Mapped[str] = mapped_column(String(1024))
    is_active: Mapped[bool] = mapped_column(default=True)
    is_superuser: Mapped[bool] = mapped_column(default=False)
    is_verified: Mapped[bool] = mapped_column(default=False)


class Note(TimestampMixin, UUIDv7Mixin, Base):
    __tablename__ = "notes"
    title: Mapped[str] = mapped_column(String(50))
    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))


class NoteCreate(BaseModel):
    title: str
    owner_id: UUID


class NoteRead(NoteCreate):
    model_config = ConfigDict(from_attributes=True)
    id: UUID


class NoteService(CRUDService[Note, NoteCreate, NoteCreate]): ...


class UserDatabase(database_of_users.BaseUserDatabase):  # type: ignore[misc, name-defined]
    """What fastapi-users-db-sqlalchemy does."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def get(self, id: UUID) -> User | None:
        return await self.session.get(User, id)

    async def get_by_email(self, email: str) -> User | None:
        return (await self.session.scalars(select(User).where(func.lower(User.email) == email.lower()))).one_or_none()

    async def create(self, create_dict: dict[str, Any]) -> User:
        return await self.update(User(), create_dict)

    async def update(self, user: User, update_dict: dict[str, Any]) -> User:
        for name, value in update_dict.items():
            setattr(user, name, value)
        self.session.add(user)
        await self.session.commit()
        await self.session.refresh(user)
        return user


class UserManager(users.UUIDIDMixin, users.BaseUserManager):  # type: ignore[misc, name-defined]
    reset_password_token_secret = verification_token_secret = SECRET


class UserRead(users.schemas.BaseUser[UUID]): ...  # type: ignore[misc, name-defined]


class UserCreate(users.schemas.BaseUserCreate): ...  # type: ignore[misc, name-defined]


class UserUpdate(users.schemas.BaseUserUpdate): ...  # type: ignore[misc, name-defined]


@pytest.fixture
async def app(database: Database) -> FastAPI:
    await database.create_tables(Base.metadata)

    # return instead of yield: db.session ends before the response, and a dependency with yield would end after it.
    async def get_user_db(session: Annotated[AsyncSession, database.session]) -> UserDatabase:
        return UserDatabase(session)

    async def get_user_manager(user_db: Annotated[UserDatabase, Depends(get_user_db)]) -> UserManager:
        return UserManager(user_db)

    backend = authentication.AuthenticationBackend(
        name="jwt",
        transport=authentication.BearerTransport("auth/login"),
        get_strategy=lambda: authentication.JWTStrategy(SECRET, lifetime_seconds=60),
    )
    parts = users.FastAPIUsers(get_user_manager, [backend])
    get_user = parts.current_user(active=True)
    notes = crud_router(NoteService, read=NoteRead, session=database.session)
    app = create_app(KitSettings(SECRET_KEY=SECRET), database=database)
    app.include_router(parts.get_auth_router(backend), prefix="/auth")
    app.include_router(parts.get_register_router(UserRead, UserCreate), prefix="/auth")
    app.include_router(parts.get_users_router(UserRead, UserUpdate), prefix="/users")
    app.include_router(notes, prefix="/notes", dependencies=[Depends(get_user)])

    @app.get("/sessions")
    async def sessions(user: Annotated[User, Depends(get_user)], session: Annotated[AsyncSession, database.session]) -> bool:
        return user in session

    @app.get("/admin", dependencies=[Depends(require(get_user, superuser=True))])
    async def admin() -> None: ...

    return app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    async with app_client(app, raise_errors=True) as client:
        yield client


async def register(client: AsyncClient, email: str = "ada@example.org") -> str:
    answer = await client.post("/auth/register", json={"email": email, "password": "correct horse"})
    assert answer.status_code == 201, answer.text
    key: str = answer.json()["id"]
    return key


async def log_in(client: AsyncClient, email: str = "ada@example.org") -> None:
    answer = await client.post("/auth/login", data={"username": email, "password": "correct horse"})
    assert answer.status_code == 200, answer.text
    client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"


async def test_a_registered_user_writes(client: AsyncClient) -> None:
    """Who has registered logs in, and uses the generated routes; others get a 401."""
    ada = await register(client)
    note = {"title": "first", "owner_id": ada}
    assert (await client.post("/notes", json=note)).status_code == 401

    await log_in(client)
    created = await client.post("/notes", json=note)

    assert created.status_code == 201
    assert (await client.get(f"/notes/{created.json()['id']}")).json() == created.json()
    assert (await client.patch("/users/me", json={"email": "lovelace@example.org"})).json()["email"] == "lovelace@example.org"


async def test_a_request_has_one_session(client: AsyncClient) -> None:
    """The user that fastapi-users loads is a row of the session that the route gets."""
    await register(client)
    await log_in(client)

    assert (await client.get("/sessions")).json() is True


async def test_guards_take_its_user(client: AsyncClient, database: Database) -> None:
    """``require`` builds on its ``current_user``."""
    ada = await register(client)
    await log_in(client)
    assert (await client.get("/admin")).status_code == 403

    async with database.begin() as session:
        (await session.get_one(User, UUID(ada))).is_superuser = True
    assert (await client.get("/admin")).status_code == 200


async def test_its_errors_have_the_body_of_the_app(client: AsyncClient) -> None:
    """What fastapi-users raises is answered as every other error."""
    await register(client)

    again = await client.post("/auth/register", json={"email": "ADA@example.org", "password": "correct horse"})
    wrong = await client.post("/auth/login", data={"username": "ada@example.org", "password": "wrong"})

    assert [(answer.status_code, answer.json()["detail"]) for answer in (again, wrong)] == [
        (400, "REGISTER_USER_ALREADY_EXISTS"),
        (400, "LOGIN_BAD_CREDENTIALS"),
    ]


async def test_the_error_of_its_documentations_yield(sqlite_database: Database) -> None:
    """With ``yield``, as its documentation writes it, FastAPI rejects the route. The guide quotes the error and shows the cure."""

    async def get_user_db(session: Annotated[AsyncSession, sqlite_database.session]) -> AsyncIterator[UserDatabase]:
        yield UserDatabase(session)

    app = FastAPI()
    with pytest.raises(DependencyScopeError, match='has a scope of "request", it cannot depend on dependencies with scope "function"'):
        app.get("/")(lambda user_db=Depends(get_user_db): None)
