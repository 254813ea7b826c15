"""One table, mapped by a plain class and by classes with code of the application's, which a write must call for each row."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, validates


class NamesBase(DeclarativeBase): ...


class Name(NamesBase):
    """Has no code."""

    __tablename__ = "names"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Person(NamesBase):
    """Has hybrids that are plain Python."""

    __table__ = Name.__table__
    name: Mapped[str]

    @hybrid_property
    def initial(self) -> str:
        return self.name[0]

    @hybrid_property
    def size(self) -> int:
        return len(self.name)


class Validated(NamesBase):
    __table__ = Name.__table__
    name: Mapped[str]

    @validates("name")
    def lower(self, _key: str, name: str) -> str:
        return name.lower()


class Constructed(NamesBase):
    __table__ = Name.__table__
    name: Mapped[str]

    def __init__(self, name: str) -> None:
        self.name = name.lower()


class ListenedSet(NamesBase):
    __table__ = Name.__table__
    name: Mapped[str]


@event.listens_for(ListenedSet.name, "set", retval=True)
def lower_name(_row: object, name: str, *_: object) -> str:
    return name.lower()


class ListenedInit(NamesBase):
    __table__ = Name.__table__
    name: Mapped[str]


@event.listens_for(ListenedInit, "init")
def lower_argument(_row: object, _args: object, values: dict[str, Any]) -> None:
    values["name"] = values["name"].lower()


class ListenedInsert(NamesBase):
    __table__ = Name.__table__
    name: Mapped[str]


@event.listens_for(ListenedInsert, "before_insert")
def lower_row(_mapper: object, _connection: object, row: ListenedInsert) -> None:
    row.name = row.name.lower()


class ListenedDelete(NamesBase):
    """Writes down the names of the rows that are deleted."""

    __table__ = Name.__table__
    name: Mapped[str]


deleted_names: list[str] = []


@event.listens_for(ListenedDelete, "before_delete")
def note_name(_mapper: object, _connection: object, row: ListenedDelete) -> None:
    deleted_names.append(row.name)


@dataclass
class Initialised:
    """A dataclass whose __post_init__ must run."""

    id: int = field(init=False)
    name: str

    def __post_init__(self) -> None:
        self.name = self.name.lower()


NamesBase.registry.map_imperatively(Initialised, Name.__table__)
