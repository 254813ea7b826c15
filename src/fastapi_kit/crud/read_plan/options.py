"""Loader options for what a read schema needs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from sqlalchemy.orm import (
    Mapper,
    MapperProperty,
    RelationshipDirection,
    RelationshipProperty,
    defaultload,
    joinedload,
    load_only,
    selectin_polymorphic,
    selectinload,
    undefer,
)
from sqlalchemy.orm.interfaces import ORMOption

from fastapi_kit.crud.read_plan.needs import Needs

__all__ = ["GivenOptions", "loader_options", "only_columns"]

State: TypeAlias = frozenset[Needs]
"""What is needed of the objects at one place. Several fields may read the same relationship and need different things."""

_Names: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class GivenOptions:
    """The loader options that a statement has already: their *paths*, and whether they load there.

    *narrowed* means that they leave out columns. *polymorphic* are the subclasses that they load, by path.
    """

    paths: dict[_Names, bool]
    polymorphic: dict[_Names, list[type[object]]]
    narrowed: bool

    @classmethod
    def of(cls, options: Sequence[ORMOption]) -> "GivenOptions":
        """Read *options*. SQLAlchemy rejects two strategies for one path, so their paths get no option of the plan."""
        paths, polymorphic = dict[_Names, bool](), dict[_Names, list[type[object]]]()
        loads: list[Any] = list(options)
        elements: list[Any] = [element for load in loads for element in getattr(load, "context", ())]
        wildcards: list[Any] = [load.path[0] for load in loads if isinstance(getattr(load, "path", None), tuple)]
        for element in elements:
            strategy: dict[str, object] = dict(element.strategy or ())
            *_, last = element.path.path
            names = tuple(part.key for part in element.path.path if isinstance(part, MapperProperty))
            if isinstance(last, str):
                wildcards.append(last)
            elif "selectinload_polymorphic" in strategy:
                polymorphic[names] = [each.class_ for each in element.local_opts["entities"]]
            elif strategy:
                paths[names] = strategy.get("lazy") not in {"raise", "raise_on_sql", "noload"}
        narrowed = any(str(wildcard).startswith("column:") for wildcard in wildcards)
        return cls(paths, polymorphic, narrowed)


def loader_options(needs: Needs, given: GivenOptions, *, join: bool) -> list[ORMOption]:
    """Return the options that load what *needs* says, in addition to the *given* ones.

    Each collection takes one more select. A many-to-one relationship is joined, on the statement itself only if *join*. Trees through one
    relationship are loaded to their full depth, trees through several relationships to one level.
    """
    return list(Emitter(given).options(Place(frozenset([needs])), join=join))


def only_columns(needs: Needs) -> list[ORMOption]:
    """Return the option that loads no columns but those that *needs* says, and the keys of its relationships.

    It is empty where code of the application computes attributes, because that may read other columns, and for a hierarchy of classes.
    """
    mapper = needs.mapper
    if needs.computed or mapper.inherits or mapper.polymorphic_on is not None:
        return []
    keys = {column for each in needs.relationships for column in each.local_columns}
    columns = [*needs.columns, *(each for each in mapper.column_attrs if not keys.isdisjoint(each.columns))]
    attributes = [each.class_attribute for each in dict.fromkeys(columns)]
    return [load_only(*attributes)] if attributes else []


@dataclass(frozen=True)
class Emitter:
    given: GivenOptions

    def options(self, place: "Place", *, join: bool) -> Iterator[Any]:
        """Yield the options for the objects at *place*."""
        mapper = next(iter(place.state)).mapper
        given = self.given.polymorphic.get(place.path)
        columns = dict.fromkeys(column for needs in place.state for column in needs.columns if is_reached(column, mapper, given))
        named = dict.fromkeys(each for needs in place.state for each in needs.relationships if is_reached(each, mapper, given))
        relationships = [each for each in named if each not in place.followed]
        subclasses = dict.fromkeys(each.parent.class_ for each in (*columns, *relationships) if not mapper.isa(each.parent))
        if subclasses:
            # Repeated if it was given: without it the options below would not apply to the subclasses.
            yield selectin_polymorphic(mapper.class_, given or list(subclasses))
        for column in columns:
            if (column.deferred or self.given.narrowed) and (*place.path, column.key) not in self.given.paths:
                yield undefer(column.class_attribute)
        if place.state not in place.above:
            for each in relationships:
                yield from self.relationship_options(place, each, join=join and mapper.isa(each.parent))

    def relationship_options(self, place: "Place", relationship: RelationshipProperty[Any], *, join: bool) -> Iterator[Any]:
        attribute = relationship.class_attribute
        below = place.below(relationship)
        if below.path in self.given.paths:
            if self.given.paths[below.path] and (inner := self.inner(below, join=False)):
                yield defaultload(attribute).options(*inner)
        elif below.state and below.below(relationship).state == below.state:
            yield selectinload(attribute, recursion_depth=-1).options(*self.inner(place.tree(relationship)))
        elif join and joins_one_row(relationship):
            yield joinedload(attribute).options(*self.inner(below))
        else:
            yield selectinload(attribute).options(*self.inner(below))

    def inner(self, place: "Place", *, join: bool = True) -> list[Any]:
        return list(self.options(place, join=join)) if place.state else []


@dataclass(frozen=True)
class Place:
    """A place for options: at *path*, with the states *above* it. *followed* are relationships that are loaded to every depth already."""

    state: State
    path: _Names = ()
    above: tuple[State, ...] = ()
    followed: frozenset[RelationshipProperty[Any]] = frozenset()

    def below(self, relationship: RelationshipProperty[Any]) -> "Place":
        """Return the place of the related objects."""
        state = frozenset(child for needs in self.state for child in needs.relationships.get(relationship, ()))
        return Place(state, (*self.path, relationship.key), (*self.above, self.state))

    def tree(self, relationship: RelationshipProperty[Any]) -> "Place":
        """Return the place of all nodes of the tree along *relationship*."""
        nodes = self.below(relationship)
        followed = self.followed if nodes.state == self.state else frozenset[RelationshipProperty[Any]]()
        above = tuple(state for state in nodes.above if state != nodes.state)
        return replace(nodes, above=above, followed=followed | {relationship})


def is_reached(attribute: MapperProperty[Any], mapper: Mapper[Any], given: list[type[object]] | None) -> bool:
    """Return whether an option can load *attribute*, if *given* are the only subclasses of *mapper* that are loaded."""
    return given is None or mapper.isa(attribute.parent) or any(issubclass(cls, attribute.parent.class_) for cls in given)


def joins_one_row(relationship: RelationshipProperty[Any]) -> bool:
    """Return whether a join along *relationship* keeps the number of rows: it leads to the primary key of the other side."""
    to_one = relationship.direction is RelationshipDirection.MANYTOONE and not relationship.uselist and relationship.secondary is None
    return to_one and set(relationship.mapper.primary_key) <= relationship.remote_side
