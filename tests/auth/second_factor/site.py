"""An app whose users can have a second factor."""

import asyncio
from collections.abc import Sequence
from typing import Any

from cryptography.fernet import Fernet
from fastapi import FastAPI
from httpx import AsyncClient, Response
from sqlalchemy.ext.asyncio import AsyncSession
from tests.auth.accounts import PASSWORD
from tests.auth.people import SECRET
from tests.tables.accounts import FactorUser, Login

from fastapi_kit.auth import JWTService, TokenClaims, get_current_user_factory
from fastapi_kit.auth.logins import StoredLogins
from fastapi_kit.auth.logins.sql import SQLLoginStore
from fastapi_kit.auth.second_factor import TOTP, FactorState, SecondFactor
from fastapi_kit.auth.second_factor.sql import SQLFactorStore, TOTPMixin
from fastapi_kit.auth.second_factor.totp import hotp, read_secret
from fastapi_kit.auth.users import AuthEndpoint, AuthFlow, UserAccounts, UserProfile, UserRegister, auth_router
from fastapi_kit.db import Database
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.testing import FrozenClock, cheap_hasher

EMAIL = "ann@example.com"


class Users(UserAccounts[FactorUser, UserRegister]): ...


class Site:
    """An app over *database*, and its parts."""

    def __init__(self, database: Database, *, scopes: Sequence[str] = ("notes:read", "notes:write"), **options: Any) -> None:
        self.database = database
        self.clock = FrozenClock()
        self.tokens = JWTService(secret_key=SECRET, clock=self.clock)
        self.logins = StoredLogins(self.tokens, SQLLoginStore(database.sessions, Login))
        self.cipher = Fernet(Fernet.generate_key())
        self.scopes = scopes
        self.factor: SecondFactor[FactorUser] = SecondFactor(
            self.tokens, TOTP(issuer="Zenith", clock=self.clock), SQLFactorStore(), **{"cipher": self.cipher, **options}
        )
        self.flow: AuthFlow[FactorUser, UserRegister] = AuthFlow(
            accounts=Users, logins=self.logins, passwords=cheap_hasher(), scopes=lambda user: self.scopes, second_factor=self.factor
        )
        self.get_user = get_current_user_factory(self.logins, load_user, session=database.session)
        self.app = FastAPI()
        register_exception_handlers(self.app)
        self.add_routes(self.app, self.flow)

    def add_routes(self, app: FastAPI, flow: AuthFlow[FactorUser, UserRegister]) -> None:
        endpoints = (AuthEndpoint.ALL & ~AuthEndpoint.REGISTER) | AuthEndpoint.SECOND_FACTOR
        router = auth_router(flow, session=self.database.session, current_user=self.get_user, read=UserProfile, endpoints=endpoints)
        app.include_router(router, prefix="/auth")

    def code(self, secret: str, *, later: int = 0) -> str:
        """Return what the app with *secret* shows, *later* steps from now."""
        key = read_secret(secret)
        assert key is not None
        return hotp(key, int(self.clock().timestamp()) // 30 + later)


async def load_user(session: AsyncSession, claims: TokenClaims) -> FactorUser | None:
    return await Users(session).get_account(claims.sub)


async def store_user(database: Database, email: str = EMAIL, **values: Any) -> FactorUser:
    given = {"email": email, "hashed_password": await cheap_hasher().hash(PASSWORD), **values}
    async with database.begin() as session:
        return await Users(session).create(given)


class AllRead(SQLFactorStore):
    """Lets no request go on until all of *count* have read the same state."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.gate = asyncio.Event()

    async def read(self, session: AsyncSession, user: TOTPMixin, /) -> FactorState:
        state = await super().read(session, user)
        self.left -= 1
        if self.left == 0:
            self.gate.set()
        async with asyncio.timeout(30):
            await self.gate.wait()
        return state


class Person:
    """What a user does."""

    def __init__(self, site: Site, client: AsyncClient) -> None:
        self.site = site
        self.client = client
        self.secret = ""
        self.recovery_codes: list[str] = []
        self.pair: dict[str, Any] = {}

    async def log_in(self, scope: str = "", password: str = PASSWORD) -> Response:
        return await self.client.post("/auth/login", data={"username": EMAIL, "password": password, "scope": scope})

    async def challenge(self, scope: str = "") -> str:
        answer = await self.log_in(scope)
        assert answer.json()["code"] == "second_factor_required"
        token: str = answer.json()["context"]["challenge_token"]
        return token

    async def send_code(self, challenge: str, code: str) -> Response:
        return await self.client.post("/auth/login/second-factor", json={"challenge_token": challenge, "code": code})

    async def __call__(self, method: str, path: str, **options: Any) -> Response:
        return await self.client.request(
            method, f"/auth{path}", headers={"Authorization": f"Bearer {self.pair['access_token']}"}, **options
        )

    async def begin(self) -> None:
        """Log in, and get a secret."""
        self.pair = (await self.log_in()).json()
        answer = await self("POST", "/second-factor", json={"current_password": PASSWORD})
        assert answer.status_code == 200
        self.secret = answer.json()["secret"]

    async def enrol(self) -> None:
        """Enable the factor. The code of the next step is not used yet."""
        await self.begin()
        answer = await self("POST", "/second-factor/confirm", json={"code": self.site.code(self.secret)})
        assert answer.status_code == 200
        self.recovery_codes = answer.json()["recovery_codes"]
