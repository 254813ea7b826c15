"""What a router knows of its rows: names, keys, schemas and the parent."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Column, ColumnElement
from sqlalchemy.orm import Mapper, undefer
from sqlalchemy.orm.interfaces import ORMOption

from fastapi_kit.crud.attributes import attributes_of, mapper_of
from fastapi_kit.crud.identity import identity_of
from fastapi_kit.errors import ConfigurationError, FieldError, UserInputError
from fastapi_kit.routing.keys import is_same_key, key_in_path, may_be_key

__all__ = ["Parent", "Resource", "name_of", "snake_case"]


def name_of(mapper: Mapper[Any], attribute: object) -> str | None:
    """Return the name of a column's *attribute*, or None if it is not one of the model."""
    # The attribute of a subclass is another object than that of its base.
    classes = mapper.class_.__mro__
    return next((name for name in attributes_of(mapper).columns if any(vars(each).get(name) is attribute for each in classes)), None)


def snake_case(model: type[object]) -> str:
    """Return the name of *model* in snake case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", model.__name__).lower()


@dataclass(frozen=True)
class Parent:
    """The column *name* of a model, whose value is in the path."""

    mapper: Mapper[Any]
    name: str

    @classmethod
    def of(cls, mapper: Mapper[Any], attribute: object) -> "Parent":
        """Return the parent for *attribute*. Raises ConfigurationError if it is not a column of the model, or its whole key."""
        name = name_of(mapper, attribute)
        if name is None:
            raise ConfigurationError(f"parent= is not a column of {mapper.class_.__name__}")
        if identity_of(mapper).names == (name,):
            raise ConfigurationError(f"parent= is the whole key of {mapper.class_.__name__}: a parent would have one such row at most")
        return cls(mapper, name)

    @property
    def column(self) -> Column[Any]:
        """The column of the table."""
        return attributes_of(self.mapper).columns[self.name]

    @property
    def model(self) -> type[Any] | None:
        """The model that the column refers to, or None if it refers to none, or to a table without a model."""
        tables = {key.column.table for key in self.column.foreign_keys}
        return next((mapper.class_ for mapper in self.mapper.registry.mappers if mapper.local_table in tables), None)

    @property
    def options(self) -> list[ORMOption]:
        """What a query needs to load the column."""
        return [undefer(getattr(self.mapper.class_, self.name))] if self.mapper.column_attrs[self.name].deferred else []

    def owns(self, value: object) -> ColumnElement[bool]:
        """Return the SQL condition for the rows of the parent *value*."""
        condition: ColumnElement[bool] = getattr(self.mapper.class_, self.name) == value
        return condition

    def is_parent(self, value: object, row: object) -> bool:
        """Return whether *row* belongs to the parent *value*."""
        return is_same_key(getattr(row, self.name), value)

    def check(self, value: object, data: BaseModel, *place: int) -> None:
        """Raise UserInputError if *data*, at *place* in the body, names another parent than *value*."""
        if self.name in data.model_fields_set and not self.is_parent(value, data):
            raise self.mismatch(*place)

    def mismatch(self, *place: int) -> UserInputError:
        """Return the error for a body that names another parent."""
        error = FieldError(("body", *place, self.name), "not_as_in_path", "differs from the path")
        return UserInputError("The body does not belong to the path.", errors=[error])


@dataclass(frozen=True)
class Resource:
    """What the endpoints of one router share."""

    service_class: type[object]
    read: type[BaseModel]
    item: type[BaseModel]
    parent_column: object
    max_batch: int
    max_total: int | None
    requires_if_match: bool

    @cached_property
    def mapper(self) -> Mapper[Any]:
        """The mapper of the model."""
        return mapper_of(self.declared("model"))

    @cached_property
    def is_versioned(self) -> bool:
        """Whether the model counts versions, so that its rows have ETags."""
        return self.mapper.version_id_col is not None

    @property
    def precondition_errors(self) -> Sequence[int]:
        """The statuses of preconditions of a write."""
        return ((412, 428) if self.requires_if_match else (412,)) if self.is_versioned else ()

    @cached_property
    def parent(self) -> Parent | None:
        """The parent, if the router has one."""
        return None if self.parent_column is None else Parent.of(self.mapper, self.parent_column)

    def declared(self, name: str) -> type[Any]:
        """Return the attribute *name* of the service's class. Raises ConfigurationError if it has none."""
        value: type[Any] | None = getattr(self.service_class, name, None)
        if value is None:
            raise ConfigurationError(f"{self.service_class.__name__} has no {name}")
        return value

    @cached_property
    def key_columns(self) -> Mapping[str, Column[Any]]:
        """The columns of the primary key by attribute."""
        identity = identity_of(self.mapper)
        return dict(zip(identity.names, identity.columns, strict=True))

    @cached_property
    def key(self) -> Any:
        """The type of the primary key in the path. Raises ConfigurationError if it cannot be part of one."""
        return key_in_path(self.key_columns, of=self.singular)

    @cached_property
    def segments(self) -> Sequence[str]:
        """The attributes that are segments of a row's path. A parent that is part of the key is in the prefix."""
        return [name for name in self.key_columns if self.parent is None or name != self.parent.name]

    @property
    def path(self) -> str:
        """The path of one row in the collection."""
        return "".join(f"/{{{name}}}" for name in self.segments)

    def may_be_key(self, segment: str) -> bool:
        """Return whether *segment* alone could be the key of a row."""
        return len(self.segments) == 1 and may_be_key(self.key_columns[self.segments[0]], segment)

    @property
    def name(self) -> str:
        """The name of the model in snake case."""
        return snake_case(self.mapper.class_)

    @property
    def table(self) -> str:
        """The name of the table."""
        return getattr(self.mapper.local_table, "name", None) or self.name

    @property
    def singular(self) -> str:
        """One row, in words."""
        return self.name.replace("_", " ")

    @property
    def plural(self) -> str:
        """The rows, in words."""
        return self.table.replace("_", " ")
