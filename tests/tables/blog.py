"""Notes, articles and documents: rows below others, and keys, counters and columns of every kind."""

from datetime import date
from typing import Any, ClassVar
from uuid import UUID, uuid4

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, MetaData, String, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, deferred, mapped_column, relationship

from fastapi_kit.db import TimestampMixin, VersionMixin


class BlogBase(DeclarativeBase):
    metadata = MetaData()


class Note(BlogBase):
    """Is plain."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(50), unique=True)
    folder_id: Mapped[int | None] = mapped_column(ForeignKey("folders.id"))
    document_id: Mapped[int | None] = mapped_column(ForeignKey("documents.id"))


class Folder(BlogBase):
    """Is always loaded with its notes."""

    __tablename__ = "folders"
    id: Mapped[int] = mapped_column(primary_key=True)
    notes: Mapped[list[Note]] = relationship(lazy="selectin")


class Document(VersionMixin, BlogBase):
    """Counts its versions. ``shelf`` is a parent without a table."""

    __tablename__ = "documents"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True, default=lambda: uuid4().hex)
    text: Mapped[str]
    shelf: Mapped[int] = mapped_column(default=1)
    notes: Mapped[list[Note]] = relationship(order_by=Note.id)


class Draft(BlogBase):
    """A document whose counter has another name than the mixin's, and whose options are its own."""

    __table__ = Document.__table__
    text: Mapped[str]
    edition: Mapped[int] = column_property(Document.__table__.c.version)
    __mapper_args__: ClassVar[dict[str, Any]] = {"version_id_col": Document.__table__.c.version, "eager_defaults": True}


class SeatPlan(BlogBase):
    """Its key is a text, with another name in the database, and a day."""

    __tablename__ = "seat_plans"
    hall: Mapped[str] = mapped_column("hall_name", String(20), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    seats: Mapped[int]


class Word(BlogBase):
    """Has only a key, which is text."""

    __tablename__ = "words"
    text: Mapped[str] = mapped_column(String(20), primary_key=True)


class Item(TimestampMixin, BlogBase):
    """The client chooses the key. Has defaults of Python and of the server."""

    __tablename__ = "items"
    code: Mapped[str] = mapped_column(String(20), primary_key=True)
    name: Mapped[str] = mapped_column(String(20), unique=True)
    note: Mapped[str | None] = mapped_column(default="by default")
    stock: Mapped[int] = mapped_column(default=7)
    folder_id: Mapped[int | None] = mapped_column(ForeignKey("folders.id"))
    maker: Mapped[str] = mapped_column(server_default="nobody")


class Article(BlogBase):
    """Has a slug with another name in the database, an alias that is unique or null, and a column that is unique among some rows."""

    __tablename__ = "articles"
    __table_args__ = (
        Index("one_draft", "draft_of", unique=True, postgresql_where=text("NOT hidden")),
        Index("aliases", "alias", unique=True, sqlite_where=None),
        Index("titles", "title"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column("article_slug", String(80), unique=True)
    title: Mapped[str] = mapped_column(String(100))
    alias: Mapped[str | None] = mapped_column(String(80))
    draft_of: Mapped[int | None]
    hidden: Mapped[bool] = mapped_column(default=False)
    owner: Mapped[str] = mapped_column(default="nobody")
    likes: Mapped[int] = mapped_column(default=0)


class Comment(BlogBase):
    """Its parent has another name in the database. Its text is unique, and it has a second reference."""

    __tablename__ = "comments"
    __table_args__ = (UniqueConstraint("text"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    article_id: Mapped[int] = mapped_column("article", ForeignKey("articles.id"))
    folder_id: Mapped[int | None] = mapped_column(ForeignKey("folders.id"))
    text: Mapped[str] = mapped_column(String(20))


class Footnote(BlogBase):
    """Numbered in each article. The foreign key is checked at COMMIT."""

    __tablename__ = "footnotes"
    __table_args__ = (UniqueConstraint("article_id", "number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    article_id: Mapped[int] = mapped_column(ForeignKey("articles.id", deferrable=True, initially="DEFERRED"))
    number: Mapped[int]
    text: Mapped[str]


class LateFootnote(BlogBase):
    """A footnote whose parent is not loaded with it."""

    __table__ = Footnote.__table__
    number: Mapped[int]
    text: Mapped[str]
    article_id: Mapped[int] = deferred(Footnote.__table__.c.article_id)


class Line(BlogBase):
    """Its parent is part of its key."""

    __tablename__ = "lines"
    article_id: Mapped[int] = mapped_column(ForeignKey("articles.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str]
    usages: Mapped[list["Usage"]] = relationship()


class Usage(BlogBase):
    """Where a word is used. Its key is a UUID, and it may point at a text, a number, a UUID and a key of two columns."""

    __tablename__ = "usages"
    __table_args__ = (ForeignKeyConstraint(["article_id", "line_number"], ["lines.article_id", "lines.number"]),)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    word: Mapped[str | None] = mapped_column(ForeignKey("words.text"))
    note_id: Mapped[int | None] = mapped_column(ForeignKey("notes.id"))
    part_of: Mapped[UUID | None] = mapped_column(ForeignKey("usages.id"))
    article_id: Mapped[int | None]
    line_number: Mapped[int | None]
