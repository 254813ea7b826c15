"""Where a request carries its token. Each transport has its own entry in OpenAPI."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from fastapi.security import OAuth2PasswordBearer
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_kit.auth.tokens.claims import TokenClaims
from fastapi_kit.auth.tokens.service import TokenVerifier
from fastapi_kit.errors import InvalidTokenError

__all__ = ["BearerTransport", "Transport"]


class Transport(ABC):
    """Finds the token of a request. Subclass it for a place of your own, as a frozen dataclass if it has options."""

    @property
    @abstractmethod
    def scheme(self) -> SecurityBase:
        """The entry in OpenAPI. It is shown and never called."""

    @abstractmethod
    async def authenticate(self, connection: HTTPConnection, tokens: TokenVerifier) -> TokenClaims | None:
        """Return the claims, or None if the request has no token in this place. Raises InvalidTokenError."""


@dataclass(frozen=True, kw_only=True)
class BearerTransport(Transport):
    """The header ``Authorization: Bearer`` (RFC 6750, 2.1).

    The case of the word Bearer does not matter. A header with another word, or no header, counts as no token. Two bearer tokens, or an
    empty one, are rejected. Tokens in the query string or in a form are never read.

    Args:
        token_url: Where the login is, for the Authorize button of the docs. It is relative to the root of the server, also behind a proxy's
            prefix.
        scopes: What each scope allows, as the docs show it.
    """

    token_url: str = "auth/login"
    scopes: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def scheme(self) -> SecurityBase:
        """OAuth2 with a password form, which Swagger UI can fill in."""
        return OAuth2PasswordBearer(self.token_url, scheme_name="Bearer", scopes=dict(self.scopes), auto_error=False)

    async def authenticate(self, connection: HTTPConnection, tokens: TokenVerifier) -> TokenClaims | None:
        """Return the claims of the header's token."""
        found: list[str] = []
        for header in connection.headers.getlist("authorization"):
            word, _, token = header.partition(" ")
            if word.lower() == "bearer":
                found.append(token.strip(" "))
        if len(found) > 1:
            raise InvalidTokenError("more than one bearer token")
        return await tokens.verify(found[0]) if found else None
