"""Primary keys: their forms, the SQL that finds a row, and the key of a row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Select, TypeDecorator, bindparam, select, tuple_
from sqlalchemy.orm import Mapper, QueryableAttribute, Session

from fastapi_kit._compat import python_type
from fastapi_kit.crud.attributes import per_mapper
from fastapi_kit.db.checks.column_types import key_is_possible
from fastapi_kit.errors import ConfigurationError

__all__ = ["Identity", "Key", "identity_of", "may_hold"]

Key = tuple[object, ...]


@dataclass(frozen=True, eq=False)
class Identity:
    """The primary key of one model."""

    mapper: Mapper[Any]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the key's attributes, in the order of the key."""
        return tuple(self.mapper.get_property_by_column(column).key for column in self.mapper.primary_key)

    @cached_property
    def columns(self) -> tuple[Column[Any], ...]:
        """The columns of the key, in the order of the key."""
        return tuple(column for column in self.mapper.primary_key if isinstance(column, Column))

    @cached_property
    def attributes(self) -> tuple[QueryableAttribute[Any], ...]:
        """The attributes of the key, in the order of the key."""
        return tuple(getattr(self.mapper.class_, name) for name in self.names)

    @cached_property
    def is_made_by_server(self) -> bool:
        """Whether the database numbers new rows."""
        return len(self.columns) == 1 and self.columns[0] is self.columns[0].table.autoincrement_column

    def key_of(self, ident: object) -> Key:
        """Return *ident*, a scalar, a tuple or a mapping by name, as a tuple.

        Raises:
            ConfigurationError: The key has another shape or type.
        """
        key, names, model = as_tuple(ident, self.names), self.names, self.mapper.class_.__name__
        if key is None:
            shape = names[0] if len(names) == 1 else f"a tuple ({', '.join(names)}), or a mapping by these names"
            raise ConfigurationError(f"the key of {model} is {shape}; the given key has another shape")
        for name, value, kind in zip(names, key, self.types, strict=True):
            # SQLite would compare text with a number, PostgreSQL would raise an error.
            if kind is not None and value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
                raise ConfigurationError(f"{model}.{name} is {kind.__name__}: convert the key, as a typed path parameter does")
        return key

    def key_of_row(self, row: object) -> Key:
        """Return the loaded primary key of *row*."""
        return tuple(getattr(row, name) for name in self.names)

    def held(self, session: Session, key: Key) -> object | None:
        """Return the object with *key* in the identity map of *session*, or None."""
        found: object | None = session.identity_map.get(self.mapper.identity_key_from_primary_key(key))
        return found

    def is_possible(self, key: Key, session: Session) -> bool:
        """Return whether a row can have *key*: whether the columns can hold it in the database of *session*."""
        return all(may_hold(column, value, session, self.mapper) for column, value in zip(self.columns, key, strict=True))

    def has(self, key: Key) -> list[ColumnElement[bool]]:
        """Return the SQL conditions that find the row with *key*."""
        return [attribute == value for attribute, value in zip(self.attributes, key, strict=True)]

    @cached_property
    def select(self) -> Select[Any]:
        """The select of the row whose key is in ``parameters``. It is built once."""
        pairs = zip(self.names, self.attributes, strict=True)
        return select(self.mapper.class_).where(*(attribute == bindparam(f"key_{name}", type_=attribute.type) for name, attribute in pairs))

    @cached_property
    def in_order(self) -> Select[Any]:
        """The select of all rows in the order of the key: a statement that is made once."""
        return select(self.mapper.class_).order_by(*self.attributes)

    def parameters(self, key: Key) -> dict[str, object]:
        """Return *key* as the parameters of ``select``."""
        return {f"key_{name}": value for name, value in zip(self.names, key, strict=True)}

    def among(self, keys: Sequence[Key]) -> ColumnElement[bool]:
        """Return the SQL condition that finds the rows with *keys*."""
        if len(self.attributes) == 1:
            return self.attributes[0].in_([key[0] for key in keys])
        return tuple_(*self.attributes).in_(keys)

    @cached_property
    def types(self) -> tuple[type[Any] | None, ...]:
        """The Python types that the key's columns take. None: any."""
        kinds = (None if isinstance(column.type, TypeDecorator) else python_type(column.type) for column in self.columns)
        return tuple(kind if kind in _KEY_TYPES else None for kind in kinds)


def may_hold(column: Column[Any], value: object, session: Session, mapper: Mapper[Any]) -> bool:
    """Return whether *column* can hold *value* in the database of *session*."""
    return key_is_possible(column, value) or key_is_possible(column, value, dialect=session.get_bind(mapper).dialect.name)


identity_of = per_mapper(Identity)


def as_tuple(ident: object, names: tuple[str, ...]) -> Key | None:
    if isinstance(ident, Mapping):
        by_name = cast("Mapping[object, object]", ident)
        return tuple(by_name[name] for name in names) if set(by_name) == set(names) else None
    if isinstance(ident, list | set | frozenset):
        return None
    key = tuple(cast("Key", ident)) if isinstance(ident, tuple) else (ident,)
    return key if len(key) == len(names) else None


_KEY_TYPES = {int, str, UUID, date, datetime}
