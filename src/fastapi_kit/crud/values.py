"""From what a caller gives to the column values that are written."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AnySet
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, cast

from pydantic import BaseModel
from sqlalchemy import Column, inspect
from sqlalchemy.ext.associationproxy import AssociationProxy
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapper, RelationshipDirection

from fastapi_kit.crud._conversions import Converter, MisfitError, converter_of, loaded_fields
from fastapi_kit.crud.identity import identity_of, per_mapper
from fastapi_kit.crud.read_plan.attributes import has_own_descriptor
from fastapi_kit.db.checks import check_values
from fastapi_kit.errors import ConfigurationError, InvalidDataError

__all__ = ["Attributes", "Values", "attributes_of", "checked_changes", "checked_row", "field_values", "new_values"]

Values: TypeAlias = Mapping[str, Any]
"""Values by attribute, taken as they are: no ``create_values``; SQL expressions are welcome; unknown names are refused."""


def field_values(data: BaseModel) -> dict[str, Any]:
    """Return the values of the fields that the caller set, and of what an open schema let through. Nothing is serialized."""
    loaded = loaded_fields(data)
    return {name: loaded[name] for name in data.model_fields_set if name in loaded}


def new_values(data: BaseModel, mapper: Mapper[Any]) -> dict[str, Any]:
    """Return the values of all fields, and of computed fields that are columns.

    A field that was left out and is None by default is not among them where the column has a default of its own.
    """
    attributes = attributes_of(mapper)
    loaded = loaded_fields(data)
    unset = {name for name in loaded.keys() - data.model_fields_set if loaded[name] is None and name in attributes.defaulted}
    computed = {name: getattr(data, name) for name in type(data).model_computed_fields if name in attributes.columns}
    return {name: value for name, value in loaded.items() if name not in unset} | computed


def checked_row(mapper: Mapper[Any], values: Values, *, data: object) -> dict[str, Any]:
    """Return the values of a new row as its columns take them.

    Raises ConfigurationError for a name that is no attribute, and InvalidDataError for what the table would refuse.
    """
    attributes = attributes_of(mapper)
    _refuse_unknown(attributes, values, data=data)
    values = attributes.without_synonyms(values)
    # No key is null: the database, or a default, makes one.
    keyless = {name for name in identity_of(mapper).names if name in values and values[name] is None}
    converted = attributes.converted({name: value for name, value in values.items() if name not in keyless})
    check_values(mapper, converted)
    return converted


def checked_changes(mapper: Mapper[Any], values: Values, *, data: object, read_only: Sequence[str], trusted: bool) -> dict[str, Any]:
    """Return changes likewise; synonyms give their attributes.

    Refused are changes of the key and the version, and, unless *trusted*, of timestamps and *read_only* columns.
    """
    attributes = attributes_of(mapper)
    fixed = attributes.fixed | (set[str]() if trusted else {*attributes.stamped, *map(attributes.behind_synonym, read_only)})
    from_schema = isinstance(data, BaseModel)
    if from_schema:
        fixed |= attributes.computed
    if named := sorted(name for name in values if attributes.changes_any(fixed, name)):
        if from_schema or not any(attributes.changes_any(attributes.fixed, name) for name in named):
            raise InvalidDataError(named, reason="read_only", table=attributes.table_name)
        raise ConfigurationError(f"{', '.join(named)} of {attributes.model_name} cannot be changed")
    _refuse_unknown(attributes, values, data=data)
    converted = attributes.converted(attributes.without_synonyms(values))
    check_values(mapper, converted, update=True)
    return converted


@dataclass(frozen=True, eq=False)
class Attributes:
    """What can be set on a model, and how its columns take it."""

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
        """Every attribute that a value can be set on: columns, relationships, composites, synonyms, proxies, and what has a setter."""
        mapper = self.mapper
        relations = {relation.key for relation in mapper.relationships if not relation.viewonly}
        others = {key for key, descriptor in mapper.all_orm_descriptors.items() if isinstance(descriptor, AssociationProxy)}
        members: dict[str, Any] = {name: member for cls in reversed(mapper.class_.__mro__) for name, member in vars(cls).items()}
        setters = {name for name, member in members.items() if isinstance(member, property | hybrid_property) and cast("Any", member).fset}
        return frozenset({*self.writable, *relations, *mapper.composites.keys(), *mapper.synonyms.keys(), *others, *setters})

    @cached_property
    def computed(self) -> frozenset[str]:
        """Attributes that no value can be set on."""
        return frozenset(set(self.mapper.all_orm_descriptors.keys()) - self.settable)

    @cached_property
    def related(self) -> frozenset[str]:
        """The relationships."""
        return frozenset(relation.key for relation in self.mapper.relationships)

    @cached_property
    def defaulted(self) -> frozenset[str]:
        """Columns for which no value is something else than null: a default, or SQL's NULL where None is the null of JSON."""
        return frozenset(name for name, column in self.columns.items() if _has_default(column))

    @cached_property
    def fixed(self) -> frozenset[str]:
        """The key and the version: a row keeps them."""
        version = self.mapper.version_id_col
        names = () if version is None else (self.mapper.get_property_by_column(version).key,)
        return frozenset((*identity_of(self.mapper).names, *names))

    @cached_property
    def stamped(self) -> frozenset[str]:
        """Columns that the mapping itself writes on every update, and ``created_at`` beside such an ``updated_at``."""
        stamped = {name for name, column in self.columns.items() if column.onupdate is not None or column.server_onupdate is not None}
        return frozenset(stamped | ({"created_at"} & self.columns.keys() if "updated_at" in stamped else set[str]()))

    def behind_synonym(self, name: str) -> str:
        """Return the attribute that *name* stands for: mostly itself."""
        while name in self.mapper.synonyms:
            name = self.mapper.synonyms[name].name
        return name

    def without_synonyms(self, values: Values) -> dict[str, Any]:
        """Return *values* by the attributes that synonyms stand for, except where a synonym has code of its own."""
        synonyms = self.mapper.synonyms
        if not any(name in synonyms for name in values):
            return dict(values)
        own = {name for name in values if name in synonyms and has_own_descriptor(synonyms[name])}
        return {name if name in own else self.behind_synonym(name): value for name, value in values.items()}

    def changes_any(self, names: AnySet[str], given: str) -> bool:
        """Return whether a value for *given* changes one of *names*: itself, behind a synonym, in a composite, as a foreign key."""
        given, mapper = self.behind_synonym(given), self.mapper
        if given in mapper.composites:
            return not names.isdisjoint(each.key for each in mapper.composites[given].props)
        relation = mapper.relationships.get(given)
        if relation is not None and relation.direction is RelationshipDirection.MANYTOONE:
            # A column that several references share, such as a tenant's, is not changed by each of them.
            keys = {name for name, column in self.columns.items() if column in relation.local_columns}
            return given in names or (bool(keys) and keys <= names)
        return given in names

    def converted(self, values: Values) -> dict[str, Any]:
        """Return *values* as their columns take them: URLs as text, documents as JSON.

        Raises ConfigurationError for what no value of the column could be, such as a secret.
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
        for name in values.keys() & {*self.related, *self.mapper.composites.keys()}:
            if _is_nested(values[name]) and not self._is_composite(name, values[name]):
                raise ConfigurationError(
                    f"{self.model_name}.{name} takes objects of its class, no nested data; make them in create_values()"
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
"""What no column takes otherwise than it is."""


def _has_default(column: Column[Any]) -> bool:
    defaults = column.default is not None or column.server_default is not None or column.autoincrement is True
    return defaults or bool(column.primary_key) or column.type.should_evaluate_none


def _is_nested(value: object) -> bool:
    # A collection by key takes a mapping of objects.
    if isinstance(value, Mapping):
        return not all(_is_mapped(each) for each in cast("Mapping[object, object]", value).values())
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    return any(isinstance(each, Mapping | BaseModel) and not _is_mapped(cast("object", each)) for each in items)


def _is_mapped(value: object) -> bool:
    return inspect(type(value), raiseerr=False) is not None


def _refuse_unknown(attributes: Attributes, values: Values, *, data: object) -> None:
    # What an open schema lets through is the client's; it may name columns and nothing else.
    extra = ((data.model_extra if isinstance(data, BaseModel) else None) or {}).keys()
    if added := sorted(values.keys() & extra - attributes.writable):
        raise InvalidDataError(added, reason="unknown_field", table=attributes.table_name)
    if unknown := sorted(values.keys() - attributes.settable):
        raise ConfigurationError(
            f"{attributes.model_name} has no attribute {', '.join(unknown)} to set; rename or drop it in create_values() or update_values()"
        )
