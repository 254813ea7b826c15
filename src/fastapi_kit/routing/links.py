"""The ``Link`` header of a list."""

from typing import Any

from fastapi import Request, Response

from fastapi_kit.pagination import KeysetPage, Slice
from fastapi_kit.routing.keys import collection_path

__all__ = ["set_link_header"]


def set_link_header(request: Request, response: Response, page: Slice[Any] | KeysetPage[Any]) -> None:
    """Set the ``Link`` header (RFC 8288) of *response*: the pages beside *page*, for the path and the query of *request*.

    The links have no host name, because a client can choose it. If there are none, there is no header.
    """
    # request.url fails on bytes that are not UTF-8.
    query = request.scope["query_string"].decode("latin-1")
    if links := page.link_header(f"{collection_path(request.scope)}?{query}"):
        response.headers["Link"] = links
