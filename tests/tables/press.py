"""Writers, articles, labels, tags, publishers and trees: relationships of every kind, and columns that must not be shown.

The rows of one table are mapped by several classes, because relationships decide how a row is loaded and deleted.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import Column, ForeignKey, Numeric, String, Table, Text, func
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    DynamicMapped,
    Mapped,
    WriteOnlyMapped,
    attribute_keyed_dict,
    mapped_column,
    relationship,
    synonym,
)

from fastapi_kit.db import UTCDateTime, VersionMixin, uuid7


class PressBase(DeclarativeBase): ...


article_tags = Table(
    "article_tags",
    PressBase.metadata,
    Column("article_id", ForeignKey("articles.id", ondelete="CASCADE"), primary_key=True),
    Column("tag_name", ForeignKey("tags.name"), primary_key=True),
)


class Publisher(PressBase):
    """Its key is a UUID, the database sets a column, another one is deferred."""

    __tablename__ = "publishers"
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    name: Mapped[str]
    notes: Mapped[str] = mapped_column(default="private", deferred=True)
    since: Mapped[datetime] = mapped_column(UTCDateTime(), server_default=func.now())
    writers: Mapped[list["Writer"]] = relationship(back_populates="publisher")

    @property
    def motto(self) -> str:
        return self.notes.upper()


class Writer(PressBase):
    """Has what can be read of related rows: collections of every class, association proxies, properties, a hybrid and a synonym."""

    __tablename__ = "writers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    password: Mapped[str] = mapped_column(default="hidden")
    biography: Mapped[str] = mapped_column(default="long", deferred=True)
    publisher_id: Mapped[UUID | None] = mapped_column(ForeignKey("publishers.id"))
    publisher: Mapped[Publisher | None] = relationship(back_populates="writers")
    articles: Mapped[list["Article"]] = relationship(back_populates="writer", order_by="Article.id")
    articles_by_title: Mapped[dict[str, "Article"]] = relationship(collection_class=attribute_keyed_dict("title"), viewonly=True)
    article_set: Mapped[set["Article"]] = relationship(viewonly=True)
    later_articles: WriteOnlyMapped["Article"] = relationship(viewonly=True)
    dynamic_articles: DynamicMapped["Article"] = relationship(viewonly=True)
    titles: AssociationProxy[list[str]] = association_proxy("articles", "title")
    printers: AssociationProxy[list[Publisher]] = association_proxy("articles", "printer")
    printer_names: AssociationProxy[list[str]] = association_proxy("articles", "printer_name")
    full_name = synonym("name")

    @property
    def house(self) -> str:
        return self.publisher.name if self.publisher else "self"

    @property
    def house_motto(self) -> str:
        return self._motto()

    def _motto(self) -> str:
        return shout(self)

    @property
    def first_article(self) -> "Article":
        return self.articles[0]

    @hybrid_property
    def number_of_articles(self) -> int:
        return len(self.articles)

    def __getitem__(self, name: str) -> object:
        return getattr(self, name)

    @property
    def hidden(self) -> str:
        return str(self["publisher"].name)


def shout(writer: Writer) -> str:
    return writer.publisher.motto + "!" if writer.publisher else ""


class Tag(PressBase):
    """Its key is a text."""

    __tablename__ = "tags"
    name: Mapped[str] = mapped_column(String(20), primary_key=True)
    meaning: Mapped[str | None]


class Label(PressBase):
    """The database deletes it with its article."""

    __tablename__ = "labels"
    id: Mapped[int] = mapped_column(primary_key=True)
    article_id: Mapped[int] = mapped_column(ForeignKey("articles.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(default="")
    public: Mapped[bool] = mapped_column(default=True)
    rank: Mapped[int] = mapped_column(default=0)


class Article(PressBase):
    """Is deleted by a flush, with its labels and its replies. The reference to its writer is checked at COMMIT."""

    __tablename__ = "articles"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(unique=True)
    body: Mapped[str] = mapped_column(Text, default="")
    email: Mapped[str] = mapped_column(default="")
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2), default=Decimal(0))
    written_at: Mapped[datetime] = mapped_column(UTCDateTime(), default=datetime(2026, 1, 1, tzinfo=UTC))
    data: Mapped[str | None]
    password: Mapped[str] = mapped_column(default="hidden")
    group: Mapped[int] = mapped_column(default=1)
    writer_id: Mapped[int | None] = mapped_column(ForeignKey("writers.id", deferrable=True, initially="DEFERRED"))
    printer_id: Mapped[UUID | None] = mapped_column(ForeignKey("publishers.id"))
    answers_id: Mapped[int | None] = mapped_column(ForeignKey("articles.id"))
    writer: Mapped[Writer | None] = relationship(back_populates="articles")
    printer: Mapped[Publisher | None] = relationship()
    labels: Mapped[list[Label]] = relationship(cascade="all, delete", order_by=Label.id)
    tags: Mapped[list[Tag]] = relationship(secondary=article_tags, order_by=Tag.name)
    replies: Mapped[list["Article"]] = relationship(cascade="all, delete", order_by=id)
    printer_name: AssociationProxy[str] = association_proxy("printer", "name")

    @hybrid_property
    def heading(self) -> str:
        return f"{self.title}: {self.price}"


class Post(PressBase):
    """An article whose writes are one statement each: it has no collection that a delete must load."""

    __table__ = Article.__table__
    id: Mapped[int]
    title: Mapped[str]
    group: Mapped[int]
    answers_id: Mapped[int | None]
    writer_id: Mapped[int | None]
    answers: Mapped["Post | None"] = relationship(remote_side=[__table__.c.id], overlaps="replies")
    writer: Mapped[Writer | None] = relationship(overlaps="articles,writer")
    labels: Mapped[list[Label]] = relationship(cascade="all, delete", passive_deletes=True, order_by=Label.id, overlaps="labels")


class LabelledArticle(PressBase):
    """Every select joins its labels."""

    __table__ = Article.__table__
    id: Mapped[int]
    title: Mapped[str]
    labels: Mapped[list[Label]] = relationship(lazy="joined", cascade="all, delete", order_by=Label.id, overlaps="labels")


class Tagging(PressBase):
    """Two foreign keys, which are its key, are all there is."""

    __table__ = article_tags
    article_id: Mapped[int]
    tag_name: Mapped[str]


class Page(VersionMixin, PressBase):
    """Has a version, and so ETags."""

    __tablename__ = "pages"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    body: Mapped[str]


class Knot(PressBase):
    """A tree in two directions, with two kinds of children."""

    __tablename__ = "knots"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    text: Mapped[str] = mapped_column(default="t", deferred=True)
    kind: Mapped[str] = mapped_column(default="node")
    colour: Mapped[str | None]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("knots.id"))
    left_id: Mapped[int | None] = mapped_column(ForeignKey("knots.id"))
    right_id: Mapped[int | None] = mapped_column(ForeignKey("knots.id"))
    writer_id: Mapped[int | None] = mapped_column(ForeignKey("writers.id"))
    writer: Mapped[Writer | None] = relationship()
    children: Mapped[list["Knot"]] = relationship(back_populates="parent", order_by=id, foreign_keys=parent_id)
    parent: Mapped["Knot | None"] = relationship(back_populates="children", remote_side=id, foreign_keys=parent_id)
    left: Mapped["Knot | None"] = relationship(remote_side=id, foreign_keys=left_id, post_update=True)
    right: Mapped["Knot | None"] = relationship(remote_side=id, foreign_keys=right_id, post_update=True)

    @property
    def path(self) -> str:
        return f"{self.parent.path}/{self.name}" if self.parent else self.name


KNOTS = Knot.__table__.c


class Node(PressBase):
    """A tree of two classes in one table."""

    __table__ = Knot.__table__
    id: Mapped[int]
    kind: Mapped[str]
    name: Mapped[str]
    parent_id: Mapped[int | None]
    parent: Mapped["Node | None"] = relationship(remote_side=[KNOTS.id], foreign_keys=[KNOTS.parent_id], overlaps="children,parent")
    children: Mapped[list["Node"]] = relationship(back_populates="parent", foreign_keys=[KNOTS.parent_id], overlaps="children,parent")
    __mapper_args__: ClassVar[Any] = {
        "polymorphic_on": "kind",
        "polymorphic_identity": "node",
        "include_properties": ["id", "kind", "name", "parent_id"],
    }


class Leaf(Node):
    """Has a column that other nodes have not."""

    colour: Mapped[str | None] = mapped_column(use_existing_column=True)
    __mapper_args__: ClassVar[Any] = {"polymorphic_identity": "leaf"}
