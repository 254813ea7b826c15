"""Models of several kinds of classes, and what most tests of services need."""

from contextlib import AbstractAsyncContextManager, asynccontextmanager

from pydantic import BaseModel
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, column_property, mapped_column, registry, synonym
from sqlmodel import Field, SQLModel

from fastapi_kit.crud import CRUDService
from fastapi_kit.db import Database, TimestampMixin, UUIDv7Mixin


class KindsBase(DeclarativeBase): ...


class Sign(KindsBase):
    """Has an expression that every select loads, a deferred column and a synonym."""

    __tablename__ = "signs"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    size: Mapped[int] = mapped_column(default=1)
    body: Mapped[str | None] = mapped_column(deferred=True)
    alias: Mapped[str] = synonym("name")


Sign.shout = column_property(func.upper(Sign.__table__.c.name))


class Ticket(UUIDv7Mixin, TimestampMixin, KindsBase):
    """Its key is made in Python, not by the database."""

    __tablename__ = "tickets"
    name: Mapped[str]


class DataclassBase(MappedAsDataclass, DeclarativeBase):
    metadata = KindsBase.metadata


class Point(DataclassBase):
    """Its constructor does not take every column."""

    __tablename__ = "points"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    x: Mapped[int]
    y: Mapped[int] = mapped_column(default=7)
    owner_id: Mapped[int | None] = mapped_column(init=False, default=None)


class HeroBase(SQLModel, registry=registry(metadata=KindsBase.metadata)):
    metadata = KindsBase.metadata


class Hero(TimestampMixin, HeroBase, table=True):
    __tablename__ = "heroes"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=20, unique=True)
    age: int | None = None


class Named(BaseModel):
    name: str


class SignService(CRUDService[Sign, Named, Named]): ...


class TicketService(CRUDService[Ticket, Named, Named]): ...


class PointService(CRUDService[Point, Named, Named]): ...


class HeroService(CRUDService[Hero, Named, Named]): ...


def opened(database: Database) -> AbstractAsyncContextManager[AsyncSession]:
    """Open the session of another request."""
    return asynccontextmanager(database.get_session)()
