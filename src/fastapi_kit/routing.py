"""Routes for a service, written as one would by hand."""

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Annotated, Any, TypeAlias, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Body, Path, Query, Request, Response
from fastapi.params import Depends
from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python
from sqlalchemy import BigInteger, Column, Integer, SmallInteger
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import TypeDecorator, TypeEngine
from starlette.types import Scope

from fastapi_kit.crud import CRUDService
from fastapi_kit.crud.facts import ModelFacts, facts_of
from fastapi_kit.dependencies import Dependency, as_depends
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.handlers import problem_responses
from fastapi_kit.pagination import Page, PageParams

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
    READ = 3
    """LIST and GET."""
    WRITE = 28
    """CREATE, UPDATE and DELETE."""
    CRUD = 31
    """READ and WRITE."""


@dataclass(frozen=True, kw_only=True)
class RouterOptions:
    """What few routers need."""

    list_item: type[BaseModel] | None = None
    """Schema of the rows in a list, where it is not *read*."""


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

    The path names the primary key's attributes, one segment each; whole numbers are refused beyond their column's range, and a
    text with a slash in it cannot be reached. A write commits itself in the handler, before the response exists.
    *dependencies* run for the endpoints of their key, which may be several: ``{Endpoint.WRITE: [Depends(require_editor)]}``.
    To replace an endpoint leave it out and declare your own on the router that is returned; to extend, declare more. Route names
    are ``list_notes`` of the table, ``get_note``, ``create_note``, ``update_note`` and ``delete_note`` of the model; the
    operation ids are made of them as the app makes all others, so a router may be included more than once.

    Raises ConfigurationError if the service names no model, or no schema that an endpoint needs.
    """
    if service is None and session is not None:
        provider = _service_dependency(service_class, as_depends(session))
    elif service is not None and session is None:
        provider = as_depends(service)
    else:
        raise TypeError("crud_router() needs exactly one of session= and service=")
    resource = _Resource(
        service_class=service_class,
        service=provider,
        read=read,
        item=(options or RouterOptions()).list_item or read,
    )
    router = APIRouter()
    for endpoint, add in _ADDERS.items():
        if endpoint in endpoints:
            add(router, resource, [each for key, several in (dependencies or {}).items() if endpoint in key for each in several])
    return router


_Service: TypeAlias = CRUDService[Any, Any, Any]


def _service_dependency(service_class: type[_Service], session: Depends) -> Depends:
    async def get_service(session: Annotated[AsyncSession, session]) -> _Service:
        return service_class(session)

    return Depends(get_service)


@dataclass(frozen=True)
class _Resource:
    """What the endpoints of one router share."""

    service_class: type[_Service]
    service: Depends
    read: type[BaseModel]
    item: type[BaseModel]

    @cached_property
    def facts(self) -> ModelFacts:
        return facts_of(self.declared("model"))

    @cached_property
    def key(self) -> Depends:
        """Dependency on the primary key in the path: a scalar, or a tuple."""
        parts = [_parameter(_kind(self.facts.columns[name]), Path(alias=name)) for name in self.facts.key_names]
        return parts[0] if len(parts) == 1 else reduce(_appended, parts, Depends(_no_key))

    @property
    def path(self) -> str:
        return "".join(f"/{{{name}}}" for name in self.facts.key_names)

    @property
    def name(self) -> str:
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", self.facts.name).lower()

    @property
    def table(self) -> str:
        return getattr(self.facts.mapper.local_table, "name", None) or self.name

    def declared(self, name: str) -> type[Any]:
        value: type[Any] | None = getattr(self.service_class, name, None)
        if value is None:
            raise ConfigurationError(f"{self.service_class.__name__} has no {name}")
        return value

    async def show(self, service: _Service, row: object) -> BaseModel:
        """Return a written row as it is read; relationships are not loaded yet and take another query."""
        if self.read.model_fields.keys() & self.facts.mapper.relationships.keys():
            return await service.get_as(self.read, self.facts.key_of_row(row))
        return self.read.model_validate(row, from_attributes=True)


class _Window(PageParams):
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


def _add_list(router: APIRouter, resource: _Resource, guards: Sequence[Depends]) -> None:
    page = Page.__class_getitem__(resource.item)

    @router.get("", response_model=page, dependencies=guards, responses=problem_responses(422, 503), name=f"list_{resource.table}")
    async def list_rows(
        service: Annotated[_Service, resource.service], window: Annotated[_Window, Query()], request: Request, response: Response
    ) -> Page[Any]:
        found = await service.page_as(resource.item, window)
        response.headers["Link"] = found.link_header(f"{_path(request.scope)}?{request.url.query}")
        return found


def _add_get(router: APIRouter, resource: _Resource, guards: Sequence[Depends]) -> None:
    @router.get(
        resource.path,
        response_model=resource.read,
        dependencies=guards,
        responses=problem_responses(404, 422, 503),
        name=f"get_{resource.name}",
    )
    async def get_row(service: Annotated[_Service, resource.service], key: Annotated[Any, resource.key]) -> BaseModel:
        return await service.get_as(resource.read, key)


def _add_create(router: APIRouter, resource: _Resource, guards: Sequence[Depends]) -> None:
    body = _parameter(resource.declared("create_schema"), Body())

    @router.post(
        "",
        status_code=201,
        response_model=resource.read,
        dependencies=guards,
        responses=problem_responses(409, 422, 503),
        name=f"create_{resource.name}",
    )
    async def create_row(
        service: Annotated[_Service, resource.service], data: Annotated[Any, body], request: Request, response: Response
    ) -> BaseModel:
        row = await service.create(data)
        response.headers["Location"] = _location(request.scope, resource.facts.key_of_row(row))
        return await resource.show(service, row)


def _add_update(router: APIRouter, resource: _Resource, guards: Sequence[Depends]) -> None:
    body = _parameter(resource.declared("update_schema"), Body())

    @router.patch(
        resource.path,
        response_model=resource.read,
        dependencies=guards,
        responses=problem_responses(404, 409, 422, 503),
        name=f"update_{resource.name}",
    )
    async def update_row(
        service: Annotated[_Service, resource.service], key: Annotated[Any, resource.key], data: Annotated[Any, body]
    ) -> BaseModel:
        return await resource.show(service, await service.update(key, data))


def _add_delete(router: APIRouter, resource: _Resource, guards: Sequence[Depends]) -> None:
    @router.delete(
        resource.path, status_code=204, dependencies=guards, responses=problem_responses(404, 409, 422, 503), name=f"delete_{resource.name}"
    )
    async def delete_row(service: Annotated[_Service, resource.service], key: Annotated[Any, resource.key]) -> None:
        await service.delete(key)


_ADDERS = {
    Endpoint.LIST: _add_list,
    Endpoint.GET: _add_get,
    Endpoint.CREATE: _add_create,
    Endpoint.UPDATE: _add_update,
    Endpoint.DELETE: _add_delete,
}


def _parameter(kind: Any, source: FieldInfo) -> Depends:
    """Dependency that reads one parameter of the request as *kind*, which only the running program knows."""

    async def read(value: Any) -> Any:
        return value

    # A variable is no type to the type checkers, so it is put where FastAPI looks for one.
    read.__annotations__["value"] = Annotated[kind, source]
    return Depends(read)


async def _no_key() -> tuple[()]:
    return ()


def _appended(first: Depends, last: Depends) -> Depends:
    async def read(before: Annotated[tuple[Any, ...], first], value: Annotated[Any, last]) -> tuple[Any, ...]:
        return (*before, value)

    return Depends(read)


def _kind(column: Column[Any]) -> Any:
    """Return the Python type of *column*, whole numbers within its range; text where the column does not say."""
    kind = column.type.impl_instance if isinstance(column.type, TypeDecorator) else column.type
    if isinstance(kind, Integer):
        limit = 2 ** (max(map(_bits, [kind, *_variants(kind)])) - 1)
        return Annotated[int, Field(ge=-limit, le=limit - 1)]
    return str if kind.python_type is object else kind.python_type


def _bits(kind: TypeEngine[Any]) -> int:
    match kind:
        case SmallInteger():
            return 16
        case Integer() if not isinstance(kind, BigInteger) and not getattr(kind, "unsigned", False):
            return 32
        case _:
            return 64


def _variants(kind: TypeEngine[Any]) -> Iterable[TypeEngine[Any]]:
    """The types that the column has on other databases (``with_variant``)."""
    variants: Mapping[str, TypeEngine[Any]] = getattr(kind, "_variant_mapping", {})
    return variants.values()


def _path(scope: Scope) -> str:
    """Return the path that the client asked for. It names no host: the one in the request is the client's to choose."""
    root, path = scope.get("root_path", "").rstrip("/"), scope["path"]
    if not path.startswith(f"{root}/"):
        # A proxy has cut it off.
        path = root + path
    return quote(path)


def _location(scope: Scope, key: Sequence[object]) -> str:
    """Return the path of the row with *key* under the collection that *scope* asked for (RFC 9110, 10.2.2)."""
    segments = (str(to_jsonable_python(part)) for part in key)
    return "/".join([_path(scope).rstrip("/"), *(quote(segment, safe="") for segment in segments)])
