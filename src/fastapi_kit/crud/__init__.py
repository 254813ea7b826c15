"""Services that read and write the rows of one model."""

from fastapi_kit.crud.filters import FilterSpec, KeysetSpec, QuerySpec, Where, any_of
from fastapi_kit.crud.locks import FOR_UPDATE, RowLock
from fastapi_kit.crud.reads import ReadService
from fastapi_kit.crud.service import CRUDService
from fastapi_kit.crud.sparse import SparseModel, SparseSpec

__all__ = [
    "FOR_UPDATE",
    "CRUDService",
    "FilterSpec",
    "KeysetSpec",
    "QuerySpec",
    "ReadService",
    "RowLock",
    "SparseModel",
    "SparseSpec",
    "Where",
    "any_of",
]
