"""What the endpoints of a router do with a service: with all its rows, or with those of one parent."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import BaseModel
from sqlalchemy import Column, ColumnElement, exists, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer
from sqlalchemy.orm.interfaces import ORMOption

from fastapi_kit.crud import FOR_UPDATE, CRUDService
from fastapi_kit.crud.facts import ModelFacts
from fastapi_kit.crud.loading import as_schema, options_for
from fastapi_kit.db.reads import read
from fastapi_kit.db.transaction import unit_of_work
from fastapi_kit.errors import ConfigurationError, FieldError, InvalidDataError, NotFoundError, UnknownReferenceError, UserInputError
from fastapi_kit.pagination import Page, PageParams
from fastapi_kit.routing._paths import is_same_key

__all__ = ["ChildRows", "Parent", "Rows", "Service"]

Service: TypeAlias = CRUDService[Any, Any, Any]


@dataclass(frozen=True)
class Rows:
    """All rows of *service*."""

    service: Service

    async def page(self, schema: type[BaseModel], query: PageParams) -> Page[Any]:
        """Return the page that *query* asks for."""
        return await self.service.page_as(schema, query)

    async def get(self, schema: type[BaseModel], ident: object) -> BaseModel:
        """Return one row as *schema*."""
        return await self.service.get_as(schema, ident)

    async def create(self, data: BaseModel) -> object:
        """Insert a row."""
        return await self.service.create(data)

    async def create_many(self, rows: Sequence[BaseModel]) -> Sequence[object]:
        """Insert all rows or none."""
        return await self.service.create_many(rows)

    async def update(self, ident: object, data: BaseModel) -> object:
        """Change a row."""
        return await self.service.update(ident, data)

    async def delete(self, ident: object) -> None:
        """Delete a row."""
        await self.service.delete(ident)


@dataclass(frozen=True)
class Parent:
    """The column *name* of a model, whose value the path gives."""

    facts: ModelFacts
    name: str

    @classmethod
    def of(cls, facts: ModelFacts, attribute: object) -> "Parent":
        """Return the parent that *attribute* points at. Raises ConfigurationError if it is no column of the model, or all of its key."""
        name = next((name for name in facts.columns if _is_attribute(facts, name, attribute)), None)
        if name is None:
            raise ConfigurationError(f"parent= is no column of {facts.name}")
        if facts.key_names == (name,):
            raise ConfigurationError(f"parent= is the whole key of {facts.name}: a parent would have one such row at most")
        return cls(facts, name)

    @property
    def options(self) -> list[ORMOption]:
        """What a query needs so that its rows tell their parent."""
        return [undefer(getattr(self.facts.mapper.class_, self.name))] if self.name in self.facts.deferred else []

    def owns(self, value: object) -> ColumnElement[bool]:
        """Return the SQL that finds the rows of the parent *value*."""
        condition: ColumnElement[bool] = getattr(self.facts.mapper.class_, self.name) == value
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

    async def exists(self, session: AsyncSession, value: object) -> bool:
        """Return whether the row that the column refers to is there; True if it refers to none."""
        found = [await read(session, select(exists().where(column == value)), mapper=self.facts.mapper) for column in self._targets]
        return all(each.scalar_one() for each in found)

    async def has(self, session: AsyncSession, value: object, row: object) -> bool:
        """Return whether *row* is one of the parent *value* in the database's eyes."""
        same_row = self.facts.any_key([self.facts.key_of_row(row)])
        found = await read(session, select(exists().where(same_row, self.owns(value))), mapper=self.facts.mapper)
        return bool(found.scalar_one())

    def missing(self, value: object) -> NotFoundError:
        """Return the error of a parent that is not there."""
        tables = {column.table for column in self._targets}
        models = (mapper.class_ for mapper in self.facts.mapper.registry.mappers if mapper.local_table in tables)
        return NotFoundError(next(models, self.facts.mapper.class_), value)

    @property
    def _targets(self) -> list[Column[Any]]:
        return [key.column for key in self.facts.columns[self.name].foreign_keys]


def _is_attribute(facts: ModelFacts, name: str, attribute: object) -> bool:
    # The attribute of a subclass is another object than its base's.
    return any(vars(cls).get(name) is attribute for cls in facts.mapper.class_.__mro__)


@dataclass(frozen=True)
class ChildRows(Rows):
    """Those rows of *service* that belong to one parent: all others are not there."""

    parent: Parent
    value: object

    async def page(self, schema: type[BaseModel], query: PageParams) -> Page[Any]:
        """Return the page that *query* asks for; of an unknown parent an empty one."""
        return await self.service.page_as(schema, query, self.parent.owns(self.value))

    async def get(self, schema: type[BaseModel], ident: object) -> BaseModel:
        """Return one row as *schema*."""
        row = await self.service.get_one(ident, options=[*options_for(schema, self.parent.facts.mapper), *self.parent.options])
        await self._refuse_stranger(row, ident)
        return as_schema(schema, row)

    async def create(self, data: BaseModel) -> object:
        """Insert a row under the parent."""
        self.parent.refuse_another(self.value, data)
        async with self._known_parent():
            return await self.service.create(data, **self._column)

    async def create_many(self, rows: Sequence[BaseModel]) -> Sequence[object]:
        """Insert all rows under the parent, or none."""
        for place, data in enumerate(rows):
            self.parent.refuse_another(self.value, data, place)
        async with self._known_parent():
            return await self.service.create_many(rows, **self._column)

    async def update(self, ident: object, data: BaseModel) -> object:
        """Change a row, which stays where it is."""
        self.parent.refuse_another(self.value, data)
        async with unit_of_work(self.service.session):
            locked = await self._lock(ident)
            stored: object = getattr(locked, self.parent.name)
            changed: object = await self.service.update(ident, data)
            if not self.parent.is_parent(stored, locked):
                # A hook of the service took the parent from a field of another name.
                raise self.parent.refusal()
        return changed

    async def delete(self, ident: object) -> None:
        """Delete a row."""
        async with unit_of_work(self.service.session):
            await self._lock(ident)
            await self.service.delete(ident)

    @property
    def _column(self) -> dict[str, object]:
        return {self.parent.name: self.value}

    async def _lock(self, ident: object) -> object:
        row: object = await self.service.get_one(ident, options=self.parent.options, lock=FOR_UPDATE)
        await self._refuse_stranger(row, ident)
        return row

    async def _refuse_stranger(self, row: object, ident: object) -> None:
        # Blanks at the end of a CHAR, and collations, are for the database to judge.
        if not self.parent.is_parent(self.value, row) and not await self.parent.has(self.service.session, self.value, row):
            raise NotFoundError(self.parent.facts.mapper.class_, ident)

    @asynccontextmanager
    async def _known_parent(self) -> AsyncGenerator[None]:
        try:
            yield
        except InvalidDataError as error:
            if await self._is_to_blame(error):
                raise self.parent.missing(self.value) from error
            raise

    async def _is_to_blame(self, error: InvalidDataError) -> bool:
        precise = not isinstance(error, UnknownReferenceError) or error.precise
        if precise and (error.fields == (self.parent.name,) or self.parent.name not in error.fields):
            return self.parent.name in error.fields
        return not await self.parent.exists(self.service.session, self.value)
