"""Operation ids: short, stable, and each used once."""

import re

from fastapi import FastAPI
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts

from fastapi_kit.errors import ConfigurationError

__all__ = ["check_operation_ids", "operation_id"]


def operation_id(route: APIRoute) -> str:
    """Return ``{tag}_{name}`` of *route*, or its name where it has no tag: for ``FastAPI(generate_unique_id_function=operation_id)``.

    The first tag counts, that of ``include_router`` before the route's own. What cannot stand in an identifier becomes an underscore.
    """
    tag = next((str(getattr(tag, "value", tag)) for tag in route.tags), "")
    words = [re.sub(r"\W+", "_", part).strip("_") for part in (tag, route.name)]
    joined = "_".join(filter(None, words))
    return joined if joined.isidentifier() else f"_{joined}"


def check_operation_ids(app: FastAPI) -> None:
    """Raise ConfigurationError, naming both, if two operations in the OpenAPI document of *app* share an id.

    They do where a router is included twice under one tag, where two routes have one name and tag or one ``operation_id=``, and where a
    route has several methods. Routes that are not in the document do not count. Call it when all routes are there.
    """
    seen: dict[str, str] = {}
    for route in iter_route_contexts([*app.routes, *app.webhooks.routes]):
        if isinstance(route.original_route, APIRoute) and route.include_in_schema:
            shared: str = route.operation_id or route.unique_id
            for operation in _operations(route):
                if shared in seen:
                    raise ConfigurationError(
                        f"{seen[shared]} and {operation} have the operation id {shared}: give one another tag, name or operation_id"
                    )
                seen[shared] = operation


def _operations(route: RouteContext) -> list[str]:
    return [f"{method} {route.path_format}" for method in sorted(route.methods or ())]
