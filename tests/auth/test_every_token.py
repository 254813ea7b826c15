"""Every kind of token in every place that takes one: each opens its own places and no other."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import Depends, FastAPI, Request, WebSocket
from httpx import AsyncClient
from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from tests.auth.accounts import PASSWORD
from tests.auth.people import SECRET
from tests.auth.second_factor.site import Users, load_user
from tests.auth.tokens.test_hostile_tokens import pem
from tests.middleware.asgi import ask, websocket_scope
from tests.tables.accounts import AccountsBase, FactorUser, Login

from fastapi_kit.auth import (
    APIKeyTransport,
    BearerTransport,
    CookieTransport,
    FirstMessageTransport,
    JWTService,
    SubprotocolTransport,
    TokenClaims,
    TokenPolicy,
    TokenVerifier,
    Transport,
    accept_websocket,
    get_claims_factory,
    get_current_user_factory,
)
from fastapi_kit.auth.api_keys import APIKeys, MemoryAPIKeyStore
from fastapi_kit.auth.logins import StoredLogins
from fastapi_kit.auth.logins.sql import SQLLoginStore
from fastapi_kit.auth.second_factor import TOTP, SecondFactor
from fastapi_kit.auth.second_factor.sql import SQLFactorStore
from fastapi_kit.auth.second_factor.totp import hotp, read_secret
from fastapi_kit.auth.tokens.claims import TOKEN_TYPES, TokenType
from fastapi_kit.auth.tokens.remote import RemoteIssuer
from fastapi_kit.auth.users import AuthEndpoint, AuthFlow, MailFlow, UserProfile, UserRegister, auth_router
from fastapi_kit.db import Database
from fastapi_kit.errors import InvalidTokenError
from fastapi_kit.handlers import problem_response, register_exception_handlers
from fastapi_kit.testing import app_client, captured_mails, cheap_hasher

ANN, ROOT = "1", "2"
EMAIL = "ann@example.com"
AUDIENCE, ISSUER = "https://api.example.org", "https://accounts.example.org"
FOREIGN_KEY = Ed25519PrivateKey.generate()


async def send(*args: object) -> None: ...


def service(**options: Any) -> JWTService:
    return JWTService(**{"secret_key": SECRET, "policy": TokenPolicy(issuer=ISSUER, audience=AUDIENCE), **options})


class Everything:
    """An app with every place that takes a token, and every kind of token."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.tokens = service()
        self.logins = StoredLogins(self.tokens, SQLLoginStore(database.sessions, Login), check_access=True)
        self.factor: SecondFactor[FactorUser] = SecondFactor(self.tokens, TOTP(issuer="Zenith"), SQLFactorStore(), cipher=None)
        self.flow: AuthFlow[FactorUser, UserRegister] = AuthFlow(
            accounts=Users, logins=self.logins, passwords=cheap_hasher(), second_factor=self.factor
        )
        self.mail: MailFlow[FactorUser, UserRegister] = MailFlow(flow=self.flow, tokens=self.tokens, verify=send, reset=send)
        self.keys = APIKeys(MemoryAPIKeyStore(), prefix="shop")
        self.cookie = CookieTransport(csrf_key=b"kJ8#vQ2!xW5@zR9$nL3%pC7^hF4&dS6*")
        self.foreign = service(secret_key=pem(FOREIGN_KEY), algorithm="EdDSA")
        self.remote = RemoteIssuer(ISSUER, audience=AUDIENCE, algorithms=["EdDSA"], fetch=self.fetch)
        self.app = FastAPI()
        register_exception_handlers(self.app)
        self.add_users("bearer", BearerTransport())
        self.add_users("cookie", self.cookie)
        self.add_users("key", APIKeyTransport(keys=self.keys))
        self.add_users("subprotocol", SubprotocolTransport())
        self.add_users("message", FirstMessageTransport())
        self.add_claims("remote", self.remote)
        self.add_routers()
        self.app.add_middleware(AuthenticationMiddleware, backend=Backend(self.logins), on_error=reject)
        self.client: AsyncClient
        self.secret = ""

    async def fetch(self, url: str) -> bytes:
        return json.dumps(self.foreign.jwks()).encode()

    def add_users(self, name: str, transport: Transport) -> None:
        user = get_current_user_factory(self.logins, load_user, session=self.database.session, transports=[transport])
        if name == "bearer":
            self.user = user
        else:

            @self.app.websocket(f"/{name}")
            async def talk(socket: WebSocket, user: Annotated[FactorUser, Depends(user)]) -> None:
                await accept_websocket(socket)
                await socket.send_text(str(user.id))

        @self.app.get(f"/{name}")
        async def me(user: Annotated[FactorUser, Depends(user)]) -> int:
            return user.id

    def add_claims(self, name: str, tokens: TokenVerifier) -> None:
        @self.app.get(f"/{name}")
        async def claims(claims: Annotated[TokenClaims, Depends(get_claims_factory(tokens))]) -> str:
            return claims.sub

        @self.app.get("/middleware")
        async def middleware(request: Request) -> str:
            return request.user.display_name if request.user.is_authenticated else ""

    def add_routers(self) -> None:
        options: dict[str, Any] = {"session": self.database.session, "current_user": self.user, "read": UserProfile}
        mails = AuthEndpoint.MAIL | AuthEndpoint.SECOND_FACTOR | AuthEndpoint.LOGINS
        endpoints = (AuthEndpoint.ALL & ~AuthEndpoint.REGISTER) | mails
        self.app.include_router(auth_router(self.flow, endpoints=endpoints, mail=self.mail, **options), prefix="/auth")
        in_cookies = AuthEndpoint.REFRESH | AuthEndpoint.LOGOUT_EVERYWHERE
        self.app.include_router(auth_router(self.flow, endpoints=in_cookies, cookie=self.cookie, **options), prefix="/cookies")

    async def make(self, kind: str) -> str:
        """Return a token of this kind, which is valid now."""
        if kind in {"access", "refresh"}:
            pair = await self.logins.start(ANN)
            return pair.access_token if kind == "access" else pair.refresh_token
        if kind in {"verify", "reset"}:
            path = "/auth/password/forgot" if kind == "reset" else "/auth/email/verification"
            with captured_mails(self.mail) as mails:
                await self.client.post(path, json={"email": EMAIL})
            return mails[0].token
        if kind == "mfa":
            answer = await self.client.post("/auth/login", data={"username": EMAIL, "password": PASSWORD})
            return str(answer.json()["context"]["challenge_token"])
        if kind == "key":
            return (await self.keys.create(ANN, name="Backup")).key
        if kind == "acting":
            own = self.tokens.decode((await self.logins.start(ROOT)).access_token)
            return self.tokens.create_access_token(ANN, sid=own.sid, actor=ROOT)
        return self.others()[kind]

    def others(self) -> dict[str, str]:
        """Return tokens that open nothing, or only what another issuer's tokens open."""
        sid, hour = "not-a-login", timedelta(hours=1)
        made = {f"plain {type}": self.tokens.create_token(ANN, type=type, lifetime=hour) for type in TOKEN_TYPES}
        made |= {f"foreign {type}": self.foreign.create_token(ANN, type=type, lifetime=hour) for type in TOKEN_TYPES}
        for name, policy in OTHER_POLICIES.items():
            other = service(policy=policy)
            made |= {f"{name} {type}": other.create_token(ANN, type=type, lifetime=hour) for type in TOKEN_TYPES}
        made["ended login"] = self.tokens.create_access_token(ANN, sid=sid)
        made["foreign id"] = self.foreign.create_token(ANN, type="access", lifetime=hour, extra={"nonce": "n"})
        made["another secret"] = service(secret_key=SECRET[::-1]).create_access_token(ANN, sid=sid)
        return made


OTHER_POLICIES = {
    "another audience": TokenPolicy(issuer=ISSUER, audience="https://other.example.org"),
    "another issuer": TokenPolicy(issuer="https://other.example.org", audience=AUDIENCE),
    "no policy": TokenPolicy(),
}


class Backend(AuthenticationBackend):
    """The recipe of the guide."""

    def __init__(self, tokens: TokenVerifier) -> None:
        self.tokens = tokens

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        if conn.url.path != "/middleware":
            return None
        try:
            claims = await BearerTransport().authenticate(conn, self.tokens)
        except InvalidTokenError as error:
            raise AuthenticationError from error
        return None if claims is None else (AuthCredentials(sorted(claims.scopes)), SimpleUser(claims.sub))


def reject(connection: HTTPConnection, error: AuthenticationError) -> Any:
    return problem_response(connection, error.__cause__)  # type: ignore[arg-type]


# --- Places ---

Place = Callable[[Everything, str], Awaitable[bool]]


def header(path: str, name: str = "Authorization", before: str = "Bearer ", method: str = "GET") -> Place:
    async def use(everything: Everything, token: str) -> bool:
        answer = await everything.client.request(method, path, headers={name: before + token})
        assert answer.status_code in {200, 204, 401, 403}, answer.text
        return answer.status_code < 400

    return use


def cookie(path: str, name: str, method: str) -> Place:
    async def use(everything: Everything, token: str) -> bool:
        csrf = everything.cookie._csrf_token("login")
        headers = {"Cookie": f"{name}=login.{token}", "X-CSRF-Token": csrf, "Origin": "https://test"}
        answer = await everything.client.request(method, path, headers=headers)
        assert answer.status_code in {200, 204, 401}, answer.text
        return answer.status_code != 401

    return use


def body(path: str, field: str, **others: str) -> Place:
    async def use(everything: Everything, token: str) -> bool:
        given = {**others, **({"code": code_of(everything.secret)} if field == "challenge_token" else {})}
        answer = await everything.client.post(path, json={field: token, **given})
        assert answer.status_code in {200, 204, 401, 422}, answer.text
        return answer.status_code < 400

    return use


def socket(name: str) -> Place:
    async def use(everything: Everything, token: str) -> bool:
        header = {
            "key": (b"x-api-key", token.encode()),
            "cookie": (b"cookie", f"__Host-session=login.{token}".encode()),
        }.get(name, (b"x-nothing", b""))
        scope = websocket_scope(f"/{name}", headers=[header, (b"origin", b"https://test")])
        scope["subprotocols"] = ["bearer", token] if name == "subprotocol" else []
        first = {"type": "websocket.receive", "text": json.dumps({"type": "auth", "token": token})}
        answer = await ask(everything.app, scope, {"type": "websocket.connect"}, first)
        return any(message["type"] == "websocket.send" for message in answer.messages)

    return use


def code_of(secret: str) -> str:
    key = read_secret(secret)
    assert key is not None
    return hotp(key, int(time.time()) // 30 + 1)


PLACES: dict[str, tuple[Place, set[str]]] = {
    "bearer": (header("/bearer"), {"access", "acting"}),
    "middleware": (header("/middleware"), {"access", "acting"}),
    "me": (header("/auth/me"), {"access", "acting"}),
    "cookie": (cookie("/cookie", "__Host-session", "GET"), {"access", "acting"}),
    "key": (header("/key", "X-API-Key", ""), {"key"}),
    "key as bearer": (header("/key"), set()),
    "refresh": (body("/auth/refresh", "refresh_token"), {"refresh"}),
    "refresh cookie": (cookie("/cookies/refresh", "__Host-session-refresh", "POST"), {"refresh"}),
    "logout everywhere": (cookie("/cookies/logout/everywhere", "__Host-session-refresh", "POST"), {"refresh"}),
    "logout": (header("/auth/logout", method="POST"), {"access"}),
    "confirm": (body("/auth/email/confirm", "token"), {"verify"}),
    "reset": (body("/auth/password/reset", "token", password="difference engine no. 2"), {"reset"}),
    "second factor": (body("/auth/login/second-factor", "challenge_token"), {"mfa"}),
    "remote": (header("/remote"), {"foreign access"}),
    "subprotocol": (socket("subprotocol"), {"access", "acting"}),
    "message": (socket("message"), {"access", "acting"}),
    "key of a socket": (socket("key"), {"key"}),
    "cookie of a socket": (socket("cookie"), {"access", "acting"}),
}


@pytest.fixture
async def everything(database: Database) -> AsyncIterator[Everything]:
    await database.create_tables(AccountsBase.metadata)
    hashed = await cheap_hasher().hash(PASSWORD)
    async with database.begin() as session:
        await Users(session).create({"email": EMAIL, "hashed_password": hashed})
        await Users(session).create({"email": "root@example.com", "is_superuser": True})
    everything = Everything(database)
    async with database.begin() as session:
        ann = await Users(session).get_one(1)
        everything.secret = (await everything.factor.begin(session, ann, account=EMAIL, hashed_password=hashed)).secret
    async with database.begin() as session:
        key = read_secret(everything.secret)
        assert key is not None
        code = hotp(key, int(time.time()) // 30)
        await everything.factor.confirm(session, await Users(session).get_one(1), code, hashed_password=hashed)
    async with app_client(everything.app) as everything.client:
        yield everything


KINDS = ["access", "refresh", "verify", "reset", "mfa", "key", "acting"]


@pytest.mark.parametrize("place", PLACES)
async def test_every_token_in_one_place(everything: Everything, place: str) -> None:
    """R17, R18: of all kinds of tokens, a place takes those that are made for it."""
    use, opened = PLACES[place]
    kinds = [*KINDS, *everything.others()]

    found = {kind for kind in kinds if kind not in opened and await use(everything, await everything.make(kind))}
    taken = {kind for kind in opened if await use(everything, await everything.make(kind))}

    assert (found, taken) == (set(), opened)


@pytest.mark.parametrize("asked", TOKEN_TYPES)
async def test_every_token_decoded_as_each_type(everything: Everything, asked: TokenType) -> None:
    """R17: ``decode`` with a type takes the tokens of this type, issuer and audience."""
    fits = {"access": {"access", "acting", "ended login"}}.get(asked, {asked}) | {f"plain {asked}"}
    found = set()
    for kind in [*KINDS, *everything.others()]:
        try:
            everything.tokens.decode(await everything.make(kind), type=asked)
        except InvalidTokenError:
            continue
        found.add(kind)

    assert found == fits - {"api"}
