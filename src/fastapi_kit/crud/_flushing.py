"""Whether a write needs a flush of objects, or one statement does the same."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Date,
    DateTime,
    Float,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    String,
    Time,
    Uuid,
)
from sqlalchemy import Enum as EnumType
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapper, RelationshipDirection, RelationshipProperty, Session
from sqlalchemy.types import TypeEngine

from fastapi_kit.crud._conversions import is_sql
from fastapi_kit.crud.attributes import Values, attributes_of, per_mapper
from fastapi_kit.db.sessions import executes_plainly
from fastapi_kit.db.types import UTCDateTime

__all__ = ["Flushing", "flushing_of"]


@dataclass(frozen=True, eq=False)
class Flushing:
    """Which writes of one model need a flush.

    A flush is needed for what a statement ignores: relationships among the values, cascades, several tables, validators, constructors and
    listeners. It is also needed if the session restricts reads by a listener or an ``execute`` of its own: the row is read through it.
    """

    mapper: Mapper[Any]

    def is_needed_to_insert(self, session: Session, rows: Iterable[Values]) -> bool:
        """Return whether new *rows* must be built as objects and flushed."""
        mapper, listens = self.mapper, session.dispatch
        listeners = (
            *(mapper.dispatch.before_insert, mapper.dispatch.after_insert),
            *tuple(mapper.class_manager.dispatch.init)[1:],  # The first is SQLAlchemy's.
            *(listens.before_attach, listens.after_attach, listens.transient_to_pending, listens.pending_to_persistent),
        )
        columns = attributes_of(mapper).columns
        return (
            not self.can_be_inserted
            or any(listeners)
            # SQLAlchemy does not pass the statement of an ORM insert to get_bind().
            or type(session).get_bind is not Session.get_bind
            or self.is_watched(session, columns)
            or any(name not in columns or is_sql(value) for row in rows for name, value in row.items())
        )

    def is_needed_to_update(self, session: Session, values: Values) -> bool:
        """Return whether the row must be loaded, changed and flushed to store *values*."""
        mapper = self.mapper
        return (
            not self.is_one_table
            or bool(mapper.dispatch.before_update or mapper.dispatch.after_update)
            or not values.keys() <= self.comparable
            or any(name in mapper.validators for name in values)
            or self.is_watched(session, values)
        )

    def is_needed_to_delete(self, session: Session) -> bool:
        """Return whether the row must be loaded and deleted by a flush."""
        mapper, listens = self.mapper, session.dispatch
        listeners = (
            *(mapper.dispatch.before_delete, mapper.dispatch.after_delete),
            *(listens.persistent_to_deleted, listens.deleted_to_detached),
        )
        return not self.is_one_table or self.cascades or any(listeners) or self.is_watched(session, ())

    @property
    def version_name(self) -> str | None:
        """The attribute with the version (``version_id_col``), or None."""
        column = self.mapper.version_id_col
        return None if column is None else self.mapper.get_property_by_column(column).key

    def is_watched(self, session: Session, names: Iterable[str]) -> bool:
        listens = session.dispatch
        found = (
            *(listens.before_flush, listens.after_flush, listens.after_flush_postexec, listens.do_orm_execute),
            *(self.mapper.column_attrs[name].class_attribute.dispatch.set for name in names),
        )
        return any(found) or not executes_plainly(session)

    @cached_property
    def is_one_table(self) -> bool:
        mapper = self.mapper
        returns = all(getattr(table, "implicit_returning", False) for table in mapper.tables)
        single = len(mapper.tables) == 1 and mapper.polymorphic_on is None and not mapper.inherits
        return single and returns and self.counts_versions_from_one

    @property
    def counts_versions_from_one(self) -> bool:
        following = self.mapper.version_id_generator
        return self.mapper.version_id_col is None or (callable(following) and (following(None), following(1)) == (1, 2))

    @cached_property
    def can_be_inserted(self) -> bool:
        mapper = self.mapper
        return (
            self.is_one_table
            and not self.has_expressions
            and mapper.class_manager.original_init is mapper.registry.constructor
            and not mapper.validators
            and hybrids_make_sql(mapper)
        )

    @cached_property
    def comparable(self) -> frozenset[str]:
        if any(not relation.passive_updates for relation in self.mapper.relationships) or self.has_expressions:
            return frozenset()
        attributes = attributes_of(self.mapper)
        return frozenset(name for name in attributes.writable if can_be_compared(attributes.columns[name].type))

    @property
    def has_expressions(self) -> bool:
        return any(not attribute.deferred and not isinstance(attribute.columns[0], Column) for attribute in self.mapper.column_attrs)

    @cached_property
    def cascades(self) -> bool:
        return any(needs_flush_to_delete(relation) for relation in self.mapper.relationships)


flushing_of = per_mapper(Flushing)

_COMPARABLE = (Boolean, Date, DateTime, EnumType, Integer, Interval, JSONB, LargeBinary, Numeric, String, Time, UTCDateTime, Uuid)


def can_be_compared(type_: TypeEngine[Any]) -> bool:
    """Return whether the database compares values of the type as Python does."""
    # Float is a subclass of Numeric in SQLAlchemy 2.0.
    if isinstance(type_, Float) or (isinstance(type_, JSON) and not isinstance(type_, JSONB)):
        return False
    variants: Mapping[str, TypeEngine[Any]] = getattr(type_, "_variant_mapping", {})
    base: Any = UTCDateTime if isinstance(type_, UTCDateTime) else TypeEngine
    own: Any = type(type_)
    same = own.compare_values is base.compare_values
    return isinstance(type_, _COMPARABLE) and same and all(map(can_be_compared, variants.values()))


def hybrids_make_sql(mapper: Mapper[Any]) -> bool:
    # An ORM insert evaluates each hybrid in SQL, which raises for those that are plain Python.
    try:
        for name in list(mapper.all_orm_descriptors.keys()):
            getattr(mapper.class_, name)
    except Exception:
        return False
    return True


def needs_flush_to_delete(relation: RelationshipProperty[Any]) -> bool:
    if relation.viewonly:
        return False
    if relation.direction is RelationshipDirection.MANYTOONE:
        return relation.cascade.delete
    # Without passive_deletes SQLAlchemy sets references to null or deletes the referring rows one by one.
    return relation.direction is RelationshipDirection.MANYTOMANY or not relation.passive_deletes
