"""Items with tags, an owner and columns of every kind that a list filters by."""

import enum
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar
from uuid import UUID, uuid5

from pydantic import BaseModel, Field
from sqlalchemy import BigInteger, ColumnElement, DateTime, ForeignKey, Numeric, SmallInteger, String, func, or_
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from fastapi_kit.crud import FilterSpec, KeysetSpec, QuerySpec, ReadService, Where
from fastapi_kit.db import UTCDateTime

NAMESPACE = UUID("12345678-1234-5678-1234-567812345678")


class ShopBase(DeclarativeBase):
    pass


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


class Owner(ShopBase):
    __tablename__ = "owners"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    secret: Mapped[str] = mapped_column(default="hidden")
    boss_id: Mapped[int | None] = mapped_column(ForeignKey("owners.id"))
    boss: Mapped["Owner | None"] = relationship(remote_side=[id])
    items: Mapped[list["Item"]] = relationship(back_populates="owner")


class Tag(ShopBase):
    __tablename__ = "tags"

    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    name: Mapped[str]
    weight: Mapped[int] = mapped_column(default=0)


class Item(ShopBase):
    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))
    note: Mapped[str | None]
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2), default=Decimal(1))
    stock: Mapped[int] = mapped_column(SmallInteger, default=0)
    views: Mapped[int] = mapped_column(BigInteger, default=0)
    rating: Mapped[float | None]
    colour: Mapped[Colour | None]
    code: Mapped[UUID] = mapped_column(default=lambda: uuid5(NAMESPACE, "x"))
    sold_at: Mapped[datetime | None] = mapped_column(UTCDateTime())
    noted_at: Mapped[datetime | None] = mapped_column(DateTime())
    day: Mapped[date | None]
    archived: Mapped[bool] = mapped_column(default=False)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owners.id"))
    owner: Mapped[Owner | None] = relationship(back_populates="items")
    tags: Mapped[list[Tag]] = relationship(order_by=Tag.id)

    @hybrid_property
    def label(self) -> str:
        return self.name + "!"


class ItemRead(BaseModel):
    id: int
    name: str


class TagRead(BaseModel):
    name: str


class ItemWithTags(ItemRead):
    tags: list[TagRead]


def tagged(name: str) -> ColumnElement[bool]:
    return Item.tags.any(or_(Tag.name == name, Tag.name == name.lower()))


class ItemFilters(FilterSpec[Item]):
    """What may be asked of items."""

    search_fields: ClassVar[Any] = (Item.name, Item.note)
    sort_fields: ClassVar[Any] = (
        Item.name,
        Item.price,
        Item.note,
        Item.sold_at,
        Item.rating,
        Item.colour,
        func.length(Item.name).label("size"),
    )
    name: str | None = None
    name__contains: str | None = None
    name__icontains: str | None = None
    name__startswith: str | None = None
    name__istartswith: str | None = None
    name__endswith: str | None = None
    name__iendswith: str | None = None
    name__in: list[str] | None = None
    name__not_in: list[str] | None = None
    note__ne: str | None = None
    note__isnull: bool | None = None
    note__not_in: list[str] | None = None
    price__gte: Decimal | None = None
    price__lt: Decimal | None = None
    stock: int | None = None
    views__gt: int | None = None
    rating__lte: float | None = None
    colour: Colour | None = None
    code: UUID | None = None
    sold_at: date | None = None
    sold_at__ne: date | None = None
    sold_at__gt: date | None = None
    sold_at__gte: date | None = None
    sold_at__lt: date | None = None
    sold_at__lte: date | datetime | None = None
    sold_at__date: date | None = None
    sold_at__in: list[date] | None = None
    sold_at__not_in: list[date] | None = None
    noted_at__date: date | None = None
    day: date | None = None
    label__endswith: str | None = None
    owner__email: str | None = None
    owner__boss__email: str | None = None
    owner__isnull: bool | None = None
    tags__name: str | None = None
    tags__weight__gte: int | None = None
    tags__isnull: bool | None = None
    tag: Annotated[str | None, Where(tagged)] = None
    archived: bool = False


class ItemQuery(ItemFilters, QuerySpec[Item]):
    limit: Annotated[int, Field(ge=0, le=100)] = 20


class ItemFeed(ItemFilters, KeysetSpec[Item]):
    """The same in keyset pages."""


class ItemService(ReadService[Item]): ...


def moment(day: int, hour: int = 12) -> datetime:
    return datetime(2026, 3, day, hour, tzinfo=UTC)
