"""Build the routes of a service."""

import enum
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fastapi import APIRouter, FastAPI
from fastapi.params import Depends
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped

from fastapi_kit.crud.read_plan.plan import check_plans
from fastapi_kit.crud.reads import ReadService
from fastapi_kit.crud.service import CRUDService
from fastapi_kit.db.transactions import SessionFactory
from fastapi_kit.dependencies import Dependency, as_depends
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.routing.endpoints import Source, add_create, add_create_many, add_delete, add_replace, add_update
from fastapi_kit.routing.export import add_export
from fastapi_kit.routing.reads import add_get, add_list
from fastapi_kit.routing.resource import Resource
from fastapi_kit.routing.routes import CRUDRouter

if TYPE_CHECKING:
    from fastapi_kit.crud.filters.specs import KeysetSpec, QuerySpec

__all__ = ["Endpoint", "RouterOptions", "crud_router"]

ModelT = TypeVar("ModelT")


class Endpoint(enum.Flag):
    """The endpoints of a service. Combine them with ``|``, leave some out with ``& ~``."""

    LIST = 1
    """``GET /``: a page with a ``Link`` header, by *query* or by ``skip`` (0 or more, default 0) and ``limit`` (1 to 1000, default 100)."""
    GET = 2
    """``GET /{id}``"""
    CREATE = 4
    """``POST /``: 201 and ``Location``."""
    UPDATE = 8
    """``PATCH /{id}``"""
    DELETE = 16
    """``DELETE /{id}``: 204."""
    CREATE_MANY = 32
    """``POST /batch``: all or nothing, 201 and the rows. It is not part of CRUD."""
    REPLACE = 64
    """``PUT /{id}``: all fields, of the create schema unless RouterOptions.replace is another. It is not part of CRUD."""
    EXPORT = 128
    """``GET /export``: all rows of the list as NDJSON or CSV, by ``Accept``, sent while they are read. It takes the filters and the sort of
    *query*, and needs ``begin`` in RouterOptions. It is not part of READ. A row whose key is the text "export" cannot be read."""
    READ = 3
    """LIST and GET. In *dependencies*, what guards LIST guards EXPORT too."""
    WRITE = 28
    """CREATE, UPDATE and DELETE. In *dependencies*, what guards CREATE guards CREATE_MANY too, and UPDATE REPLACE."""
    CRUD = 31
    """READ and WRITE."""


@dataclass(frozen=True, kw_only=True)
class RouterOptions:
    """Options that few routers need."""

    list_item: type[BaseModel] | None = None
    """The schema of the rows in a list, if it is another than *read*."""
    replace: type[BaseModel] | None = None
    """The schema of ``PUT``, if it is another than the create schema."""
    key: Mapped[Any] | None = None
    """The column in the path of a row, if it is not the primary key: ``Article.slug``. It must be unique, or unique among the rows of a
    parent, and not nullable."""
    parent: Mapped[Any] | None = None
    """A column whose value is in the path, as a parameter of its name: ``Book.author_id`` under ``/authors/{author_id}/books``."""
    parent_key: Mapped[Any] | None = None
    """The column of the parent that is in the path instead: ``Article.slug`` with ``parent=Comment.article_id`` under
    ``/articles/{slug}/comments``. It must be unique."""
    max_batch: int = 1000
    """The most rows in a batch."""
    max_total: int | None = None
    """Lists count no further than this. With 0 they are a Slice, without a total. None: no limit."""
    estimate_total: bool = False
    """On PostgreSQL, a list that is not counted to its end has the total that the planner expects, and says so. It needs ``max_total``."""
    begin: SessionFactory | None = None
    """Opens the sessions of an EXPORT, one for each 1000 rows: ``db.begin``. The service is copied for each, see ``with_session``."""
    require_if_match: bool = False
    """Answer 428 to a write of a row whose ``If-Match`` names no ETag. The model needs a version."""


_NO_OPTIONS = RouterOptions()
_ADDERS: Mapping[Endpoint, Callable[[APIRouter, Source, Sequence[Depends]], None]] = {
    Endpoint.LIST: add_list,
    Endpoint.CREATE: add_create,
    Endpoint.CREATE_MANY: add_create_many,
    Endpoint.EXPORT: add_export,
    Endpoint.GET: add_get,
    Endpoint.UPDATE: add_update,
    Endpoint.REPLACE: add_replace,
    Endpoint.DELETE: add_delete,
}


def crud_router(
    service_class: type[ReadService[ModelT]],
    *,
    read: type[BaseModel],
    session: Dependency[AsyncSession] | None = None,
    service: Dependency[ReadService[ModelT]] | None = None,
    query: type["QuerySpec[ModelT] | KeysetSpec[ModelT]"] | None = None,
    endpoints: Endpoint = Endpoint.CRUD,
    dependencies: Mapping[Endpoint, Sequence[Depends]] | None = None,
    options: RouterOptions = _NO_OPTIONS,
) -> APIRouter:
    """Build the routes of a service.

    A write commits itself in the endpoint, before the response exists. The path of a row has one segment for each attribute of the primary
    key, or one for the column ``key`` of *options*. Each key has one form, the one in ``Location``. Integers beyond the range of their
    column are rejected, and a string key that contains a slash cannot be reached.

    To replace an endpoint, leave it out and declare your own on the router that is returned. Routes that you add there are found before the
    paths of single rows. Functions, routes and operations are named after the table (``list_notes``, ``create_many_notes``) or the model
    (``get_note``, ``create_note``, ``update_note``, ``delete_note``).

    Rows of a model with a version (``VersionMixin``) have an ``ETag``. A read whose ``If-None-Match`` names it is answered 304, and a
    request whose ``If-Match`` does not hold 412. Without a version, any ETag in ``If-Match`` is a 412. ``GET`` routes answer ``HEAD`` too.

    With a parent in *options*, rows of other parents count as missing. ``POST`` takes the column from the path and answers 404 if its
    foreign key finds no parent. A list of an unknown parent is empty. A body that names another parent is rejected (422).

    At start-up the app raises ConfigurationError if a field of *read* cannot be filled from the model, or if its prefix lacks the parameter
    of the parent.

    Args:
        service_class: The service. It names the model and the schemas of the requests. A ReadService can have READ and EXPORT.
        read: The schema of the responses. Of a SparseModel, clients of the list and of single rows may ask for some fields.
        session: A dependency that gives the session, such as ``db.session`` or your own ``get_db``.
        service: A dependency that gives the service, where ``Service(session)`` is not enough. Give either this or *session*.
        query: What a list may be filtered, searched and sorted by. With a KeysetSpec the list has keyset pages.
        endpoints: Which endpoints the router has.
        dependencies: Guards by endpoint, run in the order given: ``{Endpoint.WRITE: [Depends(require_editor)]}``. A key may be several
            endpoints. What guards CREATE guards CREATE_MANY too, what guards UPDATE guards REPLACE, and what guards LIST guards EXPORT;
            keys of CREATE_MANY, REPLACE and EXPORT guard these only.
        options: Options that few routers need.

    Raises:
        ConfigurationError: The service names no model, or no schema that an endpoint needs; the key of the model cannot be part of a path;
            the parent is not a column of the model; *query* is of another model; a key in *options* is not unique; *dependencies* name an
            endpoint that the router lacks; a ReadService has endpoints that write; an EXPORT lacks ``begin``.
        TypeError: Both or neither of *session* and *service* are given.

    Example:
        ```python
        from pydantic import BaseModel
        from sqlalchemy.orm import Mapped, mapped_column

        from fastapi_kit import Base, CRUDService, Database, KitSettings, create_app, crud_router


        class Note(Base):
            __tablename__ = "notes"
            id: Mapped[int] = mapped_column(primary_key=True)
            title: Mapped[str]


        class NoteCreate(BaseModel):
            title: str


        class NoteRead(NoteCreate):
            id: int


        class NoteService(CRUDService[Note, NoteCreate, NoteCreate]): ...


        db = Database("sqlite:///:memory:")
        app = create_app(KitSettings(), database=db, create_tables=True)
        app.include_router(crud_router(NoteService, read=NoteRead, session=db.session), prefix="/notes", tags=["notes"])
        ```
    """
    given = session if service is None else service
    if given is None or (session is not None and service is not None):
        raise TypeError("crud_router() needs exactly one of session= and service=")
    if options.max_batch < 1:
        raise ConfigurationError("max_batch must be at least 1")
    dependencies = dependencies or {}
    if endpoints & ~(Endpoint.READ | Endpoint.EXPORT) and not issubclass(cast("type[object]", service_class), CRUDService):
        raise ConfigurationError(f"{service_class.__name__} only reads: use endpoints=Endpoint.READ, or a CRUDService")
    if Endpoint.EXPORT in endpoints:
        check_export(service_class, options)
    # A batch creates rows, a PUT changes one and an export is a list, so whatever guards one new row, a change or a list guards them too.
    guarded = {key: key | covered_with(key) for key in dependencies}
    if idle := [str(key) for key, covered in guarded.items() if not covered & endpoints]:
        raise ConfigurationError(f"dependencies of {', '.join(idle)} guard nothing: the router has no such endpoint")
    resource = Resource(
        service_class=service_class,
        read=read,
        item=options.list_item or read,
        replacement=options.replace,
        query=query,
        begin=options.begin,
        key_attribute=options.key,
        parent_column=options.parent,
        parent_key=options.parent_key,
        max_batch=options.max_batch,
        max_total=options.max_total,
        estimate_total=options.estimate_total,
        requires_if_match=options.require_if_match,
    )
    if query is not None and (options.max_total is not None or options.estimate_total or not endpoints & (Endpoint.LIST | Endpoint.EXPORT)):
        raise ConfigurationError("query= needs the endpoint LIST or EXPORT, and has a max_total of its own")
    if query is not None and not issubclass(resource.mapper.class_, query.model_class() or object):
        raise ConfigurationError(f"query= is for {query.model_class()}, and the service for {resource.mapper.class_.__name__}")
    if options.require_if_match and not resource.is_versioned:
        raise ConfigurationError(f"require_if_match needs a version: give {resource.mapper.class_.__name__} the VersionMixin")
    source = Source(resource, as_depends(given), cast("Any", service_class) if service is None else lambda given: given)
    router = CRUDRouter()
    router.row_path = resource.path
    for endpoint, add in _ADDERS.items():
        if endpoint in endpoints:
            guards = [guard for key, several in dependencies.items() if endpoint in guarded[key] for guard in several]
            add(router, source, guards)
    router.lifespan_context = checking(router, resource)
    return router


def covered_with(key: Endpoint) -> Endpoint:
    """Return the endpoints that a guard of *key* guards, too."""
    batch = Endpoint.CREATE_MANY if Endpoint.CREATE in key else Endpoint(0)
    export = Endpoint.EXPORT if Endpoint.LIST in key else Endpoint(0)
    return batch | export | (Endpoint.REPLACE if Endpoint.UPDATE in key else Endpoint(0))


def check_export(service_class: type[ReadService[Any]], options: RouterOptions) -> None:
    """Raise ConfigurationError if an export could not open sessions, or could show rows that the list hides."""
    if options.begin is None:
        raise ConfigurationError("EXPORT needs RouterOptions(begin=db.begin): the rows are sent when the session of the request is closed")
    names = ("list", "list_as", "page_as", "slice_as", "keyset_page_as")
    *own, stream = [getattr(service_class, name) is not getattr(ReadService, name) for name in (*names, "stream_as")]
    if any(own) and not stream:
        raise ConfigurationError(
            f"EXPORT does not call {names[own.index(True)]}() of {service_class.__name__}: choose the rows in base_query, or override"
            " stream_as, too"
        )


def checking(router: APIRouter, resource: Resource) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Return the lifespan that rejects an app whose rows cannot be shown, or whose prefix lacks the parent's parameter."""
    # Routes that the application adds later need no parent.
    endpoints = [route.endpoint for route in router.routes if isinstance(route, APIRoute)]

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        for schema in (resource.read, resource.item):
            check_plans(schema, resource.mapper)
        if resource.parent is not None:
            parameter = resource.parent.parameter
            for route in iter_route_contexts(app.routes):
                if any(route.endpoint is each for each in endpoints) and parameter not in route.param_convertors:
                    raise ConfigurationError(f"{route.path_format} needs {{{parameter}}} in the prefix of its router")
        yield

    return lifespan
