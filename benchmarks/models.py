"""The table and the schemas that both sides share."""

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, EmailStr, Field
from sqlalchemy import Index, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_kit.db import TimestampMixin

__all__ = [
    "STAMPS",
    "Base",
    "Item",
    "User",
    "UserCreate",
    "UserRead",
    "UserReadPlain",
    "UserUpdate",
    "new_user",
    "new_users",
    "stored_users",
]

STAMPS = frozenset({"created_at", "updated_at"})
"""What no two writes agree on."""

_NO_PASSWORD = "!"
_START = datetime(2026, 1, 1, tzinfo=UTC)


class Base(DeclarativeBase): ...


class User(TimestampMixin, Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(255), unique=True, index=True)
    hashed_password: Mapped[str] = mapped_column(String(255), default=_NO_PASSWORD)
    full_name: Mapped[str] = mapped_column(String(255))
    is_active: Mapped[bool] = mapped_column(default=True)
    is_superuser: Mapped[bool] = mapped_column(default=False)


class Item(Base):
    """A row of the large table."""

    __tablename__ = "items"
    __table_args__ = (Index("items_cents_id", "cents", "id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))
    category: Mapped[int]
    cents: Mapped[int]


class UserCreate(BaseModel):
    email: EmailStr
    full_name: str = Field(min_length=1, max_length=255)
    is_active: bool = True


class UserUpdate(BaseModel):
    email: EmailStr | None = None
    full_name: str | None = Field(None, min_length=1, max_length=255)


class UserRead(UserCreate):
    model_config = ConfigDict(from_attributes=True)
    id: int
    created_at: datetime
    updated_at: datetime


class UserReadPlain(UserRead):
    """The same, with the address as any text."""

    email: str


def new_user(number: int) -> UserCreate:
    return UserCreate(email=f"new{number}@example.org", full_name=f"New User {number}")


@cache
def new_users(count: int) -> list[UserCreate]:
    return [new_user(number) for number in range(count)]


def stored_users(count: int) -> list[dict[str, Any]]:
    """Return the rows of a filled table. One address is not in the form that EmailStr gives it: who skips the check is found out."""
    rows = [_stored_user(number) for number in range(count)]
    rows[7]["email"] = "Grace@EXAMPLE.org"
    return rows


def _stored_user(number: int) -> dict[str, Any]:
    moment = _START + timedelta(seconds=number)
    return {
        "email": f"user{number}@example.org",
        "hashed_password": _NO_PASSWORD,
        "full_name": f"Zoë User {number}",
        "is_active": number % 5 > 0,
        "is_superuser": False,
        "created_at": moment,
        "updated_at": moment,
    }
