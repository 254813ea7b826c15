"""Folders with what is deleted with them, and the products and tasks that services write."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, Column, Computed, DateTime, ForeignKey, String, Table, func
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    WriteOnlyMapped,
    column_property,
    composite,
    mapped_column,
    relationship,
    synonym,
    validates,
)

from fastapi_kit.db import TimestampMixin


class StoreBase(DeclarativeBase):
    type_annotation_map: ClassVar[dict[Any, Any]] = {dict[str, Any]: JSON}


folder_labels = Table(
    "folder_labels",
    StoreBase.metadata,
    Column("folder_id", ForeignKey("folders.id"), primary_key=True),
    Column("label_id", ForeignKey("labels.id"), primary_key=True),
)


class Owner(StoreBase):
    """Only folders refer to it, and it has no relationship to them."""

    __tablename__ = "owners"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Folder(StoreBase):
    """The database deletes its content, so a delete is one statement."""

    __tablename__ = "folders"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), unique=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("folders.id"))
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owners.id"))
    papers: Mapped[list["Paper"]] = relationship(cascade="all, delete-orphan", passive_deletes=True)
    slips: WriteOnlyMapped["Slip"] = relationship(cascade="all, delete-orphan", passive_deletes=True, overlaps="papers")
    shown: Mapped[list["Paper"]] = relationship(viewonly=True)


class Paper(StoreBase):
    __tablename__ = "papers"
    id: Mapped[int] = mapped_column(primary_key=True)
    folder_id: Mapped[int] = mapped_column(ForeignKey("folders.id", ondelete="CASCADE"))
    text: Mapped[str | None] = mapped_column(String(20), unique=True)


class Slip(StoreBase):
    """A paper that its folder cannot load."""

    __table__ = Paper.__table__
    folder_id: Mapped[int]


class Binder(StoreBase):
    """A folder with lines that its mapping deletes with it, and remarks that stay."""

    __table__ = Folder.__table__
    id: Mapped[int]
    name: Mapped[str]
    lines: Mapped[list["Line"]] = relationship(cascade="all, delete-orphan")
    remarks: Mapped[list["Remark"]] = relationship(lazy="raise")


class Line(StoreBase):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    folder_id: Mapped[int] = mapped_column(ForeignKey("folders.id"))


class Opened(StoreBase):
    """A folder whose lines every select joins."""

    __table__ = Folder.__table__
    id: Mapped[int]
    name: Mapped[str]
    lines: Mapped[list[Line]] = relationship(lazy="joined", overlaps="lines")


class Remark(StoreBase):
    __tablename__ = "remarks"
    id: Mapped[int] = mapped_column(primary_key=True)
    folder_id: Mapped[int | None] = mapped_column(ForeignKey("folders.id"))


class Branch(StoreBase):
    """A folder in a tree, with an owner that its mapping deletes with it."""

    __table__ = Folder.__table__
    id: Mapped[int]
    name: Mapped[str]
    parent_id: Mapped[int | None]
    children: Mapped[list["Branch"]] = relationship()
    owner: Mapped[Owner | None] = relationship(cascade="all, delete-orphan", single_parent=True)


class Labelled(StoreBase):
    """A folder with labels, which have several folders."""

    __table__ = Folder.__table__
    id: Mapped[int]
    name: Mapped[str]
    labels: Mapped[list["Label"]] = relationship(secondary=folder_labels, back_populates="folders")


class Label(StoreBase):
    __tablename__ = "labels"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), unique=True)
    folders: Mapped[list[Labelled]] = relationship(secondary=folder_labels, back_populates="labels")


class Article(StoreBase):
    """A folder that is written with its labels and its papers."""

    __table__ = Folder.__table__
    id: Mapped[int]
    name: Mapped[str]
    owner_id: Mapped[int | None]
    owner: Mapped[Owner | None] = relationship(overlaps="owner")
    labels: Mapped[list[Label]] = relationship(secondary=folder_labels, order_by=Label.name, overlaps="folders,labels")
    papers: Mapped[list[Paper]] = relationship(
        cascade="all, delete-orphan", passive_deletes=True, order_by=Paper.id, overlaps="papers,slips"
    )


@dataclass
class Place:
    """A composite of two columns."""

    x: int
    y: int


class Product(TimestampMixin, StoreBase):
    """Columns with every kind of default, some with another name than in the table."""

    __tablename__ = "products"
    ident: Mapped[int] = mapped_column("id", primary_key=True)
    title: Mapped[str] = mapped_column("name", String(50), unique=True)
    price: Mapped[int] = mapped_column(default=5)
    code: Mapped[str | None] = mapped_column(String(20), default=lambda: "made")
    state: Mapped[str | None] = mapped_column(String(20), server_default="new")
    grade: Mapped[str | None] = mapped_column(String(20), default="b")
    rank: Mapped[int | None]
    discount: Mapped[int | None] = mapped_column(default=5)
    made_at: Mapped[datetime] = mapped_column(server_default=func.now())
    doubled: Mapped[int] = mapped_column(Computed("price * 2", persisted=True))
    details: Mapped[dict[str, Any] | None]
    settings: Mapped[dict[str, Any] | None] = mapped_column(default=lambda: {"a": 1})
    secret: Mapped[str | None] = mapped_column(deferred=True)
    label: Mapped[str] = synonym("title")
    parts: Mapped[list["Part"]] = relationship(back_populates="product")
    part_names: AssociationProxy[list[str]] = association_proxy("parts", "name", creator=lambda name: Part(name=name))

    @hybrid_property
    def cents(self) -> int:
        return self.price * 100

    @cents.inplace.setter
    def _set_cents(self, cents: int) -> None:
        self.price = cents // 100

    @hybrid_property
    def expensive(self) -> bool:
        return self.price > 100


class Part(StoreBase):
    __tablename__ = "parts"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"))
    product: Mapped[Product] = relationship(back_populates="parts")


class Placed(StoreBase):
    """A product with a composite of two of its columns."""

    __table__ = Product.__table__
    ident: Mapped[int] = column_property(__table__.c.id)
    title: Mapped[str] = column_property(__table__.c.name)
    place: Mapped[Place] = composite(Place, __table__.c.rank, __table__.c.discount)


class Task(TimestampMixin, StoreBase):
    """Counts versions, has timestamps and attributes of every kind."""

    __tablename__ = "tasks"
    ident: Mapped[int] = mapped_column("id", primary_key=True)
    title: Mapped[str] = mapped_column("name", String(20), unique=True)
    points: Mapped[int] = mapped_column(default=1)
    doubled: Mapped[int] = mapped_column(Computed("points * 2", persisted=True))
    touched: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), onupdate=func.now())
    owner: Mapped[str | None]
    details: Mapped[dict[str, Any] | None]
    body: Mapped[str | None] = mapped_column(deferred=True)
    team_id: Mapped[int | None] = mapped_column(ForeignKey("labels.id"))
    revision: Mapped[int] = mapped_column()
    team: Mapped[Label | None] = relationship()
    steps: Mapped[list["Step"]] = relationship(back_populates="task", order_by="Step.id")
    number: Mapped[int] = synonym("ident")
    label: Mapped[str] = synonym("title")
    __mapper_args__: ClassVar[dict[str, Any]] = {"version_id_col": revision}

    @hybrid_property
    def hours(self) -> int:
        return self.points * 8

    @hours.inplace.setter
    def _set_hours(self, hours: int) -> None:
        self.points = hours // 8

    @hybrid_property
    def large(self) -> bool:
        return self.points > 10

    @validates("owner")
    def lower(self, _key: str, owner: str | None) -> str | None:
        return owner and owner.lower()


class Step(StoreBase):
    __tablename__ = "steps"
    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"))
    task: Mapped[Task] = relationship(back_populates="steps")
