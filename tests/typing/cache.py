"""Type checks of the cache: mypy and pyright check this file, nothing runs it."""

from datetime import timedelta
from decimal import Decimal
from typing import assert_type

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from tests.typing.models import Note, User

from fastapi_kit import CRUDService
from fastapi_kit.auth.users import UserAccounts
from fastapi_kit.cache import Cache, cached
from fastapi_kit.crud import ReadService
from fastapi_kit.crud.cached import CachedReadsMixin

kept = Cache()


def rate_key(currency: str, *, rounded: bool = False) -> str:
    return f"rate:{currency}:{rounded}"


@cached(kept, lifetime=timedelta(hours=1), key=rate_key)
async def exchange_rate(currency: str, *, rounded: bool = False) -> Decimal:
    return Decimal(1)


class NoteIn(BaseModel):
    title: str


class Read(BaseModel):
    id: int


class NoteService(CachedReadsMixin[Note], CRUDService[Note, NoteIn, NoteIn]):
    cache = kept
    cache_lifetime = timedelta(minutes=5)


class ReportService(CachedReadsMixin[Note], ReadService[Note]):
    cache = kept
    cache_lifetime = timedelta(minutes=5)


class UserService(CachedReadsMixin[User], UserAccounts[User, NoteIn]):
    cache = kept
    cache_lifetime = timedelta(minutes=5)


async def a_cached_function_keeps_its_types() -> None:
    assert_type(await exchange_rate("USD", rounded=True), Decimal)
    await exchange_rate(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def a_cached_service_keeps_its_types(session: AsyncSession) -> None:
    notes = NoteService(session)
    assert_type(await notes.get_as(Read, 1), Read)
    assert_type(await notes.list_as(Read), list[Read])
    assert_type(await notes.get(1), Note | None)
    assert_type(await notes.create(NoteIn(title="a")), Note)
    assert_type(await notes.update(1, NoteIn(title="a")), Note)
    assert_type(await ReportService(session).get(1), Note | None)
    assert_type(await UserService(session).get_account("1"), User | None)
