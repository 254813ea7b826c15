"""A synchronous application: ``def`` routes and SQLAlchemy's ``Session``. Errors, tokens, passwords and the current user work."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

import pytest
from anyio import from_thread
from fastapi import Depends, FastAPI, HTTPException, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.security import OAuth2PasswordRequestForm
from httpx import AsyncClient
from passlib.context import CryptContext
from pydantic import BaseModel, EmailStr
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.orm import Session, sessionmaker
from tests.tables.accounts import AccountsBase, User
from tests.tables.library import Book, BookCreate, LibraryBase

from fastapi_kit.auth import JWTService, PasswordHasher, TokenClaims, get_current_user_factory, require
from fastapi_kit.db import Database
from fastapi_kit.errors import AuthenticationError, NotFoundError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.testing import app_client

tokens = JWTService(secret_key="mD3vY7qT1kR9wX5zB8nL2pC6hJ4gF0sA")
threads = set[int]()


class Context:
    """Remembers the threads that it works in."""

    fast = CryptContext(schemes=["pbkdf2_sha256"], pbkdf2_sha256__rounds=100)

    def hash(self, secret: str, /) -> str:
        threads.add(threading.get_ident())
        return self.fast.hash(secret)

    def verify_and_update(self, secret: str, hash: str, /) -> tuple[bool, str | None]:
        threads.add(threading.get_ident())
        return self.fast.verify(secret, hash), None


passwords = PasswordHasher(context=Context())


class SignUp(BaseModel):
    email: EmailStr
    password: str


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    """An engine with a synchronous driver, as an application without the library has it."""
    drivers = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
    engine = create_engine(database.engine.url.set(drivername=drivers[database.engine.dialect.name]))
    for metadata in (AccountsBase.metadata, LibraryBase.metadata):
        metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def app(engine: Engine) -> FastAPI:
    sessions = sessionmaker(engine, expire_on_commit=False)

    def get_db() -> Iterator[Session]:
        with sessions() as session:
            yield session

    async def load_user(session: Session, claims: TokenClaims) -> User | None:
        return await run_in_threadpool(session.get, User, claims.subject(int))

    get_current_user = get_current_user_factory(tokens, load_user, session=get_db)
    app = FastAPI()
    register_exception_handlers(app)

    @app.post("/users", status_code=201)
    def sign_up(data: SignUp, session: Annotated[Session, Depends(get_db)]) -> int:
        hashed = from_thread.run(passwords.hash, data.password)
        user = User(email=data.email, hashed_password=hashed)
        session.add(user)
        session.commit()
        return user.id

    @app.post("/login")
    def log_in(form: Annotated[OAuth2PasswordRequestForm, Depends()], session: Annotated[Session, Depends(get_db)]) -> str:
        user = session.scalar(select(User).where(User.email == form.username))
        if not from_thread.run(passwords.verify, form.password, user.hashed_password if user else None) or user is None:
            raise AuthenticationError
        return tokens.create_access_token(str(user.id), scopes=form.scopes)

    @app.get("/me")
    def me(user: Annotated[User, Depends(get_current_user)], session: Annotated[Session, Depends(get_db)]) -> tuple[str, bool]:
        return user.email, user in session

    @app.get("/scoped")
    def scoped(user: Annotated[User, Security(get_current_user, scopes=["notes"])]) -> str:
        return user.email

    @app.get("/admin", dependencies=[Depends(require(get_current_user, superuser=True))])
    def admin() -> None: ...

    @app.post("/books")
    def create_book(data: BookCreate, session: Annotated[Session, Depends(get_db)]) -> int:
        book = Book(**data.model_dump())
        session.add(book)
        session.commit()
        return book.id

    @app.get("/books/{book_id}")
    def get_book(book_id: int, session: Annotated[Session, Depends(get_db)]) -> int:
        book = session.get(Book, book_id)
        if book is None:
            raise NotFoundError(Book, book_id)
        return book.id

    @app.get("/teapot")
    def teapot() -> None:
        raise HTTPException(418, "short and stout")

    return app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    async with app_client(app) as client:
        yield client


async def sign_up(client: AsyncClient, email: str = "ada@example.org") -> None:
    answer = await client.post("/users", json={"email": email, "password": "correct horse"})
    assert answer.status_code == 201, answer.text


async def log_in(client: AsyncClient, **form: str) -> int:
    answer = await client.post("/login", data={"username": "ada@example.org", "password": "correct horse"} | form)
    if answer.status_code == 200:
        client.headers["Authorization"] = f"Bearer {answer.json()}"
    return answer.status_code


async def test_the_current_user(client: AsyncClient) -> None:
    """Password and token lead to the user, loaded over the request's one session."""
    await sign_up(client)
    assert (await client.get("/me")).status_code == 401
    assert await log_in(client, password="wrong") == 401
    assert await log_in(client, username="nobody@example.org") == 401

    assert await log_in(client) == 200

    assert (await client.get("/me")).json() == ["ada@example.org", True]
    assert (await client.get("/scoped")).status_code == 403
    assert (await client.get("/admin")).status_code == 403
    await log_in(client, scope="notes")
    assert (await client.get("/scoped")).json() == "ada@example.org"


async def test_errors_are_answered(client: AsyncClient) -> None:
    """Errors of the library, of FastAPI and of the synchronous driver have the one body, and name the fields."""
    await sign_up(client)

    answers = [
        await client.post("/users", json={"email": "ada@example.org", "password": "correct horse"}),
        await client.post("/books", json={"title": "Notes", "author_id": 7, "pages": 0}),
        await client.post("/users", json={"email": "grace"}),
        await client.get("/books/7"),
        await client.get("/teapot"),
    ]

    assert [answer.status_code for answer in answers] == [409, 422, 422, 404, 418]
    assert [answer.json()["code"] for answer in answers[:2]] == ["conflict", "invalid_data"]
    assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}
    assert [item["loc"] for item in answers[0].json()["errors"]] == [["email"]]


async def test_the_session_goes_on_after_a_rejected_write(client: AsyncClient) -> None:
    """Each request has a session of its own: a rejected write leaves nothing behind."""
    await sign_up(client)
    for _ in range(3):
        assert (await client.post("/users", json={"email": "ada@example.org", "password": "correct horse"})).status_code == 409

    await sign_up(client, "grace@example.org")


async def test_a_missing_reference_is_answered(client: AsyncClient, engine: Engine) -> None:
    """A foreign key is checked by the database; SQLite checks it only if the application has switched that on."""
    if engine.dialect.name == "postgresql":
        answer = await client.post("/books", json={"title": "Notes", "author_id": 7})
        assert (answer.status_code, answer.json()["code"]) == (422, "unknown_reference")


@pytest.mark.only_full
async def test_many_sign_up_at_once(client: AsyncClient) -> None:
    """More passwords than there are threads for hashing are hashed one after the other, and none waits forever."""
    threads.clear()
    await asyncio.gather(*(sign_up(client, f"user{number}@example.org") for number in range(50)))

    assert threads
    assert threading.get_ident() not in threads
