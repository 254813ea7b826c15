"""The user of a request, and what the user may do: dependencies for FastAPI."""

from fastapi_kit.auth.requests.clients import client_of
from fastapi_kit.auth.requests.cookies import CookieTransport
from fastapi_kit.auth.requests.current_user import CurrentUserDependency, UserDependency, get_claims_factory, get_current_user_factory
from fastapi_kit.auth.requests.guards import require, require_access
from fastapi_kit.auth.requests.jwks import jwks_router
from fastapi_kit.auth.requests.roles import Roles
from fastapi_kit.auth.requests.transports import APIKeyTransport, BearerTransport, Transport
from fastapi_kit.auth.requests.websocket import FirstMessageTransport, SubprotocolTransport, accept_websocket, while_logged_in

__all__ = [
    "APIKeyTransport",
    "BearerTransport",
    "CookieTransport",
    "CurrentUserDependency",
    "FirstMessageTransport",
    "Roles",
    "SubprotocolTransport",
    "Transport",
    "UserDependency",
    "accept_websocket",
    "client_of",
    "get_claims_factory",
    "get_current_user_factory",
    "jwks_router",
    "require",
    "require_access",
    "while_logged_in",
]
