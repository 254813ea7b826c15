"""Routes for a service, written as one would by hand."""

import enum
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI
from fastapi.params import Depends
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped
from starlette.routing import BaseRoute

from fastapi_kit.crud import CRUDService
from fastapi_kit.crud.read_plan.plan import read_plan
from fastapi_kit.dependencies import Dependency, as_depends
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.routing._endpoints import BatchRoute, RowRoute, add_create, add_create_many, add_delete, add_get, add_list, add_update
from fastapi_kit.routing._resource import Resource
from fastapi_kit.routing._rows import Service

__all__ = ["Endpoint", "RouterOptions", "crud_router"]

ModelT = TypeVar("ModelT")
CreateT = TypeVar("CreateT", bound=BaseModel)
UpdateT = TypeVar("UpdateT", bound=BaseModel)


class Endpoint(enum.Flag):
    """The endpoints of a service; combine with ``|``, leave out with ``& ~``."""

    LIST = 1
    """``GET /``: a page, by ``skip`` (0 or more) and ``limit`` (1 to 1000, 100 if not given), with a ``Link`` header."""
    GET = 2
    """``GET /{id}``"""
    CREATE = 4
    """``POST /``: 201 and ``Location``."""
    UPDATE = 8
    """``PATCH /{id}``"""
    DELETE = 16
    """``DELETE /{id}``: 204."""
    CREATE_MANY = 32
    """``POST /batch``: all or nothing, 201 and the rows. Not part of CRUD."""
    READ = 3
    """LIST and GET."""
    WRITE = 28
    """CREATE, UPDATE and DELETE. As a key of *dependencies* also CREATE_MANY, as every key with CREATE."""
    CRUD = 31
    """READ and WRITE."""


@dataclass(frozen=True, kw_only=True)
class RouterOptions:
    """What few routers need."""

    list_item: type[BaseModel] | None = None
    """Schema of the rows in a list, where it is not *read*."""
    parent: Mapped[Any] | None = None
    """Column that a path parameter of the same name fixes: ``Book.author_id`` under ``prefix="/authors/{author_id}/books"``."""
    max_batch: int = 1000
    """Rows that a batch may have."""
    max_total: int | None = None
    """Lists count no further than this; 0 does not count at all: ``has_more`` is told either way. None counts exactly."""


_ADDERS: Mapping[Endpoint, Callable[[APIRouter, Resource, Sequence[Depends]], None]] = {
    Endpoint.LIST: add_list,
    Endpoint.CREATE: add_create,
    Endpoint.CREATE_MANY: add_create_many,
    Endpoint.GET: add_get,
    Endpoint.UPDATE: add_update,
    Endpoint.DELETE: add_delete,
}


def crud_router(
    service_class: type[CRUDService[ModelT, CreateT, UpdateT]],
    *,
    read: type[BaseModel],
    session: Dependency[AsyncSession] | None = None,
    service: Dependency[CRUDService[ModelT, CreateT, UpdateT]] | None = None,
    endpoints: Endpoint = Endpoint.CRUD,
    dependencies: Mapping[Endpoint, Sequence[Depends]] | None = None,
    options: RouterOptions | None = None,
) -> APIRouter:
    """Build the routes of a service.

    Give *session*, or a dependency *service* that makes the service where ``Service(session)`` is not enough (exactly one: TypeError).

    The path names the primary key's attributes, one segment each. A key has one form, the one that ``Location`` has; whole numbers are
    refused beyond their column's range, and a text with a slash in it cannot be reached. A write commits itself in the handler, before
    the response exists. *dependencies* run, in the order given, for the endpoints of their key, which may be several:
    ``{Endpoint.WRITE: [Depends(require_editor)]}``. What guards CREATE guards CREATE_MANY too; a key of CREATE_MANY alone guards the
    batch only.

    To replace an endpoint leave it out and declare your own on the router that is returned; to extend, declare more: what is declared
    there is found before the paths of single rows. Functions, routes and operations are called ``list_notes`` and
    ``create_many_notes`` after the table, ``get_note``, ``create_note``, ``update_note`` and ``delete_note`` after the model.

    With a parent in *options*, the rows of other parents are not there. ``POST`` takes the column from the path and answers 404 where its
    foreign key finds no such parent, a list of an unknown parent is empty, and a body that names another parent is refused (422). An app
    whose prefix lacks the parameter does not start (ConfigurationError).

    Where a field of *read* cannot be filled from the model the app does not start either (ConfigurationError).

    Raises ConfigurationError if the service names no model, or no schema that an endpoint needs, if the model's key cannot stand in a
    path, if *parent* is no column of it, and if *dependencies* guard no endpoint that is there.
    """
    source = session if service is None else service
    if source is None or (session is not None and service is not None):
        raise TypeError("crud_router() needs exactly one of session= and service=")
    options, dependencies = options or RouterOptions(), dependencies or {}
    if idle := [str(key) for key in dependencies if not _guarded(key) & endpoints]:
        raise ConfigurationError(f"dependencies of {', '.join(idle)} guard nothing: the router has no such endpoint")
    if options.max_batch < 1:
        raise ConfigurationError("max_batch must be at least 1")
    resource = Resource(
        service_class=service_class,
        source=as_depends(source),
        serve=service_class if service is None else _as_it_is,
        read=read,
        item=options.list_item or read,
        parent_column=options.parent,
        max_batch=options.max_batch,
        max_total=options.max_total,
    )
    router = _Router()
    router.row_path = resource.path
    for endpoint, add in _ADDERS.items():
        if endpoint in endpoints:
            add(router, resource, [each for key, several in dependencies.items() if endpoint in _guarded(key) for each in several])
    router.lifespan_context = _checking(resource, router)
    return router


def _guarded(key: Endpoint) -> Endpoint:
    """Return the endpoints that a *key* of dependencies is for: a batch creates rows, and must not be open where one row is not."""
    return key | Endpoint.CREATE_MANY if Endpoint.CREATE in key else key


def _as_it_is(service: Service) -> Service:
    return service


class _Router(APIRouter):
    """Keeps the routes of single rows behind all others: they would take ``/mine`` for a key. The batch refuses what is not before it."""

    row_path = ""

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().add_api_route(path, endpoint, **options)
        self._sort()

    def include_router(self, router: APIRouter, **options: Any) -> None:
        super().include_router(router, **options)
        self._sort()

    def _sort(self) -> None:
        # The host's own route for a row is one as well.
        self.routes.sort(key=lambda route: (self._is_of_rows(route), isinstance(route, BatchRoute)))
        for batch in self.routes:
            if isinstance(batch, BatchRoute):
                same = (route for route in self.routes if isinstance(route, APIRoute) and route.path == batch.path)
                batch.allowed = frozenset(method for route in same for method in route.methods or ())

    def _is_of_rows(self, route: BaseRoute) -> bool:
        return isinstance(route, RowRoute) or (isinstance(route, APIRoute) and route.path == self.row_path)


def _checking(resource: Resource, router: APIRouter) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Lifespan that refuses an app whose rows cannot be shown, or in which the routes that *router* has now lack the parent's parameter."""
    endpoints = [route.endpoint for route in router.routes if isinstance(route, APIRoute)]
    parameter = resource.parent.name if resource.parent is not None else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        for schema in (resource.read, resource.item):
            read_plan(schema, resource.mapper)
        for route in iter_route_contexts(app.routes) if parameter is not None else ():
            # Only a prefix can give the parameter.
            if any(route.endpoint is each for each in endpoints) and parameter not in route.param_convertors:
                raise ConfigurationError(f"{route.path_format} needs {{{parameter}}} in the prefix of its router")
        yield

    return lifespan
