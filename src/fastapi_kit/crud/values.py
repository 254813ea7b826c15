"""From the data of a caller to the values that are written."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from sqlalchemy.orm import Mapper

from fastapi_kit.crud._conversions import loaded_fields
from fastapi_kit.crud.attributes import Attributes, Values, attributes_of
from fastapi_kit.crud.identity import identity_of
from fastapi_kit.db.checks.values import check_values
from fastapi_kit.errors import ConfigurationError, InvalidDataError

__all__ = ["checked_changes", "checked_row", "field_values", "new_values"]


def field_values(data: BaseModel) -> dict[str, Any]:
    """Return the values of the fields that were set, and the extra values of a schema with ``extra="allow"``. Nothing is serialized."""
    loaded = loaded_fields(data)
    return {name: loaded[name] for name in data.model_fields_set if name in loaded}


def new_values(data: BaseModel, mapper: Mapper[Any]) -> dict[str, Any]:
    """Return the values of all fields, and of computed fields that are columns.

    Fields that were left out and are None are omitted if the column has a default.
    """
    attributes = attributes_of(mapper)
    loaded = loaded_fields(data)
    unset = {name for name in loaded.keys() - data.model_fields_set if loaded[name] is None and name in attributes.defaulted}
    computed = {name: getattr(data, name) for name in type(data).model_computed_fields if name in attributes.columns}
    return {name: value for name, value in loaded.items() if name not in unset} | computed


def checked_row(mapper: Mapper[Any], values: Values, *, data: object) -> dict[str, Any]:
    """Return the values of a new row as its columns take them.

    Raises:
        ConfigurationError: A name is not an attribute of the model.
        InvalidDataError: The database would reject a value, or a client sent an unknown field.
    """
    attributes = attributes_of(mapper)
    check_names(attributes, values, data=data)
    values = attributes.without_synonyms(values)
    # A key of None is left out: the database, or a default, makes one.
    keyless = {name for name in identity_of(mapper).names if name in values and values[name] is None}
    converted = attributes.converted({name: value for name, value in values.items() if name not in keyless})
    check_values(mapper, converted)
    return converted


def checked_changes(mapper: Mapper[Any], values: Values, *, data: object, read_only: Sequence[str], trusted: bool) -> dict[str, Any]:
    """Return the values of a change as its columns take them.

    Raises:
        InvalidDataError: The database would reject a value, a client sent an unknown field, or a column is read-only: the key, the
            version, and unless *trusted* the timestamps and the *read_only* columns.
        ConfigurationError: A name is not an attribute of the model, or the application's own values change the key or the version.
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
    check_names(attributes, values, data=data)
    converted = attributes.converted(attributes.without_synonyms(values))
    check_values(mapper, converted, update=True)
    return converted


def check_names(attributes: Attributes, values: Values, *, data: object) -> None:
    # Extra values of a schema come from the client. They may name columns and nothing else.
    extra = ((data.model_extra if isinstance(data, BaseModel) else None) or {}).keys()
    if added := sorted(values.keys() & extra - attributes.writable):
        raise InvalidDataError(added, reason="unknown_field", table=attributes.table_name)
    if unknown := sorted(values.keys() - attributes.settable):
        raise ConfigurationError(
            f"{attributes.model_name} has no attribute {', '.join(unknown)} to set; rename or drop it in create_values() or update_values()"
        )
