"""Who may log in."""

from typing import TYPE_CHECKING

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from fastapi_kit.auth.users import UserMixin

from .base import Base, TimestampMixin

if TYPE_CHECKING:
    from .organization import Organization


class User(UserMixin, TimestampMixin, Base):
    __tablename__ = "users"
    # An id names somebody in tokens for days: SQLite would give that of the last user, once deleted, to the next one.
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)
    full_name: Mapped[str] = mapped_column(String(255))

    # Loaded where a query asks for it, and an error elsewhere, never a query in secret. Memberships are what is written.
    organizations: Mapped[list["Organization"]] = relationship(
        secondary="user_organizations", back_populates="users", viewonly=True, lazy="raise"
    )
