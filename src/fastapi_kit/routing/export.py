"""The endpoint that streams all rows of a list, as NDJSON or as CSV."""

import logging
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, cast

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.params import Depends
from fastapi.responses import JSONResponse, StreamingResponse

from fastapi_kit.crud.export import csv_columns, csv_lines
from fastapi_kit.crud.filters.specs import FilterSpec, without_window
from fastapi_kit.crud.sparse import chosen_by, with_choice
from fastapi_kit.dependencies import declare
from fastapi_kit.handlers.answers import kinds_of
from fastapi_kit.routing.routes import BatchRoute, add_route

if TYPE_CHECKING:
    from fastapi_kit.routing.endpoints import Source

__all__ = ["add_export", "best_of"]

_log = logging.getLogger("fastapi_kit.routing")


class NDJSONResponse(JSONResponse):
    """Gives OpenAPI the media type. FastAPI shows schemas of JSON responses only."""

    media_type = "application/x-ndjson"


_SUFFIXES: Mapping[str, str] = {NDJSONResponse.media_type: "ndjson", "text/csv": "csv"}
"""The suffix of a file by media type. The first is the default."""


def add_export(router: APIRouter, source: "Source", guards: Sequence[Depends]) -> None:
    """``GET /export``."""
    resource, parent = source.resource, source.parent
    csv_columns(resource.item)  # raises for a schema without columns
    unfiltered = cast("type[FilterSpec[Any]]", FilterSpec.__class_getitem__(resource.mapper.class_))
    file = re.sub(r"[^A-Za-z0-9_-]", "_", resource.table)

    async def export_rows(given: Annotated[Any, source.given], __query__: Any, request: Request) -> StreamingResponse:
        media_type = best_of(list(_SUFFIXES), accept=",".join(request.headers.getlist("accept")))
        if media_type is None:
            raise HTTPException(406, f"The export is {' or '.join(_SUFFIXES)}.")
        rows = source.rows(given)
        asked, begin = (resource.item, __query__, *rows.conditions), resource.begin
        if media_type == "text/csv":
            chunks = csv_lines(rows.service.stream_as(*asked, begin=begin), schema=chosen_by(__query__, resource.item))
        else:
            chunks = rows.service.stream_json_as(*asked, begin=begin)
        # What fails before the first byte is an ordinary error.
        first = await anext(chunks, b"")
        if request.method == "HEAD":
            await chunks.aclose()
            first = b""
        headers = {"Content-Disposition": f'attachment; filename="{file}.{_SUFFIXES[media_type]}"', "Vary": "Accept"}
        return StreamingResponse(rest_of(chunks, first, of=resource.plural), headers=headers, media_type=media_type)

    confined = "" if parent is None else f" with this {parent.parameter.replace('_', ' ')}"
    sent = "They are sent while they are read, so they are not of one moment. An answer that breaks off is not complete."
    add_route(
        router,
        "GET",
        "/export",
        declare(export_rows, __query__=Annotated[with_choice(without_window(resource.query or unfiltered), resource.item), Query()]),
        name=f"export_{resource.table}",
        summary=f"Export {resource.plural}",
        description=f"All {resource.plural}{confined}{resource.order_words}, as NDJSON or CSV. {sent}",
        response_model=resource.item,
        response_class=NDJSONResponse,
        response_description=f"The {resource.plural}: one in each line, as JSON or, below a header, as CSV",
        headers={"Content-Disposition": "The name of the file (RFC 6266)"},
        errors=(406, 422, 503) if parent is None or parent.key is None else (404, 406, 422, 503),
        responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
        dependencies=guards,
        route_class_override=None if resource.may_be_key("export") else BatchRoute,
    )


async def rest_of(chunks: AsyncGenerator[bytes], first: bytes, *, of: str) -> AsyncGenerator[bytes]:
    """Yield *first* and then *chunks*. An error is logged and raised, so that the server breaks the connection off."""
    async with aclosing(chunks):
        try:
            yield first
            async for chunk in chunks:
                yield chunk
        except Exception as error:
            _log.error("The export of %s broke off: %s", of, kinds_of(error))
            raise


def best_of(offered: Sequence[str], *, accept: str) -> str | None:
    """Return the media type of *offered* that the header *accept* prefers, the first of equals, or None (RFC 9110, 12.5.1)."""
    ranges = dict(map(media_range, accept.lower().split(","))) if accept.strip() else {"*/*": 1.0}

    def quality(media_type: str) -> float:
        names = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        return next((ranges[name] for name in names if name in ranges), 0)

    best = max(offered, key=quality)
    return best if quality(best) > 0 else None


def media_range(text: str) -> tuple[str, float]:
    name, *parameters = (part.strip() for part in text.split(";"))
    weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
    return name, float(weight) if re.fullmatch(r"[01](\.[0-9]*)?", weight) else 0.0
