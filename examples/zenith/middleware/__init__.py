"""Middleware of this application."""

from .auth import AuditMiddleware

__all__ = ["AuditMiddleware"]
