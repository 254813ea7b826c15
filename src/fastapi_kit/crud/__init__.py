"""One service class per model, and what it needs to read and write."""

from fastapi_kit.crud.reading import ReadService
from fastapi_kit.crud.rows import FOR_UPDATE, RowLock
from fastapi_kit.crud.service import CRUDService

__all__ = ["FOR_UPDATE", "CRUDService", "ReadService", "RowLock"]
