"""New recovery codes, and clients that leave before they see theirs."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from httpx import Response
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession
from tests.auth.accounts import PASSWORD
from tests.auth.second_factor.site import AllRead, Person, Site, Users, load_user, store_user
from tests.auth.users.test_leaving import send
from tests.tables.accounts import FactorUser

from fastapi_kit.auth import APIKeyTransport, BearerTransport, get_current_user_factory
from fastapi_kit.auth.api_keys import APIKeys, MemoryAPIKeyStore
from fastapi_kit.auth.second_factor import FactorState
from fastapi_kit.auth.second_factor.sql import SQLFactorStore, TOTPMixin
from fastapi_kit.auth.users import AuthEndpoint, LoginThrottle, UserProfile, auth_router, renew_recovery_codes
from fastapi_kit.dependencies import Dependency
from fastapi_kit.errors import UnavailableError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.testing import app_client, cheap_hasher

RENEW, CONFIRM = "/second-factor/recovery-codes", "/second-factor/confirm"


async def renew(person: Person, code: str, password: str = PASSWORD) -> Response:
    return await person("POST", RENEW, json={"current_password": password, "code": code})


async def works(person: Person, code: str) -> bool:
    """Whether a login with *code* succeeds, which uses it up."""
    return (await person.send_code(await person.challenge(), code)).status_code == 200


async def test_new_recovery_codes(ann: Person, site: Site) -> None:
    """R46: the password and a code of the app give ten new recovery codes; no old one works after that, and the code is used up."""
    code = site.code(ann.secret, later=1)

    answer = await renew(ann, code)

    new = answer.json()["recovery_codes"]
    assert (answer.status_code, answer.headers["cache-control"], len(new)) == (200, "no-store", 10)
    assert not set(new) & set(ann.recovery_codes)
    assert [await works(ann, old) for old in (*ann.recovery_codes, code)] == [False] * 11
    assert [await works(ann, each) for each in (new[0], new[0], new[9])] == [True, False, True]
    assert (await ann("GET", "/second-factor")).json() == {"enabled": True, "recovery_codes": 8}


async def test_what_does_not_give_new_ones(ann: Person, site: Site) -> None:
    """R46: a wrong password, a wrong code, a used one and a recovery code give no new codes, and change nothing."""
    right, used = site.code(ann.secret, later=1), site.code(ann.secret)

    answers = [
        await renew(ann, right, "wrong horse battery"),
        *[await renew(ann, code) for code in ("000000", used, ann.recovery_codes[0], "x")],
        await renew(ann, ""),
        await ann("POST", RENEW, json={"code": right}),
    ]

    assert [answer.status_code for answer in answers] == [422] * 7
    assert [answer.json()["errors"][0]["code"] for answer in answers[:5]] == ["wrong_password"] + ["wrong_code"] * 4
    assert (await ann("GET", "/second-factor")).json()["recovery_codes"] == 10
    assert [await works(ann, code) for code in (ann.recovery_codes[0], right)] == [True, True]


async def test_without_a_factor(bare: Person, site: Site) -> None:
    """Users who have not enabled the factor get no recovery codes: 409, also while the app is not confirmed."""
    bare.pair = (await bare.log_in()).json()
    answers = [await renew(bare, "000000")]
    await bare.begin()
    answers.append(await renew(bare, site.code(bare.secret)))

    assert [answer.status_code for answer in answers] == [409, 409]
    assert (await bare("GET", "/second-factor")).json() == {"enabled": False, "recovery_codes": 0}


@pytest.mark.only_full
async def test_twenty_at_once(ann: Person, site: Site) -> None:
    """R46: of twenty requests at the same time one gets new codes, and only these work."""
    code = site.code(ann.secret, later=1)
    site.factor.store = AllRead(20)

    answers = await asyncio.gather(*(renew(ann, code) for _ in range(20)))

    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19
    (shown,) = [answer.json()["recovery_codes"] for answer in answers if answer.status_code == 200]
    assert [await works(ann, old) for old in (ann.recovery_codes[0], code)] == [False, False]
    assert [await works(ann, new) for new in shown] == [True] * 10


@pytest.mark.only_full
async def test_several_codes_at_once(ann: Person, site: Site) -> None:
    """R46: if requests with different codes succeed one after the other, the codes of the last one work, and no others."""
    site.clock.advance(timedelta(minutes=5))
    codes = [site.code(ann.secret, later=later) for later in (-1, 0, 1)] * 7

    answers = await asyncio.gather(*(renew(ann, code) for code in codes))

    assert {answer.status_code for answer in answers} <= {200, 409, 422}
    shown = [answer.json()["recovery_codes"] for answer in answers if answer.status_code == 200]
    assert 1 <= len(shown) <= 3
    assert sum([await works(ann, codes[0]) for codes in shown]) == 1


async def test_a_login_at_the_same_time(ann: Person, site: Site) -> None:
    """R46: a login with an old recovery code comes before the new ones, which are then a 409, or after them, and fails."""
    challenge = await ann.challenge()
    site.factor.store = AllRead(2)

    login, renewed = await asyncio.gather(ann.send_code(challenge, ann.recovery_codes[0]), renew(ann, site.code(ann.secret, later=1)))

    assert (login.status_code, renewed.status_code) in {(200, 409), (401, 200)}
    assert not await works(ann, ann.recovery_codes[0])


async def test_a_transaction_that_is_rolled_back(ann: Person, site: Site) -> None:
    """In a transaction of your application that is rolled back the old codes go on working, and the code is not used up."""
    code = site.code(ann.secret, later=1)
    with pytest.raises(KeyError):
        async with site.database.begin() as session:
            user = await Users(session).get_one(1)
            codes = await renew_recovery_codes(site.flow, session, user, current_password=PASSWORD, code=code)
            raise KeyError

    assert [await works(ann, each) for each in (codes[0], ann.recovery_codes[0], code)] == [False, True, True]


def throttled(site: Site, *, per_account: int) -> FastAPI:
    """The routes of *site*, with a limit on guesses."""
    site.flow = replace(site.flow, throttle=LoginThrottle(per_account=per_account))
    app = FastAPI()
    register_exception_handlers(app)
    site.add_routes(app, site.flow)
    return app


async def test_a_throttle(ann: Person, site: Site) -> None:
    """R46: codes and passwords for new recovery codes are limited for each user, the codes together with those of logins."""
    app = throttled(site, per_account=3)
    async with app_client(app) as client:
        thief = Person(site, client)
        thief.pair = ann.pair
        codes = [await renew(thief, "000000") for _ in range(3)]
        late = [await renew(thief, site.code(ann.secret, later=1)), await thief.send_code(await thief.challenge(), ann.recovery_codes[0])]
        passwords = [await renew(thief, "000000", "wrong horse battery") for _ in range(4)]

    assert [answer.status_code for answer in [*codes, *late, *passwords]] == [422] * 3 + [429] * 2 + [422] * 3 + [429]
    assert "429" in app.openapi()["paths"][f"/auth{RENEW}"]["post"]["responses"]


async def test_a_stolen_token_uses_up_no_codes(ann: Person, site: Site) -> None:
    """R46, R47: who has an access token and not the password cannot use up the attempts at codes, and so keep the user from logging in."""
    async with app_client(throttled(site, per_account=2)) as client:
        thief = Person(site, client)
        thief.pair = ann.pair
        for _ in range(3):
            await thief("POST", CONFIRM, json={"code": "000000"})
            await renew(thief, "000000", "wrong horse battery")
        login = await thief.send_code(await thief.challenge(), ann.recovery_codes[0])

    assert login.status_code == 200


async def test_guesses_at_the_first_code(bare: Person, site: Site) -> None:
    """R46: the codes that confirm an app are limited, too."""
    site.flow = replace(site.flow, throttle=LoginThrottle(per_account=2))
    app = FastAPI()
    register_exception_handlers(app)
    site.add_routes(app, site.flow)
    async with app_client(app) as client:
        person = Person(site, client)
        await person.begin()
        answers = [await person("POST", CONFIRM, json={"code": code}) for code in ("000000", "000000", site.code(person.secret))]

    assert [answer.status_code for answer in answers] == [422, 422, 429]


async def test_only_the_user(ann: Person, site: Site) -> None:
    """R45, R50: neither a key nor a superuser who acts as the user gets new recovery codes."""
    keys = APIKeys(MemoryAPIKeyStore(), prefix="shop")
    admin = await store_user(site.database, "admin@example.com", is_superuser=True)
    ways = [APIKeyTransport(keys=keys), BearerTransport()]
    user = get_current_user_factory(site.logins, load_user, session=site.database.session, transports=ways)
    app = FastAPI()
    register_exception_handlers(app)
    endpoints = AuthEndpoint.SECOND_FACTOR
    app.include_router(auth_router(site.flow, session=site.database.session, current_user=user, read=UserProfile, endpoints=endpoints))
    acting = site.tokens.create_access_token("1", actor=str(admin.id))
    body = {"current_password": PASSWORD, "code": site.code(ann.secret, later=1)}

    async with app_client(app) as client:
        denied = [
            await client.post(RENEW, json=body, headers={"X-API-Key": (await keys.create("1", name="Key")).key}),
            await client.post(RENEW, json=body, headers={"Authorization": f"Bearer {acting}"}),
        ]

    assert [answer.status_code for answer in denied] == [403, 403]
    assert await works(ann, ann.recovery_codes[0])


def test_the_document(site: Site) -> None:
    """The route is in OpenAPI, with its answers."""
    operation = site.app.openapi()["paths"][f"/auth{RENEW}"]["post"]

    assert operation["security"]
    assert operation["responses"].keys() - {"default"} == {"200", "400", "401", "403", "409", "413", "422", "503"}


# --- Clients that leave ---


class Leaving(SQLFactorStore):
    """Lets the client leave, and then stores the new state, or fails."""

    def __init__(self, gone: asyncio.Event, *, stored: bool) -> None:
        self.gone = gone
        self.stored = stored

    async def replace(self, session: AsyncSession, user: TOTPMixin, new: FactorState, /, *, old: FactorState) -> bool:
        self.gone.set()
        for _ in range(20):
            await asyncio.sleep(0)
        if not self.stored:
            raise UnavailableError("the database")
        return await super().replace(session, user, new, old=old)


async def leave(person: Person, path: str, gone: asyncio.Event, app: FastAPI | None = None, **body: str) -> int | None:
    """Send a request whose client leaves when *gone* is set, and return the status of the answer that nobody gets."""
    headers = [(b"authorization", f"Bearer {person.pair['access_token']}".encode())]
    return await send(app or person.site.app, f"/auth{path}", json.dumps(body).encode(), "application/json", gone, headers)


@pytest.mark.parametrize("stored", [False, True])
async def test_a_client_that_leaves_while_the_factor_is_enabled(bare: Person, site: Site, stored: bool) -> None:
    """R46: the factor is off, and can be confirmed, or it is on: then the app logs in, and gives new codes for those that nobody saw."""
    await bare.begin()
    gone, store = asyncio.Event(), site.factor.store
    site.factor.store = Leaving(gone, stored=stored)
    assert await leave(bare, CONFIRM, gone, code=site.code(bare.secret)) == 499
    site.factor.store = store

    assert (await bare("GET", "/second-factor")).json() == {"enabled": stored, "recovery_codes": 10 if stored else 0}
    again = await bare("POST", CONFIRM, json={"code": site.code(bare.secret)})
    assert again.status_code == (409 if stored else 200)
    site.clock.advance(timedelta(minutes=1))
    bare.pair = (await bare.send_code(await bare.challenge(), site.code(bare.secret))).json()
    new = (await renew(bare, site.code(bare.secret, later=1))).json()["recovery_codes"]
    assert await works(bare, new[0])


@pytest.mark.parametrize("stored", [False, True])
async def test_a_client_that_leaves_while_new_codes_are_made(ann: Person, site: Site, stored: bool) -> None:
    """R46: the old codes work, or none that anybody saw does: then the app, which made the request, makes others."""
    gone, store = asyncio.Event(), site.factor.store
    site.factor.store = Leaving(gone, stored=stored)
    assert await leave(ann, RENEW, gone, current_password=PASSWORD, code=site.code(ann.secret, later=1)) == 499
    site.factor.store = store

    assert (await ann("GET", "/second-factor")).json() == {"enabled": True, "recovery_codes": 10}
    assert await works(ann, ann.recovery_codes[0]) is not stored
    site.clock.advance(timedelta(minutes=1))
    new = (await renew(ann, site.code(ann.secret))).json()["recovery_codes"]
    assert await works(ann, new[0])


@pytest.mark.parametrize("path", [CONFIRM, RENEW])
async def test_a_client_that_leaves_at_the_commit(bare: Person, site: Site, path: str) -> None:
    """R46: with a session that commits at the end of the request, the COMMIT is not cancelled: all of it is stored."""
    await bare.begin()
    if path == RENEW:
        await bare("POST", CONFIRM, json={"code": site.code(bare.secret)})
    gone = asyncio.Event()

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with site.database.begin() as session:
            yield session
            gone.set()
            for _ in range(20):
                await asyncio.sleep(0)

    app = app_on(site, Depends(get_session, scope="function"))
    body = {"code": site.code(bare.secret, later=1)} | ({"current_password": PASSWORD} if path == RENEW else {})
    before = await stored_hashes(site)

    assert await leave(bare, path, gone, app, **body) == 200
    assert (await bare("GET", "/second-factor")).json() == {"enabled": True, "recovery_codes": 10}
    assert await stored_hashes(site) != before


def app_on(site: Site, session: Dependency[AsyncSession]) -> FastAPI:
    """The app with another session in the routes."""
    app = FastAPI()
    register_exception_handlers(app)
    user = get_current_user_factory(site.logins, load_user, session=session)
    options: dict[str, Any] = {"session": session, "current_user": user, "read": UserProfile}
    app.include_router(auth_router(site.flow, **options, endpoints=AuthEndpoint.SECOND_FACTOR), prefix="/auth")
    return app


async def stored_hashes(site: Site) -> str | None:
    async with site.database.sessions() as session:
        return (await Users(session).get_one(1)).totp_recovery_hashes


# --- Users without a password ---


async def test_a_user_without_a_password(bare: Person, site: Site) -> None:
    """R46: no login of such a user asks for a code, so the factor cannot be enabled, until the user has a password."""
    async with site.database.begin() as session:
        await session.execute(update(FactorUser).values(hashed_password=None))
    bare.pair = vars(await site.logins.start("1"))
    for password in (PASSWORD, "x"):
        answer = await bare("POST", "/second-factor", json={"current_password": password})
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "wrong_password")

    async with site.database.begin() as session:
        await session.execute(update(FactorUser).values(hashed_password=await cheap_hasher().hash(PASSWORD)))

    await bare.enrol()
    assert (await bare.log_in()).json()["code"] == "second_factor_required"
