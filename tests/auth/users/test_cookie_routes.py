"""The ready routes for browsers: cookies instead of tokens, with logins in SQL."""

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from fastapi import APIRouter
from httpx import AsyncClient
from httpx import Response as Answer
from starlette.responses import Response
from tests.auth.accounts import PASSWORD, Registration, Site, UserRead, Users, load_user, store_user
from tests.tables.accounts import Login

from fastapi_kit.auth import BearerTransport, CookieTransport, get_current_user_factory
from fastapi_kit.auth.logins.sql import SQLLoginStore
from fastapi_kit.auth.users import AuthEndpoint, auth_router
from fastapi_kit.db import Database
from fastapi_kit.testing import app_client

COOKIE = CookieTransport(csrf_key=b"kJ8#vQ2!xW5@zR9$nL3%pC7^hF4&dS6*", trusted_origins=["https://app.example.com"])
ACCESS, REFRESH, CSRF = "__Host-session", "__Host-session-refresh", "__Host-session-csrf"
OWN, EVIL = {"Origin": "https://test"}, {"Origin": "https://evil.example"}
FORM = {"username": "ann@example.com", "password": PASSWORD}


class BrowserSite(Site):
    """The app, whose routes log in with cookies."""

    def router(self, endpoints: AuthEndpoint = AuthEndpoint.ALL) -> APIRouter:
        self.get_user = get_current_user_factory(
            self.logins, load_user, session=self.database.session, transports=[BearerTransport(), COOKIE]
        )
        return auth_router(
            self.flow,
            session=self.database.session,
            current_user=self.get_user,
            read=UserRead,
            register=Registration,
            endpoints=endpoints,
            cookie=COOKIE,
        )


@pytest.fixture
def site(users: Database) -> Site:
    store = SQLLoginStore(users.sessions, Login)
    return BrowserSite(users, endpoints=AuthEndpoint.ALL | AuthEndpoint.LOGINS, store=store, check_access=True)


class Browser:
    """A client with a cookie jar, and a page of the application in it."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client

    async def __call__(self, method: str, path: str, **headers: str) -> Answer:
        """Make a request as the page does: with its origin and the CSRF token."""
        csrf = {"X-CSRF-Token": self.client.cookies.get(CSRF, "")} if method != "GET" else {}
        return await self.client.request(method, f"/auth{path}", headers={**OWN, **csrf, **headers})

    async def log_in(self) -> Answer:
        return await self.client.post("/auth/login", data=FORM, headers=OWN)

    async def status(self) -> int:
        return (await self("GET", "/me")).status_code

    @property
    def cookies(self) -> dict[str, str]:
        return dict(self.client.cookies)


@pytest.fixture
async def browser(site: Site) -> AsyncIterator[Browser]:
    """A browser with the login of Ann."""
    await store_user(site.database)
    async with app_client(site.app) as client:
        browser = Browser(client)
        assert (await browser.log_in()).status_code == 204
        yield browser


async def test_a_login(browser: Browser, site: Site) -> None:
    """R44: a login answers no token; its cookies last as long as the login, and the page then reads and writes."""
    answer = await browser.log_in()

    assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (204, b"", "no-store")
    ages = {line.partition("=")[0]: line.partition("Max-Age=")[2].partition(";")[0] for line in answer.headers.get_list("set-cookie")}
    assert ages == {ACCESS: "1800", REFRESH: str(7 * 86_400), CSRF: str(7 * 86_400)}
    assert (await browser("GET", "/me")).json()["email"] == "ann@example.com"
    assert sorted(login["is_current"] for login in (await browser("GET", "/logins")).json()) == [False, True]


@pytest.mark.parametrize("password", [PASSWORD, "wrong"])
@pytest.mark.parametrize("headers", [EVIL, {}, {"Origin": "null"}, {"Referer": "https://evil.example/"}])
async def test_a_login_by_another_site(browser: Browser, site: Site, headers: dict[str, str], password: str) -> None:
    """R44: another site cannot log its visitors in as somebody else; no password is verified for it."""
    before = browser.cookies

    answer = await browser.client.post("/auth/login", data={**FORM, "password": password}, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (403, "cross_site_request")
    assert "set-cookie" not in answer.headers
    assert browser.cookies == before
    assert len(await site.logins.list_logins("1")) == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("login", ["", "a b", "\xe4", '"a', "x" * 4000, "x" * 65])
async def test_a_refresh_with_another_id(browser: Browser, site: Site, login: str) -> None:
    """R44: a refresh cookie whose random id was replaced is a 401, also with the CSRF token of the other id, and uses up no token."""
    token = browser.cookies[REFRESH].partition(".")[2]
    forged = f"{REFRESH}={login}.{token}".encode("latin-1")
    csrf = hmac.digest(COOKIE.csrf_key, login.encode(), "sha256").hex()
    async with app_client(site.app) as stranger:
        headers = {b"Cookie": forged, b"Origin": b"https://test", b"X-CSRF-Token": csrf.encode()}
        answer = await stranger.post("/auth/refresh", headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
    assert (await browser("POST", "/refresh")).status_code == 204


async def test_a_wrong_password(browser: Browser) -> None:
    """R44: a failed login sets no cookie."""
    answer = await browser.client.post("/auth/login", data={**FORM, "password": "wrong"}, headers=OWN)
    assert (answer.status_code, answer.json()["code"], "set-cookie" in answer.headers) == (401, "invalid_credentials", False)


async def test_a_refresh(browser: Browser, site: Site) -> None:
    """R44: a browser stays logged in beyond the access token: the refresh replaces both tokens, and the CSRF token stays."""
    before = browser.cookies
    site.clock.advance(timedelta(minutes=31))
    assert await browser.status() == 401
    browser.client.cookies.delete(ACCESS)  # as a browser does after 30 minutes

    answer = await browser("POST", "/refresh")

    assert (answer.status_code, answer.content) == (204, b"")
    after = browser.cookies
    assert [after[name] != before[name] for name in (ACCESS, REFRESH, CSRF)] == [True, True, False]
    assert await browser.status() == 200
    assert len(await site.logins.list_logins("1")) == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("path", ["/refresh", "/logout", "/logout/everywhere"])
@pytest.mark.parametrize(
    "headers", [EVIL, {"Origin": "null"}, {"X-CSRF-Token": "wrong"}, {"X-CSRF-Token": ""}], ids=["evil", "null", "wrong", "none"]
)
async def test_a_request_of_another_site(browser: Browser, path: str, headers: dict[str, str]) -> None:
    """R44: another site can neither refresh nor end a login, nor delete its cookies."""
    before = browser.cookies

    answer = await browser("POST", path, **headers)

    assert (answer.status_code, answer.json()["code"], "set-cookie" in answer.headers) == (403, "cross_site_request", False)
    assert (browser.cookies, await browser.status()) == (before, 200)


@pytest.mark.parametrize("path", ["/refresh", "/logout", "/logout/everywhere"])
async def test_without_cookies(browser: Browser, path: str) -> None:
    """R44: without cookies, which SameSite keeps from other sites, another site cannot have those of its visitor deleted either."""
    browser.client.cookies.clear()

    foreign = await browser("POST", path, **EVIL)
    own = await browser("POST", path)

    assert (foreign.status_code, "set-cookie" in foreign.headers) == (403, False)
    assert own.status_code == (204 if path == "/logout" else 401)
    assert len(own.headers.get_list("set-cookie")) == 3


async def test_a_logout(browser: Browser, site: Site) -> None:
    """R41, R44: a logout ends the login and deletes the cookies."""
    stolen = browser.cookies

    assert (await browser("POST", "/logout")).status_code == 204

    assert (browser.cookies, await browser.status()) == ({}, 401)
    assert list(await site.logins.list_logins("1")) == []  # type: ignore[union-attr]
    browser.client.cookies.update(stolen)
    assert (await browser.status(), (await browser("POST", "/refresh")).status_code) == (401, 401)


async def test_a_logout_after_the_access_token(browser: Browser, site: Site) -> None:
    """R41, R44: a logout also ends a login whose access token has expired."""
    browser.client.cookies.delete(ACCESS)

    assert (await browser("POST", "/logout")).status_code == 204
    assert list(await site.logins.list_logins("1")) == []  # type: ignore[union-attr]


async def test_a_logout_of_an_access_token_alone(browser: Browser, site: Site) -> None:
    """R41, R44: a login whose browser has no refresh token is ended, too."""
    browser.client.cookies.delete(REFRESH)

    assert (await browser("POST", "/logout", **{"X-CSRF-Token": "wrong"})).status_code == 403
    assert (await browser("POST", "/logout")).status_code == 204
    assert list(await site.logins.list_logins("1")) == []  # type: ignore[union-attr]


@pytest.mark.parametrize(("path", "status"), [("/logout", 204), ("/logout/everywhere", 401), ("/refresh", 401)])
@pytest.mark.parametrize("how", ["ended", "expired", "garbage", "twice"])
async def test_a_login_that_is_over(browser: Browser, site: Site, path: str, status: int, how: str) -> None:
    """R41, R44: if the login is over already, the cookies are deleted all the same, so that no browser is stuck with them."""
    csrf = {}
    if how == "ended":
        await site.logins.end_all("1")  # type: ignore[union-attr]
    elif how == "expired":
        site.clock.advance(timedelta(days=8))
    elif how == "garbage":
        login = browser.cookies[REFRESH].partition(".")[0]
        browser.client.cookies.clear()
        browser.client.cookies.set(REFRESH, f"{login}.garbage")
        csrf = {"X-CSRF-Token": COOKIE._csrf_token(login)}
    else:
        csrf = {"Cookie": f"{REFRESH}=a.b; {REFRESH}=c.d"}

    answer = await browser("POST", path, **csrf)

    assert answer.status_code == status
    assert all("Max-Age=0" in line for line in answer.headers.get_list("set-cookie"))
    assert len(answer.headers.get_list("set-cookie")) == 3
    if status == 401:
        assert answer.json()["code"] == "invalid_token"
        assert answer.headers["www-authenticate"] == 'Cookie error="invalid_token"'


async def test_a_logout_of_who_acts_as_a_user(browser: Browser, site: Site) -> None:
    """R50: a superuser who acts as a user in a browser can stop: the cookies are deleted, and no login of the user ends."""
    await store_user(site.database, "root@example.com", is_superuser=True)
    own = site.tokens.decode((await site.logins.start("2")).access_token)
    response = Response()
    COOKIE.log_in(response, site.tokens.create_access_token("1", sid=own.sid, actor="2"))
    jar = dict(line.partition(";")[0].split("=", 1) for line in response.headers.getlist("set-cookie") if "Max-Age=0" not in line)
    headers = {**OWN, "Cookie": f"{ACCESS}={jar[ACCESS]}", "X-CSRF-Token": jar[CSRF]}
    browser.client.cookies.clear()
    assert (await browser.client.get("/auth/me", headers=headers)).status_code == 200

    everywhere = await browser.client.post("/auth/logout/everywhere", headers=headers)
    answer = await browser.client.post("/auth/logout", headers=headers)

    assert (everywhere.status_code, everywhere.json()["code"]) == (403, "impersonated")
    assert (answer.status_code, len(answer.headers.get_list("set-cookie"))) == (204, 3)
    assert [len(await site.logins.list_logins(subject)) for subject in ("1", "2")] == [1, 1]  # type: ignore[union-attr]


async def test_logout_everywhere(browser: Browser, site: Site) -> None:
    """R41, R44: a logout everywhere ends all logins and deletes the cookies, also after the access token has expired."""
    async with app_client(site.app) as client:
        phone = Browser(client)
        await phone.log_in()
        browser.client.cookies.delete(ACCESS)

        assert (await browser("POST", "/logout/everywhere")).status_code == 204

        assert (browser.cookies, await phone.status()) == ({}, 401)
        assert (await phone("POST", "/refresh")).status_code == 401


async def test_a_used_refresh_token_ends_no_other_login(browser: Browser, site: Site) -> None:
    """R41, R44: the refresh token of a login that is over cannot end the others."""
    old = browser.cookies
    await browser("POST", "/logout")
    await browser.log_in()
    async with app_client(site.app) as client:
        thief = Browser(client)
        client.cookies.update(old)

        assert (await thief("POST", "/logout/everywhere")).status_code == 401

    assert await browser.status() == 200


async def test_a_used_refresh_token_of_a_login_that_goes_on(browser: Browser, site: Site) -> None:
    """R41, R38, R44: a refresh token that was used up cannot end the other logins either: it ends its own, as with a refresh."""
    old = browser.cookies
    await browser("POST", "/refresh")
    site.clock.advance(timedelta(minutes=1))
    async with app_client(site.app) as client, app_client(site.app) as another:
        phone, thief = Browser(another), Browser(client)
        await phone.log_in()
        client.cookies.update(old)

        assert (await thief("POST", "/logout/everywhere")).status_code == 401

        assert (await phone.status(), await browser.status(), len(site.reused)) == (200, 401, 1)


async def test_two_tabs(browser: Browser, site: Site) -> None:
    """R38, R44: within the grace, two tabs may refresh at once."""
    before = browser.cookies
    answers = await asyncio.gather(
        *(browser("POST", "/refresh", Cookie="; ".join(f"{n}={v}" for n, v in before.items())) for _ in range(5))
    )

    assert [answer.status_code for answer in answers] == [204] * 5
    assert (await browser.status(), site.reused) == (200, [])


async def test_a_stolen_refresh_token(browser: Browser, site: Site) -> None:
    """R38, R44: a refresh token that comes back ends the login, and the cookies of both are deleted."""
    stolen = browser.cookies
    await browser("POST", "/refresh")
    site.clock.advance(timedelta(minutes=1))
    async with app_client(site.app) as client:
        client.cookies.update(stolen)
        answer = await Browser(client)("POST", "/refresh")
    assert answer.status_code == 401
    assert ["Max-Age=0" in line for line in answer.headers.get_list("set-cookie")] == [True] * 3
    assert (await browser.status(), (await browser("POST", "/refresh")).status_code, browser.cookies) == (401, 401, {})
    assert len(site.reused) == 1


async def test_an_inactive_user(browser: Browser, site: Site) -> None:
    """R42, R44: an inactive user is a 401; the refresh deletes the cookies, the logout works."""
    async with site.database.begin() as session:
        await Users(session).update(1, {"is_active": False})

    assert (await browser.status(), (await browser("POST", "/refresh")).status_code, browser.cookies) == (401, 401, {})


async def test_a_trusted_origin(browser: Browser) -> None:
    """R44: a page of a trusted origin has all routes."""
    there = {"Origin": "https://app.example.com"}
    assert (await browser.client.post("/auth/login", data=FORM, headers=there)).status_code == 204
    assert (await browser("POST", "/refresh", **there)).status_code == 204
    assert (await browser("POST", "/logout", **there)).status_code == 204


async def test_nothing_is_shown(browser: Browser, caplog: pytest.LogCaptureFixture) -> None:
    """R28, R44: neither a log nor the body of an answer has a cookie or a token."""
    secrets = set(browser.cookies.values()) | {value.partition(".")[2] for value in browser.cookies.values()} - {""}

    with caplog.at_level(logging.DEBUG, "fastapi_kit"):
        answers = [
            await browser("POST", "/refresh", **{"X-CSRF-Token": "wrong"}),
            await browser("GET", "/me"),
            await browser("GET", "/logins"),
            await browser("POST", "/refresh"),
            await browser("POST", "/logout"),
        ]

    shown = caplog.text + "".join(answer.text for answer in answers)
    assert [secret for secret in secrets if secret in shown] == []


async def test_other_routes_stay(site: Site) -> None:
    """R44: the routes are the same ones, with other answers: no body, 403 for another site, and no token to send."""
    paths = site.app.openapi()["paths"]

    found = {path: paths[f"/auth{path}"]["post"] for path in ("/login", "/refresh", "/logout", "/logout/everywhere")}
    assert {path: sorted(operation["responses"]) for path, operation in found.items()} == {
        "/login": ["204", "400", "401", "403", "413", "422", "503", "default"],
        "/refresh": ["204", "401", "403", "503", "default"],
        "/logout": ["204", "403", "503", "default"],
        "/logout/everywhere": ["204", "401", "403", "503", "default"],
    }
    assert [path for path, operation in found.items() if "requestBody" in operation] == ["/login"]
    assert {"/auth/me", "/auth/register", "/auth/logins", "/auth/logins/{id}"} <= paths.keys()
    assert "content" not in found["/login"]["responses"]["204"]


async def test_logins_without_a_store(users: Database) -> None:
    """R44: login and refresh also work with logins that are not stored."""
    site = BrowserSite(users)
    await store_user(users)
    async with app_client(site.app) as client:
        browser = Browser(client)
        statuses = [(await browser.log_in()).status_code, (await browser("POST", "/refresh")).status_code, await browser.status()]
    assert statuses == [204, 204, 200]
