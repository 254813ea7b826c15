"""What the library accepts wherever it takes a dependency, such as ``session=``."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeAlias, TypeVar

from fastapi.params import Depends

__all__ = ["Dependency", "as_depends"]

ValueT = TypeVar("ValueT")

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
