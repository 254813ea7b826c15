"""From what a caller gives to the column values that are written."""

from collections.abc import Mapping, Sequence, Set
from typing import Any

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
    check_values(facts.mapper, values)


def checked_changes(facts: ModelFacts, values: Values, *, data: object, read_only: Sequence[str]) -> None:
    """Refuse changes likewise, and changes of what stays: key and version always, timestamps and *read_only* from a schema."""
    _refuse_unknown(facts, values, data=data)
    fixed = {*facts.key_names, facts.version_name}
    if isinstance(data, BaseModel):
        _refuse_fixed(facts, values.keys() & {*fixed, *facts.timestamp_names, *read_only})
    elif named := sorted(values.keys() & fixed):
        raise ConfigurationError(f"{', '.join(named)} of {facts.name} cannot be changed")
    check_values(facts.mapper, values, update=True)


def _refuse_fixed(facts: ModelFacts, names: Set[str]) -> None:
    if names:
        raise InvalidDataError(sorted(names), reason="read_only", table=facts.mapper.local_table.description)


def _refuse_unknown(facts: ModelFacts, values: Values, *, data: object) -> None:
    unknown = sorted(values.keys() - facts.settable)
    if not unknown:
        return
    extra: Mapping[str, Any] = (data.model_extra if isinstance(data, BaseModel) else None) or {}
    if set(unknown) <= extra.keys():
        raise InvalidDataError(unknown, reason="unknown_field", table=facts.mapper.local_table.description)
    raise ConfigurationError(
        f"{facts.name} has no attribute {', '.join(unknown)}; rename or drop it in create_values() or update_values() of the service"
    )
