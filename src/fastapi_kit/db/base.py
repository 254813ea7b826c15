"""A declarative base for applications that have none."""

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
    """Name a CHECK by its given name, by the column that an Enum or Boolean checks, or by its columns and a digest of its condition."""
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
"""Constraint names that Alembic can drop again; pass it to ``MetaData`` of a base of your own.

Every constraint gets a name, the same in every process; a CHECK without one is named by its columns and a digest of its condition.
"""


class Base(AsyncAttrs, DeclarativeBase):
    """Declarative base with ``awaitable_attrs`` and named constraints. ``Mapped[datetime]`` is an aware UTC column."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: UTCDateTime()}
