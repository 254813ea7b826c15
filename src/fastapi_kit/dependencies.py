"""What the library accepts wherever it takes a dependency, such as ``session=``."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias, TypeVar

from fastapi.dependencies.models import Dependant
from fastapi.params import Depends

__all__ = ["Dependency", "answering", "as_depends", "declare", "statuses_of"]

ValueT = TypeVar("ValueT")
CallT = TypeVar("CallT", bound=Callable[..., object])

Dependency: TypeAlias = (
    Depends
    | Callable[..., ValueT]
    | Callable[..., Awaitable[ValueT]]
    | Callable[..., AsyncIterator[ValueT]]
    | Callable[..., Iterator[ValueT]]
)
"""A marker (``db.session``) or any dependency callable (the host's own ``get_db``) that gives a *ValueT*."""


def as_depends(dependency: Dependency[ValueT]) -> Depends:
    """Return the marker for *dependency*.

    A marker is returned as it is. A callable becomes ``Depends(callable)``, exactly as the host's own routes use it,
    so that a request has one session of it and not two.
    """
    return dependency if isinstance(dependency, Depends) else Depends(dependency)


def answering(*statuses: int) -> Callable[[CallT], CallT]:
    """Mark a dependency with the error statuses that its own errors have: the routes that depend on it document them.

    As a decorator, ``@answering(403)``. OpenAPI shows them, with the app's error body, where the app has the handlers.
    """

    def mark(dependency: CallT) -> CallT:
        vars(dependency)[_STATUSES] = frozenset(statuses)
        return dependency

    return mark


def statuses_of(dependant: Dependant) -> frozenset[int]:
    """Return the statuses that the dependencies of a route are marked with, whatever their depth."""
    own: frozenset[int] = getattr(dependant.call, _STATUSES, frozenset())
    return own.union(*map(statuses_of, dependant.dependencies))


_STATUSES = "fastapi_kit_statuses"


def declare(function: CallT, **parameters: Any) -> CallT:
    """Declare *parameters* of a route's or dependency's *function*: ``Annotated`` types that only the running program knows.

    A variable is no type to the type checkers, so it is put where FastAPI looks for one. FastAPI takes a parameter for one of the path if
    it has its name: call it as no application will, ``__value__``.
    """
    function.__annotations__.update(parameters)
    return function
