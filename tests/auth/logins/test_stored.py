"""The contract of stored logins, on every store."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from dataclasses import fields, replace
from datetime import timedelta

import pytest
from tests.auth.logins.stores import redis_store, service
from tests.tables.accounts import AccountsBase, Login

from fastapi_kit.auth import TokenClaims
from fastapi_kit.auth.logins import (
    ClientInfo,
    EndableLogins,
    LoginInfo,
    LoginRecord,
    LoginStore,
    MemoryLoginStore,
    StatelessLogins,
    StoredLogins,
    TokenPair,
)
from fastapi_kit.auth.logins.redis import RedisLoginStore
from fastapi_kit.auth.logins.sql import SQLLoginStore
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, InvalidTokenError
from fastapi_kit.testing import FrozenClock


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
async def on_redis() -> AsyncIterator[LoginStore]:
    async with redis_store() as store:
        yield store


@pytest.fixture
async def on_sqlite(sqlite_database: Database) -> LoginStore:
    await sqlite_database.create_tables(AccountsBase.metadata)
    return SQLLoginStore(sqlite_database.sessions, Login)


@pytest.fixture
async def on_postgresql(postgres_database: Database) -> LoginStore:
    await postgres_database.create_tables(AccountsBase.metadata)
    return SQLLoginStore(postgres_database.sessions, Login)


@pytest.fixture
def in_memory() -> LoginStore:
    return MemoryLoginStore()


@pytest.fixture(params=["in_memory", "on_sqlite", "on_postgresql", "on_redis"])
def store(request: pytest.FixtureRequest) -> LoginStore:
    """An empty store of each kind."""
    store: LoginStore = request.getfixturevalue(request.param)
    return store


class Reports:
    """What ``on_reuse`` was called with."""

    def __init__(self) -> None:
        self.logins: list[LoginInfo] = []

    async def __call__(self, login: LoginInfo) -> None:
        self.logins.append(login)


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def logins(store: LoginStore, clock: FrozenClock, reports: Reports) -> StoredLogins:
    return StoredLogins(service(clock), store, grace=timedelta(seconds=10), on_reuse=reports)


def strict(logins: StoredLogins) -> StoredLogins:
    """Return the same logins without grace."""
    return StoredLogins(logins.tokens, logins.store, grace=timedelta(), on_reuse=logins.on_reuse)


async def claims_of(logins: StoredLogins, pair: TokenPair) -> TokenClaims:
    return await logins.decode_refresh_token(pair.refresh_token)


async def refreshed(logins: StoredLogins, pair: TokenPair) -> TokenPair:
    """Renew a login as AuthFlow does, for a user who may have every scope."""
    claims = await claims_of(logins, pair)
    return await logins.renew(claims, scopes=claims.scopes)


async def jti_of(logins: StoredLogins, pair: TokenPair) -> str:
    return (await claims_of(logins, pair)).jti


async def is_over(logins: StoredLogins, pair: TokenPair) -> bool:
    return await logins.store.find((await claims_of(logins, pair)).sid or "") is None


async def test_a_login(logins: StoredLogins, clock: FrozenClock) -> None:
    """R38: a login is an access token and a refresh token with one ``sid``, and is listed with its client."""
    pair = await logins.start("7", scopes=["b", "a"], client=ClientInfo(address="192.0.2.1", user_agent="Teapot/1.0"))

    access, renewing = await logins.verify(pair.access_token), await claims_of(logins, pair)
    (login,) = await logins.list_logins("7")
    assert (pair.token_type, pair.expires_in, pair.scope) == ("bearer", 300, "a b")
    assert (access.sub, access.scopes, access.sid) == ("7", {"a", "b"}, renewing.sid)
    assert login == LoginInfo(
        sid=renewing.sid or "",
        subject="7",
        created_at=clock(),
        last_used_at=clock(),
        ends_at=clock() + timedelta(days=1),
        expires_at=clock() + timedelta(days=1),
        address="192.0.2.1",
        user_agent="Teapot/1.0",
    )
    assert type(login) is LoginInfo


async def test_a_refresh(logins: StoredLogins, clock: FrozenClock) -> None:
    """R38: a refresh gives new tokens of the same login. The new refresh token can be used in turn."""
    first = await logins.start("7", scopes=["a"])
    clock.advance(timedelta(hours=1))
    second = await refreshed(logins, first)
    third = await refreshed(logins, second)

    before, after = await claims_of(logins, first), await claims_of(logins, third)
    assert (after.sub, after.sid, after.scopes) == (before.sub, before.sid, before.scopes)
    assert len({before.jti, await jti_of(logins, second), after.jti}) == 3
    assert (await logins.verify(third.access_token)).sid == before.sid
    (login,) = await logins.list_logins("7")
    assert (login.last_used_at, login.created_at) == (clock(), clock() - timedelta(hours=1))


async def test_a_used_token_ends_the_login(logins: StoredLogins, clock: FrozenClock, reports: Reports) -> None:
    """R38: a refresh token that is used again after the grace is rejected, ends its login, and is reported once."""
    other = await logins.start("7")
    stolen = await logins.start("7", client=ClientInfo(user_agent="Teapot"))
    current = await refreshed(logins, stolen)
    clock.advance(timedelta(seconds=10))

    for pair in (stolen, current, stolen):
        with pytest.raises(InvalidTokenError):
            await refreshed(logins, pair)

    assert [(login.sid, login.user_agent) for login in reports.logins] == [((await claims_of(logins, stolen)).sid, "Teapot")]
    assert not await is_over(logins, other)


@pytest.mark.parametrize("generations", [1, 3])
async def test_any_used_token_ends_the_login(logins: StoredLogins, generations: int, reports: Reports) -> None:
    """R38: the tokens of every earlier refresh are recognised, within the grace, too, once the successor was used."""
    first = pair = await logins.start("7")
    for _ in range(generations + 1):
        pair = await refreshed(logins, pair)

    with pytest.raises(InvalidTokenError, match="used before"):
        await refreshed(logins, first)

    assert await is_over(logins, pair)
    assert len(reports.logins) == 1


async def test_the_grace(logins: StoredLogins, clock: FrozenClock, reports: Reports) -> None:
    """R38: within the grace the used token gets the same successor, with the same end. It is one use, and lengthens nothing."""
    first = await logins.start("7", scopes=["a", "b"])
    second = await refreshed(logins, first)
    stored = await logins.list_logins("7")
    clock.advance(timedelta(seconds=9.5))

    claims = await claims_of(logins, first)
    again = await logins.renew(claims, scopes=["a"])

    one, same = await claims_of(logins, second), await claims_of(logins, again)
    assert (same.jti, same.exp, same.sid) == (one.jti, one.exp, one.sid)
    assert (again.scope, (await logins.verify(again.access_token)).scopes) == ("a", {"a"})
    assert list(await logins.list_logins("7")) == list(stored)
    await refreshed(logins, again)
    with pytest.raises(InvalidTokenError):
        clock.advance(timedelta(seconds=10))
        await refreshed(logins, second)
    assert len(reports.logins) == 1


async def test_clocks_that_differ(logins: StoredLogins, clock: FrozenClock, reports: Reports) -> None:
    """R38: without grace a used token is rejected, also by a server whose clock is behind."""
    logins = strict(logins)
    pair = await logins.start("7")
    await refreshed(logins, pair)
    clock.advance(timedelta(seconds=-2))

    with pytest.raises(InvalidTokenError, match="used before"):
        await refreshed(logins, pair)

    assert len(reports.logins) == 1


async def test_a_thief_in_the_grace(logins: StoredLogins, clock: FrozenClock, reports: Reports) -> None:
    """R38: who steals a token and uses it within the grace shares one token with the client; the second to use that ends the login."""
    stolen = await logins.start("7")
    client, thief = await refreshed(logins, stolen), await refreshed(logins, stolen)

    clock.advance(timedelta(minutes=4))
    thief = await refreshed(logins, thief)
    clock.advance(timedelta(minutes=1))
    with pytest.raises(InvalidTokenError):
        await refreshed(logins, client)
    with pytest.raises(InvalidTokenError):
        await refreshed(logins, thief)

    assert len(reports.logins) == 1


@pytest.mark.only_full
async def test_twenty_refreshes_at_once(logins: StoredLogins, reports: Reports) -> None:
    """R38: without grace, of twenty refreshes with one token at once, one wins. The others are rejected, and end the login once."""
    logins = strict(logins)
    pair = await logins.start("7")

    results = await asyncio.gather(*(refreshed(logins, pair) for _ in range(20)), return_exceptions=True)

    assert sum(isinstance(result, TokenPair) for result in results) == 1
    assert sum(isinstance(result, InvalidTokenError) for result in results) == 19
    assert len(reports.logins) == 1
    assert await is_over(logins, pair)


@pytest.mark.only_full
async def test_twenty_refreshes_in_the_grace(logins: StoredLogins, reports: Reports) -> None:
    """R38: with grace, twenty refreshes with one token at once get one successor, and the login goes on."""
    pair = await logins.start("7")

    pairs = await asyncio.gather(*(refreshed(logins, pair) for _ in range(20)))

    assert len({await jti_of(logins, each) for each in pairs}) == 1
    assert reports.logins == []
    await refreshed(logins, pairs[-1])


async def test_one_replacement(logins: StoredLogins, store: LoginStore) -> None:
    """R38: of many replacements of one token at once, the store makes one, and keeps that one."""
    await logins.start("7")
    (login,) = await store.list("7")
    successors = [replace(login, token_hash=bytes([number]) * 32) for number in range(20)]

    won = await asyncio.gather(*(store.replace(each, token_hash=login.token_hash) for each in successors))

    assert won.count(True) == 1
    assert await store.find(login.sid) == successors[won.index(True)]


async def test_only_hashes_are_stored(logins: StoredLogins, store: LoginStore) -> None:
    """R38: what is stored contains the SHA-256 of a random id, and neither this id nor a token; the repr has no hash."""
    first = await logins.start("7")
    second = await refreshed(logins, first)

    (login,) = await store.list("7")
    text = str([getattr(login, each.name) for each in fields(LoginRecord)])
    assert login.token_hash == hashlib.sha256((await jti_of(logins, second)).encode()).digest()
    for pair in (first, second):
        jti = await jti_of(logins, pair)
        assert len(jti) == 43  # 256 random bits
        assert jti not in text
        assert pair.refresh_token not in text
    assert repr(login.token_hash) not in repr(login)


async def test_a_store_round_trip(logins: StoredLogins, store: LoginStore) -> None:
    """A store returns what was stored, to the microsecond."""
    await logins.start("7", scopes=["b", "a"], client=ClientInfo(address="::1"))
    (login,) = await store.list("7")
    full = replace(login, token_hash=b"\0" * 32, previous_hash=b"\xff" * 32, salt=b"s" * 32, last_used_at=login.last_used_at)

    assert await store.replace(full, token_hash=login.token_hash)

    assert await store.find(login.sid) == full
    assert list(await store.list("7")) == [full]
    assert not await store.replace(full, token_hash=login.token_hash)
    assert not await store.replace(replace(full, sid="unknown"), token_hash=full.token_hash)


async def test_an_end_that_stays(logins: StoredLogins, clock: FrozenClock) -> None:
    """R39: a login ends after the lifetime of its first refresh token, however often it is refreshed. No token outlives it."""
    pair = await logins.start("7")
    ends = (await claims_of(logins, pair)).exp
    for _ in range(3):
        clock.advance(timedelta(hours=7, minutes=59))
        pair = await refreshed(logins, pair)
        assert (await claims_of(logins, pair)).exp == ends
    assert (await logins.verify(pair.access_token)).exp <= ends
    assert pair.expires_in == 180
    clock.advance(timedelta(minutes=3))

    with pytest.raises(InvalidTokenError):
        await refreshed(logins, pair)
    assert list(await logins.list_logins("7")) == []


async def test_an_idle_login(logins: StoredLogins, clock: FrozenClock) -> None:
    """R39: a login that is not refreshed for *idle* ends. Each refresh moves that, not the end."""
    logins = StoredLogins(logins.tokens, logins.store, idle=timedelta(hours=10))
    pair = await logins.start("7")
    for hours in (9, 9, 5):
        clock.advance(timedelta(hours=hours))
        pair = await refreshed(logins, pair)
    (login,) = await logins.list_logins("7")
    assert login.ends_at == login.expires_at == login.created_at + timedelta(days=1)
    idle = await logins.start("8")
    clock.advance(timedelta(hours=10, seconds=11))

    with pytest.raises(InvalidTokenError):
        await refreshed(logins, idle)
    assert list(await logins.list_logins("8")) == []


async def test_a_renewal_adds_no_scope(logins: StoredLogins) -> None:
    """R40: a refresh keeps the scopes that the user still may have, and a scope that was lost does not come back."""
    pair = await logins.start("7", scopes=["a", "b"])

    less = await logins.renew(await claims_of(logins, pair), scopes=["b", "c"])
    more = await logins.renew(await claims_of(logins, less), scopes=["a", "b", "c"])

    assert (less.scope, more.scope, (await logins.verify(more.access_token)).scopes) == ("b", "b", {"b"})


async def test_the_end_of_one_login(logins: StoredLogins) -> None:
    """R41: an ended login cannot be refreshed; others can. Another user's login is not ended."""
    mine, other, theirs = await logins.start("7"), await logins.start("7"), await logins.start("8")
    sid = (await claims_of(logins, mine)).sid or ""

    assert not await logins.end("8", sid)
    assert await logins.end("7", sid)
    assert not await logins.end("7", sid)

    with pytest.raises(InvalidTokenError, match="over"):
        await refreshed(logins, mine)
    for pair in (other, theirs):
        await refreshed(logins, pair)


@pytest.mark.parametrize("keep", [False, True])
async def test_the_end_of_all_logins(logins: StoredLogins, keep: bool) -> None:
    """R41: all logins of a user end at once, or all but one; those of other users go on."""
    mine, *others = [await logins.start("7") for _ in range(3)]
    theirs = await logins.start("8")

    await logins.end_all("7", keep=(await claims_of(logins, mine)).sid if keep else None)

    assert [await is_over(logins, pair) for pair in (mine, *others, theirs)] == [not keep, True, True, False]
    assert len(await logins.list_logins("7")) == int(keep)


async def test_a_check_of_the_login(logins: StoredLogins, clock: FrozenClock) -> None:
    """R41: what outlives an access token can ask for its login, also after the token has expired, and without *check_access*."""
    pair, other = await logins.start("7"), await logins.start("8")
    claims, others = [logins.tokens.decode(each.access_token) for each in (pair, other)]
    none = logins.tokens.decode(logins.tokens.create_access_token("7"))
    clock.advance(timedelta(minutes=10))

    await logins.check_login(claims)
    await logins.end_all("7")

    await logins.check_login(others)
    for over in (claims, none, replace(others, sub="7"), replace(others, sid="x" * 22)):
        with pytest.raises(InvalidTokenError, match="over"):
            await logins.check_login(over)
    clock.advance(timedelta(days=1))
    with pytest.raises(InvalidTokenError, match="over"):
        await logins.check_login(others)


async def test_a_check_of_an_impersonation(logins: StoredLogins, clock: FrozenClock) -> None:
    """R41, R50: who acts as another user does so until the token expires or the actor's login is over."""
    claims = logins.tokens.decode((await logins.start("1")).access_token)
    acting = logins.tokens.decode(logins.tokens.create_access_token("7", sid=claims.sid, actor="1"))

    await logins.check_login(acting)
    clock.advance(timedelta(minutes=5))
    await logins.check_login(claims)
    with pytest.raises(InvalidTokenError, match="expired"):
        await logins.check_login(acting)


async def test_an_access_token_ends_with_its_login(logins: StoredLogins) -> None:
    """R41, R42: with *check_access* an access token ends with its login, and one without a login is rejected."""
    checking = StoredLogins(logins.tokens, logins.store, check_access=True)
    pair, other = await logins.start("7"), await logins.start("7")
    assert (await checking.verify(pair.access_token)).sub == "7"

    await logins.end("7", (await claims_of(logins, pair)).sid or "")

    for token in (pair.access_token, logins.tokens.create_access_token("7"), other.refresh_token):
        with pytest.raises(InvalidTokenError):
            await checking.verify(token)
    assert (await logins.verify(pair.access_token)).sub == "7"
    assert (await checking.verify(other.access_token)).sub == "7"


async def test_a_login_of_another_subject(logins: StoredLogins) -> None:
    """R41: a token that names the login of another user is rejected, and ends nothing."""
    pair = await logins.start("7")
    claims = await claims_of(logins, pair)

    with pytest.raises(InvalidTokenError, match="over"):
        await logins.renew(replace(claims, sub="8"), scopes=[])
    with pytest.raises(InvalidTokenError, match="type"):
        await logins.renew(replace(claims, type="access"), scopes=[])
    with pytest.raises(InvalidTokenError, match="over"):
        await logins.renew(replace(claims, sid=None), scopes=[])

    assert not await is_over(logins, pair)


async def test_the_list(logins: StoredLogins, clock: FrozenClock) -> None:
    """R41: the last used login comes first."""
    pairs = []
    for _ in range(3):
        clock.advance(timedelta(minutes=1))
        pairs.append(await logins.start("7"))
    clock.advance(timedelta(minutes=1))
    await refreshed(logins, pairs[0])

    listed = [login.sid for login in await logins.list_logins("7")]

    assert listed == [(await claims_of(logins, pairs[number])).sid for number in (0, 2, 1)]


async def test_what_a_client_says(logins: StoredLogins) -> None:
    """R35: what a client says of itself is cut, and control characters are left out."""
    await logins.start("7", client=ClientInfo(address="x" * 100, user_agent="Tea\0pot\x1b\n" + "x" * 300))
    await logins.start("8", client=ClientInfo(address="", user_agent="\0"))

    (login,), (empty,) = await logins.list_logins("7"), await logins.list_logins("8")
    assert (len(login.address or ""), login.user_agent) == (64, "Teapot" + "x" * 249)
    assert (empty.address, empty.user_agent) == (None, None)


async def test_purge(logins: StoredLogins, clock: FrozenClock) -> None:
    """R39: logins that are over are removed from the store; Redis does it by itself."""
    old = await logins.start("7")
    clock.advance(timedelta(hours=23))
    new = await logins.start("7")
    clock.advance(timedelta(hours=1))

    forgets_by_itself = isinstance(logins.store, RedisLoginStore)
    assert await logins.purge() == (0 if forgets_by_itself else 1)
    assert await is_over(logins, old) is not forgets_by_itself  # the time of Redis is not that of the test
    assert not await is_over(logins, new)


# --- Without a store ---


@pytest.fixture
def plain(clock: FrozenClock) -> StoredLogins:
    return StoredLogins(service(clock), MemoryLoginStore())


async def test_a_hook_that_fails(plain: StoredLogins, clock: FrozenClock, caplog: pytest.LogCaptureFixture) -> None:
    """R38: the login ends also if *on_reuse*, sync or async, fails. The log has the type of the error and no data."""

    def fail(login: LoginInfo) -> None:
        raise LookupError(login.sid)

    plain.on_reuse = fail
    pair = await plain.start("7")
    await refreshed(plain, pair)
    clock.advance(timedelta(minutes=1))

    with caplog.at_level(logging.WARNING, "fastapi_kit.auth.logins"), pytest.raises(InvalidTokenError):
        await refreshed(plain, pair)

    assert caplog.messages == ["A refresh token was used twice: its login was ended", "on_reuse failed: LookupError"]
    assert await is_over(plain, pair)


@pytest.mark.parametrize("grace", [timedelta(seconds=31), timedelta(seconds=-1)])
def test_a_grace_out_of_bounds(plain: StoredLogins, grace: timedelta) -> None:
    """R38: the grace is 0 to 30 seconds."""
    with pytest.raises(ConfigurationError, match="grace"):
        StoredLogins(plain.tokens, plain.store, grace=grace)
    with pytest.raises(ConfigurationError, match="idle"):
        StoredLogins(plain.tokens, plain.store, idle=timedelta(seconds=0.5))


def test_which_logins_can_be_ended(plain: StoredLogins) -> None:
    """R41: logins in a store can be ended, those without cannot."""
    assert isinstance(plain, EndableLogins)
    assert not isinstance(StatelessLogins(plain.tokens), EndableLogins)
