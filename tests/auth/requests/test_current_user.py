"""From a request to the user."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Request, Security
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant
from fastapi.security import APIKeyHeader
from fastapi.security.base import SecurityBase
from httpx import AsyncClient, Response
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect
from tests.auth.people import SECRET, People, Person, PersonRead, app_with, client_of, no_session, tokens
from tests.auth.tokens.hostile_tokens import hostile_tokens
from tests.thorough import sample

from fastapi_kit.auth import (
    BearerTransport,
    CurrentUserDependency,
    JWTService,
    TokenClaims,
    TokenVerifier,
    Transport,
    get_claims_factory,
    get_current_user_factory,
    require,
)
from fastapi_kit.dependencies import answering
from fastapi_kit.errors import ConfigurationError, InvalidTokenError, NotFoundError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.testing import FrozenClock, app_client, bearer, login_as

SCOPES = {"notes:read": "Read notes"}


@pytest.fixture
def people() -> People:
    return People(Person(1), Person(2, is_active=False))


@pytest.fixture
def app(people: People) -> FastAPI:
    ways = [BearerTransport(scopes=SCOPES)]
    get_user = get_current_user_factory(tokens, people.load, session=no_session, transports=ways)
    get_optional = get_current_user_factory(tokens, people.load, session=no_session, transports=ways, optional=True)
    get_claims = get_claims_factory(tokens, transports=ways)

    def build(app: FastAPI) -> None:
        @app.get("/me")
        async def me(user: Annotated[Person, Depends(get_user)]) -> PersonRead:
            return PersonRead(id=user.id)

        @app.get("/notes")
        async def notes(user: Annotated[Person, Security(get_user, scopes=["notes:read"])]) -> PersonRead:
            return PersonRead(id=user.id)

        @app.get("/twice")
        async def twice(
            user: Annotated[Person, Depends(get_user)], same: Annotated[Person, Security(get_user, scopes=["notes:read"])]
        ) -> bool:
            return user is same

        @app.get("/greeting")
        async def greeting(user: Annotated[Person | None, Depends(get_optional)]) -> int | None:
            return user and user.id

        @app.get("/claims")
        async def claims(found: Annotated[TokenClaims, Depends(get_claims)]) -> str:
            return found.sub

        @app.websocket("/talk")
        async def talk(socket: WebSocket, user: Annotated[Person, Depends(get_user)]) -> None:
            await socket.accept()
            await socket.send_text(str(user.id))
            await socket.close()

    return app_with(build)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    async with app_client(app) as client:
        yield client


def assert_refused(response: Response, challenge: str, code: str, status: int = 401) -> None:
    assert response.status_code == status
    assert response.headers["WWW-Authenticate"] == challenge
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["code"] == code


def assert_invalid(response: Response) -> None:
    assert_refused(response, 'Bearer error="invalid_token"', "invalid_token")


async def test_a_valid_token(client: AsyncClient) -> None:
    """R22: a valid token of an active user gives the user."""
    response = await client.get("/me", headers=bearer(tokens, "1"))

    assert (response.status_code, response.json()) == (200, {"id": 1})


async def test_no_credentials(client: AsyncClient) -> None:
    """R21: without credentials the challenge names no error."""
    assert_refused(await client.get("/me"), "Bearer", "not_authenticated")


@pytest.mark.parametrize("header", ["Basic dXNlcjpwYXNz", "Digest x", "eyJhbGciOiJIUzI1NiJ9.e30.c2ln", "", "Bearers abc"])
async def test_another_scheme_is_no_credentials(client: AsyncClient, header: str) -> None:
    """R25: other schemes, and a token without a scheme, count as no credentials."""
    assert_refused(await client.get("/me", headers={"Authorization": header}), "Bearer", "not_authenticated")


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR"])
async def test_the_case_of_the_scheme_does_not_matter(client: AsyncClient, scheme: str) -> None:
    """R25: the case of the scheme does not matter (RFC 9110, 11.1)."""
    header = bearer(tokens, "1")["Authorization"].replace("Bearer", scheme)

    assert (await client.get("/me", headers={"Authorization": header})).status_code == 200


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "bearer    "])
async def test_an_empty_token(client: AsyncClient, header: str) -> None:
    """R25: an empty token is an invalid token."""
    assert_invalid(await client.get("/me", headers={"Authorization": header}))


async def test_two_tokens(client: AsyncClient) -> None:
    """R22: a request with two tokens is rejected."""
    header = ("Authorization", bearer(tokens, "1")["Authorization"])

    assert_invalid(await client.get("/me", headers=[header, header]))


@pytest.mark.parametrize("path", ["/me", "/greeting", "/claims", "/notes"])
async def test_every_hostile_token_is_the_same_401(client: AsyncClient, path: str) -> None:
    """R22: every invalid token has the same answer."""
    answers: set[tuple[str, ...]] = set()
    for name, token in sample(hostile_tokens(JWTService(secret_key=SECRET))):
        # White space around it is the header's own: 1*SP before it (RFC 6750, 2.1), none after it (RFC 9110, 5.5).
        if token.isascii() and token.isprintable() and token == token.strip():
            response = await client.get(path, headers={"Authorization": f"Bearer {token}"})
            assert response.status_code == 401, name
            problem = response.json()
            answers.add((response.headers["WWW-Authenticate"], problem["title"], problem["detail"], problem["code"]))

    assert answers == {('Bearer error="invalid_token"', "Unauthorized", "The token is not valid.", "invalid_token")}


@pytest.mark.parametrize("raw", [b"\xff\xfe.\xff.\xff", "é.é.é".encode(), b"a\x00b", b"." * 9000])
async def test_bytes_that_are_no_token(client: AsyncClient, raw: bytes) -> None:
    """R20: bytes that are not in any token are a 401."""
    assert_invalid(await client.get("/me", headers=[(b"Authorization", b"Bearer " + raw)]))


async def test_an_expired_token() -> None:
    """R22: an expired token has the answer of an invalid one."""
    clock = FrozenClock()
    service, people = JWTService(secret_key=SECRET, clock=clock), People(Person(1))
    get_user = get_current_user_factory(service, people.load, session=no_session)
    headers = bearer(service, "1")
    clock.advance(timedelta(hours=1))

    async with client_of(lambda app: app.get("/me", response_model=None)(_shown(get_user))) as client:
        assert_invalid(await client.get("/me", headers=headers))
    assert people.loads == 0


def _shown(get_user: object) -> object:
    async def show(user: Annotated[Person, Depends(get_user)]) -> int:  # type: ignore[arg-type]
        return user.id

    return show


@pytest.mark.parametrize("subject", ["3", "no-number", "1.0", "0x1", " 1", "99999999999999999999999999"])
async def test_an_unknown_user(client: AsyncClient, subject: str) -> None:
    """R22: a missing user, and a subject that cannot be a key, have the answer of an invalid token."""
    assert_invalid(await client.get("/me", headers=bearer(tokens, subject)))


async def test_a_deleted_user(client: AsyncClient, people: People) -> None:
    """R22: a user who was deleted since has the same answer."""
    del people.rows[1]

    assert_invalid(await client.get("/me", headers=bearer(tokens, "1")))


async def test_an_inactive_user(client: AsyncClient) -> None:
    """R24: an inactive user is a 401 with the answer of an invalid token."""
    assert_invalid(await client.get("/me", headers=bearer(tokens, "2")))


async def test_a_rule_for_active_users(people: People) -> None:
    """R29: *active* replaces ``is_active``."""
    get_user = get_current_user_factory(tokens, people.load, session=no_session, active=lambda person: person.id == 2)

    async with client_of(lambda app: app.get("/me", response_model=None)(_shown(get_user))) as client:
        assert (await client.get("/me", headers=bearer(tokens, "2"))).json() == 2
        assert_invalid(await client.get("/me", headers=bearer(tokens, "1")))


async def test_a_user_model_without_the_flag_is_active() -> None:
    """R29: a user without ``is_active`` is active."""

    async def load(session: object, claims: TokenClaims) -> str | None:
        return claims.sub

    get_user = get_current_user_factory(tokens, load, session=no_session)

    def build(app: FastAPI) -> None:
        @app.get("/me")
        async def me(user: Annotated[str, Depends(get_user)]) -> str:
            return user

    async with client_of(build) as client:
        assert (await client.get("/me", headers=bearer(tokens, "ann"))).json() == "ann"


async def test_a_method_is_no_flag() -> None:
    """R24: ``is_active`` as a method is always true, so it raises ConfigurationError unless *active* calls it."""

    class Visitor:
        def is_active(self) -> bool:
            return False

    async def load(session: object, claims: TokenClaims) -> Visitor | None:
        return Visitor()

    get_user = get_current_user_factory(tokens, load, session=no_session)
    get_active = get_current_user_factory(tokens, load, session=no_session, active=lambda user: user.is_active())

    def build(app: FastAPI) -> None:
        app.get("/flag", dependencies=[Depends(get_user)])(no_session)
        app.get("/call", dependencies=[Depends(get_active)])(no_session)

    async with client_of(build) as client:
        assert (await client.get("/flag", headers=bearer(tokens, "1"))).status_code == 500
        assert_invalid(await client.get("/call", headers=bearer(tokens, "1")))


async def test_an_optional_user(client: AsyncClient) -> None:
    """R21: an optional user is None without credentials; an invalid token is still a 401."""
    assert (await client.get("/greeting")).json() is None
    assert (await client.get("/greeting", headers={"Authorization": "Basic eDp5"})).json() is None
    assert (await client.get("/greeting", headers=bearer(tokens, "1"))).json() == 1
    assert_invalid(await client.get("/greeting", headers={"Authorization": "Bearer x.y.z"}))
    assert_invalid(await client.get("/greeting", headers=bearer(tokens, "2")))


async def test_claims_alone(client: AsyncClient, people: People) -> None:
    """R29: claims load no user."""
    assert (await client.get("/claims", headers=bearer(tokens, "77"))).json() == "77"
    assert_refused(await client.get("/claims"), "Bearer", "not_authenticated")
    assert people.loads == 0


async def test_a_refresh_token_is_no_access_token(client: AsyncClient) -> None:
    """R17: a refresh token is not an access token."""
    for token in (tokens.create_refresh_token("1"), tokens.create_token("1", type="reset", lifetime=timedelta(hours=1))):
        assert_invalid(await client.get("/me", headers={"Authorization": f"Bearer {token}"}))


async def test_a_token_in_the_query_is_not_read(client: AsyncClient) -> None:
    """R28: a token in the query string, in a cookie or in a form is ignored."""
    token = tokens.create_access_token("1")

    assert_refused(await client.get("/me", params={"access_token": token, "token": token}), "Bearer", "not_authenticated")
    assert_refused(await client.get("/me", headers={"Cookie": f"access_token={token}"}), "Bearer", "not_authenticated")


async def test_a_token_is_not_echoed_or_logged(client: AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    """R28: no body, log or header contains the token."""
    caplog.set_level(0)
    token = tokens.create_access_token("2")

    response = await client.get("/me", headers={"Authorization": f"Bearer {token}"})

    assert token not in response.text + caplog.text + str(response.headers)


async def test_a_missing_scope(client: AsyncClient) -> None:
    """R23: a missing scope is a 403 that names the required scopes."""
    assert_refused(
        await client.get("/notes", headers=bearer(tokens, "1")),
        'Bearer error="insufficient_scope", scope="notes:read"',
        "insufficient_scope",
        403,
    )


async def test_fastapis_own_scopes(client: AsyncClient) -> None:
    """R29: ``Security(get_current_user, scopes=[...])`` requires scopes."""
    assert (await client.get("/notes", headers=bearer(tokens, "1", scopes=["notes:read", "x"]))).status_code == 200


async def test_scopes_are_checked_after_the_user(client: AsyncClient) -> None:
    """R22: an unknown or inactive user is a 401, also if scopes are missing."""
    assert_invalid(await client.get("/notes", headers=bearer(tokens, "2")))


async def test_the_user_is_loaded_once(client: AsyncClient, people: People) -> None:
    """R29: Depends and Security in one request load the user once."""
    response = await client.get("/twice", headers=bearer(tokens, "1", scopes=["notes:read"]))

    assert (response.json(), people.loads) == (True, 1)


async def test_required_optional_and_guarded_users_are_one(people: People) -> None:
    """R29: two factories with the same loader and session, and a guard on each, load the user once."""
    get_user = get_current_user_factory(tokens, people.load, session=no_session)
    get_optional = get_current_user_factory(tokens, people.load, session=no_session, optional=True)
    guards = [Depends(require(get_user, verified=True)), Depends(require(get_optional, scopes=["a"]))]

    def build(app: FastAPI) -> None:
        @app.get("/", dependencies=guards)
        async def read(
            one: Annotated[Person, Security(get_user, scopes=["a"])], other: Annotated[Person | None, Depends(get_optional)]
        ) -> bool:
            return one is other

    async with client_of(build) as client:
        assert (await client.get("/", headers=bearer(tokens, "1", scopes=["a"]))).json() is True
        assert people.loads == 1
        for headers, code in [({}, "not_authenticated"), ({"Authorization": "Bearer x.y.z"}, "invalid_token")]:
            assert (await client.get("/", headers=headers)).json()["code"] == code
    assert people.loads == 1


async def test_users_of_other_loaders_sessions_and_tokens_are_others() -> None:
    """R29: another loader, another session and another token of the same subject load another user."""
    elsewhere, loaded = JWTService(secret_key=SECRET[::-1]), list[tuple[str, object, frozenset[str]]]()

    def loader(name: str) -> Callable[[object, TokenClaims], Awaitable[str | None]]:
        async def load(session: object, claims: TokenClaims) -> str | None:
            loaded.append((name, session, claims.scopes))
            return name

        return load

    async def replica() -> str:
        return "replica"

    ours, theirs = loader("ours"), loader("theirs")
    factories = [
        get_current_user_factory(tokens, ours, session=no_session),
        get_current_user_factory(tokens, theirs, session=no_session),
        get_current_user_factory(tokens, ours, session=replica),
        get_current_user_factory(elsewhere, ours, session=no_session, transports=[HeaderTransport()]),
    ]

    def build(app: FastAPI) -> None:
        @app.get("/", dependencies=[Depends(each) for each in factories])
        async def read() -> None: ...

    headers = {**bearer(tokens, "1"), "X-Key": elsewhere.create_access_token("1", scopes=["b"])}
    async with client_of(build) as client:
        assert (await client.get("/", headers=headers)).status_code == 200

    nothing = frozenset[str]()
    assert loaded == [("ours", None, nothing), ("theirs", None, nothing), ("ours", "replica", nothing), ("ours", None, frozenset("b"))]


async def test_an_override_of_one_factory(people: People) -> None:
    """R29: overriding the required user does not override the optional one; overriding the session affects both."""
    sessions = list[object]()

    async def load(session: object, claims: TokenClaims) -> Person | None:
        sessions.append(session)
        return await people.load(session, claims)

    get_user = get_current_user_factory(tokens, load, session=no_session)
    get_optional = get_current_user_factory(tokens, load, session=no_session, optional=True)

    def build(app: FastAPI) -> None:
        @app.get("/")
        async def read(one: Annotated[Person, Depends(get_user)], two: Annotated[Person | None, Depends(get_optional)]) -> list[int]:
            return [one.id, two.id if two else 0]

    app = app_with(build)
    async with app_client(app) as client:
        app.dependency_overrides = {get_user: lambda: Person(9), no_session: lambda: "test"}
        overridden = [(await client.get("/", headers=headers)).json() for headers in (bearer(tokens, "1"), {})]
    assert (overridden, sessions) == ([[9, 1], [9, 0]], ["test"])


async def test_a_loader_and_a_transport_may_be_unhashable(people: People) -> None:
    """R29: a loader and a transport need not be hashable."""

    @dataclass
    class Loader:
        people: People

        async def __call__(self, session: object, claims: TokenClaims) -> Person | None:
            return await self.people.load(session, claims)

    get_user = get_current_user_factory(tokens, Loader(people), session=no_session, transports=[BearerTransport(scopes=SCOPES)])

    async with client_of(lambda app: app.get("/me", response_model=None)(_shown(get_user))) as client:
        assert (await client.get("/me", headers=bearer(tokens, "1"))).json() == 1


async def test_the_token_is_verified_once(people: People) -> None:
    """R29: a token is verified once in a request, and again in the next one."""

    class Counting:
        verified = 0

        async def verify(self, token: str, /) -> TokenClaims:
            self.verified += 1
            return await tokens.verify(token)

    verifier = Counting()
    get_user = get_current_user_factory(verifier, people.load, session=no_session)
    get_claims = get_claims_factory(verifier)

    def build(app: FastAPI) -> None:
        @app.get(
            "/",
            dependencies=[
                Security(get_user, scopes=["a"]),
                Security(get_user.claims, scopes=["b"]),
                Depends(get_user),
                Depends(get_claims),
            ],
        )
        async def read() -> None: ...

    async with client_of(build) as client:
        for _ in range(2):
            assert (await client.get("/", headers=bearer(tokens, "1", scopes=["a", "b"]))).status_code == 200
    assert (verifier.verified, people.loads) == (2, 2)


async def test_an_error_of_the_loader_stays_what_it_is() -> None:
    """R22: an error of the loader other than InvalidTokenError is not a 401."""

    async def load(session: object, claims: TokenClaims) -> Person | None:
        if claims.sub == "invalid":
            raise InvalidTokenError("revoked")
        if claims.sub == "missing":
            raise NotFoundError(Person, 1)
        raise LookupError("a bug")

    get_user = get_current_user_factory(tokens, load, session=no_session)

    async with client_of(lambda app: app.get("/me", response_model=None)(_shown(get_user))) as client:
        statuses = [(await client.get("/me", headers=bearer(tokens, sub))).status_code for sub in ("invalid", "missing", "bug")]
    assert statuses == [401, 404, 500]


async def test_without_a_token_no_session_is_opened(people: People) -> None:
    """R21: a request without a valid token opens no session."""
    opened: list[str] = []

    async def get_db() -> None:
        opened.append("session")

    get_user = get_current_user_factory(tokens, people.load, session=get_db)

    async with client_of(lambda app: app.get("/me", response_model=None)(_shown(get_user))) as client:
        await client.get("/me")
        await client.get("/me", headers={"Authorization": "Bearer x"})
        assert opened == []
        await client.get("/me", headers=bearer(tokens, "1"))
    assert opened == ["session"]


def test_how_many_dependencies_a_user_takes(people: People) -> None:
    """R29: a user takes three dependencies: the claims, the session and the user."""
    get_user = get_current_user_factory(tokens, people.load, session=no_session)
    get_optional = get_current_user_factory(tokens, people.load, session=no_session, optional=True)
    guard = require(get_user, verified=True)

    def count(dependant: Dependant) -> int:
        return 1 + sum(map(count, dependant.dependencies))

    taken = [count(get_dependant(path="/", call=call)) for call in (get_user, get_optional, get_user.claims, guard)]
    assert taken == [3, 3, 2, 4]


async def test_a_request_made_of_a_request(people: People) -> None:
    """R22: an inner request made from a copy of the scope has the user of its own token."""
    people.rows[3] = Person(3)
    get_user = get_current_user_factory(tokens, people.load, session=no_session)
    app = app_with(lambda app: app.get("/me", response_model=None)(_shown(get_user)))

    @app.get("/batch", dependencies=[Depends(get_user)])
    async def batch(request: Request) -> list[tuple[int, bytes]]:
        answers: list[tuple[int, bytes]] = []
        for token in (tokens.create_access_token("3"), "x.y.z"):
            parts: list[Message] = []

            async def keep(message: Message, parts: list[Message] = parts) -> None:
                parts.append(message)

            headers = [(b"authorization", f"Bearer {token}".encode())]
            await app({**request.scope, "path": "/me", "raw_path": b"/me", "headers": headers}, request.receive, keep)
            answers.append((parts[0]["status"], parts[1]["body"][:1]))
        return answers

    async with app_client(app) as client:
        assert (await client.get("/batch", headers=bearer(tokens, "1"))).json() == [[200, "3"], [401, "{"]]


async def test_scopes_of_an_optional_user(people: People) -> None:
    """R23: a required scope over an optional user is a 401 for anonymous requests."""
    get_optional = get_current_user_factory(tokens, people.load, session=no_session, optional=True)

    def build(app: FastAPI) -> None:
        @app.get("/")
        async def read(user: Annotated[Person | None, Security(get_optional, scopes=["a"])]) -> int | None:
            return user and user.id

    async with client_of(build) as client:
        answers = [await client.get("/", headers=headers) for headers in ({}, bearer(tokens, "1"), bearer(tokens, "1", scopes=["a"]))]
    assert [answer.status_code for answer in answers] == [401, 403, 200]


def test_a_factory_needs_a_transport(people: People) -> None:
    """R21: a factory without transports raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match="transport"):
        get_current_user_factory(tokens, people.load, session=no_session, transports=[])


# --- Several transports ---


class HeaderTransport(Transport):
    """A header of the application, whose scheme would reject requests if it were called."""

    @property
    def scheme(self) -> SecurityBase:
        return APIKeyHeader(name="X-Key", scheme_name="Key", auto_error=True)

    async def authenticate(self, connection: HTTPConnection, tokens: TokenVerifier) -> TokenClaims | None:
        key = connection.headers.get("X-Key")
        return None if key is None else await tokens.verify(key)


@pytest.fixture
def two_ways(people: People) -> FastAPI:
    get_user = get_current_user_factory(tokens, people.load, session=no_session, transports=[HeaderTransport(), BearerTransport()])
    return app_with(lambda app: app.get("/me", response_model=None)(_shown(get_user)))


async def test_transports_are_tried_in_order(two_ways: FastAPI) -> None:
    """R26: each transport is tried in order, and its scheme is never called."""
    good, bad = tokens.create_access_token("1"), "x.y.z"
    async with app_client(two_ways) as client:
        assert (await client.get("/me", headers={"X-Key": good})).json() == 1
        assert (await client.get("/me", headers={"Authorization": f"Bearer {good}"})).json() == 1
        assert (await client.get("/me", headers={"X-Key": good, "Authorization": f"Bearer {bad}"})).json() == 1
        assert_invalid(await client.get("/me", headers={"X-Key": bad, "Authorization": f"Bearer {good}"}))
        assert_refused(await client.get("/me"), "Bearer", "not_authenticated")


class NamedTransport(Transport):
    """A header and a scheme with that name."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def scheme(self) -> SecurityBase:
        return APIKeyHeader(name=self.name, scheme_name=self.name, auto_error=True)

    async def authenticate(self, connection: HTTPConnection, tokens: TokenVerifier) -> TokenClaims | None:
        key = connection.headers.get(self.name)
        return None if key is None else await tokens.verify(key)


@pytest.mark.parametrize("optional", [False, True])
async def test_the_first_of_three_tokens_counts(people: People, optional: bool) -> None:
    """R26: the first transport with a token decides, and changing the list later has no effect."""
    ways: list[Transport] = [NamedTransport("A"), NamedTransport("B"), NamedTransport("C")]
    get_user: Callable[..., Awaitable[Person | None]]
    if optional:
        get_user = get_current_user_factory(tokens, people.load, session=no_session, transports=ways, optional=True)
    else:
        get_user = get_current_user_factory(tokens, people.load, session=no_session, transports=ways)
    get_claims = get_claims_factory(tokens, transports=ways)
    ways.clear()

    def build(app: FastAPI) -> None:
        @app.get("/user")
        async def user(user: Annotated[Person | None, Depends(get_user)]) -> int:
            return user.id if user else 0

        @app.get("/claims")
        async def claims(claims: Annotated[TokenClaims, Depends(get_claims)]) -> int:
            return claims.subject(int)

    app, good, bad = app_with(build), tokens.create_access_token("1"), "x.y.z"
    async with app_client(app) as client:
        for path in ("/user", "/claims"):
            for headers in ({"A": good, "B": bad, "C": bad}, {"B": good, "C": bad}, {"C": good}):
                assert (await client.get(path, headers=headers)).json() == 1
            for headers in ({"A": bad, "B": good}, {"B": bad, "C": good}, {"A": bad}):
                assert_invalid(await client.get(path, headers=headers))
        assert_refused(await client.get("/claims"), "Bearer", "not_authenticated")
        nobody = await client.get("/user")
    assert (nobody.status_code, nobody.json() == 0) == ((200, True) if optional else (401, False))
    for path, first in (("/user", [{}] if optional else []), ("/claims", [])):
        assert app.openapi()["paths"][path]["get"]["security"] == [*first, {"A": []}, {"B": []}, {"C": []}]


async def test_each_transport_is_in_the_document(two_ways: FastAPI) -> None:
    """R29: each transport has its own entry in OpenAPI, and one is enough."""
    document = two_ways.openapi()

    assert document["paths"]["/me"]["get"]["security"] == [{"Key": []}, {"Bearer": []}]
    assert document["components"]["securitySchemes"].keys() == {"Key", "Bearer"}


async def test_the_document(app: FastAPI) -> None:
    """R29: OpenAPI shows the OAuth2 password flow, the scopes, and 401 and 403 with their bodies."""
    document = app.openapi()

    assert document["components"]["securitySchemes"]["Bearer"]["flows"]["password"] == {"scopes": SCOPES, "tokenUrl": "auth/login"}
    me, notes = document["paths"]["/me"]["get"], document["paths"]["/notes"]["get"]
    assert (me["security"], notes["security"]) == ([{"Bearer": []}], [{"Bearer": ["notes:read"]}])
    assert "403" not in me["responses"]
    for response in (me["responses"]["401"], notes["responses"]["401"], notes["responses"]["403"]):
        assert response["content"]["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}


# --- One dependency with two faces ---


@pytest.fixture
def faces(people: People) -> tuple[FastAPI, CurrentUserDependency[Person]]:
    get_user = get_current_user_factory(
        tokens, people.load, session=no_session, transports=[HeaderTransport(), BearerTransport(scopes=SCOPES)]
    )
    app = FastAPI()
    register_exception_handlers(app)

    @app.get("/both")
    async def both(user: Annotated[Person, Depends(get_user)], same: Annotated[Person | None, Depends(get_user.optional)]) -> bool:
        return user is same

    @app.get("/optional")
    async def greet(user: Annotated[Person | None, Depends(get_user.optional)]) -> int | None:
        return user and user.id

    @app.get("/claims", dependencies=[Depends(get_user.optional), Depends(get_user.claims)])
    async def claims() -> None: ...

    @app.get("/scopes", dependencies=[Security(get_user.optional, scopes=["notes:read"])])
    async def scopes() -> None: ...

    @app.get("/required", dependencies=[Depends(require(get_user.optional))])
    async def required() -> None: ...

    @app.get("/verified", dependencies=[Depends(require(get_user.optional, verified=True)), Depends(get_user.optional)])
    async def verified() -> None: ...

    @answering(401)
    async def some_user(user: Annotated[Person | None, Depends(get_user.optional)]) -> None: ...

    @app.get("/own", dependencies=[Depends(some_user)])
    async def own() -> None: ...

    return app, get_user


async def test_both_faces_share_the_user(faces: tuple[FastAPI, CurrentUserDependency[Person]], people: People) -> None:
    """A request loads its user once for the required and the optional dependency, which are one object's."""
    async with app_client(faces[0]) as client:
        assert (await client.get("/both", headers=bearer(tokens, "1"))).json() is True
        assert people.loads == 1
        assert (await client.get("/both")).status_code == 401
        assert (await client.get("/optional")).json() is None
        for headers in ({"Authorization": "Bearer x"}, bearer(tokens, "2")):
            assert_invalid(await client.get("/optional", headers=headers))


async def test_login_as_covers_both_faces(faces: tuple[FastAPI, CurrentUserDependency[Person]], people: People) -> None:
    """R29: ``login_as`` with the required dependency gives the user to the optional one, too; with the optional one, only to that."""
    app, get_user = faces
    async with app_client(app) as client:
        with login_as(app, get_user, Person(7)):
            assert [(await client.get(path)).json() for path in ("/both", "/optional", "/required")] == [True, 7, None]
        with login_as(app, get_user.optional, None):
            assert ((await client.get("/optional")).json(), (await client.get("/both")).status_code) == (None, 401)
    assert (people.loads, app.dependency_overrides) == (0, {})


async def test_the_document_of_an_optional_user(faces: tuple[FastAPI, CurrentUserDependency[Person]]) -> None:
    """R29: OpenAPI shows a login as optional where anonymous requests pass, and 403 only where it can come."""
    paths = faces[0].openapi()["paths"]
    schemes = [{"Key": []}, {"Bearer": []}]

    assert paths["/optional"]["get"]["security"] == [{}, *schemes]
    for path in ("/both", "/claims", "/scopes", "/required", "/verified", "/own"):
        assert {} not in paths[path]["get"]["security"]
    found = {path: {status for status in paths[path]["get"]["responses"] if status in {"401", "403"}} for path in paths}
    assert [path for path, statuses in found.items() if "401" not in statuses] == []
    assert {path for path, statuses in found.items() if "403" in statuses} == {"/scopes", "/verified"}


def test_a_document_is_extended_once(faces: tuple[FastAPI, CurrentUserDependency[Person]]) -> None:
    """R29: a second reading of the document shows the same."""
    assert faces[0].openapi()["paths"]["/optional"]["get"]["security"].count({}) == 1
    assert faces[0].openapi()["paths"]["/optional"]["get"]["security"].count({}) == 1


# --- WebSocket ---


def test_a_websocket(app: FastAPI) -> None:
    """R29: the same dependency gives the user of a WebSocket, before it is accepted."""
    with TestClient(app) as client, client.websocket_connect("/talk", headers=bearer(tokens, "1")) as socket:
        assert socket.receive_text() == "1"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer x.y.z"}, bearer(tokens, "2")])
def test_a_websocket_without_a_valid_token(app: FastAPI, headers: dict[str, str]) -> None:
    """R29: a WebSocket without a valid token is rejected before it is accepted."""
    with TestClient(app) as client, pytest.raises(WebSocketDisconnect), client.websocket_connect("/talk", headers=headers):
        pass
