"""The endpoints of a generated router, and what OpenAPI shows of them."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from fastapi import APIRouter, Body, Request, Response
from fastapi.params import Depends
from pydantic import BaseModel
from sqlalchemy import ColumnElement
from sqlalchemy.orm.interfaces import ORMOption

from fastapi_kit.crud.attributes import attributes_of
from fastapi_kit.crud.identity import identity_of
from fastapi_kit.crud.locks import FOR_UPDATE, RowLock
from fastapi_kit.crud.read_plan.plan import read_plan
from fastapi_kit.crud.reads import ReadService
from fastapi_kit.db.transactions import unit_of_work
from fastapi_kit.dependencies import declare
from fastapi_kit.errors import ConfigurationError, InvalidDataError, NotFoundError, UnknownReferenceError
from fastapi_kit.etags import check_preconditions, etag_of, is_conditional, require_if_match, version_of
from fastapi_kit.routing.keys import row_path
from fastapi_kit.routing.resource import Parent, Resource, differs_from_path
from fastapi_kit.routing.routes import ETAG, IF_MATCH, BatchRoute, RowRoute, add_route

if TYPE_CHECKING:
    from fastapi_kit.crud.service import CRUDService

__all__ = ["Source", "add_create", "add_create_many", "add_delete", "add_replace", "add_update"]

Service: TypeAlias = "CRUDService[Any, Any, Any]"


@dataclass(frozen=True)
class Shown:
    """A row and its response."""

    row: object
    answer: BaseModel
    segments: Sequence[object]
    """The segments of the row's path."""


@dataclass
class Rows:
    """All rows of *service*. A write and its response are one transaction: if the response cannot be built, nothing is stored."""

    service: Service
    resource: Resource
    conditions: Sequence[ColumnElement[bool]] = ()

    async def get(self, key: object) -> Shown:
        """Return a row."""
        return await self.show(await self.load(key, options=read_plan(self.resource.read, self.resource.mapper).options()))

    async def create(self, data: BaseModel, **values: object) -> Shown:
        """Insert a row."""
        async with unit_of_work(self.service.session):
            return await self.show(await self.service.create(data, **values))

    async def create_many(self, data: Sequence[BaseModel], **values: object) -> Sequence[BaseModel]:
        """Insert all rows or none."""
        async with unit_of_work(self.service.session):
            return await self.service.rows_as(self.resource.read, await self.service.create_many(data, **values))

    async def update(self, key: object, data: BaseModel, request: Request) -> Shown:
        """Change a row if the preconditions of *request* hold."""
        async with unit_of_work(self.service.session):
            if self.resource.key_name is None and not is_conditional(request):
                return await self.show(await self.service.update(key, data))
            locked = await self.load(key, lock=FOR_UPDATE)
            return await self.show(await self.service.update(self.ident_of(locked, key), data, **await self.expected(locked, request)))

    async def replace(self, key: object, data: BaseModel, request: Request) -> Shown:
        """Change all fields of a row."""
        return await self.update(key, self.resource.whole(data, key), request)

    async def delete(self, key: object, request: Request) -> None:
        """Delete a row if the preconditions of *request* hold."""
        if self.resource.key_name is None and not is_conditional(request):
            await self.service.delete(key)
            return
        async with unit_of_work(self.service.session):
            locked = await self.load(key, lock=FOR_UPDATE)
            await self.service.delete(self.ident_of(locked, key), **await self.expected(locked, request))

    async def load(self, key: object, *, options: Sequence[ORMOption] = (), lock: RowLock | None = None) -> object:
        """Return the row with *key*, or raise NotFoundError."""
        row: object
        if self.resource.key_name is None:
            row = await self.service.get_one(key, options=options, lock=lock)
        else:
            columns: dict[str, Any] = {self.resource.key_name: key, **self.columns}
            row = await self.service.get_one_by(options=options, lock=lock, **columns)
        return row

    async def show(self, row: object) -> Shown:
        """Return *row* with its response."""
        (answer,) = await self.service.rows_as(self.resource.read, [row])
        return Shown(row, answer, [getattr(row, name) for name in self.resource.segments])

    async def expected(self, row: object, request: Request) -> dict[str, Any]:
        """Check the preconditions of *request* for the locked *row*. Return what a write has to expect."""
        if not is_conditional(request):
            return {}
        version = version_of(row)
        tags = [] if version is None else [etag_of(row), etag_of(row, shown=(await self.show(row)).answer)]
        check_preconditions(request, tags)
        return {} if version is None else {"expected_version": version}

    @property
    def columns(self) -> Mapping[str, object]:
        """The values of columns that all rows have."""
        return {}

    def ident_of(self, row: object, key: object) -> object:
        """Return the primary key of *row*, which is at *key*."""
        return key if self.resource.key_name is None else identity_of(self.resource.mapper).key_of_row(row)


class ChildRows(Rows):
    """The rows of one parent. Rows of other parents count as missing (404)."""

    def __init__(self, service: Service, resource: Resource, parent: Parent, value: object) -> None:
        super().__init__(service, resource, (parent.owns(value),))
        self.parent = parent
        self.value = value

    async def create(self, data: BaseModel, **values: object) -> Shown:
        """Insert a row of the parent."""
        self.parent.check(self.value, data)
        async with self.naming_parent():
            return await super().create(data, **values, **{self.parent.name: self.value})

    async def create_many(self, data: Sequence[BaseModel], **values: object) -> Sequence[BaseModel]:
        """Insert all rows of the parent or none."""
        for place, each in enumerate(data):
            self.parent.check(self.value, each, place)
        async with self.naming_parent():
            return await super().create_many(data, **values, **{self.parent.name: self.value})

    async def update(self, key: object, data: BaseModel, request: Request) -> Shown:
        """Change a row of the parent."""
        self.parent.check(self.value, data)
        async with unit_of_work(self.service.session):
            locked = await self.load(key, lock=FOR_UPDATE)
            stored: object = getattr(locked, self.parent.name)
            row = await self.service.update(self.ident_of(locked, key), data, **await self.expected(locked, request))
            if not self.parent.is_parent(stored, locked):
                # A hook of the service took the parent from a field of another name.
                raise differs_from_path(self.parent.name)
            return await self.show(row)

    async def replace(self, key: object, data: BaseModel, request: Request) -> Shown:
        """Change all fields of a row of the parent."""
        self.parent.check(self.value, data)
        return await super().replace(key, data, request)

    async def delete(self, key: object, request: Request) -> None:
        """Delete a row of the parent."""
        async with unit_of_work(self.service.session):
            locked = await self.load(key, lock=FOR_UPDATE)
            await self.service.delete(self.ident_of(locked, key), **await self.expected(locked, request))

    @property
    def columns(self) -> Mapping[str, object]:
        """The column of the parent."""
        return {self.parent.name: self.value}

    async def load(self, key: object, *, options: Sequence[ORMOption] = (), lock: RowLock | None = None) -> object:
        """Return the row with *key*, or raise NotFoundError if it belongs to another parent."""
        parent = self.parent
        row = await super().load(key, options=[*options, *parent.options], lock=lock)
        # Trailing blanks of a CHAR, and collations: only the database can compare.
        if not parent.is_parent(self.value, row):
            identity = identity_of(parent.mapper)
            if not await self.service.exists(identity.among([identity.key_of_row(row)]), *self.conditions):
                raise NotFoundError(parent.mapper.class_, key)
        return row

    @asynccontextmanager
    async def naming_parent(self) -> AsyncGenerator[None]:
        """Raise NotFoundError for the parent if it is why a row cannot be inserted. The foreign key may be checked at COMMIT."""
        try:
            yield
        except InvalidDataError as error:
            if await self.is_missing_parent(error):
                raise NotFoundError(self.parent.model or self.parent.mapper.class_, self.value) from error
            raise

    async def is_missing_parent(self, error: InvalidDataError) -> bool:
        """Return whether *error* says that there is no such parent. Asks the database if the error is not precise."""
        name, model = self.parent.name, self.parent.model
        precise = not isinstance(error, UnknownReferenceError) or error.precise
        if precise and (error.fields == (name,) or name not in error.fields):
            return name in error.fields
        if model is None:
            return False
        parents: ReadService[Any] = type("Parents", (ReadService,), {"model": model})(self.service.session)
        return not all([await parents.exists(key.column == self.value) for key in self.parent.column.foreign_keys])


class Source:
    """Where the rows of a request come from.

    *dependency* gives a session, or the service itself. *serve* makes the service from it.
    """

    def __init__(self, resource: Resource, dependency: Depends, serve: Callable[[Any], Service]) -> None:
        self.resource = resource
        self.serve = serve
        self.parent = parent = resource.parent
        self.given = dependency
        if parent is not None:

            async def get_rows(source: Annotated[Any, dependency], __value__: Any) -> Rows:
                service = serve(source)
                return ChildRows(service, resource, parent, await parent.find(service.session, __value__))

            self.given = Depends(declare(get_rows, __value__=parent.in_path(of=resource.plural)))

    def rows(self, given: Any) -> Rows:
        """Return the rows for *given*, the value of the dependency. Under a parent it is the rows already."""
        return Rows(self.serve(given), self.resource) if self.parent is None else given


def tagged(shown: Shown, resource: Resource, response: Response) -> BaseModel:
    """Return the response for a row, with the ETag header of *response* set if the model counts versions."""
    if resource.is_versioned:
        response.headers["ETag"] = etag_of(shown.row, shown=shown.answer)
    return shown.answer


def add_create(router: APIRouter, source: Source, guards: Sequence[Depends]) -> None:
    """``POST /``."""
    resource = source.resource
    schema = resource.declared("create_schema")
    _ = resource.key  # raises for a key that Location cannot show

    async def create_row(given: Annotated[Any, source.given], __data__: Any, request: Request, response: Response) -> BaseModel:
        check_preconditions(request)
        shown = await source.rows(given).create(__data__)
        response.headers["Location"] = row_path(request.scope, shown.segments)
        return tagged(shown, resource, response)

    add_route(
        router,
        "POST",
        "",
        declare(create_row, __data__=Annotated[schema, Body()]),
        name=f"create_{resource.name}",
        summary=f"Create {resource.singular}",
        status_code=201,
        response_model=resource.read,
        response_description=f"The new {resource.singular}",
        headers={"Location": f"Path of the new {resource.singular}", **(ETAG if resource.is_versioned else {})},
        errors=(400, 409, 413, 422, 503) if source.parent is None else (400, 404, 409, 413, 422, 503),
        dependencies=guards,
    )


def add_create_many(router: APIRouter, source: Source, guards: Sequence[Depends]) -> None:
    """``POST /batch``."""
    resource = source.resource
    schema = resource.declared("create_schema")
    body = Body(title=resource.plural.capitalize(), min_length=1, max_length=resource.max_batch)

    async def create_rows(given: Annotated[Any, source.given], __data__: Any, request: Request) -> Sequence[BaseModel]:
        check_preconditions(request)
        return await source.rows(given).create_many(__data__)

    add_route(
        router,
        "POST",
        "/batch",
        declare(create_rows, __data__=Annotated[list.__class_getitem__(schema), body]),
        name=f"create_many_{resource.table}",
        summary=f"Create many {resource.plural}",
        description=f"Stores all of them, or none if one is rejected: 1 to {resource.max_batch} in one request.",
        status_code=201,
        response_model=list.__class_getitem__(resource.read),
        response_description=f"The new {resource.plural}, in the order given",
        errors=(400, 409, 413, 422, 503) if source.parent is None else (400, 404, 409, 413, 422, 503),
        dependencies=guards,
        route_class_override=None if resource.may_be_key("batch") else BatchRoute,
    )


def add_update(router: APIRouter, source: Source, guards: Sequence[Depends]) -> None:
    """``PATCH /{id}``."""
    schema = source.resource.declared("update_schema")
    description = "Changes the fields that are sent and leaves all others as they are."
    add_change(router, source, guards, "PATCH", schema, verb="update", description=description, change=lambda rows: rows.update)


def add_replace(router: APIRouter, source: Source, guards: Sequence[Depends]) -> None:
    """``PUT /{id}``."""
    resource = source.resource
    schema = resource.replacement or resource.declared("create_schema")
    fixed = {*getattr(resource.service_class, "read_only", ()), *attributes_of(resource.mapper).stamped}
    if named := sorted(fixed & schema.model_fields.keys()):
        raise ConfigurationError(f"PUT cannot change {', '.join(named)}: set RouterOptions(replace=...) to a schema without them")
    description = "Changes all fields. A field that is not sent gets the default that is shown."
    add_change(router, source, guards, "PUT", schema, verb="replace", description=description, change=lambda rows: rows.replace)


def add_change(
    router: APIRouter,
    source: Source,
    guards: Sequence[Depends],
    method: str,
    schema: type[BaseModel],
    *,
    verb: str,
    description: str,
    change: Callable[[Rows], Callable[[object, BaseModel, Request], Awaitable[Shown]]],
) -> None:
    resource = source.resource

    async def change_row(
        given: Annotated[Any, source.given], __key__: Any, __data__: Any, request: Request, response: Response
    ) -> BaseModel:
        if resource.requires_if_match:
            require_if_match(request)
        return tagged(await change(source.rows(given))(__key__, __data__, request), resource, response)

    add_route(
        router,
        method,
        resource.path,
        declare(change_row, __key__=resource.key, __data__=Annotated[schema, Body()]),
        name=f"{verb}_{resource.name}",
        summary=f"{verb.capitalize()} {resource.singular}",
        description=description,
        response_model=resource.read,
        response_description=f"The {resource.singular} after the change",
        errors=(400, 404, 409, *resource.precondition_errors, 413, 422, 503),
        headers=ETAG if resource.is_versioned else {},
        asks=IF_MATCH if resource.is_versioned else {},
        requires_asked=resource.requires_if_match,
        dependencies=guards,
        route_class_override=RowRoute,
    )


def add_delete(router: APIRouter, source: Source, guards: Sequence[Depends]) -> None:
    """``DELETE /{id}``."""
    resource = source.resource

    async def delete_row(given: Annotated[Any, source.given], __key__: Any, request: Request) -> None:
        if resource.requires_if_match:
            require_if_match(request)
        await source.rows(given).delete(__key__, request)

    add_route(
        router,
        "DELETE",
        resource.path,
        declare(delete_row, __key__=resource.key),
        name=f"delete_{resource.name}",
        summary=f"Delete {resource.singular}",
        status_code=204,
        response_description=f"The {resource.singular} is gone",
        errors=(404, 409, *resource.precondition_errors, 422, 503),
        asks=IF_MATCH if resource.is_versioned else {},
        requires_asked=resource.requires_if_match,
        dependencies=guards,
        route_class_override=RowRoute,
    )
