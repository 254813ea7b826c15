"""Users."""

from typing import TYPE_CHECKING

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from fastapi_kit.auth.users import UserMixin

from .base import Base, TimestampMixin

if TYPE_CHECKING:
    from .organization import Organization


class User(UserMixin, TimestampMixin, Base):
    __tablename__ = "users"
    # Tokens contain the id. Without this, SQLite reuses the id of the last user after a delete.
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)
    full_name: Mapped[str] = mapped_column(String(255))

    # Loaded only where a query asks for it; an error elsewhere. Write memberships, not this list.
    organizations: Mapped[list["Organization"]] = relationship(
        secondary="user_organizations", back_populates="users", viewonly=True, lazy="raise"
    )
