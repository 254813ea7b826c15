"""Translation of the errors of SQLAlchemy and the drivers to the library's errors."""

from fastapi_kit.db.errors.translate import as_kit_error, is_retryable
from fastapi_kit.db.errors.written import watch

__all__ = ["as_kit_error", "is_retryable", "watch"]
