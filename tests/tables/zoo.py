"""Inheritance: a base, a joined table and a class in the table of its base."""

from typing import Any, ClassVar

from sqlalchemy import ForeignKey, Integer, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_kit.db import NAMING_CONVENTION


class ZooBase(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class Animal(ZooBase):
    """Columns have other names in the database."""

    __tablename__ = "animals"
    ident: Mapped[int] = mapped_column("id", Integer, primary_key=True)
    name: Mapped[str | None] = mapped_column("animal_name", String(20))
    kind: Mapped[str] = mapped_column(String(20))
    age: Mapped[int | None]
    tag: Mapped[str | None] = mapped_column("tag_no", unique=True)
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}


class Cat(Animal):
    """In a joined table."""

    __tablename__ = "cats"
    ident: Mapped[int] = mapped_column("id", ForeignKey("animals.id"), primary_key=True)
    lives: Mapped[int] = mapped_column(default=9)
    chip: Mapped[str | None] = mapped_column("chip_no", unique=True)
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "cat"}


class Dog(Animal):
    """In the table of animals."""

    bark: Mapped[str | None]
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "dog"}
