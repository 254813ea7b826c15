"""Limits on guessing, per account and per client."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient
from pydantic import BaseModel, SecretStr
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import ASGIApp
from tests.auth.accounts import PASSWORD, Site, Users, store_user
from tests.ratelimit.counters import Seconds, limiter_on
from tests.redis_server import RedisServer
from tests.reliability.servers import closed_port
from tests.tables.accounts import User
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from fastapi_kit.auth.logins import ClientInfo
from fastapi_kit.auth.passwords import PasswordHasher
from fastapi_kit.auth.users import AuthEndpoint, LoginThrottle
from fastapi_kit.auth.users.throttle import limited_codes
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, InvalidCredentialsError, RateLimitedError, UnavailableError, UserInputError
from fastapi_kit.ratelimit import AttemptCounter, MemoryCounter, RateLimiter

NEW = "another horse battery"
HOME = ClientInfo(address="192.0.2.7")


class Verifications:
    """A hasher of passwords that are stored as they are, which counts."""

    def __init__(self) -> None:
        self.count = 0

    def hash(self, secret: str, /) -> str:
        return f"plain:{secret}"

    def verify_and_update(self, secret: str, hash: str, /) -> tuple[bool, str | None]:
        self.count += 1
        return hash == f"plain:{secret}", None


class Guarded:
    """A site with a throttle, whose clock a test moves if it counts in memory."""

    def __init__(self, users: Database, counter: AttemptCounter | None = None, **options: Any) -> None:
        self.clock = Seconds()
        self.verifications = Verifications()
        throttle = LoginThrottle(counter=counter or MemoryCounter(clock=self.clock), **options)
        self.site = Site(users, throttle=throttle)
        self.site.flow = replace(self.site.flow, passwords=PasswordHasher(context=self.verifications))
        self.site.app.router.routes.clear()
        self.site.app.include_router(self.site.router(AuthEndpoint.ALL | AuthEndpoint.ACCOUNT), prefix="/auth")

    async def guess(self, password: str = "wrong", email: str = "ann@example.com", client: ClientInfo | None = HOME) -> str:
        """Return what a login ends with: ``in``, ``wrong`` or ``limited``."""
        try:
            async with self.site.database.sessions() as session:
                await self.site.flow.authenticate(session, email=email, password=password, client=client)
        except InvalidCredentialsError:
            return "wrong"
        except RateLimitedError as error:
            return "limited" if 0 < error.retry_after <= 900 else "limited without end"
        return "in"

    async def guesses(self, times: int, **options: Any) -> list[str]:
        return [await self.guess(**options) for _ in range(times)]

    def client(self, address: str = "192.0.2.7", app: ASGIApp | None = None) -> AsyncClient:
        return AsyncClient(transport=ASGITransport(app or self.site.app, client=(address, 1)), base_url="http://test")  # type: ignore[arg-type]


async def store_ann(users: Database) -> None:
    await store_user(users, hashed_password=f"plain:{PASSWORD}")


@pytest.fixture(params=["memory", "redis"])
async def guarded(request: pytest.FixtureRequest, users: Database) -> AsyncIterator[Guarded]:
    """A site with a user, throttled in memory or on Redis."""
    await store_ann(users)
    async with limiter_on(request.param) as limiter:
        yield Guarded(users, limiter)


@pytest.fixture
async def in_memory(users: Database) -> Guarded:
    """A site with a user, throttled in memory."""
    await store_ann(users)
    return Guarded(users)


async def test_two_hundred_guesses(guarded: Guarded) -> None:
    """R47: after ten wrong guesses an account answers 429, also to the right password, and no more passwords are verified."""
    found = await guarded.guesses(200, client=None)

    assert found == 10 * ["wrong"] + 190 * ["limited"]
    assert guarded.verifications.count == 10
    assert await guarded.guess(PASSWORD, client=None) == "limited"


@pytest.mark.parametrize("name", ["user 1", "password 1", "code 1", "1"])
async def test_a_name_that_looks_like_another_counter(guarded: Guarded, name: str) -> None:
    """R47: whatever strangers type as the name of an account, it counts neither for the passwords nor for the codes of a user."""
    assert await guarded.guesses(11, email=name) == 10 * ["wrong"] + ["limited"]

    async with guarded.site.database.sessions() as session:
        user = await Users(session).get_one(1)
        assert await guarded.site.flow.confirm(session, user, PASSWORD) == user.hashed_password
    async with limited_codes(guarded.site.flow.throttle, "1", HOME.address):
        pass


async def test_a_login_gives_nobody_else_attempts(in_memory: Guarded) -> None:
    """R46, R47: a login with the name ``code 1`` does not give back the attempts at the codes of the user 1."""
    flow = replace(in_memory.site.flow, identify=lambda session, name: Users(session).get_account_by_email("ann@example.com"))

    async def wrong_code() -> None:
        async with limited_codes(flow.throttle, "1"):
            raise InvalidCredentialsError

    for _ in range(10):
        with pytest.raises(InvalidCredentialsError):
            await wrong_code()
    async with in_memory.site.database.sessions() as session:
        await flow.authenticate(session, email="code 1", password=PASSWORD)
    with pytest.raises(RateLimitedError):
        await wrong_code()


async def test_fifty_guesses_at_once(guarded: Guarded) -> None:
    """R47: an attempt counts before the password is verified, so parallel guesses do not get past the limit."""
    found = await asyncio.gather(*(guarded.guess() for _ in range(50)))

    assert sorted(found) == 40 * ["limited"] + 10 * ["wrong"]
    assert guarded.verifications.count == 10


async def test_the_owner_gets_in(in_memory: Guarded) -> None:
    """R47: there is no lockout that lasts: after the window the right password works, however many guesses were rejected."""
    await in_memory.guesses(60, client=None)
    in_memory.clock.now += 899
    assert await in_memory.guess(PASSWORD) == "limited"
    in_memory.clock.now += 2

    assert await in_memory.guess(PASSWORD) == "in"


async def test_the_owner_gets_in_on_redis(users: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """R47: the same with attempts that are counted on Redis."""
    await store_ann(users)
    async with limiter_on("redis") as limiter:
        guarded = Guarded(users, limiter)
        await guarded.guesses(20, client=None)
        now = time.time()
        monkeypatch.setattr("limits.aio.storage.redis.redispy.time.time", lambda: now + 901)

        assert await guarded.guess(PASSWORD) == "in"


async def test_a_success(guarded: Guarded) -> None:
    """R47: after a login the account has all its attempts again."""
    found = await guarded.guesses(9) + [await guarded.guess(PASSWORD)] + await guarded.guesses(11)

    assert found == 9 * ["wrong"] + ["in"] + 10 * ["wrong"] + ["limited"]


async def test_one_client_and_many_accounts(guarded: Guarded) -> None:
    """R47: a client that tries one password on many accounts is limited, and no other client is."""
    found = [await guarded.guess(email=f"user{number}@example.com") for number in range(52)]

    assert found == 50 * ["wrong"] + 2 * ["limited"]
    assert await guarded.guess(PASSWORD) == "limited"
    assert await guarded.guess(PASSWORD, client=ClientInfo(address="192.0.2.8")) == "in"


async def test_a_success_of_a_client(in_memory: Guarded) -> None:
    """R47: a client does not get its attempts back by logging in to an account of its own."""
    found = list[str]()
    for number in range(30):
        found += [await in_memory.guess(email=f"user{number}@example.com"), await in_memory.guess(PASSWORD)]

    assert found == 25 * ["wrong", "in"] + 10 * ["limited"]


async def test_a_client_over_its_limit(in_memory: Guarded) -> None:
    """R47: a client that is over its limit takes no attempts from the accounts of others."""
    for number in range(50):
        await in_memory.guess(email=f"user{number}@example.com")
    await in_memory.guesses(50)

    assert await in_memory.guess(PASSWORD, client=ClientInfo(address="192.0.2.8")) == "in"


@pytest.mark.parametrize(
    ("email", "other"),
    [
        ("ann@example.com", " ANN@Example.COM "),
        ("ann@example.com", "\uff41nn@example.com"),
        ("nobody@example.com", " NOBODY@Example.COM "),
        ("a@b\u00fccher.example", "a@xn--bcher-kva.example"),
        ("no address", "NO ADDRESS"),
    ],
)
async def test_other_spellings(in_memory: Guarded, email: str, other: str) -> None:
    """R47, R51: all spellings of an address have one limit."""
    await in_memory.guesses(5, email=email)

    assert await in_memory.guesses(6, email=other) == 5 * ["wrong"] + ["limited"]


async def test_other_spellings_with_identify(in_memory: Guarded) -> None:
    """R47, R51: all spellings of an address have one limit, also where ``identify`` finds the user: there are any number of them."""

    async def identify(session: AsyncSession, name: str) -> User | None:
        return await Users(session).get_account_by_email(name)

    in_memory.site.flow = replace(in_memory.site.flow, identify=identify)
    spellings = ["ann@example" + "\ufe0f" * number + ".com" for number in range(12)]

    assert [await in_memory.guess(email=email) for email in spellings] == 10 * ["wrong"] + 2 * ["limited"]


@pytest.mark.parametrize(("email", "similar"), [("gro\u00df@example.com", "gross@example.com"), ("ann@stra\u00dfe.de", "ann@strasse.de")])
async def test_another_address_that_is_similar(in_memory: Guarded, email: str, similar: str) -> None:
    """R47: who logs in to an account of a similar address gives the other one no attempts back."""
    for address in (email, similar):
        await store_user(in_memory.site.database, address, hashed_password=f"plain:{PASSWORD}")
    await in_memory.guesses(10, email=email)

    assert await in_memory.guess(PASSWORD, email=similar) == "in"
    assert await in_memory.guess(email=email) == "limited"


async def test_known_and_unknown_addresses(in_memory: Guarded) -> None:
    """R47, R37: the answers to guesses at a known and at an unknown address are the same, the 429 included."""
    seen = list[list[object]]()
    async with in_memory.client() as client:
        for email in ("ann@example.com", "nobody@example.com"):
            answers = [await client.post("/auth/login", data={"username": email, "password": "wrong"}) for _ in range(12)]
            seen.append([(each.status_code, each.json(), sorted(each.headers.items())) for each in answers])

    known, unknown = seen
    assert known == unknown
    assert [each[0] for each in known] == 10 * [401] + 2 * [429]  # type: ignore[index]


async def test_the_route(in_memory: Guarded) -> None:
    """R47: the ready route answers 429 with Retry-After, is not cached, and says nothing of the limits. OpenAPI shows it."""
    async with in_memory.client() as client:
        form = {"username": "ann@example.com", "password": "wrong"}
        answer = [await client.post("/auth/login", data=form) for _ in range(11)][-1]

    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (429, "rate_limited", "900")
    assert answer.headers["cache-control"] == "no-store"
    assert not [name for name in answer.headers if name.startswith("ratelimit")]
    paths = in_memory.site.app.openapi()["paths"]
    assert [("429" in paths[f"/auth/{name}"]["post"]["responses"]) for name in ("login", "refresh")] == [True, False]


def test_without_a_throttle(users: Database) -> None:
    """The document shows no 429 if nothing is throttled."""
    assert "429" not in Site(users).app.openapi()["paths"]["/auth/login"]["post"]["responses"]


@pytest.mark.only_full
async def test_behind_a_proxy(in_memory: Guarded) -> None:
    """R47: behind a trusted proxy its header says who the client is. A client cannot choose its address with that header."""
    app: Any = ProxyHeadersMiddleware(in_memory.site.app, trusted_hosts="10.0.0.1")  # type: ignore[arg-type]

    async def guess(number: int, *, address: str, forwarded: str) -> int:
        async with in_memory.client(address, app) as client:
            form = {"username": f"user{number}@example.com", "password": "wrong"}
            return (await client.post("/auth/login", data=form, headers={"X-Forwarded-For": forwarded})).status_code

    proxied = [await guess(number, address="10.0.0.1", forwarded=f"6.6.6.{number}, 192.0.2.1") for number in range(51)]
    others = [await guess(number, address="10.0.0.1", forwarded=f"192.0.2.{number + 2}") for number in range(51)]
    direct = [await guess(number, address="198.51.100.1", forwarded=f"203.0.113.{number}") for number in range(51)]

    assert proxied == 50 * [401] + [429]
    assert others == 51 * [401]
    assert direct == 50 * [401] + [429]


async def test_ipv6(in_memory: Guarded) -> None:
    """R47: the addresses of one IPv6 network are one client."""
    clients = [ClientInfo(address=f"2001:db8:1:1::{number:x}") for number in range(52)]
    found = [await in_memory.guess(email=f"user{number}@example.com", client=client) for number, client in enumerate(clients)]

    assert found == 50 * ["wrong"] + 2 * ["limited"]
    assert await in_memory.guess(client=ClientInfo(address="2001:db8:1:2::1")) == "wrong"


# --- The current password ---


class Change(BaseModel):
    password: SecretStr | None = None
    current_password: SecretStr | None = None
    full_name: str | None = None


async def change(guarded: Guarded, **data: str) -> str:
    try:
        async with guarded.site.database.sessions() as session:
            user = await Users(session).get_account("1")
            assert user is not None
            await guarded.site.flow.change(session, user, Change.model_validate(data))
    except UserInputError:
        return "wrong"
    except RateLimitedError:
        return "limited"
    return "changed"


async def test_guesses_at_the_current_password(guarded: Guarded) -> None:
    """R47: with a stolen access token the current password can be guessed ten times, and then no more."""
    found = [await change(guarded, password=NEW, current_password=f"guess {number}") for number in range(20)]

    assert found == 10 * ["wrong"] + 10 * ["limited"]
    assert guarded.verifications.count == 10
    assert await change(guarded, full_name="Ann") == "changed"


async def test_the_routes_that_need_the_current_password(in_memory: Guarded) -> None:
    """R47: the ready routes to change the password and to delete the account share the limit. OpenAPI shows their 429."""
    async with in_memory.client() as client:
        pair = (await client.post("/auth/login", data={"username": "ann@example.com", "password": PASSWORD})).json()
        headers = {"Authorization": f"Bearer {pair['access_token']}"}
        found = list[int]()
        for path, times in (("password", 6), ("me/delete", 5)):
            data = {"current_password": "wrong", **({"password": NEW} if path == "password" else {})}
            found += [(await client.post(f"/auth/{path}", json=data, headers=headers)).status_code for _ in range(times)]

    assert found == [*10 * [422], 429]
    paths = in_memory.site.app.openapi()["paths"]
    assert all("429" in paths[f"/auth/{path}"]["post"]["responses"] for path in ("password", "me/delete"))


async def test_strangers_do_not_keep_the_owner_from_a_new_password(in_memory: Guarded) -> None:
    """R47: guesses of strangers at a login do not count against a user who is logged in and changes the password."""
    await in_memory.guesses(20)

    assert await change(in_memory, password=NEW, current_password=PASSWORD) == "changed"


@pytest.mark.parametrize("name", ["user 1", "1", "USER 1 ", "password user 1"])
async def test_a_name_that_looks_like_an_id(in_memory: Guarded, name: str) -> None:
    """R47: nothing that strangers type as a name uses up the attempts of a user who changes the password, or gives them back."""
    await in_memory.guesses(10, email=name)
    assert await change(in_memory, password=NEW, current_password="wrong") == "wrong"

    for _ in range(9):
        await change(in_memory, password=NEW, current_password="wrong")
    await in_memory.site.flow.throttle.succeeded(account=name)  # type: ignore[union-attr]
    assert await change(in_memory, password=NEW, current_password=PASSWORD) == "limited"


async def test_changes_that_succeed(in_memory: Guarded) -> None:
    """R47: changes with the right password, and those without one, use up no attempts."""
    names = [PASSWORD, NEW]
    for number in range(12):
        current, new = names[number % 2], names[(number + 1) % 2]
        assert await change(in_memory, password=NEW) == "wrong"
        assert await change(in_memory, password=new, current_password=current) == "changed"


# --- The throttle alone ---


async def test_another_thing_to_guess() -> None:
    """R47: throttles with other names count apart in one counter: codes, or mails that reset a password."""
    counter = MemoryCounter()
    logins, resets = LoginThrottle(counter=counter, per_account=1), LoginThrottle(counter=counter, per_account=1, name="reset")

    await logins.attempt(account="ann", client="192.0.2.7")
    await resets.attempt(account="ann", client="192.0.2.7")
    await logins.succeeded(account="ANN")
    await logins.attempt(account="ann", client=None)
    with pytest.raises(RateLimitedError):
        await resets.attempt(account="ann", client=None)


@pytest.mark.parametrize("account", ["", "\0", "\ud800", "x" * 1_000_000, "ann client 192.0.2.7"])
@pytest.mark.parametrize("client", [None, "", "\ud800", "unix:", "x" * 1_000_000])
async def test_hostile_names(account: str, client: str | None) -> None:
    """R47: any text is an account or a client."""
    throttle = LoginThrottle(per_account=1)

    await throttle.attempt(account=account, client=client)
    with pytest.raises(RateLimitedError):
        await throttle.attempt(account=account, client=client)
    await throttle.succeeded(account=account)
    await throttle.attempt(account=account, client=client)


async def test_an_account_is_no_client() -> None:
    """R47: nothing that a client types as an account counts against another client."""
    throttle = LoginThrottle(per_account=5, per_client=1)
    for name in ("192.0.2.7", "client 192.0.2.7", "login client 192.0.2.7"):
        await throttle.attempt(account=name, client=None)

    await throttle.attempt(account="ann", client="192.0.2.7")


@pytest.mark.parametrize("options", [{"per_account": 0}, {"per_client": -1}, {"window": timedelta()}], ids=str)
def test_an_impossible_throttle(options: Any) -> None:
    """A limit or a window of nothing is an error when the application starts."""
    with pytest.raises(ConfigurationError):
        LoginThrottle(**options)


# --- Redis ---


async def test_a_flood_that_redis_cannot_count(users: Database) -> None:
    """R47: so many guesses at once that Redis does not answer in time are limited all the same."""
    await store_ann(users)
    held = list[asyncio.StreamWriter]()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    limiter = RateLimiter(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=0.2)
    async with limiter.lifespan(None):
        guarded = Guarded(users, limiter)
        found = await asyncio.gather(*(guarded.guess() for _ in range(50)))
    for writer in held:
        writer.close()
    server.close()

    assert sorted(found) == 40 * ["limited"] + 10 * ["wrong"]
    assert guarded.verifications.count == 10


async def test_redis_is_stopped(users: Database, tmp_path: Path) -> None:
    """R47: while Redis is stopped each process limits logins for itself, or there are none with ``fail_open=False``; you choose."""
    await store_ann(users)
    server = RedisServer(tmp_path)
    await server.start()
    limiter = RateLimiter(server.url, timeout=5)
    async with limiter.lifespan(None):
        try:
            guarded = Guarded(users, limiter)
            assert await guarded.guesses(11) == 10 * ["wrong"] + ["limited"]
            await server.stop()
            assert await guarded.guesses(10) == 10 * ["wrong"]
            assert await guarded.guess(PASSWORD) == "limited"
        finally:
            await server.stop()

    closed = Guarded(users, RateLimiter(f"redis://127.0.0.1:{closed_port()}", fail_open=False))
    with pytest.raises(UnavailableError):
        await closed.guess(PASSWORD)
    assert closed.verifications.count == 0
    async with closed.client() as client:
        answer = await client.post("/auth/login", data={"username": "ann@example.com", "password": PASSWORD})
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
