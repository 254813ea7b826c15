"""The endpoints of a generated router that read: its list and its single rows."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.params import Depends
from pydantic import BaseModel

from fastapi_kit.crud.sparse import SparseSpec
from fastapi_kit.dependencies import declare
from fastapi_kit.etags import answer_with_etag, check_if_match
from fastapi_kit.pagination import KeysetPage, Slice
from fastapi_kit.routing.links import set_link_header
from fastapi_kit.routing.routes import ETAG, IF_NONE_MATCH, RowRoute, add_route

if TYPE_CHECKING:
    from fastapi_kit.routing.endpoints import Source

__all__ = ["add_get", "add_list"]


def add_list(router: APIRouter, source: "Source", guards: Sequence[Depends]) -> None:
    """``GET /``."""
    resource, parent = source.resource, source.parent

    async def list_rows(
        given: Annotated[Any, source.given], __query__: Any, request: Request, response: Response
    ) -> Slice[Any] | KeysetPage[Any]:
        rows = source.rows(given)
        page = await resource.list_method(rows.service)(resource.item, __query__, *rows.conditions)
        set_link_header(request, response, page)
        return page

    confined = "" if parent is None else f" with this {parent.parameter.replace('_', ' ')}"
    add_route(
        router,
        "GET",
        "",
        declare(list_rows, __query__=Annotated[resource.list_query, Query()]),
        name=f"list_{resource.table}",
        summary=f"List {resource.plural}",
        description=f"One page of the {resource.plural}{confined}{resource.order_words}. A page beyond the end is empty.",
        response_model=resource.page.__class_getitem__(resource.item),
        response_description=f"The page, and {resource.page_words}",
        headers={"Link": "Where the other pages are (RFC 8288)"},
        errors=(422, 503) if parent is None or parent.key is None else (404, 422, 503),
        dependencies=guards,
    )


def add_get(router: APIRouter, source: "Source", guards: Sequence[Depends]) -> None:
    """``GET /{id}``."""
    resource = source.resource

    async def get_row(given: Annotated[Any, source.given], __key__: Any, request: Request, response: Response) -> BaseModel:
        return await answer(given, __key__, None, request, response)

    async def get_part(
        given: Annotated[Any, source.given], __key__: Any, __query__: Any, request: Request, response: Response
    ) -> BaseModel:
        return await answer(given, __key__, __query__ if __query__.is_given else None, request, response)

    async def answer(given: Any, key: object, part: SparseSpec[Any] | None, request: Request, response: Response) -> BaseModel:
        rows = source.rows(given)
        if resource.is_versioned and part is None:
            shown = await rows.get(key)
            answer_with_etag(shown.row, shown=shown.answer, request=request, response=response)
            return shown.answer
        found: BaseModel = await rows.service.get_as(part or resource.read, resource.found_by(key), *rows.conditions)
        if resource.is_versioned:
            answer_with_etag(found, request=request, response=response)
        else:
            check_if_match(request)
        return found

    choice = resource.choice
    endpoint: Callable[..., Awaitable[BaseModel]] = get_row if choice is None else get_part
    asked = {} if choice is None else {"__query__": Annotated[choice, Query()]}
    add_route(
        router,
        "GET",
        resource.path,
        declare(endpoint, __key__=resource.key, **asked),
        name=f"get_{resource.name}",
        summary=f"Get {resource.singular}",
        response_model=resource.read,
        response_description=f"The {resource.singular}",
        errors=(404, 412, 422, 503) if resource.is_versioned else (404, 422, 503),
        headers=ETAG if resource.is_versioned else {},
        responses={304: {"description": "The client has this response"}} if resource.is_versioned else {},
        asks=IF_NONE_MATCH if resource.is_versioned else {},
        dependencies=guards,
        route_class_override=RowRoute,
    )
