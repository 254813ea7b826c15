"""Another import path for the names of ``fastapi_kit.auth.requests.transports``."""

from fastapi_kit.auth.requests.transports import BearerTransport, Transport

__all__ = ["BearerTransport", "Transport"]
