"""The rows of an application, for the files beside this one: on a base of its own, and users on the library's."""

from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from fastapi_kit import Base as KitBase
from fastapi_kit.auth.users import UserMixin


class Base(DeclarativeBase): ...


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    rank: Mapped[int | None]
    folder_id: Mapped[int | None]
    lines: Mapped[list["Line"]] = relationship()


class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    note_id: Mapped[int] = mapped_column(ForeignKey("notes.id"))


class User(UserMixin, KitBase):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
