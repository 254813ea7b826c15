"""What a mapper says of its model: key, attributes, and whether rows may be written without the unit of work."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast
from weakref import WeakKeyDictionary

from sqlalchemy import Column, ColumnElement, inspect
from sqlalchemy.orm import Mapper, QueryableAttribute, RelationshipDirection, RelationshipProperty, Session

from fastapi_kit.db.checks import key_is_possible
from fastapi_kit.errors import ConfigurationError

__all__ = ["Key", "ModelFacts", "facts_of"]

Key = tuple[object, ...]

_facts: WeakKeyDictionary[Mapper[Any], "ModelFacts"] = WeakKeyDictionary()


def facts_of(model: type[object]) -> "ModelFacts":
    """Return the facts of *model*. Raises ConfigurationError if it is not mapped."""
    mapper: Mapper[Any] | None = inspect(model, raiseerr=False)
    if mapper is None:
        raise ConfigurationError(f"{model!r} is not a mapped class")
    facts = _facts.get(mapper)
    if facts is None:
        facts = _facts[mapper] = ModelFacts(mapper)
    return facts


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """The facts of one model, worked out once."""

    mapper: Mapper[Any]

    @cached_property
    def name(self) -> str:
        """The model's name."""
        return self.mapper.class_.__name__

    @cached_property
    def columns(self) -> Mapping[str, Column[Any]]:
        """The table columns by attribute name, without expressions."""
        pairs = ((attribute.key, attribute.columns[0]) for attribute in self.mapper.column_attrs)
        return {key: column for key, column in pairs if isinstance(column, Column)}

    @cached_property
    def settable(self) -> frozenset[str]:
        """Every attribute that a value can be set on: columns, relationships, synonyms, hybrids, proxies."""
        return frozenset(self.mapper.all_orm_descriptors.keys()) | frozenset(self.mapper.attrs.keys())

    @cached_property
    def key_names(self) -> tuple[str, ...]:
        """The primary key's attribute names, in its order."""
        return tuple(self.mapper.get_property_by_column(column).key for column in self.mapper.primary_key)

    @cached_property
    def key_columns(self) -> tuple[Column[Any], ...]:
        """The primary key's columns, in its order."""
        return tuple(column for column in self.mapper.primary_key if isinstance(column, Column))

    @cached_property
    def key_attributes(self) -> tuple[QueryableAttribute[Any], ...]:
        """The primary key's attributes, in its order."""
        return tuple(getattr(self.mapper.class_, name) for name in self.key_names)

    @cached_property
    def version_name(self) -> str | None:
        """The attribute that counts versions (``version_id_col``), if there is one."""
        column = self.mapper.version_id_col
        return None if column is None else self.mapper.get_property_by_column(column).key

    @cached_property
    def timestamp_names(self) -> frozenset[str]:
        """Columns that the mapping itself writes on every update, and ``created_at`` beside such an ``updated_at``."""
        stamped = {name for name, column in self.columns.items() if column.onupdate is not None or column.server_onupdate is not None}
        return frozenset(stamped | ({"created_at"} & self.columns.keys() if "updated_at" in stamped else set[str]()))

    @cached_property
    def defaulted(self) -> frozenset[str]:
        """Columns that get a value when none, or None, is given on insert."""
        return frozenset(name for name, column in self.columns.items() if _has_default(column))

    @cached_property
    def key_is_made_by_server(self) -> bool:
        """Whether the database numbers new rows."""
        key = self.key_columns
        return len(key) == 1 and key[0] is key[0].table.autoincrement_column

    @cached_property
    def has_joined_collections(self) -> bool:
        """Whether a plain select joins a collection eagerly, and so repeats rows."""
        return any(relation.lazy == "joined" for relation in self.mapper.relationships)

    def key_of(self, ident: object) -> Key:
        """Return *ident* as a tuple: a scalar, a tuple or a mapping by name. Raises ConfigurationError for a wrong shape."""
        names = self.key_names
        if isinstance(ident, Mapping):
            by_name = cast("Mapping[str, object]", ident)
            if set(by_name) == set(names):
                return tuple(by_name[name] for name in names)
        else:
            key = tuple(cast("Key", ident)) if isinstance(ident, tuple) else (ident,)
            if len(key) == len(names):
                return key
        shape = names[0] if len(names) == 1 else f"a tuple ({', '.join(names)}), or a mapping by these names"
        raise ConfigurationError(f"the key of {self.name} is {shape}; what was given does not fit")

    def key_of_row(self, row: object) -> Key:
        """Return the loaded primary key of *row*."""
        return tuple(getattr(row, name) for name in self.key_names)

    def key_is_possible(self, key: Key, *, dialect: str) -> bool:
        """Return whether any row can have *key*: it fits the columns, as *dialect* has them."""
        return all(key_is_possible(column, value, dialect=dialect) for column, value in zip(self.key_columns, key, strict=True))

    def key_conditions(self, key: Key) -> list[ColumnElement[bool]]:
        """Return the SQL that finds the row with *key*."""
        return [attribute == value for attribute, value in zip(self.key_attributes, key, strict=True)]

    def references_through(self, names: Set[str]) -> frozenset[str]:
        """Return the many-to-one relationships whose foreign keys are among the columns *names*."""
        columns = {column for name, column in self.columns.items() if name in names}
        relations = (relation for relation in self.mapper.relationships if relation.direction is RelationshipDirection.MANYTOONE)
        return frozenset(relation.key for relation in relations if not columns.isdisjoint(relation.local_columns))

    def known(self, names: Mapping[str, object]) -> None:
        """Raise ConfigurationError if one of *names* is no column attribute."""
        unknown = sorted(names.keys() - self.columns.keys())
        if unknown:
            raise ConfigurationError(f"{self.name} has no column {', '.join(unknown)}")

    def inserts_plainly(self, session: Session) -> bool:
        """Whether INSERTs alone do what the unit of work would: no constructor, validator or listener of the host's, one table."""
        mapper = self.mapper
        return (
            mapper.class_manager.original_init is mapper.registry.constructor
            and not mapper.validators
            and self._is_one_table
            and not any((mapper.dispatch.before_insert, mapper.dispatch.after_insert, session.dispatch.before_flush))
        )

    def deletes_plainly(self, session: Session) -> bool:
        """Whether one DELETE alone does what the unit of work would: no cascade, secondary, version or listener, one table."""
        mapper = self.mapper
        return (
            self._is_one_table
            and mapper.version_id_col is None
            and not any(_needs_unit_of_work(relation) for relation in mapper.relationships)
            and not any((mapper.dispatch.before_delete, mapper.dispatch.after_delete, session.dispatch.before_flush))
        )

    @cached_property
    def _is_one_table(self) -> bool:
        return len(self.mapper.tables) == 1 and self.mapper.polymorphic_on is None and not self.mapper.inherits


def _has_default(column: Column[Any]) -> bool:
    return column.default is not None or column.server_default is not None or column.autoincrement is True or bool(column.primary_key)


def _needs_unit_of_work(relation: RelationshipProperty[Any]) -> bool:
    if relation.viewonly:
        return False
    if relation.direction is RelationshipDirection.MANYTOONE:
        return relation.cascade.delete
    # Rows that point here are set to null or deleted one by one, unless the database was told to do it.
    return relation.direction is RelationshipDirection.MANYTOMANY or not relation.passive_deletes
