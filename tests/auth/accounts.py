"""Users in a database, and an app with the ready routes over them."""

from collections.abc import Sequence
from datetime import timedelta

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncSession
from tests.auth.people import SECRET
from tests.tables.accounts import User

from fastapi_kit.auth import BearerTransport, JWTService, TokenClaims, get_current_user_factory
from fastapi_kit.auth.logins import LoginInfo, LoginStore, StatelessLogins, StoredLogins
from fastapi_kit.auth.users import (
    AuthEndpoint,
    AuthFlow,
    LoginThrottle,
    MailFlow,
    UserAccounts,
    UserRegister,
    auth_router,
)
from fastapi_kit.db import Database
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.testing import FrozenClock, cheap_hasher

PASSWORD = "correct horse battery"


class Registration(UserRegister):
    full_name: str = ""


class UserRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    email: str
    full_name: str


class UserChange(BaseModel):
    email: str | None = None


class Users(UserAccounts[User, Registration, UserChange]): ...


class Site:
    """An app over *database*, and its parts. With *store* its logins can be ended."""

    def __init__(
        self,
        database: Database,
        *,
        scopes: Sequence[str] = (),
        endpoints: AuthEndpoint = AuthEndpoint.ALL,
        store: LoginStore | None = None,
        check_access: bool = False,
        throttle: LoginThrottle | None = None,
    ) -> None:
        self.database = database
        self.clock = FrozenClock()
        self.tokens = JWTService(secret_key=SECRET, clock=self.clock)
        self.reused: list[LoginInfo] = []
        self.logins = (
            StatelessLogins(self.tokens)
            if store is None
            else StoredLogins(self.tokens, store, grace=timedelta(seconds=10), check_access=check_access, on_reuse=self.reused.append)
        )
        self.flow: AuthFlow[User, Registration] = AuthFlow(
            accounts=Users, logins=self.logins, passwords=cheap_hasher(), scopes=lambda user: scopes, throttle=throttle
        )
        ways = [BearerTransport(token_url="auth/login", scopes=dict.fromkeys(scopes, ""))]
        self.get_user = get_current_user_factory(self.logins, load_user, session=database.session, transports=ways)
        self.app = FastAPI()
        register_exception_handlers(self.app)
        self.app.include_router(self.router(endpoints), prefix="/auth", tags=["auth"])

    def router(self, endpoints: AuthEndpoint = AuthEndpoint.ALL, mail: MailFlow[User, Registration] | None = None) -> APIRouter:
        return auth_router(
            self.flow,
            session=self.database.session,
            current_user=self.get_user,
            read=UserRead,
            register=Registration,
            endpoints=endpoints,
            mail=mail,
        )


async def load_user(session: AsyncSession, claims: TokenClaims) -> User | None:
    return await Users(session).get_account(claims.sub)


async def store_user(database: Database, email: str = "ann@example.com", **values: object) -> User:
    """Store a user with the password PASSWORD, unless *values* has another hash."""
    given = {"email": email, "hashed_password": await cheap_hasher().hash(PASSWORD), **values}
    async with database.begin() as session:
        return await Users(session).create(given)
