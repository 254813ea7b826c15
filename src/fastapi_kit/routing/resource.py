"""What a router knows of its rows: names, keys, schemas and the parent."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

from pydantic import BaseModel, Field
from sqlalchemy import Column, ColumnElement, Index, PrimaryKeyConstraint, UniqueConstraint, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper, undefer
from sqlalchemy.orm.interfaces import ORMOption

from fastapi_kit.crud.attributes import attributes_of, mapper_of
from fastapi_kit.crud.identity import identity_of
from fastapi_kit.crud.sparse import SparseModel, SparseSpec, with_choice
from fastapi_kit.db.reads import read
from fastapi_kit.db.sessions import execute
from fastapi_kit.db.transactions import SessionFactory
from fastapi_kit.errors import ConfigurationError, FieldError, NotFoundError, UserInputError
from fastapi_kit.pagination import KeysetPage, Page, PageParams, Slice
from fastapi_kit.routing.keys import column_in_path, is_same_key, key_in_path, may_be_key

if TYPE_CHECKING:
    from fastapi_kit.crud.filters.specs import KeysetSpec, QuerySpec

__all__ = ["Parent", "Resource", "Window", "differs_from_path", "name_of", "snake_case"]


class Window(PageParams):
    """The page of a list."""

    skip: Annotated[int, Field(ge=0, le=2**31 - 1, description="How many to leave out at the beginning")] = 0
    limit: Annotated[int, Field(ge=1, le=1000, description="How many to return at most")] = 100


@dataclass(frozen=True)
class Parent:
    """The column *name* of a model, whose value is in the path, or is found by *key*, the attribute of the parent that is.

    *chosen* is the class that the application has named with the key.
    """

    mapper: Mapper[Any]
    name: str
    key: str | None = None
    chosen: type[Any] | None = None

    @classmethod
    def of(cls, mapper: Mapper[Any], attribute: object, key: object = None) -> "Parent":
        """Return the parent for *attribute*, found by *key*.

        Raises:
            ConfigurationError: *attribute* is not a column of the model, or its whole key. *key* is not a unique column of the parent.
        """
        name = name_of(mapper, attribute)
        if name is None:
            raise ConfigurationError(f"parent= is not a column of {mapper.class_.__name__}")
        if identity_of(mapper).names == (name,):
            raise ConfigurationError(f"parent= is the whole key of {mapper.class_.__name__}: a parent would have one such row at most")
        parent = cls(mapper, name, chosen=getattr(key, "class_", None))
        if key is None:
            return parent
        if parent.model is None:
            raise ConfigurationError(f"parent_key= needs a foreign key to a model in {mapper.class_.__name__}.{name}")
        return replace(parent, key=unique_attribute(mapper_of(parent.model), key, option="parent_key"))

    @property
    def parameter(self) -> str:
        """The parameter of the path."""
        return self.key or self.name

    def in_path(self, *, of: str) -> Any:
        """Return the type of the parameter of the path. *of* names the rows."""
        if self.key is None or self.model is None:
            return column_in_path(self.column, self.name, of=of)
        return column_in_path(attributes_of(mapper_of(self.model)).columns[self.key], self.key, of=words_of(self.model))

    async def find(self, session: AsyncSession, value: object) -> object:
        """Return the value of the column for the parent with *value* in the path. Raises NotFoundError if there is none."""
        if self.key is None or self.model is None:
            return value
        parent = mapper_of(self.model)
        target = next(key.column for key in self.column.foreign_keys if key.column.table in parent.tables)
        rows = select(parent.get_property_by_column(target).class_attribute).where(getattr(self.model, self.key) == value)
        found: object = await read(session, lambda session: execute(session, rows).scalar_one_or_none(), mapper=parent)
        if found is None:
            raise NotFoundError(self.model, value)
        return found

    @property
    def column(self) -> Column[Any]:
        """The column of the table."""
        return attributes_of(self.mapper).columns[self.name]

    @cached_property
    def model(self) -> type[Any] | None:
        """The model that the column refers to, or None if it refers to none, or to a table without a model."""
        tables = {key.column.table for key in self.column.foreign_keys}
        found = [each for each in self.mapper.registry.mappers if each.local_table in tables]
        related = {each.mapper for each in self.mapper.relationships if each.local_columns == {self.column}}
        # Several classes may have one table.
        found.sort(key=lambda each: (each.class_ is not self.chosen, each.single, each not in related, each.class_.__qualname__))
        return found[0].class_ if found else None

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
            raise differs_from_path(self.name, *place)


@dataclass(frozen=True)
class Resource:
    """What the endpoints of one router share."""

    service_class: type[object]
    read: type[BaseModel]
    item: type[BaseModel]
    replacement: type[BaseModel] | None
    key_attribute: object
    parent_column: object
    parent_key: object
    query: type["QuerySpec[Any] | KeysetSpec[Any]"] | None
    begin: SessionFactory | None
    max_batch: int
    max_total: int | None
    estimate_total: bool
    requires_if_match: bool

    @cached_property
    def mapper(self) -> Mapper[Any]:
        """The mapper of the model."""
        return mapper_of(self.declared("model"))

    @cached_property
    def is_versioned(self) -> bool:
        """Whether the model counts versions, so that its rows have ETags."""
        return self.mapper.version_id_col is not None

    @cached_property
    def list_query(self) -> type[BaseModel]:
        """The parameters of the list."""
        if self.query is not None:
            return with_choice(self.query, self.item)
        most, is_estimated = self.max_total, self.estimate_total

        class CountedWindow(Window):
            max_total: ClassVar = most
            estimate_total: ClassVar = is_estimated

        return with_choice(CountedWindow, self.item)

    @property
    def choice(self) -> type[BaseModel] | None:
        """The parameters of a single row, if a client may ask for some of its fields."""
        return cast("type[BaseModel]", SparseSpec.__class_getitem__(self.read)) if issubclass(self.read, SparseModel) else None

    @cached_property
    def page(self) -> Any:
        """The class of the pages of the list."""
        if not issubclass(self.list_query, PageParams):
            return KeysetPage
        return Slice if self.list_query.max_total == 0 else Page

    def list_method(self, service: Any) -> Callable[..., Awaitable[Slice[Any] | KeysetPage[Any]]]:
        """Return the method of *service* that reads a page."""
        methods = {KeysetPage: service.keyset_page_as, Slice: service.slice_as, Page: service.page_as}
        method: Callable[..., Awaitable[Slice[Any] | KeysetPage[Any]]] = methods[self.page]
        return method

    @property
    def page_words(self) -> str:
        """What a page tells, in words."""
        words = {KeysetPage: "the cursors of the pages beside it", Slice: "whether there are more", Page: "how many there are in all"}
        return words[self.page]

    @property
    def order_words(self) -> str:
        """In which order a list is, in words."""
        return ", in the order of their keys" if self.query is None or "sort" not in self.query.model_fields else ""

    @property
    def precondition_errors(self) -> Sequence[int]:
        """The statuses of preconditions of a write."""
        return ((412, 428) if self.requires_if_match else (412,)) if self.is_versioned else ()

    @cached_property
    def parent(self) -> Parent | None:
        """The parent, if the router has one."""
        if self.parent_column is None:
            if self.parent_key is not None:
                raise ConfigurationError("parent_key= needs parent=")
            return None
        parent = Parent.of(self.mapper, self.parent_column, self.parent_key)
        if parent.parameter in (name for name in self.key_columns if name != parent.name):
            raise ConfigurationError(f"{parent.parameter} would be two parameters of one path: that of the parent and that of the row")
        if parent.key is not None and parent.name in self.key_columns:
            raise ConfigurationError(f"parent_key= needs key=, because {parent.name} is part of the key and not in the path")
        return parent

    def declared(self, name: str) -> type[Any]:
        """Return the attribute *name* of the service's class. Raises ConfigurationError if it has none."""
        value: type[Any] | None = getattr(self.service_class, name, None)
        if value is None:
            raise ConfigurationError(f"{self.service_class.__name__} has no {name}")
        return value

    @cached_property
    def key_name(self) -> str | None:
        """The attribute in the path of a row if it is not the primary key. Raises ConfigurationError if it does not find one row."""
        if self.key_attribute is None:
            return None
        among = [name for name in (name_of(self.mapper, self.parent_column),) if name is not None]
        name = unique_attribute(self.mapper, self.key_attribute, option="key", among=among)
        if attributes_of(self.mapper).columns[name].nullable:
            raise ConfigurationError(f"{self.mapper.class_.__name__}.{name} may be null: a row without it would have no path")
        return None if identity_of(self.mapper).names == (name,) else name

    @cached_property
    def key_columns(self) -> Mapping[str, Column[Any]]:
        """The columns in the path of a row by attribute."""
        if self.key_name is not None:
            return {self.key_name: attributes_of(self.mapper).columns[self.key_name]}
        identity = identity_of(self.mapper)
        return dict(zip(identity.names, identity.columns, strict=True))

    @cached_property
    def key(self) -> Any:
        """The type of the key in the path. Raises ConfigurationError if it cannot be part of one."""
        return key_in_path(self.key_columns, of=self.singular)

    @cached_property
    def segments(self) -> Sequence[str]:
        """The attributes that are segments of a row's path. A parent that is part of the key is in the prefix."""
        return [name for name in self.key_columns if self.parent is None or name != self.parent.name]

    @property
    def path(self) -> str:
        """The path of one row in the collection."""
        return "".join(f"/{{{name}}}" for name in self.segments)

    def found_by(self, key: object) -> object:
        """Return what finds the row with *key* in its path: the primary key, or a condition."""
        return key if self.key_name is None else getattr(self.mapper.class_, self.key_name) == key

    def whole(self, data: BaseModel, key: object) -> BaseModel:
        """Return *data* with all fields set, for a change of the whole row, without those that the path with *key* decides.

        Raises UserInputError if one of these differs from the path.
        """
        given: tuple[object, ...] = cast("tuple[object, ...]", key) if isinstance(key, tuple) else (key,)
        path = {} if self.key_name else dict(zip(self.key_columns, given, strict=True))
        for name, value in path.items():
            if name in data.model_fields_set and not is_same_key(getattr(data, name), value):
                raise differs_from_path(name)
        whole = data.model_copy()
        whole.model_fields_set.update(type(data).model_fields)
        whole.model_fields_set.difference_update([*path, *([self.parent.name] if self.parent else ())])
        return whole

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


def snake_case(model: type[object]) -> str:
    """Return the name of *model* in snake case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", model.__name__).lower()


def words_of(model: type[object]) -> str:
    return snake_case(model).replace("_", " ")


def name_of(mapper: Mapper[Any], attribute: object) -> str | None:
    """Return the name of *attribute* if it is a column of the model."""
    # The attribute of a subclass is another object than that of its base.
    members = [vars(each) for each in mapper.class_.__mro__]
    return next((name for name in attributes_of(mapper).columns for each in members if name in each and each[name] is attribute), None)


def unique_attribute(mapper: Mapper[Any], attribute: object, *, option: str, among: Sequence[str] = ()) -> str:
    """Return the name of *attribute*, a column of the model that is unique, at least *among* rows with equal values of these.

    Raises:
        ConfigurationError: It is not. A unique index with a condition does not count.
    """
    name, columns = name_of(mapper, attribute), attributes_of(mapper).columns
    if name is None:
        raise ConfigurationError(f"{option}= is not a column of {mapper.class_.__name__}")
    table, wanted = columns[name].table, {columns[each] for each in (name, *among)}
    constraints = [each for each in table.constraints if isinstance(each, UniqueConstraint | PrimaryKeyConstraint)]
    indexes = [each for each in table.indexes if each.unique and not any(has_condition(each, dialect) for dialect in _WITH_CONDITIONS)]
    if not any(len(each.columns) > 0 and set(each.columns) <= wanted for each in (*constraints, *indexes)):
        raise ConfigurationError(f"{mapper.class_.__name__}.{name} is not unique: {option}= needs a column that finds one row")
    return name


_WITH_CONDITIONS = ("postgresql", "sqlite")


def has_condition(index: Index, dialect: str) -> bool:
    return index.dialect_options[dialect].get("where") is not None or any(not isinstance(each, Column) for each in index.expressions)


def differs_from_path(name: str, *place: int) -> UserInputError:
    """Return the error for a body that has another value of *name* than the path."""
    error = FieldError(("body", *place, name), "not_as_in_path", "differs from the path")
    return UserInputError("The body does not belong to the path.", errors=[error])
