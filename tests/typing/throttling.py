"""Throttles, limits and roles, as an application declares them."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from enum import StrEnum, auto
from typing import assert_type

from sqlalchemy.ext.asyncio import AsyncSession
from tests.typing.models import User

from fastapi_kit.auth import JWTService, Roles, TokenClaims
from fastapi_kit.auth.logins import ClientInfo
from fastapi_kit.auth.users import AuthFlow, Impersonation, ImpersonationToken, LoginThrottle, UserAccounts, UserRegister
from fastapi_kit.ratelimit import AttemptCounter, MemoryCounter, RateLimiter


class Role(StrEnum):
    OWNER = auto()
    GUEST = auto()


class May(StrEnum):
    READ = auto()


typed = Roles({Role.OWNER: [May.READ], Role.GUEST: []})
assert_type(typed, Roles[Role, May])
assert_type(typed.having(May.READ), frozenset[Role])
assert_type(typed.permissions_of(Role.OWNER, "king"), frozenset[May])
plain = Roles({"owner": ["read"], "guest": ["read"]})
assert_type(plain, Roles[str, str])
assert_type(plain.having("read"), frozenset[str])

limiter = RateLimiter()
counters: list[AttemptCounter] = [limiter, MemoryCounter()]
throttle = LoginThrottle(counter=limiter, window=timedelta(minutes=5))
assert_type(limiter.limit("1/minute"), Callable[..., Awaitable[None]])


class Users(UserAccounts[User, UserRegister]): ...


flow = AuthFlow(accounts=Users, throttle=throttle)
impersonation = Impersonation(flow=flow, tokens=JWTService(secret_key=b""))
assert_type(impersonation, Impersonation[User, UserRegister])


async def act(session: AsyncSession, claims: TokenClaims) -> None:
    assert_type(await impersonation.start(session, claims, "1", scopes=["a"]), ImpersonationToken)
    assert_type(claims.actor, str | None)
    assert_type(await flow.authenticate(session, email="", password="", client=ClientInfo(address="")), User)
