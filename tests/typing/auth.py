"""What the type checkers know of authentication: checked strictly by mypy and pyright, never run."""

from typing import Annotated, Any, assert_type
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import HTTPConnection
from tests.typing.models import User

from fastapi_kit import Database
from fastapi_kit.auth import (
    CurrentUserDependency,
    JWTService,
    PasswordHasher,
    TokenClaims,
    TokenVerifier,
    UserDependency,
    get_claims_factory,
    get_current_user_factory,
    require,
    require_access,
)
from fastapi_kit.auth.logins import Logins, StatelessLogins, TokenPair
from fastapi_kit.auth.users import Account, AuthEndpoint, AuthFlow, UserAccounts, UserProfile, UserRegister, auth_router
from fastapi_kit.testing import login_as


class Change(BaseModel): ...


class Users(UserAccounts[User, UserRegister]): ...


class ChangingUsers(UserAccounts[User, UserRegister, Change]): ...


class Note: ...


db = Database("sqlite://")
tokens = JWTService(secret_key=b"")
logins: Logins = StatelessLogins(tokens)
verifier: TokenVerifier = logins


async def load_user(session: AsyncSession, claims: TokenClaims) -> User | None:
    assert_type(claims.subject(int), int)
    assert_type(claims.subject(UUID), UUID)
    return await Users(session).get(claims.subject(int))


async def load_by_connection(connection: HTTPConnection, claims: TokenClaims) -> User | None:
    return None


async def get_db() -> AsyncSession:
    return AsyncSession()


async def get_note(note_id: int) -> Note:
    return Note()


async def get_application_user() -> User:
    return User()


async def is_nice(user: User) -> bool:
    return user.is_active


get_user = get_current_user_factory(tokens, load_user, session=db.session)
get_optional = get_current_user_factory(logins, load_user, session=get_db, optional=True)
get_claims = get_claims_factory(tokens)
guard = require(get_user, scopes=["a"], roles={"b"}, check=lambda user: user.is_superuser)
nice = require(get_application_user, check=is_nice)
get_own_note = require_access(get_user, get_note, check=lambda user, note: user.id == id(note))

assert_type(get_user, CurrentUserDependency[User])
assert_type(get_user.optional, UserDependency[User | None])
assert_type(get_optional, UserDependency[User | None])
assert_type(guard, UserDependency[User])
assert_type(nice, UserDependency[User])
get_current_user_factory(tokens, load_user, session=db.session, active=lambda user: user.is_active)
get_current_user_factory(tokens, load_by_connection, session=db.session)

CurrentUser = Annotated[User, Depends(get_user)]
router = APIRouter()


@router.get("/")
async def read(user: CurrentUser, note: Annotated[Note, Depends(get_own_note)]) -> int:
    return user.id


async def call() -> None:
    assert_type(await get_user(), User)
    assert_type(await get_optional(), User | None)
    assert_type(await get_user.claims(), TokenClaims)
    assert_type(await get_claims(), TokenClaims)
    assert_type(await get_own_note(), Note)


flow = AuthFlow(accounts=Users, logins=logins, passwords=PasswordHasher())
assert_type(flow, AuthFlow[User, UserRegister])
assert_type(auth_router(flow, session=db.session, current_user=get_user, read=UserProfile, register=UserRegister), APIRouter)
AuthFlow(accounts=ChangingUsers, logins=logins)


async def find(session: AsyncSession, name: str) -> User | None:
    return await Users(session).get_by(email=name)


by_name = AuthFlow(accounts=Users, identify=find)
assert_type(by_name, AuthFlow[User, UserRegister])
auth_router(flow, session=db.session, current_user=get_user, read=UserProfile, endpoints=AuthEndpoint.LOGIN)


async def steps(session: AsyncSession, data: UserRegister) -> None:
    assert_type(await flow.authenticate(session, email="", password=""), User)
    assert_type(await flow.login(session, email="", password="", scopes=["a"]), TokenPair)
    assert_type(await flow.register(session, data, password=data.password), User)
    assert_type(await flow.refresh(session, ""), TokenPair)
    assert_type(await flow.hash_password(data.password, similar_to=[data.email]), str)
    user = await Users(session).get_one(1)
    assert_type(await flow.change(session, user, Change(), confirm=False), User)
    assert_type(user.email, str)
    assert_type(user.hashed_password, str | None)
    assert_type(user.is_superuser, bool)
    assert_type(Users(session).describe(user), Account)
    assert_type(await Users(session).get_account("1"), User | None)
    assert_type(await ChangingUsers(session).update(1, Change()), User)


def in_tests(app: Any, user: User) -> None:
    with login_as(app, get_user, user, scopes=["a"]):
        pass
    with login_as(app, get_optional, None):
        pass
