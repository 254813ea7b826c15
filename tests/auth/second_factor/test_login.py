"""Logins with a second factor, and how users enable and disable it."""

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from fastapi import FastAPI
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncSession
from tests.auth.accounts import PASSWORD
from tests.auth.second_factor.site import EMAIL, AllRead, Person, Site, Users, load_user, store_user
from tests.tables.accounts import FactorUser

from fastapi_kit.auth import CookieTransport, get_current_user_factory
from fastapi_kit.auth.logins import ClientInfo, StatelessLogins, StoredLogins, TokenPair
from fastapi_kit.auth.passwords.contexts import bcrypt_context
from fastapi_kit.auth.second_factor import TOTP, FactorState, SecondFactor
from fastapi_kit.auth.second_factor.sql import SQLFactorStore
from fastapi_kit.auth.users import (
    AuthEndpoint,
    AuthFlow,
    LoginThrottle,
    UserProfile,
    auth_router,
    begin_second_factor,
    confirm_second_factor,
    login_with_code,
)
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, InvalidCredentialsError, InvalidTokenError, RateLimitedError, SecondFactorRequiredError
from fastapi_kit.handlers import legacy_body, register_exception_handlers
from fastapi_kit.ratelimit import MemoryCounter
from fastapi_kit.testing import app_client, cheap_hasher

# --- The login ---


async def test_a_login_with_a_code(ann: Person, site: Site) -> None:
    """R46: the password gives no tokens but a challenge, and the challenge with a code gives them, with the scopes that were asked for."""
    asked = await ann.log_in("notes:read other")

    assert (asked.status_code, asked.headers["cache-control"]) == (401, "no-store")
    body = asked.json()
    assert (body["code"], body["context"].keys(), body["context"]["expires_in"]) == (
        "second_factor_required",
        {"challenge_token", "expires_in"},
        300,
    )
    answer = await ann.send_code(body["context"]["challenge_token"], site.code(ann.secret, later=1))
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    ann.pair = answer.json()
    assert ann.pair["scope"] == "notes:read"
    assert (await ann("GET", "/me")).json()["email"] == EMAIL
    refreshed = await ann.client.post("/auth/refresh", json={"refresh_token": ann.pair["refresh_token"]})
    assert (refreshed.status_code, refreshed.json()["scope"]) == (200, "notes:read")


async def test_a_login_without_a_factor(bare: Person) -> None:
    """Users who have not enabled it log in with their password, also while the app is not confirmed yet."""
    assert (await bare.log_in()).status_code == 200
    await bare.begin()
    assert (await bare.log_in()).status_code == 200


async def test_a_wrong_password_shows_nothing(ann: Person) -> None:
    """A client without the password does not learn that the account has a second factor."""
    answer = await ann.log_in(password="wrong horse battery")

    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_credentials")


async def test_scopes_that_were_taken_away(ann: Person, site: Site) -> None:
    """A login gets no scope that the user lost between the password and the code."""
    challenge = await ann.challenge("notes:read notes:write")
    site.scopes = ["notes:read"]

    assert (await ann.send_code(challenge, site.code(ann.secret, later=1))).json()["scope"] == "notes:read"


async def test_a_code_works_once(ann: Person, site: Site) -> None:
    """R46: the code that enabled the factor, a code of a login, and a recovery code do not work again."""
    used = site.code(ann.secret)
    fresh, recovery = site.code(ann.secret, later=1), ann.recovery_codes[3].upper()

    codes = [used, fresh, fresh, recovery, recovery, "000000", "", "x"]
    answers = [await ann.send_code(await ann.challenge(), code) for code in codes]

    assert [answer.status_code for answer in answers] == [401, 200, 401, 200, 401, 401, 422, 401]
    assert {answer.json()["code"] for answer in answers if answer.status_code == 401} == {"invalid_credentials"}
    assert (await ann("GET", "/second-factor")).json() == {"enabled": True, "recovery_codes": 9}


@pytest.mark.only_full
@pytest.mark.parametrize("kind", ["app", "recovery"])
async def test_twenty_logins_with_one_code(ann: Person, site: Site, kind: str) -> None:
    """R46: of twenty logins at the same time with one code, exactly one succeeds."""
    code = site.code(ann.secret, later=1) if kind == "app" else ann.recovery_codes[0]
    challenges = [await ann.challenge() for _ in range(20)]
    site.factor.store = AllRead(20)

    answers = await asyncio.gather(*(ann.send_code(challenge, code) for challenge in challenges))

    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 19


async def test_two_codes_at_once(ann: Person, site: Site) -> None:
    """Two logins at the same moment with different codes both succeed."""
    codes = [site.code(ann.secret, later=1), *ann.recovery_codes[:2]]
    challenges = [await ann.challenge() for _ in codes]
    site.factor.store = AllRead(3)

    answers = await asyncio.gather(*(ann.send_code(challenge, code) for challenge, code in zip(challenges, codes, strict=True)))

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert (await ann("GET", "/second-factor")).json()["recovery_codes"] == 8


async def test_a_challenge_is_no_other_token(ann: Person, site: Site) -> None:
    """R46: a challenge opens no route and refreshes nothing, and no other token takes its place."""
    challenge, login = await ann.challenge(), ann.pair
    ann.pair = {"access_token": challenge}

    assert (await ann("GET", "/me")).status_code == 401
    assert (await ann.client.post("/auth/refresh", json={"refresh_token": challenge})).status_code == 401
    code = site.code(ann.secret, later=1)
    for other in (login["access_token"], login["refresh_token"], challenge[:-2], "x", ""):
        answer = await ann.send_code(other, code)
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
    assert (await ann.send_code(challenge, code)).status_code == 200


async def test_a_challenge_that_is_too_old(ann: Person, site: Site) -> None:
    """A challenge is over after five minutes."""
    challenge = await ann.challenge()
    site.clock.advance(timedelta(minutes=5, seconds=10))

    answer = await ann.send_code(challenge, site.code(ann.secret))

    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")


CHANGES: dict[str, dict[str, Any]] = {
    "another password": {"hashed_password": "$2b$04$abcdefghijklmnopqrstuuTb7LPJSTyPMrDvmJmTyWHLuXWNGnvlG"},
    "no password": {"hashed_password": None},
    "deactivated": {"is_active": False},
    "another secret": {"totp_secret": b"other"},
    "disabled": {"totp_secret": None, "totp_last_step": None, "totp_recovery_hashes": None},
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_challenge_of_another_time(ann: Person, site: Site, change: str) -> None:
    """R46: a challenge is over when the password or the factor changes, or the user may not log in any more."""
    challenge = await ann.challenge()
    async with site.database.begin() as session:
        await session.execute(update(FactorUser).values(CHANGES[change]))

    answer = await ann.send_code(challenge, ann.recovery_codes[0])

    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")


async def test_a_deleted_user(ann: Person, site: Site) -> None:
    """The challenge of a user who was deleted is over."""
    challenge = await ann.challenge()
    async with site.database.begin() as session:
        await session.execute(text("DELETE FROM factor_users"))

    assert (await ann.send_code(challenge, ann.recovery_codes[0])).status_code == 401


async def test_another_users_code(ann: Person, site: Site) -> None:
    """A challenge takes the codes of its own user only, and who enrols changes no other user."""
    challenge = await ann.challenge()
    bob, eve = [await store_user(site.database, email) for email in ("bob@example.com", "eve@example.com")]
    async with site.database.sessions() as session:
        made = await begin_second_factor(site.flow, session, bob, current_password=PASSWORD)
        codes = await confirm_second_factor(site.flow, session, bob, code=site.code(made.secret))

    assert [(await ann.send_code(challenge, code)).status_code for code in (codes[0], site.code(made.secret, later=1))] == [401, 401]
    async with site.database.sessions() as session:
        assert (await Users(session).get_one(eve.id)).totp_secret is None


async def test_an_outdated_hash(site: Site) -> None:
    """A login that replaces an outdated hash gives a challenge that works."""
    await store_user(site.database)
    async with app_client(site.app) as client:
        ann = Person(site, client)
        await ann.enrol()
        async with site.database.begin() as session:
            await session.execute(update(FactorUser).values(hashed_password=bcrypt_context(rounds=5).hash(PASSWORD)))

        assert (await ann.send_code(await ann.challenge(), ann.recovery_codes[0])).status_code == 200


async def test_a_password_that_changes_meanwhile(ann: Person, site: Site) -> None:
    """A login that begins while the password is changed is ended, as the change ends the others."""

    class Slow(StoredLogins):
        async def start(self, subject: str, *, scopes: Any = (), client: ClientInfo | None = None) -> TokenPair:
            pair = await super().start(subject, scopes=scopes, client=client)
            async with site.database.begin() as session:
                await session.execute(update(FactorUser).values(CHANGES["another password"]))
            return pair

    challenge = await ann.challenge()
    await site.logins.end_all("1")
    flow = replace(site.flow, logins=Slow(site.tokens, site.logins.store))

    async with site.database.sessions() as session:
        with pytest.raises(InvalidTokenError, match="password was changed"):
            await login_with_code(flow, session, challenge_token=challenge, code=ann.recovery_codes[0])

    assert await site.logins.list_logins("1") == []


async def test_identify_and_stateless_logins(ann: Person, site: Site) -> None:
    """The factor works with a login by a user name, and with logins that are stored nowhere."""

    async def identify(session: AsyncSession, name: str) -> FactorUser | None:
        return await Users(session).get_account_by_email(f"{name}@example.com")

    flow = replace(site.flow, identify=identify, logins=StatelessLogins(site.tokens))
    async with site.database.sessions() as session:
        with pytest.raises(SecondFactorRequiredError) as caught:
            await flow.login(session, email="ann", password=PASSWORD, scopes=["notes:read"])
        pair = await login_with_code(flow, session, challenge_token=caught.value.challenge_token, code=ann.recovery_codes[0])

    assert (pair.scope, caught.value.challenge_token in str(caught.value) + repr(caught.value)) == ("notes:read", False)


async def test_the_list_of_logins(ann: Person, site: Site) -> None:
    """The list of logins shows the client that sent the code."""
    challenge = await ann.challenge()
    json = {"challenge_token": challenge, "code": ann.recovery_codes[0]}
    await ann.client.post("/auth/login/second-factor", json=json, headers={"User-Agent": "Phone"})

    assert "Phone" in [login.user_agent for login in await site.logins.list_logins("1")]


async def test_an_app_with_fastapis_bodies(ann: Person, site: Site) -> None:
    """With FastAPI's own error body the challenge is in the detail."""
    app = FastAPI()
    register_exception_handlers(app, body=legacy_body)
    site.add_routes(app, site.flow)

    async with app_client(app) as client:
        answer = await Person(site, client).log_in()

    assert (answer.status_code, answer.json()["detail"].keys()) == (401, {"challenge_token", "expires_in"})


async def test_a_login_with_cookies(ann: Person, site: Site) -> None:
    """In a browser neither the password nor another site sets a cookie; the code does, and no answer contains a token."""
    cookie = CookieTransport(csrf_key=b"kJ8#vQ2!xW5@zR9$nL3%pC7^hF4&dS6*")
    user = get_current_user_factory(site.logins, load_user, session=site.database.session, transports=[cookie])
    app = FastAPI()
    register_exception_handlers(app)
    endpoints = AuthEndpoint.LOGIN | AuthEndpoint.ME
    options: dict[str, Any] = {"session": site.database.session, "current_user": user, "read": UserProfile, "endpoints": endpoints}
    app.include_router(auth_router(site.flow, **options, cookie=cookie), prefix="/auth")

    async with app_client(app) as client:
        client.headers["Origin"] = "https://test"
        form = {"username": EMAIL, "password": PASSWORD}
        asked = await client.post("/auth/login", data=form)
        assert (asked.status_code, asked.json()["code"], "set-cookie" in asked.headers) == (401, "second_factor_required", False)
        answer = {"challenge_token": asked.json()["context"]["challenge_token"], "code": ann.recovery_codes[0]}
        foreign = await client.post("/auth/login/second-factor", json=answer, headers={"Origin": "https://evil.example"})
        assert (foreign.status_code, (await client.get("/auth/me")).status_code) == (403, 401)

        logged_in = await client.post("/auth/login/second-factor", json=answer)

        assert (logged_in.status_code, logged_in.content) == (204, b"")
        assert (await client.get("/auth/me")).json()["email"] == EMAIL


# --- Guessing ---


async def test_a_challenge_takes_five_codes(ann: Person, site: Site) -> None:
    """R46: after five wrong codes a challenge is over, also for the right one. A new login works."""
    challenge, right = await ann.challenge(), site.code(ann.secret, later=1)

    answers = [await ann.send_code(challenge, code) for code in [*["000000"] * 5, right, right]]

    assert [answer.json()["code"] for answer in answers] == ["invalid_credentials"] * 5 + ["invalid_token"] * 2
    assert (await ann.send_code(await ann.challenge(), right)).status_code == 200


async def test_a_throttle(ann: Person, site: Site) -> None:
    """R46: codes are limited for each user, over all challenges, before they are checked. A right password gives no new attempts."""
    site.flow = replace(site.flow, throttle=LoginThrottle(per_account=3))
    app = FastAPI()
    register_exception_handlers(app)
    site.add_routes(app, site.flow)
    right = site.code(ann.secret, later=1)
    async with app_client(app) as client:
        thief = Person(site, client)
        guesses = [await thief.send_code(await thief.challenge(), "000000") for _ in range(3)]
        late = await thief.send_code(await thief.challenge(), right)
        disable = {"current_password": PASSWORD, "code": right}
        thief.pair = ann.pair
        disabled = await thief("POST", "/second-factor/disable", json=disable)

    assert [answer.status_code for answer in guesses] == [401] * 3
    assert (late.status_code, late.json()["code"], "retry-after" in late.headers) == (429, "rate_limited", True)
    assert disabled.status_code == 429
    assert (await ann.send_code(await ann.challenge(), right)).status_code == 200


@pytest.mark.parametrize("name", ["code 1", "1"])
async def test_a_name_that_looks_like_an_id(ann: Person, site: Site, name: str) -> None:
    """R46, R47: nothing that strangers type as a name uses up the codes of a user, or gives them back."""
    flow = replace(site.flow, throttle=LoginThrottle(per_account=1))
    async with site.database.sessions() as session:
        for error in (InvalidCredentialsError, RateLimitedError):
            with pytest.raises(error):
                await flow.authenticate(session, email=name, password="wrong")
        with pytest.raises(InvalidCredentialsError):
            await login_with_code(flow, session, challenge_token=await ann.challenge(), code="000000")
        await flow.throttle.succeeded(account=name)  # type: ignore[union-attr]
        with pytest.raises(RateLimitedError):
            await login_with_code(flow, session, challenge_token=await ann.challenge(), code=ann.recovery_codes[0])


async def test_a_right_code_gives_the_attempts_back(ann: Person, site: Site) -> None:
    """After a right code the user has all attempts again."""
    flow = replace(site.flow, throttle=LoginThrottle(per_account=2))
    async with site.database.sessions() as session:
        for code in ("000000", ann.recovery_codes[0], "000000", ann.recovery_codes[1]):
            challenge = await ann.challenge()
            with suppress(InvalidCredentialsError):
                await login_with_code(flow, session, challenge_token=challenge, code=code)

    assert (await ann("GET", "/second-factor")).json()["recovery_codes"] == 8


async def test_memory_is_bounded(ann: Person, site: Site) -> None:
    """A flood of challenges takes no more memory than a fixed number of them."""
    site.factor.counter = counter = MemoryCounter(max_keys=3)

    for _ in range(5):
        await ann.send_code(await ann.challenge(), "000000")

    assert len(counter) == 3


# --- Enrolment ---


async def test_enrolment(bare: Person, site: Site) -> None:
    """A secret for the app needs the password, and a first code enables the factor and shows the recovery codes."""
    await bare.begin()
    wrong = await bare("POST", "/second-factor/confirm", json={"code": "000000"})
    assert (wrong.status_code, wrong.json()["errors"][0]["code"]) == (422, "wrong_code")
    assert (await bare("GET", "/second-factor")).json() == {"enabled": False, "recovery_codes": 0}

    answer = await bare("POST", "/second-factor/confirm", json={"code": site.code(bare.secret)})

    assert len(answer.json()["recovery_codes"]) == 10
    assert (await bare("GET", "/second-factor")).json() == {"enabled": True, "recovery_codes": 10}
    for path, data in [("", {"current_password": PASSWORD}), ("/confirm", {"code": site.code(bare.secret, later=1)})]:
        assert (await bare("POST", f"/second-factor{path}", json=data)).status_code == 409


async def test_the_address_of_the_secret(bare: Person) -> None:
    """The answer has the address for a QR code, with the name of the application and the user's address."""
    bare.pair = (await bare.log_in()).json()

    answer = (await bare("POST", "/second-factor", json={"current_password": PASSWORD})).json()

    assert answer["uri"].startswith(f"otpauth://totp/Zenith:{EMAIL}?secret={answer['secret']}&issuer=Zenith")


async def test_a_stolen_access_token(ann: Person, site: Site) -> None:
    """R46: who has an access token and no password can neither begin nor disable; with the password, a code is needed, too."""
    right, wrong = {"current_password": PASSWORD}, {"current_password": "wrong horse battery"}
    code = site.code(ann.secret, later=1)

    calls = [
        ("/second-factor", wrong),
        ("/second-factor/disable", {**wrong, "code": code}),
        ("/second-factor/disable", {**right, "code": "0"}),
    ]
    answers = [await ann("POST", path, json=data) for path, data in calls]

    assert [answer.json()["errors"][0]["code"] for answer in answers] == ["wrong_password", "wrong_password", "wrong_code"]
    assert (await ann("GET", "/second-factor")).json()["enabled"]


@pytest.mark.parametrize("kind", ["app", "recovery"])
async def test_switching_it_off(ann: Person, site: Site, kind: str) -> None:
    """The password and a code, or a recovery code, switch it off: nothing of it is left, and it can begin anew."""
    data = {"current_password": PASSWORD, "code": site.code(ann.secret, later=1) if kind == "app" else ann.recovery_codes[0]}

    assert (await ann("POST", "/second-factor/disable", json=data)).status_code == 204

    async with site.database.sessions() as session:
        user = (await Users(session).list())[0]
        assert (user.totp_secret, user.totp_last_step, user.totp_recovery_hashes) == (None, None, None)
    assert (await ann("POST", "/second-factor/disable", json=data)).status_code == 409
    before = ann.secret
    await ann.enrol()
    assert ann.secret != before


async def test_two_enrolments_at_once(bare: Person, site: Site) -> None:
    """Of several confirmations at once one succeeds, so the recovery codes that are shown are those that are stored."""
    await bare.begin()
    codes = [site.code(bare.secret, later=later) for later in (-1, 0, 1)] * 2
    site.factor.store = AllRead(6)

    answers = await asyncio.gather(*(bare("POST", "/second-factor/confirm", json={"code": code}) for code in codes))

    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 5
    (shown,) = [answer.json()["recovery_codes"] for answer in answers if answer.status_code == 200]
    assert (await bare.send_code(await bare.challenge(), shown[0])).status_code == 200


async def test_what_is_stored(ann: Person, site: Site) -> None:
    """R46: the table has neither the secret nor a recovery code; the repr of what is read shows nothing of them."""
    async with site.database.sessions() as session:
        user = (await Users(session).list())[0]
        state = await site.factor.store.read(session, user)

    assert user.totp_secret is not None
    assert site.cipher.decrypt(user.totp_secret).decode() == ann.secret
    stored = f"{user.totp_secret!r} {user.totp_recovery_hashes}"
    assert not any(secret in stored for secret in (ann.secret, *(code.replace("-", "") for code in ann.recovery_codes)))
    assert "secret=" not in repr(state)
    assert "recovery_hashes=" not in repr(state)


async def test_a_plain_secret(users: Database) -> None:
    """With ``cipher=None`` the secret is stored as it is."""
    site = Site(users, cipher=None)
    await store_user(users)
    async with app_client(site.app) as client:
        ann = Person(site, client)
        await ann.enrol()
        assert (await ann.send_code(await ann.challenge(), site.code(ann.secret, later=1))).status_code == 200

    async with users.sessions() as session:
        assert (await Users(session).list())[0].totp_secret == ann.secret.encode()


async def test_another_key_of_the_cipher(ann: Person, site: Site) -> None:
    """With another key the error says so; recovery codes go on working."""
    site.factor.cipher = Fernet(Fernet.generate_key())
    challenge = await ann.challenge()

    async with site.database.sessions() as session:
        with pytest.raises(ConfigurationError, match="another key"):
            await login_with_code(site.flow, session, challenge_token=challenge, code=site.code(ann.secret, later=1))

    assert (await ann.send_code(challenge, ann.recovery_codes[0])).status_code == 200


async def test_a_transaction_of_ones_own(ann: Person, site: Site) -> None:
    """In a transaction of your application a code is used up with its commit."""
    challenge, code = await ann.challenge(), ann.recovery_codes[0]
    async with site.database.sessions() as session:
        user = await Users(session).get_account("1")
    assert user is not None

    with pytest.raises(KeyError):
        async with site.database.begin() as session:
            claims = site.factor.decode(challenge)
            await site.factor.answer(session, user, claims, code, hashed_password=user.hashed_password)
            raise KeyError

    assert (await ann.send_code(challenge, code)).status_code == 200


# --- Set-up and robustness ---


async def test_nothing_is_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """No log record shows a challenge, a secret or a code."""
    caplog.set_level(logging.DEBUG)
    await store_user(site.database)
    async with app_client(site.app) as client:
        ann = Person(site, client)
        await ann.enrol()
        challenge, code = await ann.challenge(), site.code(ann.secret, later=1)
        await ann.send_code(challenge, "000000")
        await ann.send_code(challenge, code)

    library = [record.getMessage() for record in caplog.records if record.name.startswith("fastapi_kit")]
    assert not any(secret in line for line in library for secret in (challenge, ann.secret, code, *ann.recovery_codes))


HOSTILE: list[Any] = [None, 7, "", " ", "\0", "x" * 65, "x" * 100_000, "١٢٣٤٥٦", ["000000"], {"a": 1}, True]


@pytest.mark.parametrize("code", HOSTILE, ids=range(len(HOSTILE)))
async def test_a_hostile_code(ann: Person, code: Any) -> None:
    """No code is a 5xx, and none is sent back."""
    challenge = await ann.challenge()

    answers = [
        await ann.client.post("/auth/login/second-factor", json={"challenge_token": challenge, "code": code}),
        await ann("POST", "/second-factor/disable", json={"current_password": PASSWORD, "code": code}),
    ]

    assert all(400 <= answer.status_code < 500 for answer in answers)
    assert not any(len(str(code)) > 10 and str(code) in answer.text for answer in answers)


@pytest.mark.parametrize("lifetime", [timedelta(), timedelta(minutes=5, seconds=1)])
def test_the_lifetime_of_a_challenge(site: Site, lifetime: timedelta) -> None:
    """A challenge lives at most five minutes."""
    with pytest.raises(ConfigurationError, match="5 minutes"):
        SecondFactor(site.tokens, TOTP(issuer="Zenith"), SQLFactorStore(), cipher=None, challenge_lifetime=lifetime)


async def test_a_flow_without_a_factor(site: Site) -> None:
    """The routes and steps of a factor need one; without one, there is no route for its code."""
    flow = AuthFlow(accounts=Users, logins=site.logins, passwords=cheap_hasher())
    options: dict[str, Any] = {"session": site.database.session, "current_user": site.get_user, "read": UserProfile}

    with pytest.raises(ConfigurationError, match="second factor"):
        auth_router(flow, **options, endpoints=AuthEndpoint.SECOND_FACTOR)
    with pytest.raises(ConfigurationError, match="second factor"):
        async with site.database.sessions() as session:
            await login_with_code(flow, session, challenge_token="x", code="x")
    router = auth_router(flow, **options, endpoints=AuthEndpoint.LOGIN)
    assert [route.path for route in router.routes if hasattr(route, "path")] == ["/login"]


def test_the_document(site: Site) -> None:
    """The routes are in OpenAPI, and the login says what to do with a challenge."""
    paths = site.app.openapi()["paths"]

    assert "/login/second-factor" in paths["/auth/login"]["post"]["description"]
    assert "security" not in paths["/auth/login/second-factor"]["post"]
    enrolment = {"/auth/second-factor", "/auth/second-factor/confirm", "/auth/second-factor/disable"}
    assert all(operation["security"] for path in enrolment for operation in paths[path].values())


async def test_a_store_of_ones_own(site: Site) -> None:
    """A store is two methods over your own table."""
    states: dict[int, FactorState] = {}

    class Store:
        async def read(self, session: AsyncSession, user: FactorUser, /) -> FactorState:
            return states.get(user.id, FactorState())

        async def replace(self, session: AsyncSession, user: FactorUser, new: FactorState, /, *, old: FactorState) -> bool:
            if states.get(user.id, FactorState()) != old:
                return False
            states[user.id] = new
            return True

    factor = SecondFactor(site.tokens, site.factor.totp, Store(), cipher=None)
    flow, user = replace(site.flow, second_factor=factor), await store_user(site.database)
    async with site.database.sessions() as session:
        made = await begin_second_factor(flow, session, user, current_password=PASSWORD)
        await confirm_second_factor(flow, session, user, code=site.code(made.secret))

    assert states[user.id].is_enabled
    assert "secret" not in repr(made)
