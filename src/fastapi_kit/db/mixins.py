"""Mixins that add columns to a model. They work with any declarative base, also with dataclasses and SQLModel."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnDefault, Integer, Uuid, event
from sqlalchemy.orm import Mapped, Mapper, declared_attr, mapped_column

from fastapi_kit.db.types import ServerNow, UTCDateTime, utc_now, uuid7

__all__ = ["TimestampMixin", "UUIDv7Mixin", "VersionMixin", "unannotated"]

_T = TypeVar("_T")


def unannotated(make: Callable[[object], Mapped[_T]]) -> declared_attr[_T]:
    """Return an attribute that *make*, a lambda, creates for each model, without an annotation.

    SQLAlchemy rejects ``Mapped[...]`` in a mixin of a dataclass model, and SQLModel turns it into a field.
    """
    return declared_attr(make)


class TimestampMixin:
    """Adds ``created_at`` and ``updated_at``, aware datetimes in UTC, as the last columns. They are equal in a new row.

    ``updated_at`` changes with every UPDATE: of flushed objects, of the ORM's ``update()`` and of Core updates of the table. Both values
    are made in Python, so they can be read after the flush without SQL. The server defaults serve inserts from other programs. With
    joined-table inheritance only changes of the table that has the two columns count. On SQLModel the two are mapped attributes, not
    fields: read schemas can name them, but ``model_dump()`` of the row leaves them out.

    Example:
        ```python
        from sqlalchemy.orm import Mapped, mapped_column

        from fastapi_kit import Base, TimestampMixin


        class Note(TimestampMixin, Base):
            __tablename__ = "notes"
            id: Mapped[int] = mapped_column(primary_key=True)
            title: Mapped[str]


        assert list(Note.__table__.columns.keys()) == ["id", "title", "created_at", "updated_at"]
        ```
    """

    created_at = unannotated(
        lambda _: mapped_column(UTCDateTime(), insert_default=utc_now, server_default=ServerNow(), nullable=False, sort_order=1000)
    )
    updated_at = unannotated(
        lambda _: mapped_column(
            UTCDateTime(),
            insert_default=same_as_created,
            onupdate=utc_now,
            server_default=ServerNow(),
            nullable=False,
            sort_order=1001,
        )
    )


class UUIDv7Mixin:
    """Adds the primary key ``id`` as the first column: a time-ordered UUID, made in Python when a row is inserted without one.

    An ``INSERT ... SELECT`` evaluates the default once for all its rows, as it does with every Python default: select the keys there.
    """

    id = unannotated(lambda _: mapped_column(Uuid(), primary_key=True, insert_default=uuid7, sort_order=-1000))


class VersionMixin:
    """Adds ``version``, the last column: a counter that begins at 1 and that every UPDATE raises, of the ORM and of Core.

    It is the ``version_id_col`` of the mapper. A flush over a row that another session has changed raises ``StaleDataError``, and the
    writes of a service take ``expected_version=``. ETags contain it. A model with a ``version_id_col`` of its own keeps that.
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


def same_as_created(context: Any) -> datetime:
    parameters = context.get_current_parameters(isolate_multiinsert_groups=False)
    # SQLAlchemy numbers the parameters of a VALUES list: updated_at, updated_at_m1, ... Those given for its first row end with _m0.
    row = context.current_column.key.removeprefix("updated_at")
    created_at = parameters.get(f"created_at{row}", parameters.get(f"created_at{row or '_m0'}"))
    return created_at if isinstance(created_at, datetime) else utc_now()
