"""Links in mails: verification of an address, a forgotten password, a new address, and a registration that shows nothing."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI, Request
from httpx import ASGITransport, AsyncClient, Response
from pydantic import BaseModel, SecretStr
from tests.auth.accounts import PASSWORD, Registration, Site, Users, store_user
from tests.tables.accounts import Login, Member, User

from fastapi_kit.auth.logins.sql import SQLLoginStore
from fastapi_kit.auth.users import Account, AuthEndpoint, AuthFlow, LoginThrottle, MailFlow, UserAccounts, UserRegister
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, ConflictError, UserInputError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.testing import CapturedMail, app_client, assert_max_queries, captured_mails, cheap_hasher

NEW = "another horse battery"
ANN, BOB, UNKNOWN = "ann@example.com", "bob@example.com", "eve@example.com"
EVERY_MAIL = AuthEndpoint.ALL | AuthEndpoint.LOGINS | AuthEndpoint.ACCOUNT | AuthEndpoint.MAIL


async def send(*args: object) -> None:
    raise AssertionError("the mails of this test are captured")


class MailSite(Site):
    """The app with logins in SQL, and every route that sends mails. *hidden*: a registration does not show taken addresses."""

    def __init__(self, database: Database, *, hidden: bool = False) -> None:
        super().__init__(database, store=SQLLoginStore(database.sessions, Login), check_access=True)
        self.flow = replace(self.flow, verified=hidden)
        self.mail: MailFlow[User, Registration] = MailFlow(
            flow=self.flow, tokens=self.tokens, verify=send, reset=send, taken=send if hidden else None
        )
        self.app = FastAPI()
        register_exception_handlers(self.app)
        with captured_mails(self.mail):
            self.app.include_router(self.router(EVERY_MAIL, self.mail), prefix="/auth", tags=["auth"])

    async def row(self, ident: int) -> User:
        async with self.database.sessions() as session:
            return await Users(session).get_one(ident)


@pytest.fixture
def site(users: Database) -> MailSite:
    return MailSite(users)


@pytest.fixture
def hidden(users: Database) -> MailSite:
    return MailSite(users, hidden=True)


@pytest.fixture
def mails(site: MailSite) -> Iterator[list[CapturedMail]]:
    with captured_mails(site.mail) as mails:
        yield mails


@pytest.fixture
async def client(site: MailSite) -> AsyncIterator[AsyncClient]:
    async with app_client(site.app) as client:
        yield client


async def post(client: AsyncClient, path: str, token: str | None = None, /, **body: object) -> Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return await client.post(f"/auth{path}", json=body, headers=headers)


async def log_in(client: AsyncClient, email: str = ANN, password: str = PASSWORD) -> Response:
    return await client.post("/auth/login", data={"username": email, "password": password})


async def access(client: AsyncClient) -> str:
    answer = await log_in(client)
    assert answer.status_code == 200
    return answer.json()["access_token"]


def problem(answer: Response) -> tuple[int, list[str]]:
    return answer.status_code, [error["code"] for error in answer.json()["errors"]]


INVALID = (422, ["invalid_link"])

# --- A forgotten password ---


async def test_a_forgotten_password(client: AsyncClient, site: MailSite, mails: list[CapturedMail]) -> None:
    """The link of the mail sets a new password. All logins end, the address counts as verified, and no token is logged in."""
    user = await store_user(site.database)
    old = await access(client)

    asked = await post(client, "/password/forgot", email=" ANN@example.com")
    assert (asked.status_code, asked.content, asked.headers["cache-control"]) == (202, b"", "no-store")
    assert [(mail.kind, mail.to) for mail in mails] == [("reset", ANN)]
    done = await post(client, "/password/reset", token=mails[0].token, password=NEW)

    assert (done.status_code, done.content) == (204, b"")
    assert [(await log_in(client, password=word)).status_code for word in (PASSWORD, NEW)] == [401, 200]
    assert (await client.get("/auth/me", headers={"Authorization": f"Bearer {old}"})).status_code == 401
    assert (await site.row(user.id)).is_verified


async def test_a_reset_works_once(client: AsyncClient, site: MailSite, mails: list[CapturedMail]) -> None:
    """R48: a used link, and every other link that was sent before, is rejected."""
    await store_user(site.database)
    for _ in range(2):
        await post(client, "/password/forgot", email=ANN)
    first, second = (mail.token for mail in mails)

    assert (await post(client, "/password/reset", token=first, password=NEW)).status_code == 204
    for used in (first, second):
        assert problem(await post(client, "/password/reset", token=used, password="a third horse battery")) == INVALID
    assert (await log_in(client, password=NEW)).status_code == 200


async def test_one_of_twenty_resets(site: MailSite, mails: list[CapturedMail]) -> None:
    """R48: of twenty resets at the same time with one link, one sets the password."""
    user = await store_user(site.database)
    async with site.database.sessions() as session:
        await (await site.mail.request_reset(session, email=ANN))()

    async def reset(number: int) -> int | None:
        async with site.database.sessions() as session:
            try:
                await site.mail.reset_password(session, mails[0].token, new=f"{NEW} {number}")
            except UserInputError:
                return None
        return number

    (winner,) = [number for number in await asyncio.gather(*map(reset, range(20))) if number is not None]
    assert await site.flow.passwords.verify(f"{NEW} {winner}", (await site.row(user.id)).hashed_password)


async def test_a_reset_expires(client: AsyncClient, site: MailSite, mails: list[CapturedMail]) -> None:
    """R48: the link to reset a password works for an hour."""
    await store_user(site.database)
    await post(client, "/password/forgot", email=ANN)

    site.clock.advance(timedelta(hours=1, minutes=1))

    assert problem(await post(client, "/password/reset", token=mails[0].token, password=NEW)) == INVALID


@pytest.mark.parametrize("change", [{"hashed_password": "another"}, {"email": "new@example.com"}, {"is_active": False}, None], ids=str)
async def test_a_reset_after_a_change(
    client: AsyncClient, site: MailSite, mails: list[CapturedMail], change: dict[str, object] | None
) -> None:
    """R48: a link ends when the password or the address changes, and when the user is deactivated or deleted."""
    user = await store_user(site.database)
    await post(client, "/password/forgot", email=ANN)
    async with site.database.begin() as session:
        await (Users(session).delete(user.id) if change is None else Users(session).update(user.id, change))

    assert problem(await post(client, "/password/reset", token=mails[0].token, password=NEW)) == INVALID


async def test_a_weak_new_password(client: AsyncClient, site: MailSite, mails: list[CapturedMail]) -> None:
    """A weak password is rejected, and the link still works."""
    await store_user(site.database)
    await post(client, "/password/forgot", email=ANN)

    weak = await post(client, "/password/reset", token=mails[0].token, password="password123")

    assert problem(weak) == (422, ["too_common"])
    assert (await post(client, "/password/reset", token=mails[0].token, password=NEW)).status_code == 204


async def test_every_other_token_is_no_reset(client: AsyncClient, site: MailSite, mails: list[CapturedMail]) -> None:
    """R48: access, refresh and verification tokens do not reset a password, and a link of a mail does not log in."""
    user = await store_user(site.database)
    pair = (await log_in(client)).json()
    await post(client, "/email/verification", email=ANN)
    await post(client, "/password/forgot", email=ANN)
    verify, reset = (mail.token for mail in mails)
    bare = site.tokens.create_token(str(user.id), type="reset", lifetime=timedelta(hours=1))

    for token in (pair["access_token"], pair["refresh_token"], verify, bare, "", "x.y.z", "ä", reset[:-2] + "xx", "x" * 9000):
        assert problem(await post(client, "/password/reset", token=token, password=NEW)) == INVALID
    for token in (pair["access_token"], reset, bare):
        assert problem(await post(client, "/email/confirm", token=token)) == INVALID
    for token in (verify, reset):
        assert (await client.get("/auth/me", headers={"Authorization": f"Bearer {token}"})).status_code == 401
        assert (await post(client, "/refresh", refresh_token=token)).status_code == 401


async def test_a_user_without_a_password(client: AsyncClient, site: MailSite, mails: list[CapturedMail]) -> None:
    """A user without a password gets none by the form. Your application may invite the user with the same link, which works once."""
    user = await store_user(site.database, hashed_password=None)
    await post(client, "/password/forgot", email=ANN)
    assert mails == []

    async with site.database.sessions() as session:
        await site.mail.reset_mail(session, user)()

    results = await asyncio.gather(*(post(client, "/password/reset", token=mails[0].token, password=f"{NEW} {n}") for n in range(5)))
    assert sorted(answer.status_code for answer in results) == [204, 422, 422, 422, 422]


# --- What an answer shows ---

FORGET = ["/password/forgot", "/email/verification"]


@pytest.mark.parametrize("path", FORGET)
@pytest.mark.parametrize("email", [UNKNOWN, "not an address", "a@b", "\x00", "x" * 320, "ann@example.com\u200b", "inactive@example.com"])
async def test_unknown_addresses(client: AsyncClient, site: MailSite, mails: list[CapturedMail], path: str, email: str) -> None:
    """R37: the answer is the same for every address, and only a user's own address gets a mail."""
    await store_user(site.database)
    await store_user(site.database, "inactive@example.com", is_active=False)
    known = await post(client, path, email=ANN)
    sent = len(mails)

    answer = await post(client, path, email=email)

    if email == "\x00":
        assert answer.status_code == 422
        return
    assert (answer.status_code, answer.content, dict(answer.headers)) == (known.status_code, known.content, dict(known.headers))
    assert (sent, len(mails)) == (1, 1)


@pytest.mark.parametrize("path", FORGET)
async def test_the_same_statements(client: AsyncClient, site: MailSite, mails: list[CapturedMail], path: str) -> None:
    """R37: a known and an unknown address cost the same statements: one."""
    await store_user(site.database)

    for email in (ANN, UNKNOWN):
        with assert_max_queries(site.database, 1) as log:
            await post(client, path, email=email)
        assert len(log.statements) == 1


@pytest.mark.parametrize("middleware", [False, True])
@pytest.mark.parametrize("path", FORGET)
async def test_the_answer_comes_before_the_mail(site: MailSite, path: str, middleware: bool) -> None:
    """R37: the mail is sent, and its token created, after the response: a slow mail server does not show that an address is known."""
    await store_user(site.database)
    events: list[str] = []

    async def slow(account: Account, token: str) -> None:
        events.append("mail")

    async def pass_on(request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
        return await call_next(request)

    site.mail.verify = site.mail.reset = slow
    if middleware:
        site.app.middleware("http")(pass_on)

    async def app(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        async def noted(message: Any) -> None:
            events.append("more" if message.get("more_body") else message["type"])
            await send(message)

        await site.app(scope, receive, noted)

    async with AsyncClient(transport=ASGITransport(app=app), base_url="https://test") as client:
        await client.post(f"/auth{path}", json={"email": ANN})
    assert [event for event in events if event != "more"] == ["http.response.start", "http.response.body", "mail"]


async def test_a_mail_that_fails(client: AsyncClient, site: MailSite, caplog: pytest.LogCaptureFixture) -> None:
    """A mail that cannot be sent changes nothing for the client, and is logged without the address and the token."""
    await store_user(site.database)
    tokens: list[str] = []

    async def broken(account: Account, token: str) -> None:
        tokens.append(token)
        raise ConnectionError(f"{account.email} {token}")

    site.mail.reset = broken
    with caplog.at_level(logging.INFO):
        assert (await post(client, "/password/forgot", email=ANN)).status_code == 202

    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        "A mail could not be sent: ConnectionError"
    ]
    assert ANN not in caplog.text
    assert tokens[0] not in caplog.text


# --- Verification ---


async def test_a_registration_is_verified(client: AsyncClient, site: MailSite, mails: list[CapturedMail]) -> None:
    """R48: a registration sends a link, which verifies the address once."""
    answer = await post(client, "/register", email=ANN, password=PASSWORD)
    user = answer.json()
    assert [(mail.kind, mail.to) for mail in mails] == [("verify", ANN)]
    assert not (await site.row(user["id"])).is_verified

    assert (await post(client, "/email/confirm", token=mails[0].token)).status_code == 204
    assert (await site.row(user["id"])).is_verified
    assert problem(await post(client, "/email/confirm", token=mails[0].token)) == INVALID


async def test_a_registration_that_fails(client: AsyncClient, site: MailSite, mails: list[CapturedMail]) -> None:
    """A registration that is rejected sends nothing."""
    await store_user(site.database)

    assert (await post(client, "/register", email=ANN, password=PASSWORD)).status_code == 409
    assert (await post(client, "/register", email=BOB, password="password123")).status_code == 422
    assert mails == []


async def test_the_link_again(client: AsyncClient, site: MailSite, mails: list[CapturedMail]) -> None:
    """The link is sent again until the address is verified. It works for a day."""
    await store_user(site.database)
    await post(client, "/email/verification", email=ANN)
    site.clock.advance(timedelta(hours=24, minutes=1))
    assert problem(await post(client, "/email/confirm", token=mails[0].token)) == INVALID

    await post(client, "/email/verification", email=ANN)
    assert (await post(client, "/email/confirm", token=mails[1].token)).status_code == 204
    await post(client, "/email/verification", email=ANN)
    assert len(mails) == 2


# --- A new address ---


async def test_a_new_address(client: AsyncClient, site: MailSite, mails: list[CapturedMail]) -> None:
    """The link goes to the new address. Until it is used, the old address stays; then the new one is verified, and the login goes on."""
    user = await store_user(site.database)
    token = await access(client)

    answer = await post(client, "/email", token, email="New@Example.com", current_password=PASSWORD)

    assert (answer.status_code, answer.content) == (202, b"")
    assert [(mail.kind, mail.to) for mail in mails] == [("verify", "new@example.com")]
    assert (await site.row(user.id)).email == ANN
    assert (await post(client, "/email/confirm", token=mails[0].token)).status_code == 204
    changed = await site.row(user.id)
    assert (changed.email, changed.is_verified) == ("new@example.com", True)
    assert problem(await post(client, "/email/confirm", token=mails[0].token)) == INVALID
    assert (await client.get("/auth/me", headers={"Authorization": f"Bearer {token}"})).json()["email"] == "new@example.com"


async def test_a_new_address_needs_the_password(client: AsyncClient, site: MailSite, mails: list[CapturedMail]) -> None:
    """Without the current password, and without a login, no address is changed."""
    await store_user(site.database)
    token = await access(client)

    assert problem(await post(client, "/email", token, email=BOB, current_password="wrong")) == (422, ["wrong_password"])
    assert (await post(client, "/email", email=BOB, current_password=PASSWORD)).status_code == 401
    assert mails == []


async def test_a_new_address_that_is_taken(client: AsyncClient, site: MailSite, mails: list[CapturedMail]) -> None:
    """The answer does not show that an address is taken. An address that was taken meanwhile is a 409, and nothing changes."""
    user = await store_user(site.database)
    bob = await store_user(site.database, BOB)
    token = await access(client)

    assert (await post(client, "/email", token, email=BOB, current_password=PASSWORD)).status_code == 202
    assert (await post(client, "/email", token, email=ANN, current_password=PASSWORD)).status_code == 202
    assert mails == []
    await post(client, "/email", token, email=UNKNOWN, current_password=PASSWORD)
    async with site.database.begin() as session:
        await Users(session).update(bob.id, {"email": UNKNOWN})
    assert (await post(client, "/email/confirm", token=mails[0].token)).status_code == 409
    assert (await site.row(user.id)).email == ANN


async def test_a_new_address_after_a_new_password(client: AsyncClient, site: MailSite, mails: list[CapturedMail]) -> None:
    """A new password ends the link to a new address: who had the old password cannot take the account over."""
    await store_user(site.database)
    token = await access(client)
    await post(client, "/email", token, email=UNKNOWN, current_password=PASSWORD)

    assert (await post(client, "/password", token, current_password=PASSWORD, password=NEW)).status_code == 204

    assert problem(await post(client, "/email/confirm", token=mails[0].token)) == INVALID


# --- A registration that does not show taken addresses ---


async def test_a_taken_address(hidden: MailSite) -> None:
    """R37: new and taken addresses have the same answer; the mail to the owner tells them. A login shows nothing either."""
    await store_user(hidden.database, is_verified=True)
    with captured_mails(hidden.mail) as mails:
        async with app_client(hidden.app) as client:
            answers = [await post(client, "/register", email=email, password=NEW) for email in (ANN, BOB)]
            assert [(mail.kind, mail.to) for mail in mails] == [("taken", ANN), ("verify", BOB)]
            assert {(answer.status_code, answer.content, tuple(answer.headers.items())) for answer in answers} == {
                (202, b"", tuple(answers[0].headers.items()))
            }
            assert [(await log_in(client, email, NEW)).status_code for email in (ANN, BOB)] == [401, 401]

            await post(client, "/email/confirm", token=mails[1].token)

            assert [(await log_in(client, email, NEW)).status_code for email in (ANN, BOB)] == [401, 200]
            assert (await log_in(client)).status_code == 200


async def test_a_user_who_is_not_verified_any_more(hidden: MailSite) -> None:
    """With ``verified=True`` a user whose address is not verified cannot refresh either."""
    user = await store_user(hidden.database, is_verified=True)
    async with app_client(hidden.app) as client:
        pair = (await log_in(client)).json()
        async with hidden.database.begin() as session:
            await Users(session).update(user.id, {"is_verified": False})

        assert (await post(client, "/refresh", refresh_token=pair["refresh_token"])).status_code == 401


async def test_another_unique_field(hidden: MailSite) -> None:
    """A conflict over another field than the address is shown."""

    class Named(Users):
        async def register(self, data: Registration, /, *, hashed_password: str) -> User:
            raise ConflictError(["full_name"])

    flow: AuthFlow[User, Registration] = replace(hidden.flow, accounts=Named)
    mail: MailFlow[User, Registration] = replace(hidden.mail, flow=flow)
    async with hidden.database.sessions() as session:
        with pytest.raises(ConflictError):
            await mail.register(session, Registration(email=ANN, password=SecretStr(NEW)), password=NEW)


class MemberRegister(UserRegister):
    name: str


class Members(UserAccounts[Member, MemberRegister]): ...


async def test_a_taken_name_shows_no_address(hidden: MailSite) -> None:
    """R37: the answer to a registration with a taken name is the same for a known and for an unknown address, and stores nothing."""
    flow = AuthFlow(accounts=Members, passwords=cheap_hasher(), verified=True)
    mail = MailFlow(flow=flow, tokens=hidden.tokens, verify=send, taken=send)

    async def register(email: str, name: str) -> str:
        data = MemberRegister(email=email, name=name, password=SecretStr(NEW))
        async with hidden.database.sessions() as session:
            try:
                await (await mail.register(session, data, password=NEW))()
            except ConflictError as error:
                return f"taken: {error.fields}"
        return "a mail"

    with captured_mails(mail) as mails:
        assert [await register(ANN, "ann"), await register(BOB, "bob")] == ["a mail"] * 2
        assert [await register(email, "bob") for email in (ANN, UNKNOWN)] == ["taken: ('name',)"] * 2
        assert [await register(email, "eve") for email in (ANN, UNKNOWN)] == ["a mail"] * 2
    assert [(each.kind, each.to) for each in mails] == [("verify", ANN), ("verify", BOB), ("taken", ANN), ("verify", UNKNOWN)]
    async with hidden.database.sessions() as session:
        assert await Members(session).count() == 3


# --- The account ---


async def test_a_changed_password(client: AsyncClient, site: MailSite) -> None:
    """R36: with the current password a user sets a new one. The other logins end, this one goes on."""
    await store_user(site.database)
    laptop, phone = await access(client), await access(client)

    assert problem(await post(client, "/password", laptop, current_password="wrong", password=NEW)) == (422, ["wrong_password"])
    assert (await post(client, "/password", laptop, current_password=PASSWORD, password=NEW)).status_code == 204

    statuses = [(await client.get("/auth/me", headers={"Authorization": f"Bearer {each}"})).status_code for each in (laptop, phone)]
    assert statuses == [200, 401]
    assert [(await log_in(client, password=word)).status_code for word in (PASSWORD, NEW)] == [401, 200]


async def test_a_deleted_account(client: AsyncClient, site: MailSite) -> None:
    """With the current password users delete their account. Their logins end, and the address is free."""
    await store_user(site.database)
    token = await access(client)

    assert problem(await post(client, "/me/delete", token, current_password="wrong")) == (422, ["wrong_password"])
    assert (await post(client, "/me/delete", token, current_password=PASSWORD)).status_code == 204

    assert (await client.get("/auth/me", headers={"Authorization": f"Bearer {token}"})).status_code == 401
    async with site.database.sessions() as session:
        assert await Users(session).count() == 0
    assert await site.logins.list_logins("1") == []  # type: ignore[union-attr]
    assert (await post(client, "/register", email=ANN, password=PASSWORD)).status_code == 201


async def test_a_deletion_after_a_new_password(site: MailSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password that is changed while the old one is verified keeps the account."""
    user = await store_user(site.database)
    verify = site.flow.passwords.verify

    async def slow(password: str | SecretStr, stored: str | None) -> bool:
        result = await verify(password, stored)
        async with site.database.begin() as session:
            await Users(session).set_password(user, hashed_password=await cheap_hasher().hash(NEW))
        return result

    monkeypatch.setattr(site.flow.passwords, "verify", slow)
    async with site.database.sessions() as session:
        with pytest.raises(UserInputError):
            await site.flow.delete_account(session, await Users(session).get_one(user.id), current=PASSWORD)
    assert (await site.row(user.id)).email == ANN


# --- Mistakes of the application ---


def test_lifetimes(site: MailSite) -> None:
    """A lifetime that is longer than a link may live is an error at start."""
    for options in ({"reset_lifetime": timedelta(hours=2)}, {"verify_lifetime": timedelta(days=2)}, {"reset_lifetime": timedelta()}):
        with pytest.raises(ConfigurationError, match="must be from 1 second"):
            MailFlow(flow=site.flow, tokens=site.tokens, **options)


def test_what_the_routes_need(site: MailSite) -> None:
    """Routes without the mail that they send, and hidden addresses without verified logins, are errors at start."""
    for endpoints in (AuthEndpoint.RESET_PASSWORD, AuthEndpoint.VERIFY_EMAIL, AuthEndpoint.CHANGE_EMAIL):
        with pytest.raises(ConfigurationError, match="mail=MailFlow"):
            site.router(endpoints)
        with pytest.raises(ConfigurationError, match="mail=MailFlow"):
            site.router(endpoints, MailFlow(flow=site.flow, tokens=site.tokens))
    with pytest.raises(ConfigurationError, match="verified=True"):
        MailFlow(flow=site.flow, tokens=site.tokens, verify=send, taken=send)


async def test_accounts_without_the_methods(site: MailSite) -> None:
    """Users of your own without the methods of ``EditableAccounts`` are a ConfigurationError that names them."""

    class Small:
        def __init__(self, session: object) -> None: ...

    flow: Any = replace(site.flow, accounts=Small)  # type: ignore[arg-type]
    mail: MailFlow[Any, Any] = MailFlow(flow=flow, tokens=site.tokens, reset=send)
    async with site.database.sessions() as session:
        with pytest.raises(ConfigurationError, match="lock_account, set_email and remove"):
            await mail.reset_password(session, site.tokens.create_token("1", type="reset", lifetime=timedelta(hours=1)), new=NEW)


async def test_the_document(client: AsyncClient) -> None:
    """The routes are in OpenAPI with their answers."""
    paths = (await client.get("/openapi.json")).json()["paths"]

    assert {path: sorted(paths[f"/auth{path}"]["post"]["responses"]) for path in ("/password/forgot", "/password/reset", "/email")} == {
        "/password/forgot": ["202", "400", "413", "422", "503", "default"],
        "/password/reset": ["204", "400", "413", "422", "503", "default"],
        "/email": ["202", "400", "401", "403", "413", "422", "503", "default"],
    }


# --- Throttling ---


@pytest.mark.parametrize("path", FORGET)
async def test_a_mailbox_is_not_filled(site: MailSite, path: str) -> None:
    """R47: an address gets a few mails in the window, in any form of it, and unknown addresses have the same limit."""
    await store_user(site.database)
    site.mail.throttle = LoginThrottle(name="mail", per_account=2)
    async with app_client(site.app) as client:
        with captured_mails(site.mail) as mails:
            for names in ((ANN, " Ann@Example.com", "ANN@EXAMPLE.COM"), (UNKNOWN,) * 3):
                answers = [await post(client, path, email=name) for name in names]
                assert [answer.status_code for answer in answers] == [202, 202, 429]
                assert int(answers[2].headers["retry-after"]) > 0
    assert len(mails) == 2


async def test_a_client_causes_few_mails(hidden: MailSite) -> None:
    """R47: a client causes a few mails in the window, whatever the addresses, also by registrations."""
    hidden.mail.throttle = LoginThrottle(name="mail", per_client=3)
    async with app_client(hidden.app) as client:
        with captured_mails(hidden.mail) as mails:
            answers = [await post(client, "/register", email=f"{name}@example.com", password=NEW) for name in ("ann", "bob")]
            answers += [await post(client, "/password/forgot", email=f"{name}@example.com") for name in ("ann", "eve")]
    assert [answer.status_code for answer in answers] == [202, 202, 202, 429]
    assert [mail.kind for mail in mails] == ["verify", "verify", "reset"]


async def test_strangers_do_not_keep_the_owner_from_a_reset(site: MailSite) -> None:
    """R47: each kind of mail has a limit of its own. Requests that send other mails, or none, use up no resets."""
    await store_user(site.database, is_verified=True)
    site.mail.throttle = LoginThrottle(name="mail", per_account=2)
    async with app_client(site.app) as client:
        with captured_mails(site.mail) as mails:
            for path in ("/email/verification", "/register"):
                answers = [await post(client, path, email=ANN, **({"password": NEW} if path == "/register" else {})) for _ in range(3)]
                assert answers[2].status_code == 429
            assert (await post(client, "/password/forgot", email=ANN)).status_code == 202
    assert [mail.kind for mail in mails] == ["reset"]


async def test_a_mailbox_is_not_filled_by_registrations(site: MailSite) -> None:
    """R47: who registers an address and deletes the account, again and again, sends it a few mails in the window. OpenAPI shows the 429."""
    site.mail.throttle = LoginThrottle(name="mail", per_account=2)
    statuses = list[int]()
    async with app_client(site.app) as client:
        with captured_mails(site.mail) as mails:
            for _ in range(3):
                statuses.append((await post(client, "/register", email=ANN, password=PASSWORD)).status_code)
                if statuses[-1] == 201:
                    await post(client, "/me/delete", await access(client), current_password=PASSWORD)
            others = [await post(client, "/register", email=f"{name}@example.com", password=PASSWORD) for name in ("bob", "eve")]
    assert (statuses, [mail.to for mail in mails]) == ([201, 201, 429], [ANN, ANN, BOB, UNKNOWN])
    assert [answer.status_code for answer in others] == [201, 201]
    with captured_mails(site.mail):
        throttled = site.router(EVERY_MAIL, site.mail)
    (route,) = [route for route in throttled.routes if getattr(route, "path", "") == "/register"]
    assert 429 in getattr(route, "responses", {})


async def test_registrations_without_an_address(hidden: MailSite) -> None:
    """R47: registrations that send no mail, because they have no address, do not count together."""

    class Nameless(BaseModel):
        password: SecretStr

    class NoAddress(Users):
        async def register(self, data: Any, /, *, hashed_password: str) -> User:
            return User(id=1, email="", hashed_password=hashed_password, is_active=True, is_verified=False)

    flow: AuthFlow[User, Any] = replace(hidden.flow, accounts=NoAddress)
    mail: MailFlow[User, Any] = replace(hidden.mail, flow=flow, throttle=LoginThrottle(name="mail", per_account=1))
    async with hidden.database.sessions() as session:
        for _ in range(2):
            await (await mail.register(session, Nameless(password=SecretStr(NEW)), password=NEW))()
