"""What the library accepts wherever it takes a dependency, such as ``session=``."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated, Any, TypeAlias, TypeVar

from fastapi.params import Depends
from pydantic.fields import FieldInfo

__all__ = ["Dependency", "as_depends", "parameter"]

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


def parameter(kind: Any, source: FieldInfo) -> Depends:
    """Dependency that reads one parameter of the request as *kind*, which only the running program knows."""

    # FastAPI compares the name with those in the path: no host will have this one there.
    async def read(__value__: Any) -> Any:
        return __value__

    # A variable is no type to the type checkers, so it is put where FastAPI looks for one.
    read.__annotations__["__value__"] = Annotated[kind, source]
    return Depends(read)
