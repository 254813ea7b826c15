"""How many codes a challenge takes, in one process and in several."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.auth.second_factor.site import Person, Site
from tests.redis_server import PATIENT, URL, RedisServer, shared_prefix
from tests.reliability.servers import closed_port
from tests.tables.accounts import FactorUser

from fastapi_kit.auth.logins import TokenPair
from fastapi_kit.auth.users import AuthFlow, UserRegister, login_with_code
from fastapi_kit.errors import InvalidCredentialsError, InvalidTokenError, UnavailableError
from fastapi_kit.ratelimit import AttemptCounter, MemoryCounter, RateLimiter

Flow = AuthFlow[FactorUser, UserRegister]


def counting_in(site: Site, counter: AttemptCounter) -> Flow:
    """The flow of another process, which counts in *counter*."""
    return replace(site.flow, second_factor=replace(site.factor, counter=counter))


@asynccontextmanager
async def processes(site: Site, count: int) -> AsyncGenerator[list[Flow]]:
    """Yield the flows of several processes that share a Redis."""
    async with shared_prefix() as prefix, AsyncExitStack() as stack:
        limiters = [RateLimiter(URL, prefix=prefix, timeout=PATIENT, fail_open=False) for _ in range(count)]
        for limiter in limiters:
            await stack.enter_async_context(limiter.lifespan(None))
        yield [counting_in(site, limiter) for limiter in limiters]


async def send(site: Site, flow: Flow, challenge: str, code: str) -> TokenPair:
    async with site.database.sessions() as session:
        return await login_with_code(flow, session, challenge_token=challenge, code=code)


async def test_processes_count_together(ann: Person, site: Site) -> None:
    """R46: a challenge takes five codes in all processes that share a Redis, also for the right one. A new login works."""
    challenge, right = await ann.challenge(), site.code(ann.secret, later=1)
    async with processes(site, 2) as (one, other):
        for flow in (one, other, one, other, other):
            with pytest.raises(InvalidCredentialsError):
                await send(site, flow, challenge, "000000")
        for flow in (one, other):
            with pytest.raises(InvalidTokenError, match="too many"):
                await send(site, flow, challenge, right)
        assert await send(site, other, await ann.challenge(), right)


async def test_twenty_codes_at_once(ann: Person, site: Site) -> None:
    """R46: of twenty codes at the same time, sent to two processes for one challenge, five are checked."""
    challenge = await ann.challenge()
    async with processes(site, 2) as flows:
        results = await asyncio.gather(*(send(site, flow, challenge, "000000") for flow in flows * 10), return_exceptions=True)

    assert sorted(type(result).__name__ for result in results) == ["InvalidCredentialsError"] * 5 + ["InvalidTokenError"] * 15


async def test_each_process_counts_alone_by_default(ann: Person, site: Site) -> None:
    """Without a shared counter each process takes five codes for a challenge."""
    challenge = await ann.challenge()
    for flow in (counting_in(site, MemoryCounter()), counting_in(site, MemoryCounter())):
        for _ in range(5):
            with pytest.raises(InvalidCredentialsError):
                await send(site, flow, challenge, "000000")
        with pytest.raises(InvalidTokenError, match="too many"):
            await send(site, flow, challenge, "000000")


async def test_the_last_seconds_of_a_challenge(ann: Person, site: Site) -> None:
    """R46: the first codes of a challenge count until it is over, the leeway for other clocks included."""
    site.factor.counter = MemoryCounter(clock=lambda: site.clock().timestamp())
    challenge = await ann.challenge()
    for _ in range(5):
        await ann.send_code(challenge, "000000")
    site.clock.advance(timedelta(minutes=5, seconds=9))

    answer = await ann.send_code(challenge, site.code(ann.secret))

    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")


async def test_redis_is_gone(ann: Person, site: Site, tmp_path: Path) -> None:
    """R46: while Redis does not answer, no code is checked: that is a 503, and the code is not used up. Afterwards it works."""
    server = RedisServer(tmp_path)
    limiter = RateLimiter(server.url, timeout=5, fail_open=False)
    site.factor.counter = limiter
    challenge, right = await ann.challenge(), site.code(ann.secret, later=1)
    await server.start(dump=True)
    async with limiter.lifespan(None):
        try:
            assert (await ann.send_code(challenge, "000000")).json()["code"] == "invalid_credentials"
            await server.stop()
            gone = await ann.send_code(challenge, right)
            assert (gone.status_code, (await ann("GET", "/me")).status_code) == (503, 200)
            with pytest.raises(UnavailableError):
                await send(site, site.flow, challenge, right)
            await server.start(dump=True)
            vars(limiter)["_next_attempt"] = 0.0  # instead of waiting for the pause to end
            assert (await ann.send_code(challenge, right)).status_code == 200
        finally:
            await server.stop()


async def test_a_counter_that_counts_for_itself(ann: Person, site: Site) -> None:
    """With ``fail_open`` users log in while Redis does not answer, and each process takes five codes for a challenge."""
    site.factor.counter = RateLimiter(f"redis://127.0.0.1:{closed_port()}/0")
    challenge = await ann.challenge()

    for codes, last in ((4, 200), (5, 401)):
        answers = [await ann.send_code(challenge, code) for code in [*["000000"] * codes, ann.recovery_codes[codes]]]
        assert [answer.status_code for answer in answers] == [401] * codes + [last]
        challenge = await ann.challenge()
