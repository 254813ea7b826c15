"""What the endpoints of a router do with a service: with all its rows, or with those of one parent."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import BaseModel
from sqlalchemy import Column, ColumnElement
from sqlalchemy.orm import Mapper, undefer
from sqlalchemy.orm.interfaces import ORMOption

from fastapi_kit.crud import FOR_UPDATE, CRUDService, ReadService
from fastapi_kit.crud.attributes import attributes_of
from fastapi_kit.crud.identity import Key, identity_of
from fastapi_kit.db import unit_of_work
from fastapi_kit.errors import ConfigurationError, FieldError, InvalidDataError, NotFoundError, UnknownReferenceError, UserInputError
from fastapi_kit.pagination import Page, PageParams
from fastapi_kit.routing._paths import is_same_key

__all__ = ["ChildRows", "Parent", "Rows", "Service"]

Service: TypeAlias = CRUDService[Any, Any, Any]


@dataclass(frozen=True)
class Rows:
    """All rows of *service*.

    A write and its answer are one unit: where the answer cannot be made, nothing is stored.
    """

    service: Service

    async def page(self, schema: type[BaseModel], query: PageParams) -> Page[Any]:
        """Return the page that *query* asks for."""
        return await self.service.page_as(schema, query)

    async def get(self, schema: type[BaseModel], ident: object) -> BaseModel:
        """Return one row as *schema*."""
        return await self.service.get_as(schema, ident)

    async def create(self, schema: type[BaseModel], data: BaseModel) -> tuple[BaseModel, Key]:
        """Insert a row; return it as *schema*, and its key."""
        async with self._unit():
            row = await self._insert(data)
            (answer,) = await self.service.rows_as(schema, [row])
            return answer, identity_of(self.service.mapper).key_of_row(row)

    async def create_many(self, schema: type[BaseModel], rows: Sequence[BaseModel]) -> Sequence[BaseModel]:
        """Insert all rows or none."""
        async with self._unit():
            return await self.service.rows_as(schema, await self._insert_many(rows))

    async def update(self, schema: type[BaseModel], ident: object, data: BaseModel) -> BaseModel:
        """Change a row."""
        async with unit_of_work(self.service.session):
            (answer,) = await self.service.rows_as(schema, [await self._change(ident, data)])
            return answer

    async def delete(self, ident: object) -> None:
        """Delete a row."""
        await self.service.delete(ident)

    def _unit(self) -> AbstractAsyncContextManager[object]:
        return unit_of_work(self.service.session)

    async def _insert(self, data: BaseModel) -> Any:
        return await self.service.create(data)

    async def _insert_many(self, rows: Sequence[BaseModel]) -> Sequence[Any]:
        return await self.service.create_many(rows)

    async def _change(self, ident: object, data: BaseModel) -> Any:
        return await self.service.update(ident, data)


@dataclass(frozen=True)
class Parent:
    """The column *name* of a model, whose value the path gives."""

    mapper: Mapper[Any]
    name: str

    @classmethod
    def of(cls, mapper: Mapper[Any], attribute: object) -> "Parent":
        """Return the parent that *attribute* points at. Raises ConfigurationError if it is no column of the model, or all of its key."""
        # The attribute of a subclass is another object than its base's.
        classes = mapper.class_.__mro__
        name = next((name for name in attributes_of(mapper).columns if any(vars(each).get(name) is attribute for each in classes)), None)
        if name is None:
            raise ConfigurationError(f"parent= is no column of {mapper.class_.__name__}")
        if identity_of(mapper).names == (name,):
            raise ConfigurationError(f"parent= is the whole key of {mapper.class_.__name__}: a parent would have one such row at most")
        return cls(mapper, name)

    @property
    def column(self) -> Column[Any]:
        """The column of the table."""
        return attributes_of(self.mapper).columns[self.name]

    @property
    def options(self) -> list[ORMOption]:
        """What a query needs so that its rows tell their parent."""
        return [undefer(getattr(self.mapper.class_, self.name))] if self.mapper.column_attrs[self.name].deferred else []

    def owns(self, value: object) -> ColumnElement[bool]:
        """Return the SQL that finds the rows of the parent *value*."""
        condition: ColumnElement[bool] = getattr(self.mapper.class_, self.name) == value
        return condition

    def is_parent(self, value: object, row: object) -> bool:
        """Return whether *row* is one of the parent *value*."""
        return is_same_key(getattr(row, self.name), value)

    def refuse_another(self, value: object, data: BaseModel, *place: int) -> None:
        """Raise UserInputError if *data*, which stands at *place* in the body, names another parent than *value*."""
        if self.name in data.model_fields_set and not self.is_parent(value, data):
            raise self.refusal(*place)

    def refusal(self, *place: int) -> UserInputError:
        """Return the error of a body that names another parent."""
        fault = FieldError(("body", *place, self.name), "not_as_in_path", "differs from the path")
        return UserInputError("The body does not belong to the path.", errors=[fault])

    async def exists(self, service: Service, value: object) -> bool:
        """Return whether the row that the column refers to is there; True if it refers to none, or to a table without a model."""
        model = self._model
        if model is None:
            return True
        parents: ReadService[Any] = type("Parents", (ReadService,), {"model": model})(service.session)
        return all([await parents.exists(key.column == value) for key in self.column.foreign_keys])

    def missing(self, value: object) -> NotFoundError:
        """Return the error of a parent that is not there."""
        return NotFoundError(self._model or self.mapper.class_, value)

    @property
    def _model(self) -> type[Any] | None:
        tables = {key.column.table for key in self.column.foreign_keys}
        return next((mapper.class_ for mapper in self.mapper.registry.mappers if mapper.local_table in tables), None)


@dataclass(frozen=True)
class ChildRows(Rows):
    """Those rows of *service* that belong to one parent. Rows of other parents count as missing (404)."""

    parent: Parent
    value: object

    async def page(self, schema: type[BaseModel], query: PageParams) -> Page[Any]:
        """Return the page that *query* asks for; of an unknown parent an empty one."""
        return await self.service.page_as(schema, query, self.parent.owns(self.value))

    async def get(self, schema: type[BaseModel], ident: object) -> BaseModel:
        """Return one row as *schema*."""
        return await self.service.get_as(schema, ident, self.parent.owns(self.value))

    async def delete(self, ident: object) -> None:
        """Delete a row."""
        async with unit_of_work(self.service.session):
            await self._lock(ident)
            await self.service.delete(ident)

    async def _insert(self, data: BaseModel) -> Any:
        self.parent.refuse_another(self.value, data)
        return await self.service.create(data, **{self.parent.name: self.value})

    async def _insert_many(self, rows: Sequence[BaseModel]) -> Sequence[Any]:
        for place, data in enumerate(rows):
            self.parent.refuse_another(self.value, data, place)
        return await self.service.create_many(rows, **{self.parent.name: self.value})

    async def _change(self, ident: object, data: BaseModel) -> Any:
        self.parent.refuse_another(self.value, data)
        locked = await self._lock(ident)
        stored: object = getattr(locked, self.parent.name)
        changed = await self.service.update(ident, data)
        if not self.parent.is_parent(stored, locked):
            # A hook of the service took the parent from a field of another name.
            raise self.parent.refusal()
        return changed

    async def _lock(self, ident: object) -> object:
        row: object = await self.service.get_one(ident, options=self.parent.options, lock=FOR_UPDATE)
        # Blanks at the end of a CHAR, and collations, are for the database to judge.
        if not self.parent.is_parent(self.value, row):
            same_row = identity_of(self.parent.mapper).among([identity_of(self.parent.mapper).key_of_row(row)])
            if not await self.service.exists(same_row, self.parent.owns(self.value)):
                raise NotFoundError(self.parent.mapper.class_, ident)
        return row

    @asynccontextmanager
    async def _unit(self) -> AsyncGenerator[object]:
        # The foreign key may be checked at COMMIT.
        try:
            async with unit_of_work(self.service.session) as unit:
                yield unit
        except InvalidDataError as error:
            if await self._is_to_blame(error):
                raise self.parent.missing(self.value) from error
            raise

    async def _is_to_blame(self, error: InvalidDataError) -> bool:
        precise = not isinstance(error, UnknownReferenceError) or error.precise
        if precise and (error.fields == (self.parent.name,) or self.parent.name not in error.fields):
            return self.parent.name in error.fields
        return not await self.parent.exists(self.service, self.value)
