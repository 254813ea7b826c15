"""Where a request carries its token. Each is tried in the order given; each has its own entry in OpenAPI."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from fastapi.security import OAuth2PasswordBearer
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_kit.auth.tokens import TokenClaims, TokenVerifier
from fastapi_kit.errors import InvalidTokenError

__all__ = ["BearerTransport", "Transport"]


class Transport(ABC):
    """Finds a token in a request. Subclass it for a place of the host's own: a frozen dataclass keeps its options."""

    @property
    @abstractmethod
    def scheme(self) -> SecurityBase:
        """Its entry in OpenAPI. It is shown and never called."""

    @abstractmethod
    async def authenticate(self, connection: HTTPConnection, tokens: TokenVerifier) -> TokenClaims | None:
        """Return the claims, or None if the request carries nothing here. Raises InvalidTokenError."""


@dataclass(frozen=True, kw_only=True)
class BearerTransport(Transport):
    """The ``Authorization: Bearer`` header (RFC 6750, 2.1); *token_url* and *scopes* make the docs' Authorize button work.

    *token_url* is relative to the root of the server, so that it holds behind a proxy's prefix too. The scheme's case does not matter;
    another scheme, or none, counts as no credentials. Two such headers, or one without a token, are refused. Tokens in the query
    string or in a form are never read.
    """

    token_url: str = "auth/login"
    scopes: Mapping[str, str] = field(default_factory=dict[str, str])
    """What each scope allows, as shown to people."""

    @property
    def scheme(self) -> SecurityBase:
        """OAuth2 with a password form, whose parts Swagger UI can fill in."""
        return OAuth2PasswordBearer(self.token_url, scheme_name="Bearer", scopes=dict(self.scopes), auto_error=False)

    async def authenticate(self, connection: HTTPConnection, tokens: TokenVerifier) -> TokenClaims | None:
        """Return the claims of the header's token."""
        found = [token for header in connection.headers.getlist("authorization") if (token := _bearer_token(header)) is not None]
        if len(found) > 1:
            raise InvalidTokenError("more than one bearer token")
        return await tokens.verify(found[0]) if found else None


def _bearer_token(header: str) -> str | None:
    scheme, _, token = header.partition(" ")
    return token.strip(" ") if scheme.lower() == "bearer" else None
