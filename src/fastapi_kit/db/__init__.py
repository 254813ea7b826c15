"""The data layer on SQLAlchemy, without FastAPI: engine and sessions, transactions, base class, mixins, column types."""

from fastapi_kit.db.base import NAMING_CONVENTION, Base
from fastapi_kit.db.database import Database, DatabaseOptions
from fastapi_kit.db.errors import as_kit_error
from fastapi_kit.db.hooks import on_commit
from fastapi_kit.db.mixins import TimestampMixin, UUIDv7Mixin
from fastapi_kit.db.transactions import UnitOfWork, run_transaction, typed_errors, unit_of_work
from fastapi_kit.db.types import UTCDateTime, uuid7

__all__ = [
    "NAMING_CONVENTION",
    "Base",
    "Database",
    "DatabaseOptions",
    "TimestampMixin",
    "UTCDateTime",
    "UUIDv7Mixin",
    "UnitOfWork",
    "as_kit_error",
    "on_commit",
    "run_transaction",
    "typed_errors",
    "unit_of_work",
    "uuid7",
]
