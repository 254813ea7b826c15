"""Logins over the ready routes: whether they stop other requests, and whether their time shows who has an account."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.asgi import request
from benchmarks.login import SECRET_KEY, TOKENS
from benchmarks.rows import Target
from benchmarks.table import line_of
from fastapi_kit import Database, KitSettings, create_app
from fastapi_kit.auth import TokenClaims, get_current_user_factory
from fastapi_kit.auth.logins import StatelessLogins
from fastapi_kit.auth.passwords import PasswordHasher
from fastapi_kit.auth.users import AuthFlow, UserAccounts, UserMixin, UserProfile, UserRegister, auth_router

__all__ = ["show_logins", "unknown_against_known", "worst_health"]

LOGINS = 20
PASSWORD = "analytical engine no. 1"
KNOWN, UNKNOWN = "user@example.org", "nope@example.org"
FORM = [(b"content-type", b"application/x-www-form-urlencoded")]


class Base(DeclarativeBase): ...


class User(UserMixin, Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)


class Users(UserAccounts[User, UserRegister]): ...


async def load_user(session: AsyncSession, claims: TokenClaims) -> User | None:
    return await Users(session).get_account(claims.sub)


@asynccontextmanager
async def open_app(passwords: PasswordHasher) -> AsyncGenerator[FastAPI]:
    """Open an application with the ready routes and one user, on SQLite."""
    with TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder) / 'logins.db'}")
        flow: AuthFlow[User, UserRegister] = AuthFlow(accounts=Users, logins=StatelessLogins(TOKENS), passwords=passwords)
        current_user = get_current_user_factory(TOKENS, load_user, session=database.session)
        app = create_app(KitSettings(ENVIRONMENT="test", SECRET_KEY=SecretStr(SECRET_KEY)), database=database)
        router = auth_router(flow, session=database.session, current_user=current_user, read=UserProfile, register=UserRegister)
        app.include_router(router, prefix="/auth")
        await database.create_tables(Base.metadata)
        async with database.begin() as session:
            await Users(session).create({"email": KNOWN, "hashed_password": await passwords.hash(PASSWORD)})
        yield app
        await database.dispose()


async def log_in(app: FastAPI, email: str, password: str, *, status: int = 200) -> None:
    """Send the form of a login."""
    form = f"username={email}&password={password.replace(' ', '+')}"
    await request(app, "POST", "/auth/login", form.encode(), FORM, status=status)


async def worst_health(app: FastAPI, passwords: PasswordHasher) -> float:
    """Return how long ``/health`` takes at most during 20 logins at once, in verifications of one password."""
    stored = await passwords.hash(PASSWORD)
    start = perf_counter()
    await passwords.verify(PASSWORD, stored)
    verification = perf_counter() - start
    logins = [asyncio.create_task(log_in(app, KNOWN, PASSWORD)) for _ in range(LOGINS)]
    worst = 0.0
    while not all(login.done() for login in logins):
        start = perf_counter()
        await request(app, "GET", "/health")
        worst = max(worst, perf_counter() - start)
        await asyncio.sleep(0.001)
    await asyncio.gather(*logins)
    return worst / verification


async def unknown_against_known(app: FastAPI, *, rounds: int) -> float:
    """Return how many times as long as a login with a wrong password one with an unknown address takes, the median of *rounds*."""
    ratios: list[float] = []
    for _ in range(rounds):
        times: list[float] = []
        for email in (UNKNOWN, KNOWN):
            start = perf_counter()
            await log_in(app, email, "wrong", status=401)
            times.append(perf_counter() - start)
        ratios.append(times[0] / times[1])
    return median(ratios)


async def show_logins(passwords: PasswordHasher, *, rounds: int) -> None:
    """Print both figures for *passwords*."""
    async with open_app(passwords) as app:
        worst, unknown = await worst_health(app, passwords), await unknown_against_known(app, rounds=rounds)
    print(line_of("worst /health during 20 logins", worst, Target(1, 0.3, "time")))
    print(line_of("login: unknown against known", unknown, Target(1.05, measure="time")))
