"""What can be set on a model, and how its columns take values."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AnySet
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, TypeVar, cast

from pydantic import BaseModel
from sqlalchemy import Column, inspect
from sqlalchemy.ext.associationproxy import AssociationProxy
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapper, RelationshipDirection

from fastapi_kit.crud._conversions import Converter, MisfitError, converter_of
from fastapi_kit.crud.read_plan.attributes import has_own_descriptor
from fastapi_kit.errors import ConfigurationError

__all__ = ["Attributes", "Values", "attributes_of", "mapper_of", "per_mapper"]

CachedT = TypeVar("CachedT")

Values: TypeAlias = Mapping[str, Any]
"""Values by attribute, used without ``create_values``. SQL expressions are allowed, unknown names are rejected."""


def mapper_of(model: type[object]) -> Mapper[Any]:
    """Return the mapper of *model*.

    Raises:
        ConfigurationError: *model* is not a mapped class.
    """
    mapper: Mapper[Any] | None = inspect(model, raiseerr=False)
    if mapper is None:
        raise ConfigurationError(f"{model!r} is not a mapped class")
    return mapper


def per_mapper(make: Callable[[Mapper[Any]], CachedT]) -> Callable[[Mapper[Any]], CachedT]:
    """Return *make* with a cache: one result for each mapper, which lives as long as the model."""

    def of(mapper: Mapper[Any]) -> CachedT:
        known: dict[Any, Any] = cast("Any", mapper.class_manager).info
        if make not in known:
            known[make] = make(mapper)
        found: CachedT = known[make]
        return found

    return of


@dataclass(frozen=True, eq=False)
class Attributes:
    """What can be set on one model, and how its columns take values."""

    mapper: Mapper[Any]

    @property
    def model_name(self) -> str:
        """The model's name."""
        return self.mapper.class_.__name__

    @property
    def table_name(self) -> str:
        """The table's name."""
        return self.mapper.local_table.description

    @cached_property
    def columns(self) -> Mapping[str, Column[Any]]:
        """The table columns by attribute name, without expressions."""
        pairs = ((attribute.key, attribute.columns[0]) for attribute in self.mapper.column_attrs)
        return {key: column for key, column in pairs if isinstance(column, Column)}

    @cached_property
    def writable(self) -> frozenset[str]:
        """The columns that do not compute their own value."""
        return frozenset(name for name, column in self.columns.items() if column.computed is None)

    @cached_property
    def settable(self) -> frozenset[str]:
        """All attributes that can be set: columns, relationships, composites, synonyms, proxies, and properties with a setter."""
        mapper = self.mapper
        relations = {relation.key for relation in mapper.relationships if not relation.viewonly}
        others = {key for key, descriptor in mapper.all_orm_descriptors.items() if isinstance(descriptor, AssociationProxy)}
        members: dict[str, Any] = {name: member for cls in reversed(mapper.class_.__mro__) for name, member in vars(cls).items()}
        setters = {name for name, member in members.items() if isinstance(member, property | hybrid_property) and cast("Any", member).fset}
        return frozenset({*self.writable, *relations, *mapper.composites.keys(), *mapper.synonyms.keys(), *others, *setters})

    @cached_property
    def computed(self) -> frozenset[str]:
        """Attributes that cannot be set."""
        return frozenset(set(self.mapper.all_orm_descriptors.keys()) - self.settable)

    @cached_property
    def defaulted(self) -> frozenset[str]:
        """Columns where leaving the value out differs from None: those with a default, and JSON, where None can be the null of JSON."""
        return frozenset(name for name, column in self.columns.items() if has_default(column))

    @cached_property
    def fixed(self) -> frozenset[str]:
        """The primary key and the version, which never change by a value."""
        version = self.mapper.version_id_col
        names = () if version is None else (self.mapper.get_property_by_column(version).key,)
        key = (self.mapper.get_property_by_column(column).key for column in self.mapper.primary_key)
        return frozenset((*key, *names))

    @cached_property
    def stamped(self) -> frozenset[str]:
        """Columns with ``onupdate``, and ``created_at`` if ``updated_at`` is one of them."""
        stamped = {name for name, column in self.columns.items() if column.onupdate is not None or column.server_onupdate is not None}
        return frozenset(stamped | ({"created_at"} & self.columns.keys() if "updated_at" in stamped else set[str]()))

    def behind_synonym(self, name: str) -> str:
        """Return the attribute that the synonym *name* stands for, or *name* itself."""
        while name in self.mapper.synonyms:
            name = self.mapper.synonyms[name].name
        return name

    def without_synonyms(self, values: Values) -> dict[str, Any]:
        """Return *values* with synonyms replaced by their attributes, except synonyms with a descriptor of their own."""
        synonyms = self.mapper.synonyms
        if not any(name in synonyms for name in values):
            return dict(values)
        own = {name for name in values if name in synonyms and has_own_descriptor(synonyms[name])}
        return {name if name in own else self.behind_synonym(name): value for name, value in values.items()}

    def changes_any(self, names: AnySet[str], given: str) -> bool:
        """Return whether setting *given* changes one of *names*: by itself, as a synonym, composite or relationship."""
        given, mapper = self.behind_synonym(given), self.mapper
        if given in mapper.composites:
            return not names.isdisjoint(each.key for each in mapper.composites[given].props)
        relation = mapper.relationships.get(given)
        if relation is not None and relation.direction is RelationshipDirection.MANYTOONE:
            # A column that several foreign keys share, such as a tenant's, is not changed by each of them.
            keys = {name for name, column in self.columns.items() if column in relation.local_columns}
            return given in names or (bool(keys) and keys <= names)
        return given in names

    def converted(self, values: Values) -> dict[str, Any]:
        """Return *values* as their columns take them: URLs as text, nested models as documents.

        Raises:
            ConfigurationError: A value can never fit the column, such as a secret, or a relationship gets nested data.
        """
        converters = self._converters
        result = dict(values)
        for name, value in values.items():
            if type(value) in _PLAIN or name not in converters:
                continue
            try:
                result[name] = converters[name](value)
            except MisfitError as misfit:
                raise ConfigurationError(
                    f"{self.model_name}.{name}: {misfit} does not fit the column; convert it in create_values() and update_values()"
                ) from None
        for name in values.keys() & {*self.mapper.relationships.keys(), *self.mapper.composites.keys()}:
            if is_nested(values[name]) and not self._is_composite(name, values[name]):
                raise ConfigurationError(
                    f"{self.model_name}.{name} takes objects of its class, not nested data; make them in create_values()"
                )
        return result

    def _is_composite(self, name: str, value: object) -> bool:
        composite = self.mapper.composites.get(name)
        return composite is not None and isinstance(value, cast("type[object]", composite.composite_class))

    @cached_property
    def _converters(self) -> Mapping[str, Converter]:
        found = ((name, converter_of(column.type)) for name, column in self.columns.items())
        return {name: converter for name, converter in found if converter is not None}


attributes_of = per_mapper(Attributes)

_PLAIN = {str, int, float, bool, type(None)}
"""Types of values that no column needs converted."""


def has_default(column: Column[Any]) -> bool:
    defaults = column.default is not None or column.server_default is not None or column.autoincrement is True
    return defaults or bool(column.primary_key) or column.type.should_evaluate_none


def is_nested(value: object) -> bool:
    # A collection with keys takes a mapping of objects.
    if isinstance(value, Mapping):
        return not all(is_mapped(each) for each in cast("Mapping[object, object]", value).values())
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    return any(isinstance(each, Mapping | BaseModel) and not is_mapped(cast("object", each)) for each in items)


def is_mapped(value: object) -> bool:
    return inspect(type(value), raiseerr=False) is not None
