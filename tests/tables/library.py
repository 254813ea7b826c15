"""A small library: the models, schemas and services of the tests."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict
from sqlalchemy import CheckConstraint, ForeignKey, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from fastapi_kit.crud import CRUDService
from fastapi_kit.db import NAMING_CONVENTION, TimestampMixin


class LibraryBase(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class Author(TimestampMixin, LibraryBase):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(50), unique=True)
    name: Mapped[str | None]
    books: Mapped[list["Book"]] = relationship(back_populates="author")


class Book(TimestampMixin, LibraryBase):
    __tablename__ = "books"
    __table_args__ = (CheckConstraint("pages > 0", name="pages_positive"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(50))
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    pages: Mapped[int] = mapped_column(default=1)
    language: Mapped[str | None] = mapped_column(server_default="en")
    author: Mapped[Author] = relationship(back_populates="books")


class Loan(LibraryBase):
    """Its foreign key is checked at COMMIT."""

    __tablename__ = "loans"
    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int] = mapped_column(ForeignKey("books.id", deferrable=True, initially="DEFERRED"))


class Tag(LibraryBase):
    """Nothing points at it and nothing listens to it."""

    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    weight: Mapped[int | None]


class Shelf(LibraryBase):
    """Two columns make its key."""

    __tablename__ = "shelves"
    room: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str | None]


class Leaflet(LibraryBase):
    """Counts its versions."""

    __tablename__ = "leaflets"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    version: Mapped[int] = mapped_column()
    __mapper_args__: ClassVar = {"version_id_col": version}


class AuthorCreate(BaseModel):
    email: str
    name: str | None = None


class AuthorUpdate(BaseModel):
    email: str | None = None
    name: str | None = None


class AuthorRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    email: str


class BookCreate(BaseModel):
    title: str
    author_id: int
    pages: int = 1


class BookUpdate(BaseModel):
    title: str | None = None
    pages: int | None = None


class LoanCreate(BaseModel):
    book_id: int


class TagCreate(BaseModel):
    name: str
    weight: int | None = None


class TagUpdate(BaseModel):
    name: str | None = None
    weight: int | None = None


class ShelfCreate(BaseModel):
    room: int
    number: int
    label: str | None = None


class ShelfUpdate(BaseModel):
    label: str | None = None


class LeafletCreate(BaseModel):
    text: str


class AuthorService(CRUDService[Author, AuthorCreate, AuthorUpdate]): ...


class BookService(CRUDService[Book, BookCreate, BookUpdate]): ...


class LoanService(CRUDService[Loan, LoanCreate, LoanCreate]): ...


class TagService(CRUDService[Tag, TagCreate, TagUpdate]): ...


class ShelfService(CRUDService[Shelf, ShelfCreate, ShelfUpdate]): ...


class LeafletService(CRUDService[Leaflet, LeafletCreate, LeafletCreate]): ...
