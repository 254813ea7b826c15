"""Logins in a store, as an application declares them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import assert_type

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from fastapi_kit import Base, Database
from fastapi_kit.auth import JWTService, TokenClaims, TokenVerifier
from fastapi_kit.auth.logins import ClientInfo, EndableLogins, LoginInfo, Logins, LoginStore, MemoryLoginStore, StoredLogins, TokenPair
from fastapi_kit.auth.logins.redis import RedisLoginStore
from fastapi_kit.auth.logins.sql import LoginMixin, SQLLoginStore


class Login(LoginMixin, Base):
    __tablename__ = "logins"


db = Database("sqlite://")
own = async_sessionmaker(create_async_engine("sqlite+aiosqlite://"))
stores: list[LoginStore] = [
    SQLLoginStore(db.sessions, Login),
    SQLLoginStore(own, Login),
    MemoryLoginStore(),
    RedisLoginStore("redis://127.0.0.1"),
]


async def warn(login: LoginInfo) -> None: ...


def note(login: LoginInfo) -> None: ...


tokens = JWTService(secret_key=b"")
stored = StoredLogins(tokens, stores[0], idle=timedelta(hours=1), grace=timedelta(), check_access=True, on_reuse=warn)
logins: Logins = stored
endable: EndableLogins = stored
verifier: TokenVerifier = StoredLogins(tokens, stores[2], on_reuse=note)


async def use(session: AsyncSession, claims: TokenClaims) -> None:
    assert_type(await stored.start("7", scopes=["a"], client=ClientInfo(address="::1")), TokenPair)
    assert_type(await endable.list_logins("7"), Sequence[LoginInfo])
    assert_type(await endable.end("7", "sid"), bool)
    await endable.end_all("7", keep=claims.sid)
    assert_type(await stored.purge(), int)
