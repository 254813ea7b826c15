"""What follows a change of a password or an address: a notice to the user, and the end of what was made with the old password."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from httpx import AsyncClient, Response
from pydantic import BaseModel, SecretStr
from tests.auth.accounts import PASSWORD, Registration, Site, Users, store_user
from tests.tables.accounts import APIKey, Login, User

from fastapi_kit.auth.api_keys import APIKeys, NewAPIKey
from fastapi_kit.auth.api_keys.router import api_keys_router
from fastapi_kit.auth.api_keys.sql import SQLAPIKeyStore
from fastapi_kit.auth.logins.sql import SQLLoginStore
from fastapi_kit.auth.passwords import PasswordHasher
from fastapi_kit.auth.passwords.contexts import bcrypt_context
from fastapi_kit.auth.users import Account, AccountChange, AuthEndpoint, LoginThrottle, MailFlow
from fastapi_kit.db import Database, unit_of_work
from fastapi_kit.errors import ConflictError, UnavailableError, UserInputError
from fastapi_kit.ratelimit import MemoryCounter
from fastapi_kit.schemas import Email, Password
from fastapi_kit.testing import app_client, captured_mails

NEW = "another horse battery"
ANN, BOB = "ann@example.com", "bob@example.com"


class Change(BaseModel):
    email: Email | None = None
    full_name: str | None = None
    password: Password | None = None
    current_password: SecretStr | None = None


async def no_mail(*args: object) -> None:
    raise AssertionError("the mails of this test are captured")


class NoticeSite(Site):
    """The app, whose users are told of changes, and whose API keys end with a password."""

    def __init__(self, database: Database, *, throttle: LoginThrottle | None = None) -> None:
        super().__init__(database, store=SQLLoginStore(database.sessions, Login), throttle=throttle)
        self.keys = APIKeys(SQLAPIKeyStore(database.sessions, APIKey), prefix="shop")
        self.changes = list[AccountChange]()
        self.flow = replace(self.flow, notify=self.notify, revoke=[self.keys.revoke_all])
        self.mail: MailFlow[User, Registration] = MailFlow(flow=self.flow, tokens=self.tokens, verify=no_mail, reset=no_mail)
        self.app.include_router(self.router(AuthEndpoint.ACCOUNT | AuthEndpoint.MAIL, self.mail), prefix="/account")
        routes = api_keys_router(self.keys, current_user=self.get_user, flow=self.flow, session=database.session)
        self.app.include_router(routes, prefix="/keys")

    async def notify(self, change: AccountChange) -> None:
        self.changes.append(change)

    def told(self) -> list[tuple[str, str, str]]:
        """Return what users were told: what, where to, and the address of the account now."""
        return [(change.kind, change.to, change.account.email) for change in self.changes]

    async def change(self, ident: int, *, confirm: bool = True, **values: object) -> None:
        async with self.database.sessions() as session:
            data = Change.model_validate({"current_password": PASSWORD, **values})
            await self.flow.change(session, await Users(session).get_one(ident), data, confirm=confirm)

    async def link(self, ident: int, kind: str) -> str:
        async with self.database.sessions() as session:
            user = await Users(session).get_one(ident)
            with captured_mails(self.mail) as mails:
                mail = (
                    self.mail.reset_mail(session, user)
                    if kind == "reset"
                    else await self.mail.request_email(session, user, email=BOB, current=PASSWORD)
                )
                await mail()
        return mails[0].token


@pytest.fixture
def site(users: Database) -> NoticeSite:
    return NoticeSite(users)


@pytest.fixture
async def client(site: NoticeSite) -> AsyncIterator[AsyncClient]:
    async with app_client(site.app) as client:
        yield client


async def post(client: AsyncClient, path: str, headers: dict[str, str] | None = None, /, **body: object) -> Response:
    return await client.post(path, json=body, headers=headers)


async def headers_of(client: AsyncClient) -> dict[str, str]:
    answer = await client.post("/auth/login", data={"username": ANN, "password": PASSWORD})
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


# --- Notices ---


async def test_a_new_password(client: AsyncClient, site: NoticeSite) -> None:
    """R36: the user is told of a new password, however it was set: with the current one, by a superuser, or with a reset."""
    user = await store_user(site.database)

    assert (await post(client, "/account/password", await headers_of(client), current_password=PASSWORD, password=NEW)).status_code == 204
    assert site.told() == [("password", ANN, ANN)]
    await site.change(user.id, password=f"{NEW} 2", confirm=False)
    token = await site.link(user.id, "reset")
    assert (await post(client, "/account/password/reset", token=token, password=f"{NEW} 3")).status_code == 204
    assert site.told() == [("password", ANN, ANN)] * 3


async def test_a_new_address(client: AsyncClient, site: NoticeSite) -> None:
    """R36: the old address is told of a new one, after it was confirmed and not before."""
    user = await store_user(site.database)
    token = await site.link(user.id, "verify")
    assert site.told() == []

    assert (await post(client, "/account/email/confirm", token=token)).status_code == 204

    assert site.told() == [("email", ANN, BOB)]
    assert site.changes[0].account.subject == str(user.id)


@pytest.mark.parametrize("confirm", [True, False])
async def test_a_new_address_without_a_link(site: NoticeSite, confirm: bool) -> None:
    """R36: ``AuthFlow.change`` tells the old address of a new one, and of a password in the same change."""
    user = await store_user(site.database)

    await site.change(user.id, email=BOB, confirm=confirm)
    assert site.told() == [("email", ANN, BOB)]
    await site.change(user.id, email=ANN, password=NEW, confirm=confirm)
    assert site.told()[1:] == [("password", BOB, ANN), ("email", BOB, ANN)]


async def test_an_address_with_another_name(site: NoticeSite) -> None:
    """R36: what ``describe`` returns as the address counts, whatever the column is called."""

    class Named(Users):
        def describe(self, user: User, /) -> Account:
            return replace(super().describe(user), email=user.full_name)

    user = await store_user(site.database, full_name=ANN)
    site.flow = replace(site.flow, accounts=Named)
    await site.change(user.id, full_name=BOB)

    assert site.told() == [("email", ANN, BOB)]


async def test_users_who_commit_themselves(site: NoticeSite) -> None:
    """Users of your own whose ``change`` commits by itself work in a flow in which nothing follows a change."""

    class Committing(Users):
        async def change(
            self, user: User, data: BaseModel, /, *, hashed_password: str | None = None, replacing: str | None = None
        ) -> User | None:
            stored = await self.session.get_one(User, user.id)
            stored.hashed_password = hashed_password
            await self.session.commit()
            return stored

    user = await store_user(site.database)
    site.flow = replace(site.flow, accounts=Committing, logins=None, notify=None, revoke=())
    await site.change(user.id, password=NEW)

    async with site.database.sessions() as session:
        assert (await Users(session).get_one(user.id)).hashed_password != user.hashed_password


async def test_what_is_no_change(client: AsyncClient, site: NoticeSite) -> None:
    """Users are told nothing of a name, their own address in another form, a verification, a better hash, or a change that failed."""
    old = PasswordHasher(context=bcrypt_context(rounds=5))
    user = await store_user(site.database, hashed_password=await old.hash(PASSWORD))
    await store_user(site.database, BOB)

    await headers_of(client)
    await site.change(user.id, full_name="Ann")
    await site.change(user.id, email=" ANN@Example.com")
    for values in ({"password": "password123"}, {"password": NEW, "current_password": "wrong"}):
        with pytest.raises(UserInputError):
            await site.change(user.id, **values)
    with pytest.raises(ConflictError):
        await site.change(user.id, email=BOB, password=NEW)
    with captured_mails(site.mail) as mails:
        await post(client, "/account/email/verification", email=ANN)
        assert (await post(client, "/account/email/confirm", token=mails[0].token)).status_code == 204
    assert site.told() == []


async def test_a_user_without_an_address(site: NoticeSite) -> None:
    """A user without an address is told nothing."""
    user = await store_user(site.database, hashed_password=None)

    async with site.database.begin() as session:
        account = Users(session).describe(user)
        await site.flow.tell(session, "password", before=replace(account, email=""), after=account)
    assert site.told() == []


async def test_the_transaction_of_the_application(site: NoticeSite) -> None:
    """Users are told, and keys are revoked, after the commit of a transaction that the application opened, and only then."""
    user = await store_user(site.database)
    await site.keys.create(str(user.id), name="Backup")
    data = Change.model_validate({"password": NEW, "email": BOB, "current_password": PASSWORD})

    async with site.database.begin() as session, unit_of_work(session) as uow:
        await site.flow.change(session, await Users(session).get_one(user.id), data)
        await uow.rollback()
    assert site.told() == []
    assert len(await site.keys.list(str(user.id))) == 1

    async with site.database.begin() as session:
        await site.flow.change(session, await Users(session).get_one(user.id), data)
        assert site.told() == []
    assert site.told() == [("password", ANN, BOB), ("email", ANN, BOB)]
    assert await site.keys.list(str(user.id)) == []


async def test_a_notice_that_fails(site: NoticeSite, caplog: pytest.LogCaptureFixture) -> None:
    """A notice that cannot be sent changes nothing for the client, and is logged without the address."""
    user = await store_user(site.database)

    async def broken(change: AccountChange) -> None:
        raise ConnectionError(change.to)

    site.flow = replace(site.flow, notify=broken)
    with caplog.at_level(logging.INFO):
        await site.change(user.id, password=NEW)

    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        "A notice of a change could not be sent: ConnectionError"
    ]
    assert ANN not in caplog.text


async def test_a_mailbox_is_not_filled(site: NoticeSite) -> None:
    """R47: with a throttle, a user gets a few notices in the window. A counter that does not answer keeps none back."""
    user = await store_user(site.database)
    site.flow = replace(site.flow, throttle=LoginThrottle(per_account=2))
    for address in (BOB, ANN, BOB):
        await site.change(user.id, email=address)
    assert site.told() == [("email", ANN, BOB), ("email", BOB, ANN)]

    class Gone(MemoryCounter):
        async def hit(self, key: str, /, *, limit: int, window: float) -> float:
            raise UnavailableError("the counter of attempts")

    site.flow = replace(site.flow, throttle=LoginThrottle(counter=Gone()))
    await site.change(user.id, email=ANN, confirm=False)
    assert len(site.changes) == 3


async def test_captured_notices(client: AsyncClient, site: NoticeSite) -> None:
    """In tests, ``captured_mails`` collects the notices instead of sending them, also those of the routes without mails."""
    await store_user(site.database)
    headers = await headers_of(client)
    with captured_mails(site.mail) as mails:
        await post(client, "/account/password", headers, current_password=PASSWORD, password=NEW)
    assert [(mail.kind, mail.to) for mail in mails] == [("password", ANN)]

    await post(client, "/account/password", headers, current_password=NEW, password=PASSWORD)
    assert (len(mails), site.told()) == (1, [("password", ANN, ANN)])


# --- What ends with a password ---


@pytest.mark.parametrize("way", ["password", "reset", "superuser", "deletion"])
async def test_keys_end_with_the_password(client: AsyncClient, site: NoticeSite, way: str) -> None:
    """R36: what ``revoke=`` names ends with a new password, a reset and a deletion, and that of nobody else."""
    user, bob = await store_user(site.database), await store_user(site.database, BOB)
    key = (await site.keys.create(str(user.id), name="Backup")).key
    await site.keys.create(str(bob.id), name="Backup")
    headers = await headers_of(client)

    await site.change(user.id, full_name="Ann")
    assert (await site.keys.verify(key)).sub == str(user.id)
    if way == "superuser":
        await site.change(user.id, password=NEW, confirm=False)
    else:
        path, body = {
            "password": ("/account/password", {"current_password": PASSWORD, "password": NEW}),
            "reset": ("/account/password/reset", {"token": await site.link(user.id, "reset"), "password": NEW}),
            "deletion": ("/account/me/delete", {"current_password": PASSWORD}),
        }[way]
        assert (await post(client, path, headers, **body)).status_code == 204

    assert [len(await site.keys.list(str(each.id))) for each in (user, bob)] == [0, 1]


async def test_a_store_that_does_not_answer(site: NoticeSite, caplog: pytest.LogCaptureFixture) -> None:
    """A store that does not answer is logged; the password is changed, and the others are revoked."""
    user, revoked = await store_user(site.database), list[str]()

    async def broken(subject: str) -> None:
        raise UnavailableError("the store")

    async def note(subject: str) -> None:
        revoked.append(subject)

    site.flow = replace(site.flow, revoke=[broken, note])
    await site.change(user.id, password=NEW)

    assert revoked == [str(user.id)]
    assert "on_commit: a call failed after the commit; the others still run" in [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("revoked_first", [True, False])
async def test_a_key_that_is_created_meanwhile(
    client: AsyncClient, site: NoticeSite, monkeypatch: pytest.MonkeyPatch, revoked_first: bool
) -> None:
    """R36: a key that is created with the old password, while a new one is stored, is revoked: it does not outlive the change."""
    user = await store_user(site.database)
    headers, confirmed, changed = await headers_of(client), asyncio.Event(), asyncio.Event()
    create = site.keys.create

    async def slow(subject: str, **options: Any) -> NewAPIKey:
        made = None if revoked_first else await create(subject, **options)
        confirmed.set()
        await changed.wait()
        return made or await create(subject, **options)

    monkeypatch.setattr(site.keys, "create", slow)
    creation = asyncio.create_task(post(client, "/keys", headers, name="Backup", current_password=PASSWORD))
    await asyncio.wait_for(confirmed.wait(), timeout=10)
    await site.change(user.id, password=NEW)
    changed.set()
    answer = await creation

    assert (answer.status_code, [error["code"] for error in answer.json()["errors"]]) == (422, ["wrong_password"])
    assert await site.keys.list(str(user.id)) == []
