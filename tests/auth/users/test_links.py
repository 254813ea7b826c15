"""Each link of a mail works once: the ids of used links are counted, in memory or in Redis."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from tests.auth.accounts import Registration, Site, Users, store_user
from tests.ratelimit.counters import redis_limiter
from tests.redis_server import RedisServer
from tests.reliability.servers import closed_port
from tests.tables.accounts import User

from fastapi_kit.auth.users import AuthEndpoint, MailFlow
from fastapi_kit.db import Database, run_transaction, unit_of_work
from fastapi_kit.errors import ConflictError, UnavailableError, UserInputError
from fastapi_kit.ratelimit import MemoryCounter, RateLimiter
from fastapi_kit.testing import app_client, captured_mails

ANN, BOB = "ann@example.com", "bob@example.com"
NEW = "another horse battery"


async def no_mail(*args: object) -> None:
    raise AssertionError("the mails of this test are captured")


class Counted(Users):
    """Users of whom a link changes the name only: nothing but the counter ends a link."""

    async def set_email(self, user: User, /, *, email: str) -> None:
        await self.update(user.id, {"full_name": user.full_name + "x"})

    async def set_password(self, user: User, /, *, hashed_password: str, replacing: str | None = None) -> bool:
        await self.update(user.id, {"full_name": user.full_name + "x"})
        return True


class Links:
    """A user, and links for the user. *kind* is that of the links."""

    def __init__(self, database: Database, kind: str = "verify", accounts: type[Users] = Users) -> None:
        self.database = database
        self.kind = kind
        self.site = Site(database)
        flow = replace(self.site.flow, accounts=accounts)
        self.mail: MailFlow[User, Registration] = MailFlow(flow=flow, tokens=self.site.tokens, verify=no_mail, reset=no_mail)

    async def link(self, email: str = BOB) -> str:
        """Return the token of a link to *email*, or of a reset."""
        user = await self.user()
        with captured_mails(self.mail) as mails:
            async with self.database.sessions() as session:
                mail = (
                    self.mail.reset_mail(session, user)
                    if self.kind == "reset"
                    else self.mail._verify_mail(Users(session).describe(user), email)
                )
                await mail()
        return mails[0].token

    async def user(self) -> User:
        async with self.database.sessions() as session:
            return (await Users(session).list())[0]

    async def use(self, session: AsyncSession, token: str, mail: MailFlow[User, Registration] | None = None) -> None:
        mail = mail or self.mail
        if self.kind == "reset":
            await mail.reset_password(session, token, new=NEW)
        else:
            await mail.confirm_email(session, token)

    async def works(self, token: str, mail: MailFlow[User, Registration] | None = None) -> bool:
        """Use a link, and return whether it worked."""
        async with self.database.sessions() as session:
            try:
                await self.use(session, token, mail)
            except UserInputError as error:
                return [each.code for each in error.errors] != ["invalid_link"]
        return True

    async def change(self, **values: object) -> None:
        async with self.database.begin() as session:
            await Users(session).update((await Users(session).list())[0].id, values)


@pytest.fixture
async def links(users: Database) -> Links:
    await store_user(users)
    return Links(users)


# --- Once ---


async def test_the_old_address_again(links: Links) -> None:
    """R48: a used link to a new address stays used when the user goes back to the old address."""
    token = await links.link()
    assert await links.works(token)
    await links.change(email=ANN, is_verified=True)

    assert not await links.works(token)
    assert (await links.user()).email == ANN
    assert await links.works(await links.link())  # a new link is another one


async def test_a_verification_again(links: Links) -> None:
    """R48: a used link verifies an address once, also if the application takes the flag back."""
    token = await links.link(ANN)
    assert await links.works(token)
    await links.change(is_verified=False)

    assert not await links.works(token)
    assert not (await links.user()).is_verified


async def test_a_reset_again(links: Links) -> None:
    """R48: a used reset stays used, also if the old hash is stored again, as from a backup."""
    links.kind = "reset"
    token, old = await links.link(), (await links.user()).hashed_password
    assert await links.works(token)
    await links.change(hashed_password=old, is_verified=False)

    assert not await links.works(token)


Open = Callable[[Database], AbstractAsyncContextManager[AsyncSession]]


@asynccontextmanager
async def own_begin(database: Database) -> AsyncIterator[AsyncSession]:
    async with database.sessions() as session, session.begin():
        yield session


@asynccontextmanager
async def unit(database: Database) -> AsyncIterator[AsyncSession]:
    async with database.sessions() as session, unit_of_work(session):
        yield session


@asynccontextmanager
async def reading_first(database: Database) -> AsyncIterator[AsyncSession]:
    async with database.begin() as session:
        await Users(session).list()
        async with unit_of_work(session):
            yield session


OPENERS: dict[str, Open] = {
    "each for itself": lambda database: database.sessions(),
    "db.begin": lambda database: database.begin(),
    "session.begin": own_begin,
    "unit_of_work": unit,
    "savepoint": reading_first,
}


@pytest.mark.only_full
@pytest.mark.parametrize("kind", ["verify", "reset"])
@pytest.mark.parametrize("way", OPENERS)
async def test_one_of_twenty(users: Database, way: str, kind: str) -> None:
    """R48: of twenty requests at once with one link, one commits, whoever opened the transaction, and even if the user stays the same."""
    await store_user(users, is_verified=True)
    links = Links(users, kind, Counted)
    token = await links.link()

    async def use() -> bool:
        try:
            async with OPENERS[way](users) as session:
                await links.use(session, token)
        except UserInputError:
            return False
        return True

    assert sorted(await asyncio.gather(*(use() for _ in range(20)))) == [False] * 19 + [True]
    assert (await links.user()).full_name == "x"


@pytest.mark.parametrize("kind", ["verify", "reset"])
async def test_two_processes(users: Database, kind: str) -> None:
    """R48: with a counter on Redis a link works once in all processes together, also for ten requests at once."""
    await store_user(users, is_verified=True)
    links = Links(users, kind, Counted)
    token = await links.link()
    prefix = f"fastapi_kit_tests_{uuid4().hex}:"
    async with redis_limiter(prefix) as one, redis_limiter(prefix) as other:
        processes = [replace(links.mail, used=counter) for counter in (one, other)]
        assert sorted(await asyncio.gather(*(links.works(token, processes[n % 2]) for n in range(10)))) == [False] * 9 + [True]
    assert (await links.user()).full_name == "x"


# --- Not for nothing ---


class StopError(Exception):
    """An error of the application."""


@pytest.mark.parametrize("kind", ["verify", "reset"])
@pytest.mark.parametrize("way", [way for way in OPENERS if way != "each for itself"])
async def test_a_transaction_that_is_rolled_back(users: Database, way: str, kind: str) -> None:
    """R48: a link works once more, and only once, if the transaction in which it was used is rolled back."""
    await store_user(users, is_verified=True)
    links = Links(users, kind, Counted)
    token = await links.link()

    for _ in range(2):
        with pytest.raises(StopError):
            async with OPENERS[way](users) as session:
                await links.use(session, token)
                raise StopError

    assert [await links.works(token), await links.works(token)] == [True, False]


async def test_a_unit_that_is_rolled_back(links: Links) -> None:
    """R48: a link works again after ``uow.rollback()``, and the transaction around it goes on."""
    token = await links.link()
    async with links.database.begin() as session:
        async with unit_of_work(session) as uow:
            await links.use(session, token)
            await uow.rollback()
        await links.use(session, token)

    assert (await links.user()).email == BOB
    await links.change(email=ANN, is_verified=True)
    assert not await links.works(token)


class DeadlockError(Exception):
    sqlstate = "40P01"


async def test_a_transaction_that_is_repeated(links: Links) -> None:
    """R48: a link is used in the second attempt of a transaction after a deadlock."""
    token, attempts = await links.link(), list[int]()

    async def work(session: AsyncSession) -> None:
        attempts.append(1)
        await links.use(session, token)
        if len(attempts) == 1:
            raise OperationalError("", None, DeadlockError())

    await run_transaction(links.database.begin, work)
    assert (len(attempts), (await links.user()).email) == (2, BOB)


async def test_a_conflict(links: Links) -> None:
    """R48: a link to an address that another user has is a conflict, and works when the address is free again."""
    token = await links.link()
    bob = await store_user(links.database, BOB)
    for way in ("each for itself", "db.begin"):
        with pytest.raises(ConflictError):
            async with OPENERS[way](links.database) as session:
                await links.use(session, token)
    async with links.database.begin() as session:
        await Users(session).delete(bob.id)

    assert await links.works(token)


async def test_a_commit_that_fails(links: Links) -> None:
    """R48: a link works again after a COMMIT that failed."""
    token = await links.link()

    def fail(session: object) -> None:
        raise StopError

    async with links.database.sessions() as session:
        event.listen(session.sync_session, "before_commit", fail, once=True)
        with pytest.raises(StopError):
            await links.use(session, token)
    assert (await links.user()).email == ANN

    assert [await links.works(token), (await links.user()).email] == [True, BOB]


@pytest.mark.parametrize("kind", ["verify", "reset"])
async def test_a_client_that_leaves(users: Database, kind: str) -> None:
    """R48: a client that leaves while the link is noted does not use it up for nothing: what the link is for is done."""
    await store_user(users, is_verified=True)
    links = Links(users, kind, Counted)
    token = await links.link()
    counter = Slow()
    slow = replace(links.mail, used=counter)

    request = asyncio.create_task(links.works(token, slow))
    await asyncio.wait_for(counter.asked.wait(), timeout=10)
    request.cancel()
    await asyncio.sleep(0)
    counter.goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await request

    assert (await links.user()).full_name == "x"
    assert not await links.works(token, slow)


class Slow(MemoryCounter):
    """A counter that waits before it counts. *asked* is set then."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.goes_on = asyncio.Event(), asyncio.Event()

    async def hit(self, key: str, /, *, limit: int, window: float) -> float:
        wait = await super().hit(key, limit=limit, window=window)
        self.asked.set()
        await self.goes_on.wait()
        return wait


@pytest.mark.parametrize("times", [1, 3])
async def test_a_client_that_leaves_a_transaction(users: Database, times: int) -> None:
    """R48: a link works again if its request is cancelled before the application's transaction commits, however often."""
    await store_user(users)
    links = Links(users, accounts=Counted)
    token, used = await links.link(), asyncio.Event()

    async def request() -> None:
        async with users.begin() as session:
            await links.use(session, token)
            used.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(request())
    await asyncio.wait_for(used.wait(), timeout=10)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task

    assert [await links.works(token), await links.works(token)] == [True, False]


# --- The counter ---


async def test_only_used_links_are_noted(links: Links) -> None:
    """R48: links that are wrong, over or of another state are not noted: nobody fills the memory with them."""
    counter = MemoryCounter()
    links.mail.used = counter
    over = await links.link()
    await links.change(hashed_password="another")

    for token in (over, "x.y.z", "", links.site.tokens.create_access_token("1")):
        assert not await links.works(token)
    assert len(counter) == 0
    assert await links.works(await links.link())
    assert len(counter) == 1


async def test_a_link_is_forgotten_after_its_lifetime(links: Links) -> None:
    """R48: a used link is noted for as long as it could work, with any difference of clocks, and not for ever."""
    windows = list[float]()

    class Noting(MemoryCounter):
        async def hit(self, key: str, /, *, limit: int, window: float) -> float:
            windows.append(window)
            return await super().hit(key, limit=limit, window=window)

    links.mail.used = Noting()
    assert await links.works(await links.link())
    links.kind = "reset"
    assert await links.works(await links.link())

    assert windows == [24 * 3600 + 600, 3600 + 600]


async def test_without_redis(users: Database) -> None:
    """R48: with ``fail_open=False`` a Redis that is gone is a 503 and uses up no link; otherwise it is noted in this process."""
    await store_user(users)
    links = Links(users)
    token, url = await links.link(), f"redis://127.0.0.1:{closed_port()}"
    links.site.app.include_router(links.site.router(AuthEndpoint.VERIFY_EMAIL, links.mail), prefix="/mail")

    links.mail.used = RateLimiter(url, fail_open=False)
    async with app_client(links.site.app) as client:
        assert (await client.post("/mail/email/confirm", json={"token": token})).status_code == 503
        assert (await links.user()).email == ANN
        links.mail.used = RateLimiter(url)
        answers = [await client.post("/mail/email/confirm", json={"token": token}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [204, 422]


async def test_redis_goes_before_the_rollback(links: Links, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """R48: a used link that cannot be forgotten stays used, which is logged without the token, and the request has its own error."""
    server = RedisServer(tmp_path)
    await server.start()
    limiter = RateLimiter(server.url, timeout=5, fail_open=False)
    links.mail.used = limiter
    token = await links.link()
    async with limiter.lifespan(None):
        with caplog.at_level(logging.INFO), pytest.raises(StopError):
            async with links.database.begin() as session:
                await links.use(session, token)
                await server.stop()
                raise StopError
        with pytest.raises(UnavailableError):
            await links.works(token)

    assert "on_rollback: a call failed after the rollback; the others still run" in [record.getMessage() for record in caplog.records]
    assert token not in caplog.text
    assert (await links.user()).email == ANN
