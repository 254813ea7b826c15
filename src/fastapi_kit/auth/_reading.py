"""From a request to the claims of its token, read once."""

# No ``from __future__ import annotations`` here: FastAPI reads the signatures of the closures below.
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi.params import Depends
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_kit.auth.tokens import TokenClaims, TokenVerifier
from fastapi_kit.auth.transports import Transport
from fastapi_kit.errors import AuthenticationError, ConfigurationError, InsufficientScopeError

__all__ = ["check_scopes", "once", "reader", "scoped"]

ValueT = TypeVar("ValueT")

_Reader = Callable[..., Awaitable[TokenClaims | None]]
_MEMORY = "fastapi_kit.auth"
"""Key in the connection's scope: FastAPI calls a dependency once for every set of scopes, and those of two factories one by one."""


class _ClaimsReader(SecurityBase):
    """Asks *transports* in order. OpenAPI shows it as the scheme of the last one.

    It is never FastAPI's own scheme: what that would refuse differs from version to version.
    """

    def __init__(self, tokens: TokenVerifier, transports: Sequence[Transport], *, optional: bool) -> None:
        scheme = transports[-1].scheme
        self.model = scheme.model
        self.scheme_name = scheme.scheme_name
        self._tokens = tokens
        self._transports = tuple(transports)
        self._optional = optional

    async def __call__(self, connection: HTTPConnection) -> TokenClaims | None:
        """Return the claims of the first token found. Raises AuthenticationError without one, unless it is optional."""
        for transport in self._transports:
            claims = await once(connection, (self._tokens, transport), partial(transport.authenticate, connection, self._tokens))
            if claims is not None:
                return claims
        if not self._optional:
            raise AuthenticationError
        return None


def reader(tokens: TokenVerifier, transports: Sequence[Transport], *, optional: bool = False) -> _Reader:
    """Return the dependency that gives the claims of the first transport that has a token.

    Without a token it raises AuthenticationError, or gives None if it is *optional*. Raises ConfigurationError without a transport.
    """
    if not transports:
        raise ConfigurationError("without a transport no request has a token: leave transports= out for the Authorization header")
    read: _Reader = _ClaimsReader(tokens, transports, optional=optional)
    for count in range(len(transports) - 1, 0, -1):
        read = _after(_ClaimsReader(tokens, transports[:count], optional=True), read)
    return read


def _after(fewer: _Reader, read: _Reader) -> _Reader:
    # A dependency is one scheme in OpenAPI, so each transport needs a dependency. *read* has the last word: it asks all transports.
    async def read_claims(
        _: Annotated[TokenClaims | None, Depends(fewer)], claims: Annotated[TokenClaims | None, Depends(read)]
    ) -> TokenClaims | None:
        return claims

    return read_claims


def scoped(read: _Reader) -> Callable[..., Awaitable[TokenClaims]]:
    """Return the dependency that gives the claims of *read*, which must not be optional, if they have the scopes of ``Security``."""

    async def get_claims(claims: Annotated[TokenClaims, Depends(read)], needed: SecurityScopes) -> TokenClaims:
        check_scopes(claims, needed.scopes)
        return claims

    return get_claims


def check_scopes(claims: TokenClaims, needed: Iterable[str]) -> None:
    """Raise InsufficientScopeError, which names all that is *needed*."""
    if frozenset(needed) - claims.scopes:
        # RFC 6750, 3.
        raise InsufficientScopeError(frozenset(needed))


async def once(connection: HTTPConnection, key: object, make: Callable[[], Awaitable[ValueT]]) -> ValueT:
    """Return what *make* gives, made once in a request for all equal keys. A key may be unhashable."""
    made = _memory_of(connection.scope)
    for known, value in made:
        if known == key:
            found: ValueT = value
            return found
    value = await make()
    made.append((key, value))
    return value


def _memory_of(scope: MutableMapping[str, Any]) -> list[tuple[object, Any]]:
    # A request that a host makes of this one, by a copy of its scope, has headers of its own and must be nobody else's.
    kept: tuple[object, list[tuple[object, Any]]] = scope.get(_MEMORY, (None, []))
    if kept[0] is not scope["headers"]:
        kept = (scope["headers"], [])
        scope[_MEMORY] = kept
    return kept[1]
