"""The app's own middleware."""

from .auth import AuditMiddleware

__all__ = ["AuditMiddleware"]
