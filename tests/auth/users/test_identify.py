"""Logging in by something else than an e-mail address, without tokens, and with tokens that mean nothing."""

import secrets
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from httpx import AsyncClient
from pydantic import BaseModel, SecretStr
from sqlalchemy.ext.asyncio import AsyncSession
from tests.auth.accounts import PASSWORD, Registration, Site, UserRead, Users, load_user, store_user
from tests.auth.people import tokens
from tests.tables.accounts import AccountsBase, Subscriber, User

from fastapi_kit.auth import TokenClaims, get_current_user_factory
from fastapi_kit.auth.logins import StatelessLogins, TokenPair
from fastapi_kit.auth.users import Account, AuthEndpoint, AuthFlow, auth_router
from fastapi_kit.crud import CRUDService
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, InvalidCredentialsError, InvalidTokenError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.testing import app_client, cheap_hasher


class SubscriberIn(BaseModel):
    username: str
    phone: str | None = None
    password: SecretStr


class Subscribers(CRUDService[Subscriber, SubscriberIn, SubscriberIn]):
    """A service of the application that fits ``Accounts``."""

    def describe(self, user: Subscriber, /) -> Account:
        return Account(subject=str(user.id), hashed_password=user.secret)

    async def get_account(self, subject: str, /) -> Subscriber | None:
        return await self.get(int(subject))

    async def get_account_by_email(self, email: str, /) -> Subscriber | None:
        raise NotImplementedError

    async def register(self, data: SubscriberIn, /, *, hashed_password: str) -> Subscriber:
        return await self.create({"username": data.username, "phone": data.phone, "secret": hashed_password})

    async def set_password(self, user: Subscriber, /, *, hashed_password: str, replacing: str | None = None) -> bool:
        await self.update(user.id, {"secret": hashed_password})
        return True

    async def change(
        self, user: Subscriber, data: BaseModel, /, *, hashed_password: str | None = None, replacing: str | None = None
    ) -> Subscriber | None:
        raise NotImplementedError


async def identify(session: AsyncSession, name: str) -> Subscriber | None:
    """Find a subscriber by the user name or the phone number."""
    return await Subscribers(session).get_by(**({"phone": name} if name.startswith("+") else {"username": name.lower()}))


class SubscriberRead(BaseModel):
    id: int
    username: str


async def load_subscriber(session: AsyncSession, claims: TokenClaims) -> Subscriber | None:
    return await Subscribers(session).get(claims.subject(int))


@pytest.fixture
async def subscribers(database: Database) -> AsyncIterator[AsyncClient]:
    """A client of an app whose subscribers log in with a user name or a phone number."""
    await database.create_tables(AccountsBase.metadata)
    logins = StatelessLogins(tokens)
    flow = AuthFlow[Subscriber, SubscriberIn](accounts=Subscribers, logins=logins, passwords=cheap_hasher(), identify=identify)
    get_subscriber = get_current_user_factory(logins, load_subscriber, session=database.session)
    app = FastAPI()
    register_exception_handlers(app)
    app.include_router(auth_router(flow, session=database.session, current_user=get_subscriber, read=SubscriberRead, register=SubscriberIn))
    assert "user name" in app.openapi()["paths"]["/login"]["post"]["description"]
    async with app_client(app) as client:
        yield client


@pytest.mark.parametrize("name", ["ada", "ADA", "+4930901820"])
async def test_a_login_by_another_name(subscribers: AsyncClient, name: str) -> None:
    """``identify=`` decides what users log in with: a user name, a phone number, or either. No address is needed."""
    ada = {"username": "ada", "phone": "+4930901820", "password": PASSWORD}
    assert (await subscribers.post("/register", json=ada)).json() == {"id": 1, "username": "ada"}

    login = await subscribers.post("/login", data={"username": name, "password": PASSWORD})
    me = await subscribers.get("/me", headers={"Authorization": f"Bearer {login.json()['access_token']}"})
    assert me.json() == {"id": 1, "username": "ada"}


@pytest.mark.parametrize("name", ["eve", "+1", "ada@example.org", "é", "%", "a" * 300])
async def test_a_failed_login_by_another_name(subscribers: AsyncClient, name: str) -> None:
    """R32: an unknown name and a wrong password have one answer."""
    await subscribers.post("/register", json={"username": "ada", "password": PASSWORD})

    answers = [
        await subscribers.post("/login", data={"username": user, "password": password})
        for user, password in ((name, PASSWORD), ("ada", "wrong"))
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(401, "invalid_credentials")] * 2


async def test_an_address_is_found_by_another_way(site: Site) -> None:
    """``identify=`` also serves users with addresses; the address alone no longer finds them."""
    await store_user(site.database, full_name="ann")

    async def by_name(session: AsyncSession, name: str) -> User | None:
        return await Users(session).get_by(full_name=name)

    flow = AuthFlow(accounts=Users, passwords=cheap_hasher(), identify=by_name)
    async with site.database.sessions() as session:
        assert (await flow.authenticate(session, email="ann", password=PASSWORD)).email == "ann@example.com"
        with pytest.raises(InvalidCredentialsError):
            await flow.authenticate(session, email="ann@example.com", password=PASSWORD)


# --- Without tokens ---


async def test_a_flow_without_logins(site: Site) -> None:
    """``authenticate`` and ``register`` need no logins; ``login``, ``refresh`` and their routes say that they do."""
    flow = AuthFlow(accounts=Users, passwords=cheap_hasher())
    data = Registration(email="ann@example.com", password=PASSWORD)  # type: ignore[arg-type]
    async with site.database.sessions() as session:
        user = await flow.register(session, data, password=data.password)
        assert await flow.authenticate(session, email=user.email, password=PASSWORD) is user
        for step in (flow.login(session, email=user.email, password=PASSWORD), flow.refresh(session, "x")):
            with pytest.raises(ConfigurationError, match="logins"):
                await step


@pytest.mark.parametrize("endpoints", [AuthEndpoint.ALL, AuthEndpoint.LOGIN, AuthEndpoint.REFRESH | AuthEndpoint.ME])
def test_routes_of_tokens_need_logins(site: Site, endpoints: AuthEndpoint) -> None:
    """A router with routes of tokens over a flow without logins raises ConfigurationError when it is built."""
    flow = AuthFlow(accounts=Users)
    options: dict[str, Any] = {"session": site.database.session, "current_user": site.get_user, "read": UserRead}

    with pytest.raises(ConfigurationError, match="logins"):
        auth_router(flow, **options, register=Registration, endpoints=endpoints)
    rest = auth_router(flow, **options, register=Registration, endpoints=AuthEndpoint.REGISTER | AuthEndpoint.ME)
    assert [getattr(route, "path", "") for route in rest.routes] == ["/register", "/me"]


def test_a_router_without_registration(site: Site) -> None:
    """``register=`` is needed for the route to register only."""
    options: dict[str, Any] = {"session": site.database.session, "current_user": site.get_user, "read": UserRead}

    router = auth_router(site.flow, **options, endpoints=AuthEndpoint.ALL & ~AuthEndpoint.REGISTER)
    assert [getattr(route, "path", "") for route in router.routes] == ["/login", "/refresh", "/me"]
    for endpoints in (AuthEndpoint.ALL, AuthEndpoint.REGISTER):
        with pytest.raises(ConfigurationError, match="register="):
            auth_router(site.flow, **options, endpoints=endpoints)


# --- Tokens that mean nothing ---


class OpaqueLogins:
    """Logins whose tokens are random, and are looked up. They need no JWTService."""

    def __init__(self) -> None:
        self.known: dict[str, TokenClaims] = {}
        self.read: list[str] = []

    def find(self, token: str, type: str) -> TokenClaims:
        self.read.append(type)
        claims = self.known.get(token)
        if claims is None or claims.type != type:
            raise InvalidTokenError("unknown")
        return claims

    async def start(self, subject: str, *, scopes: Collection[str] = ()) -> TokenPair:
        now = datetime.now(UTC)
        made: dict[str, str] = {}
        for type in ("access", "refresh"):
            made[type] = secrets.token_urlsafe()
            self.known[made[type]] = TokenClaims(
                sub=subject, type=type, jti=made[type], iat=now, exp=now + timedelta(hours=1), scopes=frozenset(scopes)
            )
        return TokenPair(access_token=made["access"], refresh_token=made["refresh"], expires_in=3600)

    async def decode_refresh_token(self, refresh_token: str, /) -> TokenClaims:
        return self.find(refresh_token, "refresh")

    async def renew(self, claims: TokenClaims, /, *, scopes: Collection[str]) -> TokenPair:
        if self.known.pop(claims.jti, None) is None:
            raise InvalidTokenError("used")
        return await self.start(claims.sub, scopes=claims.scopes & frozenset(scopes))

    async def verify(self, token: str, /) -> TokenClaims:
        return self.find(token, "access")


async def test_opaque_tokens(users: Database) -> None:
    """Logins of your own may keep random tokens in a store: a refresh reads its token once, and nothing asks for a JWTService."""
    await store_user(users)
    logins = OpaqueLogins()
    flow = AuthFlow[User, Registration](accounts=Users, logins=logins, passwords=cheap_hasher())
    get_user = get_current_user_factory(logins, load_user, session=users.session)
    app = FastAPI()
    register_exception_handlers(app)
    app.include_router(auth_router(flow, session=users.session, current_user=get_user, read=UserRead, register=Registration))

    @app.get("/name")
    async def name(user: Annotated[User, Depends(get_user)]) -> str:
        return user.email

    async with app_client(app) as client:
        pair = (await client.post("/login", data={"username": "ann@example.com", "password": PASSWORD})).json()
        assert logins.read == []
        renewed = await client.post("/refresh", json={"refresh_token": pair["refresh_token"]})
        assert (renewed.status_code, logins.read) == (200, ["refresh"])
        assert (await client.post("/refresh", json={"refresh_token": pair["refresh_token"]})).status_code == 401
        assert (await client.post("/refresh", json={"refresh_token": renewed.json()["access_token"]})).status_code == 401
        answer = await client.get("/name", headers={"Authorization": f"Bearer {renewed.json()['access_token']}"})
    assert answer.json() == "ann@example.com"


def test_a_registration_by_name_needs_a_password() -> None:
    """A registration for ``identify=`` needs no address, but a password."""

    class NameOnly(BaseModel):
        username: str

    flow = AuthFlow[Subscriber, Any](accounts=Subscribers, logins=StatelessLogins(tokens), identify=identify)
    with pytest.raises(ConfigurationError, match="password"):
        auth_router(flow, session=Database("sqlite://").session, current_user=load_subscriber, read=SubscriberRead, register=NameOnly)
