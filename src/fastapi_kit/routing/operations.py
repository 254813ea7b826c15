"""Operation ids: short, stable and unique."""

import re

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from fastapi_kit.errors import ConfigurationError

__all__ = ["check_operation_ids", "operation_id"]


def operation_id(route: APIRoute) -> str:
    """Return ``{tag}_{name}`` of *route*, or its name if it has no tag: for ``FastAPI(generate_unique_id_function=operation_id)``.

    The first tag counts; that of ``include_router`` comes before the route's own. Characters that an identifier cannot have become
    underscores.
    """
    tag = next((str(getattr(tag, "value", tag)) for tag in route.tags), "")
    words = [re.sub(r"\W+", "_", part).strip("_") for part in (tag, route.name)]
    joined = "_".join(filter(None, words))
    return joined if joined.isidentifier() else f"_{joined}"


def check_operation_ids(app: FastAPI) -> None:
    """Check that each operation in the OpenAPI document of *app* has an id of its own. Call it after the last route is added.

    Two operations share one if a router is included twice under one tag, if two routes have the same name and tag or the same
    ``operation_id=``, or if a route has several methods. Routes that are not in the document do not count.

    Raises:
        ConfigurationError: Two operations share an id. The text names both.
    """
    seen: dict[str, str] = {}
    for route in iter_route_contexts([*app.routes, *app.webhooks.routes]):
        if isinstance(route.original_route, APIRoute) and route.include_in_schema:
            shared: str = route.operation_id or route.unique_id
            for method in sorted(route.methods or ()):
                operation = f"{method} {route.path_format}"
                if shared in seen:
                    raise ConfigurationError(
                        f"{seen[shared]} and {operation} have the operation id {shared}: give one another tag, name or operation_id"
                    )
                seen[shared] = operation
