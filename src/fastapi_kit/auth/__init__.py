"""Who makes a request, and what they may do, with the users of your application.

Seven rooms: ``passwords``, ``tokens``, ``logins``, ``api_keys``, ``second_factor``, ``users`` and ``requests``. The names that applications
use most are here. They are imported on first use (PEP 562), so that a script that creates tokens or hashes passwords loads neither FastAPI
nor SQLAlchemy.
"""

from typing import TYPE_CHECKING

from fastapi_kit._lazy import names_of

if TYPE_CHECKING:
    from fastapi_kit.auth.passwords.hasher import PasswordHasher
    from fastapi_kit.auth.passwords.policy import PasswordPolicy
    from fastapi_kit.auth.requests.cookies import CookieTransport
    from fastapi_kit.auth.requests.current_user import CurrentUserDependency, UserDependency, get_claims_factory, get_current_user_factory
    from fastapi_kit.auth.requests.guards import require, require_access
    from fastapi_kit.auth.requests.jwks import jwks_router
    from fastapi_kit.auth.requests.roles import Roles
    from fastapi_kit.auth.requests.transports import APIKeyTransport, BearerTransport, Transport
    from fastapi_kit.auth.requests.websocket import FirstMessageTransport, SubprotocolTransport, accept_websocket, while_logged_in
    from fastapi_kit.auth.tokens.claims import TokenClaims
    from fastapi_kit.auth.tokens.keys import Key, Keyring
    from fastapi_kit.auth.tokens.policy import TokenPolicy
    from fastapi_kit.auth.tokens.service import JWTService, TokenVerifier

__all__ = [
    "APIKeyTransport",
    "BearerTransport",
    "CookieTransport",
    "CurrentUserDependency",
    "FirstMessageTransport",
    "JWTService",
    "Key",
    "Keyring",
    "PasswordHasher",
    "PasswordPolicy",
    "Roles",
    "SubprotocolTransport",
    "TokenClaims",
    "TokenPolicy",
    "TokenVerifier",
    "Transport",
    "UserDependency",
    "accept_websocket",
    "get_claims_factory",
    "get_current_user_factory",
    "jwks_router",
    "require",
    "require_access",
    "while_logged_in",
]

_HOMES = {
    "passwords": ["PasswordHasher", "PasswordPolicy"],
    "requests": [
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
        "get_claims_factory",
        "get_current_user_factory",
        "jwks_router",
        "require",
        "require_access",
        "while_logged_in",
    ],
    "tokens": ["JWTService", "Key", "Keyring", "TokenClaims", "TokenPolicy", "TokenVerifier"],
}

# Hidden from the type checkers, which would otherwise accept any name.
if not TYPE_CHECKING:
    __getattr__ = names_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
