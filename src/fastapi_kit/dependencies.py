"""What you can pass where the library takes a dependency, such as ``session=``."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias, TypeVar

from anyio import CancelScope
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant
from fastapi.exceptions import DependencyScopeError
from fastapi.params import Depends
from fastapi.security.base import SecurityBase
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from starlette.exceptions import HTTPException
from starlette.requests import Request

from fastapi_kit.errors import ConfigurationError, FieldError, InvalidQueryError
from fastapi_kit.middleware.routes import effective_route

__all__ = [
    "CHALLENGES",
    "CROSS_SITE",
    "OPTIONAL",
    "SAFE_METHODS",
    "Dependency",
    "answering",
    "as_depends",
    "declare",
    "reject_unknown_query",
    "rejects_cross_site",
    "requires_login",
    "statuses_of",
    "while_connected",
]

ValueT = TypeVar("ValueT")
CallT = TypeVar("CallT", bound=Callable[..., object])

Dependency: TypeAlias = (
    Depends
    | Callable[..., ValueT]
    | Callable[..., Awaitable[ValueT]]
    | Callable[..., AsyncIterator[ValueT]]
    | Callable[..., Iterator[ValueT]]
)
"""A marker (``db.session``), or any dependency callable (your own ``get_db``), that gives a *ValueT*."""


def as_depends(dependency: Dependency[ValueT]) -> Depends:
    """Return the marker for *dependency*.

    A marker is returned as it is. A callable becomes ``Depends(callable)``, as the routes of your application use it, so that a request
    has one session of it and not two.

    Raises:
        ConfigurationError: *dependency* has a ``yield`` and depends on one that ends before the response, such as ``db.session``.
    """
    if isinstance(dependency, Depends):
        return dependency
    check_scopes(dependency)
    return Depends(dependency)


def check_scopes(dependency: Callable[..., object]) -> None:
    """Raise ConfigurationError where FastAPI would raise DependencyScopeError, whose text names no cure."""
    try:
        get_dependant(path="/", call=dependency)
    except DependencyScopeError as error:
        raise ConfigurationError(
            f"{error} One with that scope, such as db.session, ends before the response is sent, and one with yield after it: "
            'write return instead of yield, or Depends(..., scope="function")'
        ) from None
    except Exception:
        # Such as a name that is defined further down in the module: FastAPI raises it if it is an error when a route is added.
        return


def answering(*statuses: int) -> Callable[[CallT], CallT]:
    """Mark a dependency, or the function of a route, with the statuses of the errors that it raises: ``@answering(404, 409)``.

    OpenAPI shows them for the route, or for every route that depends on it at any depth, with the error body of the app, if the app has
    registered the handlers. It goes below the decorator of a route.
    """

    def mark(dependency: CallT) -> CallT:
        vars(dependency)[_STATUSES] = frozenset(statuses)
        return dependency

    return mark


def statuses_of(dependant: Dependant) -> frozenset[int]:
    """Return the statuses that the dependencies of a route are marked with, at any depth."""
    own: frozenset[int] = getattr(dependant.call, _STATUSES, frozenset())
    return own.union(*map(statuses_of, dependant.dependencies))


def requires_login(dependant: Dependant) -> bool:
    """Return whether a security scheme of a route is required: not only for an optional user, or a dependency above answers 401."""
    if 401 in getattr(dependant.call, _STATUSES, ()):
        return True
    if getattr(dependant.call, OPTIONAL, False):
        return False
    call: object = dependant.call
    return isinstance(call, SecurityBase) or any(map(requires_login, dependant.dependencies))


def rejects_cross_site(dependant: Dependant) -> bool:
    """Return whether a dependency of a route, at any depth, answers 403 to methods that change something if another site sends them."""
    return getattr(dependant.call, CROSS_SITE, False) or any(map(rejects_cross_site, dependant.dependencies))


_STATUSES = "fastapi_kit_statuses"
CROSS_SITE = "fastapi_kit_cross_site"
"""The attribute of a dependency that rejects requests of other sites, except those with one of ``SAFE_METHODS``."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""The methods that change nothing (RFC 9110, 9.2.1)."""
OPTIONAL = "fastapi_kit_optional"
"""The attribute of a dependency that asks for credentials and goes on without."""
CHALLENGES = "fastapi_kit.challenges"
"""The key in the scope of a request under which the challenges of its 401 are, the latest last."""


async def cancel_when_gone(request: Request) -> AsyncIterator[None]:
    """Cancel the request when its client has gone."""

    async def watch() -> None:
        has_ended = False
        while (message := await request.receive())["type"] != "http.disconnect":
            if has_ended:
                return  # some servers repeat the end of the body and never wait for the client
            has_ended = not message.get("more_body", False)
        scope.cancel()

    # A scope cancels until the request ends. A single cancellation may be lost: asyncio.wait_for swallows it in Python 3.11 if it has a
    # result, for example a connection of SQLAlchemy's pool.
    with CancelScope() as scope:
        watcher = asyncio.ensure_future(watch())
        try:
            yield
        finally:
            watcher.cancel()
    if scope.cancelled_caught:
        raise HTTPException(499, "The client has gone.")


while_connected = Depends(cancel_when_gone, scope="function")
"""Cancels a request when its client has gone: ``dependencies=[while_connected]`` of an async route.

Without it, a server runs a request to its end. It is for requests that wait for others, such as logins, which wait for a thread to verify
the password. The route must take its body as parameters, not from ``request.stream()``.
With a session that commits at the end of the request, such as ``db.transaction``, make it the last parameter instead,
``connected: Annotated[None, while_connected]``: otherwise the COMMIT may be cancelled, and whether it happened is unknown.
"""


async def check_query(request: Request) -> None:
    """Raise InvalidQueryError for query parameters that the route does not declare."""
    dependant = getattr(effective_route(request.scope), "dependant", None)
    known = query_parameters(dependant) if isinstance(dependant, Dependant) else frozenset[str]()
    if unknown := sorted(request.query_params.keys() - known):
        allowed = sorted(known)
        message = f"is not a parameter; the parameters are {', '.join(allowed)}"
        errors = [FieldError(("query", name), "unknown_parameter", message) for name in unknown]
        raise InvalidQueryError("The query has parameters that are not known.", allowed=allowed, errors=errors)


def query_parameters(dependant: Dependant) -> frozenset[str]:
    """Return the names of the query parameters of a route and of its dependencies, as a client sends them."""
    own = frozenset(name for field in dependant.query_params for name in names_of(field.field_info, field.alias))
    return own.union(*map(query_parameters, dependant.dependencies))


def names_of(info: FieldInfo, alias: str) -> Iterator[str]:
    """Yield the parameters that a model of parameters consists of, or the *alias* of a single one."""
    if not (isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)):
        yield alias
        return
    for name, field in info.annotation.model_fields.items():
        yield field.validation_alias if isinstance(field.validation_alias, str) else field.alias or name


reject_unknown_query = Depends(check_query)
"""Rejects query parameters that neither the route nor its dependencies declare: ``dependencies=[reject_unknown_query]``.

For routes where a QuerySpec, which knows its own parameters only, has ``ConfigDict(extra="ignore")``, because a dependency has others.
"""


def declare(function: CallT, **parameters: Any) -> CallT:
    """Set the types of *parameters* of *function*, a route or dependency, to ``Annotated`` types that are made at run time.

    Type checkers reject a variable as a type, so it is put where FastAPI looks for one. FastAPI treats a parameter as one of the path if
    the path has its name, so give it a name that no application uses: ``__value__``.
    """
    function.__annotations__.update(parameters)
    return function
