"""Which types a subclass of a generic class gave for its parameters."""

from collections.abc import Sequence
from typing import Any, TypeVar, get_args, get_origin

__all__ = ["overrides", "type_arguments"]


def type_arguments(cls: type[Any], base: type[Any]) -> tuple[Any, ...] | None:
    """Return what *cls* gives for the parameters of *base*, through generic classes between them; None where it gives nothing.

    ``class NoteService(TenantService[Note, ...])`` with ``class TenantService(CRUDService[M, ...])``, or the PEP 695 form of it, gives
    ``Note``. A parameter that is still open stays a TypeVar.
    """
    for parent in cls.__dict__.get("__orig_bases__", cls.__bases__):
        origin = get_origin(parent) or parent
        if not (isinstance(origin, type) and issubclass(origin, base)):
            continue
        given = get_args(parent)
        arguments = given if origin is base else type_arguments(origin, base)
        if arguments and origin is not base:
            arguments = substitute(arguments, getattr(origin, "__parameters__", ()), given)
        if arguments:
            return arguments
    return None


def overrides(cls: type[Any], base: type[Any], name: str) -> bool:
    """Return whether *cls* has another method *name* than *base*."""
    return getattr(cls, name) is not getattr(base, name)


def substitute(arguments: Sequence[Any], parameters: Sequence[Any], given: Sequence[Any]) -> tuple[Any, ...]:
    filled = dict(zip(parameters, given, strict=False))
    return tuple(filled.get(argument, argument) if isinstance(argument, TypeVar) else argument for argument in arguments)
