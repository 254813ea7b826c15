"""What a mapper says of its model: its key and its attributes."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Column, ColumnElement, TypeDecorator, inspect, tuple_
from sqlalchemy.ext.associationproxy import AssociationProxy
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapper, QueryableAttribute, RelationshipDirection

from fastapi_kit.db.checks import Check, key_is_possible, value_check
from fastapi_kit.errors import ConfigurationError

__all__ = ["Key", "ModelFacts", "facts_of"]

Key = tuple[object, ...]

_KEY = "fastapi_kit.facts"


def facts_of(model: type[object]) -> "ModelFacts":
    """Return the facts of *model*. Raises ConfigurationError if it is not mapped."""
    mapper: Mapper[Any] | None = inspect(model, raiseerr=False)
    if mapper is None:
        raise ConfigurationError(f"{model!r} is not a mapped class")
    known: dict[str, Any] = cast("Any", mapper.class_manager).info
    if _KEY not in known:
        known[_KEY] = ModelFacts(mapper)
    facts: ModelFacts = known[_KEY]
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
    def writable(self) -> frozenset[str]:
        """The columns that do not compute their own value."""
        return frozenset(name for name, column in self.columns.items() if column.computed is None)

    @cached_property
    def settable(self) -> frozenset[str]:
        """Every attribute that a value can be set on: columns, relationships, composites, synonyms, proxies, and what has a setter."""
        mapper = self.mapper
        relations = {relation.key for relation in mapper.relationships if not relation.viewonly}
        others = {key for key, descriptor in mapper.all_orm_descriptors.items() if isinstance(descriptor, AssociationProxy)}
        members: dict[str, Any] = {name: member for cls in reversed(mapper.class_.__mro__) for name, member in vars(cls).items()}
        setters = {name for name, member in members.items() if _has_setter(member)}
        return frozenset({*self.writable, *relations, *mapper.composites.keys(), *mapper.synonyms.keys(), *others, *setters})

    @cached_property
    def related(self) -> frozenset[str]:
        """The relationships."""
        return frozenset(relation.key for relation in self.mapper.relationships)

    @cached_property
    def computed(self) -> frozenset[str]:
        """Attributes that no value can be set on."""
        return frozenset(set(self.mapper.all_orm_descriptors.keys()) - self.settable)

    @cached_property
    def deferred(self) -> frozenset[str]:
        """Columns that a select of the model leaves out."""
        return frozenset(attribute.key for attribute in self.mapper.column_attrs if attribute.deferred)

    @cached_property
    def loaded_with_rows(self) -> frozenset[str]:
        """Columns and expressions that a select of the model gives, deferred ones left out."""
        return frozenset(attribute.key for attribute in self.mapper.column_attrs if not attribute.deferred)

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
        """Columns for which leaving a value out on insert is not the same as None."""
        return frozenset(name for name, column in self.columns.items() if _has_default(column)) | self.nulls_of_their_own

    @cached_property
    def nulls_of_their_own(self) -> frozenset[str]:
        """Columns whose type stores None itself: JSON null."""
        return frozenset(name for name, column in self.columns.items() if column.type.should_evaluate_none)

    @cached_property
    def key_is_made_by_server(self) -> bool:
        """Whether the database numbers new rows."""
        key = self.key_columns
        return len(key) == 1 and key[0] is key[0].table.autoincrement_column

    @cached_property
    def joined_collections(self) -> tuple[str, ...]:
        """The collections that a plain select joins, so that rows come more than once."""
        return tuple(relation.key for relation in self.mapper.relationships if relation.uselist and relation.lazy == "joined")

    def key_of(self, ident: object) -> Key:
        """Return *ident* as a tuple: a scalar, a tuple or a mapping by name. Raises ConfigurationError for a wrong shape."""
        names = self.key_names
        key = _as_tuple(ident, names)
        if key is None:
            shape = names[0] if len(names) == 1 else f"a tuple ({', '.join(names)}), or a mapping by these names"
            raise ConfigurationError(f"the key of {self.name} is {shape}; what was given does not fit")
        for name, value in zip(names, key, strict=True):
            # SQLite would compare text with a number, PostgreSQL refuse it.
            kind = self._key_types.get(name)
            if kind is not None and value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
                raise ConfigurationError(f"{self.name}.{name} is {kind.__name__}: convert the key, as a typed path parameter does")
        return key

    def key_of_row(self, row: object) -> Key:
        """Return the loaded primary key of *row*."""
        return tuple(getattr(row, name) for name in self.key_names)

    def key_is_possible(self, key: Key, *, dialect: Callable[[], str]) -> bool:
        """Return whether any row can have *key*: it fits the columns, as the *dialect* has them, which is asked only in doubt."""
        return self.is_possible(dict(zip(self.key_names, key, strict=True)), dialect=dialect)

    def is_possible(self, values: Mapping[str, object], *, dialect: Callable[[], str]) -> bool:
        """Return whether any row can have these column *values*, likewise."""
        return all(
            self._fits(name, value) or key_is_possible(self.columns[name], value, dialect=dialect()) for name, value in values.items()
        )

    def _fits(self, name: str, value: object) -> bool:
        check = self._checks[name]
        return check is None or check(value) is None

    @cached_property
    def _checks(self) -> Mapping[str, Check | None]:
        return {name: value_check(column.type) for name, column in self.columns.items()}

    def any_key(self, keys: Sequence[Key]) -> ColumnElement[bool]:
        """Return the SQL that finds the rows with these *keys*."""
        if len(self.key_attributes) == 1:
            return self.key_attributes[0].in_([key[0] for key in keys])
        return tuple_(*self.key_attributes).in_(keys)

    def key_conditions(self, key: Key) -> list[ColumnElement[bool]]:
        """Return the SQL that finds the row with *key*."""
        return [attribute == value for attribute, value in zip(self.key_attributes, key, strict=True)]

    def behind_synonym(self, name: str) -> str:
        """Return the attribute that *name* stands for: mostly itself."""
        return self.mapper.synonyms[name].name if name in self.mapper.synonyms else name

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

    @cached_property
    def _key_types(self) -> Mapping[str, type[Any]]:
        pairs = ((name, _python_type(column)) for name, column in zip(self.key_names, self.key_columns, strict=True))
        return {name: kind for name, kind in pairs if kind in _KEY_TYPES}


def _has_setter(member: Any) -> bool:
    return isinstance(member, property | hybrid_property) and cast("Any", member).fset is not None


def _as_tuple(ident: object, names: tuple[str, ...]) -> Key | None:
    if isinstance(ident, Mapping):
        by_name = cast("Mapping[object, object]", ident)
        return tuple(by_name[name] for name in names) if set(by_name) == set(names) else None
    if isinstance(ident, list | set | frozenset):
        return None
    key = tuple(cast("Key", ident)) if isinstance(ident, tuple) else (ident,)
    return key if len(key) == len(names) else None


_KEY_TYPES = {int, str, UUID, date, datetime}


def _python_type(column: Column[Any]) -> type[Any] | None:
    if isinstance(column.type, TypeDecorator):
        return None
    try:
        return column.type.python_type
    except NotImplementedError:
        return None


def _has_default(column: Column[Any]) -> bool:
    return column.default is not None or column.server_default is not None or column.autoincrement is True or bool(column.primary_key)
