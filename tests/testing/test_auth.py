"""Users and time in tests."""

from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from tests.auth.people import People, Person, no_session, tokens

from fastapi_kit.auth import get_current_user_factory
from fastapi_kit.testing import FrozenClock, bearer, cheap_hasher, login_as


async def test_a_cheap_hasher() -> None:
    """R31: ``cheap_hasher`` makes bcrypt hashes of the lowest cost."""
    hasher = cheap_hasher()

    hashed = await hasher.hash("a password")
    assert hashed.startswith("$2b$04$")
    assert await hasher.verify("a password", hashed)


def test_headers_of_a_user() -> None:
    """R29: ``bearer`` creates a real token."""
    header = bearer(tokens, "7", scopes=["a"])["Authorization"]

    claims = tokens.decode(header.removeprefix("Bearer "))
    assert (claims.sub, claims.scopes) == ("7", {"a"})


def test_a_clock_that_is_moved() -> None:
    """R13: a FrozenClock moves only when it is advanced."""
    clock = FrozenClock(datetime(2030, 1, 1, tzinfo=UTC))

    assert clock() == clock() == datetime(2030, 1, 1, tzinfo=UTC)
    clock.advance(timedelta(seconds=90))
    assert clock() == datetime(2030, 1, 1, 0, 1, 30, tzinfo=UTC)
    assert FrozenClock()().tzinfo is UTC


def test_login_as_leaves_other_overrides_alone() -> None:
    """R29: ``login_as`` restores earlier overrides, also if the block raises."""
    app = FastAPI()
    get_user = get_current_user_factory(tokens, People().load, session=no_session)
    app.dependency_overrides = {no_session: str, get_user: int}

    with pytest.raises(LookupError), login_as(app, get_user, Person(1)):
        assert app.dependency_overrides[get_user] is not int
        assert app.dependency_overrides[no_session] is str
        raise LookupError

    assert app.dependency_overrides == {no_session: str, get_user: int}
