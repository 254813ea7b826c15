"""A declarative base class, and the naming convention of its constraints."""

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, MetaData, Table
from sqlalchemy.engine.default import StrCompileDialect
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase

from fastapi_kit.db.types import UTCDateTime

__all__ = ["NAMING_CONVENTION", "Base"]


def check_name(constraint: CheckConstraint, table: Table) -> str:
    """Return the given name of a CHECK; else the column that an Enum or Boolean checks, or the columns and a digest of the condition."""
    columns = [column.name for column in constraint.columns]
    if getattr(constraint, "_type_bound", False):
        return "_".join(columns)
    if isinstance(constraint.name, str):
        return constraint.name
    condition = constraint.sqltext.compile(dialect=StrCompileDialect())
    digest = sha256(f"{condition} {condition.params}".encode()).hexdigest()
    return "_".join([*columns, digest[:8]])


NAMING_CONVENTION: Mapping[str, Any] = {
    "pk": "pk_%(table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    # SQLAlchemy's own token raises for a CHECK without a name.
    "constraint_name": check_name,
}
"""A naming convention with which Alembic can drop every constraint. Pass it to the ``MetaData`` of your own base class.

Every constraint gets a name, the same in each process. The name of an unnamed CHECK has its columns and a digest of its condition.
"""


class Base(AsyncAttrs, DeclarativeBase):
    """Declarative base class of your models.

    Constraints are named by ``NAMING_CONVENTION``, ``Mapped[datetime]`` is a column of aware datetimes in UTC (``UTCDateTime``), and
    ``await row.awaitable_attrs.name`` loads an attribute later. All other parts of the library work with any declarative base.

    Example:
        ```python
        from datetime import datetime

        from sqlalchemy.orm import Mapped, mapped_column

        from fastapi_kit import Base


        class Event(Base):
            __tablename__ = "events"
            id: Mapped[int] = mapped_column(primary_key=True)
            name: Mapped[str] = mapped_column(unique=True)
            starts_at: Mapped[datetime]


        assert "uq_events_name" in {constraint.name for constraint in Event.__table__.constraints}
        ```
    """

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: UTCDateTime()}
