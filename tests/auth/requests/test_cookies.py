"""A login in cookies: what a browser gets, and what pages of other sites cannot do with it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from http.cookies import SimpleCookie
from itertools import product
from typing import Annotated, Any, Literal

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Response, WebSocket
from httpx import AsyncClient
from httpx import Response as HttpResponse
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from tests.auth.people import People, Person, app_with, client_of, no_session, tokens
from tests.auth.tokens.hostile_tokens import hostile_tokens
from tests.thorough import sample

from fastapi_kit import KitSettings
from fastapi_kit.auth import BearerTransport, CookieTransport, Transport, get_current_user_factory
from fastapi_kit.auth.logins import StatelessLogins, TokenPair
from fastapi_kit.auth.requests.cookies import Held, cookies_named
from fastapi_kit.auth.requests.websocket import AuthMessage
from fastapi_kit.errors import ConfigurationError, CrossSiteRequestError, InvalidTokenError
from fastapi_kit.testing import app_client, bearer

KEY = b"kJ8#vQ2!xW5@zR9$nL3%pC7^hF4&dS6*"
COOKIE = CookieTransport(csrf_key=KEY, trusted_origins=["https://app.example.com", "http://localhost:5173"])
NAMES = ("__Host-session", "__Host-session-refresh", "__Host-session-csrf")
OWN = {"Origin": "https://test"}


@dataclass
class Browser:
    """The cookies of a login, as a browser holds them."""

    cookies: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def csrf(self) -> dict[str, str]:
        return {"X-CSRF-Token": self.cookies[NAMES[2]]}

    @property
    def header(self) -> dict[str, str]:
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}

    def take(self, response: Response) -> None:
        for line in response.headers.getlist("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value


async def pair_of(subject: str = "1") -> TokenPair:
    return await StatelessLogins(tokens).start(subject)


async def logged_in(subject: str = "1", cookie: CookieTransport = COOKIE) -> Browser:
    browser, response = Browser(), Response()
    cookie.log_in(response, await pair_of(subject), lifetime=timedelta(days=7))
    browser.take(response)
    return browser


class Site:
    """An app whose routes count how often they ran."""

    def __init__(self, *transports: Transport) -> None:
        self.runs = 0
        self.people = People(Person(1), Person(2))
        self.get_user = get_current_user_factory(tokens, self.people.load, session=no_session, transports=transports or [COOKIE])
        self.app = app_with(self.build)

    def build(self, app: FastAPI) -> None:
        @app.api_route(
            "/me", methods=["GET", "HEAD", "OPTIONS", "TRACE", "POST", "PUT", "PATCH", "DELETE", "PURGE"], include_in_schema=False
        )
        async def me(user: Annotated[Person, Depends(self.get_user)]) -> int:
            self.runs += 1
            return user.id

        @app.get("/optional")
        async def optional(user: Annotated[Person | None, Depends(self.get_user.optional)]) -> int | None:
            return user and user.id

        @app.post("/optional")
        async def post_optional(user: Annotated[Person | None, Depends(self.get_user.optional)]) -> None: ...

        @app.get("/csrf")
        async def csrf(request: Request) -> str | None:
            return COOKIE.csrf_token(request)

        @app.websocket("/talk")
        async def talk(socket: WebSocket, user: Annotated[Person, Depends(self.get_user)]) -> None:
            await socket.accept()
            await socket.send_text(str(user.id))


# --- What the browser gets ---


async def test_the_cookies() -> None:
    """R44: three cookies with the prefix ``__Host-``: Secure, SameSite=Lax, for the whole host; scripts read the CSRF token only."""
    response, pair = Response(), await pair_of()

    COOKIE.log_in(response, pair, lifetime=timedelta(days=7))

    lines = [line.split("; ") for line in response.headers.getlist("set-cookie")]
    assert [line[0].partition("=")[0] for line in lines] == list(NAMES)
    access, refresh, csrf = [set(line[1:]) for line in lines]
    common = {"Path=/", "SameSite=lax", "Secure"}
    assert access == common | {"HttpOnly", "Max-Age=1800"}
    assert refresh == common | {"HttpOnly", "Max-Age=604800"}
    assert csrf == common | {"Max-Age=604800"}
    assert lines[0][0].endswith(f".{pair.access_token}")
    assert lines[1][0].endswith(f".{pair.refresh_token}")


async def test_cookies_until_the_browser_is_closed() -> None:
    """R44: without a lifetime no cookie outlives the browser; with a short one none outlives that."""
    session, short = Response(), Response()

    COOKIE.log_in(session, await pair_of())
    COOKIE.log_in(short, await pair_of(), lifetime=timedelta(seconds=5))

    assert [line for line in session.headers.getlist("set-cookie") if "Max-Age" in line] == []
    assert all("Max-Age=5;" in line for line in short.headers.getlist("set-cookie"))


async def test_an_access_token_alone() -> None:
    """R44: a login without a refresh token has two cookies, and one of an earlier login is deleted."""
    browser, response = await logged_in(), Response()

    COOKIE.log_in(response, tokens.create_access_token("1"), lifetime=timedelta(minutes=30))
    browser.take(response)

    assert browser.cookies.keys() == {NAMES[0], NAMES[2]}
    async with app_client(Site().app) as client:
        assert (await client.get("/me", headers=browser.header)).json() == 1


async def test_a_logout() -> None:
    """R44: a logout deletes all cookies, with the attributes that a browser wants for it."""
    browser, response = await logged_in(), Response()

    COOKIE.log_out(response)
    browser.take(response)

    assert browser.cookies == {}
    assert all("Secure" in line and "Path=/" in line and "Domain" not in line for line in response.headers.getlist("set-cookie"))


async def test_development_without_tls() -> None:
    """R44: ``allow_insecure_http`` is another name without Secure, and http is then an own origin on every host."""
    insecure = CookieTransport(csrf_key=KEY, allow_insecure_http=True)
    response = Response()
    insecure.log_in(response, await pair_of())
    browser = Browser()
    browser.take(response)
    headers = {**browser.header, "Origin": "http://box.lan:8000", "X-CSRF-Token": browser.cookies["session-csrf"]}

    assert browser.cookies.keys() == {"session", "session-refresh", "session-csrf"}
    assert not any("Secure" in line for line in response.headers.getlist("set-cookie"))
    async with app_client(Site(insecure).app, base_url="http://box.lan:8000") as client:
        assert (await client.post("/me", headers=headers)).json() == 1
    secure = await logged_in()
    async with app_client(Site().app, base_url="http://box.lan:8000") as client:
        answer = await client.post("/me", headers={**secure.header, **secure.csrf, "Origin": "http://box.lan:8000"})
    assert answer.status_code == 403


@pytest.mark.parametrize("token", ["x" * 4096, "a;b", "a b", 'a"b', "ä", "a\r\nSet-Cookie: b=c", "\0", "\ud800", ""], ids=ascii)
def test_a_token_that_no_cookie_can_have(token: str) -> None:
    """R44: a token that a browser would ignore, or that would break the header, is a ConfigurationError without the token."""
    response = Response()

    if token == "":
        COOKIE.log_in(response, token)  # an empty token is invalid, and harmless
        return
    with pytest.raises(ConfigurationError, match="cookie") as caught:
        COOKIE.log_in(response, token)
    assert token not in str(caught.value)
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"csrf_key": b"x" * 31}, "32 random bytes"),
        ({"name": "session"}, "__Host-"),
        ({"name": "__Host-"}, "__Host-"),
        ({"name": "__Host-a b"}, "__Host-"),
        ({"name": "__Host-a;b"}, "__Host-"),
        ({"name": "__host-session"}, "__Host-"),
        ({"csrf_header": "X CSRF"}, "header"),
        ({"csrf_header": ""}, "header"),
        ({"same_site": "Lax"}, "same_site"),
        ({"same_site": "none", "allow_insecure_http": True}, "Secure"),
        ({"trusted_origins": "https://app.example.com"}, "collection"),
        *(
            ({"trusted_origins": [origin]}, "origin")
            for origin in (
                "*",
                "null",
                "",
                "app.example.com",
                "https://*.example.com",
                "https://app.example.com/",
                "https://app.example.com/path",
                "https://user@app.example.com",
                "https://app.example.com:port",
                "https://app.example.com https://other.example.com",
                "https://äpp.example.com",
                "https://app.example.com\n",
            )
        ),
    ],
)
def test_a_wrong_configuration(options: dict[str, Any], message: str) -> None:
    """R44: what would weaken the defence is rejected when the transport is made."""
    with pytest.raises(ConfigurationError, match=message):
        CookieTransport(**{"csrf_key": KEY, **options})


async def test_from_settings() -> None:
    """R44: the key comes from SECRET_KEY, without being it, and the origins of CORS are trusted; a wildcard is rejected."""
    secret = SecretStr("o3Q9vK1cXf7mZ2rT8yLwB5nH4dJ6sGaE")
    settings = KitSettings(SECRET_KEY=secret, ALLOWED_ORIGINS=["https://app.example.com"])
    cookie = CookieTransport.from_settings(settings)

    assert cookie == CookieTransport.from_settings(settings)
    assert (len(cookie.csrf_key), cookie.csrf_key in secret.get_secret_value().encode()) == (32, False)
    assert cookie.trusted_origins == {"https://app.example.com"}
    with pytest.raises(ConfigurationError, match="wildcard"):
        CookieTransport.from_settings(KitSettings(SECRET_KEY=secret, ALLOWED_ORIGINS=["*"]))


def test_a_key_that_is_no_bytes() -> None:
    """R44: a key of another type is a TypeError when the transport is made."""
    with pytest.raises(TypeError):
        CookieTransport(csrf_key="x" * 32)  # type: ignore[arg-type]


def test_the_repr_of_what_a_client_sent() -> None:
    """R28: what a cookie or a first message holds is not in a repr, such as one in a traceback with local variables."""
    assert "secret" not in f"{Held(login='secret', token='secret')!r} {AuthMessage(type='auth', token='secret')!r}"


def test_the_repr() -> None:
    """R44: the key is not in the repr."""
    assert "kJ8" not in repr(COOKIE)


# --- Cross-site request forgery ---

SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
UNSAFE = ("POST", "PUT", "PATCH", "DELETE", "PURGE")
GOOD_ORIGINS: Sequence[dict[str, str]] = [
    {"Origin": "https://test"},
    {"Origin": "https://TEST"},
    {"Origin": "https://test:443"},
    {"Origin": "https://app.example.com"},
    {"Origin": "http://localhost:5173"},
    {"Origin": "https://test", "Referer": "https://evil.example"},
    {"Referer": "https://test"},
    {"Referer": "https://test/path?query#part"},
    {"Referer": "https://app.example.com/"},
]
BAD_ORIGINS: Sequence[dict[str, str]] = [
    {},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "*"},
    {"Origin": "test"},
    {"Origin": "http://test"},
    {"Origin": "https://test:8443"},
    {"Origin": "https://evil.example"},
    {"Origin": "https://test.evil.example"},
    {"Origin": "https://eviltest"},
    {"Origin": "https://test@evil.example"},
    {"Origin": "https://evil.example#https://test"},
    {"Origin": "https://test https://evil.example"},
    {"Origin": "https://app.example.com.evil.example"},
    {"Origin": "https://sub.app.example.com"},
    {"Origin": "http://app.example.com"},
    {"Origin": "https://localhost:5173"},
    {"Origin": "null", "Referer": "https://test/"},
    {"Origin": "https://evil.example", "Referer": "https://test/"},
    {"Referer": "https://evil.example/https://test/"},
    {"Referer": "https://test@evil.example/"},
    {"Referer": "https://test:443@evil.example/"},
    {"Referer": "https://test\\@evil.example/"},
    {"Referer": "https://test.evil.example/"},
    {"Referer": "//test/"},
    {"Referer": "about:blank"},
]


@pytest.mark.only_full
async def test_every_combination() -> None:
    """R44: an unsafe method passes with the right CSRF token from a trusted origin, and is a 403 otherwise. A safe one needs neither."""
    site, browser, other = Site(), await logged_in(), await logged_in()
    right = browser.cookies[NAMES[2]]
    csrf: list[tuple[dict[str, str], bool]] = [({"X-CSRF-Token": right}, True)]
    wrong = ["", "x", right[:-1], right + "0", right.upper(), f" {right},{right}", other.cookies[NAMES[2]], "é", "0" * 10_000]
    csrf += [({}, False), *(({"X-CSRF-Token": value}, False) for value in wrong if value != right)]
    origins = [(headers, True) for headers in GOOD_ORIGINS] + [(headers, False) for headers in BAD_ORIGINS]
    async with app_client(site.app) as client:
        for method, (token, token_fits), (origin, origin_fits) in sample(product((*SAFE, *UNSAFE), csrf, origins)):
            before, passes = site.runs, method in SAFE or (token_fits and origin_fits)
            headers = [(name, value.encode()) for name, value in {**browser.header, **token, **origin}.items()]

            answer = await send(client, method, headers)

            assert (answer.status_code, site.runs - before) == ((200, 1) if passes else (403, 0)), (method, token, origin)


async def send(client: AsyncClient, method: str, headers: list[tuple[str, bytes]]) -> HttpResponse:
    return await client.request(method, "/me", headers=[(name.encode(), value) for name, value in headers])


async def test_two_headers() -> None:
    """R44: two CSRF headers, and two origins, are a 403, even if both are right."""
    browser = await logged_in()
    token, origin = ("X-CSRF-Token", browser.csrf["X-CSRF-Token"].encode()), ("Origin", b"https://test")
    cookie = ("Cookie", browser.header["Cookie"].encode())
    async with app_client(Site().app) as client:
        answers = [await send(client, "POST", [cookie, token, origin, *more]) for more in ([], [token], [origin])]
    assert [answer.status_code for answer in answers] == [200, 403, 403]


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"Origin": "https://evil.example"}, "an origin in trusted_origins"),
        ({"Origin": "https://test"}, "needs the header X-CSRF-Token with the value of the cookie __Host-session-csrf"),
    ],
)
async def test_a_403_says_what_to_do(headers: dict[str, str], text: str, caplog: pytest.LogCaptureFixture) -> None:
    """R44: the 403 says what the request needs, and nothing of what it had."""
    browser = await logged_in()

    with caplog.at_level(logging.DEBUG):
        async with app_client(Site().app) as client:
            answer = await client.post("/me", headers={**browser.header, **headers, "X-CSRF-Token": "sent-by-the-client"})

    assert (answer.status_code, answer.json()["code"]) == (403, "cross_site_request")
    assert text in answer.json()["detail"]
    shown = answer.text + caplog.text
    assert not any(secret in shown for secret in ("evil", "sent-by-the-client", *browser.cookies.values()))


async def test_the_local_host() -> None:
    """R44: http is an own origin on localhost, where browsers keep secure cookies."""
    browser = await logged_in()
    for host in ("localhost:8000", "127.0.0.1:8000", "[::1]:8000", "app.localhost"):
        async with app_client(Site().app, base_url=f"http://{host}") as client:
            headers = {**browser.header, **browser.csrf, "Origin": f"http://{host}"}
            assert (await client.post("/me", headers=headers)).status_code == 200
            assert (await client.post("/me", headers={**headers, "Origin": "http://localhost:9999"})).status_code == 403


async def test_another_key() -> None:
    """R44: a CSRF token of another key is a 403."""
    browser = await logged_in(cookie=CookieTransport(csrf_key=KEY[::-1]))
    async with app_client(Site().app) as client:
        assert (await client.post("/me", headers={**browser.header, **browser.csrf, **OWN})).status_code == 403


async def test_the_token_of_a_login_stays() -> None:
    """R44: after a refresh the CSRF token is the same, so a page that knows it works on; a new login has another."""
    browser, renewed = await logged_in(), Response()
    before, csrf = dict(browser.cookies), browser.csrf
    scope = {"type": "http", "method": "POST", "headers": [(b"cookie", browser.header["Cookie"].encode())]}

    COOKIE.log_in(renewed, await pair_of(), lifetime=timedelta(days=7), continuing=HTTPConnection(scope))
    browser.take(renewed)

    assert browser.csrf == csrf
    assert browser.cookies[NAMES[0]] != before[NAMES[0]]
    assert (await logged_in()).csrf != csrf


async def test_the_csrf_token_for_another_origin() -> None:
    """R44: a route can answer the CSRF token to a page of another origin, which cannot read the cookie."""
    browser = await logged_in()
    async with app_client(Site().app) as client:
        answer = await client.get("/csrf", headers=browser.header)
        assert answer.json() == browser.cookies[NAMES[2]]
        del browser.cookies[NAMES[0]]  # it has expired
        assert (await client.get("/csrf", headers=browser.header)).json() == answer.json()
        assert (await client.get("/csrf")).json() is None


# --- Whose token counts ---


@pytest.mark.parametrize("token", sorted(set(hostile_tokens()))[::5], ids=lambda token: ascii(token)[:30])
async def test_an_invalid_cookie(token: str) -> None:
    """R22, R44: an invalid token in the cookie is the same 401 as anywhere."""
    async with app_client(Site().app) as client:
        answer = await client.get("/me", headers=[(b"Cookie", f"{NAMES[0]}=id.{token}".encode("utf-8", "surrogatepass"))])
    if ";" in token:
        return  # a cookie ends there
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
    assert answer.headers["www-authenticate"] == 'Cookie error="invalid_token"'


async def test_no_cookie() -> None:
    """R21: without a cookie, and with cookies of other names, the request is anonymous."""
    async with app_client(Site().app) as client:
        for headers in ({}, {"Cookie": "other=1"}, {"Cookie": "session=x"}, {"Cookie": "__host-session=x"}, {"Cookie": NAMES[0]}):
            answer = await client.get("/me", headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Cookie")
            assert (await client.get("/optional", headers=headers)).json() is None


async def test_a_refresh_token_in_the_place_of_an_access_token() -> None:
    """R17: the refresh cookie does not work under the name of the other."""
    browser = await logged_in()
    async with app_client(Site().app) as client:
        answer = await client.get("/me", headers={"Cookie": f"{NAMES[0]}={browser.cookies[NAMES[1]]}"})
    assert answer.json()["code"] == "invalid_token"


async def test_two_cookies() -> None:
    """R44: two cookies with the name are a 401, also if they are equal or in two headers: one of them may be of another host."""
    mine, other = await logged_in("1"), await logged_in("2")
    one, two = (f"{NAMES[0]}={browser.cookies[NAMES[0]]}" for browser in (mine, other))
    async with app_client(Site().app) as client:
        for headers in ([("Cookie", f"{one}; {two}")], [("Cookie", f"{one};{one}")], [("Cookie", one), ("Cookie", two)]):
            assert (await client.get("/me", headers=headers)).json()["code"] == "invalid_token"
        split = [("Cookie", "a=b"), ("Cookie", one)]
        assert (await client.get("/me", headers=split)).json() == 1


@pytest.mark.parametrize("blank", [b"\xa0", b"\x85", b"\xc2\xa0", b"\xe2\x80\x80", b"\x0b", b"\x0c", b"\x1c", b"\x1f", b"$Path=/,", b"="])
async def test_a_cookie_of_another_host(blank: bytes) -> None:
    """R44: a cookie whose name has other blanks before the prefix, which another host can set, is not read."""
    attacker, mine = await logged_in("2"), await logged_in("1")
    tossed = blank + f"{NAMES[0]}={attacker.cookies[NAMES[0]]}".encode()
    async with app_client(Site().app) as client:
        assert (await client.get("/optional", headers=[(b"Cookie", tossed)])).json() is None
        both = [(b"Cookie", tossed + b"; " + mine.header["Cookie"].encode())]
        assert (await client.get("/me", headers=both)).json() == 1


@pytest.mark.parametrize("cookie_first", [True, False])
async def test_the_order_of_transports(cookie_first: bool) -> None:
    """R26: the first transport with a token decides, so a stale cookie beside a good header is a 401 only where the cookie is first."""
    ways: list[Transport] = [COOKIE, BearerTransport()] if cookie_first else [BearerTransport(), COOKIE]
    stale, fresh = {"Cookie": f"{NAMES[0]}=id.stale"}, await logged_in("2")
    async with app_client(Site(*ways).app) as client:
        by_header = await client.get("/me", headers={**stale, **bearer(tokens, "1")})
        by_both = await client.get("/me", headers={**fresh.header, **bearer(tokens, "1")})
        write = await client.post("/me", headers={**fresh.header, **bearer(tokens, "1")})
        by_cookie = await client.get("/me", headers={**fresh.header, "Authorization": "Basic eDp5"})
    assert by_header.status_code == (401 if cookie_first else 200)
    assert by_both.json() == (2 if cookie_first else 1)
    # Another site cannot set the header, so with the header first no CSRF token is needed beside it.
    assert write.status_code == (403 if cookie_first else 200)
    assert by_cookie.json() == 2


@given(st.text(st.characters(codec="latin-1"), max_size=80))
def test_any_cookie_header(text: str) -> None:
    """R44: no text in the header raises another error than that of an invalid token."""
    header = f"{NAMES[0]}={text}".encode("latin-1")
    connection = HTTPConnection({"type": "http", "method": "GET", "headers": [(b"cookie", header)]})
    assert all(isinstance(value, str) for value in cookies_named(connection, NAMES[0]))
    try:
        COOKIE.csrf_token(connection)
        COOKIE.refresh_token(HTTPConnection({"type": "http", "headers": [(b"cookie", header.replace(b"session", b"session-refresh"))]}))
    except (InvalidTokenError, CrossSiteRequestError):
        pass


@pytest.mark.parametrize(
    "value",
    [
        b'"quoted"',
        b"a;b",
        b"a,b",
        b"\xc3\xa4",
        b"\xff\xfe",
        b"\x00",
        b"%00%0d%0a",
        b"x" * 1_000_000,
        b".",
        b"..",
        b"....",
        b"=",
        b"a=b=c",
        b"",
    ],
    ids=lambda value: ascii(value[:20]),
)
@pytest.mark.parametrize("name", NAMES)
async def test_a_hostile_cookie(value: bytes, name: str) -> None:
    """R44: quotes, semicolons, other alphabets and huge values are a 401, or ignored, for each cookie and method."""
    async with app_client(Site().app) as client:
        for method in ("GET", "POST"):
            answer = await client.request(method, "/me", headers=[(b"Cookie", f"{name}=".encode() + value)])
            assert answer.status_code == 401
            assert len(answer.content) < 1000


# --- WebSockets ---


@pytest.mark.parametrize(("headers", "accepted"), [*((each, True) for each in GOOD_ORIGINS), *((each, False) for each in BAD_ORIGINS)])
async def test_the_origin_of_a_websocket(headers: dict[str, str], accepted: bool) -> None:
    """R44, R49: a page of another site cannot open a WebSocket with the cookies of its visitor."""
    browser = await logged_in()
    with TestClient(Site().app, base_url="https://test") as client:
        given = {**browser.header, "Host": "test", **headers}
        if accepted:
            with client.websocket_connect("/talk", headers=given) as socket:
                assert socket.receive_text() == "1"
        else:
            with pytest.raises(WebSocketDisconnect), client.websocket_connect("/talk", headers=given):
                pass


# --- OpenAPI ---


async def test_the_document() -> None:
    """R29: OpenAPI shows the cookie beside the other transports, and the header that other methods need."""
    document = Site(BearerTransport(), COOKIE).app.openapi()

    assert document["paths"]["/optional"]["get"]["security"] == [{}, {"Bearer": []}, {"Cookie": []}]
    shown = document["components"]["securitySchemes"]["Cookie"]
    assert (shown["type"], shown["in"], shown["name"]) == ("apiKey", "cookie", NAMES[0])
    assert "X-CSRF-Token" in shown["description"]
    operations = document["paths"]["/optional"]
    assert {method: "403" in operation["responses"] for method, operation in operations.items()} == {"get": False, "post": True}


@pytest.mark.parametrize("same_site", ["lax", "strict", "none"])
async def test_same_site(same_site: Literal["lax", "strict", "none"]) -> None:
    """R44: the attribute is the configured one, in every cookie."""
    response = Response()
    CookieTransport(csrf_key=KEY, same_site=same_site).log_in(response, await pair_of())
    assert all(f"SameSite={same_site}" in line for line in response.headers.getlist("set-cookie"))


async def test_a_login_route_of_your_own() -> None:
    """R44: a login route of your own rejects a page that would log its visitor in as somebody else."""
    router = APIRouter()

    @router.post("/login", status_code=204)
    async def login(request: Request, response: Response) -> None:
        COOKIE.check_origin(request)
        COOKIE.log_in(response, await pair_of())

    async with client_of(lambda app: app.include_router(router)) as client:
        evil = await client.post("/login", headers={"Origin": "https://evil.example"})
        assert (evil.status_code, evil.headers.get("set-cookie")) == (403, None)
        assert (await client.post("/login", headers=OWN)).status_code == 204
        assert set(client.cookies) == set(NAMES)
