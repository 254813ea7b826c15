"""Where a request carries its token. Each transport has its own entry in OpenAPI."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from fastapi.security import APIKeyHeader, OAuth2PasswordBearer
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_kit.auth.tokens.claims import TokenClaims
from fastapi_kit.auth.tokens.service import TokenVerifier
from fastapi_kit.errors import ConfigurationError, InvalidTokenError

__all__ = ["APIKeyTransport", "BearerTransport", "Transport", "is_word"]


def is_word(text: str) -> bool:
    """Return whether HTTP takes *text* for a name, such as that of a header (RFC 9110, 5.6.2)."""
    return re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", text, re.ASCII) is not None


class Transport(ABC):
    """Finds the token of a request. Subclass it for a place of your own, as a frozen dataclass if it has options."""

    @property
    @abstractmethod
    def scheme(self) -> SecurityBase | None:
        """The entry in OpenAPI. It is shown and never called. None for a transport that serves WebSockets only."""

    @property
    def challenge(self) -> str:
        """What ``WWW-Authenticate`` asks for if the request has no token in this place (RFC 9110, 11.6.1)."""
        return "Bearer"

    @abstractmethod
    async def authenticate(self, connection: HTTPConnection, tokens: TokenVerifier) -> TokenClaims | None:
        """Return the claims, or None if the request has no token in this place. Raises InvalidTokenError."""


@dataclass(frozen=True, kw_only=True)
class BearerTransport(Transport):
    """The header ``Authorization: Bearer`` (RFC 6750, 2.1), or with another word than Bearer.

    The case of the word does not matter. A header with another word, or no header, counts as no token. An empty token is rejected, and
    more than one ``Authorization`` header, too. Tokens in the query string or in a form are never read.

    Args:
        token_url: Where the login is, for the Authorize button of the docs. It is relative to the root of the server, also behind a proxy's
            prefix. With another word than Bearer the docs ask for the whole header instead.
        scopes: What each scope allows, as the docs show it.
        word: The word before the token.
        scheme_name: The name of the entry in OpenAPI. Without it, *word*.

    Raises:
        ConfigurationError: *word* is not one word (RFC 9110, 11.1).
    """

    token_url: str = "auth/login"
    scopes: Mapping[str, str] = field(default_factory=dict[str, str])
    word: str = "Bearer"
    scheme_name: str = ""

    def __post_init__(self) -> None:
        if not is_word(self.word):
            raise ConfigurationError(f"{self.word!r} cannot be the word before a token")

    @property
    def scheme(self) -> SecurityBase:
        """OAuth2 with a password form, which Swagger UI can fill in. For another word than Bearer, the whole header."""
        name = self.scheme_name or self.word
        if self.word.lower() == "bearer":
            return OAuth2PasswordBearer(self.token_url, scheme_name=name, scopes=dict(self.scopes), auto_error=False)
        return APIKeyHeader(name="Authorization", scheme_name=name, description=f"`{self.word}` and the token", auto_error=False)

    @property
    def challenge(self) -> str:
        """The word."""
        return self.word

    async def authenticate(self, connection: HTTPConnection, tokens: TokenVerifier) -> TokenClaims | None:
        """Return the claims of the header's token."""
        headers = connection.headers.getlist("authorization")
        if len(headers) > 1:
            raise InvalidTokenError("more than one Authorization header")
        word, _, token = headers[0].partition(" ") if headers else ("", "", "")
        return await tokens.verify(token.strip(" ")) if word.lower() == self.word.lower() else None


@dataclass(frozen=True, kw_only=True)
class APIKeyTransport(Transport):
    """An API key in a header. *keys* verifies it, not the verifier of the other transports.

    So a key is not accepted as a bearer token, and no token as a key. More than one header is rejected, and an empty one, too.

    Args:
        keys: An ``APIKeys``, or another verifier.
        header: The name of the header.
        scheme_name: The name of the entry in OpenAPI.

    Raises:
        ConfigurationError: *header* cannot be the name of a header, or is ``Authorization``.
    """

    keys: TokenVerifier
    header: str = "X-API-Key"
    scheme_name: str = "APIKey"

    def __post_init__(self) -> None:
        if not is_word(self.header) or self.header.lower() == "authorization":
            raise ConfigurationError(f"{self.header!r} cannot be the header of API keys")

    @property
    def scheme(self) -> SecurityBase:
        """The header."""
        return APIKeyHeader(name=self.header, scheme_name=self.scheme_name, auto_error=False)

    @property
    def challenge(self) -> str:
        """``ApiKey``."""
        return "ApiKey"

    async def authenticate(self, connection: HTTPConnection, tokens: TokenVerifier) -> TokenClaims | None:
        """Return the claims of the header's key."""
        headers = connection.headers.getlist(self.header)
        if len(headers) > 1:
            raise InvalidTokenError("more than one header with an API key")
        return await self.keys.verify(headers[0]) if headers else None
