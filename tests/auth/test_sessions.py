"""Logins that are nowhere but in their tokens."""

from datetime import UTC, datetime, timedelta

import pytest
from tests.auth.people import SECRET, tokens

from fastapi_kit.auth import JWTService, TokenPolicy
from fastapi_kit.auth.sessions import Logins, StatelessLogins, TokenPair
from fastapi_kit.errors import InvalidTokenError
from fastapi_kit.testing import FrozenClock


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(datetime(2030, 6, 1, 12, tzinfo=UTC))


@pytest.fixture
def logins(clock: FrozenClock) -> StatelessLogins:
    policy = TokenPolicy(access_lifetime=timedelta(minutes=5), refresh_lifetime=timedelta(hours=1))
    return StatelessLogins(JWTService(secret_key=SECRET, policy=policy, clock=clock))


async def test_a_login(logins: StatelessLogins) -> None:
    """R17: a login is an access and a refresh token of one session, in the form of RFC 6749."""
    pair = await logins.start("7", scopes=["b", "a"])

    access = await logins.verify(pair.access_token)
    renewing = logins.tokens.decode(pair.refresh_token, type="refresh")
    assert (pair.token_type, pair.expires_in, pair.scope) == ("bearer", 300, "a b")
    assert (access.sub, access.scopes, access.sid) == ("7", {"a", "b"}, renewing.sid)
    assert (access.exp - access.iat, renewing.exp - renewing.iat) == (timedelta(minutes=5), timedelta(hours=1))


async def test_two_logins_are_two_sessions(logins: StatelessLogins) -> None:
    """R16: each login has an id of its own."""
    first, second = [await logins.verify((await logins.start("7")).access_token) for _ in range(2)]

    assert first.sid != second.sid


async def test_an_end_that_stays(logins: StatelessLogins, clock: FrozenClock) -> None:
    """R39: a refreshed login ends when the first refresh token would have."""
    pair = await logins.start("7")
    clock.advance(timedelta(minutes=59, seconds=58))

    pair = await logins.refresh(pair.refresh_token)
    clock.advance(timedelta(seconds=3))

    with pytest.raises(InvalidTokenError):
        await logins.refresh(pair.refresh_token)


async def test_the_last_moment(logins: StatelessLogins, clock: FrozenClock) -> None:
    """R39: with less than a second left a login is over."""
    pair = await logins.start("7")
    clock.advance(timedelta(minutes=59, seconds=59.5))

    with pytest.raises(InvalidTokenError):
        await logins.refresh(pair.refresh_token)


async def test_no_access_beyond_the_end(logins: StatelessLogins, clock: FrozenClock) -> None:
    """R39: an access token of the last minutes does not outlive its login."""
    pair = await logins.start("7")
    ends = logins.tokens.decode(pair.refresh_token, type="refresh").exp
    clock.advance(timedelta(minutes=58))

    renewed = await logins.refresh(pair.refresh_token)

    assert (await logins.verify(renewed.access_token)).exp == ends
    assert renewed.expires_in == 120


async def test_only_a_refresh_token_refreshes(logins: StatelessLogins) -> None:
    """R17: an access token, and what is no token, refreshes nothing."""
    pair = await logins.start("7")

    for token in (pair.access_token, "", "x.y.z", pair.refresh_token[:-2]):
        with pytest.raises(InvalidTokenError):
            await logins.refresh(token)
    with pytest.raises(InvalidTokenError):
        await logins.verify(pair.refresh_token)


def test_a_pair_hides_its_tokens() -> None:
    """R28: the repr of a pair shows no token."""
    assert "ey" not in repr(TokenPair(access_token="eyA", refresh_token="eyB", expires_in=1))


def test_the_seam() -> None:
    """R38: logins are a protocol, so that a store of sessions can take their place."""
    logins: Logins = StatelessLogins(tokens)

    assert logins.tokens is tokens
