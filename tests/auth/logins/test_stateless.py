"""Logins without a store."""

from datetime import UTC, datetime, timedelta

import pytest
from tests.auth.people import SECRET

from fastapi_kit.auth import JWTService, TokenClaims, TokenPolicy
from fastapi_kit.auth.logins import Logins, StatelessLogins, TokenPair
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
    """R17: a login is an access token and a refresh token with the same ``sid``, in the form of RFC 6749."""
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


async def refreshed(logins: Logins, refresh_token: str) -> TokenPair:
    """Renew a login as AuthFlow does, for a user who may have every scope."""
    claims = await logins.decode_refresh_token(refresh_token)
    return await logins.renew(claims, scopes=claims.scopes)


async def test_an_end_that_stays(logins: StatelessLogins, clock: FrozenClock) -> None:
    """R39: a refreshed login ends when its first refresh token expires."""
    pair = await logins.start("7")
    clock.advance(timedelta(minutes=59, seconds=58))

    pair = await refreshed(logins, pair.refresh_token)
    clock.advance(timedelta(seconds=3))

    with pytest.raises(InvalidTokenError):
        await refreshed(logins, pair.refresh_token)


async def test_the_last_moment(logins: StatelessLogins, clock: FrozenClock) -> None:
    """R39: with less than a second left a login is over."""
    pair = await logins.start("7")
    clock.advance(timedelta(minutes=59, seconds=59.5))

    with pytest.raises(InvalidTokenError):
        await refreshed(logins, pair.refresh_token)


async def test_no_access_beyond_the_end(logins: StatelessLogins, clock: FrozenClock) -> None:
    """R39: an access token of the last minutes does not outlive its login."""
    pair = await logins.start("7")
    ends = logins.tokens.decode(pair.refresh_token, type="refresh").exp
    clock.advance(timedelta(minutes=58))

    renewed = await refreshed(logins, pair.refresh_token)

    assert (await logins.verify(renewed.access_token)).exp == ends
    assert renewed.expires_in == 120


async def test_only_a_refresh_token_refreshes(logins: StatelessLogins) -> None:
    """R17: only a refresh token refreshes a login."""
    pair = await logins.start("7")

    for token in (pair.access_token, "", "x.y.z", pair.refresh_token[:-2]):
        with pytest.raises(InvalidTokenError):
            await refreshed(logins, token)
    with pytest.raises(InvalidTokenError):
        await logins.verify(pair.refresh_token)


def test_a_pair_hides_its_tokens() -> None:
    """R28: the repr of a pair shows no token."""
    assert "ey" not in repr(TokenPair(access_token="eyA", refresh_token="eyB", expires_in=1))


async def test_a_renewal_adds_no_scope(logins: StatelessLogins) -> None:
    """R40: a renewed login has the scopes that it had and that its user still may have."""
    claims = await logins.decode_refresh_token((await logins.start("7", scopes=["a", "b"])).refresh_token)

    pair = await logins.renew(claims, scopes=["b", "c"])

    assert (pair.scope, (await logins.verify(pair.access_token)).scopes) == ("b", {"b"})


async def test_an_access_token_renews_nothing(logins: StatelessLogins) -> None:
    """R17: a login cannot be renewed with the claims of an access token."""
    claims = await logins.verify((await logins.start("7")).access_token)

    with pytest.raises(InvalidTokenError, match="type"):
        await logins.renew(claims, scopes=[])


async def test_a_verifier_of_your_own(logins: StatelessLogins) -> None:
    """Logins call ``verify`` of their token service, so a subclass can reject more tokens."""

    class Strict(JWTService):
        async def verify(self, token: str, /) -> TokenClaims:
            raise InvalidTokenError("revoked")

    strict = StatelessLogins(Strict(secret_key=SECRET))
    pair = await strict.start("7")

    with pytest.raises(InvalidTokenError, match="revoked"):
        await strict.verify(pair.access_token)
