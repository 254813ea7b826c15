"""Orders that are total and the same on every database."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, cast

from sqlalchemy import Column, ColumnExpressionArgument, asc, desc, nulls_first, nulls_last
from sqlalchemy.orm import QueryableAttribute
from sqlalchemy.sql import operators

__all__ = ["OrderBy", "column_of", "expression_of", "items_of", "ordered_as", "total_order", "without_direction"]

OrderBy: TypeAlias = ColumnExpressionArgument[Any] | Sequence[ColumnExpressionArgument[Any]]
"""One column or expression, or several: ``Note.title``, ``[Note.created_at.desc(), Note.title]``."""

_MODIFIERS: dict[Any, Callable[[Any], Any]] = {
    operators.asc_op: asc,
    operators.desc_op: desc,
    operators.nulls_first_op: nulls_first,
    operators.nulls_last_op: nulls_last,
}
_PLACED = {operators.nulls_first_op, operators.nulls_last_op}


def total_order(order_by: OrderBy, key: Sequence[QueryableAttribute[Any]], *, dialect: str) -> Iterator[Any]:
    """Yield *order_by*, and then the attributes of the *key* that are not in it, so that no two rows are equal.

    Nulls come last in ascending and first in descending order, as on PostgreSQL, without ``nulls_first()`` or ``nulls_last()``.
    """
    expressions = [expression_of(item) for item in items_of(order_by)]
    for expression in expressions:
        yield placed(expression) if dialect == "sqlite" else expression
    named = [column_of(expression) for expression in expressions]
    for attribute in key:
        if not any(column is column_of(expression_of(attribute)) for column in named):
            yield attribute


def items_of(order_by: OrderBy) -> Sequence[Any]:
    """Return *order_by* as a sequence."""
    return cast("Sequence[Any]", order_by if isinstance(order_by, Sequence) else (order_by,))


def without_direction(item: Any) -> Any:
    """Return the expression that *item* orders by, without its direction and placement of nulls."""
    expression = expression_of(item)
    while getattr(expression, "modifier", None) is not None:
        expression = expression.element
    return expression


def ordered_as(item: Any, column: Any) -> Any:
    """Return *column* with the direction and placement of nulls of *item*."""
    expression = expression_of(item)
    modifier = getattr(expression, "modifier", None)
    return column if modifier is None else _MODIFIERS[modifier](ordered_as(expression.element, column))


def expression_of(item: Any) -> Any:
    """Return the expression of an attribute, and any other expression as it is."""
    return item.__clause_element__() if hasattr(item, "__clause_element__") else item


def column_of(expression: Any) -> Any:
    """Return the expression without its direction and placement of nulls; for a mapped attribute the column of the table."""
    expression = without_direction(expression)
    bare = getattr(expression, "_deannotate", None)
    return expression if bare is None else bare()


def placed(expression: Any) -> Any:
    modifier = getattr(expression, "modifier", None)
    column = column_of(expression)
    if isinstance(expression, str) or modifier in _PLACED or (isinstance(column, Column) and not column.nullable):
        return expression
    return nulls_first(expression) if modifier is operators.desc_op else nulls_last(expression)
