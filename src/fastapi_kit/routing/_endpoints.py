"""The endpoints of a generated router, one function each, and what the OpenAPI document says of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Body, HTTPException, Query, Request, Response
from fastapi.params import Depends
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from fastapi_kit.dependencies import declare
from fastapi_kit.handlers import problem_responses
from fastapi_kit.pagination import Page, PageParams
from fastapi_kit.routing._paths import collection_path
from fastapi_kit.routing._resource import Resource

__all__ = ["BatchRoute", "RowRoute", "add_create", "add_create_many", "add_delete", "add_get", "add_list", "add_update"]


class RowRoute(APIRoute):
    """The route of one row, whose path takes anything for a key."""


class BatchRoute(APIRoute):
    """The route of many rows. Its path is no row's, so the routes of single rows are not asked about another method either."""

    allowed: frozenset[str] = frozenset({"POST"})
    """What the path has in its router."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match every method of the path."""
        match, child_scope = super().matches(scope)
        return (Match.NONE if match is Match.NONE else Match.FULL), child_scope

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve ``POST``; refuse what is left (RFC 9110, 15.5.6)."""
        if scope["method"] != "POST":
            # Of this class the handlers keep the header: to the framework the path of a row is this one's too.
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(self.allowed))})
        await super().handle(scope, receive, send)


class _Window(PageParams):
    skip: Annotated[int, Field(ge=0, le=2**31 - 1, description="How many to leave out at the beginning")] = 0
    limit: Annotated[int, Field(ge=1, le=1000, description="How many to return at most")] = 100


def add_list(router: APIRouter, resource: Resource, guards: Sequence[Depends]) -> None:
    """``GET /``."""

    class Window(_Window):
        max_total: ClassVar = resource.max_total

    async def list_rows(
        given: Annotated[Any, resource.given], __window__: Annotated[Window, Query()], request: Request, response: Response
    ) -> Page[Any]:
        page = await resource.rows(given).page(resource.item, __window__)
        # Not request.url, which fails on bytes that are no UTF-8.
        query = request.scope["query_string"].decode("latin-1")
        response.headers["Link"] = page.link_header(f"{collection_path(request.scope)}?{query}")
        return page

    _add(
        router,
        "GET",
        "",
        list_rows,
        name=f"list_{resource.table}",
        summary=f"List {resource.plural}",
        description=f"One page of the {resource.plural}{resource.confined}, in the order of their keys. A page beyond the end is empty.",
        response_model=Page.__class_getitem__(resource.item),
        response_description="The page, and how many there are in all",
        headers={"Link": "Where the first, previous, next and last pages are (RFC 8288)"},
        errors=(422, 503),
        dependencies=guards,
    )


def add_get(router: APIRouter, resource: Resource, guards: Sequence[Depends]) -> None:
    """``GET /{id}``."""

    async def get_row(given: Annotated[Any, resource.given], __key__: Any) -> BaseModel:
        return await resource.rows(given).get(resource.read, __key__)

    _add(
        router,
        "GET",
        resource.path,
        declare(get_row, __key__=resource.key),
        name=f"get_{resource.name}",
        summary=f"Get {resource.singular}",
        response_model=resource.read,
        response_description=f"The {resource.singular}",
        errors=(404, 422, 503),
        dependencies=guards,
        route_class_override=RowRoute,
    )


def add_create(router: APIRouter, resource: Resource, guards: Sequence[Depends]) -> None:
    """``POST /``."""
    schema = resource.declared("create_schema")
    _ = resource.key  # that of a new row is written in a path

    async def create_row(given: Annotated[Any, resource.given], __data__: Any, request: Request, response: Response) -> BaseModel:
        answer, key = await resource.rows(given).create(resource.read, __data__)
        response.headers["Location"] = resource.location(request, key)
        return answer

    _add(
        router,
        "POST",
        "",
        declare(create_row, __data__=Annotated[schema, Body()]),
        name=f"create_{resource.name}",
        summary=f"Create {resource.singular}",
        status_code=201,
        response_model=resource.read,
        response_description=f"The new {resource.singular}",
        headers={"Location": f"Path of the new {resource.singular}"},
        errors=resource.errors_of_new_rows,
        dependencies=guards,
    )


def add_create_many(router: APIRouter, resource: Resource, guards: Sequence[Depends]) -> None:
    """``POST /batch``."""
    schema = resource.declared("create_schema")
    title = resource.plural.capitalize()
    body = Body(title=title, min_length=1, max_length=resource.max_batch)

    async def create_rows(given: Annotated[Any, resource.given], __data__: Any) -> Sequence[BaseModel]:
        return await resource.rows(given).create_many(resource.read, __data__)

    _add(
        router,
        "POST",
        "/batch",
        declare(create_rows, __data__=Annotated[list.__class_getitem__(schema), body]),
        name=f"create_many_{resource.table}",
        summary=f"Create many {resource.plural}",
        description=f"Stores all of them, or none if one is refused: 1 to {resource.max_batch} in one request.",
        status_code=201,
        response_model=list.__class_getitem__(resource.read),
        response_description=f"The new {resource.plural}, in the order given",
        errors=resource.errors_of_new_rows,
        dependencies=guards,
        route_class_override=None if resource.may_be_key("batch") else BatchRoute,
    )


def add_update(router: APIRouter, resource: Resource, guards: Sequence[Depends]) -> None:
    """``PATCH /{id}``."""
    schema = resource.declared("update_schema")

    async def update_row(given: Annotated[Any, resource.given], __key__: Any, __data__: Any) -> BaseModel:
        return await resource.rows(given).update(resource.read, __key__, __data__)

    _add(
        router,
        "PATCH",
        resource.path,
        declare(update_row, __key__=resource.key, __data__=Annotated[schema, Body()]),
        name=f"update_{resource.name}",
        summary=f"Update {resource.singular}",
        description="Changes the fields that are sent and leaves all others as they are.",
        response_model=resource.read,
        response_description=f"The {resource.singular} after the change",
        errors=(400, 404, 409, 413, 422, 503),
        dependencies=guards,
        route_class_override=RowRoute,
    )


def add_delete(router: APIRouter, resource: Resource, guards: Sequence[Depends]) -> None:
    """``DELETE /{id}``."""

    async def delete_row(given: Annotated[Any, resource.given], __key__: Any) -> None:
        await resource.rows(given).delete(__key__)

    _add(
        router,
        "DELETE",
        resource.path,
        declare(delete_row, __key__=resource.key),
        name=f"delete_{resource.name}",
        summary=f"Delete {resource.singular}",
        status_code=204,
        response_description=f"The {resource.singular} is gone",
        errors=(404, 409, 422, 503),
        dependencies=guards,
        route_class_override=RowRoute,
    )


def _add(
    router: APIRouter,
    method: str,
    path: str,
    endpoint: Callable[..., Any],
    *,
    name: str,
    errors: Sequence[int],
    status_code: int = 200,
    headers: Mapping[str, str] | None = None,
    **documented: Any,
) -> None:
    # Traces and logs show the function's name.
    endpoint.__name__ = endpoint.__qualname__ = name
    documents = {header: {"description": text, "schema": {"type": "string"}} for header, text in (headers or {}).items()}
    router.add_api_route(
        path,
        endpoint,
        methods=[method],
        name=name,
        status_code=status_code,
        responses={**problem_responses(*errors), **({status_code: {"headers": documents}} if documents else {})},
        **documented,
    )
