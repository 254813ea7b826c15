"""A second factor and changes of the account: what needs a code, and what users are told."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession
from tests.auth.accounts import PASSWORD
from tests.auth.second_factor.site import EMAIL, Person, Site, Users, store_user
from tests.tables.accounts import AccountsBase, FactorUser

from fastapi_kit.auth.api_keys import APIKeys, MemoryAPIKeyStore
from fastapi_kit.auth.api_keys.router import api_keys_router
from fastapi_kit.auth.second_factor import FactorState
from fastapi_kit.auth.second_factor.sql import SQLFactorStore, TOTPMixin
from fastapi_kit.auth.users import AccountChange, AuthEndpoint, LoginThrottle, MailFlow, UserProfile, UserRegister, auth_router
from fastapi_kit.auth.users.second_factor import confirm_second_factor, disable_second_factor
from fastapi_kit.db import Database
from fastapi_kit.errors import UserInputError
from fastapi_kit.testing import CapturedMail, app_client, captured_mails, cheap_hasher

BOB, NEW = "bob@example.com", "another horse battery"


async def no_mail(*args: object) -> None:
    raise AssertionError("the mails of this test are captured")


class ChangeSite(Site):
    """The app, with the routes that change an account, and notices."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.told = list[tuple[str, str]]()
        # In place: the routes of the factor have this flow.
        object.__setattr__(self.flow, "notify", self.notify)
        self.mail: MailFlow[FactorUser, UserRegister] = MailFlow(flow=self.flow, tokens=self.tokens, verify=no_mail, reset=no_mail)
        self.include(self.mail, "/auth")

    def include(self, mail: MailFlow[FactorUser, UserRegister], prefix: str) -> None:
        endpoints = AuthEndpoint.ACCOUNT | AuthEndpoint.MAIL
        session, user = self.database.session, self.get_user
        router = auth_router(mail.flow, session=session, current_user=user, read=UserProfile, endpoints=endpoints, mail=mail)
        self.app.include_router(router, prefix=prefix)

    async def notify(self, change: AccountChange) -> None:
        self.told.append((change.kind, change.to))

    async def user(self) -> FactorUser | None:
        async with self.database.sessions() as session:
            return await Users(session).get(1)


@pytest.fixture
async def site(database: Database) -> ChangeSite:
    await database.create_tables(AccountsBase.metadata)
    await store_user(database)
    return ChangeSite(database)


@pytest.fixture
async def ann(site: ChangeSite) -> AsyncIterator[Person]:
    """A user with an enabled factor. The code of the next step is not used yet."""
    async with app_client(site.app) as client:
        person = Person(site, client)
        await person.enrol()
        site.told.clear()
        yield person


@pytest.fixture
def mails(site: ChangeSite) -> Any:
    with captured_mails(site.mail) as mails:
        yield mails


def codes(answer: Any) -> tuple[int, list[str]]:
    return answer.status_code, [error["code"] for error in answer.json()["errors"]]


WRONG = (422, ["wrong_code"])
NO_CODES: list[dict[str, object]] = [{}, {"code": None}, {"code": "000000"}, {"code": "AAAA-BBBB-CCCC-DDDD"}]


@pytest.mark.parametrize("given", NO_CODES, ids=str)
@pytest.mark.parametrize(("path", "body"), [("/email", {"email": BOB}), ("/me/delete", {})])
async def test_without_a_code(
    ann: Person, site: ChangeSite, mails: list[CapturedMail], path: str, body: dict[str, object], given: dict[str, object]
) -> None:
    """R46: a session and the password do not change the address or delete the account of a user with a second factor."""
    answer = await ann("POST", path, json={"current_password": PASSWORD, **body, **given})

    assert codes(answer) == WRONG
    assert mails == []
    assert await site.user() is not None


@pytest.mark.parametrize("kind", ["app", "recovery"])
async def test_a_new_address_with_a_code(ann: Person, site: ChangeSite, mails: list[CapturedMail], kind: str) -> None:
    """R46: a code, or a recovery code, sends one link to a new address. It is used up, also for a login."""
    code = site.code(ann.secret, later=1) if kind == "app" else ann.recovery_codes[0]
    body = {"current_password": PASSWORD, "email": BOB, "code": code}

    answers = [await ann("POST", "/email", json=body) for _ in range(2)]

    assert (answers[0].status_code, codes(answers[1])) == (202, WRONG)
    assert [mail.to for mail in mails] == [BOB]
    assert (await ann.send_code(await ann.challenge(), code)).status_code == 401
    assert (await ann("POST", "/email/confirm", json={"token": mails[0].token})).status_code == 204


async def test_a_wrong_password_uses_up_no_code(ann: Person, site: ChangeSite) -> None:
    """R46: the code is checked after the password: who does not know it learns nothing of codes and uses none up."""
    code = site.code(ann.secret, later=1)

    answer = await ann("POST", "/email", json={"current_password": "wrong", "email": BOB, "code": code})

    assert codes(answer) == (422, ["wrong_password"])
    assert (await ann.send_code(await ann.challenge(), code)).status_code == 200


async def test_deletions_with_one_code(ann: Person, site: ChangeSite) -> None:
    """R46: a deletion needs a code, and of several at once with one code one succeeds."""
    body = {"current_password": PASSWORD, "code": ann.recovery_codes[0]}

    answers = await asyncio.gather(*(ann("POST", "/me/delete", json=body) for _ in range(5)))

    assert [answer.status_code for answer in answers].count(204) == 1
    assert await site.user() is None


async def test_without_a_factor(site: ChangeSite, mails: list[CapturedMail]) -> None:
    """A user without a second factor needs no code."""
    async with app_client(site.app) as client:
        person = Person(site, client)
        person.pair = (await person.log_in()).json()
        assert (await person("POST", "/email", json={"current_password": PASSWORD, "email": BOB})).status_code == 202
        assert (await person("POST", "/me/delete", json={"current_password": PASSWORD})).status_code == 204
    assert len(mails) == 1


class Change(BaseModel):
    email: str | None = None
    password: SecretStr | None = None
    current_password: SecretStr | None = None


async def test_a_change_without_a_link(ann: Person, site: ChangeSite) -> None:
    """R46: ``AuthFlow.change`` asks for a code for a new address, not for a new password, and not for the change of a superuser."""

    async def change(code: str | None = None, *, confirm: bool = True, **values: object) -> None:
        async with site.database.sessions() as session:
            data = Change.model_validate({"current_password": PASSWORD, **values})
            await site.flow.change(session, await Users(session).get_one(1), data, confirm=confirm, code=code)

    for code in (None, "", "000000"):
        with pytest.raises(UserInputError) as caught:
            await change(code, email=BOB)
        assert [error.code for error in caught.value.errors] == ["wrong_code"]
    await change(ann.recovery_codes[0], email=BOB)
    await change(email=EMAIL, confirm=False)
    await change(password=NEW)
    assert site.told == [("email", EMAIL), ("email", BOB), ("password", EMAIL)]


async def test_a_throttle(ann: Person, site: ChangeSite) -> None:
    """R46, R47: guesses at codes are limited in changes, together with those in logins. A missing code is no guess."""
    flow = replace(site.flow, throttle=LoginThrottle(per_account=3))
    site.include(replace(site.mail, flow=flow), "/limited")

    async def guess(**code: str) -> int:
        body, headers = {"current_password": PASSWORD, "email": BOB, **code}, {"Authorization": f"Bearer {ann.pair['access_token']}"}
        return (await ann.client.post("/limited/email", json=body, headers=headers)).status_code

    assert [await guess() for _ in range(4)] == [422] * 4
    assert [await guess(code="000000") for _ in range(4)] == [422, 422, 422, 429]


# --- Notices ---


async def test_notices(ann: Person, site: ChangeSite) -> None:
    """R46: users are told when a second factor is enabled or disabled, and of new recovery codes, and not of what fails."""
    await ann("POST", "/second-factor/disable", json={"current_password": PASSWORD, "code": "000000"})
    assert site.told == []

    disabled = await ann("POST", "/second-factor/disable", json={"current_password": PASSWORD, "code": ann.recovery_codes[0]})
    assert disabled.status_code == 204
    await ann.enrol()
    body = {"current_password": PASSWORD, "code": site.code(ann.secret, later=1)}
    assert (await ann("POST", "/second-factor/recovery-codes", json=body)).status_code == 200

    assert site.told == [("second_factor_disabled", EMAIL), ("second_factor_enabled", EMAIL), ("recovery_codes", EMAIL)]


@pytest.mark.parametrize("commits", [True, False])
async def test_notices_of_a_transaction(ann: Person, site: ChangeSite, commits: bool) -> None:
    """R46: in a transaction of the application, users are told after its commit."""
    with pytest.raises(KeyError):
        async with site.database.begin() as session:
            user = await Users(session).get_one(1)
            await disable_second_factor(site.flow, session, user, current_password=PASSWORD, code=ann.recovery_codes[0])
            assert site.told == []
            if commits:
                await session.commit()
            raise KeyError

    assert site.told == ([("second_factor_disabled", EMAIL)] if commits else [])


class SlowStore(SQLFactorStore):
    """A store that has committed a change, and waits. *asked* is set then."""

    def __init__(self) -> None:
        self.asked, self.goes_on = asyncio.Event(), asyncio.Event()

    async def replace(self, session: AsyncSession, user: TOTPMixin, new: FactorState, /, *, old: FactorState) -> bool:
        stored = await super().replace(session, user, new, old=old)
        self.asked.set()
        await self.goes_on.wait()
        return stored


@pytest.mark.parametrize("enable", [True, False])
async def test_a_client_that_leaves(ann: Person, site: ChangeSite, enable: bool) -> None:
    """R46: users are told, although the client leaves directly after the change."""
    if enable:
        await ann("POST", "/second-factor/disable", json={"current_password": PASSWORD, "code": ann.recovery_codes[0]})
        await ann.begin()
        site.told.clear()
    store = site.factor.store = SlowStore()

    async def change() -> None:
        async with site.database.sessions() as session:
            user = await Users(session).get_one(1)
            if enable:
                await confirm_second_factor(site.flow, session, user, code=site.code(ann.secret))
            else:
                await disable_second_factor(site.flow, session, user, current_password=PASSWORD, code=ann.recovery_codes[0])

    request = asyncio.create_task(change())
    await asyncio.wait_for(store.asked.wait(), timeout=10)
    request.cancel()
    await asyncio.sleep(0)
    store.goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await request

    assert site.told == [("second_factor_enabled" if enable else "second_factor_disabled", EMAIL)]


# --- An API key ---


async def test_an_api_key(ann: Person, site: ChangeSite) -> None:
    """R45, R46: with ``flow=``, a key of a user with a second factor needs a code beside the password: it would log in without one."""
    keys = APIKeys(MemoryAPIKeyStore(), prefix="shop")
    router = api_keys_router(keys, current_user=site.get_user, flow=site.flow, session=site.database.session)
    site.app.include_router(router, prefix="/auth/keys")
    code = {"code": site.code(ann.secret, later=1)}

    answers = [
        await ann("POST", "/keys", json={"name": "ci", "current_password": password, **given})
        for password, given in [(PASSWORD, {}), (PASSWORD, {"code": "000000"}), ("wrong", code), (PASSWORD, code), (PASSWORD, code)]
    ]

    errors = [answer.json()["errors"][0]["code"] for answer in answers if answer.status_code == 422]
    assert ([answer.status_code for answer in answers], errors) == (
        [422, 422, 422, 201, 422],
        ["wrong_code", "wrong_code", "wrong_password", "wrong_code"],
    )
    assert len(await keys.list("1")) == 1


# --- A new password while the factor is changed ---


async def set_password(site: Site) -> None:
    async with site.database.begin() as session:
        await session.execute(update(FactorUser).values(hashed_password=await cheap_hasher().hash(NEW)))


class Changing(SQLFactorStore):
    """Another request sets a new password directly before the new state is stored."""

    def __init__(self, site: Site) -> None:
        self.site = site

    async def replace(self, session: AsyncSession, user: TOTPMixin, new: FactorState, /, *, old: FactorState) -> bool:
        await set_password(self.site)
        return await super().replace(session, user, new, old=old)


@pytest.mark.parametrize("path", ["", "/recovery-codes", "/disable"])
async def test_a_password_that_changes_meanwhile(ann: Person, site: ChangeSite, path: str) -> None:
    """R36, R46: what the old password has begun is not stored after a new one, and nobody is told of it."""
    code = {"code": site.code(ann.secret, later=1)} if path else {}
    if not path:
        await ann("POST", "/second-factor/disable", json={"current_password": PASSWORD, "code": site.code(ann.secret, later=1)})
        site.told.clear()
    before = vars(await stored_state(site))
    site.factor.store = Changing(site)

    answer = await ann("POST", f"/second-factor{path}", json={"current_password": PASSWORD, **code})

    assert answer.status_code == 409
    assert (vars(await stored_state(site)), site.told) == (before, [])


async def stored_state(site: ChangeSite) -> FactorState:
    user = await site.user()
    assert user is not None
    async with site.database.sessions() as session:
        return await SQLFactorStore().read(session, user)


@pytest.mark.parametrize("meanwhile", [False, True])
async def test_an_enrolment_ends_with_the_password(site: ChangeSite, meanwhile: bool) -> None:
    """R36, R46: a thief with an access token and a secret from before cannot enable it after the user has set a new password."""
    async with app_client(site.app) as client:
        thief = Person(site, client)
        await thief.begin()
        if meanwhile:
            site.factor.store = Changing(site)
        else:
            await set_password(site)

        answer = await thief("POST", "/second-factor/confirm", json={"code": site.code(thief.secret)})

        assert answer.status_code == 409
        assert site.told == []
        assert (await thief.log_in(password=NEW)).status_code == 200


@pytest.mark.parametrize(("later", "status"), [(timedelta(minutes=29), 200), (timedelta(minutes=30), 409)])
async def test_an_enrolment_ends(site: ChangeSite, later: timedelta, status: int) -> None:
    """R46: a secret that nobody has confirmed for 30 minutes is over: an access token does not enable it any more."""
    async with app_client(site.app) as client:
        person = Person(site, client)
        await person.begin()
        site.clock.advance(later)
        person.pair = (await person.log_in()).json()

        answer = await person("POST", "/second-factor/confirm", json={"code": site.code(person.secret)})

    assert answer.status_code == status
