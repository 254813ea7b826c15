"""Houses: collections and mutable columns of every kind, a tree, and rows that depend on each other."""

import dataclasses
from typing import ClassVar

from sqlalchemy import JSON, ForeignKey, String
from sqlalchemy.ext.mutable import MutableComposite, MutableDict, MutableList
from sqlalchemy.ext.orderinglist import ordering_list
from sqlalchemy.orm import (
    DeclarativeBase,
    DynamicMapped,
    Mapped,
    WriteOnlyMapped,
    attribute_keyed_dict,
    composite,
    mapped_column,
    relationship,
    validates,
)


class HouseBase(DeclarativeBase): ...


@dataclasses.dataclass
class Point(MutableComposite):
    x: int
    y: int

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
        self.changed()


class City(HouseBase):
    """Is written by single statements."""

    __tablename__ = "cities"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), unique=True)


class House(HouseBase):
    """Has a collection of every kind, and mutable columns of every kind."""

    __tablename__ = "houses"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), unique=True)
    note: Mapped[str | None]
    city_id: Mapped[int | None] = mapped_column(ForeignKey("cities.id"))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("houses.id"))
    data: Mapped[dict[str, int]] = mapped_column(MutableDict.as_mutable(JSON), default=dict)
    tags: Mapped[list[str]] = mapped_column(MutableList.as_mutable(JSON), default=list)
    at: Mapped[Point] = composite(mapped_column("x", default=0), mapped_column("y", default=0))
    parent: Mapped["House | None"] = relationship(remote_side=[id], back_populates="annexes")
    annexes: Mapped[list["House"]] = relationship(back_populates="parent")
    rooms: Mapped[list["Room"]] = relationship(back_populates="house", order_by="Room.id", cascade="all, delete-orphan")
    seen_rooms: Mapped[list["Room"]] = relationship(viewonly=True, order_by="Room.id")
    doors: Mapped[set["Door"]] = relationship(cascade="all, delete-orphan")
    keys: Mapped[dict[str, "Key"]] = relationship(collection_class=attribute_keyed_dict("name"))
    floors: Mapped[list["Floor"]] = relationship(order_by="Floor.position", collection_class=ordering_list("position"))
    guests: WriteOnlyMapped["Guest"] = relationship()
    letters: DynamicMapped["Letter"] = relationship()


class Part:
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    house_id: Mapped[int | None] = mapped_column(ForeignKey("houses.id"))


class Room(Part, HouseBase):
    __tablename__ = "rooms"
    house: Mapped[House | None] = relationship(back_populates="rooms")


class Door(Part, HouseBase):
    __tablename__ = "doors"


class Key(Part, HouseBase):
    __tablename__ = "keys"


class Floor(Part, HouseBase):
    __tablename__ = "floors"
    position: Mapped[int]


class Guest(Part, HouseBase):
    __tablename__ = "guests"


class Letter(Part, HouseBase):
    __tablename__ = "letters"


class Plant(HouseBase):
    """Is written by flushes: it has a validator and is the base of joined tables."""

    __tablename__ = "plants"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str] = mapped_column(String(20), unique=True)
    __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "plant"}

    @validates("name")
    def same(self, _name: str, value: str) -> str:
        return value


class Tree(Plant):
    __tablename__ = "trees"
    id: Mapped[int] = mapped_column(ForeignKey("plants.id"), primary_key=True)
    height: Mapped[int] = mapped_column(default=1)
    __mapper_args__: ClassVar = {"polymorphic_identity": "tree"}


class Nest(HouseBase):
    """Prevents the deletion of its tree, which is done by a flush."""

    __tablename__ = "nests"
    id: Mapped[int] = mapped_column(primary_key=True)
    tree_id: Mapped[int] = mapped_column(ForeignKey("trees.id"))


class Lease(HouseBase):
    """Its foreign key is checked at COMMIT."""

    __tablename__ = "leases"
    id: Mapped[int] = mapped_column(primary_key=True)
    house_id: Mapped[int] = mapped_column(ForeignKey("houses.id", deferrable=True, initially="DEFERRED"))
