"""The route that a request has taken."""

from collections.abc import Iterable, Iterator

from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.types import Scope

__all__ = ["app_path", "effective_route", "route_template"]


def app_path(scope: Scope) -> str:
    """Return the path below the ``root_path``, whether or not a proxy has removed that."""
    path, root = scope["path"], scope.get("root_path", "")
    inside: str = path[len(root) :] if path.startswith(root) else path
    return inside if inside[:1] in {"", "/"} else path


def effective_route(scope: Scope) -> object:
    """Return the route that FastAPI has noted in *scope*, with what its included routers add, or None."""
    route = scope.get("route")
    context = scope.get("fastapi", {}).get("effective_route_context")
    return context if context is not None and context.original_route is route else route


def route_template(scope: Scope, routes: Iterable[BaseRoute], root_path: str) -> str | None:
    """Return the path template of the route that *scope* was sent to, with the prefixes of routers and mounts, or None if none matched.

    *routes* and *root_path* are those before the request was routed. The template holds nothing of the request's own path.
    """
    mounted = scope.get("root_path", "").removeprefix(root_path)
    found = behind_mounts(routes, mounted) if mounted else ("", routes)
    if found is None:
        return None
    prefix, inner = found
    route = effective_route(scope)
    # A mount is only on the way. A plain Starlette app notes it as well.
    template: str | None = None if isinstance(route, Mount) else getattr(route, "path_format", None)
    template = template or path_of_endpoint(scope, inner)
    if template is None:
        return f"{prefix}/{{path}}" if prefix else None
    return prefix + template


def path_of_endpoint(scope: Scope, routes: Iterable[BaseRoute]) -> str | None:
    """Return the template of a plain Starlette route, or of a mount at ``/``. They note only their endpoint."""
    endpoint, path = scope.get("endpoint"), app_path(scope)
    for route in flat(routes):
        match route:
            case Route(endpoint=own) | WebSocketRoute(endpoint=own) | Mount(app=own) if own is endpoint and route.path_regex.match(path):
                return route.path_format
            case _:
                pass
    return None


def behind_mounts(routes: Iterable[BaseRoute], path: str) -> tuple[str, Iterable[BaseRoute]] | None:
    """Return the templates of the mounts that lead to *path*, and the routes behind the last one."""
    for route in (route for route in flat(routes) if isinstance(route, Mount)):
        found = route.path_regex.match(f"{path}/")
        if found is None:
            continue
        rest = found["path"].rstrip("/")
        inner = behind_mounts(route.routes, f"/{rest}") if rest else ("", route.routes)
        if inner is not None:
            return route.path + inner[0], inner[1]
    return None


def flat(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """Yield *routes*, with those of included routers one by one."""
    for route in routes:
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is None:
            yield route
        else:
            yield from (context.starlette_route or context.original_route for context in contexts())
