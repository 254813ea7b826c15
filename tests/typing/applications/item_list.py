"""Filtered, searched, sorted lists by hand: one declaration, offset and keyset pages, and the same from plain Python."""
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, ForeignKey, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column, relationship

from fastapi_kit.crud import FilterSpec, KeysetSpec, QuerySpec, ReadService, Where
from fastapi_kit.db import Base, Database, TimestampMixin
from fastapi_kit.pagination import KeysetPage, Page

class Tag(Base):
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    name: Mapped[str]

class Item(TimestampMixin, Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    sku: Mapped[str] = mapped_column(unique=True)
    price: Mapped[Decimal]
    archived: Mapped[bool] = mapped_column(default=False)
    tags: Mapped[list[Tag]] = relationship()

class ItemRead(BaseModel):
    id: int
    name: str
    price: Decimal

def tagged(name: str) -> ColumnElement[bool]:
    return Item.tags.any(or_(Tag.name == name, Tag.name == name.lower()))

class ItemFilters(FilterSpec[Item]):
    """What may be asked of items. None is "not given"; a default applies until the client says otherwise."""
    search_fields = (Item.name, Item.sku)
    sort_fields = (Item.name, Item.price, Item.created_at)
    sort: str = "-created_at,name"
    name__icontains: str | None = None
    price__gte: Decimal | None = None
    tags__name: str | None = None  # a relation: EXISTS
    archived: bool = False
    tag: Annotated[str | None, Where(tagged)] = None           # what no name can say

class ItemQuery(ItemFilters, QuerySpec[Item]):
    limit: Annotated[int, Field(ge=0, le=100)] = 20

class ItemFeed(ItemFilters, KeysetSpec[Item]): ...
class ItemService(ReadService[Item]): ...

db = Database("sqlite+aiosqlite:///shop.db")
Session = Annotated[AsyncSession, db.session]
router = APIRouter(prefix="/items")

@router.get("")
async def list_items(query: Annotated[ItemQuery, Query()], session: Session) -> Page[ItemRead]:
    return await ItemService(session).page_as(ItemRead, query, Item.price > 0)

@router.get("/feed")
async def feed(query: Annotated[ItemFeed, Query()], session: Session) -> KeysetPage[ItemRead]:
    return await ItemService(session).keyset_page_as(ItemRead, query)

async def cheap_items(session: AsyncSession) -> list[str]:
    query = ItemFilters(price__gte=Decimal(1), sort="price")
    statement = select(Item.name).where(*query.conditions()).order_by(*query.order_by())  # on any statement of one's own
    return list(await session.scalars(statement))
