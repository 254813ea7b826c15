"""Who is calling, and what may they do: around the host's own user model.

The names hosts type most, imported on first use (PEP 562), so that a script that makes tokens or hashes loads no web framework. Logins,
ready routes and schemas are modules of their own.
"""

from typing import TYPE_CHECKING

from fastapi_kit._lazy import names_of

if TYPE_CHECKING:
    from fastapi_kit.auth.dependencies import (
        UserDependency,
        get_claims_factory,
        get_current_user_factory,
        require,
        require_access,
    )
    from fastapi_kit.auth.keys import Key, Keyring
    from fastapi_kit.auth.passwords import PasswordHasher, PasswordPolicy
    from fastapi_kit.auth.tokens import JWTService, TokenClaims, TokenPolicy, TokenVerifier
    from fastapi_kit.auth.transports import BearerTransport, Transport

__all__ = [
    "BearerTransport",
    "JWTService",
    "Key",
    "Keyring",
    "PasswordHasher",
    "PasswordPolicy",
    "TokenClaims",
    "TokenPolicy",
    "TokenVerifier",
    "Transport",
    "UserDependency",
    "get_claims_factory",
    "get_current_user_factory",
    "require",
    "require_access",
]

_HOMES = {
    "dependencies": ["UserDependency", "get_claims_factory", "get_current_user_factory", "require", "require_access"],
    "keys": ["Key", "Keyring"],
    "passwords": ["PasswordHasher", "PasswordPolicy"],
    "tokens": ["JWTService", "TokenClaims", "TokenPolicy", "TokenVerifier"],
    "transports": ["BearerTransport", "Transport"],
}

# Hidden from the type checkers, for which a module with a __getattr__ has every name there is.
if not TYPE_CHECKING:
    __getattr__ = names_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
