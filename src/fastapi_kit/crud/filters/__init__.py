"""Lists that a client may filter, search and sort: one declaration gives parameters, validation and SQL."""

from fastapi_kit.crud.filters.fields import Where
from fastapi_kit.crud.filters.operators import any_of
from fastapi_kit.crud.filters.specs import FilterSpec, KeysetSpec, QuerySpec

__all__ = ["FilterSpec", "KeysetSpec", "QuerySpec", "Where", "any_of"]
