"""What a read schema needs of a mapped class: the columns and relationships to load before pydantic reads the objects."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import JSON, MetaData, TypeDecorator
from sqlalchemy.ext.associationproxy import AssociationProxy
from sqlalchemy.orm import ColumnProperty, CompositeProperty, Mapper, RelationshipProperty, registry

from fastapi_kit._compat import python_type
from fastapi_kit.crud.read_plan.attributes import (
    Attribute,
    Column,
    Composite,
    Relationship,
    attribute_of,
    is_dynamic,
    names_behind,
    names_in,
    owners_of,
    with_names_behind,
)
from fastapi_kit.crud.read_plan.fields import Content, ModelSchema, Node, Path, ReadField, SchemaReader
from fastapi_kit.errors import ConfigurationError

__all__ = ["Needs", "NeedsCompiler"]

_COLLECTIONS = {"list", "set", "frozenset", "tuple", "dict", "generator"}
_SCALARS = {
    *("bool", "bytes", "complex", "date", "datetime", "decimal", "enum", "float", "int", "literal", "multi-host-url"),
    *("str", "time", "timedelta", "typed-dict", "url", "uuid"),
}
_NEVER_LOADED = {"dynamic", "write_only"}
_WRAPPERS = {"default", "nullable", "tagged-union", "union"}
_NO_ATTRIBUTES = {"builtins", "datetime", "collections"}
"""Modules of classes from which pydantic reads no attributes."""


@dataclass(eq=False)
class Needs:
    """What must be loaded of the objects of one mapper, including attributes of subclasses.

    *computed* are attributes that code of the application computes. *selected* are the columns by the name that pydantic reads. A *flat*
    schema needs only those.
    """

    mapper: Mapper[Any]
    columns: dict[Column, None] = field(default_factory=dict[Column, None])
    relationships: dict[Relationship, list["Needs"]] = field(default_factory=dict[Relationship, list["Needs"]])
    computed: dict[str, None] = field(default_factory=dict[str, None])
    selected: dict[str, Column] = field(default_factory=dict[str, Column])
    flat: bool = True

    def all(self) -> list["Needs"]:
        """Return these needs and those of related objects at every depth."""
        found: list[Needs] = [self]
        for needs in found:
            found += [child for children in needs.relationships.values() for child in dict.fromkeys(children) if child not in found]
        return found


@dataclass(eq=False)
class NeedsCompiler:
    """Finds what the schemas in one core schema need. For schemas that contain each other, the needs contain each other."""

    reader: SchemaReader
    _of_models: dict[tuple[type[object], Mapper[Any]], Needs] = field(default_factory=dict[tuple[type[object], Mapper[Any]], Needs])
    _of_names: dict[tuple[frozenset[str], Mapper[Any]], Needs] = field(default_factory=dict[tuple[frozenset[str], Mapper[Any]], Needs])

    def of_root(self, content: Content, mapper: Mapper[Any]) -> Needs:
        """Return what *content*, the content of a whole read schema, needs of the objects of *mapper*."""
        found = self.of_content(content, mapper)
        if len(found) == 1 and not content.sees_input and "model" in content.types and content.types <= {"model", "function-after"}:
            return found[0]
        needs = Needs(mapper, flat=False)
        for each in found:
            merge(needs, each)
        return needs

    def of_content(self, content: Content, mapper: Mapper[Any]) -> list[Needs]:
        """Return what *content* needs of the objects of *mapper*. Schemas of a union that cannot be filled are left out.

        Raises:
            ConfigurationError: No schema can be filled.
        """
        found, errors = list[Needs](), list[ConfigurationError]()
        for node in content.models:
            try:
                found.append(self.of_model(node, mapper))
            except ConfigurationError as error:
                errors.append(error)
        if errors and not found and not content.sees_input:
            raise errors[0]
        if content.functions:
            found.append(self.of_code(names_in(content.functions), mapper))
        return found

    def of_model(self, node: Node, mapper: Mapper[Any]) -> Needs:
        """Return what the model of *node* needs of the objects of *mapper*. The result is cached."""
        key = (node["cls"], mapper)
        if key not in self._of_models:
            needs = self._of_models[key] = Needs(mapper)
            try:
                self.fill(needs, self.reader.model(node))
            except ConfigurationError:
                del self._of_models[key]
                raise
        return self._of_models[key]

    def fill(self, needs: Needs, model: ModelSchema) -> None:
        """Add to *needs* what the fields and the code of *model* read."""
        if model.functions:
            merge(needs, self.of_code(names_in(model.functions), needs.mapper))
        if model.sees_input or hasattr(model.cls, "__mapper__"):
            needs.flat = False
        elif not model.fields:
            raise ConfigurationError(f"{model.cls.__name__} has no fields to read from {name_of(needs.mapper)}: give a schema with fields")
        for each in model.fields:
            self.fill_field(needs, each, model)

    def fill_field(self, needs: Needs, read: ReadField, model: ModelSchema) -> None:
        """Add what one field of *model* reads.

        Raises:
            ConfigurationError: The mapped class has nothing that can fill the field.
        """
        found = 0
        for path in read.paths:
            if len(path) == 1:
                check_shape(read, attribute_of(needs.mapper, str(path[0])))
            known = self.read_path(needs, needs.mapper, path, read)
            found += known
            if known and len(path) == 1:
                break
        if found > 1:
            needs.flat = False
        if not found:
            possible = is_dynamic(needs.mapper, [str(path[0]) for path in read.paths])
            needs.flat &= not possible
            if read.required and not possible and not model.sees_input:
                names = " or ".join(dict.fromkeys(".".join(map(str, path)) for path in read.paths))
                raise ConfigurationError(
                    f"{read} cannot be filled: {name_of(needs.mapper)} has no attribute {names}. "
                    "Give the field the alias of an attribute or a default, or the model a property of that name"
                )

    def read_path(self, needs: Needs, mapper: Mapper[Any], path: Path, read: ReadField) -> bool:
        """Add what reading *path* from an object of *mapper* needs. Return whether the attribute exists."""
        name, rest = str(path[0]), path[1:]
        owners = owners_of(mapper, name)
        needs.flat &= owners in ([], [mapper])
        known = [self.read_attribute(needs, owner, name, rest, read) for owner in owners]
        return any(known)

    def read_attribute(self, needs: Needs, owner: Mapper[Any], name: str, rest: Path, read: ReadField) -> bool:
        """Add the attribute *name* of *owner*, and *rest* inside its value. Return whether it exists."""
        attribute = attribute_of(owner, name)
        if isinstance(attribute, ColumnProperty):
            self.read_column(needs, name, attribute, rest, read)
            return True
        needs.flat = False
        if isinstance(attribute, CompositeProperty):
            needs.columns.update(columns_of(attribute))
        elif isinstance(attribute, RelationshipProperty):
            return self.read_relationship(needs, attribute, rest, read)
        elif attribute is not None:
            return self.read_unmapped(needs, owner, name, attribute.value, rest, read)
        return True

    def read_unmapped(self, needs: Needs, owner: Mapper[Any], name: str, value: object, rest: Path, read: ReadField) -> bool:
        """Add what a proxy, property or plain value of *owner* reads. Return whether it exists."""
        if isinstance(value, AssociationProxy):
            return self.read_path(needs, owner, (value.target_collection, value.value_attr, *rest), read)
        if isinstance(value, MetaData | registry):
            raise ConfigurationError(
                f"{read} would be read from {name_of(owner)}.{name}, which is SQLAlchemy's {type(value).__name__}: "
                "use serialization_alias for the name in responses"
            )
        if names := names_behind(owner, {name}):
            needs.computed[name] = None
            merge(needs, self.of_code(names | {str(part) for part in rest} | self.names_in_code(read.content), owner))
        return True

    def read_column(self, needs: Needs, name: str, column: Column, rest: Path, read: ReadField) -> None:
        """Add a column: selected if the schema is flat, loaded otherwise."""
        sql_type = column.columns[0].type
        if read.content.models and read.content.types <= {"model", *_WRAPPERS} and not rest and is_scalar(sql_type):
            raise ConfigurationError(
                f"{read} is a schema and {column.parent.class_.__name__}.{column.key} a column of type {sql_type}, "
                "which has no attributes: use a JSON column, or a field type that the column holds"
            )
        if column.strategy_key == (("query_expression", True),) or (rest and not isinstance(sql_type, JSON)):
            needs.flat = False
        if column.strategy_key != (("query_expression", True),):
            needs.columns[column] = None
            needs.selected[name] = column

    def read_relationship(self, needs: Needs, relationship: Relationship, rest: Path, read: ReadField) -> bool:
        """Add a relationship and what is needed of its objects. Return whether it can be loaded."""
        where = f"{relationship.parent.class_.__name__}.{relationship.key}"
        if relationship.lazy in _NEVER_LOADED:
            raise ConfigurationError(
                f"{read} refers to {where}, a {relationship.lazy} relationship, which is never loaded: "
                "map a second relationship for reading, or leave the field out"
            )
        target = relationship.mapper
        children = needs.relationships.setdefault(relationship, [])
        if names := tuple(part for part in rest if isinstance(part, str)):
            child = Needs(target)
            children.append(child)
            return self.read_path(child, target, names, read)
        types = read.content.types
        only_scalars = bool(types & _SCALARS) and types <= _SCALARS | _COLLECTIONS | _WRAPPERS | {"model", "function-after"}
        if only_scalars and not read.content.models and not read.content.sees_input and not rest:
            raise ConfigurationError(f"{read} cannot be filled from the relationship {where}: give it a schema of {name_of(target)}")
        try:
            children += self.of_content(read.content, target)
        except ConfigurationError as error:
            raise ConfigurationError(f"{read}: {error}") from error
        return True

    def names_in_code(self, content: Content) -> frozenset[str]:
        """Return all names that the schemas in *content*, and the schemas inside those, may read."""
        names, models, seen = set[str](), list(content.models), set[type[object]]()
        while models:
            model = self.reader.model(models.pop())
            if model.cls not in seen:
                seen.add(model.cls)
                names |= {str(part) for each in model.fields for path in each.paths for part in path}
                models += [node for each in model.fields for node in each.content.models]
        return frozenset(names)

    def of_code(self, names: frozenset[str], mapper: Mapper[Any]) -> Needs:
        """Return what code that uses *names* needs of an object of *mapper*, and of objects that it reaches by those names."""
        names = with_names_behind(names, mapper)
        key = (names, mapper)
        if key not in self._of_names:
            needs = self._of_names[key] = Needs(mapper, flat=False)
            for name in sorted(names):
                for owner in owners_of(mapper, name):
                    self.use(needs, attribute_of(owner, name), names)
        return self._of_names[key]

    def use(self, needs: Needs, attribute: Attribute | None, names: frozenset[str]) -> None:
        """Add an attribute that code reads by one of *names*."""
        if isinstance(attribute, ColumnProperty):
            needs.columns[attribute] = None
        elif isinstance(attribute, CompositeProperty):
            needs.columns.update(columns_of(attribute))
        elif isinstance(attribute, RelationshipProperty) and attribute.lazy not in _NEVER_LOADED:
            needs.relationships[attribute] = [self.of_code(names, attribute.mapper)]


def merge(needs: Needs, more: Needs) -> None:
    needs.columns.update(more.columns)
    needs.computed.update(more.computed)
    for relationship, children in more.relationships.items():
        needs.relationships.setdefault(relationship, []).extend(children)


def check_shape(read: ReadField, attribute: Attribute | None) -> None:
    """Raise ConfigurationError if the field takes one object and the relationship gives several, or the other way round."""
    content = read.content
    if (
        not isinstance(attribute, RelationshipProperty)
        or not content.models
        or content.sees_input
        or content.types & {"union", "tagged-union"}
    ):
        return
    if bool(content.types & _COLLECTIONS) != bool(attribute.uselist):
        expected = "a collection of schemas" if attribute.uselist else "one schema"
        raise ConfigurationError(
            f"{read} is read from the relationship {name_of(attribute.parent)}.{attribute.key}: its type must be {expected}"
        )


def columns_of(composite: Composite) -> Iterator[tuple[Column, None]]:
    return ((part, None) for part in composite.props if isinstance(part, ColumnProperty))


def name_of(mapper: Mapper[Any]) -> str:
    return mapper.class_.__name__


def is_scalar(sql_type: Any) -> bool:
    """Return whether the values of a column are neither dicts nor of a class from which pydantic reads attributes."""
    if isinstance(sql_type, TypeDecorator | JSON):
        return False
    known = python_type(sql_type)
    return known is not None and known.__module__ in _NO_ATTRIBUTES and not issubclass(known, Mapping | list)
