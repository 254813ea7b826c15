"""From what a caller gives to the column values that are written."""

from collections.abc import Mapping, Sequence, Set
from typing import Any, cast

from pydantic import BaseModel

from fastapi_kit.crud.facts import ModelFacts
from fastapi_kit.db.checks import check_values
from fastapi_kit.errors import ConfigurationError, InvalidDataError

__all__ = ["Values", "checked_changes", "checked_row"]

Values = Mapping[str, Any]
"""Column values from trusted code, taken as they are: no ``create_values``; SQL expressions are welcome; unknown names are refused."""


def checked_row(facts: ModelFacts, values: Values, *, data: object) -> None:
    """Refuse values of a new row that no attribute takes (ConfigurationError) or the table would refuse (InvalidDataError)."""
    _refuse_unknown(facts, values, data=data)
    _refuse_nested(facts, values)
    check_values(facts.mapper, values)


def checked_changes(facts: ModelFacts, values: Values, *, data: object, read_only: Sequence[str]) -> None:
    """Refuse changes likewise, and changes of what stays: key and version always, timestamps and *read_only* from a schema."""
    from_schema = isinstance(data, BaseModel)
    fixed = {*facts.key_names, facts.version_name}
    if from_schema:
        fixed |= {*facts.timestamp_names, *read_only, *facts.computed}
    if named := sorted(name for name in values if facts.behind_synonym(name) in fixed):
        if from_schema:
            raise InvalidDataError(named, reason="read_only", table=facts.mapper.local_table.description)
        raise ConfigurationError(f"{', '.join(named)} of {facts.name} cannot be changed")
    _refuse_unknown(facts, values, data=data)
    _refuse_nested(facts, values)
    check_values(facts.mapper, values, update=True)


def _refuse_nested(facts: ModelFacts, values: Values) -> None:
    for name in facts.related & values.keys():
        given = values[name]
        if isinstance(given, Mapping) or (
            isinstance(given, list) and any(isinstance(each, Mapping) for each in cast("list[object]", given))
        ):
            raise ConfigurationError(f"{facts.name}.{name} takes objects of the model, no nested data; make them in create_values()")


def _refuse_unknown(facts: ModelFacts, values: Values, *, data: object) -> None:
    # What an open schema lets through is the client's; it may name columns and nothing else.
    extra: Set[str] = ((data.model_extra if isinstance(data, BaseModel) else None) or {}).keys()
    if added := sorted(values.keys() & extra - facts.writable):
        raise InvalidDataError(added, reason="unknown_field", table=facts.mapper.local_table.description)
    if unknown := sorted(values.keys() - facts.settable):
        raise ConfigurationError(
            f"{facts.name} has no attribute {', '.join(unknown)} to set; rename or drop it in create_values() or update_values()"
        )
