"""Which relationships a read schema needs loaded."""

from collections.abc import Iterator
from typing import Any, TypeVar, get_args

from pydantic import AliasPath, BaseModel
from pydantic.fields import FieldInfo
from sqlalchemy.orm import Mapper, selectinload
from sqlalchemy.orm.interfaces import ORMOption

__all__ = ["as_schema", "options_for"]

SchemaT = TypeVar("SchemaT", bound=BaseModel)


def options_for(schema: type[BaseModel], mapper: Mapper[Any]) -> list[ORMOption]:
    """Return the loader options for the relationships that *schema*, read from attributes, names: one more query each, however many rows.

    A schema that contains itself is followed once round.
    """
    return list(_options(schema, mapper, frozenset()))


def _options(schema: type[BaseModel], mapper: Mapper[Any], seen: frozenset[type[BaseModel]]) -> Iterator[ORMOption]:
    for name, field in schema.model_fields.items():
        relation = mapper.relationships.get(_attribute(name, field))
        if relation is not None:
            nested = [model for model in _models_in(field.annotation) if model not in seen]
            inner: list[Any] = [option for model in nested for option in _options(model, relation.mapper, seen | {schema})]
            yield selectinload(relation.class_attribute).options(*inner)


def _attribute(name: str, field: FieldInfo) -> str:
    """Return the attribute that pydantic reads *field* from."""
    alias = field.validation_alias or field.alias
    if isinstance(alias, AliasPath):
        return str(alias.path[0])
    return alias if isinstance(alias, str) else name


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def as_schema(schema: type[SchemaT], row: object) -> SchemaT:
    """Return *row* as *schema*. A field is read from the attribute of its alias or, where there is none, of its name."""
    return schema.model_validate(row, from_attributes=True, by_alias=True, by_name=True)
