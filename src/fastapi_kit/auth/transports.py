"""Another import path for the transports of ``fastapi_kit.auth.requests``."""

from fastapi_kit.auth.requests.cookies import CookieTransport
from fastapi_kit.auth.requests.transports import APIKeyTransport, BearerTransport, Transport
from fastapi_kit.auth.requests.websocket import FirstMessageTransport, SubprotocolTransport

__all__ = ["APIKeyTransport", "BearerTransport", "CookieTransport", "FirstMessageTransport", "SubprotocolTransport", "Transport"]
