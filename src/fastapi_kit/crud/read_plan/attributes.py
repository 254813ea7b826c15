"""The attributes of a mapped class by name: mapped ones, properties, proxies, and the names that their code uses."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import partial
from types import CodeType, FunctionType
from typing import Any, TypeAlias

from sqlalchemy.ext.associationproxy import AssociationProxy
from sqlalchemy.orm import (
    ColumnProperty,
    CompositeProperty,
    Mapper,
    MapperProperty,
    QueryableAttribute,
    RelationshipProperty,
    SynonymProperty,
)
from sqlalchemy.orm.descriptor_props import ConcreteInheritedProperty

__all__ = [
    "Attribute",
    "Column",
    "Composite",
    "Relationship",
    "Unmapped",
    "attribute_of",
    "has_load_listener",
    "has_own_descriptor",
    "is_dynamic",
    "names_behind",
    "names_in",
    "owners_of",
    "with_names_behind",
]

Column: TypeAlias = ColumnProperty[Any]
Composite: TypeAlias = CompositeProperty[Any]
Relationship: TypeAlias = RelationshipProperty[Any]


@dataclass(frozen=True, eq=False)
class Unmapped:
    """An attribute of a mapped class that is not mapped: a property, a proxy, a plain value."""

    value: object


Attribute: TypeAlias = Column | Composite | Relationship | Unmapped

_MISSING = object()
_LOAD_NO_COLUMNS = {"sqlalchemy.ext.mutable", "sqlalchemy.orm.descriptor_props"}
"""Modules of SQLAlchemy with load listeners that change no column: those of mutable types and composites."""


def has_load_listener(mapper: Mapper[Any]) -> bool:
    """Return whether code of the application runs when an object of *mapper* is loaded: a listener or a reconstructor."""
    listeners = (listener for each in mapper.self_and_descendants for listener in each.class_manager.dispatch.load)
    return any(listener.__module__ not in _LOAD_NO_COLUMNS for listener in listeners)


def has_own_descriptor(synonym: SynonymProperty[Any]) -> bool:
    """Return whether *synonym* has a descriptor of the application, which is read instead of the attribute it stands for."""
    return getattr(getattr(synonym.descriptor, "fget", None), "__module__", None) != "sqlalchemy.orm.descriptor_props"


def attribute_of(mapper: Mapper[Any], name: str) -> Attribute | None:
    """Return the attribute that ``getattr(row, name)`` reads, or None. For a synonym it is the attribute that it stands for."""
    attribute: MapperProperty[Any] | None = mapper.attrs.get(name)
    if isinstance(attribute, SynonymProperty):
        return Unmapped(attribute.descriptor) if has_own_descriptor(attribute) else attribute_of(mapper, attribute.name)
    if isinstance(attribute, ConcreteInheritedProperty):
        return None
    if isinstance(attribute, ColumnProperty | CompositeProperty | RelationshipProperty):
        return attribute
    value = inspect.getattr_static(mapper.class_, name, _MISSING)
    return None if value is _MISSING else Unmapped(value)


def owners_of(mapper: Mapper[Any], name: str) -> list[Mapper[Any]]:
    """Return *mapper* if its class has the attribute *name*, else the topmost subclasses that have it."""
    owners = list[Mapper[Any]]()
    for each in mapper.self_and_descendants:
        if not any(each.isa(owner) for owner in owners) and attribute_of(each, name) is not None:
            owners.append(each)
    return owners


def is_dynamic(mapper: Mapper[Any], names: Iterable[str]) -> bool:
    """Return whether objects may have one of *names* although their class does not define it.

    That is so with ``__getattr__``, with code that runs when objects are loaded, and with a bare annotation of that name.
    """
    classes = [cls for each in mapper.self_and_descendants for cls in each.class_.__mro__]
    own = [cls for cls in classes if cls.__module__.partition(".")[0] not in {"builtins", "pydantic", "sqlmodel"}]
    looked_up = any(not {"__getattr__", "__getattribute__"}.isdisjoint(vars(cls)) for cls in own)
    announced = {name for cls in own for name in inspect.get_annotations(cls)}
    return looked_up or has_load_listener(mapper) or any(name in announced and not owners_of(mapper, name) for name in names)


# --- The names in the application's code ---


def functions_of(descriptor: object) -> Iterator[FunctionType]:
    """Yield the Python functions that reading *descriptor* may call: those of a property, hybrid, cached property or method."""
    for part in (descriptor, *(getattr(descriptor, name, None) for name in ("fget", "func", "__func__"))):
        function = inspect.unwrap(part.func if isinstance(part, partial) else part) if callable(part) else None
        function = getattr(function, "__func__", function)
        if isinstance(function, FunctionType):
            yield function


def names_in(functions: Sequence[Callable[..., Any]]) -> frozenset[str]:
    """Return the names in the code of *functions*, and of the functions of the same module that they call."""
    waiting = [function for each in functions for function in functions_of(each)]
    names, seen = set[str](), set[FunctionType]()
    while waiting:
        function = waiting.pop()
        if function not in seen:
            seen.add(function)
            used = set(names_of_code(function.__code__))
            names |= used
            called = (function.__globals__.get(name) for name in used)
            waiting += [each for each in called if isinstance(each, FunctionType) and each.__module__ == function.__module__]
    return frozenset(names)


def names_of_code(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_of_code(constant)


def names_behind(mapper: Mapper[Any], names: Set[str]) -> frozenset[str]:
    """Return the names that the properties, proxies and methods with *names* use, in the class, its bases and its subclasses."""
    classes = dict.fromkeys(cls for each in mapper.self_and_descendants for cls in each.class_.__mro__)
    found = [vars(cls)[name] for cls in classes for name in names if name in vars(cls)]
    unmapped = [each for each in found if not isinstance(each, QueryableAttribute)]
    proxied = {name for each in unmapped if isinstance(each, AssociationProxy) for name in (each.target_collection, each.value_attr)}
    return names_in([function for each in unmapped for function in functions_of(each)]) | proxied


def with_names_behind(names: frozenset[str], mapper: Mapper[Any]) -> frozenset[str]:
    """Return *names* and, transitively, the names behind them."""
    known, new = names, names
    while new:
        new = names_behind(mapper, new) - known
        known |= new
    return known
