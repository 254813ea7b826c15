"""From the name of a filter to its column, its check and its SQL condition."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property, partial
from math import isfinite
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    ColumnExpressionArgument,
    Date,
    Float,
    Integer,
    Numeric,
    Select,
    SmallInteger,
    Time,
    and_,
    true,
    tuple_,
    type_coerce,
)
from sqlalchemy.orm import RelationshipProperty, aliased
from sqlalchemy.types import TypeEngine

from fastapi_kit._text import is_items
from fastapi_kit.crud._base_query import BaseQuery
from fastapi_kit.crud.attributes import mapper_of
from fastapi_kit.crud.filters.operators import OPERATORS, Operator, stores_moments, stores_text
from fastapi_kit.db.checks.column_types import Check, value_check
from fastapi_kit.errors import FIELD_MESSAGES
from fastapi_kit.schemas import NO_NUL

__all__ = ["ColumnCheck", "Confine", "Filter", "Where", "exists_conditions", "filter_of"]

ValueT = TypeVar("ValueT")

NUMERAL: Final = re.compile(r"\s*[-+]?[\d.]+\s*")
A_NUMBER: Final = "^-?[0-9]{1,20}([.][0-9]{1,20})?$"
"""What OpenAPI shows of a decimal that is text. More is accepted: signs and exponents."""

Confine: TypeAlias = Callable[[type[Any]], Select[Any] | None]
"""Returns the select that the rows of a related model are confined to, or None."""


class Where(Generic[ValueT]):
    """Gives a filter a condition of your own: ``tag: Annotated[str | None, Where(has_tag)] = None``.

    *condition* gets the value of the parameter and returns SQL over the model.
    """

    def __init__(self, condition: Callable[[ValueT], ColumnExpressionArgument[bool]]) -> None:
        """Use *condition*."""
        self.condition = condition


@dataclass(frozen=True)
class Filter:
    """A column of a model, or of one that relationships lead to, and an operator."""

    relations: tuple[str, ...]
    attribute: str
    operator: Operator
    type_: TypeEngine[Any] | None
    """The type of the column. None for a relationship, which can only be null or not."""

    @property
    def description(self) -> str:
        """What the parameter does."""
        return self.operator.words.format(column=".".join([*self.relations, self.attribute]))


def filter_of(model: type[Any], name: str) -> Filter:
    """Return the filter for the parameter *name*: ``price__gte``, ``owner__email``, ``lines__sku__in``.

    Raises:
        TypeError: It names no column of the model, or an operator that the column does not have.
    """
    parts, relations, owner = name.split("__"), list[str](), model
    while len(parts) > 1 and parts[1:] != ["isnull"] and (relation := relationship_of(owner, parts[0])) is not None:
        relations.append(parts.pop(0))
        owner = relation.mapper.class_
    attribute, *rest = parts
    operator, type_ = OPERATORS.get(rest[0] if rest else "eq"), type_of(owner, attribute)
    is_relation = rest == ["isnull"] and relationship_of(owner, attribute) is not None
    if len(rest) > 1 or operator is None or (type_ is None and not is_relation):
        raise TypeError(
            f"{name} is not a filter of {model.__name__}: name a column, after relationships if it is another model's, and an operator, "
            f"joined by __. The operators are {', '.join(OPERATORS)}. For other conditions use Annotated[..., Where(condition)]"
        )
    if type_ is not None and not operator.fits(type_):
        raise TypeError(f"{name}: the operator {rest[0]} is not for columns of the type {type_!r}")
    return Filter(tuple(relations), attribute, operator, type_)


# Other models may not be imported yet, so these configure no mappers.
def relationship_of(model: type[Any], name: str) -> RelationshipProperty[Any] | None:
    """Return the relationship *name* of *model*, or None if it has none of this name."""
    found: Any = getattr(getattr(model, name, None), "property", None)
    is_relationship = isinstance(found, RelationshipProperty)
    return cast("RelationshipProperty[Any]", found) if is_relationship else None


def type_of(model: type[Any], name: str) -> TypeEngine[Any] | None:
    """Return the SQL type of a column, an expression or a hybrid of *model*, or None if it has none of this name."""
    found: Any = None if relationship_of(model, name) is not None else getattr(getattr(model, name, None), "type", None)
    is_type = isinstance(found, TypeEngine)
    return cast("TypeEngine[Any]", found) if is_type else None


def exists_conditions(entity: Any, given: Sequence[tuple[Filter, Any]], confine: Confine, depth: int = 0) -> list[ColumnElement[bool]]:
    """Return the SQL conditions for *entity*. Filters over one relationship ask for one related row that meets them all."""
    conditions: list[ColumnElement[bool]] = []
    through: dict[str, list[tuple[Filter, Any]]] = {}
    for found, value in given:
        if len(found.relations) > depth:
            through.setdefault(found.relations[depth], []).append((found, value))
        elif found.type_ is None:
            exists = has_related(getattr(entity, found.attribute), lambda _: [], confine)
            conditions.append(~exists if value else exists)
        else:
            conditions.append(found.operator.condition(unrounded(getattr(entity, found.attribute)), value))
    for name, below in through.items():
        inner = partial(exists_conditions, given=below, confine=confine, depth=depth + 1)
        conditions.append(has_related(getattr(entity, name), inner, confine))
    return conditions


def unrounded(column: Any) -> Any:
    """Return *column* for comparisons: PostgreSQL would round the value to NUMERIC(10, 2) first, or fail if it is too large."""
    type_: Any = column.type
    if not isinstance(type_, Numeric) or isinstance(type_, Float):
        return column
    numeric: Any = Numeric
    return type_coerce(column, numeric(asdecimal=type_.asdecimal))


def has_related(attribute: Any, conditions: Callable[[Any], list[ColumnElement[bool]]], confine: Confine) -> ColumnElement[bool]:
    """Return the condition that a row that the relationship *attribute* leads to, and that may be seen, meets *conditions*."""
    model: type[Any] = attribute.property.mapper.class_
    target = aliased(model)
    rows = confine(model)
    seen = [] if rows is None else [is_among(target, model, rows)]
    exists: Callable[..., ColumnElement[bool]] = getattr(attribute.of_type(target), "any" if attribute.property.uselist else "has")
    return exists(and_(true(), *conditions(target), *seen))


def is_among(target: Any, model: type[Any], rows: Select[Any]) -> ColumnElement[bool]:
    """Return the condition that the row of *target*, an alias of *model*, is one of *rows*."""
    base = BaseQuery(rows, mapper_of(model))
    return tuple_(*(getattr(target, name) for name in base.identity.names)).in_(base.keys())


@dataclass(frozen=True)
class ColumnCheck:
    """Rejects values that a column of *type_* can never be compared with, and shows the bounds in the JSON schema."""

    type_: TypeEngine[Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check what pydantic has validated, and before that the text of dates and times."""
        checked = core_schema.no_info_after_validator_function(self.validate, handler(source))
        is_temporal = stores_moments(self.type_) or isinstance(self.type_, Date | Time)
        return core_schema.no_info_before_validator_function(reject_numerals, checked) if is_temporal else checked

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the bounds of integers, and the patterns of text and of numbers that are text."""
        document = handler(schema)
        self.narrow(document)
        return document

    def validate(self, value: Any) -> Any:
        """Return *value*, or raise the error for it or for one of its items."""
        for item in value if is_items(value) else (value,):
            if reason := self.reason(item):
                raise PydanticCustomError(cast("Any", reason), cast("Any", FIELD_MESSAGES.get(reason, FIELD_MESSAGES["invalid"])))
        return value

    def reason(self, value: Any) -> str | None:
        """Return why *value* is rejected, or None. Text that is longer than the column is compared: no row has it."""
        if value is None or isinstance(value, bool) or (is_day(value) and stores_moments(self.type_)):
            return None
        if isinstance(value, float) and not isfinite(value):
            return "out_of_range"  # SQLite has no NaN.
        if stores_text(self.type_) and not isinstance(value, str):
            return None
        reason = None if self.check is None else self.check(value)
        return None if reason == "too_long" else reason

    @cached_property
    def check(self) -> Check | None:
        """The check of values that are stored in the column. Those that are compared with it need not have its precision."""
        is_exact = isinstance(self.type_, Numeric) and not isinstance(self.type_, Float)
        return value_check(Numeric() if is_exact else self.type_)

    def narrow(self, document: JsonSchemaValue) -> None:
        """Add the bounds to the parts of *document* that are integers or text."""
        for part in (*document.get("anyOf", ()), *([document["items"]] if "items" in document else ())):
            self.narrow(part)
        if document.get("type") == "integer" and isinstance(self.type_, Integer):
            bits = 16 if isinstance(self.type_, SmallInteger) else 64 if isinstance(self.type_, BigInteger) else 32
            if not document.keys() & {"minimum", "exclusiveMinimum"}:
                document["minimum"] = -(2 ** (bits - 1))
            if not document.keys() & {"maximum", "exclusiveMaximum"}:
                document["maximum"] = 2 ** (bits - 1) - 1
        is_plain_text = document.get("type") == "string" and not document.keys() & {"format", "enum", "const"}
        if is_plain_text and stores_text(self.type_):
            document.setdefault("pattern", NO_NUL)
        elif is_plain_text and isinstance(self.type_, Numeric | Float):
            document.setdefault("pattern", A_NUMBER)


def reject_numerals(value: Any) -> Any:
    """Return *value*. Raises the error for a number as text: pydantic reads ``2024`` as seconds since 1970."""
    for item in value if is_items(value) else (value,):
        if isinstance(item, str) and NUMERAL.fullmatch(item):
            raise PydanticCustomError("invalid_date", "must be a date or a time in ISO 8601")
    return value


def is_day(value: object) -> bool:
    return isinstance(value, date) and not isinstance(value, datetime)
