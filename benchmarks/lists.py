"""Lists of the large table: pages deep in it, pages with and without its total, filters and parameters."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any, ClassVar

from fastapi import FastAPI, Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.asgi import request
from benchmarks.contenders import Turn, Work
from benchmarks.models import Item, User, UserRead
from benchmarks.stage import Stage
from fastapi_kit.crud import KeysetSpec, QuerySpec, ReadService
from fastapi_kit.crud.filters.cursors import CursorCodec, Position
from fastapi_kit.pagination import Slice

__all__ = [
    "export",
    "export_by_hand",
    "export_users",
    "export_users_by_hand",
    "filtered",
    "filtered_by_hand",
    "keyset_page",
    "offset_page",
    "page_with_count",
    "page_without_total",
    "with_parameters",
    "with_plain_parameters",
    "without_parameters",
]

_LIMIT = 100


class ItemRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    cents: int


class ItemQuery(QuerySpec[Item]):
    search_fields: ClassVar[Any] = (Item.name,)
    sort_fields: ClassVar[Any] = (Item.name, Item.cents, Item.id)
    name__icontains: str | None = None
    category: int | None = None
    category__in: list[int] | None = None
    cents__gte: int | None = None
    cents__lt: int | None = None
    id__gt: int | None = None


class ItemFeed(KeysetSpec[Item]):
    sort_fields: ClassVar[Any] = (Item.cents, Item.id)


class ItemService(ReadService[Item]): ...


class UserService(ReadService[User]): ...


# --- Deep pages and totals ---


@asynccontextmanager
async def keyset_page(stage: Stage) -> AsyncGenerator[Work]:
    """The page after nine tenths of the rows, by a cursor."""
    async with stage.sessions() as session:
        before = await session.execute(select(Item.cents, Item.id).order_by(Item.cents, Item.id).offset(_depth(stage) - 1).limit(1))
        cursor = CursorCodec(ItemFeed(sort="cents").cursor_context(), None).encode(Position(tuple(before.one())))

    async def once(_: Turn) -> object:
        async with stage.kit_session() as session:
            return await ItemService(session).keyset_page_as(ItemRead, ItemFeed(sort="cents", cursor=cursor))

    yield once


@asynccontextmanager
async def offset_page(stage: Stage) -> AsyncGenerator[Work]:
    """The same by OFFSET, by hand."""

    async def once(_: Turn) -> object:
        async with stage.sessions() as session:
            return await _read(session, _depth(stage))

    yield once


@asynccontextmanager
async def page_without_total(stage: Stage) -> AsyncGenerator[Work]:
    """The first page, without counting."""

    async def once(_: Turn) -> object:
        async with stage.kit_session() as session:
            return await ItemService(session).slice_as(ItemRead, ItemQuery(sort="cents"))

    yield once


@asynccontextmanager
async def page_with_count(stage: Stage) -> AsyncGenerator[Work]:
    """The same by hand, and all rows are counted."""

    async def once(_: Turn) -> object:
        async with stage.sessions() as session:
            items = await _read(session, 0)
            await session.scalar(select(func.count()).select_from(Item))
            return items

    yield once


def _depth(stage: Stage) -> int:
    return stage.many_rows * 9 // 10


async def _read(session: AsyncSession, skip: int) -> list[ItemRead]:
    items = await session.scalars(select(Item).order_by(Item.cents, Item.id).offset(skip).limit(_LIMIT))
    return [ItemRead.model_validate(item) for item in items]


# --- Filters ---

_ASKED: dict[str, Any] = {"category__in": [1, 2, 3], "cents__gte": 50, "cents__lt": 5000, "sort": "-cents,-id"}


@asynccontextmanager
async def filtered(stage: Stage) -> AsyncGenerator[Work]:
    """A list by three filters, sorted."""

    async def once(_: Turn) -> object:
        async with stage.kit_session() as session:
            query = ItemQuery(**_ASKED)
            return await ItemService(session).list_as(ItemRead, *query.conditions(), order_by=query.sort_items())

    yield once


@asynccontextmanager
async def filtered_by_hand(stage: Stage) -> AsyncGenerator[Work]:
    """The same SQL by hand."""

    async def once(_: Turn) -> object:
        async with stage.sessions() as session:
            asked = Item.category.in_([1, 2, 3]), Item.cents >= 50, Item.cents < 5000
            items = await session.scalars(select(Item).where(*asked).order_by(Item.cents.desc(), Item.id.desc()).limit(_LIMIT))
            return [ItemRead.model_validate(item) for item in items]

    yield once


# --- Exports ---

_EXPORTED = 10_000


@asynccontextmanager
async def export(stage: Stage) -> AsyncGenerator[Work]:
    """All of 10,000 rows as NDJSON."""

    async def once(_: Turn) -> object:
        async with stage.kit_session() as session:
            chunks = ItemService(session).stream_json_as(ItemRead, None, Item.id <= _EXPORTED, begin=stage.database.begin)
            return b"".join([chunk async for chunk in chunks]).splitlines()

    yield once


@asynccontextmanager
async def export_by_hand(stage: Stage) -> AsyncGenerator[Work]:
    """The same row by row, from one open cursor."""

    async def once(_: Turn) -> object:
        async with stage.sessions() as session:
            statement = select(Item).where(Item.id <= _EXPORTED).order_by(Item.id).execution_options(yield_per=1000)
            return [ItemRead.model_validate(item).model_dump_json().encode() async for item in await session.stream_scalars(statement)]

    yield once


@asynccontextmanager
async def export_users(stage: Stage) -> AsyncGenerator[Work]:
    """All users as NDJSON, with the check of their addresses."""

    async def once(_: Turn) -> object:
        async with stage.kit_session() as session:
            chunks = UserService(session).stream_json_as(UserRead, begin=stage.database.begin)
            return b"".join([chunk async for chunk in chunks]).splitlines()

    yield once


@asynccontextmanager
async def export_users_by_hand(stage: Stage) -> AsyncGenerator[Work]:
    """The same row by row, from one open cursor."""

    async def once(_: Turn) -> object:
        async with stage.sessions() as session:
            statement = select(User).order_by(User.id).execution_options(yield_per=1000)
            return [UserRead.model_validate(user).model_dump_json().encode() async for user in await session.stream_scalars(statement)]

    yield once


# --- Parameters ---

_URL = "/items?category__in=1&category__in=2&category__in=3&cents__gte=50&cents__lt=5000&sort=-cents,-id"


@asynccontextmanager
async def with_parameters(stage: Stage) -> AsyncGenerator[Work]:
    """A route that declares the parameters of a list, of which a client sends five."""
    app = FastAPI()

    @app.get("/items")
    async def list_items(query: Annotated[ItemQuery, Query()], session: Annotated[AsyncSession, stage.database.session]) -> Slice[ItemRead]:
        return await ItemService(session).slice_as(ItemRead, query)

    yield lambda _: request(app, "GET", _URL)


class PlainQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    skip: int = 0
    limit: int = 100
    q: str | None = None
    sort: str = ""
    name__icontains: str | None = None
    category: int | None = None
    category__in: list[int] | None = None
    cents__gte: int | None = None
    cents__lt: int | None = None
    id__gt: int | None = None


@asynccontextmanager
async def with_plain_parameters(stage: Stage) -> AsyncGenerator[Work]:
    """The same parameters in a plain model. The query is a constant, so that FastAPI's own part is left."""
    app, asked = FastAPI(), ItemQuery(**_ASKED)

    @app.get("/items")
    async def list_items(
        query: Annotated[PlainQuery, Query()], session: Annotated[AsyncSession, stage.database.session]
    ) -> Slice[ItemRead]:
        return await ItemService(session).slice_as(ItemRead, asked)

    yield lambda _: request(app, "GET", _URL)


@asynccontextmanager
async def without_parameters(stage: Stage) -> AsyncGenerator[Work]:
    """The same without parameters: the query is a constant."""
    app, query = FastAPI(), ItemQuery(**_ASKED)

    @app.get("/items")
    async def list_items(session: Annotated[AsyncSession, stage.database.session]) -> Slice[ItemRead]:
        return await ItemService(session).slice_as(ItemRead, query)

    yield lambda _: request(app, "GET", _URL)
