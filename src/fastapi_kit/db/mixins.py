"""Columns by inheritance. Every mixin works on any declarative base, dataclass bases and SQLModel included."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnDefault, Integer, Uuid, event
from sqlalchemy.orm import Mapped, Mapper, declared_attr, mapped_column

from fastapi_kit.db.types import ServerNow, UTCDateTime, utc_now, uuid7

__all__ = ["TimestampMixin", "UUIDv7Mixin", "VersionMixin", "unannotated"]

_T = TypeVar("_T")


def unannotated(make: Callable[[object], Mapped[_T]]) -> declared_attr[_T]:
    """Return an attribute that is made for each model by *make*, a lambda, so that nobody finds an annotation.

    SQLAlchemy refuses ``Mapped[...]`` on a mixin of a dataclass model, and SQLModel makes a field of it.
    """
    return declared_attr(make)


class TimestampMixin:
    """Aware-UTC ``created_at`` and ``updated_at``, the last columns, equal on insert.

    ``updated_at`` advances on every real change: flushed objects, ORM ``update()`` and Core updates of the table alike.
    Both are made in Python and readable after the flush without IO; the server defaults are for inserts from elsewhere.
    With joined-table inheritance, it is the columns of the table that has the stamps whose change counts.
    On SQLModel they are mapped attributes, not fields: read schemas have them, ``model_dump()`` of the row has not.
    """

    created_at = unannotated(lambda _: created_at_column())
    updated_at = unannotated(lambda _: updated_at_column())


class UUIDv7Mixin:
    """Primary key ``id``, the first column: a time-ordered UUID made in Python on insert, where none is given.

    An INSERT from a SELECT makes one key for all its rows, as every default made in Python: give it the keys.
    """

    id = unannotated(lambda _: uuid7_key())


class VersionMixin:
    """``version``: a counter that begins at 1 and that every change raises, bulk updates and Core updates too.

    It is the ``version_id_col`` of the mapper: a flush over a row that another session has changed raises ``StaleDataError``, and the
    writes of a service take ``expected_version=``. It is also the base of ETags. A model with a ``version_id_col`` of its own keeps that.
    """

    version = unannotated(lambda _: version_column())


def count_versions(mapper: Mapper[Any], _: type[object]) -> None:
    """Make ``version`` the mapper's counter. ``__mapper_args__`` of the mixin would be hidden by those of a model."""
    if mapper.version_id_col is None and mapper.inherits is None:
        mapper.version_id_col = mapper.local_table.c.version


event.listen(VersionMixin, "instrument_class", count_versions, propagate=True)


def version_column() -> Mapped[int]:
    column = mapped_column(Integer, nullable=False, server_default="1", sort_order=1002)
    column.column.onupdate = ColumnDefault(column.column + 1, for_update=True)
    return column


def created_at_column() -> Mapped[datetime]:
    return mapped_column(UTCDateTime(), insert_default=utc_now, server_default=ServerNow(), nullable=False, sort_order=1000)


def updated_at_column() -> Mapped[datetime]:
    return mapped_column(
        UTCDateTime(),
        insert_default=same_as_created,
        onupdate=utc_now,
        server_default=ServerNow(),
        nullable=False,
        sort_order=1001,
    )


def same_as_created(context: Any) -> datetime:
    parameters = context.get_current_parameters(isolate_multiinsert_groups=False)
    # SQLAlchemy numbers the parameters of a VALUES list: updated_at, updated_at_m1, ...; those given for its first row end with _m0.
    row = context.current_column.key.removeprefix("updated_at")
    created_at = parameters.get(f"created_at{row}", parameters.get(f"created_at{row or '_m0'}"))
    return created_at if isinstance(created_at, datetime) else utc_now()


def uuid7_key() -> Mapped[UUID]:
    return mapped_column(Uuid(), primary_key=True, insert_default=uuid7, sort_order=-1000)
