"""The type arguments that a subclass of a generic class gives, and the methods that it overrides."""

from typing import Any, TypeVar, get_args, get_origin

__all__ = ["overrides", "type_arguments"]


def type_arguments(cls: type[Any], base: type[Any]) -> tuple[Any, ...] | None:
    """Return the arguments that *cls* gives for the parameters of *base*, also through generic classes between them, or None.

    ``class NoteService(TenantService[Note, ...])`` with ``class TenantService(CRUDService[M, ...])``, also in the form of PEP 695, gives
    ``Note``. An open parameter stays a TypeVar.
    """
    for parent in cls.__dict__.get("__orig_bases__", cls.__bases__):
        origin = get_origin(parent) or parent
        if not (isinstance(origin, type) and issubclass(origin, base)):
            continue
        given = get_args(parent)
        arguments = given if origin is base else type_arguments(origin, base)
        if arguments and origin is not base:
            filled: dict[Any, Any] = dict(zip(getattr(origin, "__parameters__", ()), given, strict=False))
            arguments = tuple(filled.get(argument, argument) if isinstance(argument, TypeVar) else argument for argument in arguments)
        if arguments:
            return arguments
    return None


def overrides(cls: type[Any], base: type[Any], name: str) -> bool:
    """Return whether *cls* overrides the method *name* of *base*."""
    return getattr(cls, name) is not getattr(base, name)
