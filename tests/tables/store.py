"""Folders with what is deleted with them, and the products and tasks that services write."""

from sqlalchemy import Column, ForeignKey, String, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, WriteOnlyMapped, mapped_column, relationship


class StoreBase(DeclarativeBase): ...


folder_labels = Table(
    "folder_labels",
    StoreBase.metadata,
    Column("folder_id", ForeignKey("folders.id"), primary_key=True),
    Column("label_id", ForeignKey("labels.id"), primary_key=True),
)


class Owner(StoreBase):
    """Folders refer to it; it has no relationship to them."""

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
