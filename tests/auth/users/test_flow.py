"""The steps of AuthFlow, without HTTP."""

import asyncio
import logging
import threading
from collections.abc import Collection, Sequence
from dataclasses import replace

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker
from tests.auth.accounts import PASSWORD, Registration, Site, Users, store_user
from tests.tables.accounts import User

from fastapi_kit.auth.logins import ClientInfo, MemoryLoginStore, StoredLogins, TokenPair
from fastapi_kit.auth.passwords import HashContext, PasswordHasher, PasswordPolicy
from fastapi_kit.auth.users import Account, sql
from fastapi_kit.db import Database, DatabaseOptions
from fastapi_kit.errors import InvalidCredentialsError, InvalidTokenError, UserInputError
from fastapi_kit.health import health_router
from fastapi_kit.testing import app_client, assert_max_queries


class Counting:
    """Counts its calls, and calls every hash outdated that it did not make."""

    def __init__(self) -> None:
        self.hashed: list[str] = []
        self.verified: list[str] = []

    def hash(self, secret: str, /) -> str:
        self.hashed.append(secret)
        return f"new:{secret}"

    def verify_and_update(self, secret: str, hash: str, /) -> tuple[bool, str | None]:
        self.verified.append(hash)
        kind, _, known = hash.partition(":")
        return known == secret, f"new:{secret}" if known == secret and kind == "old" else None


def flow_with(site: Site, context: HashContext) -> Site:
    site.flow = replace(site.flow, passwords=PasswordHasher(context=context))
    return site


async def stored_hash(site: Site, ident: int) -> str | None:
    async with site.database.begin() as session:
        return (await Users(session).get_one(ident)).hashed_password


@pytest.mark.parametrize(
    ("values", "email"),
    [
        ({}, "ann@example.com"),
        ({}, "nobody@example.com"),
        ({}, "no address"),
        ({"is_active": False}, "ann@example.com"),
        ({"hashed_password": None}, "ann@example.com"),
    ],
    ids=str,
)
async def test_one_verification_whatever_happens(site: Site, values: dict[str, object], email: str) -> None:
    """R32: a login costs one verification whether or not the user exists, is active or has a password."""
    context = Counting()
    await store_user(site.database, **{"hashed_password": "new:right", **values})
    flow = flow_with(site, context).flow

    async with site.database.begin() as session:
        with pytest.raises(InvalidCredentialsError):
            await flow.authenticate(session, email=email, password="wrong")

    assert len(context.verified) == 1


async def test_an_outdated_hash_is_replaced(site: Site) -> None:
    """R34: a login with the right password replaces an outdated hash."""
    user = await store_user(site.database, hashed_password="old:right password")
    flow = flow_with(site, Counting()).flow

    for _ in range(2):
        async with site.database.sessions() as session:
            await flow.authenticate(session, email=user.email, password="right password")

    assert await stored_hash(site, user.id) == "new:right password"


async def test_a_wrong_password_replaces_nothing(site: Site) -> None:
    """R34: a login with a wrong password replaces no hash."""
    user = await store_user(site.database, hashed_password="old:right password")

    async with site.database.begin() as session:
        with pytest.raises(InvalidCredentialsError):
            await flow_with(site, Counting()).flow.authenticate(session, email=user.email, password="wrong")

    assert await stored_hash(site, user.id) == "old:right password"


async def test_a_hash_that_cannot_be_replaced(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """R34: a login succeeds if the better hash cannot be stored; the type of the error is logged, and the session is usable."""

    class Stubborn(Users):
        async def set_password(self, user: User, /, *, hashed_password: str, replacing: str | None = None) -> bool:
            await self.update(user.id, {"hashed_password": hashed_password + "x" * 300})
            return True

    user = await store_user(site.database, hashed_password="old:right password")
    flow = replace(flow_with(site, Counting()).flow, accounts=Stubborn)

    with caplog.at_level(logging.WARNING, "fastapi_kit.auth.users.flow"):
        async with site.database.sessions() as session:
            found = await flow.authenticate(session, email=user.email, password="right password")
            assert (found.id, found.email) == (user.id, user.email)
            assert await Users(session).count() == 1

    assert caplog.messages == ["An outdated password hash could not be replaced: InvalidDataError"]
    assert await stored_hash(site, user.id) == "old:right password"


async def test_the_short_write_of_an_upgrade(site: Site) -> None:
    """R34: a login is one statement, and one more if it replaces the hash."""
    user = await store_user(site.database, hashed_password="old:right password")
    flow = flow_with(site, Counting()).flow

    for statements in (2, 1):
        async with site.database.sessions() as session:
            with assert_max_queries(site.database, statements) as log:
                await flow.authenticate(session, email=user.email, password="right password")
            assert log.count == statements


async def test_a_password_that_was_changed_meanwhile_stays_changed(site: Site) -> None:
    """R34: a login replaces only the hash that it verified."""
    user = await store_user(site.database, hashed_password="old:right password")

    class Slow(Counting):
        def verify_and_update(self, secret: str, hash: str, /) -> tuple[bool, str | None]:
            asyncio.run_coroutine_threadsafe(change(), loop).result(timeout=30)
            return super().verify_and_update(secret, hash)

    async def change() -> None:
        async with site.database.begin() as session:
            await Users(session).set_password(user, hashed_password="new:another password")

    loop = asyncio.get_running_loop()
    async with site.database.sessions() as session:
        await flow_with(site, Slow()).flow.authenticate(session, email=user.email, password="right password")

    assert await stored_hash(site, user.id) == "new:another password"


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("deleted", [False, True])
async def test_a_user_whom_the_application_has_changed(site: Site, deleted: bool, plain: bool) -> None:
    """R36: a login that begins while the password is changed is ended, also if the application has set something on the user."""
    user = await store_user(site.database)

    class Slow(StoredLogins):
        async def start(self, subject: str, *, scopes: Collection[str] = (), client: ClientInfo | None = None) -> TokenPair:
            async with site.database.begin() as session:
                if deleted:
                    await Users(session).delete(user.id)
                else:
                    await Users(session).set_password(user, hashed_password="another")
            return await super().start(subject, scopes=scopes, client=client)

    def scopes_of(user: User) -> Sequence[str]:
        user.full_name = "Ann"
        return []

    logins = Slow(site.tokens, MemoryLoginStore())
    sessions = async_sessionmaker(site.database.engine) if plain else site.database.sessions
    async with sessions() as session:
        with pytest.raises(InvalidCredentialsError):
            await replace(site.flow, logins=logins, scopes=scopes_of).login(session, email=user.email, password=PASSWORD)

    assert await logins.list_logins(str(user.id)) == []


async def test_what_the_application_has_changed(site: Site) -> None:
    """A login keeps what the application has set on the user, and stores it when the application commits."""
    user = await store_user(site.database)

    def scopes_of(user: User) -> Sequence[str]:
        user.full_name = "Ann"
        return []

    flow = replace(site.flow, logins=StoredLogins(site.tokens, MemoryLoginStore()), scopes=scopes_of)
    async with site.database.sessions() as session:
        await flow.login(session, email=user.email, password=PASSWORD)
        await session.commit()

    async with site.database.sessions() as session:
        assert (await Users(session).get_one(user.id)).full_name == "Ann"


async def test_a_weak_password_is_rejected_before_it_is_hashed(site: Site) -> None:
    """R30: a weak password is rejected before it is hashed, also if it is similar to other fields."""
    context = Counting()
    flow = flow_with(site, context).flow
    data = Registration(email="ann@example.com", password="Margaret Hamilton", full_name="Margaret Hamilton")  # type: ignore[arg-type]
    made = len(context.hashed)

    async with site.database.begin() as session:
        with pytest.raises(UserInputError) as caught:
            await flow.register(session, data, password=data.password)

    assert [error.code for error in caught.value.errors] == ["too_similar"]
    assert len(context.hashed) == made


async def test_a_policy_of_your_own(site: Site) -> None:
    """R30: the flow uses the policy of the application, breach check included."""

    async def is_breached(password: str) -> bool:
        return password == PASSWORD

    flow = replace(site.flow, policy=PasswordPolicy(is_breached=is_breached))
    data = Registration(email="ann@example.com", password=PASSWORD)  # type: ignore[arg-type]

    async with site.database.begin() as session:
        with pytest.raises(UserInputError) as caught:
            await flow.register(session, data, password=data.password)
    assert [error.code for error in caught.value.errors] == ["breached"]


async def test_each_step_is_done_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login normalises its address and describes its user once; a refresh decodes its token once."""
    calls: list[str] = []

    class Counted(Users):
        def describe(self, user: User, /) -> Account:
            calls.append("describe")
            return super().describe(user)

    def count(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def counted(*args: object, **kwargs: object) -> object:
            calls.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    user = await store_user(site.database)
    flow = replace(site.flow, accounts=Counted)
    count(sql, "normalize_email")
    count(site.tokens, "decode")

    async with site.database.sessions() as session:
        pair = await flow.login(session, email=user.email, password=PASSWORD)
        assert sorted(calls) == ["describe", "normalize_email"]
        calls.clear()
        await flow.refresh(session, pair.refresh_token)

    assert sorted(calls) == ["decode", "describe"]


@pytest.mark.parametrize("subject", ["1.5", "ann@example.com", "00", "99999999999999999999", "-1"])
async def test_a_refresh_of_an_unknown_user(site: Site, subject: str) -> None:
    """R22: a refresh token is invalid if its subject is not the id of a user."""
    async with site.database.begin() as session:
        with pytest.raises(InvalidTokenError):
            await site.flow.refresh(session, site.tokens.create_refresh_token(subject))


async def test_registration_in_a_transaction(site: Site) -> None:
    """A registration inside an opened transaction is rolled back with it."""
    data = Registration(email="ann@example.com", password=PASSWORD)  # type: ignore[arg-type]

    async def register_and_fail() -> None:
        async with site.database.begin() as session:
            await site.flow.register(session, data, password=data.password)
            raise LookupError

    with pytest.raises(LookupError):
        await register_and_fail()
    async with site.database.begin() as session:
        assert await Users(session).count() == 0


async def test_one_winner(site: Site) -> None:
    """R51: of many registrations of one address at once, in any form, one succeeds and the others are a 409."""
    async with app_client(site.app) as client:
        forms = [{"email": email, "password": PASSWORD} for email in ("ann@example.com", "ANN@example.com") * 5]
        answers = await asyncio.gather(*(client.post("/auth/register", json=form) for form in forms))

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9


# --- Twenty logins at once ---


WORKERS = 4


class Gate:
    """Verifies when it is opened. *full* is done when all threads wait."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.waiting = 0
        self.loop = asyncio.get_running_loop()
        self.full: asyncio.Future[None] = self.loop.create_future()

    def hash(self, secret: str, /) -> str:
        return secret

    def verify_and_update(self, secret: str, hash: str, /) -> tuple[bool, str | None]:
        self.waiting += 1
        if self.waiting == WORKERS:
            self.loop.call_soon_threadsafe(self.full.set_result, None)
        self.opened.wait(timeout=30)
        return secret == hash, None


@pytest.fixture
async def narrow(users: Database) -> Database:
    """The same database with one connection."""
    return Database(users.engine.url, options=DatabaseOptions(pool_size=1, max_overflow=0))


async def test_twenty_logins_hold_no_connection(users: Database, narrow: Database) -> None:
    """R31: while twenty passwords are verified, the one connection of the pool is free and the app answers."""
    await store_user(users, hashed_password="right password")
    gate = Gate()
    site = flow_with(Site(narrow), gate)
    site.flow = replace(site.flow, passwords=PasswordHasher(context=gate, max_concurrency=WORKERS))
    site.app.include_router(site.router(), prefix="/slow")
    site.app.include_router(health_router(version="1", checks=[]))

    async with app_client(site.app) as client:
        form = {"username": "ann@example.com", "password": "right password"}
        logins = [asyncio.create_task(client.post("/slow/login", data=form)) for _ in range(20)]
        await gate.full
        me = await client.get("/auth/me", headers={"Authorization": f"Bearer {site.tokens.create_access_token('1')}"})
        health = await client.get("/health")
        assert not any(login.done() for login in logins)
        gate.opened.set()
        answers = await asyncio.gather(*logins)

    assert (me.status_code, health.status_code) == (200, 200)
    assert [answer.status_code for answer in answers] == [200] * 20
    await narrow.dispose()
