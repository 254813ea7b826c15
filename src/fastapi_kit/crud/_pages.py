"""From rows that were read to a page or a slice."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar, cast

from pydantic import BaseModel

from fastapi_kit.errors import ConfigurationError
from fastapi_kit.pagination import Page, PageParams, Slice

__all__ = ["Total", "page_of", "rows_to_count", "rows_to_read", "slice_of"]

SchemaT = TypeVar("SchemaT", bound=BaseModel)


def rows_to_read(query: PageParams) -> int:
    """Return how many rows a page of *query* reads: one more than it shows, if an inexact total does not tell whether there are more."""
    return query.limit + (query.max_total is not None)


def rows_to_count(query: PageParams) -> int | None:
    """Return how far rows are counted, or None for all of them. Raises ConfigurationError for a ``max_total`` less than 1."""
    cap = query.max_total
    if cap is not None and cap < 1:
        raise ConfigurationError("max_total must be at least 1: use slice_as() for a list that is not counted")
    return None if cap is None else cap + 1


class Total(NamedTuple):
    """The rows that were *counted*, and where that is not all, how many the database expects if it was asked."""

    counted: int
    expected: int | None = None


def page_of(schema: type[SchemaT], rows: Sequence[SchemaT], query: PageParams, total: Total) -> Page[SchemaT]:
    """Return the page of the first of *rows*."""
    cap, expected = query.max_total, total.expected
    is_capped = cap is not None and total.counted > cap
    least = max(total.counted, query.skip + len(rows) if rows else 0)
    return paged(schema).of(
        rows[: query.limit],
        skip=query.skip,
        limit=query.limit,
        total=max(expected, least) if expected is not None else cap if is_capped and cap is not None else total.counted,
        total_capped=is_capped and expected is None,
        total_is_estimate=expected is not None,
        has_more=None if cap is None else len(rows) > query.limit,
    )


def slice_of(schema: type[SchemaT], rows: Sequence[SchemaT], query: PageParams) -> Slice[SchemaT]:
    """Return the slice of all *rows* but the one that was read to know whether there are more."""
    has_more = len(rows) > query.limit
    return sliced(schema)(items=list(rows[: query.limit]), skip=query.skip, limit=query.limit, has_more=has_more)


@lru_cache(maxsize=512)
def paged(schema: type[SchemaT]) -> type[Page[SchemaT]]:
    return cast("type[Page[SchemaT]]", Page.__class_getitem__(schema))


@lru_cache(maxsize=512)
def sliced(schema: type[SchemaT]) -> type[Slice[SchemaT]]:
    return cast("type[Slice[SchemaT]]", Slice.__class_getitem__(schema))
